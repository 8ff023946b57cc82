//! The worker of one queue: a hot fold, and one decision under way at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::admission::beats::Beats;
use crate::admission::command::{Command, Refused};
use crate::admission::counts;
use crate::admission::handle::{Ask, Handle};
use crate::admission::in_flight::{self, InFlight, Outcome};
use crate::admission::keys::{Published, Signing};
use crate::admission::service::{Service, is_anyone_s_time_running};
use crate::clock;
use crate::log::connection::Log;
use crate::log::record::{Halt, Record};
use crate::log::subjects::QueueId;
use crate::log::tail;
use crate::queue::event::{At, Decision, Entry, Facts, Level, Millis, Seq, Setting};
use crate::queue::line::{Line, Shift};
use crate::queue::load::Loads;
use crate::shutdown::Shutdown;
use crate::wire::ask::Refusal;

/// Questions and commands that wait for one worker; beyond it the asker is told to come back.
const WAITING_MAX: usize = 4_096;
/// Between two turns of a worker that runs there is a tick; after this it did not run.
const STALL_MAX: Duration = Duration::from_secs(3);
/// A decision is stored or not within milliseconds. After this something is wrong here or on the way to the
/// log, and another worker may do better.
const UNSETTLED_MAX: Duration = Duration::from_secs(10);
/// What time alone brings is looked for this often.
const TICK: Duration = Duration::from_millis(50);

/// Starts the worker of a queue.
pub(super) fn start(
    log: &Log,
    queue: &QueueId,
    signing: Signing,
    beats: Arc<Beats>,
    shutdown: &Shutdown,
) -> Handle {
    let (to_worker, asks) = mpsc::channel(WAITING_MAX);
    let tail = tail::follow(log, queue, Seq(1), None, shutdown);
    let worker = Worker {
        log: log.clone(),
        queue: queue.clone(),
        signing,
        published: Published::default(),
        beats,
        line: Line::default(),
        service: Service::default(),
        loads: Loads::default(),
        halted: None,
        commands: VecDeque::new(),
        in_flight: None,
        unsettled_since: None,
        is_stuck: false,
        not_before: None,
        next_due: None,
        time_first: false,
    };
    shutdown.spawn(worker.run(tail, asks, shutdown.clone()));
    Handle(to_worker)
}

pub(super) struct Worker {
    log: Log,
    pub(super) queue: QueueId,
    pub(super) signing: Signing,
    pub(super) published: Published,
    pub(super) beats: Arc<Beats>,
    pub(super) line: Line,
    pub(super) service: Service,
    /// What the site reported.
    pub(super) loads: Loads,
    pub(super) halted: Option<Halt>,
    pub(super) commands: VecDeque<Command>,
    in_flight: Option<InFlight>,
    /// Since when a decision is to be written and none has come back.
    unsettled_since: Option<Instant>,
    /// Whether that is too long.
    is_stuck: bool,
    /// After a decision that the log did not take.
    not_before: Option<Instant>,
    /// When the rate allows the next one.
    pub(super) next_due: Option<Instant>,
    /// Commands and what time brings take turns.
    time_first: bool,
}

impl Worker {
    async fn run(
        mut self,
        mut tail: mpsc::Receiver<tail::Heard>,
        mut asks: mpsc::Receiver<Ask>,
        shutdown: Shutdown,
    ) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut turn = clock::monotonic();
        loop {
            tokio::select! {
                Some(heard) = tail.recv() => self.hear(heard),
                Some(ask) = asks.recv(), if self.commands.len() < WAITING_MAX => self.asked(ask),
                outcome = in_flight::sent(&mut self.in_flight) => self.sent(outcome),
                _ = tick.tick() => {}
                // To the millisecond: what is late is lost, since unused time is never saved up.
                () = until(self.next_due.take()) => {}
                () = shutdown.stopped() => return,
            }
            let now = clock::monotonic();
            if now.duration_since(std::mem::replace(&mut turn, now)) > STALL_MAX {
                // We were stopped or starved.
                self.service.interrupt();
            }
            self.settle();
            self.give_up_late_commands();
            self.hand_over_when_stuck();
            self.decide();
        }
    }

    fn hear(&mut self, heard: tail::Heard) {
        match heard {
            tail::Heard::Records(records) => {
                for record in &records {
                    if self.halted.is_none() {
                        self.apply(record);
                    }
                }
            }
            tail::Heard::Info(info) => {
                if let Some(halt) = self.halted.take_if(|halt| halt.can_pass()) {
                    tracing::warn!(queue = %self.queue, was = %halt, "reading on");
                }
                self.service.hear_info(&info, &self.line);
            }
            tail::Heard::Away(_) => self.service.interrupt(),
            tail::Heard::Halt(halt) => self.halt(halt),
        }
        if self.beats.is_another_active() && !self.beats.is_active() {
            self.service.is_served_by_another();
        }
        if !self.service.is_back() && self.is_caught_up() {
            self.service.come_back(&self.line);
            self.beats.folded(&self.queue);
            self.loads.hears_from(self.now());
        }
    }

    fn apply(&mut self, record: &Record) {
        let newest = self.log.newest();
        let written = match record.read(&self.queue, newest) {
            Ok(written) => written,
            Err(halt) => return self.halt(halt),
        };
        let (entry, _) = match written.next_of(&self.line, record.seq, newest) {
            Ok(next) => next,
            Err(halt) => return self.halt(halt),
        };
        let was_idle = !is_anyone_s_time_running(&self.line);
        let change = self.line.apply(record.seq, record.stored, entry);
        // What counts nowhere decided nothing.
        let decision = if let Entry::Decided(decision) = entry
            && change.void_entry.is_none()
        {
            Some(decision)
        } else {
            None
        };
        self.service.hear_entry(decision, &self.line, was_idle);
        if let Some(Shift { from, to, .. }) = change.shifted {
            tracing::warn!(queue = %self.queue, seq = record.seq.0, from, to, "the log's servers differ about the time, in nanoseconds");
        }
        if change.configured {
            self.published.note(self.line.keys(), self.line.at());
        }
        let Some(decision) = decision else { return };
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.hear(decision, record.seq);
        }
        if ends_following(&decision.facts) {
            // What was reported before begins nothing anew.
            self.loads = Loads::since(self.now());
        }
    }

    fn halt(&mut self, halt: Halt) {
        // One that stays is not forgotten for one that may pass.
        if self.halted.as_ref().is_some_and(|halted| !halted.can_pass()) {
            return;
        }
        tracing::error!(queue = %self.queue, seq = self.line.seq().0, reason = %halt, "halted");
        self.halted = Some(halt);
        self.beats.folded(&self.queue);
    }

    /// Whether the fold has everything that the log is known to have.
    pub(super) fn is_caught_up(&self) -> bool {
        self.halted.is_none() && self.service.is_caught_up(&self.line)
    }

    pub(super) fn now(&self) -> At {
        self.service.now(&self.line)
    }

    /// The time by which grants are judged, if we may judge them.
    pub(super) fn judging(&self) -> Option<At> {
        let may = self.beats.is_active() && self.service.is_back() && !self.service.has_outage();
        may.then(|| self.now())
    }

    fn sent(&mut self, outcome: Outcome) {
        let Some(in_flight) = &mut self.in_flight else { return };
        in_flight.note(&outcome);
        if let Err(error) = &outcome
            && in_flight.is_refused(error)
        {
            tracing::error!(queue = %self.queue, %error, "a decision was not taken");
            // The log is there, and would tell another worker the same.
            self.unsettled_since = None;
            if let Some(in_flight) = self.take_unsent() {
                let why = Refused::Gate(Refusal::LogUnavailable);
                in_flight.commands.into_iter().for_each(|command| command.refuse(why));
            }
        } else if in_flight.is_surely_unsent() {
            // It is made anew later; its commands wait on.
            if let Some(in_flight) = self.take_unsent() {
                let commands = in_flight.commands.into_iter().rev();
                commands.for_each(|command| self.commands.push_front(command));
            }
        }
    }

    /// What was under way and is surely not stored; the next is tried after a pause.
    fn take_unsent(&mut self) -> Option<InFlight> {
        let in_flight = self.in_flight.take()?;
        self.keep_outage(&in_flight);
        self.not_before = Some(clock::monotonic() + in_flight::RETRY_WAIT);
        Some(in_flight)
    }

    /// The fence has moved: either our decision came back, or another one that made it void.
    fn settle(&mut self) {
        let prev = self.line.last_decision();
        let moved = |in_flight: &mut InFlight| in_flight.decision.prev != prev;
        let Some(in_flight) = self.in_flight.take_if(moved) else { return };
        self.unsettled_since = None;
        if let (Some(_), Facts::Admitted(grants)) = (in_flight.landed, &in_flight.decision.facts) {
            counts::granted(grants.len());
        }
        if in_flight.landed.is_none() {
            self.keep_outage(&in_flight);
            counts::fence_lost();
            tracing::info!(queue = %self.queue, "the fence was lost; deciding anew");
        }
        let (now, kid) = (self.judging(), self.kid());
        for command in in_flight.commands.into_iter().rev() {
            let written = command.written.or(in_flight.landed);
            // What came back is answered from the fold at once; the rest is decided anew.
            let (_, again) = Command { written, ..command }.next(&self.line, now, &kid);
            if let Some(again) = again {
                self.commands.push_front(again);
            }
        }
    }

    /// An outage that was to be written and was not is still to be written.
    fn keep_outage(&mut self, in_flight: &InFlight) {
        if !in_flight.outage_written {
            self.service.keep_outage(&in_flight.decision.facts);
        }
    }

    /// For how long a decision has been on its way into the log, if that is too long.
    pub(super) fn unsettled_for(&self) -> Option<Duration> {
        let elapsed = clock::monotonic().duration_since(self.unsettled_since?);
        (elapsed > UNSETTLED_MAX).then_some(elapsed)
    }

    /// Where a decision is stuck, another worker may do better.
    fn hand_over_when_stuck(&mut self) {
        let is_stuck = self.unsettled_for().is_some();
        if std::mem::replace(&mut self.is_stuck, is_stuck) != is_stuck {
            tracing::warn!(queue = %self.queue, is_stuck, "a decision that is under way");
            self.beats.stuck(&self.queue, is_stuck);
        }
    }

    fn give_up_late_commands(&mut self) {
        let now = clock::monotonic();
        let halted = self.halted.is_some();
        let late = |command: &Command| halted || command.until <= now;
        if let Some(in_flight) = &mut self.in_flight
            && !in_flight.commands.is_empty()
            && in_flight.commands.iter().all(late)
        {
            // What they were told is that nothing was done, so it is not sent once more.
            in_flight.abandoned = true;
            for command in in_flight.commands.drain(..) {
                command.refuse(Refused::Gate(Refusal::LogUnavailable));
            }
        }
        if !self.commands.iter().any(late) {
            return;
        }
        for command in std::mem::take(&mut self.commands) {
            if late(&command) {
                command.refuse(Refused::Gate(Refusal::LogUnavailable));
            } else {
                self.commands.push_back(command);
            }
        }
    }

    fn decide(&mut self) {
        if let Some(in_flight) = &self.in_flight {
            if in_flight.is_sending() {
                return;
            }
            if !in_flight.abandoned {
                // The same decision again; the fence lets in only one.
                if in_flight.is_due_again() {
                    self.send();
                }
                return;
            }
            self.in_flight = None;
        }
        if self.not_before.is_some_and(|not_before| clock::monotonic() < not_before) {
            return;
        }
        if !self.service.is_back() || !self.is_caught_up() {
            return;
        }
        let is_active = self.beats.is_active();
        // Nobody is judged before the outage that excuses them is written, and no pass is given by a key
        // that nobody can know.
        let comes_first = self.service.has_outage() || self.new_keys().is_some();
        self.time_first = is_active && (!self.time_first || comes_first);
        let next = if self.time_first {
            self.due().map(|facts| (facts, Vec::new())).or_else(|| self.ordered(is_active))
        } else {
            let ordered = self.ordered(is_active);
            ordered.or_else(|| is_active.then(|| self.due())?.map(|facts| (facts, Vec::new())))
        };
        let Some((facts, commands)) = next else {
            self.unsettled_since = None;
            return;
        };
        self.unsettled_since.get_or_insert_with(clock::monotonic);
        let (prev, basis) = (self.line.last_decision(), self.line.seq());
        let (now, worker) = (Millis::from(self.now()), self.beats.worker());
        let decision = Decision { prev, basis, now, worker, facts };
        self.in_flight = Some(InFlight::new(decision, commands));
        self.send();
    }

    fn send(&mut self) {
        let (now, version) = (Millis::from(self.now()), self.version());
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.send(&self.log, &self.queue, now, version);
        }
    }

    /// The version to write in: the newest that the log's level allows and this program knows.
    fn version(&self) -> Level {
        self.line.level().min(self.log.newest())
    }
}

/// Waits until an instant; for ever without one.
async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}

/// Whether the rate no longer follows the load after these facts.
fn ends_following(facts: &Facts) -> bool {
    let Facts::Configured(facts) = facts else { return false };
    facts.iter().any(|fact| matches!(fact.what, Setting::Rate { per_minute: None, .. }))
}
