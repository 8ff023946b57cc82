//! The log's time: store times, made one time that goes on evenly whichever server leads.
//!
//! Servers' clocks differ, so decisions state what time it is. The stated time shifts the store times
//! where the two are apart, and no clock alone moves the time far: that of a server not beyond what was
//! decided last, that of a worker not beyond the servers' own. (`schemas/README.md`, "What time it is".)
//!
//! Why a decision that agrees has the latest of three times (2026-11-30): by the server's alone a grant is
//! early by its own log once a new leader is 1.5 s behind. Why what goes beyond the servers' clocks must be
//! more than 2 s ahead of both: otherwise a worker that lies by turns goes ahead without end.

use crate::queue::event::{At, Millis};

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// A worker and a server that differ by no more than this agree.
pub const AGREED_NANOS_MAX: i64 = 2 * NANOS_PER_SECOND;
/// So far the time goes on by store times alone: an idle queue's worker says the time as often.
pub const UNDECIDED_SECONDS_MAX: u32 = 5;

/// What time it is after an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogTime {
    /// Now. It never goes back.
    pub now: At,
    /// What is added to store times, in nanoseconds.
    pub shift: i64,
    /// The time at the last decision that stood.
    pub decided: At,
}

/// What a decision did to the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// What was added to store times before, if it is another now.
    pub shifted_from: Option<i64>,
    /// The outage that the shift comes to, in nanoseconds.
    pub outage: i64,
    /// The time was withheld: it had stood still for want of a decision.
    pub was_withheld: bool,
}

impl LogTime {
    /// A store time as the log's.
    pub fn raw(&self, stored: At) -> At {
        At(stored.0.saturating_add(self.shift))
    }

    /// How far the time goes on by store times alone.
    pub fn bound(&self) -> At {
        self.decided.plus_seconds(UNDECIDED_SECONDS_MAX)
    }

    /// Whether the time stands still until something is decided.
    pub fn is_withheld(&self) -> bool {
        self.now == self.bound()
    }

    /// An entry was stored that says nothing of the time.
    pub(super) fn pass(&mut self, stored: At) {
        self.now = self.now.max(self.raw(stored).min(self.bound()));
    }

    /// A decision was stored, whose writer took it to be `now`.
    pub(super) fn decide(&mut self, stored: At, now: Millis) -> Decided {
        let was_withheld = self.is_withheld();
        let (before, raw, now) = (self.now, self.raw(stored), now.at());
        let counted = before.max(raw);
        let mut decided = Decided { shifted_from: None, outage: 0, was_withheld };
        if i128::from(now.0).abs_diff(i128::from(raw.0))
            <= u128::from(AGREED_NANOS_MAX.unsigned_abs())
        {
            // Whoever decided by a clock that is ahead of the server's by that little was not early.
            self.now = counted.max(now);
        } else {
            let clocks = stored.max(raw);
            let is_behind = before.since(clocks) > AGREED_NANOS_MAX;
            let limit = if is_behind { before.plus_seconds(UNDECIDED_SECONDS_MAX) } else { clocks };
            // Not before what it is already: who could go back could go further ahead the next time.
            let stated = now.max(before).min(limit);
            let shift = stated.since(stored);
            let from = std::mem::replace(&mut self.shift, shift);
            decided.shifted_from = (from != shift).then_some(from);
            decided.outage = stated.since(counted).max(0);
            self.now = before.max(stated);
        }
        self.decided = self.now;
        decided
    }
}
