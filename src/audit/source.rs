//! Where the entries come from: the stream, by an identity that may only read, or a file that was
//! exported from it.

use std::path::{Path, PathBuf};

use tokio::sync::mpsc;

use crate::audit::export::{ExportError, ExportReader};
use crate::clock;
use crate::log::connection::Log;
use crate::log::record::{Halt, Record};
use crate::log::stream::StreamError;
use crate::log::subjects::QueueId;
use crate::log::tail::{self, AWAY_MAX, Heard};
use crate::queue::event::{Level, Seq};
use crate::shutdown::Shutdown;

/// Entries of a file that are read at once, and bytes after which it is enough.
const LINES_AT_ONCE: usize = 1_000;
const BYTES_AT_ONCE: usize = 8 * 1024 * 1024;

/// The entries of one queue's log, from the first on, up to the end that it has when it is opened.
pub struct Source {
    queue: QueueId,
    from: From,
    newest: Level,
    next: Seq,
    until: Seq,
    /// What is wrong with what comes after the entries that were given out.
    fault: Option<SourceError>,
}

enum From {
    Stream { tail: mpsc::Receiver<Heard>, shutdown: Shutdown },
    File(ExportReader),
}

/// Why the entries can't be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is no such queue.
    #[error("there is no queue {0}")]
    UnknownQueue(QueueId),
    /// The log can't be reached.
    #[error("the log can't be reached")]
    Away,
    /// The log can't be read to its end.
    #[error(transparent)]
    Halted(#[from] Halt),
    /// The file is no export.
    #[error("{}: {why}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        why: ExportError,
    },
}

impl Source {
    /// The stream of a queue, from `next` on, up to its present end or to `until`.
    pub async fn stream(
        log: &Log,
        queue: &QueueId,
        next: Seq,
        until: Option<Seq>,
    ) -> Result<Self, SourceError> {
        let info = match log.stream_info(queue).await {
            Ok(info) => info,
            Err(StreamError::Missing) => return Err(SourceError::UnknownQueue(queue.clone())),
            Err(StreamError::Away(_) | StreamError::Refused(_)) => return Err(SourceError::Away),
        };
        let shutdown = Shutdown::default();
        let tail = tail::follow(log, queue, next, Some(info.created), &shutdown);
        let until = until.map_or(info.last, |until| until.min(info.last));
        let from = From::Stream { tail, shutdown };
        let newest = log.newest();
        Ok(Self { queue: queue.clone(), from, newest, next, until, fault: None })
    }

    /// A file that was exported, to its end or to `until`, for a program that knows levels of a log up
    /// to `newest`.
    pub fn file(
        file: &Path,
        queue: &QueueId,
        newest: Level,
        until: Option<Seq>,
    ) -> Result<Self, SourceError> {
        let opened = ExportReader::open(file);
        let reader = opened.map_err(|why| SourceError::File { file: file.to_owned(), why })?;
        let until = until.unwrap_or(Seq(u64::MAX));
        let from = From::File(reader);
        Ok(Self { queue: queue.clone(), from, newest, next: Seq(1), until, fault: None })
    }

    /// Whose log it is.
    pub fn queue(&self) -> &QueueId {
        &self.queue
    }

    /// The highest level of a log that this program knows.
    pub fn newest(&self) -> Level {
        self.newest
    }

    /// The last entry that will come, as far as that is known.
    pub fn until(&self) -> Seq {
        self.until
    }

    /// The next entries, in order and without a gap; none at the end.
    pub async fn next(&mut self) -> Result<Vec<Record>, SourceError> {
        if self.next > self.until {
            return Ok(Vec::new());
        }
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let mut records = match &mut self.from {
            From::Stream { tail, .. } => heard(tail).await?,
            From::File(reader) => {
                let (records, fault) = read(reader, &self.queue);
                self.fault = fault;
                records
            }
        };
        // What is good is given out before what is wrong after it.
        let in_order = records.iter().zip(self.next.0..).take_while(|(r, seq)| r.seq.0 == *seq);
        let in_order = in_order.count();
        if let Some(beyond) = records.get(in_order) {
            let expected = Seq(self.next.0 + in_order as u64);
            self.fault = Some(Halt::Gap { expected, found: beyond.seq }.into());
        }
        records.truncate(in_order);
        self.next = Seq(self.next.0 + in_order as u64);
        records.retain(|record| record.seq <= self.until);
        if records.is_empty() && self.next <= self.until {
            return self.fault.take().map_or(Ok(records), Err);
        }
        Ok(records)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let From::Stream { shutdown, .. } = &self.from {
            shutdown.stop();
        }
    }
}

async fn heard(tail: &mut mpsc::Receiver<Heard>) -> Result<Vec<Record>, SourceError> {
    loop {
        match tail.recv().await {
            Some(Heard::Records(records)) => return Ok(records),
            Some(Heard::Info(_)) => {}
            Some(Heard::Away(since)) if clock::monotonic().duration_since(since) < AWAY_MAX => {}
            Some(Heard::Halt(halt)) => return Err(halt.into()),
            Some(Heard::Away(_)) | None => return Err(SourceError::Away),
        }
    }
}

/// The next entries of a file, and what is wrong with the line after them.
fn read(reader: &mut ExportReader, queue: &QueueId) -> (Vec<Record>, Option<SourceError>) {
    let mut records = Vec::new();
    let mut bytes = 0;
    while records.len() < LINES_AT_ONCE && bytes < BYTES_AT_ONCE {
        match reader.next(queue) {
            Ok(Some(record)) => {
                bytes += record.payload.len();
                records.push(record);
            }
            Ok(None) => break,
            Err(why) => {
                return (records, Some(SourceError::File { file: reader.file().to_owned(), why }));
            }
        }
    }
    (records, None)
}
