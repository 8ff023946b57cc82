//! Role: a WebSocket node. It writes down who joined, came, went or left, and shows everyone where
//! they stand. It keeps nothing: whatever it knows came from the feed, and any other node will do.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::clock;
use crate::http::door::{Door, Limits};
use crate::http::readiness::Readiness;
use crate::ids;
use crate::log::append::{AppendError, Appender, NodeFact, Pending};
use crate::log::connection::Log;
use crate::log::subjects::{self, QueueId};
use crate::queue::event::{NodeId, Seq, Socket, State, Ticket};
use crate::shutdown::Shutdown;
use crate::telemetry;
use crate::wire::{self, beat::Beat};

mod allowance;
mod api;
mod authorize;
mod counts;
mod ending;
mod entry;
mod feed;
mod hall;
mod identity;
mod lookups;
mod mint;
mod page;
mod passes;
mod places;
mod presented;
mod secret;
mod session;
mod waiting;

use hall::pushers::Pushers;
use hall::seats::{Hall, Word};
use identity::NodeIds;
use lookups::Lookups;
use places::View;

/// After this a visitor is told that the log does not answer; their join may still be stored.
const APPEND_WAIT_MAX: Duration = Duration::from_secs(3);
/// Heartbeats: admission counts ten missed ones as death.
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// Pause before a visitor's return that the log did not take is handed over again.
const ASSERT_AGAIN: Duration = Duration::from_secs(1);
/// A queue that nobody knew is not asked for again within this.
const UNKNOWN_FOR: Duration = Duration::from_secs(2);
/// Names of such queues that are remembered; anyone can make names up.
const UNKNOWN_MAX: usize = 1_000;

/// What the role needs besides the log.
pub struct Config {
    /// Makes and verifies connection ids.
    pub keys: ids::ConnectionKeys,
    /// Keeps the queues' secrets.
    pub installation: ids::InstallationKey,
    /// What tokens and passes must name as their issuer.
    pub issuer: String,
    /// The origin under which visitors reach this node, where it is not the one that they name.
    pub public_url: Option<String>,
    /// Where visitors are listened to.
    pub listen: TcpListener,
    /// How many may come in.
    pub limits: Limits,
    /// Threads that tell visitors where they stand; with none, each socket has a task.
    pub pushers: usize,
}

/// A projector that has stopped says so each second; after this it is gone.
const STOPPED_FOR: Duration = Duration::from_secs(5);

/// Runs a node until it is asked to stop; then its visitors are told to come back elsewhere.
pub async fn run(log: Log, config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    let ids = Arc::new(NodeIds::new());
    let id = ids.own();
    let counts = telemetry::Counts::start("node", &id.to_string(), &counts::BUCKETS)?;
    counts::describe();
    let door = Door::new(config.limits);
    let sockets_max = door.sockets_max();
    let node = Arc::new(Node {
        counts,
        log: log.clone(),
        keys: config.keys,
        installation: config.installation,
        issuer: config.issuer,
        public_url: config.public_url,
        ids,
        sockets: AtomicU64::new(0),
        queues: RwLock::default(),
        door,
        pushers: Arc::new(Pushers::start(config.pushers, sockets_max, &shutdown)?),
        unknown: Mutex::default(),
        stopped: Mutex::default(),
        shutdown: shutdown.clone(),
    });
    let feed = log.listen(subjects::feed_all()).await;
    let feed = feed.ok_or_else(|| anyhow::anyhow!("the connection to NATS is closed"))?;
    shutdown.spawn(feed::follow(Arc::clone(&node), feed));
    let router = api::router(Arc::clone(&node));
    let door = Arc::clone(&node.door);
    shutdown.spawn(crate::http::serve(
        config.listen,
        router,
        api::BODY_BYTES_MAX,
        door,
        shutdown.clone(),
    ));
    let mut beat = tokio::time::interval(BEAT_EVERY);
    loop {
        tokio::select! {
            _ = beat.tick() => node.beat().await,
            () = shutdown.stopped() => return Ok(()),
        }
    }
}

/// One node.
struct Node {
    counts: telemetry::Counts,
    log: Log,
    keys: ids::ConnectionKeys,
    installation: ids::InstallationKey,
    issuer: String,
    public_url: Option<String>,
    ids: Arc<NodeIds>,
    sockets: AtomicU64,
    queues: RwLock<BTreeMap<QueueId, Arc<Queue>>>,
    door: Arc<Door>,
    pushers: Arc<Pushers>,
    unknown: Mutex<BTreeMap<QueueId, Instant>>,
    /// Queues of which a projector said that it goes no further, why, and when it last said so.
    stopped: Mutex<BTreeMap<QueueId, (String, Instant)>>,
    shutdown: Shutdown,
}

/// What a node has of one queue.
struct Queue {
    id: QueueId,
    view: RwLock<View>,
    /// When the view has moved last.
    moved: watch::Sender<Instant>,
    hall: Hall,
    appender: Appender,
    lookups: Lookups,
    granted: mpsc::Sender<Ticket>,
}

/// Why there is no queue of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NoQueue {
    /// There is none.
    Unknown,
    /// Nobody can tell at the moment.
    Unavailable,
}

impl Node {
    fn id(&self) -> NodeId {
        self.ids.own()
    }

    fn is_me(&self, node: NodeId) -> bool {
        self.ids.contains(node)
    }

    /// A number for a new socket.
    fn next_socket(&self) -> Socket {
        Socket { node: self.id(), number: self.sockets.fetch_add(1, Ordering::Relaxed) + 1 }
    }

    /// The log says that this node is dead. It goes on under another id, and says who is here.
    fn reborn(self: &Arc<Self>, lost: NodeId) {
        if !self.is_me(lost) {
            return;
        }
        if let Some(id) = self.ids.renew(lost) {
            tracing::warn!(lost = %lost, id = %id, "declared lost, or it looks so; going on under another id");
            let node = Arc::clone(self);
            // At once, so that nobody asks about an id that was never heard.
            crate::shutdown::detached(async move { node.beat().await });
        }
        for queue in self.all_queues() {
            queue.claim_seats(self.id());
        }
    }

    async fn beat(&self) {
        let id = self.id().to_string();
        counts::note(&self.door);
        let beat = Beat { counts: self.counts.text(), ..Beat::of(self.log.newest()) };
        self.log.say(subjects::beat("node", &id), wire::beat::write(&beat)).await;
    }

    fn known(&self, queue: &QueueId) -> Option<Arc<Queue>> {
        self.queues.read().unwrap_or_else(PoisonError::into_inner).get(queue).cloned()
    }

    fn all_queues(&self) -> Vec<Arc<Queue>> {
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        queues.values().cloned().collect()
    }

    /// The queue of this name, learnt from a projector if it is not known yet.
    async fn queue(self: &Arc<Self>, name: &str) -> Result<Arc<Queue>, NoQueue> {
        let id = QueueId::parse(name).ok_or(NoQueue::Unknown)?;
        if let Some(queue) = self.known(&id) {
            return Ok(queue);
        }
        if self.was_unknown(&id) {
            return Err(NoQueue::Unknown);
        }
        let learnt = feed::snapshot(&self.log, &id, Seq(0)).await;
        match learnt {
            Ok(view) => Ok(self.add(id, view)),
            Err(NoQueue::Unknown) => {
                self.remember_unknown(id);
                Err(NoQueue::Unknown)
            }
            Err(NoQueue::Unavailable) => Err(NoQueue::Unavailable),
        }
    }

    fn add(self: &Arc<Self>, id: QueueId, view: View) -> Arc<Queue> {
        let mut queues = self.queues.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(&id) {
            return Arc::clone(queue);
        }
        tracing::info!(queue = %id, waiting = view.waiting(), "serving");
        // Queues are never taken out, so their number is free.
        let row = u32::try_from(queues.len()).unwrap_or(u32::MAX);
        let (granted, tickets) = mpsc::channel(mint::WAITING_MAX);
        let appender = Appender::start(&self.log, &id, &self.shutdown);
        appender.knows(view.through());
        appender.at_level(view.level());
        let hall = Hall::new(
            Arc::clone(&self.pushers),
            row,
            self.door.sockets_max(),
            Arc::clone(&self.ids),
        );
        hall.begins(view.through());
        let queue = Arc::new(Queue {
            view: RwLock::new(view),
            moved: watch::Sender::new(clock::monotonic()),
            hall,
            appender,
            lookups: Lookups::start(&self.log, &id, &self.shutdown),
            granted,
            id: id.clone(),
        });
        let minting =
            mint::run(self.log.clone(), Arc::clone(&queue), tickets, self.shutdown.clone());
        self.shutdown.spawn(minting);
        queues.insert(id, Arc::clone(&queue));
        queue
    }

    /// A projector of this queue goes no further.
    fn stopped(&self, queue: QueueId, why: String) {
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        if stopped.get(&queue).is_none_or(|(known, _)| *known != why) {
            tracing::error!(%queue, why, "a projector has stopped");
        }
        stopped.insert(queue, (why, clock::monotonic()));
    }

    /// Whether this node should be given visitors.
    fn readiness(&self) -> Readiness {
        let mut readiness = Readiness::default();
        if !self.log.is_connected() {
            readiness.lacks("the log can't be reached");
        }
        if self.shutdown.is_stopping() {
            readiness.lacks("stopping");
        }
        if self.door.is_full() {
            readiness.lacks("there is no room for another visitor");
        }
        let now = clock::monotonic();
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        stopped.retain(|_, (_, said)| now.duration_since(*said) < STOPPED_FOR);
        let mut stopped = stopped.clone();
        for queue in self.all_queues() {
            let (staleness, is_deleted) = {
                let view = queue.view();
                (view.staleness(), view.state() == State::Deleted)
            };
            if is_deleted {
                continue;
            }
            // Another projector may still serve a queue of which one has stopped.
            let stopped = stopped.remove(&queue.id).filter(|_| staleness.is_some());
            readiness.queue(queue.id.as_str(), staleness);
            readiness.queue(queue.id.as_str(), stopped.map(|(why, _)| format!("stopped {why}")));
            readiness.queue(queue.id.as_str(), queue.why_no_names(&self.installation));
        }
        for (queue, (why, _)) in stopped {
            readiness.queue(queue.as_str(), [format!("stopped {why}")]);
        }
        readiness
    }

    fn was_unknown(&self, id: &QueueId) -> bool {
        let unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        unknown.get(id).is_some_and(|at| clock::monotonic().duration_since(*at) < UNKNOWN_FOR)
    }

    fn remember_unknown(&self, id: QueueId) {
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        if unknown.len() >= UNKNOWN_MAX {
            unknown.clear();
        }
        unknown.insert(id, clock::monotonic());
    }
}

impl Queue {
    fn view(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn view_mut(&self) -> RwLockWriteGuard<'_, View> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another stream has taken the place of the one that this queue was learnt from. What we have is
    /// right for the visitors here and gets no newer; a node that is started again takes up the new.
    fn halt(&self) {
        if self.view_mut().halt() {
            tracing::error!(queue = %self.id, "the queue's log is another than before; not served on");
        }
    }

    /// The view has moved: whoever tells visitors looks at it.
    fn tell_moved(&self, pushers: &Pushers) {
        self.moved.send_replace(clock::monotonic());
        pushers.wake();
    }

    /// Hands a fact to the log that nobody waits for. That somebody went would count for nothing while nobody's
    /// going is written down, as far as that is fresh.
    fn write(&self, fact: NodeFact) {
        if matches!(fact, NodeFact::Disconnected(..)) {
            let view = self.view();
            if view.is_presence_off() && !view.is_stale() {
                return;
            }
        }
        if let Err(error) = self.appender.append(fact) {
            tracing::warn!(queue = %self.id, %error, "a fact could not be handed over");
        }
    }

    /// Tells the log of every seat that it knows under another id than this.
    fn claim_seats(self: &Arc<Self>, node: NodeId) {
        self.hall.call_roll(|other| other != node, &mut |word| self.assert_here(word));
    }

    /// The same of one seat.
    fn claim_seat(self: &Arc<Self>, ticket: Ticket, node: NodeId) {
        self.hall.call(ticket, node, &mut |word| self.assert_here(word));
    }

    /// Tells the log of everyone who is here: it has forgotten who was.
    fn call_roll(self: &Arc<Self>) {
        self.hall.call_roll(|_| true, &mut |word| self.assert_here(word));
    }

    /// Tells the log that a visitor is here whom it may know to be so: they lose to whoever came
    /// elsewhere after what is known here.
    fn assert_here(self: &Arc<Self>, word: Word) {
        self.tell_log(word, Some(word.basis));
    }

    /// Tells the log that a visitor is on this socket, again and again until it knows, they are on
    /// another, or gone: one who is here must not be taken for absent. Without a `basis` they have just
    /// come; what the log did not take at once is no news any more.
    fn tell_log(self: &Arc<Self>, word: Word, basis: Option<Seq>) {
        let Word { ticket, node, back, .. } = word;
        let socket = Socket { node, number: back.socket };
        // At once, so that it stands before whatever is said of the visitor next.
        let mut handed_over = self.append_while_here(word, basis);
        let queue = Arc::clone(self);
        crate::shutdown::detached(async move {
            loop {
                let fate = match &mut handed_over {
                    Ok(pending) => pending.known().await,
                    Err(error) => Err(error.clone()),
                };
                match fate {
                    Ok(appended) => {
                        let say = &mut |word| queue.assert_here(word);
                        return queue.hall.stored(ticket, socket, appended.seq, say);
                    }
                    Err(AppendError::Stopping) => return,
                    Err(AppendError::Withdrawn) => return queue.withdrawn(ticket, socket),
                    // Nothing of ours is written into that one.
                    Err(AppendError::OtherStream) => return queue.halt(),
                    Err(error) => {
                        // Of a roll call there are as many as people are here.
                        tracing::debug!(queue = %queue.id, %error, "a visitor's return is not written yet");
                    }
                }
                tokio::time::sleep(ASSERT_AGAIN).await;
                if !queue.hall.holds(ticket, socket) {
                    return queue.withdrawn(ticket, socket);
                }
                handed_over = queue.append_while_here(word, Some(word.basis));
            }
        });
    }

    /// What was to be said of this socket was not written, since nobody was on the seat.
    fn withdrawn(self: &Arc<Self>, ticket: Ticket, socket: Socket) {
        self.hall.withdrawn(ticket, socket, &mut |word| self.assert_here(word));
    }

    /// Hands a visitor's return to the log; behind an outage it is written only if they are still here.
    fn append_while_here(
        self: &Arc<Self>,
        word: Word,
        basis: Option<Seq>,
    ) -> Result<Pending, AppendError> {
        let Word { ticket, node, back, .. } = word;
        let (queue, socket) = (Arc::downgrade(self), Socket { node, number: back.socket });
        let is_here = move || queue.upgrade().is_some_and(|queue| queue.hall.holds(ticket, socket));
        self.appender.append_if(NodeFact::Reconnected(node, basis, back), is_here)
    }

    /// A token is to be had for this visitor, who sits here.
    fn wants_token(&self, ticket: Ticket) {
        if self.granted.try_send(ticket).is_err() {
            tracing::warn!(queue = %self.id, "too many wait for their tokens");
        }
    }

    /// Where an admitted visitor goes.
    fn target(&self) -> String {
        let target = self.view().door().target.clone();
        target.unwrap_or_else(|| format!("/entered/{}", self.id))
    }
}
