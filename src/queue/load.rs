//! How the rate of admissions follows the load that the protected site reports.
//!
//! Additive increase, multiplicative decrease (Chiu and Jain, 1989), judged by where the load is
//! going: people who were let in are still inside minutes later, so a load that is fine now and
//! rises is too late a warning. In full, with `docs/load.md` for the reasons and the figures:
//!
//! 1. The first report sets the rate to the floor: nobody knows yet what the site bears.
//! 2. A line through the loads of the last minute says what the load will be [`AHEAD_SECONDS`] later.
//! 3. Under [`RAISE_BELOW_MILLI`] the rate is raised by a part of the cap, if people wait for it.
//! 4. Over [`CUT_ABOVE_MILLI`] it is cut in proportion to the excess, at most to half.
//! 5. Silence is not good news: the rate is halved for each [`SILENCE_SECONDS`] of it.
//!
//! Always between the floor and the cap, and in whole numbers, so that every machine decides alike.

use std::collections::VecDeque;

use crate::queue::event::At;

/// Under this projected load there is room. The width of the band up to [`CUT_ABOVE_MILLI`] is what
/// noise may do without a change of the rate.
pub const RAISE_BELOW_MILLI: u16 = 700;
/// Over this projected load the site is about to be too full. A fifth of it in load from elsewhere
/// still finds about enough room.
pub const CUT_ABOVE_MILLI: u16 = 820;
/// From this projected load on nothing is waited for that does not have to be.
pub const OVERLOADED_MILLI: u16 = 1_000;

/// How far the loads are projected. It makes up for what reports lag behind: people on their way, the
/// site's smoothing, and half of the time over which the loads are looked at.
pub const AHEAD_SECONDS: u32 = 75;
/// Reports within so many seconds become one load, their mean.
pub const SLOT_SECONDS: u32 = 4;
/// Loads kept. With [`SLOT_SECONDS`] this is a minute: long enough to tell a rise from noise.
pub const LOADS_MAX: usize = 16;

/// The least time between two changes, in seconds.
pub const PACE_SECONDS: u32 = 5;
/// Where the site is not overloaded, what the last change did is waited for so long: a report shows
/// it no sooner, and whoever does not wait changes it twice.
pub const CALM_PACE_SECONDS: u32 = 30;
/// After so many seconds without a report the site is taken for silent: three of the slowest reports
/// that are asked for, one each 10 s.
pub const SILENCE_SECONDS: u32 = 30;
/// Loads from a shorter time do not tell a rise from noise: they are taken as they are, and are no
/// reason to let more people in. So it is after silence, and for a worker that has just taken over.
pub const SPAN_SECONDS_MIN: u32 = 30;

/// The floor is this part of the cap. Few enough for a site that bears a tenth of what its operator
/// thought, and people still see that the line moves.
const FLOOR_PART: u32 = 20;
/// The most that the rate is raised at once, as a part of the cap.
const RAISE_PART: i64 = 10;
/// The same as a part of the rate: a rate that is far below the cap is raised in smaller steps.
const RAISE_PART_OF_RATE: i64 = 4;
/// That much room, in thousandths of load, allows the whole step; less room, less of it.
const RAISE_ROOM_MILLI: i64 = 300;
/// A smaller part of the rate is not worth a fact.
const STEP_PART_MIN: i64 = 50;
/// A cut divides the rate by no more than this: what is cut in error has to be raised again.
const CUT_MOST: i64 = 2;

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// One report of the protected site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// When it was heard, by the log's time.
    pub at: At,
    /// Thousandths, from 0 (idle) to 1000 (full).
    pub milli: u16,
}

/// What the site of one queue reported lately, in at most [`LOADS_MAX`] loads.
#[derive(Clone, Debug, Default)]
pub struct Loads {
    since: At,
    slots: VecDeque<Slot>,
}

/// Reports of a few seconds.
#[derive(Clone, Copy, Debug)]
struct Slot {
    first: At,
    last: At,
    sum: u64,
    reports: u64,
}

/// The rate as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InForce {
    /// People a minute, in force.
    pub per_minute: u32,
    /// The policy's `rate_per_minute`.
    pub cap: u32,
    /// When the rate last followed the load, as the log has it; `None` if it never did.
    pub decided_at: Option<At>,
}

/// What the rate has to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// People a minute, other than before.
    pub per_minute: u32,
    /// The loads that this rests on in thousandths, the newest last: at most [`LOADS_MAX`], each the
    /// mean of the reports of [`SLOT_SECONDS`]. None when it rests on silence.
    pub loads: Vec<u16>,
}

impl Loads {
    /// Nothing was heard yet by who listens since `since`: silence counts from there.
    pub fn since(since: At) -> Self {
        Self { since, slots: VecDeque::new() }
    }

    /// Nothing could be heard until now: silence counts from here.
    pub fn hears_from(&mut self, now: At) {
        self.since = now;
    }

    /// Notes a report. One from before the last is taken as heard with it.
    pub fn hear(&mut self, load: Load) {
        let milli = u64::from(load.milli.min(1_000));
        match self.slots.back_mut() {
            Some(slot) if load.at.since(slot.first) < nanos(SLOT_SECONDS) => {
                slot.last = slot.last.max(load.at);
                slot.sum += milli;
                slot.reports += 1;
            }
            _ => {
                let slot = Slot { first: load.at, last: load.at, sum: milli, reports: 1 };
                self.slots.push_back(slot);
            }
        }
        if self.slots.len() > LOADS_MAX {
            self.slots.pop_front();
        }
    }

    fn silent_since(&self) -> At {
        self.slots.back().map_or(self.since, |slot| slot.last.max(self.since))
    }
}

/// The lowest rate under a cap: a twentieth, and at least one person a minute.
pub fn floor(cap: u32) -> u32 {
    (cap / FLOOR_PART).max(1)
}

/// What the rate has to become now, if another than it is.
///
/// `wanted` is whether somebody could be let in now, were it not for the rate. Only then is it raised:
/// a load that is low because nobody comes does not say what the site bears (RFC 7661 has the same
/// of a sender with nothing to send).
///
/// Nothing follows a site that was never heard: before the first report the policy's rate holds.
pub fn follow(loads: &Loads, rate: &InForce, wanted: bool, now: At) -> Option<Followed> {
    let heard: Vec<Slot> = loads.slots.iter().filter(|slot| slot.counts(now)).copied().collect();
    let current = i64::from(rate.per_minute);
    let lowest = i64::from(floor(rate.cap));
    let waited = |seconds| rate.decided_at.is_none_or(|at| now.since(at) >= nanos(seconds));
    let silent = now.since(loads.silent_since()) >= nanos(SILENCE_SECONDS);
    let next = match rate.decided_at {
        None if loads.slots.is_empty() => return None,
        None if current > lowest => lowest,
        // The operator has raised the cap, and the floor with it.
        _ if current < lowest => waited(PACE_SECONDS).then_some(lowest)?,
        // One step for each time of silence, also where the last change rested on a report.
        _ if silent => waited(SILENCE_SECONDS).then_some(current / CUT_MOST)?,
        // What is known already has had its effect.
        Some(at) if loads.slots.back().is_none_or(|slot| slot.last <= at) => return None,
        _ => judged(&heard, rate, wanted, waited)?,
    };
    let next = u32::try_from(next.min(i64::from(rate.cap)).max(lowest)).ok()?;
    let loads = if silent { Vec::new() } else { heard.iter().map(Slot::milli).collect() };
    (next != rate.per_minute).then_some(Followed { per_minute: next, loads })
}

/// The rate that these loads ask for, not yet held between floor and cap.
fn judged(
    heard: &[Slot],
    rate: &InForce,
    wanted: bool,
    waited: impl Fn(u32) -> bool,
) -> Option<i64> {
    let long_enough = span(heard) >= nanos(SPAN_SECONDS_MIN);
    let ahead = projected(heard, if long_enough { AHEAD_SECONDS } else { 0 })?;
    let calm = ahead < i64::from(OVERLOADED_MILLI);
    if !waited(if calm { CALM_PACE_SECONDS } else { PACE_SECONDS }) {
        return None;
    }
    let current = i64::from(rate.per_minute);
    let least = (current / STEP_PART_MIN).max(1);
    let excess = ahead - i64::from(CUT_ABOVE_MILLI);
    let room = i64::from(RAISE_BELOW_MILLI) - ahead;
    if excess > 0 {
        let cut = (current * excess / ahead).max(least);
        return Some((current - cut).max(current / CUT_MOST));
    }
    if room <= 0 || !long_enough || !wanted {
        return None;
    }
    let whole = (i64::from(rate.cap) / RAISE_PART).min(current / RAISE_PART_OF_RATE);
    Some(current + (whole * room.min(RAISE_ROOM_MILLI) / RAISE_ROOM_MILLI).max(least))
}

/// The load in thousandths that a line of least squares through the loads reaches so many seconds
/// after the last. May be negative or above 1000.
fn projected(heard: &[Slot], ahead_seconds: u32) -> Option<i64> {
    let last = heard.last()?.last;
    let mut sums = [0_i64; 4];
    for slot in heard {
        // Milliseconds, and so few of them that no sum comes near what a number holds.
        let x = slot.middle().since(last) / 1_000_000;
        let y = i64::from(slot.milli());
        for (sum, term) in sums.iter_mut().zip([x, y, x * x, x * y]) {
            *sum += term;
        }
    }
    let [x, y, xx, xy] = sums;
    let n = i64::try_from(heard.len()).ok()?;
    let spread = n * xx - x * x;
    if spread == 0 || ahead_seconds == 0 {
        return Some(y / n);
    }
    let from_middle = n * i64::from(ahead_seconds) * 1_000 - x;
    Some((y + (n * xy - x * y) * from_middle / spread) / n)
}

/// From the first report to the last, in nanoseconds.
fn span(heard: &[Slot]) -> i64 {
    heard.first().zip(heard.last()).map_or(0, |(first, last)| last.last.since(first.first))
}

impl Slot {
    /// Whether it is from the time that is looked at.
    fn counts(&self, now: At) -> bool {
        let looked_at = i64::try_from(LOADS_MAX).unwrap_or(i64::MAX) * nanos(SLOT_SECONDS);
        now.since(self.last) < looked_at
    }

    fn middle(&self) -> At {
        At(self.first.0 + self.last.since(self.first) / 2)
    }

    /// The mean of its reports.
    fn milli(&self) -> u16 {
        u16::try_from((self.sum + self.reports / 2) / self.reports.max(1)).unwrap_or(1_000)
    }
}

fn nanos(seconds: u32) -> i64 {
    i64::from(seconds) * NANOS_PER_SECOND
}
