//! Which nodes are alive, by their heartbeats.
//!
//! Silence is evidence only while we could have heard something. So we say a beat of our own and
//! listen to it by the same way: when it has stalled, because we were stopped or the way was cut,
//! nobody's silence before that counts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;
use crate::ids;
use crate::log::connection::Log;
use crate::log::subjects;
use crate::queue::event::NodeId;
use crate::shutdown::Shutdown;
use crate::telemetry;
use crate::wire;

/// A node that is not heard for this long is lost. Ten beats.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How often our own beat is said.
const PULSE_EVERY: Duration = Duration::from_millis(500);
/// Between two of our own beats no more than this may pass: four of them.
const PULSE_MAX: Duration = Duration::from_secs(2);
/// A node that nobody asks about and that is not heard is forgotten after this.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// A node's counts are some kilobytes.
const COUNTS_BYTES_MAX: usize = 64 * 1024;

/// When each node was heard last, and since when we can hear.
pub(super) struct Beats {
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    /// When each node was heard last; of one never heard, when it was first asked about.
    nodes: BTreeMap<NodeId, Instant>,
    /// What each counted, as it last said.
    counts: BTreeMap<NodeId, String>,
    /// Our own last beat that came back.
    pulse: Option<Instant>,
    /// Since when they have come back without a stall.
    hearing_since: Option<Instant>,
}

impl Beats {
    /// Listens from now on.
    pub(super) async fn listen(log: &Log, shutdown: &Shutdown) -> anyhow::Result<Arc<Self>> {
        let mut beats = log
            .listen(subjects::beats())
            .await
            .ok_or_else(|| anyhow::anyhow!("the connection to NATS is closed"))?;
        let this = Arc::new(Self { heard: Mutex::default() });
        let (listening, log, stopping) = (Arc::clone(&this), log.clone(), shutdown.clone());
        let own = subjects::beat("admission", &ids::node().to_string());
        shutdown.spawn(async move {
            let mut pulse = tokio::time::interval(PULSE_EVERY);
            pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    beat = beats.next() => match beat {
                        Some(beat) if beat.subject == own => listening.pulse(),
                        Some(beat) => listening.hear(&beat.subject, &beat.payload),
                        None => return,
                    },
                    _ = pulse.tick() => log.say(own.clone(), Vec::new()).await,
                    () = stopping.stopped() => return,
                }
            }
        });
        Ok(this)
    }

    /// Whether this node has been silent for so long that it is lost. One that was never heard is
    /// given the same time from the first question on.
    pub(super) fn is_silent(&self, node: NodeId) -> bool {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::monotonic();
        let last = *heard.nodes.entry(node).or_insert(now);
        let hears = heard.pulse.is_some_and(|pulse| now.duration_since(pulse) <= PULSE_MAX);
        let Some(since) = heard.hearing_since.filter(|_| hears) else { return false };
        now.duration_since(last.max(since)) > SILENCE_MAX
    }

    /// The counts of every node that is heard, as Prometheus text.
    pub(super) fn counts(&self) -> String {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::monotonic();
        let is_there = |node: &NodeId| {
            heard.nodes.get(node).is_some_and(|last| now.duration_since(*last) <= SILENCE_MAX)
        };
        let counts = heard.counts.iter().filter(|(node, _)| is_there(node));
        telemetry::merge(counts.map(|(_, text)| text.as_str()))
    }

    fn hear(&self, subject: &str, payload: &[u8]) {
        let node = subject.strip_prefix(&subjects::beat("node", "")).and_then(wire::id::parse);
        let Some(node) = node.map(NodeId) else { return };
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::monotonic();
        heard.nodes.insert(node, now);
        heard.nodes.retain(|_, last| now.duration_since(*last) <= FORGET_AFTER);
        let Heard { nodes, counts, .. } = &mut *heard;
        counts.retain(|node, _| nodes.contains_key(node));
        if payload.len() <= COUNTS_BYTES_MAX
            && let Ok(text) = std::str::from_utf8(payload)
        {
            counts.insert(node, text.to_owned());
        }
    }

    fn pulse(&self) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::monotonic();
        let steady = heard.pulse.is_some_and(|pulse| now.duration_since(pulse) <= PULSE_MAX);
        if !steady {
            heard.hearing_since = Some(now);
        }
        heard.pulse = Some(now);
    }
}
