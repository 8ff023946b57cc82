//! What time it is after each entry, worked out from `schemas/README.md` ("What time it is") and not by
//! the code of the live fold. All in nanoseconds.

use crate::queue::event::Millis;

pub(super) const SECOND: i64 = 1_000_000_000;
const MILLI: i64 = 1_000_000;

/// So far the time that a decision states may be from the servers' without moving the log's.
const AGREED: u64 = 2 * SECOND.unsigned_abs();
/// So far the log's time goes on without a decision, and beyond the servers' clocks by one.
const AHEAD: i64 = 5 * SECOND;

/// The times after an entry.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    /// The log's. It never goes back.
    pub(super) now: i64,
    /// What is added to store times.
    pub(super) shift: i64,
    /// The log's time at the last decision that stood.
    pub(super) decided: i64,
    /// All outage so far: how far the running time is behind the log's.
    pub(super) outages: i64,
    /// The entry's own store time, with the shift.
    raw: i64,
}

/// What a decision that stands did to the time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    /// What is added to store times from now on, beyond what was added before.
    pub(super) moved: i64,
    /// The outage that this comes to.
    pub(super) outage: i64,
    /// The time had stood still, for want of a decision.
    pub(super) withheld: bool,
}

impl Times {
    /// After an entry that is no decision, or none that stands.
    pub(super) fn pass(&mut self, stored: i64) {
        self.raw = stored.saturating_add(self.shift);
        self.now = self.now.max(self.raw.min(self.bound()));
    }

    /// After a decision that stands, whose writer took it to be `now`.
    pub(super) fn decision(&mut self, stored: i64, now: Millis) -> Told {
        let (before, raw) = (self.now, stored.saturating_add(self.shift));
        let now = i64::try_from(now.0).unwrap_or(i64::MAX).saturating_mul(MILLI);
        let mut told = Told { withheld: before == self.bound(), ..Told::default() };
        if now.abs_diff(raw) <= AGREED {
            self.now = before.max(raw).max(now);
        } else {
            let both_behind = before.saturating_sub(stored.max(raw)) > 2 * SECOND;
            let limit = if both_behind { before.saturating_add(AHEAD) } else { stored.max(raw) };
            let stated = now.max(before).min(limit);
            let shift = stated.saturating_sub(stored);
            told.moved = shift.saturating_sub(self.shift);
            told.outage = stated.saturating_sub(before.max(raw)).max(0);
            self.shift = shift;
            self.now = before.max(stated);
        }
        self.raw = stored.saturating_add(self.shift);
        self.decided = self.now;
        told
    }

    /// An outage of this length ended now. Gives the running time at which it began.
    pub(super) fn outage(&mut self, length: i64) -> i64 {
        self.outages = self.outages.saturating_add(length);
        self.running()
    }

    /// The time by which absence, graces and grants run.
    pub(super) fn running(&self) -> i64 {
        self.now.saturating_sub(self.outages)
    }

    /// When the entry was, for people to read: the log's time stands still in a queue in which nothing
    /// is decided, and the entry's own goes on.
    pub(super) fn shown(&self) -> i64 {
        self.now.max(self.raw)
    }

    fn bound(&self) -> i64 {
        self.decided.saturating_add(AHEAD)
    }
}

impl Told {
    /// How the log's time was moved and what came of it; `by` says by whom.
    pub(super) fn words(&self, by: &str) -> String {
        let way = if self.moved < 0 { "held back" } else { "put on" };
        let moved = seconds(self.moved);
        let longer = match self.outage {
            ..MILLI => String::new(),
            outage => format!("; graces are longer by {} s", seconds(outage)),
        };
        format!(
            "the log's time was {way} by {moved} s{by}: clocks differ, or it was so long under way{longer}"
        )
    }
}

/// A length in seconds, to the millisecond.
fn seconds(nanos: i64) -> String {
    let millis = nanos.unsigned_abs() / MILLI.unsigned_abs();
    let text = format!("{}.{:03}", millis / 1_000, millis % 1_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
