//! What kinds of histories there are, and what a seed makes of each.

use anteroom::queue::event::{At, Setting, State};
use anteroom::queue::policy::Policy;

use super::chance::Chance;
use super::simulate::BEGINS;

/// A kind of history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scenario {
    /// About as many come as are let in, and few leave.
    Steady,
    /// The operator changes the rate, up and down.
    ChangingRate,
    /// Three of ten leave before their turn.
    Leaving,
    /// The operator pauses.
    Pause,
    /// Nearly all come at once; some before it opens.
    Rush,
    /// Three of ten are away for a while, or for good.
    Absentees,
    /// Only so many may be inside, and they stay for as long as they like.
    Ceiling,
}

impl Scenario {
    /// All of them.
    pub(crate) const ALL: [Self; 7] = [
        Self::Steady,
        Self::ChangingRate,
        Self::Leaving,
        Self::Pause,
        Self::Rush,
        Self::Absentees,
        Self::Ceiling,
    ];

    /// How it is called in a table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::ChangingRate => "changing rate",
            Self::Leaving => "30 % leaving",
            Self::Pause => "pause",
            Self::Rush => "rush",
            Self::Absentees => "30 % absent",
            Self::Ceiling => "ceiling",
        }
    }
}

/// A history to be: who comes, how they behave, and what the operator does. Times are in seconds.
pub(crate) struct Plan {
    /// What the operator sets, and when, in order.
    pub(crate) acts: Vec<(f64, Setting)>,
    pub(crate) people: Vec<Person>,
    /// Until when it goes on at most.
    pub(crate) until: f64,
}

/// Somebody to be.
pub(crate) struct Person {
    pub(crate) comes: f64,
    /// When they leave, unless it was their turn before.
    pub(crate) leaves: Option<f64>,
    /// When they go away, and come back, unless it was their turn before.
    pub(crate) absences: Vec<(f64, Option<f64>)>,
    /// Seconds until the token is used; none who never does.
    pub(crate) enters: Option<f64>,
    /// Seconds inside, unless their pass ends before; none who stays until then.
    pub(crate) stays: Option<f64>,
}

/// The longest wait that is drawn, in seconds; longer ones are only more of the same.
const WAIT_SECONDS: (f64, f64) = (60.0, 2_400.0);
const PEOPLE: (f64, f64) = (250.0, 3_000.0);
/// How long people stay on average who are done before their pass is, as a share of the longest stay.
const STAYS: f64 = 0.6;
const RATE: (f64, f64) = (10.0, 6_000.0);

/// The history of a seed.
pub(crate) fn plan(scenario: Scenario, seed: u64) -> Plan {
    let mut chance = Chance::new(seed, scenario as u64 + 1);
    let longest = chance.by_factors(WAIT_SECONDS.0, WAIT_SECONDS.1);
    let crowd = chance.by_factors(PEOPLE.0, PEOPLE.1);
    let rate = (crowd / longest * 60.0).clamp(RATE.0, RATE.1).round();
    // How long the first crowd takes.
    let span = crowd / rate * 60.0;
    let mut policy = Policy { rate_per_minute: rate as u32, ..Policy::default() };
    let mut acts = vec![(0.0, Setting::State(State::Open, None))];
    let mut comes = arrivals(scenario, &mut chance, crowd, rate / 60.0, span);
    match scenario {
        Scenario::Steady | Scenario::Leaving | Scenario::Absentees => {}
        Scenario::ChangingRate => {
            let mut at = 0.0;
            for _ in 0..3 {
                at += chance.between(0.15, 0.6) * span;
                let rate_per_minute = (rate * chance.by_factors(0.4, 2.5)).max(RATE.0) as u32;
                let policy = Policy { rate_per_minute, ..policy.clone() };
                acts.push((at, Setting::Policy(policy)));
            }
        }
        Scenario::Pause => {
            let mut at = 0.0;
            for _ in 0..2 {
                at += chance.between(0.15, 0.7) * span;
                acts.push((at, Setting::State(State::Paused, None)));
                at += chance.between(0.05, 0.4) * span;
                acts.push((at, Setting::State(State::Open, None)));
            }
        }
        Scenario::Rush => {
            // It opens by itself.
            let opens = chance.between(0.05, 0.3) * span;
            policy.opens_at = Some(At(BEGINS.0 + (opens * 1e9) as i64));
            acts.clear();
        }
        Scenario::Ceiling => {
            policy.session_seconds = ((span * chance.between(0.1, 0.6)) as u32).max(60);
            // So few that they, and not the rate, say how fast it goes.
            let stay = stays(seed).unwrap_or(1.0) * f64::from(policy.session_seconds);
            let inside = rate / 60.0 * stay * chance.between(0.3, 0.9);
            policy.max_inside = Some(inside.max(10.0) as u32);
        }
    }
    comes.sort_by(f64::total_cmp);
    let stays = stays(seed);
    let people =
        comes.into_iter().map(|comes| person(scenario, &mut chance, comes, (span, stays), &policy));
    let people = people.collect();
    acts.insert(0, (0.0, Setting::Policy(policy.clone())));
    Plan { acts, people, until: 6.0 * span + 600.0 }
}

/// How long people stay on average, as a share of the longest stay. Every third site never says that
/// somebody is done, so that all of them stay until their pass ends.
fn stays(seed: u64) -> Option<f64> {
    (!seed.is_multiple_of(3)).then_some(STAYS)
}

/// When people come: a crowd at first, and then about as many as are let in.
fn arrivals(scenario: Scenario, chance: &mut Chance, crowd: f64, rate: f64, span: f64) -> Vec<f64> {
    let is_rush = scenario == Scenario::Rush;
    let at_first = if is_rush { 1.0 } else { chance.between(0.3, 0.8) };
    let within = if is_rush { 0.2 } else { 0.1 } * span;
    let mut comes: Vec<f64> =
        (0..(at_first * crowd) as usize).map(|_| chance.share() * within).collect();
    let load = if is_rush { 0.2 } else { chance.between(0.7, 1.1) };
    let mut at = within;
    loop {
        at += chance.lasting(1.0 / (load * rate));
        if at > 1.5 * span || comes.len() as f64 > 2.0 * crowd {
            return comes;
        }
        comes.push(at);
    }
}

fn person(
    scenario: Scenario,
    chance: &mut Chance,
    comes: f64,
    (span, stays): (f64, Option<f64>),
    policy: &Policy,
) -> Person {
    let wait = if scenario == Scenario::Leaving { 0.5 } else { 0.8 } * span;
    let leaving = match scenario {
        Scenario::Leaving => 0.95,
        Scenario::Rush | Scenario::Absentees | Scenario::Ceiling => 0.1,
        Scenario::Steady | Scenario::ChangingRate | Scenario::Pause => 0.02,
    };
    // Some lose patience evenly over the wait, and others soon or never.
    let patience =
        if chance.happens(0.5) { wait * chance.share() } else { chance.lasting(wait / 2.0) };
    let leaves = chance.happens(leaving).then_some(comes + patience);
    let away = if scenario == Scenario::Absentees { 0.3 } else { 0.05 };
    let mut absences = Vec::new();
    if chance.happens(away) {
        let from = comes + wait * chance.share();
        // A page that is loaded anew, a lost connection or a locked phone, or gone for good.
        let for_so_long = match chance.share() {
            share if share < 0.4 => Some(chance.lasting(8.0)),
            share if share < 0.8 => Some(chance.lasting(150.0)),
            _ => None,
        };
        absences.push((from, for_so_long.map(|seconds| from + seconds)));
    }
    let session = f64::from(policy.session_seconds);
    Person {
        comes,
        leaves,
        absences,
        enters: chance.happens(0.97).then(|| 1.0 + chance.lasting(4.0)),
        // Most are done before their pass is; the pass ends the others.
        stays: stays.map(|share| chance.lasting(share * session)),
    }
}
