//! What one message of the log says, and whether a reader may go on behind it.

use bytes::Bytes;

use crate::log::subjects::{self, QueueId};
use crate::queue::digest::Chain;
use crate::queue::event::{At, Entry, Level, Seq};
use crate::queue::line::Line;
use crate::wire;
use crate::wire::event::Read;

/// One message of the log, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where.
    pub seq: Seq,
    /// When it was stored.
    pub stored: At,
    /// Its subject.
    pub subject: String,
    /// Its bytes.
    pub payload: Bytes,
}

impl Record {
    /// What it says to a reader who knows levels up to `newest`. A log that begins with version 1 halts
    /// every reader.
    pub fn read(&self, queue: &QueueId, newest: Level) -> Result<Written, Halt> {
        let subject = subjects::writer_and_kind(queue, &self.subject).unwrap_or_default();
        if self.seq == Seq(1) && wire::event::is_of_version_1(subject, &self.payload) {
            return Err(Halt::Version1);
        }
        Ok(match wire::event::read(subject, &self.payload, newest) {
            Read::Entry(version, entry) => Written { version, entry, why: None },
            Read::Void { fenced, why } => {
                let version = Level::FIRST;
                Written { version, entry: Entry::Void { fenced }, why: Some(why) }
            }
        })
    }
}

/// What an entry says, before it is known whether the log's level allows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    version: Level,
    entry: Entry,
    /// Of a void entry, what is wrong with it.
    why: Option<String>,
}

impl From<Entry> for Written {
    /// An entry that is valid at every level.
    fn from(entry: Entry) -> Self {
        Self { version: Level::FIRST, entry, why: None }
    }
}

impl Written {
    /// What is folded of it by a reader of this line who knows levels up to `newest`, and why it is void, if it
    /// is. An entry that raises the log to a level beyond that halts them.
    pub fn next_of(
        &self,
        line: &Line,
        seq: Seq,
        newest: Level,
    ) -> Result<(&Entry, Option<String>), Halt> {
        let (entry, why) = self.at_level(line.level());
        match line.raised_by(entry).filter(|level| *level > newest) {
            Some(level) => Err(Halt::Level { seq, level }),
            None => Ok((entry, why)),
        }
    }

    /// What is folded of it where the log is at this level: an entry of a higher version is void.
    pub fn at_level(&self, level: Level) -> (&Entry, Option<String>) {
        if self.version <= level {
            return (&self.entry, self.why.clone());
        }
        let why = format!("its version, {}, is above the log's level, {level}", self.version);
        let void = match &self.entry {
            Entry::Decided(_) => &Entry::Void { fenced: true },
            Entry::Joined(_)
            | Entry::Reconnected(_)
            | Entry::Disconnected(_)
            | Entry::Left(_)
            | Entry::Void { .. } => &Entry::Void { fenced: false },
        };
        (void, Some(why))
    }
}

/// What the fold applies of a record, and the chain with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Where it is.
    pub seq: Seq,
    /// When it was stored.
    pub stored: At,
    /// The chain from the first entry up to this one.
    pub chain: Chain,
    /// What it says.
    pub written: Written,
}

/// Why a reader must not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// Entries are missing.
    #[error("entry {} is missing; the next one there is {}", .expected.0, .found.0)]
    Gap {
        /// The one that should come.
        expected: Seq,
        /// The one that came.
        found: Seq,
    },
    /// It is another stream than the one that was read before, or has lost its end.
    #[error("this is not the stream that was read before")]
    OtherStream,
    /// An entry raises the log to a level that this program does not know.
    #[error("entry {} raises the log to level {level}, which this program can't read: upgrade it", .seq.0)]
    Level {
        /// The entry.
        seq: Seq,
        /// The level.
        level: Level,
    },
    /// The log is from before the first release.
    #[error(
        "this log is of version 1, from before the first release, which nothing reads any more: \
         begin with a new queue, or a new folder"
    )]
    Version1,
}

impl Halt {
    /// Whether the reason can pass without another program or another log: what a server said may have been
    /// less than what the log holds.
    pub fn can_pass(&self) -> bool {
        match self {
            Self::Gap { .. } | Self::OtherStream => true,
            Self::Level { .. } | Self::Version1 => false,
        }
    }
}

/// Decodes records up to one behind which no reader may go on, and goes on with the chain.
pub(super) fn decode_all(
    records: &[Record],
    queue: &QueueId,
    newest: Level,
    chain: &mut Chain,
) -> (Vec<Decoded>, Option<Halt>) {
    let mut decoded = Vec::with_capacity(records.len());
    for record in records {
        let written = match record.read(queue, newest) {
            Ok(written) => written,
            Err(halt) => return (decoded, Some(halt)),
        };
        *chain = chain.then(record.seq, record.stored, &record.subject, &record.payload);
        let (seq, stored) = (record.seq, record.stored);
        decoded.push(Decoded { seq, stored, chain: *chain, written });
    }
    (decoded, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(seq: u64, subject: &str, payload: &'static str) -> Record {
        let subject = format!("anteroom.log.demo.{subject}");
        Record { seq: Seq(seq), stored: At(0), subject, payload: payload.into() }
    }

    fn queue() -> QueueId {
        QueueId::parse("demo").unwrap()
    }

    #[test]
    fn an_entry_above_the_logs_level_is_void_whoever_reads_it() {
        let facts = r#""facts":[{"visitor":"11111111-1111-1111-1111-111111111111"}]"#;
        let payload: &'static str = format!(r#"{{"v":3,{facts}}}"#).leak();
        let record = record(2, "node.left", payload);
        for newest in [Level::FIRST, Level::FIRST.next()] {
            let written = record.read(&queue(), newest).unwrap();
            let (entry, why) = written.at_level(Level::FIRST);
            assert_eq!(*entry, Entry::Void { fenced: false });
            assert!(why.unwrap().contains("version"), "it is named");
        }
        let written = record.read(&queue(), Level::FIRST.next()).unwrap();
        assert!(matches!(written.at_level(Level::FIRST.next()), (Entry::Left(_), None)));
    }

    #[test]
    fn a_log_of_version_1_is_refused_and_nothing_behind_it_is_decoded() {
        let records =
            [record(1, "admission.configured", r#"{"v":1}"#), record(2, "node.left", "{}")];
        let mut chain = Chain::default();
        let (decoded, halt) = decode_all(&records, &queue(), Level::NEWEST, &mut chain);
        assert_eq!((decoded, halt), (vec![], Some(Halt::Version1)));
        // A node can't have one refused.
        assert!(record(1, "node.left", r#"{"v":1}"#).read(&queue(), Level::NEWEST).is_ok());
    }
}
