//! How a line moves: what a projector sees of it each second, and what that lets expect.
//!
//! Everything is taken from the difference between the line now and the line a second ago, so that
//! nothing has to be counted while it moves.

use std::collections::VecDeque;

use crate::queue::admit::room;
use crate::queue::estimate::{Cause, Outlook, RANKS};
use crate::queue::event::{At, State, Ticket};
use crate::queue::line::Line;
use crate::queue::places::Places;
use crate::queue::policy::Absent;

/// Who has been absent for less than this still counts: a page that is loaded anew is back in seconds,
/// and whoever lost a node within half a minute.
const MISSED_SECONDS: u32 = 35;
/// Looks that are kept: a quarter of an hour.
const LOOKS_MAX: usize = 900;
/// Between two looks that are further apart more may have happened than can be told from them.
const LOOK_APART_NANOS_MAX: i64 = 5_000_000_000;

/// Grants that might have been made, of which it is told how many were: enough to see a share of a
/// hundredth.
const GRANTS_SEEN: f64 = 200.0;
/// Before there are so many, the policy's word counts for the rest.
const GRANTS_BELIEVED: f64 = 20.0;
/// Departures from which it is told how long people stay: known to a twentieth then, and it follows a
/// change within as many. Those who came in together may go together, so fewer say too little: under the
/// ceilings of seeds 0-9 the median error was 11.9 % with 100, 10.6 % with 200, 9.3 % with these, and
/// 8.9 % with 1,000.
const DEPARTURES_SEEN: f64 = 400.0;
/// Before there are so many, the policy's longest stay counts for the rest.
const DEPARTURES_BELIEVED: f64 = 2.0;
/// Those who stopped to count or count again, from which it is told how many do: known to a tenth then.
const MOVED_SEEN: f64 = 100.0;
/// Person-seconds for which it is taken that nobody leaves, before anything was seen.
const STAY_BELIEVED: f64 = 60.0;

/// For so long after it a rise is said to be due to what an operator did, or who came back.
const CAUSE_SECONDS: i64 = 60;
/// As many as this share of those who count must have come back within that time.
const RETURNED_SHARE: f64 = 0.05;

/// The movement of one line.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    last: Option<Level>,
    looks: VecDeque<Look>,
    /// When the rate was last lowered, and the opening last moved to a later time.
    lowered: Option<At>,
    moved: Option<At>,
}

/// A line at one moment.
#[derive(Clone, Copy, Debug)]
struct Level {
    at: At,
    /// How many ever joined, and were ever let in.
    joined: f64,
    granted: f64,
    /// How many who wait count.
    people: f64,
    inside: f64,
    /// Grants a second by the rate alone.
    rate: f64,
    opens: Option<At>,
    /// Whether only the rate says who is let in when.
    is_free: bool,
}

/// What happened between two moments.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    at: At,
    /// Grants that the rate allowed, and that were made, where nothing but the rate stood against it.
    allowed: f64,
    made: f64,
    departed: f64,
    inside_seconds: f64,
    /// Who stopped to count without being let in, less those who count again.
    left: f64,
    person_seconds: f64,
}

/// How people come and go while they wait.
struct Leaving {
    /// Which share of those who count stops to in a second, less those who count again.
    leaving: f64,
    /// Which share does one or the other.
    moving: f64,
    /// For how many person-seconds that was seen.
    seen: f64,
}

impl Pace {
    /// Looks at a line and says what is to be expected: about once a second, and when its policy has
    /// just changed.
    pub fn look(&mut self, line: &Line, now: At) -> Outlook {
        let now = now.max(line.at());
        let missed = Missed::of(line, now);
        let level = level(line, now, &missed);
        if let Some(last) = self.last {
            self.note(&last, &level);
        }
        self.last = Some(level);
        self.outlook(line, &level, &missed)
    }

    fn note(&mut self, last: &Level, level: &Level) {
        if level.rate < last.rate {
            self.lowered = Some(level.at);
        }
        if last.opens.is_some() && level.opens > last.opens {
            self.moved = Some(level.at);
        }
        let nanos = level.at.since(last.at);
        if nanos <= 0 || nanos > LOOK_APART_NANOS_MAX {
            return;
        }
        let seconds = nanos as f64 / 1e9;
        let granted = level.granted - last.granted;
        let is_free = last.is_free && level.is_free;
        self.looks.push_back(Look {
            at: level.at,
            allowed: if is_free { last.rate * seconds } else { 0.0 },
            made: if is_free { granted } else { 0.0 },
            departed: (last.inside + granted - level.inside).max(0.0),
            inside_seconds: (last.inside + level.inside) / 2.0 * seconds,
            left: last.people + level.joined - last.joined - granted - level.people,
            person_seconds: (last.people + level.people) / 2.0 * seconds,
        });
        if self.looks.len() > LOOKS_MAX {
            self.looks.pop_front();
        }
    }

    fn outlook(&self, line: &Line, level: &Level, missed: &Missed) -> Outlook {
        let rate = level.rate * self.kept_share();
        let Leaving { leaving, moving, seen } = self.leaving();
        let (departures, going) = self.going(line);
        let ceiling = line.policy().max_inside.map(f64::from);
        let full = ceiling.map_or(rate, |ceiling| (ceiling * going).min(rate));
        Outlook {
            rate_milli: milli(rate),
            room: ceiling.filter(|_| full < rate).map(|ceiling| {
                // Until it is full, people go from inside as those go who are inside meanwhile.
                let inside = (level.inside + ceiling) / 2.0;
                let free = (ceiling - level.inside).max(0.0);
                whole(free * rate / (rate - inside * going).max(rate / 100.0))
            }),
            full_milli: milli(full),
            leaving_ppm: whole(leaving * 1e6),
            departures: whole(departures),
            moving_ppm: whole(moving * 1e6),
            seen: whole(seen),
            cause: self.cause(level),
            absent: missed.absent,
        }
    }

    /// Which share of the grants that the rate allows are made: whoever lets people in takes a moment,
    /// and time in which nobody was let in is never made up for.
    fn kept_share(&self) -> f64 {
        let (mut allowed, mut made) = (0.0, 0.0);
        for look in self.looks.iter().rev() {
            allowed += look.allowed;
            made += look.made;
            if allowed >= GRANTS_SEEN {
                break;
            }
        }
        ((made + GRANTS_BELIEVED) / (allowed + GRANTS_BELIEVED)).min(1.0)
    }

    /// How many departures were seen, and which share of those inside goes in a second.
    fn going(&self, line: &Line) -> (f64, f64) {
        // Nobody stays longer than their pass is good, after the token was used; how long that takes is
        // seen by how many have one.
        let session = f64::from(line.policy().session_seconds);
        let (unused, inside) = (line.unused().len() as f64, line.inside().len() as f64);
        let until_used =
            (session * unused / inside.max(1.0)).min(f64::from(line.policy().token_seconds));
        let (mut departed, mut inside_seconds) = (0.0, 0.0);
        for look in self.looks.iter().rev() {
            departed += look.departed;
            inside_seconds += look.inside_seconds;
            if departed >= DEPARTURES_SEEN {
                break;
            }
        }
        let going =
            (departed + DEPARTURES_BELIEVED) / (inside_seconds + DEPARTURES_BELIEVED * session);
        (departed, going.max(1.0 / (session + until_used)))
    }

    /// How people come and go while they wait.
    fn leaving(&self) -> Leaving {
        let (mut left, mut moved, mut person_seconds) = (0.0, 0.0, STAY_BELIEVED);
        for look in self.looks.iter().rev() {
            left += look.left;
            moved += look.left.abs();
            person_seconds += look.person_seconds;
            if moved >= MOVED_SEEN {
                break;
            }
        }
        let each = |people: f64| people.max(0.0) / person_seconds;
        Leaving { leaving: each(left), moving: each(moved), seen: person_seconds }
    }

    fn cause(&self, level: &Level) -> Cause {
        let is_recent = |at: At| level.at.seconds() - at.seconds() <= CAUSE_SECONDS;
        let recent = self.looks.iter().rev().take_while(|look| is_recent(look.at));
        let returned: f64 = recent.map(|look| -look.left).sum();
        if self.moved.is_some_and(is_recent) {
            Cause::OpeningMoved
        } else if self.lowered.is_some_and(is_recent) {
            Cause::RateLowered
        } else if returned > (RETURNED_SHARE * level.people).max(1.0) {
            Cause::PeopleReturned
        } else {
            Cause::LineSlowed
        }
    }
}

fn level(line: &Line, now: At, missed: &Missed) -> Level {
    let is_free = line.state() == State::Open && !in_turn(line).is_empty() && room(line) > 0;
    Level {
        at: now,
        joined: line.places().len() as f64,
        granted: line.grants_made() as f64,
        people: f64::from(line.waiting().len()) - f64::from(missed.in_all),
        inside: (line.unused().len() + line.inside().len()) as f64,
        rate: f64::from(line.rate().0) / 60.0,
        opens: line.policy().opens_at,
        is_free,
    }
}

/// Whose turn may come.
fn in_turn(line: &Line) -> &Places {
    match line.policy().absent {
        Absent::Hold => line.present(),
        Absent::Admit => line.waiting(),
    }
}

/// Who waits and does not count: they are passed over, unless they come back in time.
struct Missed {
    in_all: u32,
    absent: [u32; RANKS.len()],
}

impl Missed {
    fn of(line: &Line, now: At) -> Self {
        let (waiting, in_turn) = (line.waiting(), in_turn(line));
        // The first ticket behind so many who wait.
        let ends = RANKS.map(|rank| select(line, rank));
        let mut absent = ends.map(|end| waiting.rank(end) - in_turn.rank(end));
        let mut in_all = waiting.len() - in_turn.len();
        let running = line.graces().running(now);
        let recent = line.graces().latest_absent();
        let recent = recent.take_while(|(since, _)| since.plus_seconds(MISSED_SECONDS) > running);
        for (since, ticket) in recent {
            let is_absent = line.place(ticket).is_some_and(|place| place.absent() == Some(since));
            if is_absent && waiting.contains(ticket) {
                in_all = in_all.saturating_sub(1);
                let behind = ends.iter().zip(&mut absent).filter(|(end, _)| ticket < **end);
                behind.for_each(|(_, absent)| *absent = absent.saturating_sub(1));
            }
        }
        Self { in_all, absent }
    }
}

/// The first ticket that has so many of those who wait before it.
fn select(line: &Line, rank: u32) -> Ticket {
    let (mut low, mut high) = (0, u32::try_from(line.places().len()).unwrap_or(u32::MAX));
    while low < high {
        let middle = low + (high - low) / 2;
        if line.waiting().rank(Ticket(middle)) < rank {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ticket(low)
}

fn milli(per_second: f64) -> u64 {
    u64::from(whole(per_second * 60_000.0))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it saturates, and what is above says no more"
)]
fn whole(number: f64) -> u32 {
    number.round() as u32
}
