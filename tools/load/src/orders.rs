//! What the parent and its workers say to each other, a line of JSON each.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;

use serde::{Deserialize, Serialize};

use crate::checks::{Census, Violations};
use crate::visitor::Role;

/// What a worker is told first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// Its number.
    pub process: u8,
    /// The queue's socket on each node.
    pub urls: Vec<String>,
    /// Handshakes that may be under way at once.
    pub joining_max: usize,
    /// Whether what is received is checked.
    pub checked: bool,
}

/// What a worker is to do. It answers when that is done, and serves its sockets all the time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// New visitors come, to one node or to all in turns. Those who join do so at once, and the
    /// answer comes when they are seated; else when their sockets are open.
    Arrive { role: Role, count: usize, joins: bool, url: Option<usize> },
    /// All who have not yet said so say JOIN; until they are seated.
    Join,
    /// Nothing, for so long.
    Serve { millis: u64 },
    /// Everyone who stays in line is watched, until they are told that they have come further.
    Watch,
    /// The first leaver says LEAVE; until their place has ended.
    Leave,
    /// Until all who are watched were told, or for so long.
    Told { millis_max: u64 },
    /// Until everyone who has come was told that it is their turn, or for so long.
    Admitted { millis_max: u64 },
    /// Says where everyone stands.
    Census,
    /// The server has closed the sockets that come from here, and they may not know it.
    ThrownOut { sources: Vec<SocketAddrV4> },
    /// Everyone in turn loses their socket and comes back to the next node.
    Refresh { every_nanos: u64 },
    /// Others come one by one while something else goes on. They are not waited for.
    Trickle { count: usize, every_nanos: u64 },
    /// Until everyone who has come or is to come is seated.
    Settle,
    /// It is noted what the front is told from now on.
    LookAtFront,
    /// Says what the front was told since then.
    Front,
    /// The first node goes, and others come from then on; until everyone is on another one.
    Storm { others: usize, others_over: u64 },
}

/// What a worker answers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// When the order began to be carried out.
    pub begun_at: u64,
    /// When it was done.
    pub done_at: u64,
    /// What was counted since the last answer.
    pub tally: Tally,
    /// Where everyone stands, if that was asked.
    pub census: Option<Census>,
    /// When LEAVE was said, and when ENDED came.
    pub left: Option<(u64, u64)>,
    /// When each of those watched was told.
    pub told: Vec<u64>,
    /// Those watched who were not.
    pub untold: usize,
    /// What the front was told, if that was asked.
    pub front: Vec<Told>,
}

/// A visitor at the front was told how many are ahead.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Told {
    /// How many were ahead when it was begun to take notes.
    pub from: u32,
    /// How many are.
    pub count: u32,
    /// When they were told.
    pub at: u64,
}

/// What is counted on the way. Times are in nanoseconds.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// From connect() to the upgrade.
    pub handshakes: Vec<u64>,
    /// From JOIN to JOINED.
    pub acks: Vec<u64>,
    /// From JOIN to the first position, or the token.
    pub shown: Vec<u64>,
    /// When each who was told that it is their turn had said JOIN, and when that was told.
    pub admitted: Vec<(u64, u64)>,
    /// When the last handshake was over.
    pub opened_at: u64,
    /// The same for those who came while something else went on.
    pub other_handshakes: Vec<u64>,
    /// From their JOIN to their JOINED.
    pub other_acks: Vec<u64>,
    /// From their JOIN to their first position.
    pub other_shown: Vec<u64>,
    /// When the last JOINED came.
    pub acked_at: u64,
    /// Since when each was away who came back, and when they had their position again.
    pub returns: Vec<(u64, u64)>,
    /// For how long each hostile socket was left open that was closed.
    pub hostile_closed: Vec<(Role, u64)>,
    /// Positions that were received.
    pub updates: u64,
    /// Sockets that ended without anybody wanting it.
    pub sockets_lost: u64,
    /// Attempts that led to no socket.
    pub attempts_failed: u64,
    /// Sockets that the server closed with a word, by code.
    pub closes: BTreeMap<u16, u64>,
    /// Those whose node was going, by the seconds that they were told to wait.
    pub waits: BTreeMap<u64, u64>,
    /// Positions that rose.
    pub rises: u64,
    /// Places that ended without LEAVE, by reason.
    pub ended: BTreeMap<String, u64>,
    /// Errors that were told, by code.
    pub errors: BTreeMap<String, u64>,
    /// What is wrong.
    pub violations: Violations,
}

impl Tally {
    /// Those who joined so far are not to be told of.
    pub fn forget_joining(&mut self) {
        self.handshakes.clear();
        self.acks.clear();
        self.shown.clear();
    }

    /// Adds what was counted elsewhere, or later.
    pub fn merge(&mut self, other: Self) {
        self.handshakes.extend(other.handshakes);
        self.acks.extend(other.acks);
        self.shown.extend(other.shown);
        self.admitted.extend(other.admitted);
        self.opened_at = self.opened_at.max(other.opened_at);
        self.other_handshakes.extend(other.other_handshakes);
        self.other_acks.extend(other.other_acks);
        self.other_shown.extend(other.other_shown);
        self.acked_at = self.acked_at.max(other.acked_at);
        self.returns.extend(other.returns);
        self.hostile_closed.extend(other.hostile_closed);
        self.updates += other.updates;
        self.sockets_lost += other.sockets_lost;
        self.attempts_failed += other.attempts_failed;
        for (code, count) in other.closes {
            *self.closes.entry(code).or_default() += count;
        }
        for (seconds, count) in other.waits {
            *self.waits.entry(seconds).or_default() += count;
        }
        self.rises += other.rises;
        for (reason, count) in other.ended {
            *self.ended.entry(reason).or_default() += count;
        }
        for (code, count) in other.errors {
            *self.errors.entry(code).or_default() += count;
        }
        self.violations.merge(other.violations);
    }
}
