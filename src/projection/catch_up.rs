//! A long way to the log's end: how far it is, told while it lasts.

use std::time::{Duration, Instant};

use crate::clock;
use crate::log::subjects::QueueId;
use crate::queue::event::Seq;

/// Entries that are missing to call it a long way. Fewer are told to nodes one by one, which is less
/// than a snapshot for each of them.
const LONG_ENTRIES: u64 = 2_000;
/// How often it is said how far it is.
const TELL_EVERY: Duration = Duration::from_secs(2);

pub(super) struct CatchUp {
    queue: QueueId,
    way: Option<Way>,
}

struct Way {
    from: Seq,
    to: Seq,
    begun: Instant,
    told: Instant,
}

impl CatchUp {
    pub(super) fn new(queue: QueueId) -> Self {
        Self { queue, way: None }
    }

    /// The log is known to end here.
    pub(super) fn hear(&mut self, at: Seq, end: Seq) {
        if let Some(way) = &mut self.way {
            way.to = way.to.max(end);
        } else if end.0.saturating_sub(at.0) > LONG_ENTRIES {
            let now = clock::monotonic();
            tracing::info!(queue = %self.queue, from = at.0, end = end.0, "folding the log");
            self.way = Some(Way { from: at, to: end, begun: now, told: now });
        }
    }

    pub(super) fn applied(&mut self, seq: Seq) {
        let Some(way) = &mut self.way else { return };
        let now = clock::monotonic();
        let elapsed = now.duration_since(way.begun);
        let entries = seq.0 - way.from.0;
        if seq >= way.to {
            let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            tracing::info!(queue = %self.queue, entries, millis, "at the log's end");
            self.way = None;
        } else if now.duration_since(way.told) > TELL_EVERY {
            way.told = now;
            let percent = entries * 100 / (way.to.0 - way.from.0).max(1);
            tracing::info!(queue = %self.queue, entry = seq.0, end = way.to.0, percent, "folding the log");
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.way.is_none()
    }
}
