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
/// Names that wait to be looked up. A queue that was just made is told of by its first entry; this is for
/// one whose entry was missed, until the list is looked at.
const NAMES_WAITING_MAX: usize = 64;
/// Pause between two names: nobody who asks for names that there are not costs the log more than this.
const NAME_EVERY: Duration = Duration::from_millis(50);
/// How often it is said that this projector is there, and what it can read.
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// Until the log answers at all.
const FIRST_LOOK_EVERY: Duration = Duration::from_millis(200);

/// Runs the projector of every queue until it is asked to stop.
pub async fn run(log: Log, dir: PathBuf, shutdown: Shutdown) -> anyhow::Result<()> {
    let (to_names, names) = mpsc::channel(NAMES_WAITING_MAX);
    let (to_role, mut found) = mpsc::channel(NAMES_WAITING_MAX);
    shutdown.spawn(look_names_up(log.clone(), names, to_role, shutdown.clone()));
    let mut role = Role {
        log: log.clone(),
        dir,
        shutdown: shutdown.clone(),
        queues: BTreeMap::new(),
        to_names,
    };
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
            Some((queue, question)) = found.recv() => {
                role.start([queue]);
                role.question(question).await;
            }
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
    /// What is asked about queues that are not known.
    to_names: mpsc::Sender<(QueueId, Heard)>,
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
        match self.queues.get(&queue) {
            // When it is full the asker's time-out says so, and the asker asks again.
            Some(to_projector) => drop(to_projector.try_send(Question::new(heard))),
            None => {
                if let Err(full) = self.to_names.try_send((queue, heard)) {
                    let (_, heard) = full.into_inner();
                    self.refuse(&heard, Refusal::LogUnavailable).await;
                }
            }
        }
    }

    async fn refuse(&self, heard: &Heard, refusal: Refusal) {
        self.log.answer(heard, &Answer::<()>::No(refusal)).await;
    }
}

/// Looks up whether there are queues of names that are not known, one after another, beside all else.
async fn look_names_up(
    log: Log,
    mut names: mpsc::Receiver<(QueueId, Heard)>,
    to_role: mpsc::Sender<(QueueId, Heard)>,
    shutdown: Shutdown,
) {
    loop {
        let asked = tokio::select! {
            asked = names.recv() => asked,
            () = shutdown.stopped() => return,
        };
        let Some((queue, heard)) = asked else { return };
        let refusal = match log.stream_info(&queue).await {
            Ok(_) => {
                // The asker asks again where this finds no room.
                let _ = to_role.try_send((queue, heard));
                continue;
            }
            Err(StreamError::Missing) => Refusal::UnknownQueue,
            Err(StreamError::Away(_) | StreamError::Refused(_)) => Refusal::LogUnavailable,
        };
        log.answer(&heard, &Answer::<()>::No(refusal)).await;
        tokio::time::sleep(NAME_EVERY).await;
    }
}
