//! Role: the projector. It folds the log of every queue, tells all nodes what moved, answers where
//! a visitor stands, and keeps a checkpoint behind all that so that a restart is quick.
//!
//! It writes nothing into the log. Any number of projectors may run; each is right by itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::ids;
use crate::log::connection::Log;
use crate::log::stream::StreamError;
use crate::log::subjects::{self, QueueId};
use crate::log::talk::{Heard, Listener};
use crate::shutdown::Shutdown;
use crate::wire::ask::{Answer, Refusal};
use crate::wire::{self, beat::Beat};

mod answers;
mod catch_up;
mod checkpoint;
mod delta;
mod fold;
mod keeper;
mod key;
mod projector;
pub mod rebuild;
mod store;

use answers::Question;
use projector::{Ended, Projector, store_dir};

/// Questions that wait for one queue's projector; beyond it the asker hears nothing and asks again.
const QUESTIONS_WAITING_MAX: usize = 1_024;
/// How often the list of queues is looked at, besides being told of new ones.
const QUEUES_EVERY: Duration = Duration::from_secs(5);
/// How often it is said that this projector is there, and what it can read.
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// Until the log answers at all.
const FIRST_LOOK_EVERY: Duration = Duration::from_millis(200);

/// Runs the projector of every queue until it is asked to stop.
pub async fn run(log: Log, dir: PathBuf, shutdown: Shutdown) -> anyhow::Result<()> {
    let mut role =
        Role { log: log.clone(), dir, shutdown: shutdown.clone(), queues: BTreeMap::new() };
    let mut questions = listen(&log, subjects::ask_all()).await?;
    let mut rebuilds = listen(&log, subjects::rebuild_all()).await?;
    let mut configured = listen(&log, subjects::stored_configured()).await?;
    let mut look = tokio::time::interval(FIRST_LOOK_EVERY);
    let beat = subjects::beat("projector", &ids::node().to_string());
    let mut pulse = tokio::time::interval(BEAT_EVERY);
    loop {
        tokio::select! {
            heard = questions.next() => match heard {
                Some(question) => role.question(question).await,
                None => return Ok(()),
            },
            heard = rebuilds.next() => match heard {
                Some(question) => role.rebuild(question).await,
                None => return Ok(()),
            },
            heard = configured.next() => match heard {
                Some(heard) => role.start(subjects::queue_of_stored(&heard.subject)),
                None => return Ok(()),
            },
            _ = look.tick() => match log.queues().await {
                Ok(queues) => {
                    role.start(queues);
                    look.reset_after(QUEUES_EVERY);
                }
                Err(error) => tracing::debug!(%error, "the list of queues is not to be had"),
            },
            _ = pulse.tick() => {
                log.say(beat.clone(), wire::beat::write(&Beat::of(log.newest()))).await;
            }
            () = shutdown.stopped() => {
                // Dropping the projectors' question channels lets them write a last checkpoint.
                role.queues.clear();
                return Ok(());
            }
        }
    }
}

async fn listen(log: &Log, subject: String) -> anyhow::Result<Listener> {
    log.listen(subject).await.ok_or_else(|| anyhow::anyhow!("the connection to NATS is closed"))
}

struct Role {
    log: Log,
    dir: PathBuf,
    shutdown: Shutdown,
    queues: BTreeMap<QueueId, mpsc::Sender<Question>>,
}

impl Role {
    fn start(&mut self, queues: impl IntoIterator<Item = QueueId>) {
        for queue in queues {
            if self.queues.contains_key(&queue) {
                continue;
            }
            let (to_projector, mut questions) = mpsc::channel(QUESTIONS_WAITING_MAX);
            let (log, dir) = (self.log.clone(), store_dir(&self.dir, &queue));
            let (name, to_self) = (queue.clone(), to_projector.downgrade());
            let shutdown = self.shutdown.clone();
            self.shutdown.spawn(async move {
                loop {
                    let projector = Projector::new(&log, &name, dir.clone(), to_self.clone());
                    match projector.run(&mut questions, &shutdown).await {
                        Ended::Stopped => return,
                        Ended::Rebuild => tracing::info!(queue = %name, "beginning anew"),
                    }
                }
            });
            self.queues.insert(queue, to_projector);
        }
    }

    async fn rebuild(&self, heard: Heard) {
        let queue = subjects::queue_of_rebuild(&heard.subject);
        match queue.and_then(|queue| self.queues.get(&queue)) {
            // When it is full the asker's time-out says so.
            Some(to_projector) => drop(to_projector.try_send(Question::new(heard))),
            None => self.refuse(&heard, Refusal::UnknownQueue).await,
        }
    }

    async fn question(&mut self, heard: Heard) {
        let Some((queue, _)) = subjects::question(&heard.subject) else { return };
        if !self.queues.contains_key(&queue) {
            match self.log.stream_info(&queue).await {
                Ok(_) => self.start([queue.clone()]),
                Err(StreamError::Missing) => {
                    return self.refuse(&heard, Refusal::UnknownQueue).await;
                }
                Err(StreamError::Away(_) | StreamError::Refused(_)) => {
                    return self.refuse(&heard, Refusal::LogUnavailable).await;
                }
            }
        }
        if let Some(to_projector) = self.queues.get(&queue) {
            // When it is full the asker's time-out says so, and the asker asks again.
            let _ = to_projector.try_send(Question::new(heard));
        }
    }

    async fn refuse(&self, heard: &Heard, refusal: Refusal) {
        self.log.answer(heard, &Answer::<()>::No(refusal)).await;
    }
}
