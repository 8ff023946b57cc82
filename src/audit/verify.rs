//! Replays a log and judges it: was anyone overtaken, admitted twice, or a token used twice?
//!
//! The order of admission is judged by who was present at an entry's `basis`, the last thing that
//! the worker knew when it decided.

use std::collections::BTreeSet;

use crate::log::connection::Log;
use crate::log::stream::StreamError;
use crate::log::subjects::QueueId;
use crate::log::tail::{FetchError, Halt, Record};
use crate::queue::digest::{Chain, digest, hex};
use crate::queue::event::{Admitted, Decision, Entry, Facts, Seq, Ticket, VisitorId};
use crate::queue::line::{Change, Line};

/// Records read at once.
const FETCHED_AT_ONCE: usize = 500;

/// What came of it.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The last entry read.
    pub sequence: u64,
    /// Entries read.
    pub entries: u64,
    /// Visitors who ever had a place.
    pub visitors: usize,
    /// Visitors who wait at the end.
    pub waiting: u32,
    /// Visitors who were let in.
    pub admitted: usize,
    /// Grants that were used.
    pub redeemed: usize,
    /// Of the state at the end.
    pub digest: String,
    /// Of the log.
    pub chain: String,
    /// Where a promise was broken.
    pub violations: Vec<Finding>,
    /// What counts nowhere, and why.
    pub void: Vec<Finding>,
}

/// Something worth saying of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The entry.
    pub seq: u64,
    /// What is to be said.
    pub what: String,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// There is no such queue.
    #[error("there is no queue {0}")]
    UnknownQueue(QueueId),
    /// The log can't be reached.
    #[error("the log can't be reached")]
    Away(#[from] FetchError),
    /// The log can't be read to its end.
    #[error(transparent)]
    Halted(#[from] Halt),
}

/// Reads the log of a queue from its first entry, to its end or to `until`, and judges it.
pub async fn verify(log: &Log, queue: &QueueId, until: Option<Seq>) -> Result<Verdict, AuditError> {
    let end = match log.stream_info(queue).await {
        Ok(info) => until.map_or(info.last, |until| until.min(info.last)),
        Err(StreamError::Missing) => return Err(AuditError::UnknownQueue(queue.clone())),
        Err(StreamError::Away(_) | StreamError::Refused(_)) => return Err(FetchError.into()),
    };
    let mut reading = Reading::default();
    loop {
        let next = Seq(reading.line.seq().0 + 1);
        let batch = log.fetch(queue, next, FETCHED_AT_ONCE).await?;
        if batch.is_empty() && reading.line.seq() < end {
            // A replica that lags: what it has is not all that there is.
            return Err(FetchError.into());
        }
        if batch.is_empty() {
            return Ok(reading.verdict());
        }
        for record in batch {
            if until.is_some_and(|until| record.seq > until) {
                return Ok(reading.verdict());
            }
            reading.read(queue, &record)?;
        }
    }
}

#[derive(Default)]
struct Reading {
    line: Line,
    chain: Chain,
    /// For each ticket, when its visitor became present (true) or absent, ascending.
    presence: Vec<Vec<(Seq, bool)>>,
    admitted: BTreeSet<VisitorId>,
    redeemed: BTreeSet<VisitorId>,
    violations: Vec<Finding>,
    void: Vec<Finding>,
}

impl Reading {
    fn read(&mut self, queue: &QueueId, record: &Record) -> Result<(), Halt> {
        let expected = Seq(self.line.seq().0 + 1);
        if record.seq != expected {
            return Err(Halt::Gap { expected, found: record.seq });
        }
        let (entry, why) = record.read(queue)?;
        if let Some(why) = why {
            self.void(record.seq, format!("void entry: {why}"));
        }
        let judged = if let Entry::Decided(decision) = &entry {
            self.judge(record.seq, decision)
        } else {
            Vec::new()
        };
        let change = self.line.apply(record.seq, record.stored, &entry);
        self.chain = self.chain.then(record.seq, record.stored, &record.subject, &record.payload);
        if change.void_entry.is_none() {
            self.violations.extend(judged);
        }
        self.note(record.seq, &entry, &change);
        Ok(())
    }

    /// What is wrong with a decision, seen from just before it.
    fn judge(&self, seq: Seq, decision: &Decision) -> Vec<Finding> {
        match &decision.facts {
            Facts::Admitted(facts) => self.judge_order(seq, decision.basis, facts),
            Facts::Configured(_)
            | Facts::Redeemed(_)
            | Facts::Released(_)
            | Facts::Expired(_)
            | Facts::Removed(_)
            | Facts::NodeLost(_) => Vec::new(),
        }
    }

    fn judge_order(&self, seq: Seq, basis: Seq, facts: &[Admitted]) -> Vec<Finding> {
        let tickets = facts.iter().filter_map(|fact| self.line.ticket(fact.visitor));
        let tickets: Vec<Ticket> = tickets.filter(|t| self.line.waiting().contains(*t)).collect();
        let mut findings = Vec::new();
        if !tickets.is_sorted() {
            let what = "the visitors of one entry are not in the order of the line".to_owned();
            findings.push(Finding { seq: seq.0, what });
        }
        let Some(last) = tickets.iter().max() else { return findings };
        let let_in: BTreeSet<Ticket> = tickets.iter().copied().collect();
        let before = self.line.waiting().iter().take_while(|ticket| ticket < last);
        for ticket in before.filter(|ticket| !let_in.contains(ticket)) {
            if self.was_present(ticket, basis)
                && let Some(place) = self.line.place(ticket)
            {
                let what = format!(
                    "visitor {} (ticket {}), present at entry {}, was overtaken",
                    place.visitor, ticket.0, basis.0
                );
                findings.push(Finding { seq: seq.0, what });
            }
        }
        findings
    }

    fn was_present(&self, ticket: Ticket, at: Seq) -> bool {
        let changes = self.presence.get(ticket.0 as usize);
        let last = changes.into_iter().flatten().take_while(|(seq, _)| *seq <= at).last();
        last.is_some_and(|(_, present)| *present)
    }

    fn note(&mut self, seq: Seq, entry: &Entry, change: &Change) {
        let joined = usize::try_from(change.joined.accepted).unwrap_or(0);
        self.presence.extend(std::iter::repeat_n(vec![(seq, true)], joined));
        let came = change.came.iter().map(|(ticket, _)| (*ticket, true));
        let went = change.went.iter().map(|ticket| (*ticket, false));
        for (ticket, present) in came.chain(went) {
            if let Some(changes) = self.presence.get_mut(ticket.0 as usize) {
                changes.push((seq, present));
            }
        }
        for ticket in &change.admitted {
            self.once(seq, *ticket, "was admitted a second time", |this| &mut this.admitted);
        }
        for ticket in &change.entered {
            self.once(seq, *ticket, "used a grant a second time", |this| &mut this.redeemed);
        }
        if let Some(why) = change.void_entry
            && !matches!(entry, Entry::Void { .. })
        {
            self.void(seq, format!("void entry: {why:?}"));
        }
        for (index, why) in &change.void {
            self.void(seq, format!("fact {index} counts nowhere: {why:?}"));
        }
    }

    fn once(
        &mut self,
        seq: Seq,
        ticket: Ticket,
        twice: &str,
        set: impl Fn(&mut Self) -> &mut BTreeSet<VisitorId>,
    ) {
        let Some(visitor) = self.line.place(ticket).map(|place| place.visitor) else { return };
        if !set(self).insert(visitor) {
            self.violations
                .push(Finding { seq: seq.0, what: format!("visitor {visitor} {twice}") });
        }
    }

    fn void(&mut self, seq: Seq, what: String) {
        self.void.push(Finding { seq: seq.0, what });
    }

    fn verdict(self) -> Verdict {
        Verdict {
            sequence: self.line.seq().0,
            entries: self.line.seq().0,
            visitors: self.line.places().len(),
            waiting: self.line.waiting().len(),
            admitted: self.admitted.len(),
            redeemed: self.redeemed.len(),
            digest: hex(&digest(&self.line)),
            chain: hex(&self.chain.0),
            violations: self.violations,
            void: self.void,
        }
    }
}
