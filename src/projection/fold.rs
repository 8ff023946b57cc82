//! The line of one queue as it grows out of the log, and what of it is not kept yet.

use crate::log::record::{Decoded, Halt};
use crate::log::subjects::QueueId;
use crate::projection::checkpoint::{self, Checkpoint, Restored, page_count, page_of};
use crate::queue::digest::Chain;
use crate::queue::event::{At, Level, Seq, Ticket};
use crate::queue::line::{Change, Line};

pub(super) struct Fold {
    queue: QueueId,
    /// The highest level that this program knows.
    newest: Level,
    line: Line,
    chain: Chain,
    /// When the last entry was stored.
    stored: At,
    /// Whether each page has changed since it was kept.
    changed: Vec<bool>,
    /// Places that moved since then, each as often as it did.
    moves: usize,
    /// The last entry of which everything is kept.
    kept: Seq,
}

impl Fold {
    /// A line that nobody is in yet.
    pub(super) fn new(queue: QueueId, newest: Level) -> Self {
        Self {
            queue,
            newest,
            line: Line::default(),
            chain: Chain::default(),
            stored: At(0),
            changed: Vec::new(),
            moves: 0,
            kept: Seq(0),
        }
    }

    /// Goes on from what was kept.
    pub(super) fn restored(queue: QueueId, newest: Level, restored: Restored) -> Self {
        let kept = restored.line.seq();
        let changed = vec![false; page_count(&restored.line)];
        let Restored { stored, chain, line, .. } = restored;
        Self { queue, newest, line, chain, stored, changed, moves: 0, kept }
    }

    /// Applies the next entry of the log, unless it raises the log to a level that is not known here.
    pub(super) fn apply(&mut self, decoded: &Decoded) -> Result<Change, Halt> {
        let (seq, queue) = (decoded.seq, &self.queue);
        let (entry, why) = decoded.written.next_of(&self.line, seq, self.newest)?;
        if let Some(why) = why {
            tracing::warn!(%queue, seq = seq.0, why, "void entry");
        }
        let change = self.line.apply(seq, decoded.stored, entry);
        (self.chain, self.stored) = (decoded.chain, decoded.stored);
        if !change.void.is_empty() || change.void_entry.is_some() {
            tracing::debug!(%queue, seq = seq.0, "facts that count nowhere");
        }
        self.note(&change);
        Ok(change)
    }

    pub(super) fn line(&self) -> &Line {
        &self.line
    }

    /// The last entry, and when it was stored; none before the first.
    pub(super) fn last(&self) -> Option<(Seq, At)> {
        let seq = self.line.seq();
        (seq > Seq(0)).then_some((seq, self.stored))
    }

    pub(super) fn chain(&self) -> Chain {
        self.chain
    }

    /// How often places moved since everything was kept.
    pub(super) fn moves(&self) -> usize {
        self.moves
    }

    /// Whether there is anything that is not kept.
    pub(super) fn is_ahead(&self) -> bool {
        self.line.seq() > self.kept
    }

    /// What is to be kept so that a restart can go on from here, with its pages.
    pub(super) fn checkpoint(&self, stream: At) -> Checkpoint {
        let pages = checkpoint::seal_pages(&self.line, &self.changed_pages());
        Checkpoint { pages, ..self.head(stream) }
    }

    /// The same without the pages.
    pub(super) fn head(&self, stream: At) -> Checkpoint {
        let (stored, chain, head) = (self.stored, self.chain, self.line.head());
        Checkpoint { stream, stored, chain, head, pages: Vec::new() }
    }

    /// The pages that are not kept as they are now.
    pub(super) fn changed_pages(&self) -> Vec<u32> {
        let changed = (0..).zip(&self.changed).filter(|(_, changed)| **changed);
        changed.map(|(page, _)| page).collect()
    }

    /// Everything up to here is in good hands.
    pub(super) fn kept(&mut self) {
        self.changed.fill(false);
        self.moves = 0;
        self.kept = self.line.seq();
    }

    /// Nothing is kept any more.
    pub(super) fn lost(&mut self) {
        self.changed = vec![true; page_count(&self.line)];
        self.moves = self.line.places().len();
        self.kept = Seq(0);
    }

    fn note(&mut self, change: &Change) {
        let joined = change.joined.first.0..change.joined.first.0 + change.joined.accepted;
        let moved = joined
            .map(Ticket)
            .chain(change.came.iter().map(|came| came.ticket))
            .chain(change.ended.iter().map(|(ticket, _)| *ticket))
            .chain(change.went.iter().copied())
            .chain(change.missed.iter().copied())
            .chain(change.restated.iter().copied())
            .chain(change.admitted.iter().copied())
            .chain(change.entered.iter().copied());
        for page in moved.map(|ticket| page_of(ticket) as usize) {
            self.moves += 1;
            if page >= self.changed.len() {
                self.changed.resize(page + 1, false);
            }
            if let Some(changed) = self.changed.get_mut(page) {
                *changed = true;
            }
        }
    }
}
