//! For how long places are kept: for the longest `reconnect_seconds` that was in force since the
//! absence began. Every earlier value is kept here with how long it was in force.

use crate::audit::times::SECOND;

/// The values that are no longer in force.
#[derive(Debug, Default)]
pub(super) struct Graces {
    /// Until which running time it was in force, and the seconds; from the first.
    past: Vec<(i64, u32)>,
}

impl Graces {
    /// A policy replaced one of so many seconds at this running time. What was told to nobody whose
    /// grace still runs is forgotten.
    pub(super) fn replaced(&mut self, seconds: u32, running: i64) {
        self.past.push((running, seconds));
        self.past.retain(|(until, seconds)| after(*until, *seconds) > running);
    }

    /// An outage ended: the running time is back at where it began.
    pub(super) fn outage(&mut self, stood: i64) {
        for (until, _) in &mut self.past {
            *until = stood.min(*until);
        }
    }

    /// The longest that was in force since then, where it is `seconds` now.
    pub(super) fn longest(&self, since: i64, seconds: u32) -> u32 {
        let told = self.past.iter().filter(|(until, _)| *until >= since);
        told.map(|(_, seconds)| *seconds).fold(seconds, u32::max)
    }

    /// What the digest holds of them, where it is `seconds` now: those that are longer than every
    /// later one.
    pub(super) fn noted(&self, seconds: u32) -> Vec<(i64, u32)> {
        let mut longest = seconds;
        let mut noted = Vec::new();
        for &(until, seconds) in self.past.iter().rev() {
            if seconds > longest {
                noted.push((until, seconds));
                longest = seconds;
            }
        }
        noted.reverse();
        noted
    }
}

/// So many seconds after a point in time.
pub(super) fn after(point: i64, seconds: u32) -> i64 {
    point.saturating_add(i64::from(seconds) * SECOND)
}
