//! What a node believes of a seat that it has: whether the log has the visitor there, and when it must
//! let go. A node's word about its own past is no news, so it never compares times: it says who is here,
//! and what becomes of that is judged by the log alone.

use crate::queue::event::{NodeId, Seq, Socket};

/// A node's claim to one seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The socket that stands for the seat in the log, or is to.
    socket: Socket,
    told: Told,
    /// Which of the sockets that the visitor's client opened is on the seat now; 0 when it did not say.
    opened: u32,
    /// Which one the log was last told of.
    said: u32,
    /// The last entry by which the visitor came anywhere, as far as is known here.
    came: Seq,
    /// Up to this entry not everything was heard: the visitor is to be looked up. 0 where nothing is missing.
    missed: Seq,
}

/// Whether the log's latest word about a visitor is that they are on this seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Told {
    /// As far as is known.
    Yes,
    /// The fact that says so is on its way, and will stand after this entry.
    Sent(Seq),
    /// It is stored at this entry, and what came of it is not known yet.
    Stored(Seq),
}

/// What a node has to do about a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Keep,
    /// Say that the visitor is here, if a socket is on the seat; otherwise give it up.
    Say,
    /// Give it up: the visitor is somewhere else.
    Yield,
}

/// What a look-up has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The socket that the visitor is on; none where they are absent.
    pub socket: Option<Socket>,
    /// The last entry by which they came.
    pub came: Seq,
    /// The entry after which it was so.
    pub through: Seq,
}

impl Claim {
    /// The seat of someone of whom the log says so already, since the entry `came`.
    pub fn joined(socket: Socket, opened: u32, came: Seq) -> Self {
        Self { socket, told: Told::Yes, opened, said: opened, came, missed: Seq(0) }
    }

    /// The seat of someone who has just come back, and was looked up: the log is being told.
    pub fn returned(socket: Socket, opened: u32, came: Seq) -> Self {
        Self { told: Told::Sent(came), ..Self::joined(socket, opened, came) }
    }

    /// The socket that stands for the seat in the log, or is to.
    pub fn socket(&self) -> Socket {
        self.socket
    }

    /// Which of the sockets that the visitor's client opened is on the seat; 0 when it did not say.
    pub fn opened(&self) -> u32 {
        self.opened
    }

    /// Up to which entry it is known where the visitor came, where the node has heard everything up
    /// to `told`.
    pub fn basis(&self, told: Seq) -> Seq {
        if self.has_missed() { self.came } else { self.came.max(told) }
    }

    /// A socket of the same visitor takes the seat over, which is no news for the log. False where the one
    /// that has it was opened later.
    #[must_use]
    pub fn take_over(&mut self, opened: u32) -> bool {
        if opened > 0 && opened < self.opened {
            return false;
        }
        self.opened = opened;
        true
    }

    /// The log is being told, on the word of this node, that the visitor is here.
    pub fn say(&mut self, node: NodeId) {
        self.socket.node = node;
        self.said = self.opened;
        self.told = Told::Sent(self.came);
    }

    /// The fact that was on its way was not written: nobody was on the seat when its turn came. The log has
    /// to be told anew of whoever is there now.
    pub fn withdrawn(&mut self) -> Verdict {
        if matches!(self.told, Told::Sent(_)) { Verdict::Say } else { Verdict::Keep }
    }

    /// A fact that said so is stored at `seq`. The node has heard everything up to `told`.
    pub fn stored(&mut self, seq: Seq, told: Seq) -> Verdict {
        match self.told {
            Told::Sent(after) if after < seq => {}
            // What came of it was heard before, and another is on its way, perhaps.
            Told::Sent(_) | Told::Stored(_) | Told::Yes => return Verdict::Keep,
        }
        if seq == self.came {
            // A look-up has found that they came by it, and are absent since.
            self.told = Told::Yes;
            return Verdict::Say;
        }
        self.told = Told::Stored(seq);
        if seq < self.came { self.voided() } else { self.heard(told) }
    }

    /// Whether it is judged once everything up to this entry is heard.
    pub fn waits_for(&self, seq: Seq) -> bool {
        self.told == Told::Stored(seq)
    }

    /// The node has heard everything up to `told`: what is stored up to there and did not bring the
    /// visitor here was void.
    pub fn heard(&mut self, told: Seq) -> Verdict {
        match self.told {
            Told::Stored(seq) if seq <= told && !self.has_missed() => self.voided(),
            Told::Stored(_) | Told::Sent(_) | Told::Yes => Verdict::Keep,
        }
    }

    /// The log says, by the entry `seq`, that the visitor came to this socket. `own` is the id that the node
    /// has now.
    pub fn came(&mut self, seq: Seq, socket: Socket, own: NodeId) -> Verdict {
        if seq <= self.came {
            // It was found by a look-up, which has told what came of it.
            return Verdict::Keep;
        }
        self.came = seq;
        if self.socket == socket {
            self.told = Told::Yes;
            // Declared lost meanwhile: the log has them under the id that this node had.
            return if socket.node == own { Verdict::Keep } else { Verdict::Say };
        }
        match self.told {
            Told::Yes => self.voided(),
            Told::Stored(stored) if stored < seq => self.voided(),
            // What is on its way stands behind it.
            Told::Stored(_) | Told::Sent(_) => Verdict::Keep,
        }
    }

    /// The log may have everybody at this node as absent, by an entry up to `told`. What is on its way is judged
    /// by what comes of it, and of whom news was missed by what a look-up finds that is as new as that.
    pub fn called(&mut self, told: Seq) -> Verdict {
        if self.has_missed() {
            self.miss(told);
            return Verdict::Keep;
        }
        if self.told == Told::Yes { Verdict::Say } else { Verdict::Keep }
    }

    /// Whether the log had the visitor here under this id and has them nowhere now. We never say of one who
    /// sits here that they are gone: they went with a node that was declared lost, and it is this one; or a
    /// roll was called, when another id does no harm.
    pub fn is_lost(&self, found: Found, own: NodeId) -> bool {
        let had = match self.told {
            Told::Yes => true,
            Told::Stored(seq) => seq == found.came,
            Told::Sent(_) => false,
        };
        let is_news = found.through >= self.missed && found.came >= self.came;
        had && is_news && found.socket.is_none() && self.socket.node == own
    }

    /// Up to which entry not everything was heard, where that is so: a look-up must be as new as that.
    pub fn missed(&self) -> Option<Seq> {
        self.has_missed().then_some(self.missed)
    }

    /// What the log says up to this entry was not all heard: the visitor is to be looked up.
    pub fn miss(&mut self, through: Seq) {
        self.missed = self.missed.max(through);
    }

    /// The visitor was looked up. The node has heard everything up to `told`, or has missed it.
    pub fn looked_up(&mut self, found: Found, told: Seq, own: NodeId) -> Verdict {
        if found.through < self.missed {
            // One that tells more is on its way.
            return Verdict::Keep;
        }
        self.missed = Seq(0);
        let verdict = match found.socket {
            // They came again since, which was heard.
            _ if found.came < self.came => Verdict::Keep,
            Some(socket) => self.came(found.came, socket, own),
            None => self.found_absent(found),
        };
        if verdict == Verdict::Keep { self.heard(told.max(found.through)) } else { verdict }
    }

    fn found_absent(&mut self, found: Found) -> Verdict {
        self.came = found.came;
        match self.told {
            Told::Sent(_) => return Verdict::Keep,
            // It was void, or somebody came after it.
            Told::Stored(seq) if seq != found.came => return Verdict::Keep,
            Told::Stored(_) | Told::Yes => self.told = Told::Yes,
        }
        Verdict::Say
    }

    fn has_missed(&self) -> bool {
        self.missed > Seq(0)
    }

    /// What was said of the seat counts nowhere any more. A newer socket than that is on it, perhaps.
    fn voided(&mut self) -> Verdict {
        self.told = Told::Yes;
        if self.opened > self.said { Verdict::Say } else { Verdict::Yield }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: NodeId = NodeId([1; 16]);
    const REBORN: NodeId = NodeId([2; 16]);
    const SOCKET: Socket = Socket { node: HERE, number: 7 };
    const ELSEWHERE: Socket = Socket { node: NodeId([3; 16]), number: 1 };
    /// Another socket of this node.
    const BEFORE: Socket = Socket { node: HERE, number: 6 };

    fn found(socket: Option<Socket>, came: u64, through: u64) -> Found {
        Found { socket, came: Seq(came), through: Seq(through) }
    }

    #[test]
    fn who_comes_later_elsewhere_or_to_another_socket_here_has_the_place() {
        for socket in [ELSEWHERE, BEFORE] {
            let mut claim = Claim::joined(SOCKET, 1, Seq(5));
            assert_eq!(claim.came(Seq(5), socket, HERE), Verdict::Keep);
            assert_eq!(claim.came(Seq(6), socket, HERE), Verdict::Yield);
        }
    }

    #[test]
    fn what_is_on_its_way_is_judged_when_everything_before_it_was_heard() {
        let mut claim = Claim::returned(SOCKET, 2, Seq(1));
        assert_eq!(claim.came(Seq(2), BEFORE, HERE), Verdict::Keep);
        assert_eq!(claim.stored(Seq(4), Seq(3)), Verdict::Keep);
        assert_eq!(claim.came(Seq(3), ELSEWHERE, HERE), Verdict::Keep);
        let mut void = claim;
        assert_eq!(void.heard(Seq(4)), Verdict::Yield);
        assert_eq!(claim.came(Seq(4), SOCKET, HERE), Verdict::Keep);
        assert_eq!(claim.heard(Seq(4)), Verdict::Keep);
    }

    #[test]
    fn a_newer_socket_than_was_said_is_said_before_the_seat_is_given_up() {
        let mut claim = Claim::joined(SOCKET, 1, Seq(1));
        assert!(claim.take_over(3));
        assert!(!claim.take_over(2));
        assert_eq!(claim.came(Seq(2), ELSEWHERE, HERE), Verdict::Say);
        claim.say(HERE);
        assert_eq!(claim.stored(Seq(3), Seq(3)), Verdict::Yield);
    }

    #[test]
    fn a_node_that_was_declared_lost_says_under_its_new_id_who_is_here() {
        let mut claim = Claim::returned(SOCKET, 1, Seq(1));
        assert_eq!(claim.called(Seq(9)), Verdict::Keep);
        assert_eq!(claim.came(Seq(3), SOCKET, REBORN), Verdict::Say);
        claim.say(REBORN);
        assert_eq!(claim.socket(), Socket { node: REBORN, number: 7 });
        // The fact under the old id, once more, as a look-up finds it, is not the one under the new.
        let old = found(Some(SOCKET), 3, 4);
        assert_eq!(claim.looked_up(old, Seq(4), REBORN), Verdict::Keep);
        assert_eq!(claim.stored(Seq(5), Seq(5)), Verdict::Yield);
    }

    #[test]
    fn a_late_word_that_a_fact_is_stored_is_not_taken_for_one_about_the_next() {
        let mut claim = Claim::returned(SOCKET, 1, Seq(1));
        assert!(claim.take_over(3));
        assert_eq!(claim.came(Seq(3), SOCKET, HERE), Verdict::Keep);
        assert_eq!(claim.came(Seq(4), ELSEWHERE, HERE), Verdict::Say);
        claim.say(HERE);
        assert_eq!(claim.stored(Seq(3), Seq(4)), Verdict::Keep);
        assert_eq!(claim.stored(Seq(5), Seq(4)), Verdict::Keep);
        assert_eq!(claim.came(Seq(5), SOCKET, HERE), Verdict::Keep);
    }

    #[test]
    fn what_was_not_written_is_said_again() {
        assert_eq!(Claim::returned(SOCKET, 1, Seq(1)).withdrawn(), Verdict::Say);
        assert_eq!(Claim::joined(SOCKET, 1, Seq(1)).withdrawn(), Verdict::Keep);
    }

    #[test]
    fn while_news_is_missing_a_seat_is_asserted_on_what_is_known_of_its_visitor_alone() {
        let mut claim = Claim::joined(SOCKET, 1, Seq(5));
        assert_eq!(claim.basis(Seq(9)), Seq(9));
        claim.miss(Seq(20));
        assert_eq!(claim.basis(Seq(20)), Seq(5));
        claim.miss(Seq(30));
        // The answer to the first look-up tells too little.
        assert_eq!(claim.looked_up(found(Some(SOCKET), 5, 25), Seq(30), HERE), Verdict::Keep);
        assert_eq!(claim.basis(Seq(30)), Seq(5));
        assert_eq!(claim.looked_up(found(Some(SOCKET), 5, 30), Seq(30), HERE), Verdict::Keep);
        assert_eq!(claim.basis(Seq(30)), Seq(30));
    }

    #[test]
    fn who_was_here_by_the_log_and_is_nowhere_went_with_their_node() {
        let mut claim = Claim::joined(SOCKET, 1, Seq(5));
        claim.miss(Seq(8));
        for (socket, came, through, own, is_lost) in [
            (None, 5, 8, HERE, true),
            // What the look-up tells is older than what was missed, or than what was heard.
            (None, 5, 7, HERE, false),
            (None, 4, 8, HERE, false),
            (Some(SOCKET), 5, 8, HERE, false),
            // The node knows it already.
            (None, 5, 8, REBORN, false),
        ] {
            assert_eq!(claim.is_lost(found(socket, came, through), own), is_lost, "{through}");
        }
        claim.say(HERE);
        assert!(!claim.is_lost(found(None, 5, 8), HERE), "what was said may count yet");
    }

    #[test]
    fn a_fact_that_counted_and_was_followed_by_absence_was_not_void() {
        let absent = found(None, 4, 6);
        let mut known = Claim::returned(SOCKET, 1, Seq(1));
        known.miss(Seq(6));
        let mut unknown = known;
        assert_eq!(known.stored(Seq(4), Seq(6)), Verdict::Keep);
        assert_eq!(known.looked_up(absent, Seq(6), HERE), Verdict::Say);
        // The look-up may be there before the log's word that the fact is stored.
        assert_eq!(unknown.looked_up(absent, Seq(6), HERE), Verdict::Keep);
        assert_eq!(unknown.stored(Seq(4), Seq(6)), Verdict::Say);
    }

    #[test]
    fn what_was_heard_meanwhile_counts_once_the_look_up_is_there() {
        let mut claim = Claim::joined(SOCKET, 1, Seq(1));
        claim.miss(Seq(2));
        claim.say(HERE);
        assert_eq!(claim.stored(Seq(4), Seq(4)), Verdict::Keep);
        assert_eq!(claim.looked_up(found(None, 2, 3), Seq(4), HERE), Verdict::Yield);
    }
}
