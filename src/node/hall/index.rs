//! Where a seat is found, by ticket or by visitor, and who came anywhere since somebody was looked up.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;
use tokio::sync::mpsc;

use crate::node::hall::room::Room;
use crate::node::hall::sitting::{Notice, Sitting};
use crate::queue::event::{Seq, Ticket, VisitorId};
use crate::queue::seat::Claim;

/// What a task is told at most before it listens: it is admitted, it has ended, it is replaced.
const NOTICES_MAX: usize = 4;
/// Comings that are remembered: whoever takes a seat was found moments before, so these are more than they
/// have missed, but for a crowd that comes back at once; then they are looked up.
const COMINGS_MAX: usize = 4_096;

/// The seats, and who came anywhere lately.
pub(super) struct Seats {
    pub(super) seats: Room<Seat>,
    /// Numbers of seats, found by what is in the seat: five bytes each, in one piece.
    by_ticket: HashTable<u32>,
    by_visitor: HashTable<u32>,
    hasher: RandomState,
    sittings: u32,
    /// Everything up to this entry was heard, and told to whom it concerns.
    pub(super) told: Seq,
    /// Seats of which a fact is stored at an entry that has not come back yet: no more facts than a seat is said
    /// by while no feed is heard, which each time takes another visitor, or a node that was declared lost.
    pub(super) stored: BTreeSet<(Seq, Ticket)>,
    /// Who came to any node lately, and by which entry, ascending.
    comings: VecDeque<(Seq, Ticket)>,
    /// Who came by this entry or an earlier one is not known any more.
    pub(super) forgotten: Seq,
}

/// One visitor's seat.
pub(super) struct Seat {
    pub(super) ticket: Ticket,
    pub(super) visitor: VisitorId,
    /// Whose hand the place was in when the seat was taken.
    pub(super) hand: u32,
    pub(super) sitting: u32,
    pub(super) to_socket: Option<ToSocket>,
    pub(super) claim: Claim,
}

/// Who tells the visitor.
pub(super) enum ToSocket {
    /// A task of their own.
    Task(mpsc::Sender<Notice>),
    /// Their pusher.
    Pusher,
}

impl Seats {
    pub(super) fn new(seats: usize) -> Self {
        Self {
            seats: Room::new(seats),
            by_ticket: HashTable::new(),
            by_visitor: HashTable::new(),
            hasher: RandomState::new(),
            sittings: 0,
            told: Seq(0),
            stored: BTreeSet::new(),
            comings: VecDeque::new(),
            forgotten: Seq(0),
        }
    }

    pub(super) fn next(&mut self, ticket: Ticket) -> (Sitting, ToSocket, mpsc::Receiver<Notice>) {
        // A notice is on its way for moments, not for as long as this takes to come round.
        self.sittings = self.sittings.wrapping_add(1);
        let (task, notices) = mpsc::channel(NOTICES_MAX);
        (Sitting { ticket, number: self.sittings }, ToSocket::Task(task), notices)
    }

    pub(super) fn note_coming(&mut self, seq: Seq, ticket: Ticket) {
        if self.comings.len() == COMINGS_MAX
            && let Some((seq, _)) = self.comings.pop_front()
        {
            self.forgotten = self.forgotten.max(seq);
        }
        self.comings.push_back((seq, ticket));
    }

    /// The last entry after `through` by which the visitor came anywhere, or may have.
    pub(super) fn came_after(&self, ticket: Ticket, through: Seq) -> Option<Seq> {
        let later = self.comings.iter().rev().take_while(|(seq, _)| *seq > through);
        let came = later.filter(|(_, other)| *other == ticket).map(|(seq, _)| *seq).next();
        came.or_else(|| Some(self.forgotten).filter(|forgotten| *forgotten > through))
    }

    pub(super) fn get(&self, ticket: Ticket) -> Option<&Seat> {
        self.seats.get(self.number(ticket)?)
    }

    pub(super) fn get_mut(&mut self, ticket: Ticket) -> Option<&mut Seat> {
        self.seats.get_mut(self.number(ticket)?)
    }

    pub(super) fn of_visitor(&self, visitor: VisitorId) -> Option<&Seat> {
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
    pub(super) fn insert(&mut self, seat: Seat) {
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

    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Seat> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::event::{NodeId, Socket};

    fn seat(number: u32) -> Seat {
        Seat {
            ticket: Ticket(number),
            visitor: VisitorId(u128::from(number).to_be_bytes()),
            hand: 0,
            sitting: number,
            to_socket: None,
            claim: Claim::joined(Socket { node: NodeId([1; 16]), number: 1 }, 0, Seq(1)),
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
    fn who_came_since_they_were_found_is_known_and_after_very_many_it_is_assumed() {
        let mut seats = Seats::new(1);
        let (ann, bob) = (Ticket(1), Ticket(2));
        seats.note_coming(Seq(5), ann);
        seats.note_coming(Seq(6), bob);
        assert_eq!(seats.came_after(ann, Seq(4)), Some(Seq(5)));
        assert_eq!(seats.came_after(ann, Seq(5)), None);
        (0..COMINGS_MAX).for_each(|_| seats.note_coming(Seq(7), bob));
        assert_eq!(seats.came_after(ann, Seq(5)), Some(Seq(6)));
        assert_eq!(seats.came_after(ann, Seq(6)), None);
    }

    #[test]
    fn a_seat_is_small() {
        assert!(size_of::<Option<Seat>>() <= 112);
    }
}
