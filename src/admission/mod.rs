//! Role: the gate. It decides who is let in, signs what they enter with, takes it back, and carries
//! out what operators order. Everything that it decides is first a fact in the log; what it says is
//! said from its own fold, after the fact came back to it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Mutex;

use crate::http::door::{self, Door};
use crate::ids;
use crate::log::connection::Log;
use crate::log::stream::{Limits, StreamError};
use crate::log::subjects::{self, QueueId};
use crate::shutdown::Shutdown;
use crate::telemetry;

mod answers;
mod beats;
mod command;
mod counts;
mod due;
mod gate;
mod handle;
mod in_flight;
mod keys;
mod operator;
mod ordered;
mod service;
pub mod signer;
mod turn;
mod worker;

use beats::Beats;
use handle::Handle;
use keys::{Keys, Signing};
use signer::Signer;

/// How often the list of queues is looked at, besides being told of new ones.
const QUEUES_EVERY: Duration = Duration::from_secs(5);
/// Until the log answers at all.
const FIRST_LOOK_EVERY: Duration = Duration::from_millis(200);
/// Connections on the operator listener; no more than these from one operator's machine either.
const OPERATOR_CONNECTIONS_MAX: usize = 256;

/// What the role needs besides the log.
pub struct Config {
    /// Signs tokens and passes.
    pub signer: Signer,
    /// The file that its keys are of, which is looked at again.
    pub signing_key_file: PathBuf,
    /// For how many seconds a new key is published before it signs.
    pub key_rest: u32,
    /// Keeps the secrets of new queues.
    pub installation: ids::InstallationKey,
    /// For the streams of new queues.
    pub limits: Limits,
    /// What an operator must present.
    pub operator_token: String,
    /// Where operators are listened to.
    pub operator: TcpListener,
}

/// The workers of all queues, shared by the gate and the operator API.
#[derive(Clone)]
struct Workers {
    log: Log,
    installation: Arc<ids::InstallationKey>,
    limits: Limits,
    signing: Signing,
    beats: Arc<Beats>,
    counts: telemetry::Counts,
    shutdown: Shutdown,
    queues: Arc<Mutex<BTreeMap<QueueId, Handle>>>,
}

/// Why there is no worker for a queue.
enum NoWorker {
    /// There is no such queue.
    UnknownQueue,
    /// Whether there is one can't be told now.
    LogUnavailable,
}

/// Runs admission for every queue until it is asked to stop.
pub async fn run(log: Log, config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    let id = ids::node();
    // There is no histogram here; bounds must be given all the same.
    let counts = telemetry::Counts::start("admission", &id.to_string(), &[1.0])?;
    counts::describe();
    counts::active(false);
    let (beats, mut reported) = Beats::listen(&log, id, &shutdown).await?;
    let workers = Workers {
        log: log.clone(),
        installation: Arc::new(config.installation),
        limits: config.limits,
        signing: Signing {
            keys: Keys::follow(config.signer, config.signing_key_file, &shutdown),
            rest: config.key_rest,
        },
        beats,
        counts,
        shutdown: shutdown.clone(),
        queues: Arc::default(),
    };
    gate::serve(&workers).await?;
    let router = operator::router(workers.clone(), config.operator_token);
    let door = Door::new(door::Limits {
        connections: OPERATOR_CONNECTIONS_MAX,
        sockets: 0,
        per_address: OPERATOR_CONNECTIONS_MAX,
        trusted_proxies: Vec::new(),
    });
    shutdown.spawn(crate::http::serve(
        config.operator,
        router,
        operator::BODY_BYTES_MAX,
        door,
        shutdown.clone(),
    ));
    let mut configured = log
        .listen(subjects::stored_configured())
        .await
        .ok_or_else(|| anyhow::anyhow!("the connection to NATS is closed"))?;
    let mut look = tokio::time::interval(FIRST_LOOK_EVERY);
    loop {
        tokio::select! {
            heard = configured.next() => match heard.map(|heard| subjects::queue_of_stored(&heard.subject)) {
                Some(Some(queue)) => drop(workers.start(&queue).await),
                Some(None) => {}
                None => return Ok(()),
            },
            _ = look.tick() => match log.queues().await {
                Ok(queues) => {
                    for queue in &queues {
                        drop(workers.start(queue).await);
                    }
                    workers.beats.listed();
                    look.reset_after(QUEUES_EVERY);
                }
                Err(error) => tracing::debug!(%error, "the list of queues is not to be had"),
            },
            Some((queue, milli)) = reported.recv() => {
                if let Some(worker) = workers.queues.lock().await.get(&queue) {
                    worker.load(milli);
                }
            }
            () = shutdown.stopped() => return Ok(()),
        }
    }
}

impl Workers {
    /// The worker of a queue, started now if it was not.
    async fn start(&self, queue: &QueueId) -> Handle {
        let mut queues = self.queues.lock().await;
        let handle = queues.entry(queue.clone()).or_insert_with(|| {
            tracing::info!(%queue, "admitting");
            self.beats.folds(queue);
            let (signing, beats) = (self.signing.clone(), Arc::clone(&self.beats));
            worker::start(&self.log, queue, signing, beats, &self.shutdown)
        });
        handle.clone()
    }

    /// The worker of a queue, if there is such a queue.
    async fn find(&self, queue: &QueueId) -> Result<Handle, NoWorker> {
        if let Some(handle) = self.queues.lock().await.get(queue) {
            return Ok(handle.clone());
        }
        match self.log.stream_info(queue).await {
            Ok(_) => Ok(self.start(queue).await),
            Err(StreamError::Missing) => Err(NoWorker::UnknownQueue),
            Err(StreamError::Away(_) | StreamError::Refused(_)) => Err(NoWorker::LogUnavailable),
        }
    }
}
