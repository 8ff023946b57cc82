//! How fast people are let in: the generic cell rate algorithm (ITU-T I.371, annex A) in the log's time.
//!
//! Each grant moves the next due time on by one interval from the later of itself and the log's time,
//! and a grant may come up to `burst - 1` intervals before it is due. So in any w seconds there are at
//! most burst + w x rate / 60 grants, and time in which nobody was let in is never saved up.

use crate::queue::event::At;

/// People a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub u32);

const MINUTE_NANOS: u64 = 60_000_000_000;

impl Rate {
    /// How many people may be let in at once after a quiet time: a tenth of a second's worth, at
    /// least one. Unused time is never saved up beyond it.
    pub fn burst(self) -> u32 {
        (self.0 / 600).max(1)
    }

    /// Nanoseconds between two people at this rate, rounded up so that the rate is never exceeded.
    pub fn interval_nanos(self) -> i64 {
        i64::try_from(MINUTE_NANOS.div_ceil(u64::from(self.0.max(1)))).unwrap_or(i64::MAX)
    }

    /// How many may be let in at `now`, at least one; or when the next one may.
    pub fn allowed(self, next_due: At, now: At) -> Result<usize, At> {
        let interval = self.interval_nanos();
        let early = interval * i64::from(self.burst() - 1);
        let ahead = next_due.since(now).max(0);
        if ahead > early {
            return Err(At(next_due.0 - early));
        }
        Ok(usize::try_from((early - ahead) / interval).unwrap_or(0) + 1)
    }

    /// When the next one is due after a grant at `now`.
    pub fn after_grant(self, next_due: At, now: At) -> At {
        At(next_due.max(now).0.saturating_add(self.interval_nanos()))
    }

    /// When the next one is due from `now` on, where `before` was the rate until now: as many
    /// intervals ahead as it was, rounded down, but no more than a burst. So a rate that is raised
    /// is felt at once, and one that is lowered does not make people pay for an earlier burst.
    /// Across changes there are at most as many grants as the rates allow one after the other, the
    /// greatest burst, and for each lowering what the burst became smaller by; each change rounds that in
    /// people's favour, by less than a nanosecond.
    pub fn take_over(self, before: Self, next_due: At, now: At) -> At {
        let ahead = i128::from(next_due.since(now).max(0));
        if ahead == 0 || self == before {
            return next_due;
        }
        let (new, old) = (i128::from(self.interval_nanos()), i128::from(before.interval_nanos()));
        let ahead = (ahead * new / old).min(new * i128::from(self.burst()));
        At(now.0.saturating_add(i64::try_from(ahead).unwrap_or(i64::MAX)))
    }
}
