//! A history from a plan: people come, go and leave, and whoever is due is let in by the rules that the
//! admission worker goes by. What comes of it is a log, with its times.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use anteroom::queue::admit::{self, Due, Idle};
use anteroom::queue::event::{
    Admitted, At, Configured, Decision, Disconnected, Entry, Facts, Join, Joined, Jti, Left,
    Millis, NodeId, Reconnected, Redeemed, ReleaseReason, Released, Return, Seq, Setting,
    VisitorId, WorkerId,
};
use anteroom::queue::line::{Line, Standing};

use super::chance::Chance;
use super::scenario::Plan;

/// What stands in a log, and when it was stored.
pub(super) type History = Vec<(At, Entry)>;

/// Any time will do; that it is not 0 keeps seconds apart from instants.
pub(super) const BEGINS: At = At(1_700_000_000_000_000_000);
const NODE: NodeId = NodeId([7; 16]);
const WORKER: WorkerId = WorkerId([8; 16]);
/// A worker writes so many seconds after something is due: it has to wake up and to reach the log.
const LATE: (f64, f64) = (0.001, 0.02);

/// The log that comes of a plan.
pub(crate) fn simulate(plan: &Plan, seed: u64) -> History {
    let mut world = World {
        line: Line::default(),
        history: Vec::new(),
        events: BinaryHeap::new(),
        chance: Chance::new(seed, 0xface),
        next: 0,
        admission_at: None,
    };
    for (number, (at, _)) in plan.acts.iter().enumerate() {
        world.at(*at, Event::Operator(number));
    }
    for (number, person) in plan.people.iter().enumerate() {
        world.at(person.comes, Event::Comes(number));
        if let Some(at) = person.leaves {
            world.at(at, Event::Leaves(number));
        }
        for (from, until) in &person.absences {
            world.at(*from, Event::Goes(number));
            if let Some(until) = until {
                world.at(*until, Event::Returns(number));
            }
        }
    }
    world.at(0.0, Event::Second);
    while let Some(Reverse((at, _, event))) = world.events.pop() {
        if at > instant(plan.until) || world.is_over(plan) {
            break;
        }
        world.happens(plan, at, event);
    }
    world.history
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Operator(usize),
    Comes(usize),
    Leaves(usize),
    Goes(usize),
    Returns(usize),
    Enters(usize),
    Done(usize),
    Admission,
    Second,
}

struct World {
    line: Line,
    history: History,
    events: BinaryHeap<Reverse<(At, u64, Event)>>,
    chance: Chance,
    next: u64,
    admission_at: Option<At>,
}

impl World {
    fn at(&mut self, seconds: f64, event: Event) {
        self.when(instant(seconds), event);
    }

    fn when(&mut self, at: At, event: Event) {
        self.next += 1;
        self.events.push(Reverse((at, self.next, event)));
    }

    fn is_over(&self, plan: &Plan) -> bool {
        self.line.places().len() == plan.people.len() && self.line.waiting().is_empty()
    }

    fn happens(&mut self, plan: &Plan, at: At, event: Event) {
        match event {
            Event::Operator(number) => {
                let what = plan.acts[number].1.clone();
                self.decide(at, Facts::Configured(vec![Configured { by: "ops".to_owned(), what }]));
            }
            Event::Comes(number) => {
                let visitors = vec![Join::plain(visitor(number), 0)];
                self.write(at, Entry::Joined(Joined { node: NODE, visitors }));
            }
            Event::Leaves(number) if self.waits(number) => {
                self.write(at, Entry::Left(vec![Left { visitor: visitor(number), hand: 0 }]));
            }
            Event::Goes(number) if self.waits(number) => {
                let visitors = vec![(visitor(number), 0)];
                self.write(at, Entry::Disconnected(Disconnected { node: NODE, visitors }));
            }
            Event::Returns(number) if self.waits(number) => {
                let visitors = vec![Return::plain(visitor(number), 1)];
                let back = Reconnected { node: NODE, basis: None, visitors };
                self.write(at, Entry::Reconnected(back));
            }
            Event::Enters(number) if self.standing(number) == Some(Standing::Granted) => {
                let (visitor, jti, kid) = (visitor(number), jti(number), "k1".to_owned());
                let seconds = self.line.policy().session_seconds;
                let fact = Redeemed { visitor, jti, kid, seconds, key: None };
                self.decide(at, Facts::Redeemed(vec![fact]));
                if let Some(stays) = plan.people[number].stays {
                    self.when(later(at, stays), Event::Done(number));
                }
            }
            Event::Done(number) if self.standing(number) == Some(Standing::Inside) => {
                let reason = ReleaseReason::Released;
                let (visitor, jti, by) = (visitor(number), jti(number), "site".to_owned());
                self.decide(at, Facts::Released(vec![Released { visitor, jti, reason, by }]));
            }
            Event::Second => self.when(later(at, 1.0), Event::Second),
            // An earlier wake-up has taken the place of any other.
            Event::Admission if self.admission_at == Some(at) => self.admission_at = None,
            Event::Leaves(_)
            | Event::Goes(_)
            | Event::Returns(_)
            | Event::Enters(_)
            | Event::Done(_)
            | Event::Admission => return,
        }
        self.admission(plan, at, event);
    }

    /// Lets in whoever is due, or says when to look again.
    fn admission(&mut self, plan: &Plan, at: At, event: Event) {
        loop {
            match admit::decide(&self.line, at) {
                // Only a wake-up writes: the worker is not there the moment that something is due.
                Due::Facts(_) | Due::Admit(_) if event != Event::Admission => {
                    return self.wake(at);
                }
                Due::Facts(facts) => self.decide(at, facts),
                Due::Admit(visitors) => {
                    let seconds = self.line.policy().token_seconds;
                    let grant = |visitor: &VisitorId| {
                        let jti = Jti(visitor.0);
                        Admitted { visitor: *visitor, jti, kid: "k1".to_owned(), seconds }
                    };
                    let facts = visitors.iter().map(grant).collect();
                    self.decide(at, Facts::Admitted(facts));
                    for number in visitors.into_iter().map(number) {
                        if let Some(seconds) = plan.people[number].enters {
                            self.when(later(at, seconds), Event::Enters(number));
                        }
                    }
                }
                Due::Nothing(_) if self.line.time().is_withheld() => {
                    if event != Event::Admission {
                        return self.wake(at);
                    }
                    let (by, what) = (admit::SCHEDULE.to_owned(), Setting::Time);
                    self.decide(at, Facts::Configured(vec![Configured { by, what }]));
                }
                Due::Nothing(Idle::Rate(due) | Idle::CallingRoll(due)) => return self.wake(due),
                Due::Nothing(Idle::NotOpen | Idle::NobodyHere | Idle::Full) => return,
            }
        }
    }

    fn wake(&mut self, due: At) {
        let late = self.chance.by_factors(LATE.0, LATE.1);
        let at = later(due, late);
        if self.admission_at.is_none_or(|known| at < known) {
            self.admission_at = Some(at);
            self.when(at, Event::Admission);
        }
    }

    fn decide(&mut self, at: At, facts: Facts) {
        let (prev, basis) = (self.line.last_decision(), self.line.seq());
        let now = Millis::from(at);
        self.write(at, Entry::Decided(Decision { prev, basis, now, worker: WORKER, facts }));
    }

    fn write(&mut self, at: At, entry: Entry) {
        self.line.apply(Seq(self.line.seq().0 + 1), at, &entry);
        self.history.push((at, entry));
    }

    fn waits(&self, number: usize) -> bool {
        self.standing(number) == Some(Standing::Waiting)
    }

    fn standing(&self, number: usize) -> Option<Standing> {
        Some(self.line.place(self.line.ticket(visitor(number))?)?.standing)
    }
}

fn visitor(number: usize) -> VisitorId {
    // The index wants ids that look like any others: it takes their bits for a hash.
    let spread = (number as u128 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    VisitorId(spread.to_be_bytes())
}

fn jti(number: usize) -> Jti {
    Jti(visitor(number).0)
}

fn number(visitor: VisitorId) -> usize {
    // The inverse of the factor modulo 2^128, by Newton's iteration.
    const FACTOR: u128 = 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835;
    let mut inverse = FACTOR;
    for _ in 0..7 {
        inverse = inverse.wrapping_mul(2u128.wrapping_sub(FACTOR.wrapping_mul(inverse)));
    }
    (u128::from_be_bytes(visitor.0).wrapping_mul(inverse) - 1) as usize
}

fn instant(seconds: f64) -> At {
    later(BEGINS, seconds)
}

fn later(at: At, seconds: f64) -> At {
    At(at.0 + (seconds * 1e9) as i64)
}
