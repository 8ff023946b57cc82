//! How long the wait will be, and what a visitor is told of it.
//!
//! What is known of the whole line is an [`Outlook`]: a few numbers that the projector takes from how
//! the line really moves, once a second. What is known of one visitor is how many places are ahead.
//! This turns the two into seconds.
//!
//! With `a` people ahead who count, `r` let in a second, and each of them giving up with hazard `l`,
//! da/dt = -r - l a. So a reaches zero after t = ln(1 + l a / r) / l, which is a / r where nobody
//! leaves. Behind the place at which the ceiling begins to bind, `r` is the pace at which people go
//! from inside.

use std::num::NonZeroU32;

use crate::queue::event::{At, State};
use crate::queue::policy::Policy;

/// Places at which it is told how many of those before them don't count. Between two of them the
/// number is interpolated; dense at the front, where who is absent piles up.
pub const RANKS: [u32; 16] =
    [2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 16_384, 65_536, 262_144, 1_048_576];

/// The range is meant to hold in eight of ten cases: so many standard deviations to either side.
const RANGE_DEVIATIONS: f64 = 1.28;
/// What nothing in the model explains, as a share of the estimate; from seeds 0-9 of the back-test.
const UNEXPLAINED_SHARE: f64 = 0.01;
/// The same in seconds: what is told is whole seconds, and reckoned from an outlook of this second.
const UNEXPLAINED_SECONDS: f64 = 0.3;

/// How many of those who are absent ahead come back in time nobody knows: one deviation is half of them.
/// With none the range held in two of three cases of seeds 0-9 where three of ten were absent.
const RETURNING_SHARE: f64 = 0.5;

/// How much more the number of departures varies than if they were independent; from seeds 0-9, too.
const TOGETHER: f64 = 1.5;

/// A new estimate is told only when it differs from what the visitor was told, counted down, by this
/// share of itself, by the seconds, and by so many deviations. What is within is chance, and a number that
/// goes up and down is not believed. Smaller ones made the estimates of seeds 0-9 no better by more than
/// a hundredth, and had them rise half as often again.
const APART_SHARE: f64 = 0.1;
const RISE_SECONDS: f64 = 3.0;
const RISE_DEVIATIONS: f64 = 1.5;
const FALL_SECONDS: f64 = 1.0;
const FALL_DEVIATIONS: f64 = 1.0;

/// What the movement of a line lets expect, for everyone in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// People let in a minute while the ceiling leaves room, in thousandths.
    pub rate_milli: u64,
    /// So many are let in before the ceiling binds; none where it never does.
    pub room: Option<u32>,
    /// People let in a minute behind that, in thousandths.
    pub full_milli: u64,
    /// Of a million who count, so many stop to count in a second: they leave, or are gone too long.
    pub leaving_ppm: u32,
    /// On how many departures `full_milli` rests.
    pub departures: u32,
    /// Of a million who count, so many stop to count or count again in a second.
    pub moving_ppm: u32,
    /// For how many person-seconds both were seen.
    pub seen: u32,
    /// Why an estimate that rises now does so.
    pub cause: Cause,
    /// How many of the first so many who wait (see [`RANKS`]) don't count.
    pub absent: [u32; RANKS.len()],
}

/// Why waits became longer than was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cause {
    /// The line moves more slowly than it did: those inside stay longer, or fewer leave.
    #[default]
    LineSlowed,
    /// Fewer people are let in a minute than before.
    RateLowered,
    /// People ahead came back.
    PeopleReturned,
    /// It opens later than was said.
    OpeningMoved,
}

/// A wait, as estimated.
#[derive(Clone, Copy, Debug)]
pub struct Estimate {
    /// How long it is.
    pub seconds: f64,
    /// The standard deviation of what it will be from that, in seconds.
    pub deviation: f64,
}

/// When it is someone's turn, as estimated: whole seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn(NonZeroU32);

impl Default for Outlook {
    /// Nothing is known: nobody is let in.
    fn default() -> Self {
        Self {
            rate_milli: 0,
            room: None,
            full_milli: 0,
            leaving_ppm: 0,
            departures: 0,
            moving_ppm: 0,
            seen: 0,
            cause: Cause::default(),
            absent: [0; RANKS.len()],
        }
    }
}

/// In how many seconds people are let in: at once where it is open; `None` where nobody knows.
pub fn opening(state: State, policy: &Policy, now: At) -> Option<f64> {
    match state {
        State::Open => Some(0.0),
        State::Scheduled => policy.opens_at.map(|at| (at.since(now) as f64 / 1e9).max(0.0)),
        State::Paused | State::Closed | State::Deleted => None,
    }
}

impl Outlook {
    /// The wait of someone with so many places ahead, if people are let in from `opening` seconds on;
    /// `None` where they are not let in at all.
    pub fn estimate(&self, ahead: u32, opening: f64) -> Option<Estimate> {
        let (rate, full) = (per_second(self.rate_milli), per_second(self.full_milli));
        let hazard = f64::from(self.leaving_ppm) / 1e6;
        // Somebody is let in every 1 / r seconds, and from now on it is half of that to the next.
        let all = self.counted(ahead) + 0.5;
        let there = all * (-hazard * opening).exp();
        let (mut seconds, mut waited_for) = (opening, 0.0);
        let mut left = there;
        let room = self.room.map_or(f64::INFINITY, f64::from);
        if room > 0.0 {
            let all_in = moving(left, hazard, rate)?;
            let filled = all_in.min(room / rate);
            seconds += filled;
            left = if all_in <= room / rate { 0.0 } else { after(left, hazard, rate, filled) };
        }
        if left > 0.0 {
            let behind = moving(left, hazard, full)?;
            seconds += behind;
            waited_for = behind * full;
        }
        // Were departures independent of each other, their number would vary by its root; those who came
        // in together may go together. And the pace is known no better than from as many as were seen. The
        // same holds of those who leave and come back, whose number is by the person-seconds that are
        // waited ahead; half of it, since who does so late changes little.
        let person_seconds = all * (seconds - opening) / 2.0 + all * opening;
        let moving = f64::from(self.moving_ppm) / 1e6 * person_seconds / 2.0;
        let returning = RETURNING_SHARE * (f64::from(ahead) - self.counted(ahead));
        let people =
            TOGETHER * waited_for * (1.0 + waited_for / (f64::from(self.departures) + 1.0))
                + moving * (1.0 + person_seconds / (f64::from(self.seen) + 1.0))
                + returning * returning;
        let pace = if waited_for > 0.0 { full } else { rate };
        let unexplained = UNEXPLAINED_SECONDS.hypot(UNEXPLAINED_SHARE * (seconds - opening));
        Some(Estimate { seconds, deviation: (people.sqrt() / pace).hypot(unexplained) })
    }

    /// How many of those ahead count.
    fn counted(&self, ahead: u32) -> f64 {
        let mut before = (0, 0);
        for behind in RANKS.into_iter().zip(self.absent) {
            if ahead <= behind.0 {
                let share = f64::from(ahead - before.0) / f64::from(behind.0 - before.0);
                let between = f64::from(behind.1.saturating_sub(before.1)) * share;
                return f64::from(ahead) - f64::from(before.1) - between;
            }
            before = behind;
        }
        f64::from(ahead) - f64::from(before.1)
    }
}

impl Estimate {
    /// Between how many seconds the wait is in eight of ten cases. `told` is what is told as the
    /// estimate, which is always within.
    pub fn range(&self, told: u32) -> (u32, u32) {
        let off = RANGE_DEVIATIONS * self.deviation;
        let low = whole((self.seconds - off).max(0.0).floor()).min(told);
        (low, whole((self.seconds + off).ceil()).max(told))
    }
}

/// Seconds until so many are let in or have left.
fn moving(people: f64, hazard: f64, rate: f64) -> Option<f64> {
    if rate <= 0.0 {
        return None;
    }
    let seconds =
        if hazard > 0.0 { (hazard * people / rate).ln_1p() / hazard } else { people / rate };
    Some(seconds)
}

/// How many are left of so many after so many seconds.
fn after(people: f64, hazard: f64, rate: f64, seconds: f64) -> f64 {
    if hazard > 0.0 {
        (people + rate / hazard) * (-hazard * seconds).exp() - rate / hazard
    } else {
        people - rate * seconds
    }
}

fn per_second(per_minute_milli: u64) -> f64 {
    // Exact up to 2^53, and a rate is far below.
    per_minute_milli as f64 / 60_000.0
}

/// What a visitor is told, who was told `before`, with an estimate of now: the same turn where
/// the difference is within what chance does, and otherwise the new one. So it rises seldom, and then by
/// so much that there is a reason to be told with it.
pub fn told(before: Option<Turn>, now: At, estimate: &Estimate) -> Turn {
    let Estimate { seconds, deviation } = *estimate;
    let new = Turn::after(now, seconds);
    let Some(before) = before else { return new };
    let kept = before.seconds_from(now);
    let share = APART_SHARE * seconds;
    let rise = RISE_SECONDS.max(RISE_DEVIATIONS * deviation).max(share);
    let fall = FALL_SECONDS.max(FALL_DEVIATIONS * deviation).max(share);
    if seconds > kept + rise || seconds < kept - fall { new } else { before }
}

impl Turn {
    /// The turn that is so many seconds after a time.
    fn after(now: At, seconds: f64) -> Self {
        let at = now.0 as f64 / 1e9 + seconds;
        Self(NonZeroU32::new(whole(at.round())).unwrap_or(NonZeroU32::MIN))
    }

    /// Seconds from `now` until then; none when it has passed.
    fn seconds_from(self, now: At) -> f64 {
        (f64::from(self.0.get()) - now.0 as f64 / 1e9).max(0.0)
    }

    /// Whole seconds from `now` until then.
    pub fn whole_seconds(self, now: At) -> u32 {
        whole(self.seconds_from(now).round())
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it saturates, and nothing is waited for so long"
)]
fn whole(number: f64) -> u32 {
    number as u32
}
