//! A row of the hall: the visitors of one queue whom one pusher tells, in the order of their tickets.
//!
//! The row is walked from the front whenever something moved, and at least each [`LOOK_EVERY`]. A walk
//! goes in steps, between which the pusher hears its sockets; what is new meanwhile begins it anew, so
//! that the front is first. Those further back lose nothing by that: whoever was just told is passed
//! over in nanoseconds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::node::Queue;
use crate::node::hall::cadence::{self, Due, Numbers};
use crate::node::hall::slots::{Slot, Slots, Stage};
use crate::node::places::{View, Words};
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
    /// When the news came that is told now.
    moved: Instant,
    words: Words,
    version: u32,
    /// Where the walk goes on; none between two walks.
    next: Option<Ticket>,
    /// When the last walk began.
    walked_at: u32,
    /// Whether it began with news.
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
        let (by_ticket, version) = (BTreeMap::new(), 0);
        let (next, walked_at, is_news, owes) = (None, now, false, false);
        Self { queue, by_ticket, moved, words, version, next, walked_at, is_news, owes }
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

    /// Since when that is known which is told now; none where those are told who had to wait for it.
    pub(super) fn news_since(&self) -> Option<Instant> {
        self.is_news.then_some(self.moved)
    }

    /// What all are told alike.
    pub(super) fn words(&self) -> &Words {
        &self.words
    }

    /// Begins a walk if there is a reason to.
    pub(super) fn look(&mut self, now: u32) {
        let moved = *self.queue.moved.borrow();
        let news = moved != self.moved;
        if news || self.next.is_none() && self.wait(now) == 0 {
            self.moved = moved;
            self.is_news = news;
            self.next = Some(Ticket(0));
            self.walked_at = now;
            self.owes = false;
            let words = self.queue.view().words();
            if words != self.words {
                self.words = words;
                self.version = self.version.wrapping_add(1);
            }
        }
    }

    /// Milliseconds until the row is to be looked at; 0 while it is being walked.
    pub(super) fn wait(&self, now: u32) -> u32 {
        if self.next.is_some() {
            return 0;
        }
        let tick = u32::try_from(cadence::TICK.as_millis()).unwrap_or(u32::MAX);
        let every = if self.owes { tick } else { LOOK_EVERY_MILLIS };
        every.saturating_sub(now.wrapping_sub(self.walked_at))
    }

    /// Where someone stands; none for one who does not wait any more, or not yet as far as is known.
    pub(super) fn numbers(&self, view: &View, ticket: Ticket) -> Option<Numbers> {
        view.standpoint(ticket).map(|point| Numbers { point, words: self.version })
    }

    /// One step of the walk: what is to be done, for which slot.
    pub(super) fn step(&mut self, slots: &mut Slots, now: u32, acts: &mut Vec<(u32, Act)>) {
        let Some(from) = self.next else { return };
        let view = self.queue.view();
        let (mut looked_at, mut owes) = (0, false);
        let mut next = None;
        for (ticket, number) in self.by_ticket.range(from..) {
            if looked_at == LOOKED_AT_MAX || acts.len() >= TOLD_MAX {
                next = Some(*ticket);
                break;
            }
            looked_at += 1;
            let Some(slot) = slots.get(*number) else { continue };
            let numbers = self.numbers(&view, *ticket);
            match act(slot, *ticket, numbers, now) {
                Ok(Some(act)) => acts.push((*number, act)),
                Ok(None) => {}
                Err(Owed) => owes = true,
            }
        }
        drop(view);
        self.next = next;
        self.owes |= owes;
    }
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
    if slot.blocked_since.is_some_and(|blocked| since(blocked) > BLOCKED_MILLIS_MAX) {
        return Ok(Some(Act::Blocked));
    }
    if since(slot.heard_at) > SILENCE_MILLIS_MAX {
        return Ok(Some(Act::Silent));
    }
    // The newest numbers are told when the socket takes something again.
    if slot.blocked_since.is_some() || slot.stage != Stage::Here {
        return Ok(None);
    }
    if since(slot.pinged_at) >= cadence::with_jitter(KEEP_ALIVE_MILLIS, ticket) {
        return Ok(Some(Act::KeepAlive(numbers)));
    }
    let Some(numbers) = numbers else { return Ok(None) };
    let due = slot
        .told
        .map_or(Due::Now, |told| cadence::due(ticket, &told, &numbers, since(slot.told_at)));
    match due {
        Due::Now => Ok(Some(Act::Tell(numbers))),
        Due::Later => Err(Owed),
        Due::Never => Ok(None),
    }
}
