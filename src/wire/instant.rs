//! Instants as a policy states them: RFC 3339, UTC, whole seconds, and only one spelling of each.

use crate::queue::event::At;

/// What is allowed, as the end of the sentence "`opens_at` must be …".
pub const ALLOWED: &str = "an instant in UTC from 1970 to 2199, like 2026-12-01T09:00:00Z";

/// Reads `2026-12-01T09:00:00Z`; any other spelling of the same instant is `None`.
pub fn parse(text: &str) -> Option<At> {
    let instant: jiff::Timestamp = text.parse().ok()?;
    let at = At(i64::try_from(instant.as_nanosecond()).ok()?);
    let year = text.get(..4)?;
    (("1970"..="2199").contains(&year) && write(at) == text).then_some(at)
}

/// Writes an instant; what is below a whole second is left out.
pub fn write(at: At) -> String {
    jiff::Timestamp::from_second(at.seconds()).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}
