//! A row of the hall: the visitors of one queue whom one pusher tells, in the order of their tickets.
//!
//! The row is walked from the front when something moved, and at least each [`LOOK_EVERY_MILLIS`]. A walk
//! goes in steps, between which the pusher hears its sockets, and what is new meanwhile is told to the
//! front before it goes on. The next walk tells it to those who were passed already.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::node::Queue;
use crate::node::hall::cadence::{self, Due, Numbers, Since};
use crate::node::hall::slots::{Slot, Slots, Stage};
use crate::node::places::{Prospect, View, Words};
use crate::queue::estimate::Turn;
use crate::queue::event::Ticket;

/// Every visitor is looked at this often, though nothing moved: for those who are silent, take
/// nothing, or are owed a sign of life.
const LOOK_EVERY_MILLIS: u32 = 1_000;
/// Visitors looked at in one step: about 50 µs, for which the replica is held.
const LOOKED_AT_MAX: usize = 1_024;
/// Visitors told in one step: some 2 ms, after which the sockets are heard.
pub(super) const TOLD_MAX: usize = 256;

/// A socket is asked for a sign of life, and told its numbers, after this; with its jitter and
/// [`LOOK_EVERY_MILLIS`] before twenty seconds are over.
const KEEP_ALIVE_MILLIS: u32 = 15_000;
/// A socket without any sign of life for this long is gone: it has missed three questions.
const SILENCE_MILLIS_MAX: u32 = 65_000;
/// One that takes nothing for this long is let go; they come back when they can read.
const BLOCKED_MILLIS_MAX: u32 = 10_000;

/// One row.
pub(super) struct Row {
    pub(super) queue: Arc<Queue>,
    by_ticket: BTreeMap<Ticket, u32>,
    /// When the newest news came.
    moved: Instant,
    words: Words,
    /// What was to be expected when somebody was last looked at.
    prospect: Prospect,
    version: u32,
    /// The front is to be told what is new.
    is_front_due: bool,
    /// Where the walk goes on; none between two walks.
    next: Option<Ticket>,
    /// When the last walk began, and the last one that had something to tell.
    walked_at: u32,
    told_at: u32,
    /// Whether the walk began with news.
    is_news: bool,
    /// Somebody has news coming that they are not told yet.
    owes: bool,
}

/// What is to be done about one socket.
pub(super) enum Act {
    /// Tell the numbers.
    Tell(Numbers),
    /// Ask for a sign of life, and tell the numbers of one who waits.
    KeepAlive(Option<Numbers>),
    /// It is gone without a word.
    Silent,
    /// It takes nothing.
    Blocked,
}

impl Row {
    pub(super) fn new(queue: Arc<Queue>, now: u32) -> Self {
        let moved = *queue.moved.borrow();
        let words = queue.view().words();
        let (by_ticket, version, prospect) = (BTreeMap::new(), 0, Prospect::default());
        Self {
            queue,
            by_ticket,
            moved,
            words,
            prospect,
            version,
            is_front_due: false,
            next: None,
            walked_at: now,
            told_at: now.wrapping_sub(cadence::WALK_EVERY_MILLIS),
            is_news: false,
            owes: false,
        }
    }

    /// Puts a visitor's slot into the row; the slot that they had in it before.
    pub(super) fn insert(&mut self, ticket: Ticket, slot: u32) -> Option<u32> {
        self.by_ticket.insert(ticket, slot)
    }

    /// Takes a visitor's slot out of the row, unless they have another.
    pub(super) fn remove(&mut self, ticket: Ticket, slot: u32) {
        if self.slot(ticket) == Some(slot) {
            self.by_ticket.remove(&ticket);
        }
    }

    /// The slot of a visitor.
    pub(super) fn slot(&self, ticket: Ticket) -> Option<u32> {
        self.by_ticket.get(&ticket).copied()
    }

    /// All slots.
    pub(super) fn slots(&self) -> Vec<u32> {
        self.by_ticket.values().copied().collect()
    }

    /// What all are told alike.
    pub(super) fn words(&self) -> &Words {
        &self.words
    }

    /// Sees whether there is news, and begins a walk if it is time for one.
    pub(super) fn look(&mut self, now: u32) {
        let moved = *self.queue.moved.borrow();
        let is_news = moved != self.moved;
        if is_news {
            self.moved = moved;
            self.is_front_due = true;
            self.owes = true;
            let words = self.queue.view().words();
            if words != self.words {
                self.words = words;
                self.version = self.version.wrapping_add(1);
            }
        }
        if self.next.is_none() && self.until_walk(now) == 0 {
            self.next = Some(Ticket(0));
            self.walked_at = now;
            self.is_news = is_news;
            self.is_front_due = false;
            if std::mem::take(&mut self.owes) {
                self.told_at = now;
            }
        }
    }

    /// Milliseconds until the row is to be looked at; 0 while it is being walked.
    pub(super) fn wait(&self, now: u32) -> u32 {
        if self.is_front_due || self.next.is_some() { 0 } else { self.until_walk(now) }
    }

    fn until_walk(&self, now: u32) -> u32 {
        let until = |every: u32, last: u32| every.saturating_sub(now.wrapping_sub(last));
        let look = until(LOOK_EVERY_MILLIS, self.walked_at);
        if self.owes { until(cadence::WALK_EVERY_MILLIS, self.told_at).min(look) } else { look }
    }

    /// What was to be expected when somebody was last looked at.
    pub(super) fn prospect(&self) -> &Prospect {
        &self.prospect
    }

    /// Where someone stands, who was told `before`; none for one who does not wait any more, or not yet
    /// as far as is known.
    pub(super) fn numbers(&mut self, ticket: Ticket, before: Option<Turn>) -> Option<Numbers> {
        let view = self.queue.view();
        self.prospect = view.prospect();
        numbers(&view, &self.prospect, self.version, ticket, before)
    }

    /// What is to be done now, for which slots: for the front if there is news for it, and one step of
    /// the walk. Since when that is known which is told, if it is told as soon as it can be.
    pub(super) fn step(
        &mut self,
        slots: &mut Slots,
        now: u32,
        acts: &mut Vec<(u32, Act)>,
    ) -> Option<Instant> {
        if std::mem::take(&mut self.is_front_due) {
            self.walk(Ticket(0), cadence::FRONT_PLACES, slots, now, acts);
            return Some(self.moved);
        }
        let from = self.next.take()?;
        self.next = self.walk(from, u32::MAX, slots, now, acts);
        self.is_news.then_some(self.moved)
    }

    /// Looks at visitors from a ticket on, while they have at most so many places ahead; where it stopped
    /// because it was enough for one step.
    fn walk(
        &mut self,
        from: Ticket,
        places: u32,
        slots: &mut Slots,
        now: u32,
        acts: &mut Vec<(u32, Act)>,
    ) -> Option<Ticket> {
        let view = self.queue.view();
        self.prospect = view.prospect();
        let mut owes = false;
        let mut next = None;
        for (looked_at, (ticket, number)) in self.by_ticket.range(from..).enumerate() {
            if looked_at == LOOKED_AT_MAX || acts.len() >= TOLD_MAX {
                next = Some(*ticket);
                break;
            }
            let Some(slot) = slots.get(*number) else { continue };
            let numbers = numbers(&view, &self.prospect, self.version, *ticket, slot.told_turn());
            if numbers.is_some_and(|numbers| numbers.point.ahead > places) {
                break;
            }
            match act(slot, *ticket, numbers, now) {
                Ok(Some(act)) => acts.push((*number, act)),
                Ok(None) => {}
                Err(Owed) => owes = true,
            }
        }
        drop(view);
        self.owes |= owes;
        next
    }
}

fn numbers(
    view: &View,
    prospect: &Prospect,
    words: u32,
    ticket: Ticket,
    before: Option<Turn>,
) -> Option<Numbers> {
    view.standpoint(ticket, before, prospect).map(|point| Numbers { point, words })
}

/// There is news that is not to be told yet.
struct Owed;

fn act(
    slot: &Slot,
    ticket: Ticket,
    numbers: Option<Numbers>,
    now: u32,
) -> Result<Option<Act>, Owed> {
    let since = |instant: u32| now.wrapping_sub(instant);
    if slot.blocked_since().is_some_and(|blocked| since(blocked) > BLOCKED_MILLIS_MAX) {
        return Ok(Some(Act::Blocked));
    }
    if since(slot.heard_at) > SILENCE_MILLIS_MAX {
        return Ok(Some(Act::Silent));
    }
    // The newest numbers are told when the socket takes something again.
    if slot.blocked_since().is_some() || slot.stage != Stage::Here {
        return Ok(None);
    }
    if since(slot.pinged_at) >= cadence::with_jitter(KEEP_ALIVE_MILLIS, ticket) {
        return Ok(Some(Act::KeepAlive(numbers)));
    }
    let Some(numbers) = numbers else { return Ok(None) };
    let since = Since { place: since(slot.placed_at), any: since(slot.told_at) };
    let due = slot.told.map_or(Due::Now, |told| cadence::due(ticket, &told, &numbers, since));
    match due {
        Due::Now => Ok(Some(Act::Tell(numbers))),
        Due::Later => Err(Owed),
        Due::Never => Ok(None),
    }
}
