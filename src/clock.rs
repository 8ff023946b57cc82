//! The door to time. Two clocks: the machine's monotonic one, for waits; and the log's, which is
//! the only one that decides anything about people.

use std::time::Instant;

use crate::queue::event::At;
use crate::queue::time::AGREED_NANOS_MAX;

/// No entry is heard later than this by whoever is not behind: a clock that is further behind the log's
/// time was stopped, and what a server says that is further from a time just heard is another's clock.
const LATE_NANOS_MAX: i64 = 10_000_000_000;

/// The machine's monotonic clock, now.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// The log's time on this machine: a time that was stated, and what its clock since boot has counted since
/// then. It goes on evenly while servers with other clocks take turns; the machine's own wall clock has
/// no part in it.
#[derive(Clone, Copy, Debug)]
pub struct LogClock {
    stated: At,
    /// What the machine's clock had counted then, in nanoseconds.
    heard: i64,
    /// When the time was put right by an entry, where no server's clock was followed since.
    corrected: Option<Instant>,
}

/// What the machine has counted since it began, in nanoseconds. Other than [`monotonic`] it goes on while
/// the machine sleeps, when servers elsewhere did not.
fn counted() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

impl LogClock {
    /// A clock that starts from a time that was just stated.
    pub fn new(stated: At) -> Self {
        Self { stated, heard: counted(), corrected: None }
    }

    /// A clock that starts from a time that was stated in an answer which came then: it is behind by the
    /// answer's way, and never ahead.
    pub fn since(stated: At, heard: Instant) -> Self {
        let passed = i64::try_from(monotonic().duration_since(heard).as_nanos());
        let heard = counted().saturating_sub(passed.unwrap_or(i64::MAX));
        Self { heard, ..Self::new(stated) }
    }

    /// The log's time now.
    pub fn now(&self) -> At {
        At(self.stated.0.saturating_add(counted() - self.heard))
    }

    /// A server's clock, as the log's time, said so in its answer to a question that was asked then and heard
    /// then. It is followed, by `step` nanoseconds at most, where it agrees with what was counted, the time
    /// of the answer's way not counted: a clock that was set, or is another server's, is not. Gives by how many
    /// nanoseconds they are apart then, and 0 where it was followed, or says nothing: what was asked before an
    /// entry put the time right may be of a server whose clock that entry was not about.
    pub fn follow(&mut self, stated: At, asked: Instant, heard: Instant, step: i64) -> i64 {
        if self.corrected.is_some_and(|corrected| asked < corrected) {
            return 0;
        }
        // After a correction the time may have been heard late.
        let (most, step) = match self.corrected {
            Some(_) => (LATE_NANOS_MAX, LATE_NANOS_MAX),
            None => (AGREED_NANOS_MAX, step),
        };
        let since = |then: Instant| {
            let passed = i64::try_from(monotonic().duration_since(then).as_nanos());
            At(stated.0.saturating_add(passed.unwrap_or(i64::MAX)))
        };
        let (earliest, latest, counted) = (since(heard), since(asked), self.now());
        let apart = earliest.since(counted).max(0) + latest.since(counted).min(0);
        if apart.abs() > most {
            return apart;
        }
        if apart != 0 {
            // Behind by the answer's way rather than ahead.
            self.set(At(counted.0 + earliest.since(counted).clamp(-step, step)));
        }
        self.corrected = None;
        0
    }

    /// Whether it is so far behind the time of an entry that was just heard as no entry is heard late.
    pub fn is_behind(&self, at: At) -> bool {
        at.since(self.now()) > LATE_NANOS_MAX
    }

    /// The log has said by an entry, perhaps some time ago, that it was this time.
    pub fn correct(&mut self, at: At) {
        *self = Self { corrected: Some(monotonic()), ..Self::new(at) };
    }

    /// It is this time now, as whoever knows it has just said.
    pub fn set(&mut self, now: At) {
        *self = Self { corrected: self.corrected, ..Self::new(now) };
    }
}

/// An instant as it is written: RFC 3339, UTC, whole seconds.
pub fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// An instant as it is written, to the nanosecond.
pub fn rfc3339_nanos(at: At) -> String {
    let instant = jiff::Timestamp::from_nanosecond(i128::from(at.0));
    instant.map(|instant| format!("{instant:.9}")).unwrap_or_default()
}

/// Reads an RFC 3339 instant to the nanosecond.
pub fn parse_rfc3339(text: &str) -> Option<At> {
    let instant: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(instant.as_nanosecond()).ok().map(At)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_servers_clock_is_followed_while_it_goes_evenly_and_not_when_it_jumps() {
        const SECOND: i64 = 1_000_000_000;
        let is_near = |clock: &LogClock, at: i64| clock.now().since(At(at)).abs() < SECOND / 2;
        let mut clock = LogClock::new(At(1_000 * SECOND));
        assert_eq!(clock.follow(At(1_001 * SECOND), monotonic(), monotonic(), SECOND), 0);
        assert!(is_near(&clock, 1_001 * SECOND));
        assert_eq!(clock.follow(At(1_000 * SECOND), monotonic(), monotonic(), SECOND), 0);
        assert!(is_near(&clock, 1_000 * SECOND));
        assert_eq!(clock.follow(At(1_002 * SECOND), monotonic(), monotonic(), SECOND / 1_000), 0);
        assert!(is_near(&clock, 1_000 * SECOND), "only step by step");
        let apart = clock.follow(At(1_300 * SECOND), monotonic(), monotonic(), SECOND);
        assert!((apart - 300 * SECOND).abs() < SECOND && is_near(&clock, 1_000 * SECOND));
        let apart = clock.follow(At(700 * SECOND), monotonic(), monotonic(), SECOND);
        assert!((apart + 300 * SECOND).abs() < SECOND && is_near(&clock, 1_000 * SECOND));
        // What was asked before a correction is of another server, perhaps.
        let asked = monotonic();
        clock.correct(At(1_006 * SECOND));
        assert_eq!(clock.follow(At(1_001 * SECOND), asked, monotonic(), SECOND), 0);
        assert!(is_near(&clock, 1_006 * SECOND));
        assert_eq!(clock.follow(At(1_001 * SECOND), monotonic(), monotonic(), SECOND), 0);
        assert!(is_near(&clock, 1_001 * SECOND), "an entry may have been heard late");
        // An answer that has lain for a while is as old as it is.
        let heard = monotonic().checked_sub(Duration::from_secs(1)).unwrap();
        assert_eq!(clock.follow(At(1_000 * SECOND), heard, heard, 2 * SECOND), 0);
        assert!(is_near(&clock, 1_001 * SECOND));
        clock.set(At(700 * SECOND));
        assert!(is_near(&clock, 700 * SECOND));
    }
}
