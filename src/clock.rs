//! The door to time. Two clocks: the machine's monotonic one, for waits; and the log's, which is
//! the only one that decides anything about people.

use std::time::Instant;

use crate::queue::event::At;

/// The machine's monotonic clock, now.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// The log's time on this machine: a time that the log's server stated, and what the monotonic
/// clock has counted since it arrived. It lags the server by at most the way here. It leads it only
/// where the server's clock was set back or runs slower, and only until the next answer; the
/// machine's own wall clock has no part in it.
#[derive(Clone, Copy, Debug)]
pub struct LogClock {
    stated: At,
    heard: Instant,
}

impl LogClock {
    /// A clock that starts from a time that the server just stated.
    pub fn new(stated: At) -> Self {
        Self { stated, heard: monotonic() }
    }

    /// The log's time now.
    pub fn now(&self) -> At {
        let elapsed = monotonic().duration_since(self.heard).as_nanos();
        At(self.stated.0.saturating_add(i64::try_from(elapsed).unwrap_or(i64::MAX)))
    }

    /// The server stated this time in its answer to a question that was asked then. Its clock can't
    /// be further than that and all that has passed since. Gives by how many nanoseconds the two
    /// clocks have come to differ: more than 0 where the server's went ahead, less where it was set
    /// back.
    pub fn hear_answer(&mut self, stated: At, asked: Instant) -> i64 {
        let passed = i64::try_from(monotonic().duration_since(asked).as_nanos());
        let latest = At(stated.0.saturating_add(passed.unwrap_or(i64::MAX)));
        let counted = self.now();
        if counted > latest {
            *self = Self::new(stated);
            latest.since(counted)
        } else {
            self.hear(stated);
            stated.since(counted).max(0)
        }
    }

    /// The server just stated this time; it counts when it is ahead of what was counted.
    pub fn hear(&mut self, stated: At) {
        if stated > self.now() {
            *self = Self::new(stated);
        }
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
    fn a_servers_clock_that_was_set_is_followed_and_told() {
        const HOUR: i64 = 3_600_000_000_000;
        let mut clock = LogClock::new(At(2 * HOUR));
        const SECOND: i64 = 1_000_000_000;
        assert!(clock.hear_answer(At(2 * HOUR), monotonic()).abs() < SECOND);
        assert!(clock.now() >= At(2 * HOUR));
        assert!((clock.hear_answer(At(HOUR), monotonic()) + HOUR).abs() < SECOND);
        assert!(clock.now() >= At(HOUR) && clock.now() < At(2 * HOUR));
        // An old frame says nothing of how far the clock is now.
        clock.hear(At(0));
        assert!(clock.now() >= At(HOUR));
        assert!((clock.hear_answer(At(3 * HOUR), monotonic()) - 2 * HOUR).abs() < SECOND);
    }
}
