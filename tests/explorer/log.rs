//! The log of the model: real entries, folded by the real line.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use anteroom::queue::event::{
    At, Decision, Entry, Facts, Millis, NodeId, Seq, Socket, VisitorId, WorkerId,
};
use anteroom::queue::line::Line;

/// A visitor by number, and the place that they come to have in the log.
pub(crate) type Visitor = u8;

/// Where the log has a visitor after some entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Spot {
    /// The socket that they were on last.
    pub(crate) last: Socket,
    pub(crate) is_present: bool,
    pub(crate) opened: u32,
    pub(crate) hand: u32,
    pub(crate) came: Seq,
}

/// What one entry did, and what the log comes to after it.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Outcome {
    /// Who took a place by it.
    pub(crate) joined: Vec<Visitor>,
    /// Who came by it, and where.
    pub(crate) came: Vec<(Visitor, Socket)>,
    /// Which node it declares lost.
    pub(crate) lost: Vec<NodeId>,
    /// Where everybody is after it, by visitor.
    pub(crate) spots: Vec<Option<Spot>>,
    /// Which nodes hold someone after it.
    holding: Vec<NodeId>,
    /// Which nodes are known after it.
    nodes: Vec<NodeId>,
}

/// The log. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    entries: Arc<Vec<Entry>>,
    outcomes: Arc<Vec<Outcome>>,
}

impl Log {
    /// Its last entry.
    pub(crate) fn end(&self) -> Seq {
        Seq(self.entries.len() as u64)
    }

    /// What the entry `seq` did.
    pub(crate) fn outcome(&self, seq: Seq) -> Option<&Outcome> {
        self.outcomes.get(usize::try_from(seq.0.checked_sub(1)?).ok()?)
    }

    /// Where a visitor is after the entry `seq`.
    pub(crate) fn spot(&self, visitor: Visitor, seq: Seq) -> Option<Spot> {
        self.outcome(seq)?.spots.get(usize::from(visitor)).copied().flatten()
    }

    /// Nodes that hold someone.
    pub(crate) fn holding(&self) -> &[NodeId] {
        self.outcome(self.end()).map_or(&[], |outcome| &outcome.holding)
    }

    /// Whether a node wrote a fact already.
    pub(crate) fn knows(&self, node: NodeId) -> bool {
        self.outcome(self.end()).is_some_and(|outcome| outcome.nodes.contains(&node))
    }

    /// A decision that a node is lost.
    pub(crate) fn node_lost(&self, node: NodeId) -> Entry {
        let is_decision = |entry: &Entry| matches!(entry, Entry::Decided(_));
        let prev = self.entries.iter().rposition(is_decision).map_or(0, |index| index as u64 + 1);
        let now = Millis((self.end().0 + 1) * 1_000);
        let (basis, worker, facts) = (self.end(), WorkerId([9; 16]), Facts::NodeLost(vec![node]));
        Entry::Decided(Decision { prev: Seq(prev), basis, now, worker, facts })
    }

    /// Adds an entry. The line is folded anew from the first: the log is the state.
    pub(crate) fn append(&mut self, entry: Entry, visitors: u8) -> &Outcome {
        let entries = Arc::make_mut(&mut self.entries);
        entries.push(entry);
        let mut line = Line::default();
        let mut outcome = Outcome::default();
        for (seq, entry) in (1..).zip(entries.iter()) {
            let change = line.apply(Seq(seq), At(1_000_000_000 * seq.cast_signed()), entry);
            let visitor = |ticket| line.place(ticket).map_or(0, |place| number(place.visitor));
            outcome.came =
                change.came.iter().map(|came| (visitor(came.ticket), came.socket)).collect();
            outcome.lost.clone_from(&change.lost);
            assert_eq!(change.void_entry, None, "a decision of the model stands");
            let places = line.places().iter().filter(|place| place.joined == line.seq());
            outcome.joined = places.map(|place| number(place.visitor)).collect();
        }
        outcome.spots = (0..visitors).map(|visitor| spot(&line, visitor)).collect();
        outcome.holding = line.nodes().holding().map(|(node, _)| node).collect();
        outcome.nodes = line.nodes().ids().to_vec();
        outcome.nodes.sort_unstable();
        let outcomes = Arc::make_mut(&mut self.outcomes);
        let index = outcomes.len();
        outcomes.push(outcome);
        &outcomes[index]
    }

    /// What can still make a difference to those who have heard everything before `from`: what came of the
    /// entries, and not how.
    pub(crate) fn hash_from<H: Hasher>(&self, from: Seq, hasher: &mut H) {
        self.end().hash(hasher);
        for seq in from.0.max(1)..=self.end().0 {
            self.outcome(Seq(seq)).hash(hasher);
        }
    }

    /// The entries, for whoever reads what happened.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

fn spot(line: &Line, visitor: Visitor) -> Option<Spot> {
    let place = line.place(line.ticket(name(visitor))?)?;
    let last = Socket { node: line.nodes().id(place.node), number: place.socket };
    let is_present = place.absent().is_none();
    Some(Spot { last, is_present, opened: place.opened, hand: place.hand, came: place.came })
}

/// What the log calls a visitor.
pub(crate) fn name(visitor: Visitor) -> VisitorId {
    VisitorId([visitor + 1; 16])
}

fn number(name: VisitorId) -> Visitor {
    name.0[0] - 1
}
