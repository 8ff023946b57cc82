//! What one entry did, and what of it counts nowhere.

use crate::queue::event::{NodeId, Socket, Ticket};
use crate::queue::place::End;

/// What one entry did, in the words of the feed: who moved, and which of its facts count nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Visitors who joined.
    pub joined: Joins,
    /// Visitors who became present, and on which socket.
    pub came: Vec<Came>,
    /// Visitors who became absent.
    pub went: Vec<Ticket>,
    /// Visitors who were let in.
    pub admitted: Vec<Ticket>,
    /// Visitors whose token was used.
    pub entered: Vec<Ticket>,
    /// Visitors whose place ended, and how.
    pub ended: Vec<(Ticket, End)>,
    /// Visitors who missed their turn and wait again.
    pub missed: Vec<Ticket>,
    /// Visitors of whom something else is different, which no node has to know: since when they are
    /// absent, or whether they are taken to be.
    pub restated: Vec<Ticket>,
    /// How the log's time was shifted by what a decision said of it.
    pub shifted: Option<Shift>,
    /// Nodes declared lost.
    pub lost: Vec<NodeId>,
    /// Whether policy, state, reason or keys are different now.
    pub configured: bool,
    /// Facts that count nowhere: their index in the entry, and why.
    pub void: Vec<(usize, VoidFact)>,
    /// Why the whole entry counts nowhere.
    pub void_entry: Option<VoidEntry>,
}

/// One visitor who became present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Came {
    /// Who.
    pub ticket: Ticket,
    /// On which socket.
    pub socket: Socket,
}

/// A shift of the log's time: the servers' clocks and the one who decided did not agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shift {
    /// What was added to store times before, and is from now on, in nanoseconds.
    pub from: i64,
    /// The same from now on.
    pub to: i64,
    /// The outage that it comes to, in nanoseconds.
    pub outage: i64,
}

/// The outcome of a `joined` entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Joins {
    /// The ticket of the first accepted join.
    pub first: Ticket,
    /// How many were accepted; they have consecutive tickets.
    pub accepted: u32,
    /// Which facts of the entry were not: these visitors had joined before.
    pub ignored: Vec<u32>,
}

/// Why a fact counts nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VoidFact {
    /// Nobody of that name ever joined.
    UnknownVisitor,
    /// The visitor is not in line.
    NotWaiting,
    /// The visitor is here.
    Present,
    /// The visitor came back after the decision was made.
    CameBack,
    /// There is no such grant, or it is no longer to be used.
    NoSuchGrant,
    /// The grant was used already.
    AlreadyRedeemed,
    /// The visitor's place has ended.
    Ended,
    /// No fact was ever written by that node.
    UnknownNode,
    /// The visitor came elsewhere after what the node knew that asserts them.
    CameElsewhere,
    /// The visitor's client has opened a newer socket.
    OlderSocket,
    /// The place was carried to another hand.
    Carried,
    /// The place is not in that hand yet.
    HandAhead,
    /// An assertion rests on an entry that was not there yet.
    BasisAhead,
    /// Nobody's presence is written down at the moment.
    PresenceOff,
    /// The visitor never saw their turn, and is to have another.
    Missed,
    /// The visitor saw their turn, or has missed as many as they may.
    NotMissed,
}

/// Why an entry counts nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VoidEntry {
    /// It can't be read, or stands on the wrong subject.
    Unreadable,
    /// `prev` is not the admission entry before it.
    WrongPrev,
    /// `basis` is not between `prev` and the entry itself.
    WrongBasis,
    /// It would raise the log to a level that is not the next one.
    WrongLevel,
}
