//! When the line is written into its store, and what happens when that fails: the line in memory is
//! right whatever becomes of the store.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::clock;
use crate::log::subjects::QueueId;
use crate::projection::checkpoint::Restored;
use crate::projection::fold::Fold;
use crate::projection::store::{Opened, Store, StoreError};
use crate::queue::event::At;

/// Between two checkpoints, at least: what a restart folds again.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// Making a checkpoint takes at most this part of the projector's time: with a million people and
/// all of them moving it takes a tenth of a second or two, for which the feed waits.
const CHECKPOINT_SHARE: u32 = 50;
/// Far from the log's end a checkpoint is only worth its time after so many moves, or after twice as
/// many as there are places: each rewrites up to all of them.
const FAR_MOVES: usize = 4_000_000;
/// A store that failed is tried again after this.
const STORE_RETRY: Duration = Duration::from_secs(10);
/// As the system words it; sled hands it on as text.
const NO_SPACE: &str = "No space left on device";
/// For how long a predecessor may take to close the store.
const HELD_WAIT_MAX: Duration = Duration::from_secs(3);
const HELD_ASK_EVERY: Duration = Duration::from_millis(50);

pub(super) struct Keeper {
    queue: QueueId,
    dir: PathBuf,
    store: Option<Store>,
    /// Whether the last failure was for want of room.
    is_disk_full: bool,
    /// When the next checkpoint, or the next attempt to have a store, may begin.
    due: Instant,
}

impl Keeper {
    pub(super) fn new(queue: QueueId, dir: PathBuf) -> Self {
        Self { queue, dir, store: None, is_disk_full: false, due: clock::monotonic() }
    }

    /// Opens the store and reads what it kept. Without a store the log is folded all the same.
    pub(super) async fn open(&mut self) -> Option<Restored> {
        let until = clock::monotonic() + HELD_WAIT_MAX;
        loop {
            let dir = self.dir.clone();
            let opened = tokio::task::spawn_blocking(move || Store::open(&dir)).await;
            match opened.map_err(|error| StoreError::Damaged(error.to_string())) {
                Ok(Ok(Opened { store, restored, damage })) => {
                    if let Some(why) = damage {
                        let dir = self.dir.display();
                        tracing::warn!(queue = %self.queue, %dir, why, "the store is damaged and moved aside; rebuilding from the log");
                    }
                    self.store = Some(store);
                    return restored;
                }
                Ok(Err(StoreError::Held)) if clock::monotonic() < until => {
                    tokio::time::sleep(HELD_ASK_EVERY).await;
                }
                Ok(Err(error)) | Err(error) => {
                    self.failed(&error.to_string());
                    return None;
                }
            }
        }
    }

    /// Whether so much is not kept that it is worth a checkpoint even far from the log's end.
    pub(super) fn is_far(&self, fold: &Fold) -> bool {
        fold.moves() > FAR_MOVES.max(2 * fold.line().places().len())
    }

    /// Writes what is not kept yet, if it is time.
    pub(super) fn keep(&mut self, fold: &mut Fold, stream: At) {
        let begun = clock::monotonic();
        if begun < self.due || !fold.is_ahead() {
            return;
        }
        if let Some(why) = self.store.as_ref().and_then(Store::failure).map(str::to_owned) {
            self.store = None;
            return self.failed(&why);
        }
        if self.store.is_none() {
            let begun = if self.is_disk_full {
                Store::begin_anew_in_its_room(&self.dir)
            } else {
                Store::begin_anew(&self.dir)
            };
            match begun {
                Ok(store) => {
                    tracing::info!(queue = %self.queue, "the store is written anew");
                    self.store = Some(store);
                    fold.lost();
                }
                Err(error) => return self.failed(&error.to_string()),
            }
        }
        let Some(store) = &self.store else { return };
        if store.try_write(fold.checkpoint(stream)) {
            fold.kept();
        }
        let now = clock::monotonic();
        let share = now.duration_since(begun) * CHECKPOINT_SHARE;
        self.due = now + share.max(CHECKPOINT_EVERY);
    }

    /// Writes all that is not kept yet and closes the store; `None` keeps nothing more, and `anew`
    /// leaves nothing to go on from.
    pub(super) fn close(mut self, fold: &Fold, stream: Option<At>, anew: bool) {
        if let Some(store) = self.store.take() {
            self.close_store(store, fold, stream);
        }
        if anew {
            let emptied = Store::begin_anew(&self.dir).and_then(|store| {
                store.close().map_err(|why| StoreError::Disk(std::io::Error::other(why)))
            });
            if let Err(error) = emptied {
                tracing::error!(queue = %self.queue, %error, "the store can't be emptied");
            }
        }
    }

    fn close_store(&self, store: Store, fold: &Fold, stream: Option<At>) {
        let closed = tokio::task::block_in_place(|| {
            if let Some(stream) = stream.filter(|_| fold.is_ahead()) {
                store.write(fold, stream);
            }
            store.close()
        });
        if let Err(why) = closed {
            tracing::error!(queue = %self.queue, why, "the last checkpoint is not written");
        }
    }

    fn failed(&mut self, why: &str) {
        let retry_seconds = STORE_RETRY.as_secs();
        tracing::error!(queue = %self.queue, why, retry_seconds, "no store for now; going on without");
        self.is_disk_full = why.contains(NO_SPACE);
        self.due = clock::monotonic() + STORE_RETRY;
    }
}
