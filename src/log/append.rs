//! Facts of a node into the log: group commit.
//!
//! One entry is under way at a time. What arrives meanwhile goes into the next, so an entry costs
//! one fsync however many facts it holds, and a fact that arrives alone leaves at once. An entry
//! whose fate is unknown is resolved before the next one is sent: no fact of a visitor ever overtakes
//! another. Where more waits than one entry takes, as when a lost node's visitors all come back, joins
//! go first in every other entry: whoever comes back has a place already.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::clock;
use crate::log::connection::Log;
use crate::log::publish::{PublishError, Stored};
use crate::log::stream::DEDUP_WINDOW_SECONDS;
use crate::log::subjects::{self, QueueId};
use crate::queue::event::{
    Disconnected, Entry, Join, Joined, Left, Level, NodeId, Reconnected, Return, Seq, Socket,
    VisitorId,
};
use crate::shutdown::Shutdown;
use crate::wire;
use crate::wire::event::FACTS_PER_ENTRY_MAX;

/// Facts that wait to be written, per queue. Beyond it no joins are taken, and nodes answer that the log can't
/// be reached: at 50,000 facts a second this is about a second of work, and some tens of megabytes.
pub const FACTS_WAITING_MAX: usize = 65_536;
/// Other facts find room for so many more: that somebody who has a place went or came back is not to be lost
/// behind a crowd. A node has some 18,000 sockets, so this is several of each of them.
const FACTS_OF_PLACES_MAX: usize = 65_536;

/// A fact that a node may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeFact {
    /// A visitor took a place, at this node.
    Joined(NodeId, Join),
    /// A visitor is present (again), at this node. With an entry, the node asserts a seat that it has had,
    /// and knows what became of the visitor up to there.
    Reconnected(NodeId, Option<Seq>, Return),
    /// This socket of the visitor is gone.
    Disconnected(VisitorId, Socket),
    /// A visitor gave their place up.
    Left(Left),
}

/// Where a fact is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The entry.
    pub seq: Seq,
    /// Which fact of the entry.
    pub index: u32,
}

/// Why a fact is not in the log and never will be by this append.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The stream is at its limit.
    #[error("the log is full")]
    Full,
    /// Too many facts wait already.
    #[error("too many facts wait for the log")]
    Busy,
    /// The server refused it.
    #[error("the log refused: {0}")]
    Refused(String),
    /// The stream is not the one that is known here: it was made anew, or has lost its end.
    #[error("the log is another than before")]
    OtherStream,
    /// The process is stopping.
    #[error("stopping")]
    Stopping,
    /// It was so no more when its turn came.
    #[error("it is so no more")]
    Withdrawn,
}

/// Takes facts for one queue. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Appender {
    to_writer: mpsc::Sender<Waiting>,
    known: Arc<AtomicU64>,
    level: Arc<AtomicU16>,
}

struct Waiting {
    fact: NodeFact,
    /// Whether it is still so, asked when its turn comes: behind an outage that may be much later.
    is_so: Option<IsSo>,
    done: oneshot::Sender<Result<Appended, AppendError>>,
}

type IsSo = Box<dyn Fn() -> bool + Send + Sync>;

impl Appender {
    /// Starts the writer of a queue. It goes on writing what it has when asked to stop.
    pub fn start(log: &Log, queue: &QueueId, shutdown: &Shutdown) -> Self {
        let (to_writer, facts) = mpsc::channel(FACTS_WAITING_MAX + FACTS_OF_PLACES_MAX);
        let known = Arc::new(AtomicU64::new(0));
        let level = Arc::new(AtomicU16::new(Level::FIRST.0));
        let writer = Writer {
            log: log.clone(),
            queue: queue.clone(),
            // Names this writer's entries to the server's duplicate window; no fact depends on it.
            id: crate::ids::node().to_string(),
            entries: 0,
            known: Arc::clone(&known),
            level: Arc::clone(&level),
            is_other_stream: false,
            waiting: VecDeque::new(),
            is_joins_turn: true,
        };
        shutdown.spawn(writer.run(facts, shutdown.clone()));
        Self { to_writer, known, level }
    }

    /// The log is at this level: entries are written in its version from now on, if this program knows it.
    pub fn at_level(&self, level: Level) {
        self.level.store(level.0, Ordering::Relaxed);
    }

    /// How many facts wait to be taken up by the writer.
    pub fn waiting(&self) -> usize {
        self.to_writer.max_capacity() - self.to_writer.capacity()
    }

    /// The log goes at least to this entry: whatever is sent from now on is stored after it.
    pub fn knows(&self, seq: Seq) {
        self.known.fetch_max(seq.0, Ordering::Relaxed);
    }

    /// Hands a fact over. What comes back tells, perhaps much later, where it is stored or that it
    /// is not; whoever loses interest drops it, and the fact is written all the same.
    pub fn append(&self, fact: NodeFact) -> Result<Pending, AppendError> {
        self.hand_over(fact, None)
    }

    /// The same for a fact that is written only if it is still so when its turn comes.
    pub fn append_if(
        &self,
        fact: NodeFact,
        is_so: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<Pending, AppendError> {
        self.hand_over(fact, Some(Box::new(is_so)))
    }

    fn hand_over(&self, fact: NodeFact, is_so: Option<IsSo>) -> Result<Pending, AppendError> {
        let is_join = matches!(fact, NodeFact::Joined(..));
        if is_join && self.waiting() >= FACTS_WAITING_MAX {
            return Err(AppendError::Busy);
        }
        let (done, pending) = oneshot::channel();
        match self.to_writer.try_send(Waiting { fact, is_so, done }) {
            Ok(()) => Ok(Pending(pending)),
            Err(mpsc::error::TrySendError::Full(_)) => Err(AppendError::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(AppendError::Stopping),
        }
    }
}

/// A fact on its way.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<Appended, AppendError>>);

impl Pending {
    /// Waits until its fate is known. Safe to cancel.
    pub async fn known(&mut self) -> Result<Appended, AppendError> {
        (&mut self.0).await.unwrap_or(Err(AppendError::Stopping))
    }
}

struct Writer {
    log: Log,
    queue: QueueId,
    id: String,
    entries: u64,
    /// How far the log goes, as far as is known.
    known: Arc<AtomicU64>,
    /// The log's level.
    level: Arc<AtomicU16>,
    /// The stream turned out to be another: nothing more is written into it.
    is_other_stream: bool,
    waiting: VecDeque<Waiting>,
    /// Joins may go before what came earlier: they did not in the last entry.
    is_joins_turn: bool,
}

/// The first pause before an entry is sent again, and the longest.
const RETRY_WAIT_MIN: Duration = Duration::from_millis(50);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(1);
/// For so long the same message id is sent again; after that the server may have forgotten it.
const SAME_ID_MAX: Duration = Duration::from_secs(DEDUP_WINDOW_SECONDS / 2);
/// How long a stopping writer tries to write what it has.
const STOPPING_MAX: Duration = Duration::from_secs(5);

impl Writer {
    async fn run(mut self, mut facts: mpsc::Receiver<Waiting>, shutdown: Shutdown) {
        let mut deadline: Option<Instant> = None;
        loop {
            if self.waiting.is_empty() {
                tokio::select! {
                    fact = facts.recv() => match fact {
                        Some(fact) => self.waiting.push_back(fact),
                        None => return,
                    },
                    () = shutdown.stopped(), if deadline.is_none() => {
                        // Whoever is closing sockets now still hands facts over.
                        deadline = Some(clock::monotonic() + STOPPING_MAX);
                    }
                    () = sleep_until(deadline), if deadline.is_some() => return,
                }
            }
            while self.waiting.len() < FACTS_WAITING_MAX {
                let Ok(fact) = facts.try_recv() else { break };
                self.waiting.push_back(fact);
            }
            if self.waiting.is_empty() {
                continue;
            }
            let batch = take_batch(&mut self.waiting, &mut self.is_joins_turn);
            let stopping = async {
                shutdown.stopped().await;
                tokio::time::sleep(STOPPING_MAX).await;
            };
            tokio::select! {
                () = self.write(batch) => {}
                () = stopping => return,
            }
        }
    }

    /// Writes one entry, however long it takes, and tells everyone in it.
    async fn write(&mut self, batch: Vec<Waiting>) {
        let is_so = |waiting: &Waiting| waiting.is_so.as_ref().is_none_or(|is_so| is_so());
        let (batch, withdrawn): (Vec<_>, Vec<_>) = batch.into_iter().partition(is_so);
        for waiting in withdrawn {
            // Nobody listens when the visitor has gone meanwhile.
            let _ = waiting.done.send(Err(AppendError::Withdrawn));
        }
        let entry = to_entry(batch.iter().map(|waiting| waiting.fact));
        let version = Level(self.level.load(Ordering::Relaxed)).min(self.log.newest());
        let written = entry.as_ref().and_then(|entry| wire::event::write(entry, version));
        let Some((writer, kind, payload)) = written else { return };
        let subject = subjects::log(&self.queue, writer, kind);
        let fate = self.store_in_order(subject, payload.into()).await;
        for (index, waiting) in (0..).zip(batch) {
            let told = match &fate {
                Ok(stored) => Ok(Appended { seq: stored.seq, index }),
                Err(error) => Err(error.clone()),
            };
            // Nobody listens when the visitor has gone meanwhile.
            let _ = waiting.done.send(told);
        }
    }

    /// Stores an entry after all that is known of the log. One that is stored before that is in
    /// another stream, and nobody in it may be told that they are in line.
    async fn store_in_order(
        &mut self,
        subject: String,
        payload: Bytes,
    ) -> Result<Stored, AppendError> {
        if self.is_other_stream {
            return Err(AppendError::OtherStream);
        }
        let known = self.known.load(Ordering::Relaxed);
        let stored = self.store(subject, payload, Seq(known)).await?;
        if stored.seq.0 <= known {
            let seq = stored.seq.0;
            tracing::error!(queue = %self.queue, seq, known, "the log is another; not written on");
            self.is_other_stream = true;
            return Err(AppendError::OtherStream);
        }
        self.known.fetch_max(stored.seq.0, Ordering::Relaxed);
        Ok(stored)
    }

    /// Stores an entry behind `after`, however often it has to be sent.
    async fn store(
        &mut self,
        subject: String,
        payload: Bytes,
        after: Seq,
    ) -> Result<Stored, AppendError> {
        let mut id = self.next_id();
        let mut first_sent: Option<Instant> = None;
        let mut wait = RETRY_WAIT_MIN;
        loop {
            if let Some(first) = first_sent
                && clock::monotonic().duration_since(first) > SAME_ID_MAX
            {
                // The server may have forgotten the id: it is not sent again before it is known what came of it.
                match self.read_back(&subject, &id, after).await {
                    Some(Some(stored)) => return Ok(stored),
                    Some(None) => {
                        id = self.next_id();
                        first_sent = None;
                    }
                    None => {
                        tokio::time::sleep(wait).await;
                        wait = (2 * wait).min(RETRY_WAIT_MAX);
                        continue;
                    }
                }
            }
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", id.as_str());
            match self.log.publish(subject.clone(), headers, payload.clone()).await {
                // A duplicate of an id that was never sent before is somebody else's message.
                Ok(Stored { duplicate: true, .. }) if first_sent.is_none() => id = self.next_id(),
                Ok(stored) => return Ok(stored),
                Err(PublishError::Full) => return Err(AppendError::Full),
                Err(PublishError::Refused(why)) => {
                    tracing::error!(queue = %self.queue, why, "the log refused an entry");
                    return Err(AppendError::Refused(why));
                }
                Err(PublishError::Unknown | PublishError::FenceLost) => {
                    first_sent.get_or_insert_with(clock::monotonic);
                }
                Err(PublishError::Away) => {}
            }
            tokio::time::sleep(wait).await;
            wait = (2 * wait).min(RETRY_WAIT_MAX);
        }
    }

    /// Looks for an entry with this message id. `None` when the log can't be read now.
    async fn read_back(&self, subject: &str, id: &str, after: Seq) -> Option<Option<Stored>> {
        let mut next = Seq(after.0 + 1);
        loop {
            // Of the leader: what has not come to a follower yet would be written twice.
            let Some(found) = self.log.get_of_leader(&self.queue, next, subject).await.ok()? else {
                return Some(None);
            };
            if found.message_id().as_deref() == Some(id) {
                return Some(Some(Stored { seq: found.seq(), duplicate: true }));
            }
            next = Seq(found.seq().0 + 1);
        }
    }

    fn next_id(&mut self) -> String {
        self.entries += 1;
        format!("{}-{}", self.id, self.entries)
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    let left = deadline.map(|deadline| deadline.saturating_duration_since(clock::monotonic()));
    tokio::time::sleep(left.unwrap_or_default()).await;
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Joined(NodeId),
    Reconnected(NodeId, Option<Seq>),
    Disconnected(NodeId),
    Left,
}

fn kind(fact: &NodeFact) -> (Kind, VisitorId) {
    match fact {
        NodeFact::Joined(node, join) => (Kind::Joined(*node), join.visitor),
        NodeFact::Reconnected(node, basis, back) => {
            (Kind::Reconnected(*node, *basis), back.visitor)
        }
        NodeFact::Disconnected(visitor, socket) => (Kind::Disconnected(socket.node), *visitor),
        NodeFact::Left(left) => (Kind::Left, left.visitor),
    }
}

/// Takes the next entry's facts: all of one kind, in order, but none that would overtake an earlier
/// fact of the same visitor. The kind is that of the first one; or they are joins, when it is their turn
/// and there is more than an entry takes.
fn take_batch(waiting: &mut VecDeque<Waiting>, is_joins_turn: &mut bool) -> Vec<Waiting> {
    let Some(first) = waiting.front().map(|waiting| kind(&waiting.fact).0) else {
        return Vec::new();
    };
    let is_pressed = waiting.len() > FACTS_PER_ENTRY_MAX && !matches!(first, Kind::Joined(_));
    if is_pressed && *is_joins_turn {
        *is_joins_turn = false;
        let mut kinds = waiting.iter().map(|waiting| kind(&waiting.fact).0);
        if let Some(joins) = kinds.find(|kind| matches!(kind, Kind::Joined(_))) {
            let batch = take_kind(waiting, joins);
            // All of them may be of visitors of whom something else is to be written first.
            if !batch.is_empty() {
                return batch;
            }
        }
    }
    *is_joins_turn = true;
    take_kind(waiting, first)
}

fn take_kind(waiting: &mut VecDeque<Waiting>, wanted: Kind) -> Vec<Waiting> {
    let mut batch = Vec::new();
    let mut left = VecDeque::new();
    let mut held_back = BTreeSet::new();
    while let Some(next) = waiting.pop_front() {
        let (kind, visitor) = kind(&next.fact);
        if batch.len() == FACTS_PER_ENTRY_MAX {
            left.push_back(next);
            left.append(waiting);
        } else if kind == wanted && !held_back.contains(&visitor) {
            batch.push(next);
        } else {
            held_back.insert(visitor);
            left.push_back(next);
        }
    }
    *waiting = left;
    batch
}

/// The entry of facts that are all of one kind.
fn to_entry(facts: impl Iterator<Item = NodeFact>) -> Option<Entry> {
    let mut entry = None;
    for fact in facts {
        match (fact, &mut entry) {
            (NodeFact::Joined(node, join), None) => {
                entry = Some(Entry::Joined(Joined { node, visitors: vec![join] }));
            }
            (NodeFact::Joined(_, join), Some(Entry::Joined(joined))) => joined.visitors.push(join),
            (NodeFact::Reconnected(node, basis, back), None) => {
                let visitors = vec![back];
                entry = Some(Entry::Reconnected(Reconnected { node, basis, visitors }));
            }
            (NodeFact::Reconnected(_, _, back), Some(Entry::Reconnected(all))) => {
                all.visitors.push(back);
            }
            (NodeFact::Disconnected(visitor, Socket { node, number }), None) => {
                let visitors = vec![(visitor, number)];
                entry = Some(Entry::Disconnected(Disconnected { node, visitors }));
            }
            (NodeFact::Disconnected(visitor, socket), Some(Entry::Disconnected(all))) => {
                all.visitors.push((visitor, socket.number));
            }
            (NodeFact::Left(left), None) => entry = Some(Entry::Left(vec![left])),
            (NodeFact::Left(left), Some(Entry::Left(all))) => all.push(left),
            (_, Some(_)) => return None,
        }
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId([1; 16]);

    fn batches(facts: &[NodeFact]) -> Vec<Vec<NodeFact>> {
        let waiting =
            |fact: &NodeFact| Waiting { fact: *fact, is_so: None, done: oneshot::channel().0 };
        let mut waiting: VecDeque<Waiting> = facts.iter().map(waiting).collect();
        let (mut batches, mut is_joins_turn) = (Vec::new(), true);
        while !waiting.is_empty() {
            let batch = take_batch(&mut waiting, &mut is_joins_turn);
            batches.push(batch.iter().map(|waiting| waiting.fact).collect());
        }
        batches
    }

    #[test]
    fn an_entry_is_of_one_kind_and_no_fact_of_a_visitor_overtakes_another() {
        let (ann, bob, cid) = (VisitorId([7; 16]), VisitorId([8; 16]), VisitorId([9; 16]));
        let socket = Socket { node: NODE, number: 1 };
        let facts = [
            joined(ann),
            NodeFact::Disconnected(ann, socket),
            joined(bob),
            back(ann, None),
            NodeFact::Disconnected(bob, socket),
            joined(cid),
        ];
        assert_eq!(
            batches(&facts),
            [vec![facts[0], facts[2], facts[5]], vec![facts[1], facts[4]], vec![facts[3]],]
        );
    }

    #[test]
    fn joins_go_first_in_every_other_entry_where_more_waits_than_one_takes() {
        let returns = 2 * FACTS_PER_ENTRY_MAX + 500;
        let mut facts: Vec<NodeFact> = (0..returns).map(|n| back(visitor(n), None)).collect();
        // The last one came back before, and has to wait for that to be written.
        let joins = [visitor(returns), visitor(returns + 1), visitor(0)];
        facts.extend(joins.map(joined));
        let sizes = |facts: &[NodeFact]| batches(facts).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(&facts), [2, FACTS_PER_ENTRY_MAX, 1, FACTS_PER_ENTRY_MAX, 500]);
        assert_eq!(batches(&facts)[0], facts[returns..returns + 2]);
        // What fits into one entry leaves in the order in which it came.
        assert_eq!(sizes(&facts[returns - 10..]), [10, 3]);
    }

    fn joined(visitor: VisitorId) -> NodeFact {
        NodeFact::Joined(NODE, Join::plain(visitor, 1))
    }

    fn back(visitor: VisitorId, basis: Option<Seq>) -> NodeFact {
        NodeFact::Reconnected(NODE, basis, Return::plain(visitor, 1))
    }

    fn visitor(number: usize) -> VisitorId {
        VisitorId((number as u128).to_be_bytes())
    }

    #[test]
    fn an_entry_is_bounded_and_of_one_node() {
        let many: Vec<NodeFact> = (0..FACTS_PER_ENTRY_MAX + 1)
            .map(|n| NodeFact::Left(Left { visitor: visitor(n), hand: 0 }))
            .collect();
        let sizes: Vec<usize> = batches(&many).iter().map(Vec::len).collect();
        assert_eq!(sizes, [FACTS_PER_ENTRY_MAX, 1]);
        let other = NodeFact::Joined(NodeId([2; 16]), Join::plain(visitor(2), 1));
        assert_eq!(batches(&[joined(visitor(1)), other]).len(), 2);
        // What an assertion rests on is said once, for all in the entry.
        let of = |basis: u32| back(visitor(basis as usize), Some(Seq(basis.into())));
        assert_eq!(batches(&[of(1), of(2), back(visitor(3), None)]).len(), 3);
    }
}
