//! The one decision of a queue that is under way: what is known of it until it comes back.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::admission::command::Command;
use crate::admission::service::outage_of;
use crate::log::connection::Log;
use crate::log::publish::{PublishError, Stored};
use crate::log::subjects::QueueId;
use crate::queue::event::{Decision, Level, Millis, Seq};

/// Pause before a decision is tried again after the log failed.
const RETRY_WAIT: Duration = Duration::from_millis(200);

/// What became of sending a decision.
pub(super) type Outcome = Result<Stored, PublishError>;
type Sending = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// A decision under way.
pub(super) struct InFlight {
    pub(super) decision: Decision,
    /// Who waits for it.
    pub(super) commands: Vec<Command>,
    sending: Option<Sending>,
    /// It was sent and may be stored, whatever later attempts say.
    maybe_stored: bool,
    /// An outage was written by somebody since it was sent.
    pub(super) outage_written: bool,
    /// Nobody waits for it any more; it is not sent again.
    pub(super) abandoned: bool,
    /// Where it came back.
    pub(super) landed: Option<Seq>,
}

impl InFlight {
    /// A decision that is not sent yet.
    pub(super) fn new(decision: Decision, commands: Vec<Command>) -> Self {
        Self {
            decision,
            commands,
            sending: None,
            maybe_stored: false,
            outage_written: false,
            abandoned: false,
            landed: None,
        }
    }

    /// Sends it, once more if it was sent before: the fence lets in only one. Either says the time at
    /// which it was sent.
    pub(super) fn send(&mut self, log: &Log, queue: &QueueId, now: Millis, version: Level) {
        self.decision.now = now;
        let (log, queue, decision) = (log.clone(), queue.clone(), self.decision.clone());
        self.sending =
            Some(Box::pin(async move { log.append_fenced(&queue, &decision, version).await }));
    }

    /// Whether it was sent and nothing was heard of it yet.
    pub(super) fn is_sending(&self) -> bool {
        self.sending.is_some()
    }

    /// A decision has come back from the log, perhaps this one.
    pub(super) fn hear(&mut self, decision: &Decision, seq: Seq) {
        // By each sending it states another time.
        let Decision { prev, basis, now: _, worker, facts } = decision;
        let own = &self.decision;
        if (*prev, *basis, *worker) == (own.prev, own.basis, own.worker) && *facts == own.facts {
            self.landed = Some(seq);
        }
        self.outage_written |= outage_of(&decision.facts).is_some();
    }

    /// Notes what became of sending it; the pause before anything is sent again, if there is one.
    pub(super) fn note(&mut self, outcome: &Outcome) -> Option<Duration> {
        self.sending = None;
        match outcome {
            // The tail brings it back, ours or the one that was first.
            Ok(_) | Err(PublishError::FenceLost) => {
                self.maybe_stored = true;
                None
            }
            Err(PublishError::Unknown) => {
                self.maybe_stored = true;
                Some(RETRY_WAIT)
            }
            Err(PublishError::Away | PublishError::Full | PublishError::Refused(_)) => {
                Some(RETRY_WAIT)
            }
        }
    }

    /// Whether the log has said that it will not have it.
    pub(super) fn is_refused(&self, error: &PublishError) -> bool {
        matches!(error, PublishError::Full | PublishError::Refused(_))
    }

    /// Whether it is surely not stored, and not on its way.
    pub(super) fn is_surely_unsent(&self) -> bool {
        !self.maybe_stored && self.sending.is_none()
    }
}

/// Waits for what becomes of sending the decision under way; for ever while there is none.
pub(super) async fn sent(in_flight: &mut Option<InFlight>) -> Outcome {
    match in_flight.as_mut().and_then(|in_flight| in_flight.sending.as_mut()) {
        Some(sending) => sending.await,
        None => std::future::pending().await,
    }
}
