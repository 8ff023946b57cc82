//! Who is here, who is absent and since when.
//!
//! Graces run on a time that stands still while nobody could be served: an outage moves no one
//! closer to losing their place. [`Graces::running`] is that time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::queue::event::{At, NodeId, Ticket};

/// A node by its number in this fold: ids are long, and every place names one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeIndex(pub u32);

/// The nodes that ever wrote a fact, and how many people each holds now.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    ids: Vec<NodeId>,
    held: Vec<u32>,
    index: BTreeMap<NodeId, NodeIndex>,
}

impl Nodes {
    /// The number of this node, given now if it has none.
    #[expect(clippy::cast_possible_truncation, reason = "one per process start, never billions")]
    pub fn intern(&mut self, id: NodeId) -> NodeIndex {
        *self.index.entry(id).or_insert_with(|| {
            self.ids.push(id);
            self.held.push(0);
            NodeIndex((self.ids.len() - 1) as u32)
        })
    }

    /// The number of this node, if it ever wrote a fact.
    pub fn find(&self, id: NodeId) -> Option<NodeIndex> {
        self.index.get(&id).copied()
    }

    /// The id behind a number; zeros for one that was never given.
    pub fn id(&self, node: NodeIndex) -> NodeId {
        self.ids.get(node.0 as usize).copied().unwrap_or(NodeId([0; 16]))
    }

    /// All nodes that hold someone, with how many.
    pub fn holding(&self) -> impl Iterator<Item = (NodeId, u32)> + '_ {
        self.ids.iter().zip(&self.held).filter(|(_, held)| **held > 0).map(|(id, n)| (*id, *n))
    }

    /// All ids, by their number.
    pub fn ids(&self) -> &[NodeId] {
        &self.ids
    }

    /// How many people this node holds.
    pub fn held(&self, node: NodeIndex) -> u32 {
        self.held.get(node.0 as usize).copied().unwrap_or(0)
    }

    pub(super) fn took(&mut self, node: NodeIndex) {
        if let Some(held) = self.held.get_mut(node.0 as usize) {
            *held += 1;
        }
    }

    pub(super) fn lost_one(&mut self, node: NodeIndex) {
        if let Some(held) = self.held.get_mut(node.0 as usize) {
            *held -= 1;
        }
    }
}

/// Absent people in the order in which they will lose their places, and the time that counts.
#[derive(Clone, Debug, Default)]
pub struct Graces {
    /// Nanoseconds of outage so far: how far the running time is behind the log's.
    outages: i64,
    /// Since when each is absent, in running time, ascending. An entry may be out of date, when
    /// its visitor came back; whoever reads it compares it with the place.
    queue: VecDeque<(At, Ticket)>,
    absent: usize,
}

/// Out-of-date entries are dropped when there are this many more of them than absent people.
const STALE_GRACES_MAX: usize = 1_024;

impl Graces {
    /// The running time at this point of the log's time.
    pub fn running(&self, at: At) -> At {
        At(at.0.saturating_sub(self.outages))
    }

    /// The log's time at which the running time reaches this point, if no outage follows.
    pub fn log_time(&self, running: At) -> At {
        At(running.0.saturating_add(self.outages))
    }

    /// Nanoseconds of outage so far.
    pub fn outages(&self) -> i64 {
        self.outages
    }

    /// Everyone who may be absent, the longest absent first, with the time that was noted.
    pub fn longest_absent(&self) -> impl Iterator<Item = (At, Ticket)> + '_ {
        self.queue.iter().copied()
    }

    /// The same, the latest first.
    pub fn latest_absent(&self) -> impl Iterator<Item = (At, Ticket)> + '_ {
        self.queue.iter().rev().copied()
    }

    pub(super) fn restore(outages: i64, mut absent: Vec<(At, Ticket)>) -> Self {
        absent.sort_unstable();
        Self { outages, absent: absent.len(), queue: absent.into() }
    }

    pub(super) fn start(&mut self, since: At, ticket: Ticket) {
        self.absent += 1;
        self.queue.push_back((since, ticket));
    }

    /// Someone is no longer absent. `is_absent_since` tells which noted entries still hold.
    pub(super) fn stop(&mut self, is_absent_since: impl Fn(Ticket, At) -> bool) {
        self.absent -= 1;
        while let Some(&(since, ticket)) = self.queue.front() {
            if is_absent_since(ticket, since) {
                break;
            }
            self.queue.pop_front();
        }
        if self.queue.len() > 2 * self.absent + STALE_GRACES_MAX {
            self.queue.retain(|&(since, ticket)| is_absent_since(ticket, since));
        }
    }

    /// An outage from `from` on, up to `at`: the running time goes on from where it stood at `from`.
    /// Gives that point, and who became absent after it: their grace begins only now.
    pub(super) fn outage(
        &mut self,
        from: At,
        at: At,
        is_absent_since: impl Fn(Ticket, At) -> bool,
    ) -> (At, Vec<Ticket>) {
        let stood = self.running(from);
        self.outages = self.outages.saturating_add(at.since(from).max(0));
        self.queue.retain(|&(since, ticket)| is_absent_since(ticket, since));
        let late = self.queue.iter_mut().rev().take_while(|(since, _)| *since > stood);
        let tickets = late.map(|(since, ticket)| {
            *since = stood;
            *ticket
        });
        // A set: who went, came back and went again at one moment is noted twice.
        let tickets: BTreeSet<Ticket> = tickets.collect();
        (stood, tickets.into_iter().collect())
    }
}
