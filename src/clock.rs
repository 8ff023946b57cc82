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
/// clock has counted since it arrived. It lags the server by at most the way here, never leads
/// it, and never goes back; the machine's own wall clock has no part in it.
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
