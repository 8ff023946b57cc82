//! The door to time. Two clocks: the machine's monotonic one, for waits; and the log's, which is
//! the only one that decides anything about people.

use std::time::Instant;

use crate::queue::event::At;

/// The machine's monotonic clock, now.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// The log's time on this machine: a time that was stated, and what the monotonic clock has counted since
/// then. It goes on evenly while servers with other clocks take turns; the machine's own wall clock has
/// no part in it.
#[derive(Clone, Copy, Debug)]
pub struct LogClock {
    stated: At,
    /// What the machine's clock had counted then, in nanoseconds.
    heard: i64,
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
        Self { stated, heard: counted() }
    }

    /// A clock that starts from a time that was stated in an answer which came then: it is behind by the
    /// answer's way, and never ahead.
    pub fn since(stated: At, heard: Instant) -> Self {
        let passed = i64::try_from(monotonic().duration_since(heard).as_nanos());
        Self { stated, heard: counted().saturating_sub(passed.unwrap_or(i64::MAX)) }
    }

    /// The log's time now.
    pub fn now(&self) -> At {
        At(self.stated.0.saturating_add(counted() - self.heard))
    }

    /// A server's clock, as the log's time, said so in its answer to a question that was asked then. It is
    /// followed, by `step` nanoseconds at most, where it is no further from what was counted than `most`, the
    /// time of the answer's way not counted: a clock that was set, or is another server's, is not. Gives
    /// by how many nanoseconds they are apart then, and 0 where it was followed.
    pub fn follow(&mut self, stated: At, asked: Instant, most: i64, step: i64) -> i64 {
        let passed = i64::try_from(monotonic().duration_since(asked).as_nanos());
        let latest = At(stated.0.saturating_add(passed.unwrap_or(i64::MAX)));
        let counted = self.now();
        let apart = stated.since(counted).max(0) + latest.since(counted).min(0);
        if apart.abs() > most {
            return apart;
        }
        if apart != 0 {
            // Behind by the answer's way rather than ahead.
            self.set(At(counted.0 + stated.since(counted).clamp(-step, step)));
        }
        0
    }

    /// It is this time now, as whoever knows it has just said.
    pub fn set(&mut self, now: At) {
        *self = Self::new(now);
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
    use super::*;

    #[test]
    fn a_servers_clock_is_followed_while_it_goes_evenly_and_not_when_it_jumps() {
        const SECOND: i64 = 1_000_000_000;
        let is_near = |clock: &LogClock, at: i64| clock.now().since(At(at)).abs() < SECOND / 2;
        let mut clock = LogClock::new(At(1_000 * SECOND));
        assert_eq!(clock.follow(At(1_001 * SECOND), monotonic(), 2 * SECOND, SECOND), 0);
        assert!(is_near(&clock, 1_001 * SECOND));
        assert_eq!(clock.follow(At(1_000 * SECOND), monotonic(), 2 * SECOND, SECOND), 0);
        assert!(is_near(&clock, 1_000 * SECOND));
        assert_eq!(clock.follow(At(1_002 * SECOND), monotonic(), 2 * SECOND, SECOND / 1_000), 0);
        assert!(is_near(&clock, 1_000 * SECOND), "only step by step");
        let apart = clock.follow(At(1_300 * SECOND), monotonic(), 2 * SECOND, SECOND);
        assert!((apart - 300 * SECOND).abs() < SECOND && is_near(&clock, 1_000 * SECOND));
        let apart = clock.follow(At(700 * SECOND), monotonic(), 2 * SECOND, SECOND);
        assert!((apart + 300 * SECOND).abs() < SECOND && is_near(&clock, 1_000 * SECOND));
        clock.set(At(700 * SECOND));
        assert!(is_near(&clock, 700 * SECOND));
    }
}
