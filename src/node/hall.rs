//! Who sits on this node: one seat a visitor, with the socket that it is on now.
//!
//! A seat outlives its socket for a moment, so that pressing refresh is no fact in the log.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

use crate::queue::event::{At, NodeId, Seq, Socket, Ticket, VisitorId};
use crate::wire::ask::Minted;
use crate::wire::socket::EndReason;

/// What a socket is told at most before it reads: it is admitted, it has ended, it is replaced.
const NOTICES_MAX: usize = 4;

/// What happened to the visitor on a socket.
#[derive(Debug)]
pub(super) enum Notice {
    /// Their turn.
    Admitted(Minted),
    /// The place is gone.
    Ended(EndReason),
    /// A newer socket has the place.
    Replaced,
}

/// The seats of one queue on this node.
#[derive(Default)]
pub(super) struct Hall {
    seats: Mutex<Seats>,
}

#[derive(Default)]
struct Seats {
    by_ticket: BTreeMap<Ticket, Seat>,
    tickets: BTreeMap<VisitorId, Ticket>,
    sittings: u64,
}

struct Seat {
    visitor: VisitorId,
    /// The socket that the log knows.
    socket: Socket,
    sitting: u64,
    to_socket: Option<mpsc::Sender<Notice>>,
    /// When the seat was last taken over without a fact, by the log's time.
    claimed: Option<At>,
    told: Told,
}

/// Whether the log's latest word about a visitor is that they are on this seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// As far as is known.
    Yes,
    /// The fact that says so is on its way.
    Sent,
    /// It is stored at this entry, and has not come back by the feed yet.
    Stored(Seq),
}

/// A socket's hold on a seat, until another takes it.
pub(super) struct Sitting {
    pub(super) ticket: Ticket,
    number: u64,
    pub(super) notices: mpsc::Receiver<Notice>,
}

impl Hall {
    /// Takes a seat. Whoever was on it is told that they are replaced; `None` when a later socket of
    /// this node has it already.
    pub(super) fn sit(
        &self,
        ticket: Ticket,
        visitor: VisitorId,
        socket: Socket,
        told: Told,
    ) -> Option<Sitting> {
        let mut seats = self.lock();
        let before = seats.by_ticket.get(&ticket).map(|seat| seat.socket);
        if before.is_some_and(|before| before.node == socket.node && before.number > socket.number)
        {
            return None;
        }
        let (sitting, to_socket) = seats.next(ticket);
        seats.tickets.insert(visitor, ticket);
        let number = sitting.number;
        let seat = Seat {
            visitor,
            socket,
            sitting: number,
            to_socket: Some(to_socket),
            claimed: None,
            told,
        };
        if let Some(before) = seats.by_ticket.insert(ticket, seat) {
            before.tell(Notice::Replaced);
        }
        Some(sitting)
    }

    /// Takes the seat that the visitor has here already; no fact is needed for that. `now` is the
    /// log's time.
    pub(super) fn take_over(&self, visitor: VisitorId, now: At) -> Option<Sitting> {
        let mut seats = self.lock();
        let ticket = *seats.tickets.get(&visitor)?;
        let (sitting, to_socket) = seats.next(ticket);
        let seat = seats.by_ticket.get_mut(&ticket)?;
        seat.tell(Notice::Replaced);
        seat.to_socket = Some(to_socket);
        seat.sitting = sitting.number;
        seat.claimed = Some(now);
        Some(sitting)
    }

    /// Whether the visitor has a seat here.
    pub(super) fn sits(&self, visitor: VisitorId) -> bool {
        self.lock().tickets.contains_key(&visitor)
    }

    /// Leaves the seat empty; false when another socket has it.
    pub(super) fn rise(&self, sitting: &Sitting) -> bool {
        let mut seats = self.lock();
        let seat = seats.by_ticket.get_mut(&sitting.ticket);
        let Some(seat) = seat.filter(|seat| seat.sitting == sitting.number) else { return false };
        seat.to_socket = None;
        true
    }

    /// Gives the seat up if it is still empty; the visitor and socket that the log knows.
    pub(super) fn clear(&self, sitting: &Sitting) -> Option<(VisitorId, Socket)> {
        let mut seats = self.lock();
        let seat = seats.by_ticket.get(&sitting.ticket)?;
        if seat.sitting != sitting.number || seat.to_socket.is_some() {
            return None;
        }
        seats.remove(sitting.ticket).map(|seat| (seat.visitor, seat.socket))
    }

    /// Tells the visitor with this ticket that their place is gone.
    pub(super) fn end(&self, ticket: Ticket, reason: EndReason) {
        if let Some(seat) = self.lock().remove(ticket) {
            seat.tell(Notice::Ended(reason));
        }
    }

    /// Gives a visitor their token.
    pub(super) fn admit(&self, ticket: Ticket, minted: Minted) {
        if let Some(seat) = self.lock().by_ticket.get(&ticket) {
            seat.tell(Notice::Admitted(minted));
        }
    }

    /// The fact that brought the visitor to this socket is stored.
    pub(super) fn stored(&self, ticket: Ticket, socket: Socket, seq: Seq) {
        let mut seats = self.lock();
        let seat = seats.by_ticket.get_mut(&ticket).filter(|seat| seat.socket == socket);
        if let Some(seat) = seat.filter(|seat| seat.told == Told::Sent) {
            seat.told = Told::Stored(seq);
        }
    }

    /// Whether this socket is the one that the seat stands for in the log.
    pub(super) fn holds(&self, ticket: Ticket, socket: Socket) -> bool {
        self.lock().by_ticket.get(&ticket).is_some_and(|seat| seat.socket == socket)
    }

    /// The log says that the visitor came here.
    pub(super) fn came_here(&self, ticket: Ticket) {
        if let Some(seat) = self.lock().by_ticket.get_mut(&ticket) {
            seat.told = Told::Yes;
        }
    }

    /// The log says, by the entry `seq`, that the visitor came to another node at this time. Where
    /// they came here after that, and no fact says so, `tell` is given the fact that does.
    pub(super) fn came_elsewhere(
        &self,
        ticket: Ticket,
        seq: Seq,
        at: At,
        tell: impl FnOnce(VisitorId, Socket),
    ) {
        let mut seats = self.lock();
        let Some(seat) = seats.by_ticket.get_mut(&ticket) else { return };
        if !seat.is_older_than(seq) {
            return;
        }
        let came_back = seat.claimed.take().is_some_and(|claimed| at < claimed);
        if came_back && seat.to_socket.is_some() {
            seat.told = Told::Sent;
            tell(seat.visitor, seat.socket);
        } else if let Some(seat) = seats.remove(ticket) {
            seat.tell(Notice::Replaced);
        }
    }

    /// The log has the visitor, up to the entry `seq`, as absent. Where they are here, `tell` is given
    /// the fact that says so; an empty seat is given up, so that whoever comes back is written.
    pub(super) fn went(&self, ticket: Ticket, seq: Seq, tell: impl FnOnce(VisitorId, Socket)) {
        let mut seats = self.lock();
        let Some(seat) = seats.by_ticket.get_mut(&ticket) else { return };
        if !seat.is_older_than(seq) {
            return;
        }
        if seat.to_socket.is_some() {
            seat.told = Told::Sent;
            tell(seat.visitor, seat.socket);
        } else {
            seats.remove(ticket);
        }
    }

    /// The visitor with this ticket, if they sit here.
    pub(super) fn visitor(&self, ticket: Ticket) -> Option<VisitorId> {
        self.lock().by_ticket.get(&ticket).map(|seat| seat.visitor)
    }

    /// Everyone who sits here, and the tickets.
    pub(super) fn visitors(&self) -> Vec<(Ticket, VisitorId)> {
        self.lock().by_ticket.iter().map(|(ticket, seat)| (*ticket, seat.visitor)).collect()
    }

    /// Every seat is this node's from now on: `tell` is given the facts about those that were of
    /// another id.
    pub(super) fn rename(&self, node: NodeId, mut tell: impl FnMut(Ticket, VisitorId, Socket)) {
        for (ticket, seat) in &mut self.lock().by_ticket {
            if seat.socket.node != node {
                seat.socket.node = node;
                seat.told = Told::Sent;
                tell(*ticket, seat.visitor, seat.socket);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seats {
    fn next(&mut self, ticket: Ticket) -> (Sitting, mpsc::Sender<Notice>) {
        self.sittings += 1;
        let (to_socket, notices) = mpsc::channel(NOTICES_MAX);
        (Sitting { ticket, number: self.sittings, notices }, to_socket)
    }

    fn remove(&mut self, ticket: Ticket) -> Option<Seat> {
        let seat = self.by_ticket.remove(&ticket)?;
        self.tickets.remove(&seat.visitor);
        Some(seat)
    }
}

impl Seat {
    /// Whether an entry of the log is newer than what brought the visitor to this seat.
    fn is_older_than(&self, seq: Seq) -> bool {
        match self.told {
            Told::Yes => true,
            Told::Sent => false,
            Told::Stored(stored) => stored < seq,
        }
    }

    fn tell(&self, notice: Notice) {
        if let Some(to_socket) = &self.to_socket {
            // A socket that reads none of its notices is dropped at its deadline.
            let _ = to_socket.try_send(notice);
        }
    }
}
