//! What is promised to visitors and to the site, held against what was decided. A decision is judged
//! by what its writer knew: the log up to its `basis`, and the policy in force.

use std::collections::{BTreeMap, BTreeSet};

use crate::audit::decided::{burst, interval_nanos};
use crate::audit::graces::after;
use crate::audit::reading::{Ending, Person, Reading, Standing, Step};
use crate::audit::times::SECOND;
use crate::queue::event::{Admitted, State, VisitorId};
use crate::queue::policy::Absent;

/// Whose act is what nobody ordered.
const SCHEDULE: &str = "schedule";

/// People that one finding names; of more it says how many.
const NAMED_MAX: usize = 3;
/// People that it counts: a log that lets in the last again and again would cost all of them each time.
const COUNTED_MAX: usize = 1_000;

/// Who was present at an entry that a decision rests on.
pub(super) struct Then {
    basis: u64,
    /// What each was then who became present or absent since.
    were: BTreeMap<usize, bool>,
}

impl Then {
    pub(super) fn at(reading: &Reading, basis: u64) -> Self {
        let since = reading.flips.iter().rev().take_while(|(seq, ..)| *seq > basis);
        // From the last to the first: the first tells what they were before.
        Self { basis, were: since.map(|(_, ticket, was)| (*ticket, *was)).collect() }
    }

    /// Whether someone who waits was present.
    fn was_here(&self, reading: &Reading, ticket: usize) -> bool {
        self.were.get(&ticket).copied().unwrap_or_else(|| reading.here.contains(&ticket))
    }
}

impl Reading {
    /// Were all those let in who were present at `basis` and had joined before the last of these?
    pub(super) fn judge_order(&self, facts: &[Admitted], then: &Then, step: &mut Step) {
        let waits = |ticket: &usize| {
            self.person(*ticket).is_some_and(|person| person.standing == Standing::Waiting)
        };
        let tickets = facts.iter().filter_map(|fact| self.ticket(fact.visitor)).filter(waits);
        let tickets: Vec<usize> = tickets.collect();
        if !tickets.is_sorted() {
            let what = "the visitors of one entry were not let in in the order of the line";
            step.violations.push(what.to_owned());
        }
        let Some(&last) = tickets.iter().max() else { return };
        let let_in: BTreeSet<usize> = tickets.into_iter().collect();
        if self.policy.absent == Absent::Admit {
            return self.judge_order_of_all(&let_in, last, then, step);
        }
        let were = &then.were;
        let here = self.here.range(..last).filter(|ticket| were.get(ticket) != Some(&false));
        let here = here.filter(|ticket| !let_in.contains(ticket));
        let gone = were.iter().filter(|(ticket, was)| {
            **was && **ticket < last && !self.here.contains(ticket) && waits(ticket)
        });
        let gone = gone.map(|(ticket, _)| ticket).filter(|ticket| !let_in.contains(ticket));
        let overtaken = here.take(COUNTED_MAX).chain(gone.take(COUNTED_MAX)).copied().collect();
        let basis = then.basis;
        self.name_overtaken(&overtaken, &format!("present at entry {basis}"), step);
    }

    /// Where the absent are let in unseen: were all let in who waited before the last of these? Who has
    /// missed a turn is passed over until they are here again.
    fn judge_order_of_all(
        &self,
        let_in: &BTreeSet<usize>,
        last: usize,
        then: &Then,
        step: &mut Step,
    ) {
        let people = self.people.iter().enumerate().take(last).skip(self.front);
        let waits = people.filter(|(_, person)| person.standing == Standing::Waiting);
        let in_turn =
            waits.filter(|(ticket, person)| person.misses == 0 || then.was_here(self, *ticket));
        let others = in_turn.map(|(ticket, _)| ticket).filter(|ticket| !let_in.contains(ticket));
        self.name_overtaken(&others.take(COUNTED_MAX).collect(), "waiting", step);
    }

    fn name_overtaken(&self, overtaken: &BTreeSet<usize>, though: &str, step: &mut Step) {
        let overtaken: Vec<&Person> =
            overtaken.iter().filter_map(|ticket| self.person(*ticket)).collect();
        if overtaken.is_empty() {
            return;
        }
        let named: Vec<String> =
            overtaken.iter().take(NAMED_MAX).map(|person| person.visitor.to_string()).collect();
        let more = match overtaken.len() - named.len() {
            0 => String::new(),
            more if overtaken.len() < COUNTED_MAX => format!(" and {more} more"),
            more => format!(" and at least {more} more"),
        };
        let names = named.join(", ");
        step.violations.push(format!("overtaken, though {though}: {names}{more}"));
    }

    /// Was this one to be let in at all, and now?
    pub(super) fn judge_admission(&self, ticket: usize, then: &Then, step: &mut Step) {
        let Some(person) = self.person(ticket) else { return };
        let visitor = person.visitor;
        if self.state != State::Open {
            let state = state_word(self.state);
            step.violations
                .push(format!("visitor {visitor} was let in while the queue was {state}"));
        }
        let must_be_here = self.policy.absent == Absent::Hold || person.misses > 0;
        if must_be_here && !then.was_here(self, ticket) {
            let basis = then.basis;
            let what = format!("visitor {visitor} was let in though absent at entry {basis}");
            step.violations.push(what);
        }
        if let Some(ceiling) = self.policy.max_inside
            && self.inside >= ceiling
        {
            let inside = self.inside;
            step.violations.push(format!(
                "visitor {visitor} was let in over the ceiling: {inside} were inside, and {ceiling} may be"
            ));
        }
        self.judge_rate(visitor, step);
    }

    /// What nobody ordered comes by the policy's own times, and no sooner.
    pub(super) fn judge_schedule(&self, state: State, by: &str, step: &mut Step) {
        let (what, time) = match state {
            State::Open => ("opened", self.policy.opens_at),
            State::Closed => ("closed", self.policy.closes_at),
            State::Scheduled | State::Paused | State::Deleted => return,
        };
        if by != SCHEDULE {
            return;
        }
        let missing = time.map(|time| time.0.saturating_sub(self.times.now));
        match missing {
            None => {
                step.violations.push(format!("the queue was {what} by a schedule that it has not"))
            }
            Some(missing) if missing > 0 => {
                let missing = missing / SECOND + 1;
                step.violations.push(format!("the queue was {what} {missing} s before its time"));
            }
            Some(_) => {}
        }
    }

    /// In any w seconds at most burst + w x rate / 60 people are let in. That is kept by whoever lets
    /// nobody in more than burst - 1 intervals before their turn, where each turn is one interval
    /// after the later of the turn before and the time at which that was taken (GCRA, ITU-T I.371).
    fn judge_rate(&self, visitor: VisitorId, step: &mut Step) {
        let rate = self.rate();
        let ahead = self.next_due.saturating_sub(self.times.now);
        let early = ahead.saturating_sub((burst(rate) - 1) * interval_nanos(rate));
        if early > 0 {
            let millis = early / 1_000_000 + 1;
            step.violations.push(format!(
                "visitor {visitor} was let in {millis} ms before the rate of {rate} a minute allowed it"
            ));
        }
    }

    /// Nobody loses a place before the longest grace is over that was in force since they went, outages
    /// not counted.
    pub(super) fn judge_grace(&self, visitor: VisitorId, since: i64, step: &mut Step) {
        let grace = self.grace_seconds(since);
        let missing = after(since, grace).saturating_sub(self.times.running());
        if missing > 0 {
            let missing = missing / SECOND + 1;
            step.violations.push(format!(
                "visitor {visitor} lost their place {missing} s before their {grace} s of grace were over"
            ));
        }
    }

    /// No grant lapses and no session ends before its time, outages not counted for grants.
    pub(super) fn judge_release(&self, person: &Person, ending: Ending, step: &mut Step) {
        let Some(grant) = &person.grant else { return };
        let (what, missing) = match (ending, &grant.used) {
            (Ending::Lapsed, _) => ("the grant", grant.lapses.saturating_sub(self.times.running())),
            (Ending::SessionOver, Some(used)) => {
                let over = after(used.at, used.seconds);
                ("the session", over.saturating_sub(self.times.now))
            }
            _ => return,
        };
        if missing > 0 {
            let (visitor, missing) = (person.visitor, missing / SECOND + 1);
            step.violations
                .push(format!("{what} of visitor {visitor} ended {missing} s before its time"));
        }
    }
}

/// A state in a sentence.
pub(super) fn state_word(state: State) -> &'static str {
    match state {
        State::Scheduled => "not open yet",
        State::Open => "open",
        State::Paused => "paused",
        State::Closed => "closed",
        State::Deleted => "deleted",
    }
}
