//! Who sits on this node: one seat a visitor, with the socket that it is on now.
//!
//! A seat outlives its socket for a moment, so that pressing refresh is no fact in the log.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;
use tokio::sync::mpsc;

use crate::node::hall::pushers::{Handed, Pushers};
use crate::node::hall::room::Room;
use crate::queue::event::{At, NodeId, Seq, Socket, Ticket, VisitorId};
use crate::wire::ask::Minted;
use crate::wire::socket::{EndReason, ErrorCode};

/// What a task is told at most before it listens: it is admitted, it has ended, it is replaced.
const NOTICES_MAX: usize = 4;

/// What happened to the visitor on a socket.
#[derive(Debug)]
pub(in crate::node) enum Notice {
    /// Their turn.
    Admitted(Minted),
    /// The place is gone.
    Ended(EndReason),
    /// A newer socket has the place.
    Replaced,
    /// The visitor wanted to leave, and the log did not take it.
    Unavailable(ErrorCode),
}

/// The seats of one queue on this node.
pub(in crate::node) struct Hall {
    seats: Mutex<Seats>,
    pushers: Arc<Pushers>,
    /// The queue's number at the pushers.
    row: u32,
}

struct Seats {
    seats: Room<Seat>,
    /// Numbers of seats, found by what is in the seat: five bytes each, in one piece.
    by_ticket: HashTable<u32>,
    by_visitor: HashTable<u32>,
    hasher: RandomState,
    sittings: u32,
}

struct Seat {
    ticket: Ticket,
    visitor: VisitorId,
    /// The socket that the log knows.
    socket: Socket,
    sitting: u32,
    to_socket: Option<ToSocket>,
    /// When the seat was last taken over without a fact, by the log's time.
    claimed: Option<At>,
    told: Told,
}

/// Who tells the visitor.
enum ToSocket {
    /// A task of their own.
    Task(mpsc::Sender<Notice>),
    /// Their pusher.
    Pusher,
}

/// Whether the log's latest word about a visitor is that they are on this seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum Told {
    /// As far as is known.
    Yes,
    /// The fact that says so is on its way.
    Sent,
    /// It is stored at this entry, and has not come back by the feed yet.
    Stored(Seq),
}

/// A socket's hold on a seat, until another takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) struct Sitting {
    pub(in crate::node) ticket: Ticket,
    number: u32,
}

/// A seat that was just taken, and what happens to it.
pub(in crate::node) type Taken = (Sitting, mpsc::Receiver<Notice>);

impl Hall {
    /// An empty hall with so many seats, of the queue with this number at the pushers.
    pub(in crate::node) fn new(pushers: Arc<Pushers>, row: u32, seats: usize) -> Self {
        Self { seats: Mutex::new(Seats::new(seats)), pushers, row }
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

    /// Takes a seat. Whoever was on it is told that they are replaced; `None` when a later socket of
    /// this node has it already.
    pub(in crate::node) fn sit(
        &self,
        ticket: Ticket,
        visitor: VisitorId,
        socket: Socket,
        told: Told,
    ) -> Option<Taken> {
        let mut seats = self.lock();
        let before = seats.get(ticket).map(|seat| seat.socket);
        if before.is_some_and(|before| before.node == socket.node && before.number > socket.number)
        {
            return None;
        }
        let (sitting, to_socket, notices) = seats.next(ticket);
        let seat = Seat {
            ticket,
            visitor,
            socket,
            sitting: sitting.number,
            to_socket: Some(to_socket),
            claimed: None,
            told,
        };
        let before = seats.remove(ticket);
        seats.insert(seat);
        if let Some(before) = before {
            self.tell(ticket, &before, Notice::Replaced);
        }
        Some((sitting, notices))
    }

    /// Takes the seat that the visitor has here already; no fact is needed for that. `now` is the
    /// log's time.
    pub(in crate::node) fn take_over(&self, visitor: VisitorId, now: At) -> Option<Taken> {
        let mut seats = self.lock();
        let ticket = seats.of_visitor(visitor)?.ticket;
        let (sitting, to_socket, notices) = seats.next(ticket);
        let seat = seats.get_mut(ticket)?;
        self.tell(ticket, seat, Notice::Replaced);
        seat.to_socket = Some(to_socket);
        seat.sitting = sitting.number;
        seat.claimed = Some(now);
        Some((sitting, notices))
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
        seats.remove(sitting.ticket).map(|seat| (seat.visitor, seat.socket))
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

    /// The fact that brought the visitor to this socket is stored.
    pub(in crate::node) fn stored(&self, ticket: Ticket, socket: Socket, seq: Seq) {
        let mut seats = self.lock();
        let seat = seats.get_mut(ticket).filter(|seat| seat.socket == socket);
        if let Some(seat) = seat.filter(|seat| seat.told == Told::Sent) {
            seat.told = Told::Stored(seq);
        }
    }

    /// Whether this socket is the one that the seat stands for in the log.
    pub(in crate::node) fn holds(&self, ticket: Ticket, socket: Socket) -> bool {
        self.lock().get(ticket).is_some_and(|seat| seat.socket == socket)
    }

    /// The log says that the visitor came here.
    pub(in crate::node) fn came_here(&self, ticket: Ticket) {
        if let Some(seat) = self.lock().get_mut(ticket) {
            seat.told = Told::Yes;
        }
    }

    /// The log says, by the entry `seq`, that the visitor came to another node at this time. Where
    /// they came here after that, and no fact says so, `tell` is given the fact that does.
    pub(in crate::node) fn came_elsewhere(
        &self,
        ticket: Ticket,
        seq: Seq,
        at: At,
        tell: impl FnOnce(VisitorId, Socket),
    ) {
        let mut seats = self.lock();
        let Some(seat) = seats.get_mut(ticket) else { return };
        if !seat.is_older_than(seq) {
            return;
        }
        let came_back = seat.claimed.take().is_some_and(|claimed| at < claimed);
        if came_back && seat.to_socket.is_some() {
            seat.told = Told::Sent;
            tell(seat.visitor, seat.socket);
        } else if let Some(seat) = seats.remove(ticket) {
            self.tell(ticket, &seat, Notice::Replaced);
        }
    }

    /// The log has the visitor, up to the entry `seq`, as absent. Gives the id of the node on which it
    /// had them before, if they are here; an empty seat is given up, so that whoever comes back is
    /// written.
    pub(in crate::node) fn went(&self, ticket: Ticket, seq: Seq) -> Option<NodeId> {
        let mut seats = self.lock();
        let seat = seats.get(ticket)?;
        if !seat.is_older_than(seq) {
            return None;
        }
        if seat.to_socket.is_some() {
            return Some(seat.socket.node);
        }
        seats.remove(ticket);
        None
    }

    /// The visitor with this ticket, if they sit here.
    pub(in crate::node) fn visitor(&self, ticket: Ticket) -> Option<VisitorId> {
        self.lock().get(ticket).map(|seat| seat.visitor)
    }

    /// Everyone who sits here, and the tickets.
    pub(in crate::node) fn visitors(&self) -> Vec<(Ticket, VisitorId)> {
        self.lock().seats.iter().map(|seat| (seat.ticket, seat.visitor)).collect()
    }

    /// Every seat is this node's from now on: `tell` is given the facts about those that were of
    /// another id.
    pub(in crate::node) fn rename(
        &self,
        node: NodeId,
        mut tell: impl FnMut(Ticket, VisitorId, Socket),
    ) {
        for seat in self.lock().seats.iter_mut().filter(|seat| seat.socket.node != node) {
            seat.socket.node = node;
            seat.told = Told::Sent;
            tell(seat.ticket, seat.visitor, seat.socket);
        }
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

impl Seats {
    fn new(seats: usize) -> Self {
        Self {
            seats: Room::new(seats),
            by_ticket: HashTable::new(),
            by_visitor: HashTable::new(),
            hasher: RandomState::new(),
            sittings: 0,
        }
    }

    fn next(&mut self, ticket: Ticket) -> (Sitting, ToSocket, mpsc::Receiver<Notice>) {
        // A notice is on its way for moments, not for as long as this takes to come round.
        self.sittings = self.sittings.wrapping_add(1);
        let (task, notices) = mpsc::channel(NOTICES_MAX);
        (Sitting { ticket, number: self.sittings }, ToSocket::Task(task), notices)
    }

    fn get(&self, ticket: Ticket) -> Option<&Seat> {
        self.seats.get(self.number(ticket)?)
    }

    fn get_mut(&mut self, ticket: Ticket) -> Option<&mut Seat> {
        self.seats.get_mut(self.number(ticket)?)
    }

    fn of_visitor(&self, visitor: VisitorId) -> Option<&Seat> {
        let is_theirs = |number: &u32| self.has(*number, |seat| seat.visitor == visitor);
        self.seats.get(*self.by_visitor.find(self.hasher.hash_one(visitor), is_theirs)?)
    }

    fn number(&self, ticket: Ticket) -> Option<u32> {
        let is_it = |number: &u32| self.has(*number, |seat| seat.ticket == ticket);
        self.by_ticket.find(self.hasher.hash_one(ticket), is_it).copied()
    }

    fn has(&self, number: u32, is_it: impl Fn(&Seat) -> bool) -> bool {
        self.seats.get(number).is_some_and(is_it)
    }

    /// Puts in a seat of a ticket and a visitor that have none.
    fn insert(&mut self, seat: Seat) {
        let Self { seats, by_ticket, by_visitor, hasher, .. } = self;
        let of_ticket = hasher.hash_one(seat.ticket);
        let of_visitor = hasher.hash_one(seat.visitor);
        let number = seats.insert(seat);
        by_ticket.insert_unique(of_ticket, number, |number| {
            hasher.hash_one(seats.get(*number).map_or(Ticket(0), |seat| seat.ticket))
        });
        by_visitor.insert_unique(of_visitor, number, |number| {
            hasher.hash_one(seats.get(*number).map_or(VisitorId([0; 16]), |seat| seat.visitor))
        });
    }

    fn remove(&mut self, ticket: Ticket) -> Option<Seat> {
        let number = self.number(ticket)?;
        let seat = self.seats.remove(number)?;
        for (table, hash) in [
            (&mut self.by_ticket, self.hasher.hash_one(seat.ticket)),
            (&mut self.by_visitor, self.hasher.hash_one(seat.visitor)),
        ] {
            if let Ok(entry) = table.find_entry(hash, |other| *other == number) {
                entry.remove();
            }
        }
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(number: u32) -> Seat {
        Seat {
            ticket: Ticket(number),
            visitor: VisitorId(u128::from(number).to_be_bytes()),
            socket: Socket { node: NodeId([1; 16]), number: 1 },
            sitting: number,
            to_socket: None,
            claimed: None,
            told: Told::Yes,
        }
    }

    #[test]
    fn a_seat_is_found_by_ticket_and_visitor_until_it_is_given_up() {
        let mut seats = Seats::new(100);
        (0..5_000).for_each(|number| seats.insert(seat(number)));
        for number in (0..5_000).filter(|number| number % 3 == 0) {
            assert_eq!(seats.remove(Ticket(number)).map(|seat| seat.sitting), Some(number));
            assert!(seats.remove(Ticket(number)).is_none());
        }
        (5_000..9_000).for_each(|number| seats.insert(seat(number)));
        for number in 0..9_000 {
            let expected = (number >= 5_000 || number % 3 != 0).then_some(number);
            assert_eq!(seats.get(Ticket(number)).map(|seat| seat.sitting), expected);
            let of_visitor = seats.of_visitor(seat(number).visitor);
            assert_eq!(of_visitor.map(|seat| seat.sitting), expected);
        }
    }

    #[test]
    fn a_seat_is_small() {
        assert!(size_of::<Option<Seat>>() <= 96);
    }
}
