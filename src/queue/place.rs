//! One visitor's place, and the grant that it may lead to.

use std::num::NonZeroI64;
use std::sync::Arc;

use crate::queue::event::{At, Join, Jti, Seq, VisitorId};
use crate::queue::presence::NodeIndex;

/// One visitor's place, from the join for good. Most facts need the first 48 bytes only, so the order
/// of the fields is kept: they are in one cache line wherever the allocator begins a large list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Place {
    /// Whose.
    pub visitor: VisitorId,
    /// Since when the visitor is absent; not while they are present.
    absent: Option<Since>,
    /// The number of the visitor's latest socket, counted by its node.
    pub socket: u64,
    /// The node that holds it.
    pub node: NodeIndex,
    /// Where they stand.
    pub standing: Standing,
    /// Their lane in the upper half, and in the lower one how many turns they missed.
    lane_and_misses: u8,
    /// How often they came back.
    pub returns: u16,
    /// Whose hand the place is in: counted up each time that it is carried to another device.
    pub hand: u32,
    /// Which of the sockets that their client opened the latest is; 0 when it did not say.
    pub opened: u32,
    /// The entry that gave the place.
    pub joined: Seq,
    /// The last entry by which the visitor became present.
    pub came: Seq,
}

// There is one for everybody who ever came. (Aligned to a cache line, they would be copied and not
// remapped whenever the list grows.) With 80 bytes each, as they had to be until absence took eight and
// not sixteen, a leaver cost 70 % more.
const _: () = assert!(size_of::<Place>() == 64);

/// A running time, in a form that leaves eight bytes for none at all, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Since(NonZeroI64);

impl Since {
    fn new(at: At) -> Option<Self> {
        // The earliest time of all has no form; nobody was absent then.
        NonZeroI64::new(at.0 ^ i64::MIN).map(Self)
    }

    fn at(self) -> At {
        At(self.0.get() ^ i64::MIN)
    }
}

/// Turns that are counted of one place: more than a policy can give.
const MISSES_MAX: u8 = 15;

/// Where a visitor stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// In line.
    Waiting,
    /// Let in; the token is not used yet.
    Granted,
    /// The token was used.
    Inside,
    /// The place is gone.
    Ended(End),
}

/// How a place ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// Given up.
    Left,
    /// Absent for too long.
    Expired,
    /// Taken out by an operator.
    Removed,
    /// Let in, but the token was not used in time.
    Lapsed,
    /// Was inside, and is done.
    Released,
    /// Was inside until the pass ended.
    SessionOver,
}

/// One grant, as the log gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its name.
    pub jti: Jti,
    /// The key that signs its token.
    pub kid: Arc<str>,
    /// For how many seconds the token is good.
    pub seconds: u32,
    /// The entry that made it.
    pub seq: Seq,
    /// When.
    pub at: At,
    /// The running time at which it lapses unless it is used.
    pub lapses: At,
    /// How it was used.
    pub redeemed: Option<Box<Redemption>>,
}

/// How a grant was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redemption {
    /// The entry that says so.
    pub seq: Seq,
    /// When.
    pub at: At,
    /// The key that signs the pass.
    pub kid: Arc<str>,
    /// For how many seconds the pass is good.
    pub seconds: u32,
    /// A MAC of the request's idempotency key.
    pub key: Option<[u8; 32]>,
}

impl Place {
    /// The place that a join gave, by the entry `seq`.
    pub fn new(join: &Join, seq: Seq, node: NodeIndex) -> Self {
        Self {
            visitor: join.visitor,
            absent: None,
            socket: join.socket,
            node,
            standing: Standing::Waiting,
            lane_and_misses: join.lane << 4,
            returns: 0,
            hand: 0,
            opened: join.opened,
            joined: seq,
            came: seq,
        }
    }

    /// Since when the visitor is absent, in running time; not while they are present.
    pub fn absent(&self) -> Option<At> {
        self.absent.map(Since::at)
    }

    /// Sets since when they are absent.
    pub fn set_absent(&mut self, since: Option<At>) {
        self.absent = since.and_then(Since::new);
    }

    /// Their lane; 0 where there are none.
    pub fn lane(&self) -> u8 {
        self.lane_and_misses >> 4
    }

    /// How many turns they missed without seeing them.
    pub fn misses(&self) -> u8 {
        self.lane_and_misses & MISSES_MAX
    }

    /// Sets how many turns they missed.
    pub fn set_misses(&mut self, misses: u8) {
        self.lane_and_misses = self.lane_and_misses & !MISSES_MAX | misses.min(MISSES_MAX);
    }
}
