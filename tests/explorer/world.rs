//! What there is: browsers with their sockets, nodes with their seats, and the log.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use anteroom::queue::event::{NodeId, Seq, Socket};
use anteroom::queue::seat::Claim;

use crate::log::{Log, Visitor};
use crate::steps::Step;

/// How much may happen. Whatever it takes to come to rest is not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Left {
    /// Sockets that browsers open.
    pub(crate) sockets: u8,
    /// Of these, such as carry the place to another device.
    pub(crate) carries: u8,
    /// Sockets that end without a word.
    pub(crate) ends: u8,
    /// Nodes declared lost that are not.
    pub(crate) losses: u8,
    /// Snapshots in place of frames.
    pub(crate) holes: u8,
    /// Facts that the log does not take at once.
    pub(crate) refusals: u8,
    /// Joins that the feed takes too long to cover.
    pub(crate) delays: u8,
}

/// One kind of worlds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variant {
    pub(crate) name: &'static str,
    pub(crate) visitors: u8,
    pub(crate) nodes: u8,
    /// Whether browsers count the sockets that they open.
    pub(crate) counts: bool,
    /// Whether who has a place already may say JOIN again.
    pub(crate) rejoins: bool,
    /// Whether each visitor has joined, and is on the first node's first sockets.
    pub(crate) joined: bool,
    pub(crate) left: Left,
}

/// One moment.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) log: Log,
    pub(crate) nodes: Vec<Node>,
    /// In the order in which nodes heard of them.
    pub(crate) sockets: Vec<BrowserSocket>,
    pub(crate) left: Left,
    /// What must never happen, and did.
    pub(crate) fault: Option<&'static str>,
}

/// A browser's socket, and how far the node is with it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BrowserSocket {
    pub(crate) visitor: Visitor,
    pub(crate) node: u8,
    /// Which of its browser's; 0 where the browser does not count.
    pub(crate) opened: u32,
    /// By whose hand its browser has the place. Two browsers may have the same by two carries.
    pub(crate) hand: u32,
    pub(crate) browser: u8,
    pub(crate) stage: Stage,
}

impl Stage {
    /// Whether the node has nothing to do with it any more.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Replaced | Self::Ended)
    }
}

/// What a client says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Hello {
    Join,
    Reconnect,
    /// RECONNECT by the next hand.
    Carry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    /// The node waits for the log to take the join.
    Joining(Socket),
    /// The same, and the client has gone.
    Leaving(Socket),
    /// The join is stored, and not seen in the feed yet.
    Joined(Socket, Seq),
    /// The visitor is being looked up: what is answered is of this entry or a later one. With the socket of
    /// a join that gave no place, as far as the node knows.
    Asking(Seq, Option<Socket>),
    /// It has the seat, and the visitor waits.
    Here,
    /// It was told that a newer socket has the place.
    Replaced,
    /// It has ended, or was refused.
    Ended,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Node {
    /// How often it was declared lost and knows it.
    pub(crate) lives: u8,
    /// Numbers given to sockets.
    pub(crate) numbers: u64,
    /// Everything up to this entry was heard.
    pub(crate) told: Seq,
    /// By which entry each visitor last came anywhere, or up to which news was missed: who takes a seat
    /// and was found before that may be elsewhere.
    pub(crate) came: Vec<Seq>,
    pub(crate) seats: Vec<Option<Seat>>,
    /// Seats of which a fact is stored at an entry that was not heard yet.
    pub(crate) stored: Vec<(Seq, Visitor)>,
    /// Facts that wait for the entry under way.
    pub(crate) waiting: VecDeque<Fact>,
    pub(crate) under_way: Vec<Fact>,
    /// Where the entry under way is stored, which the node does not know yet.
    pub(crate) stored_at: Option<Seq>,
    /// Facts that the log did not take, to be handed over again.
    pub(crate) refused: Vec<Fact>,
    /// Who is looked up, and of what entry the answer must be.
    pub(crate) asked: Vec<(Visitor, Seq)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Seat {
    pub(crate) claim: Claim,
    pub(crate) hand: u32,
    /// Which browser's socket took it last.
    pub(crate) sitting: u8,
    /// Whether that is still there, as far as the node knows.
    pub(crate) is_taken: bool,
    /// Of what the node was told, the last entry by which the visitor came.
    pub(crate) seen: Seq,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fact {
    pub(crate) visitor: Visitor,
    pub(crate) socket: Socket,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum What {
    Joined {
        opened: u32,
        /// Which browser's socket waits for it.
        by: u8,
    },
    Back {
        basis: Option<Seq>,
        /// The basis if it is to be said again.
        again: Option<Seq>,
        opened: u32,
        hand: u32,
        seen: Seq,
    },
    Gone,
}

impl World {
    pub(crate) fn new(variant: &Variant) -> Self {
        let nodes = vec![Node::new(variant.visitors); variant.nodes.into()];
        let (log, sockets, fault) = (Log::default(), Vec::new(), None);
        let mut world = Self { log, nodes, sockets, left: variant.left, fault };
        for visitor in (0..variant.visitors).filter(|_| variant.joined) {
            world.left.sockets += 1;
            let (hello, opened) = (Hello::Join, u32::from(variant.counts));
            let hear = Step::Hear { visitor, node: 0, hello, browser: 0, hand: 0, opened };
            let steps =
                [Step::Store(0), Step::Acknowledge(0), Step::Feed(0, 1), Step::Sit(visitor)];
            world.take(hear);
            steps.into_iter().for_each(|step| world.take(step));
        }
        world
    }
}

impl Node {
    fn new(visitors: u8) -> Self {
        Self {
            seats: vec![None; visitors.into()],
            came: vec![Seq(0); visitors.into()],
            ..Self::default()
        }
    }

    /// Whether it has something to do, or to hear.
    pub(crate) fn is_busy(&self) -> bool {
        let is_empty = self.waiting.is_empty() && self.under_way.is_empty();
        !is_empty || self.seats.iter().any(Option::is_some) || !self.refused.is_empty()
    }

    pub(crate) fn id(&self, node: u8) -> NodeId {
        id(node, self.lives)
    }

    pub(crate) fn seat(&mut self, visitor: Visitor) -> Option<&mut Seat> {
        self.seats.get_mut(usize::from(visitor))?.as_mut()
    }

    pub(crate) fn next_socket(&mut self, node: u8) -> Socket {
        self.numbers += 1;
        Socket { node: self.id(node), number: self.numbers }
    }

    /// Whether a socket is on the seat, and the seat stands for this socket in the log.
    pub(crate) fn holds(&self, visitor: Visitor, socket: Socket) -> bool {
        let seat = self.seats[usize::from(visitor)].as_ref();
        seat.is_some_and(|seat| seat.claim.socket() == socket && seat.is_taken)
    }
}

/// The id that a node has in its life with this number.
fn id(node: u8, life: u8) -> NodeId {
    let mut id = [0; 16];
    (id[0], id[1]) = (node + 1, life);
    NodeId(id)
}

/// Whether an id is or was one of this node.
pub(crate) fn is_of(id: NodeId, node: u8) -> bool {
    id.0[0] == node + 1
}

impl Hash for World {
    /// Two worlds with the same future are one, however they came about.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let asked = self.sockets.iter().filter_map(|socket| match socket.stage {
            Stage::Asking(from, _) | Stage::Joined(_, from) => Some(from),
            Stage::Joining(_)
            | Stage::Leaving(_)
            | Stage::Here
            | Stage::Replaced
            | Stage::Ended => None,
        });
        let heard = self.nodes.iter().map(|node| Seq(node.told.0 + 1));
        let asked =
            asked.chain(self.nodes.iter().flat_map(|node| node.asked.iter().map(|it| it.1)));
        let from = heard.chain(asked).chain([self.log.end()]).min().unwrap_or_default();
        // What a look-up that begins now may find.
        let from = from.min(Seq(self.log.end().0.saturating_sub(crate::steps::BEHIND_MAX)));
        self.log.hash_from(from, hasher);
        (&self.nodes, &self.sockets, self.left, self.fault).hash(hasher);
    }
}
