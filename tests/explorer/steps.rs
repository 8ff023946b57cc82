//! What can happen next.

use std::collections::BTreeSet;

use anteroom::queue::event::{NodeId, Seq};

use crate::log::Visitor;
use crate::world::{BrowserSocket, Hello, Stage, Variant, World};

/// So many entries a projector may be behind when it is asked.
pub(crate) const BEHIND_MAX: u64 = 2;

/// A step. A stopped node is one that takes none for as long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A node hears of a new socket.
    Hear { visitor: Visitor, node: u8, hello: Hello, browser: u8, hand: u32, opened: u32 },
    /// The visitor of this socket was looked up, as of this entry.
    Found(u8, Seq),
    /// The join of this socket came with the feed.
    Sit(u8),
    /// The feed takes too long, or no longer tells, what came of the join of this socket.
    Forget(u8),
    /// The node notices that the socket is gone.
    End(u8),
    /// Nobody came back to the seat.
    Clear(u8, Visitor),
    /// The node's next entry leaves.
    Send(u8),
    /// The node's entry under way is stored.
    Store(u8),
    /// The node's entry under way is refused.
    Refuse(u8),
    /// The node hears that its entry is stored.
    Acknowledge(u8),
    /// The node hands a refused fact over again.
    Retry(u8),
    /// The node hears a frame of so many entries.
    Feed(u8, u64),
    /// The node has missed frames, and takes a snapshot of this entry.
    Snapshot(u8, Seq),
    /// Who sits there was looked up, as of this entry.
    CaughtUp(u8, Seq),
    /// A node is declared lost.
    Lose(NodeId),
}

impl World {
    /// What happens by itself, sooner or later. Where there is nothing the world is at rest.
    pub(crate) fn by_itself(&self, steps: &mut Vec<Step>) {
        for (index, socket) in (0..).zip(&self.sockets) {
            match socket.stage {
                Stage::Asking(from, _) => {
                    steps.extend(self.from(from).map(|seq| Step::Found(index, seq)));
                }
                Stage::Joined(_, seq) if self.nodes[usize::from(socket.node)].told >= seq => {
                    steps.push(Step::Sit(index));
                }
                Stage::Joined(..)
                | Stage::Joining(_)
                | Stage::Leaving(_)
                | Stage::Here
                | Stage::Replaced
                | Stage::Ended => {}
            }
        }
        for (index, node) in (0..).zip(&self.nodes) {
            for (visitor, seat) in (0..).zip(&node.seats) {
                if seat.as_ref().is_some_and(|seat| !seat.is_taken) {
                    steps.push(Step::Clear(index, visitor));
                }
            }
            if !node.under_way.is_empty() {
                steps.push(match node.stored_at {
                    None => Step::Store(index),
                    Some(_) => Step::Acknowledge(index),
                });
            } else if !node.waiting.is_empty() {
                steps.push(Step::Send(index));
            }
            if !node.refused.is_empty() {
                steps.push(Step::Retry(index));
            }
            if let Some((_, from)) = node.asked.first() {
                steps.extend(self.from(*from).map(|seq| Step::CaughtUp(index, seq)));
            }
            // Where nobody is, it makes no difference when the feed is heard.
            let is_served = self.sockets.iter().any(|it| it.node == index && !it.stage.is_over());
            let unheard =
                if is_served || node.is_busy() { self.log.end().0 - node.told.0 } else { 0 };
            if unheard > 0 {
                steps.push(Step::Feed(index, 1));
            }
            if unheard > 1 {
                steps.push(Step::Feed(index, unheard));
            }
        }
        // Nodes that are not heard and hold someone are declared lost.
        let dead = self.log.holding().iter().filter(|id| !self.is_alive(**id));
        steps.extend(dead.map(|id| Step::Lose(*id)));
    }

    /// What people do, and what goes wrong.
    pub(crate) fn by_chance(&self, variant: &Variant, steps: &mut Vec<Step>) {
        if self.left.sockets > 0 {
            self.openings(variant, steps);
        }
        for (index, socket) in (0..).zip(&self.sockets) {
            let is_noticed = matches!(socket.stage, Stage::Joining(_) | Stage::Here);
            if is_noticed && self.left.ends > 0 {
                steps.push(Step::End(index));
            }
            let Stage::Joined(_, seq) = socket.stage else { continue };
            let node = &self.nodes[usize::from(socket.node)];
            if (node.told < seq && self.left.delays > 0)
                || node.came[usize::from(socket.visitor)] > seq
            {
                steps.push(Step::Forget(index));
            }
        }
        for (index, node) in (0..).zip(&self.nodes) {
            if self.left.refusals > 0 && !node.under_way.is_empty() && node.stored_at.is_none() {
                steps.push(Step::Refuse(index));
            }
            if self.left.holes > 0 {
                steps.extend(self.from(Seq(node.told.0 + 1)).map(|seq| Step::Snapshot(index, seq)));
            }
            if self.left.losses > 0 && self.log.knows(node.id(index)) {
                steps.push(Step::Lose(node.id(index)));
            }
        }
    }

    /// Which sockets can be heard of. Nodes are alike: of those that nobody was at the first will do.
    fn openings(&self, variant: &Variant, steps: &mut Vec<Step>) {
        let used = self.sockets.iter().map(|socket| socket.node + 1).max().unwrap_or(0);
        let nodes = 0..=used.min(variant.nodes - 1);
        // Visitors are alike, too.
        let come = self.sockets.iter().map(|socket| socket.visitor + 1).max().unwrap_or(0);
        for visitor in 0..=come.min(variant.visitors - 1) {
            let own = || self.sockets.iter().filter(|socket| socket.visitor == visitor);
            let browsers = own().map(|socket| socket.browser + 1).max().unwrap_or(1);
            // JOINED was said, so that there is a connection id.
            let is_in = own().any(|it| !matches!(it.stage, Stage::Joining(_) | Stage::Leaving(_)));
            // A page that has the place must confirm that it is carried.
            let here = own().filter(|it| it.stage == Stage::Here && self.left.carries > 0);
            let hands: BTreeSet<u32> = here.map(|it| it.hand + 1).collect();
            for node in nodes.clone() {
                let mut open = |hello, browser, hand| {
                    for opened in self.next_opened(variant, visitor, browser) {
                        steps.push(Step::Hear { visitor, node, hello, browser, hand, opened });
                    }
                };
                if variant.rejoins || own().next().is_none() {
                    open(Hello::Join, 0, 0);
                }
                for browser in (0..browsers).filter(|_| is_in) {
                    let hand = own().find(|it| it.browser == browser).map_or(0, |it| it.hand);
                    open(Hello::Reconnect, browser, hand);
                }
                hands.iter().for_each(|hand| open(Hello::Carry, browsers, *hand));
            }
        }
    }

    /// Which of its sockets a browser may be heard of next: one may overtake the one before it.
    fn next_opened(&self, variant: &Variant, visitor: Visitor, browser: u8) -> Vec<u32> {
        if !variant.counts {
            return vec![0];
        }
        let is_known = |opened: &u32| {
            let is_it = |it: &BrowserSocket| {
                (it.visitor, it.browser, it.opened) == (visitor, browser, *opened)
            };
            self.sockets.iter().any(is_it)
        };
        (1..).filter(|opened| !is_known(opened)).take(2).collect()
    }

    pub(crate) fn from(&self, seq: Seq) -> impl Iterator<Item = Seq> + use<> {
        (seq.0.max(1)..=self.log.end().0).map(Seq)
    }

    pub(crate) fn is_alive(&self, id: NodeId) -> bool {
        (0..).zip(&self.nodes).any(|(index, node)| node.id(index) == id)
    }
}
