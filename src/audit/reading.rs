//! The facts of a log read a second time, naively: people in a list, one after the other, and what
//! each fact does to them, written down from `schemas/README.md`. Nothing of the live fold is used
//! here, so that a mistake in it can't hide itself; a test keeps it so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::audit::judge::Presence;
use crate::queue::event::{
    Admitted, At, Configured, Decision, Entry, Facts, Jti, NodeId, PublicKey, Redeemed,
    ReleaseReason, Released, Seated, Seq, Setting, State, VisitorId,
};
use crate::queue::policy::Policy;

/// Someone who has a place, from the join for good. Their index in the list is their ticket.
#[derive(Clone, Debug)]
pub(super) struct Person {
    pub(super) visitor: VisitorId,
    pub(super) joined: u64,
    /// The last entry by which they became present.
    pub(super) came: u64,
    /// Their latest socket: the number of its node, and the node's number for it.
    pub(super) socket: (u32, u64),
    /// Since when they are absent, in running time.
    pub(super) absent: Option<i64>,
    pub(super) standing: Standing,
    pub(super) grant: Option<Grant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Waiting,
    Granted,
    Inside,
    Ended(Ending),
}

/// How a place ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Left,
    Expired,
    Removed,
    Lapsed,
    Released,
    SessionOver,
}

#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) jti: Jti,
    pub(super) kid: String,
    pub(super) seconds: u32,
    pub(super) seq: u64,
    pub(super) at: i64,
    /// When it lapses unless it is used, in running time.
    pub(super) lapses: i64,
    pub(super) used: Option<Used>,
}

#[derive(Clone, Debug)]
pub(super) struct Used {
    pub(super) seq: u64,
    pub(super) at: i64,
    pub(super) kid: String,
    pub(super) seconds: u32,
    pub(super) key: Option<[u8; 32]>,
}

/// What one entry did.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// Who moved, in the order of the facts.
    pub(super) moves: Vec<(usize, Move)>,
    /// What was set.
    pub(super) settings: Vec<Configured>,
    /// What counts nowhere, in words; with the number of the fact unless it is the whole entry.
    pub(super) void: Vec<(Option<usize>, String)>,
    /// Promises that were broken, in words.
    pub(super) violations: Vec<String>,
}

/// What happened to one person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    Joined,
    Came,
    Went,
    Admitted,
    Entered,
    Ended(Ending),
}

pub(super) const SECOND: i64 = 1_000_000_000;

/// A queue as its log tells it, up to an entry.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) seq: u64,
    /// The store time of the last entry; it never goes back.
    pub(super) at: i64,
    pub(super) last_decision: u64,
    pub(super) policy: Policy,
    /// People a minute while the rate follows the site's load, and when that was decided.
    pub(super) follows: Option<(u32, i64)>,
    pub(super) state: State,
    pub(super) reason: Option<String>,
    pub(super) keys: Vec<PublicKey>,
    pub(super) nodes: Vec<NodeId>,
    /// Nanoseconds of outage so far: how far the running time, by which graces and grants run, is
    /// behind the log's.
    pub(super) outages: i64,
    /// When the rate allows the next grant.
    pub(super) next_due: i64,
    pub(super) people: Vec<Person>,
    /// Nobody with a lower ticket waits.
    pub(super) front: usize,
    /// How many have a grant that is not used, or are inside.
    pub(super) inside: u32,
    /// Tickets of those who wait and are present.
    pub(super) here: BTreeSet<usize>,
    /// Since the last decision: at which entry who became present or absent, and what they were
    /// before. A decision's `basis` is not older.
    pub(super) flips: VecDeque<(u64, usize, bool)>,
    tickets: BTreeMap<VisitorId, usize>,
    numbers: BTreeMap<NodeId, u32>,
    /// Whose each grant is, by its name.
    jtis: BTreeMap<Jti, usize>,
}

impl Reading {
    /// Reads the next entry.
    pub(super) fn read(&mut self, seq: Seq, stored: At, entry: &Entry) -> Step {
        self.seq = seq.0;
        self.at = self.at.max(stored.0);
        let mut step = Step::default();
        match entry {
            Entry::Joined(seated) => self.joined(seated, &mut step),
            Entry::Reconnected(seated) => self.reconnected(seated, &mut step),
            Entry::Disconnected(seated) => self.disconnected(seated, &mut step),
            Entry::Left(visitors) => self.left(visitors, &mut step),
            Entry::Decided(decision) => {
                self.decided(decision, &mut step);
                self.decision_stands_here();
            }
            Entry::Void { fenced: true } => self.decision_stands_here(),
            Entry::Void { fenced: false } => {}
        }
        step
    }

    /// The ticket of a visitor.
    pub(super) fn ticket(&self, visitor: VisitorId) -> Option<usize> {
        self.tickets.get(&visitor).copied()
    }

    /// The person with this ticket.
    pub(super) fn person(&self, ticket: usize) -> Option<&Person> {
        self.people.get(ticket)
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.people.iter().filter(|person| person.standing == Standing::Waiting).count()
    }

    /// How many of those who wait have a lower ticket.
    pub(super) fn ahead_of(&self, ticket: usize) -> usize {
        let before = self.people.iter().take(ticket);
        before.filter(|person| person.standing == Standing::Waiting).count()
    }

    /// The time by which graces and grants run, now.
    pub(super) fn running(&self) -> i64 {
        self.at.saturating_sub(self.outages)
    }

    /// An entry on an admission subject: no later decision rests on anything before it.
    fn decision_stands_here(&mut self) {
        self.last_decision = self.seq;
        self.flips.clear();
    }

    fn node(&mut self, node: NodeId) -> u32 {
        if let Some(number) = self.numbers.get(&node) {
            return *number;
        }
        let number = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        self.nodes.push(node);
        self.numbers.insert(node, number);
        number
    }

    fn joined(&mut self, seated: &Seated, step: &mut Step) {
        let node = self.node(seated.node);
        for &(visitor, socket) in &seated.visitors {
            if self.tickets.contains_key(&visitor) {
                // The first join counts for good, and this is no fault of anybody's.
                continue;
            }
            let ticket = self.people.len();
            self.tickets.insert(visitor, ticket);
            self.people.push(Person {
                visitor,
                joined: self.seq,
                came: self.seq,
                socket: (node, socket),
                absent: None,
                standing: Standing::Waiting,
                grant: None,
            });
            self.here.insert(ticket);
            self.flips.push_back((self.seq, ticket, false));
            step.moves.push((ticket, Move::Joined));
        }
    }

    fn reconnected(&mut self, seated: &Seated, step: &mut Step) {
        let node = self.node(seated.node);
        for (fact, &(visitor, socket)) in seated.visitors.iter().enumerate() {
            let Some(ticket) = self.ticket(visitor) else {
                step.void_fact(fact, never_joined(visitor));
                continue;
            };
            let (seq, Some(person)) = (self.seq, self.people.get_mut(ticket)) else { continue };
            if !matches!(person.standing, Standing::Waiting | Standing::Granted) {
                step.void_fact(fact, format!("the place of visitor {visitor} is over"));
                continue;
            }
            let was_here = person.absent.take().is_none();
            (person.socket, person.came) = ((node, socket), seq);
            if person.standing == Standing::Waiting && !was_here {
                self.here.insert(ticket);
                self.flips.push_back((seq, ticket, false));
            }
            step.moves.push((ticket, Move::Came));
        }
    }

    fn disconnected(&mut self, seated: &Seated, step: &mut Step) {
        let node = self.node(seated.node);
        for (fact, &(visitor, socket)) in seated.visitors.iter().enumerate() {
            match self.ticket(visitor) {
                // Another socket than their latest: an old story.
                Some(ticket) if self.is_on(ticket, (node, socket)) => self.went(ticket, step),
                Some(_) => {}
                None => step.void_fact(fact, never_joined(visitor)),
            }
        }
    }

    fn is_on(&self, ticket: usize, socket: (u32, u64)) -> bool {
        self.person(ticket).is_some_and(|person| person.socket == socket)
    }

    fn left(&mut self, visitors: &[VisitorId], step: &mut Step) {
        for (fact, &visitor) in visitors.iter().enumerate() {
            let ticket = self.ticket(visitor);
            match ticket.and_then(|ticket| Some((ticket, self.person(ticket)?.standing))) {
                None => step.void_fact(fact, never_joined(visitor)),
                Some((ticket, Standing::Waiting | Standing::Granted)) => {
                    self.end(ticket, Ending::Left, step);
                }
                Some((_, Standing::Inside | Standing::Ended(_))) => {
                    step.void_fact(fact, format!("visitor {visitor} had no place to give up"));
                }
            }
        }
    }

    fn decided(&mut self, decision: &Decision, step: &mut Step) {
        let (prev, basis) = (decision.prev.0, decision.basis.0);
        if prev != self.last_decision {
            let before = self.last_decision;
            step.void.push((
                None,
                format!(
                    "it was fenced on entry {prev}, and the decision before it is entry {before}"
                ),
            ));
            return;
        }
        if basis < prev || basis >= self.seq {
            let why = format!("its basis, entry {basis}, is not between entry {prev} and itself");
            step.void.push((None, why));
            return;
        }
        match &decision.facts {
            Facts::Configured(facts) => {
                facts.iter().for_each(|fact| self.configured(fact, step));
                step.settings.clone_from(facts);
            }
            Facts::Admitted(facts) => {
                let waits = |person: &Person| person.standing == Standing::Waiting;
                while self.person(self.front).is_some_and(|person| !waits(person)) {
                    self.front += 1;
                }
                let presence = Presence::at(self, basis);
                self.judge_order(facts, &presence, step);
                for (number, fact) in facts.iter().enumerate() {
                    self.admitted(number, fact, &presence, step);
                }
            }
            Facts::Redeemed(facts) => {
                for (number, fact) in facts.iter().enumerate() {
                    self.redeemed(number, fact, step);
                }
            }
            Facts::Released(facts) => {
                for (number, fact) in facts.iter().enumerate() {
                    self.released(number, fact, step);
                }
            }
            Facts::Expired(facts) => {
                for (number, &visitor) in facts.iter().enumerate() {
                    self.expired(number, visitor, basis, step);
                }
            }
            Facts::Removed(facts) => {
                for (number, fact) in facts.iter().enumerate() {
                    let over = |person: &Person| matches!(person.standing, Standing::Ended(_));
                    match self.ticket(fact.visitor) {
                        None => step.void_fact(number, never_joined(fact.visitor)),
                        Some(ticket) if self.person(ticket).is_some_and(over) => {
                            let visitor = fact.visitor;
                            step.void_fact(
                                number,
                                format!("the place of visitor {visitor} is over"),
                            );
                        }
                        Some(ticket) => self.end(ticket, Ending::Removed, step),
                    }
                }
            }
            Facts::NodeLost(nodes) => self.nodes_lost(nodes, step),
        }
    }

    fn configured(&mut self, fact: &Configured, step: &mut Step) {
        let rate_before = self.rate();
        match &fact.what {
            Setting::Policy(policy) => self.policy = policy.clone(),
            Setting::Rate { per_minute, .. } => {
                self.follows = per_minute.map(|per_minute| (per_minute, self.at));
            }
            Setting::State(state, reason) => {
                self.judge_schedule(*state, &fact.by, step);
                self.state = *state;
                self.reason.clone_from(reason);
            }
            Setting::Keys(keys) => self.keys.clone_from(keys),
            Setting::Outage { seconds } => {
                let length = i64::from(*seconds) * SECOND;
                // Where the running time stood when the outage began, and stood still since.
                let stood = self.running().saturating_sub(length);
                self.outages = self.outages.saturating_add(length);
                for person in &mut self.people {
                    if let (Standing::Waiting, Some(since)) = (person.standing, &mut person.absent)
                    {
                        *since = stood.min(*since);
                    }
                }
            }
        }
        self.rate_changes(rate_before);
    }

    /// People a minute, as the policy says, or fewer where the rate follows the site's load.
    pub(super) fn rate(&self) -> u32 {
        let most = self.policy.rate_per_minute;
        self.follows.map_or(most, |(per_minute, _)| per_minute.min(most))
    }

    /// What is owed to the rate so far, counted in people, is owed to the new one: a burst at most.
    fn rate_changes(&mut self, before: u32) {
        let (rate, owed) = (self.rate(), self.next_due.saturating_sub(self.at));
        if rate == before || owed <= 0 {
            return;
        }
        let (new, old) = (i128::from(interval_nanos(rate)), i128::from(interval_nanos(before)));
        let owed = (i128::from(owed) * new / old).min(i128::from(burst(rate)) * new);
        self.next_due = self.at.saturating_add(i64::try_from(owed).unwrap_or(i64::MAX));
    }

    fn admitted(&mut self, number: usize, fact: &Admitted, presence: &Presence, step: &mut Step) {
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
            return step.void_fact(number, format!("visitor {visitor} was not in line"));
        }
        self.judge_admission(ticket, presence, step);
        if let Some(other) = self.jtis.insert(fact.jti, ticket).and_then(|it| self.person(it)) {
            let (jti, other) = (fact.jti, other.visitor);
            step.violations
                .push(format!("grant {jti} of visitor {visitor} was given to {other}, too"));
        }
        let interval = interval_nanos(self.rate());
        self.next_due = self.next_due.max(self.at).saturating_add(interval);
        self.inside += 1;
        self.here.remove(&ticket);
        let grant = Grant {
            jti: fact.jti,
            kid: fact.kid.clone(),
            seconds: fact.seconds,
            seq: self.seq,
            at: self.at,
            lapses: self.running().saturating_add(i64::from(fact.seconds) * SECOND),
            used: None,
        };
        let Some(person) = self.people.get_mut(ticket) else { return };
        (person.standing, person.grant) = (Standing::Granted, Some(grant));
        step.moves.push((ticket, Move::Admitted));
    }

    fn redeemed(&mut self, number: usize, fact: &Redeemed, step: &mut Step) {
        let (visitor, jti) = (fact.visitor, fact.jti);
        let (seq, at) = (self.seq, self.at);
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

    fn released(&mut self, number: usize, fact: &Released, step: &mut Step) {
        let (visitor, jti) = (fact.visitor, fact.jti);
        let Some(ticket) = self.ticket(visitor) else {
            return step.void_fact(number, never_joined(visitor));
        };
        let has_it = |person: &&Person| person.grant.as_ref().is_some_and(|grant| grant.jti == jti);
        let Some(person) = self.person(ticket).filter(has_it) else {
            return step.void_fact(number, format!("visitor {visitor} has no grant {jti}"));
        };
        let ending = match (person.standing, fact.reason) {
            (Standing::Granted, ReleaseReason::Lapsed) => Ending::Lapsed,
            (Standing::Granted | Standing::Inside, ReleaseReason::Released) => Ending::Released,
            (Standing::Inside, ReleaseReason::SessionOver) => Ending::SessionOver,
            (_, ReleaseReason::Lapsed | ReleaseReason::Released | ReleaseReason::SessionOver) => {
                return step.void_fact(number, format!("grant {jti} was not one to be ended so"));
            }
        };
        self.judge_release(person, ending, step);
        self.end(ticket, ending, step);
    }

    fn expired(&mut self, number: usize, visitor: VisitorId, basis: u64, step: &mut Step) {
        let Some(ticket) = self.ticket(visitor) else {
            return step.void_fact(number, never_joined(visitor));
        };
        let Some(person) = self.person(ticket) else { return };
        if person.standing != Standing::Waiting {
            return step.void_fact(number, format!("visitor {visitor} was not in line"));
        }
        let Some(since) = person.absent else {
            if person.came <= basis {
                let what = format!("visitor {visitor} was to lose their place, and was present");
                step.violations.push(what);
            }
            return step.void_fact(number, format!("visitor {visitor} was present"));
        };
        if person.came > basis {
            let came = person.came;
            return step.void_fact(number, format!("visitor {visitor} came back by entry {came}"));
        }
        self.judge_grace(visitor, since, step);
        self.end(ticket, Ending::Expired, step);
    }

    fn nodes_lost(&mut self, nodes: &[NodeId], step: &mut Step) {
        let mut lost = BTreeSet::new();
        for (fact, node) in nodes.iter().enumerate() {
            match self.numbers.get(node) {
                Some(number) => drop(lost.insert(*number)),
                None => step.void_fact(fact, format!("no node {node} ever wrote a fact")),
            }
        }
        // Once for all of them: whom one held, no other did.
        let held = |(_, person): &(usize, &Person)| lost.contains(&person.socket.0);
        let held: Vec<usize> =
            self.people.iter().enumerate().filter(held).map(|(ticket, _)| ticket).collect();
        for ticket in held {
            self.went(ticket, step);
        }
    }

    /// Their latest socket is gone, if it was not gone already.
    fn went(&mut self, ticket: usize, step: &mut Step) {
        let (seq, running) = (self.seq, self.running());
        let Some(person) = self.people.get_mut(ticket) else { return };
        let held = matches!(person.standing, Standing::Waiting | Standing::Granted);
        if !held || person.absent.is_some() {
            return;
        }
        person.absent = Some(running);
        if self.here.remove(&ticket) {
            self.flips.push_back((seq, ticket, true));
        }
        step.moves.push((ticket, Move::Went));
    }

    fn end(&mut self, ticket: usize, ending: Ending, step: &mut Step) {
        let Some(person) = self.people.get_mut(ticket) else { return };
        if matches!(person.standing, Standing::Granted | Standing::Inside) {
            self.inside -= 1;
        }
        person.standing = Standing::Ended(ending);
        self.here.remove(&ticket);
        step.moves.push((ticket, Move::Ended(ending)));
    }
}

impl Step {
    pub(super) fn void_fact(&mut self, number: usize, why: String) {
        self.void.push((Some(number), why));
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

fn never_joined(visitor: VisitorId) -> String {
    format!("visitor {visitor} never joined")
}
