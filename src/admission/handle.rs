//! How a worker is reached, and what it is asked.

use tokio::sync::{mpsc, oneshot};

use crate::admission::command::{Done, Refused, What};
use crate::admission::signer::Session;
use crate::queue::event::{At, Level, PublicKey, State, VisitorId};
use crate::queue::policy::Policy;
use crate::wire::ask::Minted;

/// A way to reach a worker. Cheap to clone.
#[derive(Clone)]
pub(super) struct Handle(pub(super) mpsc::Sender<Ask>);

/// What a worker is asked.
pub(super) enum Ask {
    Command(What),
    Redeem { token: String, key: Option<[u8; 32]>, until: At, done: Done<Session> },
    Renew { pass: String, done: Done<Renewable> },
    Load { milli: u16 },
    Mint { visitors: Vec<VisitorId>, done: oneshot::Sender<Tokens> },
    Show { done: oneshot::Sender<Shown> },
}

/// A session that goes on.
pub(super) struct Renewable {
    pub(super) session: Session,
    /// The log's time.
    pub(super) now: At,
    /// The key that signs now.
    pub(super) kid: String,
}

/// The tokens of visitors, in the order of the question.
pub(super) struct Tokens {
    /// None for one who has no grant to be used.
    pub(super) minted: Vec<Option<Minted>>,
    /// Somebody is still in line by this fold: whoever asked has read further in the log.
    pub(super) is_behind: bool,
}

/// What operators see of a queue.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) configured: bool,
    pub(super) halted: Option<String>,
    /// Why not everything is decided now.
    pub(super) unready: Option<String>,
    /// The log's time.
    pub(super) now: At,
    /// People a minute, in force.
    pub(super) rate: u32,
    /// Whether the rate follows the site's load.
    pub(super) follows: bool,
    pub(super) policy: Policy,
    /// The public keys, as the log has them.
    pub(super) keys: Vec<PublicKey>,
    /// The one that signs now.
    pub(super) signs: String,
    pub(super) state: State,
    pub(super) reason: Option<String>,
    pub(super) level: Level,
    pub(super) sequence: u64,
    pub(super) waiting: u32,
    pub(super) present: u32,
    pub(super) unused: usize,
    pub(super) inside: usize,
    pub(super) visitors: usize,
    /// Bytes that its log holds, and that it may hold: so much is reserved on each server that has a copy.
    pub(super) log_bytes: Option<(u64, u64)>,
    pub(super) admitted: usize,
}

impl Handle {
    /// Uses a token. `key` is the digest of the request's idempotency key; after `until`, by the
    /// log's time, nobody waits for the answer.
    pub(super) async fn redeem(
        &self,
        token: String,
        key: Option<[u8; 32]>,
        until: At,
    ) -> Result<Session, Refused> {
        self.ask(|done| Ask::Redeem { token, key, until, done }).await
    }

    /// The session of a pass that may be renewed.
    pub(super) async fn renew(&self, pass: String) -> Result<Renewable, Refused> {
        self.ask(|done| Ask::Renew { pass, done }).await
    }

    /// Has something written, and comes back when it is folded.
    pub(super) async fn command<T>(
        &self,
        command: impl FnOnce(Done<T>) -> What,
    ) -> Result<T, Refused> {
        self.ask(|done| Ask::Command(command(done))).await
    }

    /// The tokens of those of these visitors who have an unused grant.
    pub(super) async fn mint(&self, visitors: Vec<VisitorId>) -> Option<Tokens> {
        let (done, minted) = oneshot::channel();
        self.0.try_send(Ask::Mint { visitors, done }).ok()?;
        minted.await.ok()
    }

    /// The site has reported its load. One that finds no room is left out: newer ones follow.
    pub(super) fn load(&self, milli: u16) {
        if self.0.try_send(Ask::Load { milli }).is_err() {
            tracing::warn!("a load was left out");
        }
    }

    /// What operators see.
    pub(super) async fn show(&self) -> Option<Shown> {
        let (done, shown) = oneshot::channel();
        self.0.try_send(Ask::Show { done }).ok()?;
        shown.await.ok()
    }

    async fn ask<T>(&self, ask: impl FnOnce(Done<T>) -> Ask) -> Result<T, Refused> {
        let (done, answer) = oneshot::channel();
        self.0.try_send(ask(done)).map_err(|_| Refused::Unavailable)?;
        answer.await.unwrap_or(Err(Refused::Unavailable))
    }
}
