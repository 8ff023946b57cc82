//! Who comes, is here, goes and gives up, and whether any of that is written down.

use std::collections::BTreeSet;

use crate::audit::reading::{Coming, Ending, Move, Person, Reading, Standing, Step, never_joined};
use crate::queue::event::{
    Disconnected, Joined, Left, NodeId, Presence, Reconnected, Return, VisitorId,
};

const NOT_WRITTEN_DOWN: &str = "it is not written down for now who comes and goes";

/// Why someone is not present by what a node said.
enum NotHere {
    Void(String),
    /// They did something else since, as this says.
    Elsewhere(String),
}

impl Reading {
    fn node(&mut self, node: NodeId) -> u32 {
        if let Some(number) = self.numbers.get(&node) {
            return *number;
        }
        let number = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        self.nodes.push(node);
        self.numbers.insert(node, number);
        number
    }

    pub(super) fn joined(&mut self, joined: &Joined, step: &mut Step) {
        let node = self.node(joined.node);
        for join in &joined.visitors {
            if self.tickets.contains_key(&join.visitor) {
                // The first join counts for good, and this is no fault of anybody's.
                continue;
            }
            let ticket = self.people.len();
            self.tickets.insert(join.visitor, ticket);
            self.people.push(Person {
                visitor: join.visitor,
                joined: self.seq,
                came: self.seq,
                socket: (node, join.socket),
                opened: join.opened,
                hand: 0,
                returns: 0,
                misses: 0,
                lane: join.lane,
                absent: None,
                standing: Standing::Waiting,
                grant: None,
            });
            self.here.insert(ticket);
            self.flips.push_back((self.seq, ticket, false));
            step.moves.push((ticket, Move::Joined));
        }
    }

    pub(super) fn reconnected(&mut self, reconnected: &Reconnected, step: &mut Step) {
        let node = self.node(reconnected.node);
        let basis = reconnected.basis.map(|basis| basis.0);
        for (fact, back) in reconnected.visitors.iter().enumerate() {
            let found = self.ticket(back.visitor);
            let Some((ticket, person)) = found.and_then(|it| Some((it, self.person(it)?))) else {
                step.void_fact(fact, never_joined(back.visitor));
                continue;
            };
            match self.may_come(person, back, basis) {
                Ok(coming) => self.came(ticket, coming, (node, back), step),
                Err(NotHere::Void(why)) => step.void_fact(fact, why),
                Err(NotHere::Elsewhere(did)) => {
                    let visitor = back.visitor;
                    if person.socket.0 != node {
                        let node = reconnected.node;
                        let seat = format!("the seat of visitor {visitor} at node {node}");
                        step.note_fact(fact, format!("{seat} yields: they {did}"));
                        step.moves.push((ticket, Move::Yielded));
                    }
                    step.void_fact(fact, format!("visitor {visitor} {did}"));
                }
            }
        }
    }

    /// Whether someone is present by this fact, which asserts a seat where there is a `basis`.
    fn may_come(
        &self,
        person: &Person,
        back: &Return,
        basis: Option<u64>,
    ) -> Result<Coming, NotHere> {
        let visitor = back.visitor;
        let void = |why: String| Err(NotHere::Void(why));
        if !person.is_awaited() {
            return void(over(visitor));
        }
        if let Some(basis) = basis.filter(|basis| *basis >= self.seq) {
            return void(format!("it rests on entry {basis}, which was not there yet"));
        }
        if back.hand != person.hand {
            let next = person.hand.checked_add(1) == Some(back.hand);
            return if next && basis.is_none() {
                Ok(Coming::Carried)
            } else {
                void(other_hand(visitor, back.hand, person.hand))
            };
        }
        let both_said = back.opened > 0 && person.opened > 0;
        if both_said && back.opened < person.opened {
            return Err(NotHere::Elsewhere("opened a newer socket since".to_owned()));
        }
        let newer = both_said && back.opened > person.opened;
        match basis {
            Some(basis) if person.came > basis && !newer => {
                let came = person.came;
                Err(NotHere::Elsewhere(format!("came elsewhere by entry {came}")))
            }
            Some(_) => Ok(Coming::Asserted),
            None => Ok(Coming::Back),
        }
    }

    fn came(
        &mut self,
        ticket: usize,
        coming: Coming,
        (node, back): (u32, &Return),
        step: &mut Step,
    ) {
        let (seq, Some(person)) = (self.seq, self.people.get_mut(ticket)) else { return };
        let was_here = person.absent.take().is_none();
        (person.socket, person.came) = ((node, back.socket), seq);
        (person.opened, person.hand) = (back.opened, back.hand);
        if coming != Coming::Asserted {
            person.returns = person.returns.saturating_add(1);
        }
        if person.standing == Standing::Waiting && !was_here {
            self.here.insert(ticket);
            self.flips.push_back((seq, ticket, false));
        }
        // That someone is here who was here all the time is no news.
        if coming != Coming::Asserted || !was_here {
            step.moves.push((ticket, Move::Came(coming)));
        }
    }

    pub(super) fn disconnected(&mut self, disconnected: &Disconnected, step: &mut Step) {
        let node = self.node(disconnected.node);
        for (fact, &(visitor, socket)) in disconnected.visitors.iter().enumerate() {
            match self.ticket(visitor) {
                None => step.void_fact(fact, never_joined(visitor)),
                Some(_) if self.presence.0 == Presence::Off => {
                    step.void_fact(fact, NOT_WRITTEN_DOWN.to_owned());
                }
                // Another socket than their latest: an old story.
                Some(ticket) if self.is_on(ticket, (node, socket)) => self.went(ticket, step),
                Some(_) => {}
            }
        }
    }

    fn is_on(&self, ticket: usize, socket: (u32, u64)) -> bool {
        self.person(ticket).is_some_and(|person| person.socket == socket)
    }

    pub(super) fn left(&mut self, visitors: &[Left], step: &mut Step) {
        for (fact, left) in visitors.iter().enumerate() {
            let visitor = left.visitor;
            let found = self.ticket(visitor);
            match found.and_then(|ticket| Some((ticket, self.person(ticket)?))) {
                None => step.void_fact(fact, never_joined(visitor)),
                Some((_, person)) if !person.is_awaited() => {
                    step.void_fact(fact, format!("visitor {visitor} had no place to give up"));
                }
                Some((_, person)) if person.hand != left.hand => {
                    step.void_fact(fact, other_hand(visitor, left.hand, person.hand));
                }
                Some((ticket, _)) => self.end(ticket, Ending::Left, step),
            }
        }
    }

    pub(super) fn nodes_lost(&mut self, nodes: &[NodeId], step: &mut Step) {
        let mut lost = BTreeSet::new();
        for (fact, node) in nodes.iter().enumerate() {
            match self.numbers.get(node) {
                None => step.void_fact(fact, format!("no node {node} ever wrote a fact")),
                Some(_) if self.presence.0 == Presence::Off => {
                    step.void_fact(fact, NOT_WRITTEN_DOWN.to_owned());
                }
                Some(number) => drop(lost.insert(*number)),
            }
        }
        if lost.is_empty() {
            return;
        }
        // Once for all of them: whom one held, no other did.
        let held = |(_, person): &(usize, &Person)| lost.contains(&person.socket.0);
        let held: Vec<usize> =
            self.people.iter().enumerate().filter(held).map(|(ticket, _)| ticket).collect();
        for ticket in held {
            self.went(ticket, step);
        }
    }

    /// It is written down no more who comes and goes, or again.
    pub(super) fn presence_set(&mut self, presence: Presence, by: &str, step: &mut Step) {
        if self.presence.0 == presence {
            return;
        }
        self.presence = (presence, self.times.now);
        let what = presence_words(presence);
        step.notes.push((None, format!("{what}, by {by}")));
        for ticket in 0..self.people.len() {
            match presence {
                Presence::On => self.went(ticket, step),
                Presence::Off => self.assume_present(ticket, step),
            }
        }
    }

    fn assume_present(&mut self, ticket: usize, step: &mut Step) {
        let Some(person) = self.people.get_mut(ticket) else { return };
        if !person.is_awaited() || person.absent.take().is_none() {
            return;
        }
        if person.standing == Standing::Waiting {
            self.here.insert(ticket);
        }
        step.moves.push((ticket, Move::Came(Coming::Assumed)));
    }

    /// Their latest socket is gone, if it was not gone already.
    fn went(&mut self, ticket: usize, step: &mut Step) {
        let (seq, running) = (self.seq, self.times.running());
        let Some(person) = self.people.get_mut(ticket) else { return };
        if !person.is_awaited() || person.absent.is_some() {
            return;
        }
        person.absent = Some(running);
        self.latest_absence = self.latest_absence.max(running);
        if self.here.remove(&ticket) {
            self.flips.push_back((seq, ticket, true));
        }
        step.moves.push((ticket, Move::Went));
    }

    pub(super) fn end(&mut self, ticket: usize, ending: Ending, step: &mut Step) {
        let Some(person) = self.people.get_mut(ticket) else { return };
        if matches!(person.standing, Standing::Granted | Standing::Inside) {
            self.inside -= 1;
        }
        person.standing = Standing::Ended(ending);
        self.here.remove(&ticket);
        step.moves.push((ticket, Move::Ended(ending)));
    }
}

/// Whether it is written down who comes and goes, as news.
pub(super) fn presence_words(presence: Presence) -> &'static str {
    match presence {
        Presence::On => "it is written down again who comes and goes",
        Presence::Off => {
            "it is not written down for now who comes and goes: whoever waits counts as present"
        }
    }
}

pub(super) fn over(visitor: VisitorId) -> String {
    format!("the place of visitor {visitor} is over")
}

fn other_hand(visitor: VisitorId, said: u32, hand: u32) -> String {
    if said < hand {
        format!("the place of visitor {visitor} was carried to another device before")
    } else {
        format!("the place of visitor {visitor} is in hand {hand}, not {said}")
    }
}
