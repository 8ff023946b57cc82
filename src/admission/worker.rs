//! The worker of one queue: a hot fold, one decision under way at a time, and the answers that the
//! fold gives once a decision came back.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::admission::beats::Beats;
use crate::admission::command::{Command, Next, Refused, What};
use crate::admission::handle::{Ask, Handle, Shown};
use crate::admission::signer::Signer;
use crate::clock::{self, LogClock};
use crate::ids;
use crate::log::connection::Log;
use crate::log::publish::{PublishError, Stored};
use crate::log::stream::Info;
use crate::log::subjects::QueueId;
use crate::log::tail::{self, Halt, Record};
use crate::queue::admit::{self, DECISIONS_PER_ENTRY_MAX, Due, SCHEDULE};
use crate::queue::event::{
    Admitted, At, Configured, Decision, Entry, Facts, PublicKey, Seq, Setting, VisitorId,
};
use crate::queue::line::{Line, Standing};
use crate::shutdown::Shutdown;
use crate::wire::ask::{Minted, Refusal};
use crate::wire::event::OUTAGE_SECONDS_MAX;
use crate::wire::token::{self, TOKEN_TYPE};

/// Questions and commands that wait for one worker; beyond it the asker is told to come back.
const WAITING_MAX: usize = 4_096;
/// A command is given up after this: whoever asked has been told so by then.
const COMMAND_WAIT_MAX: Duration = Duration::from_secs(4);
/// Between two turns of a worker that runs there is a tick; after this it did not run.
const STALL_MAX: Duration = Duration::from_secs(3);
/// What time alone brings is looked for this often.
const TICK: Duration = Duration::from_millis(50);
/// Pause before a decision is tried again after the log failed.
const RETRY_WAIT: Duration = Duration::from_millis(200);
/// Public keys of earlier signers that are kept, so that their passes stay good.
const KEYS_KEPT_MAX: usize = 8;
/// An interruption below this is none: people's graces are longer than the difference it makes.
const OUTAGE_SECONDS_MIN: i64 = 10;
const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// Starts the worker of a queue.
pub(super) fn start(
    log: &Log,
    queue: &QueueId,
    signer: Arc<Signer>,
    beats: Arc<Beats>,
    shutdown: &Shutdown,
) -> Handle {
    let (to_worker, asks) = mpsc::channel(WAITING_MAX);
    let tail = tail::follow(log, queue, Seq(1), None, shutdown);
    let worker = Worker {
        log: log.clone(),
        queue: queue.clone(),
        signer,
        beats,
        line: Line::default(),
        clock: None,
        end: None,
        away: true,
        served_at: None,
        halted: None,
        outage: None,
        commands: VecDeque::new(),
        in_flight: None,
        not_before: None,
        time_first: false,
    };
    shutdown.spawn(worker.run(tail, asks, shutdown.clone()));
    Handle(to_worker)
}

struct Worker {
    log: Log,
    queue: QueueId,
    signer: Arc<Signer>,
    beats: Arc<Beats>,
    line: Line,
    clock: Option<LogClock>,
    /// The log's end as last heard; `None` while the log is away.
    end: Option<Seq>,
    /// Whether we are only just coming (back), and have not looked at what we missed.
    away: bool,
    /// The last time at which people could be served, as far as is known.
    served_at: Option<At>,
    halted: Option<Halt>,
    /// Seconds of an outage that is over and not written yet.
    outage: Option<u32>,
    commands: VecDeque<Command>,
    in_flight: Option<InFlight>,
    not_before: Option<Instant>,
    /// Commands and what time brings take turns.
    time_first: bool,
}

type Sending = Pin<Box<dyn Future<Output = Result<Stored, PublishError>> + Send>>;

struct InFlight {
    decision: Decision,
    commands: Vec<Command>,
    sending: Option<Sending>,
    /// It was sent and may be stored, whatever later attempts say.
    maybe_stored: bool,
    /// An outage was written by somebody since it was sent.
    outage_written: bool,
    /// Nobody waits for it any more; it is not sent again.
    abandoned: bool,
    /// Where it came back.
    landed: Option<Seq>,
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
                outcome = sent(&mut self.in_flight) => self.sent(outcome),
                _ = tick.tick() => {}
                () = shutdown.stopped() => return,
            }
            let now = clock::monotonic();
            if now.duration_since(std::mem::replace(&mut turn, now)) > STALL_MAX {
                // We were stopped or starved: nothing is decided before we know what was missed.
                self.end = None;
                self.away = true;
            }
            self.settle();
            self.give_up_late_commands();
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
            tail::Heard::Info(info) => self.info(&info),
            tail::Heard::Away(_) => {
                self.end = None;
                self.away = true;
            }
            tail::Heard::Halt(halt) => self.halt(halt),
        }
        if self.away && self.is_caught_up() {
            self.come_back();
        }
    }

    fn apply(&mut self, record: &Record) {
        let entry = match record.read(&self.queue) {
            Ok((entry, _)) => entry,
            Err(halt) => return self.halt(halt),
        };
        self.note_service(record.stored, &entry);
        self.line.apply(record.seq, record.stored, &entry);
        if let (Some(in_flight), Entry::Decided(decision)) = (&mut self.in_flight, &entry)
            && in_flight.decision == *decision
        {
            in_flight.landed = Some(record.seq);
        }
    }

    fn halt(&mut self, halt: Halt) {
        tracing::error!(queue = %self.queue, seq = self.line.seq().0, reason = %halt, "halted");
        self.halted = Some(halt);
    }

    fn info(&mut self, info: &Info) {
        self.clock.get_or_insert_with(|| LogClock::new(info.now)).hear_answer(info.now, info.asked);
        self.end = Some(info.last);
        let gap =
            self.served_at.map_or(0, |served_at| info.now.since(served_at) / NANOS_PER_SECOND);
        if gap > OUTAGE_SECONDS_MIN {
            // The log may have been there all the time: we were not.
            self.away = true;
        }
        if !self.away {
            self.served_at = Some(info.now);
        }
    }

    /// What an entry that is about to be folded says of when people could last be served. A decision
    /// is service. What nodes write proves only that the log was there, so it counts while nobody's
    /// grace or grant was running, whom it could have cost something. What can't be known is taken in
    /// the visitors' favour: an outage that is stated too long prolongs their time, and no more.
    fn note_service(&mut self, stored: At, entry: &Entry) {
        if let Entry::Decided(decision) = entry {
            self.served_at = Some(stored);
            if is_outage(&decision.facts) {
                // Whoever wrote it, it is written.
                self.outage = None;
                if let Some(in_flight) = &mut self.in_flight {
                    in_flight.outage_written = true;
                }
            }
        } else if self.away && !self.someone_is_waited_for() {
            self.served_at = Some(stored);
        }
    }

    /// Everything that was missed is folded. If it was an outage, it is to be written before anything
    /// is decided.
    fn come_back(&mut self) {
        self.away = false;
        let now = self.now();
        let Some(served_at) = self.served_at.replace(now) else { return };
        let seconds = now.since(served_at) / NANOS_PER_SECOND;
        if seconds > OUTAGE_SECONDS_MIN {
            let seconds = seconds.clamp(0, i64::from(OUTAGE_SECONDS_MAX));
            self.outage = u32::try_from(seconds).ok();
        }
    }

    /// Whether the fold has everything that the log is known to have.
    fn is_caught_up(&self) -> bool {
        self.halted.is_none() && self.end.is_some_and(|end| self.line.seq() >= end)
    }

    fn now(&self) -> At {
        let now = self.clock.as_ref().map_or(At(0), LogClock::now);
        now.max(self.line.at())
    }

    fn asked(&mut self, ask: Ask) {
        let until = clock::monotonic() + COMMAND_WAIT_MAX;
        let what = match ask {
            Ask::Command(what) => what,
            Ask::Redeem { until, done, .. } if until < self.now() => {
                // Whoever asked was told that nothing was done.
                let _ = done.send(Err(Refused::Gate(Refusal::LogUnavailable)));
                return;
            }
            Ask::Redeem { token, key, done, .. } => {
                let (issuer, queue) = (self.signer.issuer(), self.queue.as_str());
                match token::verify(&token, TOKEN_TYPE, self.line.keys(), issuer, queue) {
                    Ok(claims) => {
                        let visitor = VisitorId(claims.sub.0);
                        let jti = crate::queue::event::Jti(claims.jti.0);
                        What::Redeem { visitor, jti, key, done }
                    }
                    Err(_) => {
                        // Before the keys are folded nothing can be said of a token.
                        let refusal = if self.is_caught_up() {
                            Refusal::TokenInvalid
                        } else {
                            Refusal::LogUnavailable
                        };
                        let _ = done.send(Err(Refused::Gate(refusal)));
                        return;
                    }
                }
            }
            Ask::Mint { visitors, done } => {
                let _ = done.send(visitors.iter().map(|visitor| self.mint(*visitor)).collect());
                return;
            }
            Ask::Show { done } => {
                let _ = done.send(self.shown());
                return;
            }
        };
        self.commands.push_back(Command { what, until, written: None });
    }

    fn mint(&self, visitor: VisitorId) -> Option<Minted> {
        let ticket = self.line.ticket(visitor)?;
        if self.line.place(ticket)?.standing != Standing::Granted {
            return None;
        }
        let grant = self.line.grant(ticket)?;
        let graces = self.line.graces();
        let left = grant.lapses.seconds() - graces.running(self.now()).seconds();
        Some(Minted {
            token: self.signer.token(&self.queue, visitor, grant)?,
            expires: graces.log_time(grant.lapses).seconds(),
            expires_in: u64::try_from(left).unwrap_or(0),
        })
    }

    fn shown(&self) -> Shown {
        let line = &self.line;
        Shown {
            configured: line.last_decision() > Seq(0),
            halted: self.halted.as_ref().map(ToString::to_string),
            policy: line.policy().clone(),
            state: line.state(),
            reason: line.reason().map(str::to_owned),
            sequence: line.seq().0,
            waiting: line.waiting().len(),
            present: line.present().len(),
            unused: line.unused().len(),
            inside: line.inside().len(),
            visitors: line.places().len(),
            admitted: line.grants_len(),
        }
    }

    fn sent(&mut self, outcome: Result<Stored, PublishError>) {
        let Some(in_flight) = &mut self.in_flight else { return };
        in_flight.sending = None;
        let pause = clock::monotonic() + RETRY_WAIT;
        match outcome {
            // The tail brings it back, ours or the one that was first.
            Ok(_) | Err(PublishError::FenceLost) => in_flight.maybe_stored = true,
            Err(PublishError::Unknown) => {
                in_flight.maybe_stored = true;
                self.not_before = Some(pause);
            }
            Err(PublishError::Away) => {
                self.not_before = Some(pause);
                self.drop_unsent();
            }
            Err(error @ (PublishError::Full | PublishError::Refused(_))) => {
                tracing::error!(queue = %self.queue, %error, "a decision was not taken");
                self.not_before = Some(pause);
                if let Some(in_flight) = self.in_flight.take() {
                    self.keep_outage(&in_flight);
                    let why = Refused::Gate(Refusal::LogUnavailable);
                    in_flight.commands.into_iter().for_each(|command| command.refuse(why));
                }
            }
        }
    }

    /// A decision that was surely not stored is made anew later; its commands wait on.
    fn drop_unsent(&mut self) {
        if self.in_flight.as_ref().is_some_and(|in_flight| !in_flight.maybe_stored)
            && let Some(in_flight) = self.in_flight.take()
        {
            self.keep_outage(&in_flight);
            in_flight
                .commands
                .into_iter()
                .rev()
                .for_each(|command| self.commands.push_front(command));
        }
    }

    /// The fence has moved: either our decision came back, or another one that made it void.
    fn settle(&mut self) {
        let moved = self
            .in_flight
            .as_ref()
            .is_some_and(|in_flight| in_flight.decision.prev != self.line.last_decision());
        if !moved {
            return;
        }
        if let Some(in_flight) = self.in_flight.take() {
            if in_flight.landed.is_none() {
                self.keep_outage(&in_flight);
                tracing::info!(queue = %self.queue, "the fence was lost; deciding anew");
            }
            let (now, kid) = (self.now(), self.signer.public_key().kid.clone());
            for command in in_flight.commands.into_iter().rev() {
                let written = command.written.or(in_flight.landed);
                // What came back is answered from the fold at once; the rest is decided anew.
                let (_, again) = Command { written, ..command }.next(&self.line, now, &kid);
                if let Some(again) = again {
                    self.commands.push_front(again);
                }
            }
        }
    }

    /// An outage that was to be written and was not is still to be written.
    fn keep_outage(&mut self, in_flight: &InFlight) {
        if let Some(seconds) = outage_seconds(&in_flight.decision.facts)
            && !in_flight.outage_written
        {
            self.outage = self.outage.or(Some(seconds));
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
        if self.not_before.is_some_and(|not_before| clock::monotonic() < not_before) {
            return;
        }
        if let Some(in_flight) = &self.in_flight {
            if in_flight.sending.is_some() {
                return;
            }
            if !in_flight.abandoned {
                // Unknown after a time-out: the same decision again; the fence lets in only one.
                if self.not_before.take().is_some() {
                    self.send();
                }
                return;
            }
            self.in_flight = None;
        }
        if self.away || !self.is_caught_up() {
            return;
        }
        // Nobody is judged before the outage that excuses them is written.
        self.time_first = !self.time_first || self.outage.is_some();
        let next = if self.time_first {
            self.due().map(|facts| (facts, Vec::new())).or_else(|| self.ordered())
        } else {
            self.ordered().or_else(|| self.due().map(|facts| (facts, Vec::new())))
        };
        let Some((facts, commands)) = next else { return };
        // A pause that is over belongs to an earlier decision; this one is not to be sent twice for it.
        self.not_before = None;
        let (prev, basis) = (self.line.last_decision(), self.line.seq());
        self.in_flight = Some(InFlight {
            decision: Decision { prev, basis, facts },
            commands,
            sending: None,
            maybe_stored: false,
            outage_written: false,
            abandoned: false,
            landed: None,
        });
        self.send();
    }

    fn send(&mut self) {
        let Some(in_flight) = &mut self.in_flight else { return };
        let (log, queue, decision) =
            (self.log.clone(), self.queue.clone(), in_flight.decision.clone());
        in_flight.sending =
            Some(Box::pin(async move { log.append_fenced(&queue, &decision).await }));
    }

    /// What was ordered and is not done yet: one entry's worth, of one kind.
    fn ordered(&mut self) -> Option<(Facts, Vec<Command>)> {
        let (now, kid) = (self.now(), self.signer.public_key().kid.clone());
        let mut entry: Option<Facts> = None;
        let mut taken = Vec::new();
        for command in std::mem::take(&mut self.commands) {
            let (next, command) = command.next(&self.line, now, &kid);
            match (next, command) {
                (Next::Write(facts), Some(command)) if taken.len() < DECISIONS_PER_ENTRY_MAX => {
                    if merge(&mut entry, facts) {
                        taken.push(command);
                    } else {
                        self.commands.push_back(command);
                    }
                }
                (_, Some(command)) => self.commands.push_back(command),
                (_, None) => {}
            }
        }
        entry.map(|facts| (facts, taken))
    }

    /// What nobody ordered: an outage that is over, our key, dead nodes, and what time brings.
    fn due(&mut self) -> Option<Facts> {
        if let Some(seconds) = self.outage.take()
            && self.someone_is_waited_for()
        {
            tracing::warn!(queue = %self.queue, seconds, "after an outage: graces and grants are prolonged");
            return Some(scheduled(Setting::Outage { seconds }));
        }
        let unknown_key = self.line.last_decision() > Seq(0)
            && !self.line.keys().contains(self.signer.public_key());
        if unknown_key {
            return Some(scheduled(Setting::Keys(with_key(
                self.line.keys(),
                self.signer.public_key(),
            ))));
        }
        if let Some(facts) = admit::lost(&self.line, |node| self.beats.is_silent(node)) {
            tracing::warn!(queue = %self.queue, ?facts, "nodes are silent");
            return Some(facts);
        }
        match admit::decide(&self.line, self.now()) {
            Due::Facts(facts) => Some(facts),
            Due::Admit(visitors) => Some(Facts::Admitted(
                visitors.into_iter().map(|visitor| self.grant(visitor)).collect(),
            )),
            Due::Nothing(_) => None,
        }
    }

    fn someone_is_waited_for(&self) -> bool {
        !self.line.unused().is_empty() || self.line.present().len() < self.line.waiting().len()
    }

    fn grant(&self, visitor: VisitorId) -> Admitted {
        Admitted {
            visitor,
            jti: ids::jti(),
            kid: self.signer.public_key().kid.clone(),
            seconds: self.line.policy().token_seconds,
        }
    }
}

async fn sent(in_flight: &mut Option<InFlight>) -> Result<Stored, PublishError> {
    match in_flight.as_mut().and_then(|in_flight| in_flight.sending.as_mut()) {
        Some(sending) => sending.await,
        None => std::future::pending().await,
    }
}

fn outage_seconds(facts: &Facts) -> Option<u32> {
    let Facts::Configured(facts) = facts else { return None };
    facts.iter().find_map(|fact| match fact.what {
        Setting::Outage { seconds } => Some(seconds),
        Setting::Policy(_) | Setting::State(..) | Setting::Keys(_) | Setting::Rate { .. } => None,
    })
}

fn is_outage(facts: &Facts) -> bool {
    outage_seconds(facts).is_some()
}

fn scheduled(what: Setting) -> Facts {
    Facts::Configured(vec![Configured { by: SCHEDULE.to_owned(), what }])
}

/// These keys with this one in front, and no more than are kept.
pub(super) fn with_key(keys: &[PublicKey], key: &PublicKey) -> Vec<PublicKey> {
    let others = keys.iter().filter(|other| *other != key);
    std::iter::once(key).chain(others).take(KEYS_KEPT_MAX).cloned().collect()
}

/// Adds facts to an entry of the same kind; false when they have to wait for another one. Two
/// redemptions of one grant never share an entry: the second is answered from the first.
fn merge(entry: &mut Option<Facts>, facts: Facts) -> bool {
    match (entry, facts) {
        (entry @ None, facts) => {
            *entry = Some(facts);
            true
        }
        (Some(Facts::Redeemed(all)), Facts::Redeemed(more)) => {
            let twice = more.iter().any(|fact| all.iter().any(|other| other.jti == fact.jti));
            if !twice {
                all.extend(more);
            }
            !twice
        }
        (Some(Facts::Configured(all)), Facts::Configured(more)) => {
            all.extend(more);
            true
        }
        (Some(Facts::Released(all)), Facts::Released(more)) => {
            all.extend(more);
            true
        }
        (Some(Facts::Removed(all)), Facts::Removed(more)) => {
            all.extend(more);
            true
        }
        (Some(_), _) => false,
    }
}
