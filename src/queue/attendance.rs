//! Who comes, is here, goes and gives up: the facts of nodes, and those about whole nodes.

#![expect(
    clippy::indexing_slicing,
    reason = "tickets are dense: every ticket is an index of `places`"
)]

use crate::queue::event::{
    At, Disconnected, Joined, Left, NodeId, Presence, Reconnected, Return, Seq, Socket, Ticket,
    VisitorId,
};
use crate::queue::line::{Came, Change, End, Line, Place, Standing, VoidFact};

impl Line {
    pub(super) fn join(&mut self, joined: &Joined, change: &mut Change) {
        self.warm(joined.visitors.iter().map(|join| join.visitor));
        let node = self.nodes.intern(joined.node);
        change.joined.first = self.next_ticket();
        for (index, join) in (0..).zip(&joined.visitors) {
            let ticket = self.next_ticket();
            if self.ticket(join.visitor).is_some() {
                change.joined.ignored.push(index);
                continue;
            }
            self.index.insert(join.visitor, ticket);
            self.places.push(Place::new(join, self.seq, node));
            self.nodes.took(node);
            self.waiting.insert(ticket);
            self.present.insert(ticket);
            change.joined.accepted += 1;
        }
    }

    pub(super) fn reconnect(&mut self, reconnected: &Reconnected, change: &mut Change) {
        self.warm(reconnected.visitors.iter().map(|back| back.visitor));
        let node = self.nodes.intern(reconnected.node);
        for (index, back) in reconnected.visitors.iter().enumerate() {
            let Some(ticket) = self.known(back.visitor, index, change) else { continue };
            if let Err(why) = self.may_come(ticket, back, reconnected.basis) {
                change.void.push((index, why));
                continue;
            }
            self.release_socket(ticket);
            let seq = self.seq;
            let place = self.place_mut(ticket);
            (place.node, place.socket, place.came) = (node, back.socket, seq);
            (place.opened, place.hand) = (back.opened, back.hand);
            if reconnected.basis.is_none() {
                place.returns = place.returns.saturating_add(1);
            }
            self.nodes.took(node);
            if self.waiting.contains(ticket) {
                self.present.insert(ticket);
            }
            let socket = Socket { node: reconnected.node, number: back.socket };
            change.came.push(Came { ticket, socket });
        }
    }

    /// Whether a visitor counts as present by this fact. `basis` is what the node had been told that
    /// asserts a seat, and none where the visitor has just come: its word about its own past is no news.
    fn may_come(&self, ticket: Ticket, back: &Return, basis: Option<Seq>) -> Result<(), VoidFact> {
        let place = &self.places[ticket.0 as usize];
        if !self.is_held_or_waited_for(ticket) {
            return Err(VoidFact::Ended);
        }
        if basis.is_some_and(|basis| basis >= self.seq) {
            return Err(VoidFact::BasisAhead);
        }
        if back.hand < place.hand {
            return Err(VoidFact::Carried);
        }
        if back.hand > place.hand {
            let carries = basis.is_none() && place.hand.checked_add(1) == Some(back.hand);
            return if carries { Ok(()) } else { Err(VoidFact::HandAhead) };
        }
        // The person's own browser knows best which of its sockets is the newest.
        if back.opened > 0 && place.opened > 0 && back.opened != place.opened {
            let newer = back.opened > place.opened;
            return if newer { Ok(()) } else { Err(VoidFact::OlderSocket) };
        }
        match basis {
            Some(basis) if place.came > basis => Err(VoidFact::CameElsewhere),
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn disconnect(&mut self, disconnected: &Disconnected, change: &mut Change) {
        self.warm(disconnected.visitors.iter().map(|(visitor, _)| *visitor));
        let node = self.nodes.intern(disconnected.node);
        for (index, &(visitor, number)) in disconnected.visitors.iter().enumerate() {
            let Some(ticket) = self.known(visitor, index, change) else { continue };
            if self.presence.state == Presence::Off {
                change.void.push((index, VoidFact::PresenceOff));
                continue;
            }
            let place = &self.places[ticket.0 as usize];
            if place.node == node && place.socket == number {
                self.went(ticket, change);
            }
        }
    }

    pub(super) fn leave(&mut self, visitors: &[Left], change: &mut Change) {
        self.warm(visitors.iter().map(|left| left.visitor));
        for (index, left) in visitors.iter().enumerate() {
            let Some(ticket) = self.known(left.visitor, index, change) else { continue };
            let hand = self.places[ticket.0 as usize].hand;
            if !self.is_held_or_waited_for(ticket) {
                change.void.push((index, VoidFact::Ended));
            } else if left.hand != hand {
                let why = if left.hand < hand { VoidFact::Carried } else { VoidFact::HandAhead };
                change.void.push((index, why));
            } else {
                self.end(ticket, End::Left, change);
            }
        }
    }

    pub(super) fn lose_node(&mut self, id: NodeId, change: &mut Change) -> Result<(), VoidFact> {
        let node = self.nodes.find(id).ok_or(VoidFact::UnknownNode)?;
        if self.presence.state == Presence::Off {
            return Err(VoidFact::PresenceOff);
        }
        for ticket in (0..self.next_ticket().0).map(Ticket) {
            if self.nodes.held(node) == 0 {
                break;
            }
            if self.places[ticket.0 as usize].node == node {
                self.went(ticket, change);
            }
        }
        change.lost.push(id);
        Ok(())
    }

    /// It is written down no more who comes and goes, or again.
    pub(super) fn set_presence(&mut self, state: Presence, change: &mut Change) {
        if self.presence.state == state {
            return;
        }
        (self.presence.state, self.presence.since) = (state, self.time.now);
        let tickets = (0..self.next_ticket().0).map(Ticket);
        match state {
            Presence::Off => {
                self.graces.stop_all();
                for ticket in tickets {
                    let place = &mut self.places[ticket.0 as usize];
                    let held = matches!(place.standing, Standing::Waiting | Standing::Granted);
                    if !held || place.absent().is_none() {
                        continue;
                    }
                    place.set_absent(None);
                    self.nodes.took(place.node);
                    if place.standing == Standing::Waiting {
                        self.present.insert(ticket);
                    }
                    change.restated.push(ticket);
                }
            }
            Presence::On => tickets.for_each(|ticket| self.went(ticket, change)),
        }
    }

    /// The ticket of a visitor that a fact names; a void fact when there is none.
    fn known(&self, visitor: VisitorId, index: usize, change: &mut Change) -> Option<Ticket> {
        let ticket = self.ticket(visitor);
        if ticket.is_none() {
            change.void.push((index, VoidFact::UnknownVisitor));
        }
        ticket
    }

    /// The visitor's latest socket is gone, if it was not gone already.
    fn went(&mut self, ticket: Ticket, change: &mut Change) {
        let place = &self.places[ticket.0 as usize];
        if place.absent().is_some() || !self.is_held_or_waited_for(ticket) {
            return;
        }
        self.nodes.lost_one(place.node);
        let since = self.running();
        self.place_mut(ticket).set_absent(Some(since));
        if self.present.remove(ticket) {
            self.graces.start(since, ticket);
        }
        change.went.push(ticket);
    }

    /// The visitor is on no socket for a moment: neither counted at a node nor absent.
    fn release_socket(&mut self, ticket: Ticket) {
        let place = &mut self.places[ticket.0 as usize];
        let was_absent = place.absent().is_some();
        place.set_absent(None);
        let node = place.node;
        if !was_absent {
            self.nodes.lost_one(node);
        } else if self.waiting.contains(ticket) {
            self.stop_grace();
        }
    }

    /// Nobody could be served for so many nanoseconds up to now: running graces and unused grants are
    /// prolonged.
    pub(super) fn outage(&mut self, nanos: i64, change: &mut Change) {
        let (places, waiting) = (&self.places, &self.waiting);
        let (stood, late) = self.graces.outage(nanos, self.time.now, |ticket, since| {
            places[ticket.0 as usize].absent() == Some(since) && waiting.contains(ticket)
        });
        self.restate(stood, late, change);
        self.restate_granted(At(stood.0.saturating_add(1)), stood, change);
    }

    /// Whoever went while the time stood still, at this running time, is absent since now.
    pub(super) fn end_withholding(&mut self, stood: At, change: &mut Change) {
        let running = self.running();
        let (places, waiting) = (&self.places, &self.waiting);
        let late = self.graces.absent_later_than(stood, running, |ticket, since| {
            places[ticket.0 as usize].absent() == Some(since) && waiting.contains(ticket)
        });
        self.restate(running, late, change);
        self.restate_granted(stood, running, change);
    }

    /// Whoever has a grant and is absent since `from` or later is absent since `since`.
    fn restate_granted(&mut self, from: At, since: At, change: &mut Change) {
        let unused = self.unused.iter().map(|(_, ticket)| *ticket);
        let went = |ticket: &Ticket| {
            self.places[ticket.0 as usize].absent().is_some_and(|since| since >= from)
        };
        let unused: Vec<Ticket> = unused.filter(went).collect();
        self.restate(since, unused, change);
    }

    fn restate(&mut self, since: At, tickets: Vec<Ticket>, change: &mut Change) {
        for &ticket in &tickets {
            self.place_mut(ticket).set_absent(Some(since));
        }
        change.restated.extend(tickets);
    }

    fn stop_grace(&mut self) {
        let (places, waiting) = (&self.places, &self.waiting);
        self.graces.stop(|ticket, since| {
            places[ticket.0 as usize].absent() == Some(since) && waiting.contains(ticket)
        });
    }

    pub(super) fn stop_waiting(&mut self, ticket: Ticket) {
        let was_absent = self.places[ticket.0 as usize].absent().is_some();
        if self.waiting.remove(ticket) && was_absent {
            self.stop_grace();
        }
        self.present.remove(ticket);
    }

    /// Presence no longer matters: the node is not asked for this visitor any more.
    pub(super) fn hold_no_longer(&mut self, ticket: Ticket) {
        let place = &self.places[ticket.0 as usize];
        if place.absent().is_none() && self.is_held_or_waited_for(ticket) {
            self.nodes.lost_one(place.node);
        }
    }
}
