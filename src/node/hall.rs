//! Who sits on this node: one seat a visitor, with the socket that it is on now.
//!
//! A seat outlives its socket for a moment, so that pressing refresh is no fact in the log.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

use crate::queue::event::{At, NodeId, Socket, Ticket, VisitorId};
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
    /// The fact that brought the visitor here has not come back yet: whatever the log says of other
    /// nodes meanwhile is older.
    unconfirmed: bool,
}

/// A socket's hold on a seat, until another takes it.
pub(super) struct Sitting {
    pub(super) ticket: Ticket,
    number: u64,
    pub(super) notices: mpsc::Receiver<Notice>,
}

impl Hall {
    /// Takes a seat that the log was told of; `unconfirmed` if that has not come back yet. Whoever was
    /// on it is told that they are replaced.
    pub(super) fn sit(
        &self,
        ticket: Ticket,
        visitor: VisitorId,
        socket: Socket,
        unconfirmed: bool,
    ) -> Sitting {
        let mut seats = self.lock();
        let (sitting, to_socket) = seats.next(ticket);
        seats.tickets.insert(visitor, ticket);
        let number = sitting.number;
        let seat = Seat {
            visitor,
            socket,
            sitting: number,
            to_socket: Some(to_socket),
            claimed: None,
            unconfirmed,
        };
        if let Some(before) = seats.by_ticket.insert(ticket, seat) {
            before.tell(Notice::Replaced);
        }
        sitting
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

    /// The log says that the visitor came here.
    pub(super) fn came_here(&self, ticket: Ticket) {
        if let Some(seat) = self.lock().by_ticket.get_mut(&ticket) {
            seat.unconfirmed = false;
        }
    }

    /// The log says that the visitor came to another node at this time. Where they came here after
    /// that, and no fact says so, `tell` is given the fact that does.
    pub(super) fn came_elsewhere(
        &self,
        ticket: Ticket,
        at: At,
        tell: impl FnOnce(VisitorId, Socket),
    ) {
        let mut seats = self.lock();
        let Some(seat) = seats.by_ticket.get_mut(&ticket) else { return };
        if seat.unconfirmed {
            return;
        }
        let came_back = seat.claimed.take().is_some_and(|claimed| at < claimed);
        if came_back && seat.to_socket.is_some() {
            seat.unconfirmed = true;
            tell(seat.visitor, seat.socket);
        } else if let Some(seat) = seats.remove(ticket) {
            seat.tell(Notice::Replaced);
        }
    }

    /// The log has the visitor as absent, though they are here: `tell` is given the fact that says so.
    pub(super) fn went(&self, ticket: Ticket, tell: impl FnOnce(VisitorId, Socket)) {
        let mut seats = self.lock();
        let Some(seat) = seats.by_ticket.get_mut(&ticket) else { return };
        if !seat.unconfirmed && seat.to_socket.is_some() {
            seat.unconfirmed = true;
            tell(seat.visitor, seat.socket);
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
    pub(super) fn rename(&self, node: NodeId, mut tell: impl FnMut(VisitorId, Socket)) {
        for seat in self.lock().by_ticket.values_mut() {
            if seat.socket.node != node {
                seat.socket.node = node;
                seat.unconfirmed = true;
                tell(seat.visitor, seat.socket);
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
    fn tell(&self, notice: Notice) {
        if let Some(to_socket) = &self.to_socket {
            // A socket that reads none of its notices is dropped at its deadline.
            let _ = to_socket.try_send(notice);
        }
    }
}
