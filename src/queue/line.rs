//! The line: what all facts so far come to.
//!
//! [`Line::apply`] is the only way this state changes, live and on replay. It never fails: a fact
//! that may not count counts nowhere and is named in the [`Change`]. What comes and goes is in
//! `attendance`, what was decided in `decisions`.

#![expect(
    clippy::indexing_slicing,
    reason = "tickets are dense: every ticket is an index of `places`"
)]

use std::collections::BTreeSet;

use crate::queue::event;
use crate::queue::event::{
    At, Decision, Entry, Level, PublicKey, SecretId, Seq, State, Ticket, VisitorId,
};
use crate::queue::grants::Grants;
use crate::queue::index::VisitorIndex;
use crate::queue::places::Places;
use crate::queue::policy::Policy;
use crate::queue::presence::{Graces, Nodes};
use crate::queue::rate::Rate;
use crate::queue::time::LogTime;

pub use crate::queue::change::{Came, Change, Joins, Shift, VoidEntry, VoidFact};
pub use crate::queue::checkpoint::Head;
pub use crate::queue::place::{End, Grant, Place, Redemption, Standing};

/// A rate that follows the load of the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follows {
    /// People a minute, as last decided.
    pub per_minute: u32,
    /// When that was.
    pub at: At,
}

/// Whether it is written down who comes and goes, and since when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// Whether it is.
    pub state: event::Presence,
    /// The log's time when that was last changed.
    pub since: At,
}

/// The state of one queue after the entry `seq`.
#[derive(Debug, Default)]
pub struct Line {
    pub(super) seq: Seq,
    pub(super) level: Level,
    pub(super) time: LogTime,
    pub(super) last_decision: Seq,
    pub(super) policy: Policy,
    pub(super) follows: Option<Follows>,
    pub(super) state: State,
    pub(super) reason: Option<String>,
    pub(super) secret: Option<SecretId>,
    pub(super) keys: Vec<PublicKey>,
    pub(super) presence: Presence,
    pub(super) places: Vec<Place>,
    pub(super) index: VisitorIndex,
    pub(super) grants: Grants,
    pub(super) waiting: Places,
    pub(super) present: Places,
    pub(super) nodes: Nodes,
    pub(super) graces: Graces,
    /// Grants not used yet, by the running time at which they lapse.
    pub(super) unused: BTreeSet<(At, Ticket)>,
    /// People inside, by the end of their pass.
    pub(super) inside: BTreeSet<(At, Ticket)>,
    /// The rate limiter's theoretical arrival time (GCRA): when the next grant is due.
    pub(super) next_due: At,
}

impl Line {
    /// The level to which this entry raises the log, if it is the next one and counts. A reader that
    /// does not know that level must not apply it, nor anything behind it.
    pub fn raised_by(&self, entry: &Entry) -> Option<Level> {
        let Entry::Decided(decision) = entry else { return None };
        let event::Facts::Raised(level, _) = &decision.facts else { return None };
        let seq = Seq(self.seq.0 + 1);
        let counts = self.why_void(decision, seq, self.last_decision).is_none();
        counts.then_some(*level)
    }

    /// Applies one entry. `seq` is the next one of the log; `stored` its store time.
    ///
    /// # Panics
    /// When entries don't arrive in order, without a gap: the reader of the log sees to that.
    pub fn apply(&mut self, seq: Seq, stored: At, entry: &Entry) -> Change {
        assert_eq!(seq.0, self.seq.0 + 1, "entries arrive in order and without a gap");
        self.seq = seq;
        let mut change = Change::default();
        if let Entry::Decided(decision) = entry {
            self.decided(stored, decision, &mut change);
            return change;
        }
        self.time.pass(stored);
        match entry {
            Entry::Joined(joined) => self.join(joined, &mut change),
            Entry::Reconnected(reconnected) => self.reconnect(reconnected, &mut change),
            Entry::Disconnected(disconnected) => self.disconnect(disconnected, &mut change),
            Entry::Left(visitors) => self.leave(visitors, &mut change),
            Entry::Void { fenced } => {
                change.void_entry = Some(VoidEntry::Unreadable);
                if *fenced {
                    self.last_decision = seq;
                }
            }
            Entry::Decided(_) => {}
        }
        change
    }

    /// Why a decision at this place counts nowhere, where `fence` is the admission entry before it.
    pub(super) fn why_void(&self, decision: &Decision, seq: Seq, fence: Seq) -> Option<VoidEntry> {
        if decision.prev != fence {
            return Some(VoidEntry::WrongPrev);
        }
        if decision.basis < fence || decision.basis >= seq {
            return Some(VoidEntry::WrongBasis);
        }
        let raised = match &decision.facts {
            event::Facts::Raised(level, _) => Some(*level),
            event::Facts::Configured(_)
            | event::Facts::Admitted(_)
            | event::Facts::Redeemed(_)
            | event::Facts::Released(_)
            | event::Facts::Expired(_)
            | event::Facts::Removed(_)
            | event::Facts::NodeLost(_) => None,
        };
        let is_wrong = raised.is_some_and(|level| level != self.level.next());
        is_wrong.then_some(VoidEntry::WrongLevel)
    }

    /// The last entry applied.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// The rules that are in force.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The log's time after the last entry, never going back.
    pub fn at(&self) -> At {
        self.time.now
    }

    /// The log's time, and how far the servers' clocks are from it.
    pub fn time(&self) -> &LogTime {
        &self.time
    }

    /// The last entry on an admission subject: what the next decision is fenced on.
    pub fn last_decision(&self) -> Seq {
        self.last_decision
    }

    /// The policy in force.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// How many people are let in a minute now: the policy's rate, or fewer while the site says so.
    pub fn rate(&self) -> Rate {
        let most = self.policy.rate_per_minute;
        Rate(self.follows.map_or(most, |follows| follows.per_minute.min(most)))
    }

    /// How the rate follows the site's load; `None` while it does not.
    pub fn follows(&self) -> Option<Follows> {
        self.follows
    }

    /// The state of the queue.
    pub fn state(&self) -> State {
        self.state
    }

    /// What the operator tells visitors about the state.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// The public keys that tokens and passes may be signed with.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// The secret that visitors' names come of.
    pub fn secret(&self) -> Option<SecretId> {
        self.secret
    }

    /// Whether it is written down who comes and goes.
    pub fn presence(&self) -> Presence {
        self.presence
    }

    /// Every place ever given, by ticket.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// The ticket of a visitor.
    pub fn ticket(&self, visitor: VisitorId) -> Option<Ticket> {
        self.index.find(visitor, &self.places)
    }

    /// The place with this ticket.
    pub fn place(&self, ticket: Ticket) -> Option<&Place> {
        self.places.get(ticket.0 as usize)
    }

    /// The grant of the visitor with this ticket.
    pub fn grant(&self, ticket: Ticket) -> Option<&Grant> {
        self.grants.get(ticket)
    }

    /// Who waits, present or not.
    pub fn waiting(&self) -> &Places {
        &self.waiting
    }

    /// Who waits and is here.
    pub fn present(&self) -> &Places {
        &self.present
    }

    /// The nodes, and whom they hold.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// The graces that run.
    pub fn graces(&self) -> &Graces {
        &self.graces
    }

    /// Grants not used yet, by the running time at which they lapse.
    pub fn unused(&self) -> &BTreeSet<(At, Ticket)> {
        &self.unused
    }

    /// People inside, by the end of their pass.
    pub fn inside(&self) -> &BTreeSet<(At, Ticket)> {
        &self.inside
    }

    /// How many people have been let in: those who missed their turn and wait again not among them.
    pub fn admitted(&self) -> usize {
        self.grants.len()
    }

    /// How many grants were made since the line was begun or restored, those of missed turns too.
    pub fn grants_made(&self) -> usize {
        self.grants.made()
    }

    /// Whether someone who was let in has missed their turn without seeing it, and is to have another:
    /// the grant has lapsed at this running time, and they were not here since it was made.
    pub fn has_missed_turn(&self, ticket: Ticket, running: At) -> bool {
        let Some((place, grant)) = self.place(ticket).zip(self.grant(ticket)) else { return false };
        let Some(absent) = place.absent().filter(|_| place.standing == Standing::Granted) else {
            return false;
        };
        // A grant lapses so many seconds after the running time at which it was made.
        let unseen =
            absent.plus_seconds(grant.seconds) <= grant.lapses.plus_seconds(UNSEEN_SECONDS);
        running >= grant.lapses
            && unseen
            && place.came < grant.seq
            && place.misses() < self.policy.missed_turns
    }

    /// For how many seconds the place of someone is kept who is absent since this running time.
    pub fn grace_seconds(&self, since: At) -> u32 {
        self.graces.seconds(since, self.policy.reconnect_seconds)
    }

    /// When the next grant is due by the rate alone (GCRA's theoretical arrival time).
    pub fn next_due(&self) -> At {
        self.next_due
    }

    pub(super) fn place_mut(&mut self, ticket: Ticket) -> &mut Place {
        &mut self.places[ticket.0 as usize]
    }

    #[expect(clippy::cast_possible_truncation, reason = "a log of 4 billion joins is not kept")]
    pub(super) fn next_ticket(&self) -> Ticket {
        Ticket(self.places.len() as u32)
    }

    /// Has what an entry's facts will read of these visitors at hand. It changes nothing.
    pub(super) fn warm(&self, visitors: impl Iterator<Item = VisitorId>) {
        self.index.warm(visitors, &self.places);
    }

    /// Whether the visitor still has something to be present for: a turn to come, or a token.
    pub(super) fn is_held_or_waited_for(&self, ticket: Ticket) -> bool {
        matches!(self.places[ticket.0 as usize].standing, Standing::Waiting | Standing::Granted)
    }

    /// The running time now.
    pub(super) fn running(&self) -> At {
        self.graces.running(self.time.now)
    }

    pub(super) fn end(&mut self, ticket: Ticket, end: End, change: &mut Change) {
        self.hold_no_longer(ticket);
        self.stop_waiting(ticket);
        if let Some(grant) = self.grants.get(ticket) {
            self.unused.remove(&(grant.lapses, ticket));
            if let Some(redemption) = &grant.redeemed {
                self.inside.remove(&(redemption.at.plus_seconds(redemption.seconds), ticket));
            }
        }
        self.place_mut(ticket).standing = Standing::Ended(end);
        change.ended.push((ticket, end));
    }
}

/// Someone who went within so many seconds of the grant may not have seen it.
const UNSEEN_SECONDS: u32 = 15;
