//! Reads a log to its end and judges it: was anyone overtaken, admitted twice or too early, was a
//! token used twice, did anyone lose a place too soon?

use crate::audit::reading::{Reading, Step};
use crate::audit::source::{Source, SourceError};
use crate::log::record::{Halt, Record};
use crate::log::subjects::QueueId;
use crate::queue::digest::{Chain, hex};
use crate::queue::event::{Level, Seq};

/// Findings of one kind that are kept; beyond it they are only counted. A log that is wrong from end
/// to end must not fill the memory of the one who says so.
const FINDINGS_MAX: usize = 10_000;

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// The last entry read.
    pub sequence: u64,
    /// Entries read.
    pub entries: u64,
    /// The level that the log has come to.
    pub level: u16,
    /// Visitors who ever had a place.
    pub visitors: usize,
    /// Visitors who wait at the end.
    pub waiting: usize,
    /// Visitors who were let in.
    pub admitted: usize,
    /// Grants that were used.
    pub redeemed: usize,
    /// Of the state at the end.
    pub digest: String,
    /// Of the log.
    pub chain: String,
    /// Where a promise was broken.
    pub violations: Findings,
    /// What counts nowhere, and why.
    pub void: Findings,
    /// What is worth knowing though nothing is wrong with it: how the log's time was moved and its level
    /// raised, who missed their turn, and seats that yielded to a newer one.
    pub notes: Findings,
}

/// Something worth saying of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The entry.
    pub seq: u64,
    /// Which of its facts, counted from 0; none for the whole entry.
    pub fact: Option<usize>,
    /// What is to be said.
    pub what: String,
}

/// Findings in the order of the log.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// The first of them.
    pub list: Vec<Finding>,
    /// How many there are.
    pub count: usize,
}

impl Verdict {
    /// Whether every promise was kept.
    pub fn ok(&self) -> bool {
        self.violations.count == 0
    }
}

impl Findings {
    fn add(&mut self, finding: Finding) {
        self.count += 1;
        if self.list.len() < FINDINGS_MAX {
            self.list.push(finding);
        }
    }
}

/// Reads to the source's end. A log that can't be read to its end is judged up to there, and that it
/// can't is the last of the violations.
pub async fn verify(mut source: Source) -> Result<Verdict, SourceError> {
    let mut reader = Reader::new(source.newest());
    let queue = source.queue().clone();
    let until = source.until();
    let halt = loop {
        match source.next().await {
            Ok(records) if records.is_empty() => {
                let short = until < Seq(u64::MAX) && reader.reading.seq < until.0;
                break short.then(|| format!("it ends before entry {}", until.0));
            }
            Ok(records) => {
                let read = records.iter().try_for_each(|record| reader.read(&queue, record));
                match read {
                    // There is nothing in it that could be judged.
                    Err(halt @ Halt::Version1) => return Err(halt.into()),
                    Err(halt) => break Some(halt.to_string()),
                    Ok(()) => {}
                }
            }
            Err(error @ (SourceError::Halted(_) | SourceError::File { .. })) => {
                break Some(error.to_string());
            }
            Err(error) => return Err(error),
        }
    };
    Ok(reader.verdict(halt))
}

/// Reads and judges entries that are at hand, by rules of levels up to `newest`: as [`verify`] does; a
/// log of version 1 is a verdict here, too.
pub fn verify_records<'a>(
    queue: &QueueId,
    newest: Level,
    records: impl IntoIterator<Item = &'a Record>,
) -> Verdict {
    let mut reader = Reader::new(newest);
    let halt = records.into_iter().try_for_each(|record| reader.read(queue, record)).err();
    reader.verdict(halt.map(|halt| halt.to_string()))
}

struct Reader {
    newest: Level,
    reading: Reading,
    chain: Chain,
    violations: Findings,
    void: Findings,
    notes: Findings,
}

impl Reader {
    fn new(newest: Level) -> Self {
        Self {
            newest,
            reading: Reading::default(),
            chain: Chain::default(),
            violations: Findings::default(),
            void: Findings::default(),
            notes: Findings::default(),
        }
    }

    fn read(&mut self, queue: &QueueId, record: &Record) -> Result<(), Halt> {
        let written = record.read(queue, self.newest)?;
        let step = self.reading.next(record, &written, self.newest)?;
        self.chain = self.chain.then(record.seq, record.stored, &record.subject, &record.payload);
        let Step { void, notes, violations, .. } = step;
        let seq = record.seq.0;
        for (fact, what) in void {
            self.void.add(Finding { seq, fact, what });
        }
        for (fact, what) in notes {
            self.notes.add(Finding { seq, fact, what });
        }
        for what in violations {
            self.violations.add(Finding { seq, fact: None, what });
        }
        Ok(())
    }

    fn verdict(mut self, halt: Option<String>) -> Verdict {
        let reading = &self.reading;
        if let Some(halt) = halt {
            let what = format!("the log can't be read any further: {halt}");
            self.violations.add(Finding { seq: reading.seq + 1, fact: None, what });
        }
        let grants = || reading.people.iter().filter_map(|person| person.grant.as_ref());
        Verdict {
            sequence: reading.seq,
            entries: reading.seq,
            level: reading.level.0,
            visitors: reading.people.len(),
            waiting: reading.waiting(),
            admitted: grants().count(),
            redeemed: grants().filter(|grant| grant.used.is_some()).count(),
            digest: hex(&reading.digest()),
            chain: hex(&self.chain.0),
            violations: self.violations,
            void: self.void,
            notes: self.notes,
        }
    }
}
