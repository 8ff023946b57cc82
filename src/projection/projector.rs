//! The projector of one queue: log -> fold -> feed, and the store behind it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::clock::{self, LogClock};
use crate::ids;
use crate::log::connection::Log;
use crate::log::record::{Decoded, Halt};
use crate::log::stream::Info;
use crate::log::subjects::{self, QueueId};
use crate::log::tail;
use crate::projection::answers::{Given, Question};
use crate::projection::catch_up::CatchUp;
use crate::projection::checkpoint::Restored;
use crate::projection::delta;
use crate::projection::fold::Fold;
use crate::projection::keeper::Keeper;
use crate::queue::event::{At, Seq};
use crate::queue::pace::Pace;
use crate::queue::time::AGREED_NANOS_MAX;
use crate::shutdown::Shutdown;
use crate::wire;
use crate::wire::feed::{Delta, FEED_VERSION, FRAME_BYTES_MAX, Frame, Halted, Outlook};

/// Frames leave no closer together than this while things move; the first leaves at once. With 25 ms
/// (until 2026-11-25) whoever joined in a crowd waited half as long again for their first numbers, and
/// a node carried that many more of them; projector and node spend the same either way.
const FRAME_EVERY: Duration = Duration::from_millis(10);
/// A frame leaves at least this often, so that a node knows when it hears nothing. What is to be
/// expected is told with it, and with a change of the configuration.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);
/// A log that has been away for so long is not only changing its leader: nodes hear no more that all is as it
/// was, and say that their numbers may be old.
const UNCONFIRMED_MAX: Duration = Duration::from_secs(2);

pub(super) struct Projector {
    pub(super) log: Log,
    pub(super) queue: QueueId,
    pub(super) fold: Fold,
    pub(super) stream: Option<At>,
    pub(super) halted: Option<Halt>,
    pub(super) given: Given,
    keeper: Keeper,
    pace: Pace,
    clock: Option<LogClock>,
    info: Option<Info>,
    /// Since when the log can't be reached.
    away_since: Option<Instant>,
    /// Since when the log was known to have more than was applied.
    behind: Option<(Seq, Instant)>,
    catch_up: CatchUp,
    deltas: Vec<Delta>,
    last_delta: u64,
    is_outlook_due: bool,
}

/// Why a projector has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was asked to stop.
    Stopped,
    /// It is to begin anew, from the first entry.
    Rebuild,
}

impl Projector {
    /// A projector with an empty line, which has not read anything yet.
    pub(super) fn new(
        log: &Log,
        queue: &QueueId,
        dir: PathBuf,
        to_self: mpsc::WeakSender<Question>,
    ) -> Self {
        Self {
            log: log.clone(),
            queue: queue.clone(),
            fold: Fold::new(queue.clone(), log.newest()),
            stream: None,
            halted: None,
            given: Given::new(to_self),
            keeper: Keeper::new(queue.clone(), dir),
            pace: Pace::default(),
            clock: None,
            info: None,
            away_since: None,
            behind: None,
            catch_up: CatchUp::new(queue.clone()),
            deltas: Vec::new(),
            last_delta: 0,
            is_outlook_due: false,
        }
    }

    /// Goes on from the store's checkpoint, if it has one to be believed, until asked to stop.
    pub(super) async fn run(
        mut self,
        questions: &mut mpsc::Receiver<Question>,
        shutdown: &Shutdown,
    ) -> Ended {
        let newest = self.log.newest();
        // A log that has gone beyond what this program knows is read up to there, and halts.
        let known = |restored: &Restored| restored.line.level() <= newest;
        if let Some(restored) = self.keeper.open().await.filter(known) {
            self.stream = Some(restored.stream);
            self.fold = Fold::restored(self.queue.clone(), newest, restored);
        }
        let line = self.fold.line();
        tracing::info!(queue = %self.queue, from = line.seq().0, visitors = line.places().len(), "projecting");
        self.last_delta = line.seq().0;
        let last = self.fold.last();
        let tail = tail::follow_on(&self.log, &self.queue, last, self.stream, shutdown);
        let mut tail = tail::decode(tail, &self.queue, self.fold.chain(), newest, shutdown);
        let mut frame = tokio::time::interval(FRAME_EVERY);
        frame.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut heartbeat = tokio::time::interval(HEARTBEAT_EVERY);
        let ended = loop {
            tokio::select! {
                Some(heard) = tail.recv() => self.hear(heard),
                question = questions.recv() => match question {
                    Some(question) if question.is_rebuild() => {
                        if self.rebuild_asked(&question).await {
                            break Ended::Rebuild;
                        }
                    }
                    Some(question) => self.question(question).await,
                    None => break Ended::Stopped,
                },
                _ = frame.tick(), if !self.deltas.is_empty() => self.publish().await,
                _ = heartbeat.tick() => {
                    self.is_outlook_due = true;
                    self.publish().await;
                }
            }
            self.answer_waiting().await;
            let may =
                self.stream.filter(|_| self.catch_up.is_over() || self.keeper.is_far(&self.fold));
            if let Some(stream) = may {
                self.keeper.keep(&mut self.fold, stream);
            }
        };
        let stream = self.stream.filter(|_| ended == Ended::Stopped);
        self.keeper.close(&self.fold, stream, ended == Ended::Rebuild);
        ended
    }

    fn hear(&mut self, heard: tail::Heard<Decoded>) {
        match heard {
            // It has said why it goes no further.
            tail::Heard::Records(_) if self.halted.is_some() => {}
            tail::Heard::Records(entries) => {
                let applied = entries.iter().try_for_each(|entry| self.apply(entry));
                if let Err(halt) = applied {
                    self.halt(halt);
                }
            }
            tail::Heard::Info(info) => {
                if let Some(halt) = self.halted.take_if(|halt| halt.can_pass()) {
                    tracing::warn!(queue = %self.queue, was = %halt, "reading on");
                }
                self.stream = Some(info.created);
                let seq = self.fold.line().seq();
                let known = self.behind.filter(|(end, _)| *end > seq);
                self.behind =
                    known.or_else(|| (info.last > seq).then(|| (info.last, clock::monotonic())));
                self.catch_up.hear(seq, info.last);
                self.compare_clocks();
                self.info = Some(info);
            }
            tail::Heard::Away(since) => {
                self.away_since = Some(since);
                return;
            }
            tail::Heard::Halt(halt) => self.halt(halt),
        }
        self.away_since = None;
    }

    /// Follows the server's clock, as far as it goes evenly. It is believed once all is folded, and after a
    /// decision has said how far it is from the log's time.
    fn compare_clocks(&mut self) {
        let line = self.fold.line();
        let Some(info) = self.info.as_ref().filter(|info| line.seq() >= info.last) else { return };
        let raw = line.time().raw(info.now);
        let Some(clock) = &mut self.clock else {
            self.clock = Some(LogClock::since(raw, info.heard));
            return;
        };
        clock.follow(raw, info.asked, info.heard, AGREED_NANOS_MAX);
    }

    fn halt(&mut self, halt: Halt) {
        // One that stays is not forgotten for one that may pass.
        if self.halted.as_ref().is_some_and(|halted| !halted.can_pass()) {
            return;
        }
        let seq = self.fold.line().seq().0;
        tracing::error!(queue = %self.queue, seq, reason = %halt, "halted");
        self.halted = Some(halt);
    }

    fn apply(&mut self, entry: &Decoded) -> Result<(), Halt> {
        let change = self.fold.apply(entry)?;
        // What is heard late looks as if we were ahead, so only that counts which can't come of it.
        let at = self.fold.line().at();
        if let Some(clock) = &mut self.clock
            && (change.shifted.is_some() || clock.is_behind(at))
        {
            clock.correct(at);
        }
        self.is_outlook_due |= change.configured;
        let seq = entry.seq;
        self.catch_up.applied(seq);
        if !self.catch_up.is_over() {
            // Far behind, nodes take a snapshot sooner than everything that they missed.
            self.last_delta = seq.0;
        } else if let Some(mut delta) = delta::delta(self.fold.line(), &change, self.last_delta) {
            if let Some(config) = &mut delta.config {
                config.secret = self.secret();
            }
            self.last_delta = delta.seq;
            self.deltas.push(delta);
        }
        Ok(())
    }

    async fn publish(&mut self) {
        // A queue that never was: nobody waits for news of it.
        if self.stream.is_none() || !self.is_configured() && self.halted.is_none() {
            return;
        }
        // What the log can't confirm is no fresh news.
        if self.deltas.is_empty() && self.halted.is_none() && self.is_away() {
            return;
        }
        let mut deltas = std::mem::take(&mut self.deltas).into_iter().peekable();
        // Of a line that is read from far back it can't be told how it moves now.
        let is_due = std::mem::take(&mut self.is_outlook_due) && self.catch_up.is_over();
        let mut outlook = is_due.then(|| self.outlook());
        loop {
            let mut frame = self.empty_frame();
            frame.outlook = outlook.take();
            let mut bytes = 0;
            while let Some(delta) = deltas.peek() {
                bytes += wire::feed::write(delta).len();
                if bytes > FRAME_BYTES_MAX && !frame.deltas.is_empty() {
                    break;
                }
                frame.deltas.extend(deltas.next());
            }
            let more = deltas.peek().is_some();
            if more {
                // What is not sent yet is not covered yet.
                frame.last_delta = frame.deltas.last().map_or(0, |delta| delta.seq);
                frame.through = frame.last_delta;
            }
            self.log.say(subjects::feed(&self.queue), wire::feed::write(&frame)).await;
            if !more {
                return;
            }
        }
    }

    /// Whether there is a queue: a stream without its first decision is one in the making.
    pub(super) fn is_configured(&self) -> bool {
        self.fold.line().last_decision() > Seq(0)
    }

    /// Whether the log has been away for longer than a change of its leader takes.
    fn is_away(&self) -> bool {
        let now = clock::monotonic();
        self.away_since.is_some_and(|since| now.duration_since(since) > UNCONFIRMED_MAX)
    }

    /// Whether the line is about as far as the log.
    pub(super) fn is_at_the_end(&self) -> bool {
        self.info.is_some() && self.catch_up.is_over()
    }

    /// The last entry that the log is known to have.
    pub(super) fn end(&self) -> Seq {
        let seq = self.fold.line().seq();
        self.info.as_ref().map_or(seq, |info| info.last.max(seq))
    }

    /// The queue's secret, wrapped, as its stream has it. Another than the log names would give everybody a
    /// second name.
    pub(super) fn secret(&self) -> Option<String> {
        let named = self.fold.line().secret();
        let wrapped = self.info.as_ref()?.secret.as_ref()?;
        let is_it = named.is_none() || ids::secret_id(wrapped) == named;
        is_it.then(|| wrapped.clone())
    }

    pub(super) fn empty_frame(&self) -> Frame {
        let line = self.fold.line();
        let behind = self.behind.filter(|(end, _)| *end > line.seq());
        let millis =
            behind.map_or(0, |(_, since)| clock::monotonic().duration_since(since).as_millis());
        Frame {
            version: FEED_VERSION,
            stream: self.stream.unwrap_or_default().0,
            through: line.seq().0,
            last_delta: self.last_delta,
            end: self.end().0,
            now: self.now().0,
            behind_millis: u32::try_from(millis).unwrap_or(u32::MAX),
            inside: self.inside(),
            full_milli: self.full_milli(),
            outlook: None,
            halted: self.halted.as_ref().map(|halt| Halted {
                after: line.seq().0,
                why: halt.to_string(),
                is_log_gone: *halt == Halt::OtherStream,
            }),
            deltas: Vec::new(),
        }
    }

    /// What the line's movement lets expect now.
    pub(super) fn outlook(&mut self) -> Outlook {
        let now = self.now();
        Outlook::from(&self.pace.look(self.fold.line(), now))
    }

    fn now(&self) -> At {
        let at = self.fold.line().at();
        self.clock.as_ref().map_or(at, |clock| clock.now().max(at))
    }

    fn inside(&self) -> u32 {
        let line = self.fold.line();
        u32::try_from(line.unused().len() + line.inside().len()).unwrap_or(u32::MAX)
    }

    fn full_milli(&self) -> u16 {
        self.info.as_ref().map_or(0, Info::full_milli)
    }
}

/// Where the store of a queue is.
pub(super) fn store_dir(dir: &Path, queue: &QueueId) -> PathBuf {
    dir.join(queue.as_str())
}
