//! Facts, in the past tense, and the names of the things that they speak of.

use std::fmt;

use crate::queue::policy::Policy;

/// A place in the log: the sequence that JetStream gave the entry. The first is 1; 0 is "before all".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

/// A place in the line: accepted joins are numbered 0, 1, 2, … in log order, and never renumbered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u32);

/// A point in time as the log knows it: nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At(pub i64);

const NANOS_PER_SECOND: i64 = 1_000_000_000;
const NANOS_PER_MILLI: i64 = 1_000_000;

impl At {
    /// This point moved by whole seconds.
    pub fn plus_seconds(self, seconds: u32) -> Self {
        Self(self.0.saturating_add(i64::from(seconds) * NANOS_PER_SECOND))
    }

    /// Whole seconds since 1970, rounded down.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(NANOS_PER_SECOND)
    }

    /// Nanoseconds from `earlier` to here; negative when `earlier` is later.
    pub fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for (i, byte) in self.0.iter().enumerate() {
                    if matches!(i, 4 | 6 | 8 | 10) {
                        f.write_str("-")?;
                    }
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }
    };
}

id!(
    /// The public name of a visitor in one queue (a UUID). It proves nothing.
    VisitorId
);
id!(
    /// One process of a WebSocket node (a UUID, new at each start).
    NodeId
);
id!(
    /// One grant, and the token and the pass that come of it (a UUID).
    Jti
);
id!(
    /// The secret of a queue, by its name (a UUID). It says nothing about the secret.
    SecretId
);

id!(
    /// One process of an admission worker (a UUID, new at each start).
    WorkerId
);

/// A socket: the node that holds it and the node's own counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Socket {
    /// Who holds it.
    pub node: NodeId,
    /// Which one, counted by that node.
    pub number: u64,
}

/// The rules that a log is read by, counted up: each holds for the entries behind the one that
/// raised the log to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(pub u16);

impl Level {
    /// The level at which every log begins. (The one before it was never released.)
    pub const FIRST: Self = Self(2);
    /// The newest that this program knows, and the highest `v` that it writes.
    pub const NEWEST: Self = Self(2);

    /// The one that a log can be raised to from here.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Default for Level {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What one message of the log says, after reading. Most hold many facts, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Visitors took a place, in this order.
    Joined(Joined),
    /// Visitors are present (again), here.
    Reconnected(Reconnected),
    /// These sockets are gone.
    Disconnected(Disconnected),
    /// Visitors gave their place up.
    Left(Vec<Left>),
    /// What admission decided.
    Decided(Decision),
    /// A message that no reader may believe. It still has its place in the log, and when it stands
    /// on an admission subject the fence has moved over it.
    Void {
        /// Whether the subject is one that the admission fence counts.
        fenced: bool,
    },
}

/// Visitors who took a place, all by one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The node that wrote the entry.
    pub node: NodeId,
    /// Who, in the order of the entry.
    pub visitors: Vec<Join>,
}

/// One visitor who took a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Join {
    /// Who.
    pub visitor: VisitorId,
    /// The node's number for their socket.
    pub socket: u64,
    /// Which of the sockets that their client opened this is, from 1; 0 when it did not say.
    pub opened: u32,
    /// Their lane; 0 where there are none.
    pub lane: u8,
    /// Whose word the visitor's name rests on, where the entry says so.
    pub by: Option<JoinedBy>,
    /// A tag of their network, where the entry has one.
    pub net: Option<[u8; 8]>,
}

impl Join {
    /// A visitor of whom nothing is said but the socket.
    pub fn plain(visitor: VisitorId, socket: u64) -> Self {
        Self { visitor, socket, opened: 0, lane: 0, by: None, net: None }
    }
}

/// Whose word a visitor's name rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinedBy {
    /// A key that their browser made.
    Key,
    /// Who they signed in as.
    Subject,
}

/// Visitors who are present (again), all at one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconnected {
    /// The node that wrote the entry.
    pub node: NodeId,
    /// Up to which entry the node had been told what became of these seats, where it asserts seats
    /// that it has had. None where each of these visitors has just come.
    pub basis: Option<Seq>,
    /// Who, in the order of the entry.
    pub visitors: Vec<Return>,
}

/// One visitor who is present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Return {
    /// Who.
    pub visitor: VisitorId,
    /// The node's number for their socket.
    pub socket: u64,
    /// Which of the sockets that their client opened this is, from 1; 0 when it did not say.
    pub opened: u32,
    /// Whose hand the place is in: counted up each time that it is carried to another device.
    pub hand: u32,
}

impl Return {
    /// A visitor of whom nothing is said but the socket.
    pub fn plain(visitor: VisitorId, socket: u64) -> Self {
        Self { visitor, socket, opened: 0, hand: 0 }
    }
}

/// Sockets that are gone, all of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disconnected {
    /// The node that wrote the entry.
    pub node: NodeId,
    /// Visitor and socket number, in the order of the entry.
    pub visitors: Vec<(VisitorId, u64)>,
}

/// One visitor who gave the place up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Who.
    pub visitor: VisitorId,
    /// The hand by which they had it.
    pub hand: u32,
}

/// An entry of the admission worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The admission entry that this one was fenced on; 0 for the first.
    pub prev: Seq,
    /// The last entry that the worker had folded when it decided.
    pub basis: Seq,
    /// What time the worker took it to be, in milliseconds since 1970.
    pub now: Millis,
    /// Who decided.
    pub worker: WorkerId,
    /// What was decided.
    pub facts: Facts,
}

/// Milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

impl Millis {
    /// This point to the nanosecond; one that no such number reaches is the last that it does.
    pub fn at(self) -> At {
        At(i64::try_from(self.0).unwrap_or(i64::MAX).saturating_mul(NANOS_PER_MILLI))
    }
}

impl From<At> for Millis {
    fn from(at: At) -> Self {
        Self(u64::try_from(at.0 / NANOS_PER_MILLI).unwrap_or(0))
    }
}

/// Decisions of one kind, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Facts {
    /// Policy, state, keys, an outage and the like.
    Configured(Vec<Configured>),
    /// The log's level, and who raised it. The entry has no facts.
    Raised(Level, String),
    /// Visitors are let in.
    Admitted(Vec<Admitted>),
    /// Grants were used.
    Redeemed(Vec<Redeemed>),
    /// People are no longer inside, or never came.
    Released(Vec<Released>),
    /// Absent for too long.
    Expired(Vec<VisitorId>),
    /// Taken out by an operator.
    Removed(Vec<Removed>),
    /// Nodes died.
    NodeLost(Vec<NodeId>),
}

impl Facts {
    /// How many facts there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Configured(facts) => facts.len(),
            Self::Raised(..) => 1,
            Self::Admitted(facts) => facts.len(),
            Self::Redeemed(facts) => facts.len(),
            Self::Released(facts) => facts.len(),
            Self::Expired(facts) => facts.len(),
            Self::Removed(facts) => facts.len(),
            Self::NodeLost(facts) => facts.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One thing that was set, and by whom: an operator's name, or `schedule` for what nobody ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    /// Whose act it was.
    pub by: String,
    /// What was set.
    pub what: Setting,
}

/// What a `configured` fact can set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// The whole policy, replacing the one before.
    Policy(Policy),
    /// The state, and what visitors are told about it.
    State(State, Option<String>),
    /// The public keys that tokens and passes may be signed with, replacing those before.
    Keys(Vec<PublicKey>),
    /// How many people are let in a minute while the rate follows the site's load; `None` ends that,
    /// and the policy's own rate holds again.
    Rate {
        /// People a minute; more than the policy's rate count as that.
        per_minute: Option<u32>,
        /// The loads that it rests on, in thousandths, in the order in which they were reported; none
        /// where the site has fallen silent.
        loads: Vec<u16>,
    },
    /// Nobody could be served for so many seconds up to this entry's time.
    Outage {
        /// Whole seconds.
        seconds: u32,
    },
    /// Whether it is written down who comes and goes.
    Presence(Presence),
    /// The secret that visitors' names come of.
    Secret(SecretId),
    /// Nothing but the time, which the entry says.
    Time,
}

/// Whether it is written down who comes and goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Presence {
    /// As ever.
    #[default]
    On,
    /// Not while the log has no room for it: whoever waits is taken to be present.
    Off,
}

/// Whether a queue lets people in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Not open yet. A queue starts like this.
    #[default]
    Scheduled,
    /// People are let in as the policy says.
    Open,
    /// Nobody is let in for now.
    Paused,
    /// Nobody will be let in any more.
    Closed,
    /// Gone; the stream stays.
    Deleted,
}

/// An Ed25519 public key and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// The key id in a token's header.
    pub kid: String,
    /// The key (RFC 8032).
    pub x: [u8; 32],
}

/// One visitor is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Who.
    pub visitor: VisitorId,
    /// The grant's name.
    pub jti: Jti,
    /// The key that signs the token.
    pub kid: String,
    /// For how many seconds the token can be used.
    pub seconds: u32,
}

/// One grant was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redeemed {
    /// Who.
    pub visitor: VisitorId,
    /// Which grant.
    pub jti: Jti,
    /// The key that signs the pass.
    pub kid: String,
    /// For how many seconds the pass is good.
    pub seconds: u32,
    /// A MAC of the request's idempotency key, where it had one.
    pub key: Option<[u8; 32]>,
}

/// One visitor is no longer inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    /// Who.
    pub visitor: VisitorId,
    /// By which grant they were inside.
    pub jti: Jti,
    /// Why.
    pub reason: ReleaseReason,
    /// Whose act it was.
    pub by: String,
}

/// Why someone is no longer inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseReason {
    /// The site or an operator said that they are done.
    Released,
    /// Their session's time is over.
    SessionOver,
    /// The grant was not used in time.
    Lapsed,
    /// The grant was not used in time, and its visitor never saw it: they wait again.
    Missed,
}

/// One visitor was taken out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Who.
    pub visitor: VisitorId,
    /// By which operator.
    pub by: String,
    /// What the operator said about it.
    pub reason: Option<String>,
}
