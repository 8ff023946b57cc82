//! Which nodes are alive, by their heartbeats.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;
use crate::log::connection::Log;
use crate::log::subjects;
use crate::queue::event::NodeId;
use crate::shutdown::Shutdown;
use crate::wire;

/// A node that is not heard for this long is lost. Ten beats.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How often our own connection is looked at; also how long a beat is good at the very least.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// When each node was heard last, and since when we could have heard it.
pub(super) struct Beats {
    heard: Mutex<Heard>,
}

struct Heard {
    nodes: BTreeMap<NodeId, Instant>,
    /// Since when there has been a connection without interruption: silence before it says nothing.
    listening_since: Option<Instant>,
}

impl Beats {
    /// Listens from now on.
    pub(super) async fn listen(log: &Log, shutdown: &Shutdown) -> anyhow::Result<Arc<Self>> {
        let mut beats = log
            .listen(subjects::node_beats())
            .await
            .ok_or_else(|| anyhow::anyhow!("the connection to NATS is closed"))?;
        let heard = Heard { nodes: BTreeMap::new(), listening_since: None };
        let this = Arc::new(Self { heard: Mutex::new(heard) });
        let (listening, log, stopping) = (Arc::clone(&this), log.clone(), shutdown.clone());
        shutdown.spawn(async move {
            let mut look = tokio::time::interval(LOOK_EVERY);
            loop {
                tokio::select! {
                    beat = beats.next() => match beat {
                        Some(beat) => listening.hear(&beat.subject),
                        None => return,
                    },
                    _ = look.tick() => listening.connected(log.is_connected()),
                    () = stopping.stopped() => return,
                }
            }
        });
        Ok(this)
    }

    /// Whether this node has been silent for so long that it is lost.
    pub(super) fn is_silent(&self, node: NodeId) -> bool {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(since) = heard.listening_since else { return false };
        let last = heard.nodes.get(&node).map_or(since, |last| (*last).max(since));
        clock::monotonic().duration_since(last) > SILENCE_MAX
    }

    fn hear(&self, subject: &str) {
        let id = subject.rsplit('.').next().and_then(wire::id::parse);
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::monotonic();
        if let Some(id) = id {
            heard.nodes.insert(NodeId(id), now);
        }
        // A node that was silent for long is judged by its absence here: nothing is lost by
        // forgetting it, and the table holds only the living.
        heard.nodes.retain(|_, last| now.duration_since(*last) <= 2 * SILENCE_MAX);
    }

    fn connected(&self, connected: bool) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if !connected {
            heard.listening_since = None;
        } else if heard.listening_since.is_none() {
            heard.listening_since = Some(clock::monotonic());
        }
    }
}
