//! Following the feed: frames into the replicas, and what they mean to those who sit here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::log::connection::Log;
use crate::log::subjects::{self, QueueId};
use crate::log::talk::{ASK_WAIT_MAX, Listener};
use crate::node::places::{Came, Missed, Moved, View};
use crate::node::{NoQueue, Node, Queue, lookups};
use crate::queue::event::{Seq, State};
use crate::wire;
use crate::wire::ask::{Answer, Refusal, SnapshotQuestion};
use crate::wire::feed::{Frame, SnapshotPart};
use crate::wire::socket::EndReason;

/// Frames kept while a snapshot is under way: at 100 a second some five seconds. Beyond it the
/// oldest are dropped, and the snapshot is asked for once more.
const FRAMES_KEPT_MAX: usize = 512;
/// Snapshots under way, over all queues.
const SNAPSHOTS_MAX: usize = 256;
/// Staleness sets in with time alone, so it is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Pause before a snapshot is asked for again.
const RETRY_WAIT: Duration = Duration::from_millis(250);

/// Takes the snapshot of a queue, part by part, of a projector that has applied `at_least`.
pub(super) async fn snapshot(log: &Log, queue: &QueueId, at_least: Seq) -> Result<View, NoQueue> {
    let mut bytes = Vec::new();
    let mut id = None;
    loop {
        let question = SnapshotQuestion { at_least: at_least.0, id, offset: bytes.len() as u64 };
        let question = serde_json::to_vec(&question).unwrap_or_default();
        let answer = log.ask_bytes(subjects::ask(queue, "snapshot"), question, ASK_WAIT_MAX).await;
        let answer = answer.map_err(|_| NoQueue::Unavailable)?;
        let Ok(part) = wire::feed::read::<SnapshotPart>(&answer) else {
            return match serde_json::from_slice(&answer) {
                Ok(Answer::<()>::No(Refusal::UnknownQueue)) => Err(NoQueue::Unknown),
                _ => Err(NoQueue::Unavailable),
            };
        };
        if id.is_some_and(|id| id != part.id) || part.bytes.is_empty() {
            return Err(NoQueue::Unavailable);
        }
        id = Some(part.id);
        bytes.extend(part.bytes);
        if bytes.len() as u64 >= part.total {
            let snapshot = wire::feed::read_snapshot(&bytes).map_err(|_| NoQueue::Unavailable)?;
            return View::new(snapshot).ok_or(NoQueue::Unavailable);
        }
    }
}

/// Follows the feed of every queue until asked to stop.
pub(super) async fn follow(node: Arc<Node>, mut feed: Listener) {
    let (to_self, mut snapshots) = mpsc::channel(SNAPSHOTS_MAX);
    let mut follower = Follower { node: Arc::clone(&node), waiting: BTreeMap::new(), to_self };
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut stale = BTreeMap::new();
    loop {
        tokio::select! {
            heard = feed.next() => match heard {
                Some(heard) => follower.hear(&heard.subject, &heard.payload),
                None => return,
            },
            Some((queue, view)) = snapshots.recv() => follower.begin_anew(queue, view),
            _ = look.tick() => follower.look(&mut stale),
            () = node.shutdown.stopped() => return,
        }
    }
}

struct Follower {
    node: Arc<Node>,
    /// Queues whose snapshot is under way, and the frames since it was asked for.
    waiting: BTreeMap<QueueId, Vec<Frame>>,
    to_self: mpsc::Sender<(QueueId, Option<View>)>,
}

impl Follower {
    fn hear(&mut self, subject: &str, payload: &[u8]) {
        let Some(queue) = subjects::queue_of_feed(subject) else { return };
        let frame = match wire::feed::read_frame(payload) {
            Ok(frame) => frame,
            Err(error) => {
                tracing::warn!(%queue, %error, "a frame can't be read");
                return;
            }
        };
        if let Some(halted) = &frame.halted {
            let known = self.node.known(&queue);
            let why = format!("after entry {}: {}", halted.after, halted.why);
            self.node.stopped(queue.clone(), why);
            // It gives no snapshot of what it has; and one that read another stream than we did speaks
            // of that one.
            let Some(known) = known.filter(|known| known.view().stream() == frame.stream) else {
                return;
            };
            if halted.is_log_gone {
                known.halt();
            }
        }
        if let Some(frames) = self.waiting.get_mut(&queue) {
            if frames.len() == FRAMES_KEPT_MAX {
                frames.remove(0);
            }
            frames.push(frame);
            return;
        }
        match self.node.known(&queue) {
            Some(known) => self.apply(&known, frame),
            None => self.ask_snapshot(queue, frame),
        }
    }

    fn apply(&mut self, queue: &Arc<Queue>, frame: Frame) {
        let applied = queue.view_mut().apply(&frame);
        match applied {
            Ok(moved) => {
                let through = queue.view().through();
                queue.appender.knows(through);
                queue.appender.at_level(queue.view().level());
                self.tell(queue, &moved, through);
            }
            Err(Missed::Hole) => self.ask_snapshot(queue.id.clone(), frame),
            Err(Missed::OtherStream) => queue.halt(),
        }
    }

    fn ask_snapshot(&mut self, queue: QueueId, frame: Frame) {
        let (log, to_self) = (self.node.log.clone(), self.to_self.clone());
        // What is heard from here on follows on this; an older one would leave a hole.
        let at_least = Seq(frame.through);
        self.waiting.insert(queue.clone(), vec![frame]);
        self.node.shutdown.spawn(async move {
            let view = snapshot(&log, &queue, at_least).await.ok();
            if view.is_none() {
                tracing::warn!(%queue, "no snapshot is to be had; asking again");
                tokio::time::sleep(RETRY_WAIT).await;
            }
            // Nobody takes it when the node is stopping.
            let _ = to_self.send((queue, view)).await;
        });
    }

    /// A snapshot came, or did not. What was heard meanwhile is applied on top of it.
    fn begin_anew(&mut self, id: QueueId, view: Option<View>) {
        let frames = self.waiting.remove(&id).unwrap_or_default();
        let Some(view) = view else {
            if let Some(last) = frames.into_iter().next_back() {
                self.ask_snapshot(id, last);
            }
            return;
        };
        let through = view.through();
        let queue = match self.node.known(&id) {
            Some(queue) => {
                if view.stream() != queue.view().stream() {
                    return queue.halt();
                }
                let newer = through >= queue.view().through();
                if newer {
                    *queue.view_mut() = view;
                    queue.appender.knows(through);
                }
                queue
            }
            None => self.node.add(id, view),
        };
        self.look_up_seats(&queue, through);
        queue.appender.at_level(queue.view().level());
        for frame in frames {
            if self.waiting.contains_key(&queue.id) {
                return;
            }
            self.apply(&queue, frame);
        }
        queue.tell_moved(&self.node.pushers);
    }

    /// What happened between the replica and the snapshot was not heard: whoever sits here may have
    /// been let in or ended, be somewhere else by now, or be taken for absent. All are looked up.
    fn look_up_seats(&self, queue: &Arc<Queue>, through: Seq) {
        for (ticket, visitor) in queue.hall.missed(through) {
            let (node, queue) = (Arc::clone(&self.node), Arc::clone(queue));
            self.node.shutdown.spawn(async move {
                lookups::catch_up(&node, &queue, ticket, visitor, through).await;
            });
        }
    }

    /// Tells those who sit here what moved, up to the entry `through`.
    fn tell(&self, queue: &Arc<Queue>, moved: &Moved, through: Seq) {
        for ticket in &moved.admitted {
            if queue.hall.visitor(*ticket).is_some() {
                queue.wants_token(*ticket);
            }
        }
        for (ticket, reason) in &moved.ended {
            queue.hall.end(*ticket, *reason);
        }
        if queue.view().state() == State::Deleted {
            for (ticket, _) in queue.hall.visitors() {
                queue.hall.end(ticket, EndReason::Closed);
            }
        }
        let say = &mut |word| queue.assert_here(word);
        for Came { seq, places } in &moved.came {
            queue.hall.came(*seq, places, say);
        }
        // Only now, when everyone was told who has come elsewhere, is it said who is here.
        queue.hall.heard(through, say);
        for lost in &moved.lost {
            self.node.reborn(*lost);
        }
        if moved.calls_roll {
            queue.call_roll();
        }
        queue.tell_moved(&self.node.pushers);
    }

    /// Tells the sockets of a queue when its numbers became old, or are fresh again.
    fn look(&self, stale: &mut BTreeMap<QueueId, bool>) {
        for queue in self.node.all_queues() {
            let is_stale = queue.view().is_stale();
            if stale.insert(queue.id.clone(), is_stale).unwrap_or(false) != is_stale {
                tracing::warn!(queue = %queue.id, is_stale, "freshness of the feed");
                queue.tell_moved(&self.node.pushers);
            }
        }
    }
}
