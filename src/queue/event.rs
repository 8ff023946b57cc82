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

/// A socket: the node that holds it and the node's own counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Socket {
    /// Who holds it.
    pub node: NodeId,
    /// Which one, counted by that node.
    pub number: u64,
}

/// What one message of the log says, after reading. Most hold many facts, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Visitors took a place, in this order.
    Joined(Seated),
    /// Visitors are present (again), here.
    Reconnected(Seated),
    /// These sockets are gone.
    Disconnected(Seated),
    /// Visitors gave their place up.
    Left(Vec<VisitorId>),
    /// What admission decided.
    Decided(Decision),
    /// A message that no reader may believe. It still has its place in the log, and when it stands
    /// on an admission subject the fence has moved over it.
    Void {
        /// Whether the subject is one that the admission fence counts.
        fenced: bool,
    },
}

/// Visitors and the sockets that they are on, all of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seated {
    /// The node that wrote the entry.
    pub node: NodeId,
    /// Visitor and socket number, in the order of the entry.
    pub visitors: Vec<(VisitorId, u64)>,
}

/// An entry of the admission worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The admission entry that this one was fenced on; 0 for the first.
    pub prev: Seq,
    /// The last entry that the worker had folded when it decided.
    pub basis: Seq,
    /// What was decided.
    pub facts: Facts,
}

/// Decisions of one kind, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Facts {
    /// Policy, state, keys or an outage.
    Configured(Vec<Configured>),
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
    /// SHA-256 of the request's idempotency key, where it had one.
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
