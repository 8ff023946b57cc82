//! A store looked at, or made anew from the log, when no projector runs.

use std::path::Path;
use std::time::Duration;

use crate::clock;
use crate::log::connection::Log;
use crate::log::record::Halt;
use crate::log::stream::StreamError;
use crate::log::subjects::QueueId;
use crate::log::tail::{self, AWAY_MAX, Heard};
use crate::projection::fold::Fold;
use crate::projection::projector::store_dir;
use crate::projection::store::{self, Store, StoreError};
use crate::queue::digest::{Chain, digest, hex};
use crate::queue::event::Seq;
use crate::queue::line::Line;
use crate::shutdown::Shutdown;

/// What a store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The last entry.
    pub sequence: u64,
    /// Everyone who ever had a place.
    pub visitors: usize,
    /// Of the state, hexadecimal.
    pub digest: String,
    /// Of the log, hexadecimal.
    pub chain: String,
}

/// Why a store could not be looked at or made.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// There is no such queue.
    #[error("there is no queue {0}")]
    UnknownQueue(QueueId),
    /// The log can't be reached.
    #[error("the log can't be reached")]
    Away,
    /// The log can't be read to its end.
    #[error(transparent)]
    Halted(#[from] Halt),
    /// The store can't be read or written.
    #[error("{0}")]
    Store(String),
}

/// Looks at a store that nobody has open, and checks every value of it. Changes nothing.
pub fn look(dir: &Path, queue: &QueueId) -> Result<Kept, RebuildError> {
    let restored = store::read(&store_dir(dir, queue)).map_err(store_error)?;
    Ok(kept(&restored.line, hex(&restored.chain.0)))
}

/// Folds the whole log into a new store. What was there is moved aside. `tell` hears how far it is:
/// the last entry folded, and the log's end.
pub async fn rebuild(
    log: &Log,
    dir: &Path,
    queue: &QueueId,
    mut tell: impl FnMut(u64, u64),
) -> Result<Kept, RebuildError> {
    const TELL_EVERY: Duration = Duration::from_secs(2);
    let info = match log.stream_info(queue).await {
        Ok(info) => info,
        Err(StreamError::Missing) => return Err(RebuildError::UnknownQueue(queue.clone())),
        Err(StreamError::Away(_) | StreamError::Refused(_)) => return Err(RebuildError::Away),
    };
    let store = Store::begin_anew(&store_dir(dir, queue)).map_err(store_error)?;
    let shutdown = Shutdown::default();
    let tail = tail::follow(log, queue, Seq(1), Some(info.created), &shutdown);
    let mut tail = tail::decode(tail, queue, Chain::default(), log.newest(), &shutdown);
    let mut fold = Fold::new(queue.clone(), log.newest());
    let mut told = clock::monotonic();
    while fold.line().seq() < info.last {
        match tail.recv().await {
            Some(Heard::Records(entries)) => {
                entries.iter().try_for_each(|entry| fold.apply(entry).map(drop))?;
            }
            Some(Heard::Info(_)) => {}
            Some(Heard::Away(since)) if clock::monotonic().duration_since(since) < AWAY_MAX => {}
            Some(Heard::Halt(halt)) => return Err(halt.into()),
            Some(Heard::Away(_)) | None => return Err(RebuildError::Away),
        }
        if clock::monotonic().duration_since(told) > TELL_EVERY {
            told = clock::monotonic();
            tell(fold.line().seq().0, info.last.0);
        }
    }
    shutdown.stop();
    tokio::task::block_in_place(|| {
        store.write(&fold, info.created);
        // While the store writes it.
        let kept = kept(fold.line(), hex(&fold.chain().0));
        store.close().map_err(RebuildError::Store)?;
        Ok(kept)
    })
}

fn kept(line: &Line, chain: String) -> Kept {
    Kept {
        sequence: line.seq().0,
        visitors: line.places().len(),
        digest: hex(&digest(line)),
        chain,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "handed to map_err")]
fn store_error(error: StoreError) -> RebuildError {
    RebuildError::Store(error.to_string())
}
