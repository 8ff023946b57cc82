//! The one decision of a queue that is under way: what is known of it until it comes back.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use crate::admission::command::Command;
use crate::admission::service::outage_of;
use crate::clock;
use crate::log::connection::Log;
use crate::log::publish::{PublishError, Stored};
use crate::log::subjects::QueueId;
use crate::queue::event::{Decision, Level, Millis, Seq};

/// Pause before a decision is tried again after the log failed.
pub(super) const RETRY_WAIT: Duration = Duration::from_millis(200);
/// The log said that this one or another is stored, and the tail has brought neither for so long: what was
/// under way may have come to nothing with a leader, and it is sent again. The fence lets in only one.
const UNSEEN_MAX: Duration = Duration::from_secs(1);

/// What became of sending a decision.
pub(super) type Outcome = Result<Stored, PublishError>;
type Sending = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// A decision under way.
pub(super) struct InFlight {
    pub(super) decision: Decision,
    /// Who waits for it.
    pub(super) commands: Vec<Command>,
    sending: Option<Sending>,
    /// When it is sent again, unless the tail has brought something before.
    again_at: Option<Instant>,
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
            again_at: None,
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
        self.again_at = None;
        let (log, queue, decision) = (log.clone(), queue.clone(), self.decision.clone());
        self.sending =
            Some(Box::pin(async move { log.append_fenced(&queue, &decision, version).await }));
    }

    /// Whether it was sent and nothing was heard of it yet.
    pub(super) fn is_sending(&self) -> bool {
        self.sending.is_some()
    }

    /// Whether it is to be sent again, when nothing has come of it.
    pub(super) fn is_due_again(&self) -> bool {
        self.again_at.is_some_and(|again_at| again_at <= clock::monotonic())
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

    /// Notes what became of sending it. It is sent again after a pause, where nothing has come of it by then.
    pub(super) fn note(&mut self, outcome: &Outcome) {
        self.sending = None;
        let pause = match outcome {
            // The tail brings it back, ours or the one that was first.
            Ok(_) | Err(PublishError::FenceLost) => {
                self.maybe_stored = true;
                UNSEEN_MAX
            }
            Err(PublishError::Unknown) => {
                self.maybe_stored = true;
                RETRY_WAIT
            }
            Err(PublishError::Away | PublishError::Full | PublishError::Refused(_)) => RETRY_WAIT,
        };
        self.again_at = Some(clock::monotonic() + pause);
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
