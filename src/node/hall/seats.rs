//! Who sits on this node: one seat a visitor, with the socket that it is on now.
//!
//! A seat outlives its socket for a moment, so that pressing refresh is no fact in the log.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;
use tokio::sync::mpsc;

use crate::node::hall::pushers::{Handed, Pushers};
use crate::node::hall::room::Room;
use crate::node::hall::sitting::{Notice, Sitting, Taken};
use crate::node::identity::NodeIds;
use crate::queue::event::{NodeId, Return, Seq, Socket, Ticket, VisitorId};
use crate::queue::seat::{Claim, Found, Verdict};
use crate::wire::ask::Minted;
use crate::wire::socket::EndReason;

/// What a task is told at most before it listens: it is admitted, it has ended, it is replaced.
const NOTICES_MAX: usize = 4;
/// Comings that are remembered: whoever takes a seat was found moments before, so these are more than they
/// have missed, but for a crowd that comes back at once; then they are looked up.
const COMINGS_MAX: usize = 4_096;

/// The seats of one queue on this node.
pub(in crate::node) struct Hall {
    seats: Mutex<Seats>,
    pushers: Arc<Pushers>,
    /// The queue's number at the pushers.
    row: u32,
    /// The ids that this node has had; the last is in use.
    ids: Arc<NodeIds>,
}

struct Seats {
    seats: Room<Seat>,
    /// Numbers of seats, found by what is in the seat: five bytes each, in one piece.
    by_ticket: HashTable<u32>,
    by_visitor: HashTable<u32>,
    hasher: RandomState,
    sittings: u32,
    /// Everything up to this entry was heard, and told to whom it concerns.
    told: Seq,
    /// Seats of which a fact is stored at an entry that has not come back yet.
    stored: BTreeSet<(Seq, Ticket)>,
    /// Who came to any node lately, and by which entry, ascending.
    comings: VecDeque<(Seq, Ticket)>,
    /// Who came by this entry or an earlier one is not known any more.
    forgotten: Seq,
}

struct Seat {
    ticket: Ticket,
    visitor: VisitorId,
    /// Whose hand the place was in when the seat was taken.
    hand: u32,
    sitting: u32,
    to_socket: Option<ToSocket>,
    claim: Claim,
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

/// Who tells the visitor.
enum ToSocket {
    /// A task of their own.
    Task(mpsc::Sender<Notice>),
    /// Their pusher.
    Pusher,
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
            let is_later = here.node == there.node && here.number < there.number;
            let is_newer = claim.opened() > 0 && claim.opened() < seat.claim.opened();
            if hand < seat.hand {
                return Err(NoSeat::Carried);
            }
            // Another hand is another browser, which counts for itself.
            if hand == seat.hand && (is_later || is_newer) {
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
        if verdict == Verdict::Keep {
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

    /// What is known of whether the log has a visitor here, and what is to be done about it. What
    /// `say` is given is to be told the log.
    pub(in crate::node) fn judge(
        &self,
        ticket: Ticket,
        judge: impl FnOnce(&mut Claim) -> Verdict,
        say: &mut dyn FnMut(Word),
    ) {
        let mut seats = self.lock();
        let Some(seat) = seats.get_mut(ticket) else { return };
        let verdict = judge(&mut seat.claim);
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
    /// looked up.
    pub(in crate::node) fn missed(&self, through: Seq) -> Vec<(Ticket, VisitorId)> {
        let mut seats = self.lock();
        // A snapshot may be older than what was heard.
        let through = through.max(seats.told);
        (seats.told, seats.forgotten) = (through, through);
        seats.seats.iter_mut().for_each(|seat| seat.claim.miss(through));
        seats.seats.iter().map(|seat| (seat.ticket, seat.visitor)).collect()
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
            let told = seats.told;
            let Some(seat) = seats.get_mut(ticket) else { continue };
            let verdict = seat.claim.is_called(told);
            self.act(&mut seats, ticket, verdict, say);
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
            told: Seq(0),
            stored: BTreeSet::new(),
            comings: VecDeque::new(),
            forgotten: Seq(0),
        }
    }

    fn next(&mut self, ticket: Ticket) -> (Sitting, ToSocket, mpsc::Receiver<Notice>) {
        // A notice is on its way for moments, not for as long as this takes to come round.
        self.sittings = self.sittings.wrapping_add(1);
        let (task, notices) = mpsc::channel(NOTICES_MAX);
        (Sitting { ticket, number: self.sittings }, ToSocket::Task(task), notices)
    }

    fn note_coming(&mut self, seq: Seq, ticket: Ticket) {
        if self.comings.len() == COMINGS_MAX
            && let Some((seq, _)) = self.comings.pop_front()
        {
            self.forgotten = self.forgotten.max(seq);
        }
        self.comings.push_back((seq, ticket));
    }

    /// The last entry after `through` by which the visitor came anywhere, or may have.
    fn came_after(&self, ticket: Ticket, through: Seq) -> Option<Seq> {
        let later = self.comings.iter().rev().take_while(|(seq, _)| *seq > through);
        let came = later.filter(|(_, other)| *other == ticket).map(|(seq, _)| *seq).next();
        came.or_else(|| Some(self.forgotten).filter(|forgotten| *forgotten > through))
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

#[cfg(test)]
mod tests {
    use super::*;

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
