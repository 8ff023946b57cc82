//! The facts of a log read a second time, naively: people in a list, one after the other, and what
//! each fact does to them, written down from `schemas/README.md`. Nothing of the live fold is used
//! here, so that a mistake in it can't hide itself; a test keeps it so.
//!
//! Here is what is known and how an entry is taken up; what nodes said is in `who`, what was decided
//! in `decided`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::audit::graces::Graces;
use crate::audit::times::{Times, Told};
use crate::log::record::{Halt, Record, Written};
use crate::queue::event::{
    Configured, Decision, Entry, Facts, Jti, Level, NodeId, Presence, PublicKey, SecretId, State,
    VisitorId,
};
use crate::queue::policy::Policy;

/// Someone who has a place, from the join for good. Their index in the list is their ticket.
#[derive(Clone, Debug)]
pub(super) struct Person {
    pub(super) visitor: VisitorId,
    pub(super) joined: u64,
    /// The last entry by which they became present.
    pub(super) came: u64,
    /// Their latest socket: the number of its node, and the node's number for it.
    pub(super) socket: (u32, u64),
    /// Which of the sockets that their client opened that is; 0 when it did not say.
    pub(super) opened: u32,
    /// The hand that holds the place.
    pub(super) hand: u32,
    /// How often they came back.
    pub(super) returns: u16,
    /// How many turns they missed.
    pub(super) misses: u8,
    pub(super) lane: u8,
    /// Since when they are absent, in running time.
    pub(super) absent: Option<i64>,
    pub(super) standing: Standing,
    pub(super) grant: Option<Grant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Waiting,
    Granted,
    Inside,
    Ended(Ending),
}

/// How a place ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Left,
    Expired,
    Removed,
    Lapsed,
    Released,
    SessionOver,
}

#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) jti: Jti,
    pub(super) kid: String,
    pub(super) seconds: u32,
    pub(super) seq: u64,
    pub(super) at: i64,
    /// The running time at which it was made.
    pub(super) made: i64,
    /// When it lapses unless it is used, in running time.
    pub(super) lapses: i64,
    pub(super) used: Option<Used>,
}

#[derive(Clone, Debug)]
pub(super) struct Used {
    pub(super) seq: u64,
    pub(super) at: i64,
    pub(super) kid: String,
    pub(super) seconds: u32,
    pub(super) key: Option<[u8; 32]>,
}

/// What one entry did.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// Who moved, in the order of the facts.
    pub(super) moves: Vec<(usize, Move)>,
    /// What was set.
    pub(super) settings: Vec<Configured>,
    /// How the log's time was moved.
    pub(super) shift: Option<Told>,
    /// The level that the log was raised to, and by whom.
    pub(super) raised: Option<(Level, String)>,
    /// What counts nowhere, in words; with the number of the fact unless it is the whole entry.
    pub(super) void: Vec<(Option<usize>, String)>,
    /// What is worth knowing though nothing is wrong with it.
    pub(super) notes: Vec<(Option<usize>, String)>,
    /// Promises that were broken, in words.
    pub(super) violations: Vec<String>,
}

/// What happened to one person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    Joined,
    Came(Coming),
    Went,
    /// A seat that another node had for them counts no more: they came elsewhere since.
    Yielded,
    Admitted,
    Entered,
    /// They were let in, did not see it, and wait again.
    Missed,
    Ended(Ending),
}

/// How someone became present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coming {
    /// They came back.
    Back,
    /// They took the place to another device.
    Carried,
    /// They had been noted as absent, and their node says that they are here.
    Asserted,
    /// Nobody is noted as absent for now.
    Assumed,
}

/// A queue as its log tells it, up to an entry.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) seq: u64,
    pub(super) level: Level,
    pub(super) times: Times,
    pub(super) last_decision: u64,
    pub(super) policy: Policy,
    /// What earlier policies said of how long a place is kept.
    pub(super) graces: Graces,
    /// People a minute while the rate follows the site's load, and when that was decided.
    pub(super) follows: Option<(u32, i64)>,
    /// Whether it is written down who comes and goes, and when that was last changed.
    pub(super) presence: (Presence, i64),
    pub(super) state: State,
    pub(super) reason: Option<String>,
    pub(super) secret: Option<SecretId>,
    pub(super) keys: Vec<PublicKey>,
    pub(super) nodes: Vec<NodeId>,
    /// When the rate allows the next grant.
    pub(super) next_due: i64,
    pub(super) people: Vec<Person>,
    /// Nobody with a lower ticket waits.
    pub(super) front: usize,
    /// How many have a grant that is not used, or are inside.
    pub(super) inside: u32,
    /// Tickets of those who wait and are present.
    pub(super) here: BTreeSet<usize>,
    /// Since the last decision: at which entry who became present or absent, and what they were
    /// before. A decision's `basis` is not older.
    pub(super) flips: VecDeque<(u64, usize, bool)>,
    /// Nobody is absent since later than this running time.
    pub(super) latest_absence: i64,
    /// The ticket of each visitor.
    pub(super) tickets: BTreeMap<VisitorId, usize>,
    /// The number of each node.
    pub(super) numbers: BTreeMap<NodeId, u32>,
    /// Whose each grant is, by its name.
    pub(super) jtis: BTreeMap<Jti, usize>,
}

impl Reading {
    /// Reads the next entry, unless it raises the log to a level above `newest`: what follows that is
    /// read by rules that are not known here.
    pub(super) fn next(
        &mut self,
        record: &Record,
        written: &Written,
        newest: Level,
    ) -> Result<Step, Halt> {
        let (entry, unreadable) = written.at_level(self.level);
        let raised = self.raised_by(record.seq.0, entry);
        if let Some(level) = raised.filter(|level| *level > newest) {
            return Err(Halt::Level { seq: record.seq, level });
        }
        let mut step = Step::default();
        if let Some(why) = unreadable {
            step.void.push((None, format!("it can't be read: {why}")));
        }
        self.read(record.seq.0, record.stored.0, entry, &mut step);
        Ok(step)
    }

    /// What time is shown for an entry that comes next.
    pub(super) fn shown_after(&self, record: &Record, written: &Written) -> i64 {
        let (entry, _) = written.at_level(self.level);
        self.times_after(record.seq.0, record.stored.0, entry).0.shown()
    }

    /// The ticket of a visitor.
    pub(super) fn ticket(&self, visitor: VisitorId) -> Option<usize> {
        self.tickets.get(&visitor).copied()
    }

    /// The person with this ticket.
    pub(super) fn person(&self, ticket: usize) -> Option<&Person> {
        self.people.get(ticket)
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.people.iter().filter(|person| person.standing == Standing::Waiting).count()
    }

    /// How many of those who wait have a lower ticket.
    pub(super) fn ahead_of(&self, ticket: usize) -> usize {
        let before = self.people.iter().take(ticket);
        before.filter(|person| person.standing == Standing::Waiting).count()
    }

    /// For how many seconds the place of someone is kept who is absent since this running time.
    pub(super) fn grace_seconds(&self, since: i64) -> u32 {
        self.graces.longest(since, self.policy.reconnect_seconds)
    }

    fn read(&mut self, seq: u64, stored: i64, entry: &Entry, step: &mut Step) {
        let stood = self.times.running();
        let (times, told) = self.times_after(seq, stored, entry);
        (self.seq, self.times) = (seq, times);
        match entry {
            Entry::Joined(joined) => self.joined(joined, step),
            Entry::Reconnected(reconnected) => self.reconnected(reconnected, step),
            Entry::Disconnected(disconnected) => self.disconnected(disconnected, step),
            Entry::Left(visitors) => self.left(visitors, step),
            Entry::Decided(decision) => {
                match (told, self.why_void(seq, decision)) {
                    (Some(told), None) => {
                        self.time_told(told, stood, decision.worker, step);
                        self.decided(decision, step);
                    }
                    (_, why) => step.void.extend(why.map(|why| (None, why))),
                }
                self.decision_stands_here();
            }
            Entry::Void { fenced: true } => self.decision_stands_here(),
            Entry::Void { fenced: false } => {}
        }
    }

    /// The times after this entry, if it comes next; and what it did to them as a decision that stands.
    fn times_after(&self, seq: u64, stored: i64, entry: &Entry) -> (Times, Option<Told>) {
        let mut times = self.times;
        match entry {
            Entry::Decided(decision) if self.why_void(seq, decision).is_none() => {
                let told = times.decision(stored, decision.now);
                (times, Some(told))
            }
            Entry::Decided(_)
            | Entry::Joined(_)
            | Entry::Reconnected(_)
            | Entry::Disconnected(_)
            | Entry::Left(_)
            | Entry::Void { .. } => {
                times.pass(stored);
                (times, None)
            }
        }
    }

    /// The level that an entry raises the log to, if it comes next and counts.
    fn raised_by(&self, seq: u64, entry: &Entry) -> Option<Level> {
        let Entry::Decided(decision) = entry else { return None };
        let Facts::Raised(level, _) = &decision.facts else { return None };
        self.why_void(seq, decision).is_none().then_some(*level)
    }

    /// Why a decision at this place does not stand.
    fn why_void(&self, seq: u64, decision: &Decision) -> Option<String> {
        let (prev, basis, before) = (decision.prev.0, decision.basis.0, self.last_decision);
        if prev != before {
            return Some(format!(
                "it was fenced on entry {prev}, and the decision before it is entry {before}"
            ));
        }
        if basis < prev || basis >= seq {
            return Some(format!(
                "its basis, entry {basis}, is not between entry {prev} and itself"
            ));
        }
        let Facts::Raised(level, _) = &decision.facts else { return None };
        let is_next = level.0 == self.level.0.saturating_add(1);
        let why = || format!("the log is not raised from level {} to level {level}", self.level);
        (!is_next).then(why)
    }

    /// An entry on an admission subject: no later decision rests on anything before it.
    fn decision_stands_here(&mut self) {
        self.last_decision = self.seq;
        self.flips.clear();
    }
}

impl Person {
    /// Whether there is something left to be present for: a turn to come, or a token.
    pub(super) fn is_awaited(&self) -> bool {
        matches!(self.standing, Standing::Waiting | Standing::Granted)
    }
}

impl Step {
    pub(super) fn void_fact(&mut self, number: usize, why: String) {
        self.void.push((Some(number), why));
    }

    pub(super) fn note_fact(&mut self, number: usize, what: String) {
        self.notes.push((Some(number), what));
    }
}

pub(super) fn never_joined(visitor: VisitorId) -> String {
    format!("visitor {visitor} never joined")
}
