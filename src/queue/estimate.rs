//! How long the wait will be: people ahead, divided by the pace at which the line moves.

use std::collections::VecDeque;

use crate::queue::event::{At, State};
use crate::queue::policy::Policy;

/// How far back the pace looks. Long enough to be calm, short enough to follow a change.
const WINDOW_SECONDS: u32 = 120;
/// Below this much history the policy's rate is the better guess.
const HISTORY_SECONDS_MIN: i64 = 10;
/// Movements noted at most; those of one second are one note.
const NOTES_MAX: usize = WINDOW_SECONDS as usize + 1;

/// The pace of a line, from what really moved.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// Second, and how many left the line towards the inside in it.
    notes: VecDeque<(i64, u32)>,
    /// Since when the line could move.
    open_since: Option<At>,
}

impl Pace {
    /// Notes that so many people were let in.
    pub fn admitted(&mut self, at: At, people: u32) {
        match self.notes.back_mut() {
            Some((second, sum)) if *second == at.seconds() => *sum += people,
            _ => self.notes.push_back((at.seconds(), people)),
        }
        if self.notes.len() > NOTES_MAX {
            self.notes.pop_front();
        }
    }

    /// Notes the state: what moved before a pause says nothing about what moves after it.
    pub fn state(&mut self, at: At, state: State) {
        if state != State::Open {
            self.open_since = None;
            self.notes.clear();
        } else if self.open_since.is_none() {
            self.open_since = Some(at);
        }
    }

    /// People a minute at `now`, in thousandths; `None` when the line does not move.
    ///
    /// With little history it is the policy's rate. After that it is what was measured, never more
    /// than the policy's rate; where the ceiling lets nobody in for the whole window, there is none.
    pub fn per_minute_milli(&self, now: At, policy: &Policy) -> Option<u64> {
        let policy_rate = u64::from(policy.rate_per_minute) * 1_000;
        let since = self.open_since?;
        let window = i64::from(WINDOW_SECONDS);
        let seconds = (now.seconds() - since.seconds()).clamp(0, window);
        let ceiling_may_bind = policy.max_inside.is_some();
        if seconds < HISTORY_SECONDS_MIN || !ceiling_may_bind {
            return Some(policy_rate);
        }
        let from = now.seconds() - seconds;
        let moved: u64 = self
            .notes
            .iter()
            .filter(|(second, _)| *second >= from)
            .map(|(_, n)| u64::from(*n))
            .sum();
        let measured = moved * 60_000 / seconds.unsigned_abs();
        (measured > 0).then(|| measured.min(policy_rate))
    }
}

/// Seconds until someone with so many people ahead is let in, rounded up.
pub fn seconds(ahead: u32, per_minute_milli: Option<u64>) -> Option<u64> {
    let pace = per_minute_milli.filter(|pace| *pace > 0)?;
    Some(((u64::from(ahead) + 1) * 60_000).div_ceil(pace))
}
