//! Who sits on this node: one seat a visitor, with the socket that it is on now.
//!
//! A seat outlives its socket for a moment, so that pressing refresh is no fact in the log.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::node::hall::index::{Seat, Seats, ToSocket};
use crate::node::hall::pushers::{Handed, Pushers};
use crate::node::hall::sitting::{Notice, Sitting, Taken};
use crate::node::identity::NodeIds;
use crate::queue::event::{NodeId, Return, Seq, Socket, Ticket, VisitorId};
use crate::queue::seat::{Claim, Found, Verdict};
use crate::wire::ask::Minted;
use crate::wire::socket::EndReason;

/// The seats of one queue on this node.
pub(in crate::node) struct Hall {
    seats: Mutex<Seats>,
    pushers: Arc<Pushers>,
    /// The queue's number at the pushers.
    row: u32,
    /// The ids that this node has had; the last is in use.
    ids: Arc<NodeIds>,
}

/// What the log is to be told of a seat.
#[derive(Clone, Copy, Debug)]
pub(in crate::node) struct Word {
    pub(in crate::node) ticket: Ticket,
    pub(in crate::node) node: NodeId,
    pub(in crate::node) back: Return,
    /// Up to which entry it is known here what became of the visitor.
    pub(in crate::node) basis: Seq,
}

/// A visitor who takes a seat.
pub(in crate::node) struct Arrival {
    pub(in crate::node) ticket: Ticket,
    pub(in crate::node) visitor: VisitorId,
    pub(in crate::node) hand: u32,
    pub(in crate::node) claim: Claim,
    /// Where they are is known up to this entry.
    pub(in crate::node) through: Seq,
}

/// Why a seat can't be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum NoSeat {
    /// A socket has it that was opened later; which one it is of those that the client opened.
    Newer(u32),
    /// The place was carried to another hand.
    Carried,
    /// The visitor has none here.
    Nobody,
}

/// A seat that was taken by someone who was found in line.
pub(in crate::node) struct Sat {
    pub(in crate::node) taken: Taken,
    /// By this entry something was said of them after they were found and before they sat: they are to be
    /// looked up.
    pub(in crate::node) missed: Option<Seq>,
}

impl Hall {
    /// An empty hall with so many seats, of the queue with this number at the pushers.
    pub(in crate::node) fn new(
        pushers: Arc<Pushers>,
        row: u32,
        seats: usize,
        ids: Arc<NodeIds>,
    ) -> Self {
        Self { seats: Mutex::new(Seats::new(seats)), pushers, row, ids }
    }

    fn own(&self) -> NodeId {
        self.ids.own()
    }

    /// The queue was learnt by a snapshot of this entry.
    pub(in crate::node) fn begins(&self, through: Seq) {
        let mut seats = self.lock();
        (seats.told, seats.forgotten) = (through, through);
    }

    /// The queue's number at the pushers.
    pub(in crate::node) fn row(&self) -> u32 {
        self.row
    }

    /// Hands a visitor's socket over to their pusher; it comes back when there is none. Whatever
    /// happened to the visitor before is in the socket's notices, and what happens from now on
    /// reaches the pusher after it.
    pub(in crate::node) fn hand_over(&self, handed: Handed) -> Result<(), Box<Handed>> {
        let mut seats = self.lock();
        let sitting = handed.sitting;
        self.pushers.give(handed)?;
        let seat = seats.get_mut(sitting.ticket);
        if let Some(seat) = seat.filter(|seat| seat.sitting == sitting.number) {
            seat.to_socket = Some(ToSocket::Pusher);
        }
        Ok(())
    }

    /// Takes a seat. Whoever was on it is told that they are replaced. `tell` is given the socket that had
    /// the seat, and what can be said of the new one, before anything else is said of the visitor.
    pub(in crate::node) fn sit(
        &self,
        arrival: Arrival,
        tell: impl FnOnce(Option<Socket>, Word),
    ) -> Result<Sat, NoSeat> {
        let Arrival { ticket, visitor, hand, mut claim, through } = arrival;
        let mut seats = self.lock();
        let told = seats.told;
        if let Some(seat) = seats.get(ticket) {
            let (here, there) = (claim.socket(), seat.claim.socket());
            let there_is_later = here.node == there.node && here.number < there.number;
            let there_is_newer = claim.opened() > 0 && claim.opened() < seat.claim.opened();
            if hand < seat.hand {
                return Err(NoSeat::Carried);
            }
            // Another hand is another browser, which counts for itself.
            if hand == seat.hand && (there_is_later || there_is_newer) {
                return Err(NoSeat::Newer(seat.claim.opened()));
            }
        }
        let missed = seats.came_after(ticket, through);
        if let Some(missed) = missed {
            claim.miss(missed);
        }
        let (sitting, to_socket, notices) = seats.next(ticket);
        let to_socket = Some(to_socket);
        let seat = Seat { ticket, visitor, hand, sitting: sitting.number, to_socket, claim };
        let word = seat.word(told);
        let before = seats.remove(ticket);
        seats.insert(seat);
        tell(before.as_ref().map(|before| before.claim.socket()), word);
        if let Some(before) = before {
            self.tell(ticket, &before, Notice::Replaced);
        }
        Ok(Sat { taken: (sitting, notices), missed })
    }

    /// Takes the seat that the visitor has here already; no fact is needed for that.
    pub(in crate::node) fn take_over(
        &self,
        visitor: VisitorId,
        hand: u32,
        opened: u32,
    ) -> Result<Taken, NoSeat> {
        let mut seats = self.lock();
        let ticket = seats.of_visitor(visitor).filter(|seat| seat.hand == hand);
        let ticket = ticket.ok_or(NoSeat::Nobody)?.ticket;
        let (sitting, to_socket, notices) = seats.next(ticket);
        let seat = seats.get_mut(ticket).ok_or(NoSeat::Nobody)?;
        if !seat.claim.take_over(opened) {
            return Err(NoSeat::Newer(seat.claim.opened()));
        }
        self.tell(ticket, seat, Notice::Replaced);
        seat.to_socket = Some(to_socket);
        seat.sitting = sitting.number;
        Ok((sitting, notices))
    }

    /// Whether the visitor has a seat here.
    pub(in crate::node) fn sits(&self, visitor: VisitorId) -> bool {
        self.lock().of_visitor(visitor).is_some()
    }

    /// Leaves the seat empty; false when another socket has it.
    pub(in crate::node) fn rise(&self, sitting: Sitting) -> bool {
        let mut seats = self.lock();
        let seat = seats.get_mut(sitting.ticket);
        let Some(seat) = seat.filter(|seat| seat.sitting == sitting.number) else { return false };
        seat.to_socket = None;
        true
    }

    /// Gives the seat up if it is still empty; the visitor and socket that the log knows.
    pub(in crate::node) fn clear(&self, sitting: Sitting) -> Option<(VisitorId, Socket)> {
        let mut seats = self.lock();
        let seat = seats.get(sitting.ticket)?;
        if seat.sitting != sitting.number || seat.to_socket.is_some() {
            return None;
        }
        seats.remove(sitting.ticket).map(|seat| (seat.visitor, seat.claim.socket()))
    }

    /// Tells the visitor with this ticket that their place is gone.
    pub(in crate::node) fn end(&self, ticket: Ticket, reason: EndReason) {
        if let Some(seat) = self.lock().remove(ticket) {
            self.tell(ticket, &seat, Notice::Ended(reason));
        }
    }

    /// Gives a visitor their token.
    pub(in crate::node) fn admit(&self, ticket: Ticket, minted: Minted) {
        if let Some(seat) = self.lock().get(ticket) {
            self.tell(ticket, seat, Notice::Admitted(minted));
        }
    }

    /// The fact that says that the visitor is on this socket is stored.
    pub(in crate::node) fn stored(
        &self,
        ticket: Ticket,
        socket: Socket,
        seq: Seq,
        say: &mut dyn FnMut(Word),
    ) {
        let mut seats = self.lock();
        let told = seats.told;
        let Some(seat) = seats.get_mut(ticket).filter(|seat| seat.claim.socket() == socket) else {
            return;
        };
        let verdict = seat.claim.stored(seq, told);
        if seat.claim.waits_for(seq) {
            seats.stored.insert((seq, ticket));
        }
        self.act(&mut seats, ticket, verdict, say);
    }

    /// Whether a socket is on this seat, and the seat stands for this socket in the log.
    pub(in crate::node) fn holds(&self, ticket: Ticket, socket: Socket) -> bool {
        let seats = self.lock();
        let seat = seats.get(ticket).filter(|seat| seat.claim.socket() == socket);
        seat.is_some_and(|seat| seat.to_socket.is_some())
    }

    /// What was to be said of this socket was not written, since nobody was on the seat.
    pub(in crate::node) fn withdrawn(
        &self,
        ticket: Ticket,
        socket: Socket,
        say: &mut dyn FnMut(Word),
    ) {
        let mut seats = self.lock();
        let seat = seats.get_mut(ticket).filter(|seat| seat.claim.socket() == socket);
        let Some(seat) = seat else { return };
        let verdict = seat.claim.withdrawn();
        self.act(&mut seats, ticket, verdict, say);
    }

    /// The log says, by the entry `seq`, that these visitors came to these sockets.
    pub(in crate::node) fn came(
        &self,
        seq: Seq,
        places: &[(Ticket, Socket)],
        say: &mut dyn FnMut(Word),
    ) {
        let own = self.own();
        let mut seats = self.lock();
        for &(ticket, socket) in places {
            seats.note_coming(seq, ticket);
            let Some(seat) = seats.get_mut(ticket) else { continue };
            let verdict = seat.claim.came(seq, socket, own);
            self.act(&mut seats, ticket, verdict, say);
        }
    }

    /// The visitor with this ticket was looked up. Gives up to which entry they are to be looked up once more,
    /// if they are.
    pub(in crate::node) fn looked_up(
        &self,
        ticket: Ticket,
        found: Found,
        say: &mut dyn FnMut(Word),
    ) -> Option<Seq> {
        let own = self.own();
        let mut seats = self.lock();
        let told = seats.told;
        let seat = seats.get_mut(ticket)?;
        let verdict = seat.claim.looked_up(found, told, own);
        let missed = seat.claim.missed();
        self.act(&mut seats, ticket, verdict, say);
        missed
    }

    /// Whether it shows by what was found of the visitor with this ticket that the node was declared lost.
    pub(in crate::node) fn is_lost(&self, ticket: Ticket, found: Found, own: NodeId) -> bool {
        self.lock().get(ticket).is_some_and(|seat| seat.claim.is_lost(found, own))
    }

    /// Everything up to this entry was heard and told: what was stored up to there and did not come back
    /// was void.
    pub(in crate::node) fn heard(&self, through: Seq, say: &mut dyn FnMut(Word)) {
        let mut seats = self.lock();
        seats.told = seats.told.max(through);
        let told = seats.told;
        while let Some((seq, ticket)) = seats.stored.first().copied().filter(|it| it.0 <= told) {
            seats.stored.remove(&(seq, ticket));
            let Some(seat) = seats.get_mut(ticket) else { continue };
            let verdict = seat.claim.heard(told);
            self.act(&mut seats, ticket, verdict, say);
        }
    }

    /// News was missed, up to this entry: of nobody here it is known what became of them. Gives who is to be
    /// looked up; of whom news was missed before, they are, until it is as new as this.
    pub(in crate::node) fn missed(&self, through: Seq) -> Vec<(Ticket, VisitorId)> {
        let mut seats = self.lock();
        // A snapshot may be older than what was heard.
        let through = through.max(seats.told);
        (seats.told, seats.forgotten) = (through, through);
        let known = seats.seats.iter().filter(|seat| seat.claim.missed().is_none());
        let to_look_up = known.map(|seat| (seat.ticket, seat.visitor)).collect();
        seats.seats.iter_mut().for_each(|seat| seat.claim.miss(through));
        to_look_up
    }

    fn act(&self, seats: &mut Seats, ticket: Ticket, verdict: Verdict, say: &mut dyn FnMut(Word)) {
        let told = seats.told;
        let Some(seat) = seats.get_mut(ticket) else { return };
        match verdict {
            Verdict::Keep => {}
            Verdict::Say if seat.to_socket.is_some() => {
                seat.claim.say(self.own());
                say(seat.word(told));
            }
            // Whoever comes back to an empty seat is written.
            Verdict::Say | Verdict::Yield => {
                if let Some(seat) = seats.remove(ticket) {
                    self.tell(ticket, &seat, Notice::Replaced);
                }
            }
        }
    }

    /// The visitor with this ticket, if they sit here.
    pub(in crate::node) fn visitor(&self, ticket: Ticket) -> Option<VisitorId> {
        self.lock().get(ticket).map(|seat| seat.visitor)
    }

    /// The visitor with this ticket, if they sit here, and by whose hand.
    pub(in crate::node) fn holder(&self, ticket: Ticket) -> Option<(VisitorId, u32)> {
        self.lock().get(ticket).map(|seat| (seat.visitor, seat.hand))
    }

    /// Everyone who sits here, and the tickets.
    pub(in crate::node) fn visitors(&self) -> Vec<(Ticket, VisitorId)> {
        self.lock().seats.iter().map(|seat| (seat.ticket, seat.visitor)).collect()
    }

    /// Tells the log of those who sit here and are at a node `of` this kind as far as it knows: it may have
    /// them as absent. They are at this node's own id from now on. What is on its way already is judged by
    /// what comes of it.
    pub(in crate::node) fn call_roll(
        &self,
        of: impl Fn(NodeId) -> bool,
        say: &mut dyn FnMut(Word),
    ) {
        let mut seats = self.lock();
        let seated = seats.seats.iter().filter(|seat| of(seat.claim.socket().node));
        let tickets: Vec<Ticket> = seated.map(|seat| seat.ticket).collect();
        for ticket in tickets {
            self.called(&mut seats, ticket, say);
        }
    }

    /// The same for one, if the log knows them under another id than this.
    pub(in crate::node) fn call(&self, ticket: Ticket, node: NodeId, say: &mut dyn FnMut(Word)) {
        let mut seats = self.lock();
        if seats.get(ticket).is_some_and(|seat| seat.claim.socket().node != node) {
            self.called(&mut seats, ticket, say);
        }
    }

    fn called(&self, seats: &mut Seats, ticket: Ticket, say: &mut dyn FnMut(Word)) {
        let told = seats.told;
        let Some(seat) = seats.get_mut(ticket) else { return };
        let verdict = seat.claim.called(told);
        self.act(seats, ticket, verdict, say);
    }

    /// Tells the socket with this sitting something, if the seat is still its.
    pub(in crate::node) fn tell_sitting(&self, sitting: Sitting, notice: Notice) {
        let seats = self.lock();
        let seat = seats.get(sitting.ticket);
        if let Some(seat) = seat.filter(|seat| seat.sitting == sitting.number) {
            self.tell(sitting.ticket, seat, notice);
        }
    }

    fn tell(&self, ticket: Ticket, seat: &Seat, notice: Notice) {
        match &seat.to_socket {
            Some(ToSocket::Pusher) => {
                let sitting = Sitting { ticket, number: seat.sitting };
                self.pushers.tell(self.row, sitting, notice);
            }
            Some(ToSocket::Task(task)) => {
                // A socket that reads none of its notices is dropped at its deadline.
                let _ = task.try_send(notice);
            }
            None => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// What the log is to be told of the seat, where everything up to `told` was heard.
    fn word(&self, told: Seq) -> Word {
        let Socket { node, number } = self.claim.socket();
        let back = Return {
            visitor: self.visitor,
            socket: number,
            opened: self.claim.opened(),
            hand: self.hand,
        };
        Word { ticket: self.ticket, node, back, basis: self.claim.basis(told) }
    }
}
