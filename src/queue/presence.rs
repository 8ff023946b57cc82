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

/// Absent people in the order in which they went, for how long their places are kept, and the time
/// that counts.
#[derive(Clone, Debug, Default)]
pub struct Graces {
    /// Nanoseconds of outage so far: how far the running time is behind the log's.
    outages: i64,
    /// Since when each is absent, in running time, ascending. An entry may be out of date, when
    /// its visitor came back; whoever reads it compares it with the place.
    queue: VecDeque<(At, Ticket)>,
    absent: usize,
    /// Longer graces than the policy's, ascending by time and descending by seconds: whoever is absent
    /// since that running time or earlier was told so many seconds.
    longer: Vec<(At, u32)>,
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

    /// Graces that are longer than the policy's: those absent since this running time or earlier have
    /// so many seconds.
    pub fn longer(&self) -> &[(At, u32)] {
        &self.longer
    }

    /// For how many seconds the place of someone is kept who is absent since then, where the policy
    /// now says `seconds`: for the longest that was in force since.
    pub fn seconds(&self, since: At, seconds: u32) -> u32 {
        let held = self.longer.iter().find(|(until, _)| *until >= since);
        held.map_or(seconds, |(_, longer)| seconds.max(*longer))
    }

    /// Everyone who may be absent, the longest absent first, with the time that was noted.
    pub fn longest_absent(&self) -> impl Iterator<Item = (At, Ticket)> + '_ {
        self.queue.iter().copied()
    }

    /// The same, the latest first.
    pub fn latest_absent(&self) -> impl Iterator<Item = (At, Ticket)> + '_ {
        self.queue.iter().rev().copied()
    }

    /// Everyone who may be absent and whose grace is over at this running time, where the policy says
    /// `seconds`: of those who were told the same, the longest absent first.
    pub fn over(&self, running: At, seconds: u32) -> impl Iterator<Item = (At, Ticket)> + '_ {
        let from = |since: At| self.queue.partition_point(|(other, _)| *other <= since);
        let mut begin = 0;
        let mut parts: Vec<(usize, usize, u32)> = Vec::with_capacity(self.longer.len() + 1);
        for (until, longer) in &self.longer {
            let end = from(*until);
            parts.push((begin, end, seconds.max(*longer)));
            begin = end;
        }
        parts.push((begin, self.queue.len(), seconds));
        parts.into_iter().flat_map(move |(begin, end, seconds)| {
            let part = self.queue.range(begin..end).copied();
            part.take_while(move |(since, _)| since.plus_seconds(seconds) <= running)
        })
    }

    pub(super) fn restore(
        outages: i64,
        longer: Vec<(At, u32)>,
        mut absent: Vec<(At, Ticket)>,
    ) -> Self {
        absent.sort_unstable();
        Self { outages, longer, absent: absent.len(), queue: absent.into() }
    }

    /// The policy keeps a place for `seconds` from now on, and kept it for `before` until now. Whoever
    /// is absent keeps what they were told.
    pub(super) fn change(&mut self, before: u32, seconds: u32, now: At) {
        let running = self.running(now);
        if seconds < before {
            self.longer.push((running, before));
        }
        let mut least = seconds;
        let mut kept: Vec<(At, u32)> = Vec::new();
        for (until, longer) in self.longer.drain(..).rev() {
            if longer > least && until.plus_seconds(longer) > running {
                kept.push((until, longer));
            }
            least = least.max(longer);
        }
        kept.reverse();
        self.longer = kept;
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

    /// Nobody is absent any more.
    pub(super) fn stop_all(&mut self) {
        self.queue.clear();
        self.absent = 0;
    }

    /// So many nanoseconds of outage ended at `at`: the running time goes on from where it stood when they
    /// began. Gives that point, and who became absent after it: their grace begins only now.
    pub(super) fn outage(
        &mut self,
        nanos: i64,
        at: At,
        is_absent_since: impl Fn(Ticket, At) -> bool,
    ) -> (At, Vec<Ticket>) {
        self.outages = self.outages.saturating_add(nanos.max(0));
        let stood = self.running(at);
        for (until, _) in &mut self.longer {
            *until = stood.min(*until);
        }
        (stood, self.absent_later_than(At(stood.0.saturating_add(1)), stood, is_absent_since))
    }

    /// Whoever is noted as absent since `from` or later is absent since `since`. Gives who that is.
    pub(super) fn absent_later_than(
        &mut self,
        from: At,
        since: At,
        is_absent_since: impl Fn(Ticket, At) -> bool,
    ) -> Vec<Ticket> {
        if self.queue.back().is_none_or(|(last, _)| *last < from) {
            return Vec::new();
        }
        self.queue.retain(|&(since, ticket)| is_absent_since(ticket, since));
        let late = self.queue.iter_mut().rev().take_while(|(noted, _)| *noted >= from);
        let tickets = late.map(|(noted, ticket)| {
            *noted = since;
            *ticket
        });
        // A set: who went, came back and went again at one moment is noted twice.
        let tickets: BTreeSet<Ticket> = tickets.collect();
        tickets.into_iter().collect()
    }
}
