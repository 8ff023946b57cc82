//! The machine's monotonic clock, in nanoseconds: the same for every process, so that what one of
//! them says can be told by another.

use rustix::time::{ClockId, clock_gettime};

/// A second in nanoseconds.
pub const SECOND: u64 = 1_000_000_000;
/// A millisecond in nanoseconds.
pub const MILLI: u64 = 1_000_000;

/// Nanoseconds since the machine started.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    // It starts at zero, and never goes back.
    time.tv_sec.cast_unsigned() * SECOND + time.tv_nsec.cast_unsigned()
}

/// What is to be added to [`now`] for nanoseconds since 1970, by the machine's wall clock as it is now.
pub fn until_wall() -> u64 {
    let wall = clock_gettime(ClockId::Realtime);
    let wall = wall.tv_sec.cast_unsigned() * SECOND + wall.tv_nsec.cast_unsigned();
    // No machine has been up since before 1970.
    wall - now()
}

/// Nanoseconds as milliseconds.
pub fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

/// Nanoseconds as seconds.
pub fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}
