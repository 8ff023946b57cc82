//! What was decided: settings, who is let in, who entered, and whose place ended.

use crate::audit::graces::after;
use crate::audit::judge::Then;
use crate::audit::reading::{
    Ending, Grant, Move, Person, Reading, Standing, Step, Used, never_joined,
};
use crate::audit::times::{SECOND, Told};
use crate::audit::who::over;
use crate::queue::event::{
    Admitted, Configured, Decision, Facts, Level, Redeemed, ReleaseReason, Released, Removed,
    Setting, VisitorId, WorkerId,
};

/// Someone who went within so many seconds of their grant did not see it.
const UNSEEN_SECONDS: u32 = 15;

impl Reading {
    /// What a decision did to the time, and what follows for the absent. `stood` is the running time
    /// before it.
    pub(super) fn time_told(&mut self, told: Told, stood: i64, worker: WorkerId, step: &mut Step) {
        if told.moved != 0 {
            step.notes.push((None, told.words(&format!(", by worker {worker}"))));
            step.shift = Some(told);
        }
        if told.outage > 0 {
            self.outage(told.outage);
        }
        // Looked at before everybody is: an idle queue's time stands still again and again.
        if !told.withheld || self.latest_absence < stood {
            return;
        }
        let running = self.times.running();
        for person in self.people.iter_mut().filter(|person| person.is_awaited()) {
            if person.absent.is_some_and(|since| since >= stood) {
                person.absent = Some(running);
            }
        }
        self.latest_absence = self.latest_absence.max(running);
    }

    /// The facts of a decision that stands.
    pub(super) fn decided(&mut self, decision: &Decision, step: &mut Step) {
        let basis = decision.basis.0;
        match &decision.facts {
            Facts::Configured(facts) => {
                facts.iter().for_each(|fact| self.configured(fact, step));
                step.settings.clone_from(facts);
            }
            Facts::Raised(level, by) => self.raised(*level, by, step),
            Facts::Admitted(facts) => {
                let waits = |person: &Person| person.standing == Standing::Waiting;
                while self.person(self.front).is_some_and(|person| !waits(person)) {
                    self.front += 1;
                }
                let then = Then::at(self, basis);
                self.judge_order(facts, &then, step);
                for (number, fact) in facts.iter().enumerate() {
                    self.admitted(number, fact, &then, step);
                }
            }
            Facts::Redeemed(facts) => {
                for (number, fact) in facts.iter().enumerate() {
                    self.redeemed(number, fact, step);
                }
            }
            Facts::Released(facts) => {
                for (number, fact) in facts.iter().enumerate() {
                    self.released(number, fact, basis, step);
                }
            }
            Facts::Expired(facts) => {
                for (number, &visitor) in facts.iter().enumerate() {
                    self.expired(number, visitor, basis, step);
                }
            }
            Facts::Removed(facts) => {
                for (number, fact) in facts.iter().enumerate() {
                    self.removed(number, fact, step);
                }
            }
            Facts::NodeLost(nodes) => self.nodes_lost(nodes, step),
        }
    }

    fn raised(&mut self, level: Level, by: &str, step: &mut Step) {
        self.level = level;
        step.notes.push((None, format!("{}, by {by}", level_words(level))));
        step.raised = Some((level, by.to_owned()));
    }

    fn configured(&mut self, fact: &Configured, step: &mut Step) {
        let rate_before = self.rate();
        match &fact.what {
            Setting::Policy(policy) => {
                let running = self.times.running();
                self.graces.replaced(self.policy.reconnect_seconds, running);
                self.policy = policy.clone();
            }
            Setting::Rate { per_minute, .. } => {
                self.follows = per_minute.map(|per_minute| (per_minute, self.times.now));
            }
            Setting::State(state, reason) => {
                self.judge_schedule(*state, &fact.by, step);
                self.state = *state;
                self.reason.clone_from(reason);
            }
            Setting::Keys(keys) => self.keys.clone_from(keys),
            Setting::Outage { seconds } => self.outage(i64::from(*seconds) * SECOND),
            Setting::Presence(presence) => self.presence_set(*presence, &fact.by, step),
            Setting::Secret(secret) => self.secret = Some(*secret),
            // The entry has it.
            Setting::Time => {}
        }
        self.rate_changes(rate_before);
    }

    /// Nobody could be served for so many nanoseconds up to now: the running time stood still.
    fn outage(&mut self, length: i64) {
        let stood = self.times.outage(length);
        self.graces.outage(stood);
        for person in &mut self.people {
            let awaited = matches!(person.standing, Standing::Waiting | Standing::Granted);
            if let (true, Some(since)) = (awaited, &mut person.absent) {
                *since = stood.min(*since);
            }
        }
    }

    /// People a minute, as the policy says, or fewer where the rate follows the site's load.
    pub(super) fn rate(&self) -> u32 {
        let most = self.policy.rate_per_minute;
        self.follows.map_or(most, |(per_minute, _)| per_minute.min(most))
    }

    /// What is owed to the rate so far, counted in people, is owed to the new one: a burst at most.
    fn rate_changes(&mut self, before: u32) {
        let now = self.times.now;
        let (rate, owed) = (self.rate(), self.next_due.saturating_sub(now));
        if rate == before || owed <= 0 {
            return;
        }
        let (new, old) = (i128::from(interval_nanos(rate)), i128::from(interval_nanos(before)));
        let owed = (i128::from(owed) * new / old).min(i128::from(burst(rate)) * new);
        self.next_due = now.saturating_add(i64::try_from(owed).unwrap_or(i64::MAX));
    }

    fn admitted(&mut self, number: usize, fact: &Admitted, then: &Then, step: &mut Step) {
        let visitor = fact.visitor;
        let Some(ticket) = self.ticket(visitor) else {
            return step.void_fact(number, never_joined(visitor));
        };
        let Some(person) = self.person(ticket) else { return };
        if person.standing != Standing::Waiting {
            if let Some(earlier) = person.grant.as_ref().map(|grant| grant.seq) {
                let what =
                    format!("visitor {visitor} was admitted twice, first by entry {earlier}");
                step.violations.push(what);
            }
            return step.void_fact(number, not_in_line(visitor));
        }
        self.judge_admission(ticket, then, step);
        let other = self.jtis.insert(fact.jti, ticket).filter(|other| *other != ticket);
        if let Some(other) = other.and_then(|other| self.person(other)) {
            let (jti, other) = (fact.jti, other.visitor);
            step.violations
                .push(format!("grant {jti} of visitor {visitor} was given to {other}, too"));
        }
        let (now, running) = (self.times.now, self.times.running());
        self.next_due = self.next_due.max(now).saturating_add(interval_nanos(self.rate()));
        self.inside += 1;
        self.here.remove(&ticket);
        let grant = Grant {
            jti: fact.jti,
            kid: fact.kid.clone(),
            seconds: fact.seconds,
            seq: self.seq,
            at: now,
            made: running,
            lapses: after(running, fact.seconds),
            used: None,
        };
        let Some(person) = self.people.get_mut(ticket) else { return };
        (person.standing, person.grant) = (Standing::Granted, Some(grant));
        step.moves.push((ticket, Move::Admitted));
    }

    fn redeemed(&mut self, number: usize, fact: &Redeemed, step: &mut Step) {
        let (visitor, jti) = (fact.visitor, fact.jti);
        let (seq, at) = (self.seq, self.times.now);
        let Some(ticket) = self.ticket(visitor) else {
            return step.void_fact(number, never_joined(visitor));
        };
        let Some(person) = self.people.get_mut(ticket) else { return };
        let grant = person.grant.as_mut().filter(|grant| grant.jti == jti);
        let Some(grant) = grant else {
            return step.void_fact(number, format!("visitor {visitor} has no grant {jti}"));
        };
        if let Some(used) = &grant.used {
            let first = used.seq;
            step.violations.push(format!("grant {jti} was redeemed twice, first by entry {first}"));
            return step.void_fact(number, format!("grant {jti} was used already"));
        }
        if person.standing != Standing::Granted {
            return step.void_fact(number, format!("grant {jti} was no longer to be used"));
        }
        let kid = fact.kid.clone();
        grant.used = Some(Used { seq, at, kid, seconds: fact.seconds, key: fact.key });
        person.standing = Standing::Inside;
        step.moves.push((ticket, Move::Entered));
    }

    fn released(&mut self, number: usize, fact: &Released, basis: u64, step: &mut Step) {
        let (visitor, jti) = (fact.visitor, fact.jti);
        let Some(ticket) = self.ticket(visitor) else {
            return step.void_fact(number, never_joined(visitor));
        };
        let Some(person) = self.person(ticket) else { return };
        let Some(grant) = person.grant.as_ref().filter(|grant| grant.jti == jti) else {
            return step.void_fact(number, format!("visitor {visitor} has no grant {jti}"));
        };
        let missed = self.has_missed_turn(person, grant);
        let ending = match (person.standing, fact.reason) {
            (Standing::Granted, ReleaseReason::Lapsed | ReleaseReason::Missed)
                if person.came > basis =>
            {
                return step.void_fact(number, came_back(visitor, person.came));
            }
            (Standing::Granted, ReleaseReason::Lapsed) if missed => {
                let why = format!("visitor {visitor} never saw their turn, and is to have another");
                return step.void_fact(number, why);
            }
            (Standing::Granted, ReleaseReason::Missed) if missed => {
                return self.missed(number, ticket, step);
            }
            (Standing::Granted, ReleaseReason::Missed) => {
                let why = format!("visitor {visitor} did not miss their turn");
                return step.void_fact(number, why);
            }
            (Standing::Granted, ReleaseReason::Lapsed) => Ending::Lapsed,
            (Standing::Granted | Standing::Inside, ReleaseReason::Released) => Ending::Released,
            (Standing::Inside, ReleaseReason::SessionOver) => Ending::SessionOver,
            (
                _,
                ReleaseReason::Lapsed
                | ReleaseReason::Missed
                | ReleaseReason::Released
                | ReleaseReason::SessionOver,
            ) => {
                return step.void_fact(number, format!("grant {jti} was not one to be ended so"));
            }
        };
        self.judge_release(person, ending, step);
        self.end(ticket, ending, step);
    }

    /// Whether someone who is granted was not here when their turn came, and is to have another.
    fn has_missed_turn(&self, person: &Person, grant: &Grant) -> bool {
        let unseen = after(grant.made, UNSEEN_SECONDS);
        person.standing == Standing::Granted
            && grant.lapses <= self.times.running()
            && person.absent.is_some_and(|since| since <= unseen)
            && person.came < grant.seq
            && person.misses < self.policy.missed_turns
    }

    /// They wait again where they were, absent as of now, and hold no grant.
    fn missed(&mut self, number: usize, ticket: usize, step: &mut Step) {
        let running = self.times.running();
        let Some(person) = self.people.get_mut(ticket) else { return };
        (person.standing, person.grant) = (Standing::Waiting, None);
        person.absent = Some(running);
        person.misses = person.misses.saturating_add(1);
        let what = format!(
            "visitor {} was not here when their turn came, and waits again",
            person.visitor
        );
        step.note_fact(number, what);
        self.latest_absence = self.latest_absence.max(running);
        self.inside -= 1;
        self.front = self.front.min(ticket);
        step.moves.push((ticket, Move::Missed));
    }

    fn expired(&mut self, number: usize, visitor: VisitorId, basis: u64, step: &mut Step) {
        let Some(ticket) = self.ticket(visitor) else {
            return step.void_fact(number, never_joined(visitor));
        };
        let Some(person) = self.person(ticket) else { return };
        if person.standing != Standing::Waiting {
            return step.void_fact(number, not_in_line(visitor));
        }
        let Some(since) = person.absent else {
            if person.came <= basis {
                let what = format!("visitor {visitor} was to lose their place, and was present");
                step.violations.push(what);
            }
            return step.void_fact(number, format!("visitor {visitor} was present"));
        };
        if person.came > basis {
            return step.void_fact(number, came_back(visitor, person.came));
        }
        self.judge_grace(visitor, since, step);
        self.end(ticket, Ending::Expired, step);
    }

    fn removed(&mut self, number: usize, fact: &Removed, step: &mut Step) {
        let visitor = fact.visitor;
        let is_over = |person: &Person| matches!(person.standing, Standing::Ended(_));
        match self.ticket(visitor) {
            None => step.void_fact(number, never_joined(visitor)),
            Some(ticket) if self.person(ticket).is_some_and(is_over) => {
                step.void_fact(number, over(visitor));
            }
            Some(ticket) => self.end(ticket, Ending::Removed, step),
        }
    }
}

/// Nanoseconds between two people at a rate, rounded up.
pub(super) fn interval_nanos(rate_per_minute: u32) -> i64 {
    (60 * SECOND + i64::from(rate_per_minute) - 1) / i64::from(rate_per_minute.max(1))
}

/// How many may be let in at once after a quiet time.
pub(super) fn burst(rate_per_minute: u32) -> i64 {
    i64::from((rate_per_minute / 600).max(1))
}

/// That the log was raised to a level, as news.
pub(super) fn level_words(level: Level) -> String {
    format!("the log is read by the rules of level {level} from here on")
}

fn not_in_line(visitor: VisitorId) -> String {
    format!("visitor {visitor} was not in line")
}

fn came_back(visitor: VisitorId, came: u64) -> String {
    format!("visitor {visitor} came back by entry {came}")
}
