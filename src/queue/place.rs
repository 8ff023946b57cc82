//! One visitor's place, and the grant that it may lead to.

use std::sync::Arc;

use crate::queue::event::{At, Jti, Seq, VisitorId};
use crate::queue::presence::NodeIndex;

/// One visitor's place, from the join for good. Most facts need the first 48 bytes only, so the order
/// of the fields is kept: they are in one cache line wherever the allocator begins a large list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Place {
    /// Whose.
    pub visitor: VisitorId,
    /// Since when the visitor is absent, in running time; not while they are present.
    pub absent: Option<At>,
    /// The number of the visitor's latest socket, counted by its node.
    pub socket: u64,
    /// The node that holds it.
    pub node: NodeIndex,
    /// Where they stand.
    pub standing: Standing,
    /// The entry that gave the place.
    pub joined: Seq,
    /// The last entry by which the visitor became present.
    pub came: Seq,
}

// There is one for everybody who ever came. (Aligned to a cache line, they would be copied and not
// remapped whenever the list grows.)
const _: () = assert!(size_of::<Place>() == 64);

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
    /// SHA-256 of the request's idempotency key.
    pub key: Option<[u8; 32]>,
}

impl Place {
    /// A place as a store kept it; [`Line::restore`](crate::queue::line::Line::restore) ties it to its grant.
    pub fn stored(visitor: VisitorId, joined: Seq, came: Seq, at_socket: (NodeIndex, u64)) -> Self {
        Self {
            visitor,
            joined,
            came,
            node: at_socket.0,
            socket: at_socket.1,
            absent: None,
            standing: Standing::Waiting,
        }
    }
}
