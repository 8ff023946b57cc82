//! The worker of one queue: a hot fold, and one decision under way at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::admission::beats::Beats;
use crate::admission::command::{Command, Next, Refused};
use crate::admission::counts;
use crate::admission::handle::{Ask, Handle};
use crate::admission::in_flight::{self, InFlight, Outcome};
use crate::admission::keys::{Keys, Published, with_ours};
use crate::admission::service::Service;
use crate::clock;
use crate::ids;
use crate::log::connection::Log;
use crate::log::subjects::QueueId;
use crate::log::tail::{self, Halt, Record};
use crate::queue::admit::{self, DECISIONS_PER_ENTRY_MAX, Due, Idle, SCHEDULE};
use crate::queue::event::{
    Admitted, At, Configured, Decision, Entry, Facts, PublicKey, Seq, Setting, State, VisitorId,
};
use crate::queue::line::Line;
use crate::queue::load::{self, Loads};
use crate::shutdown::Shutdown;
use crate::wire::ask::Refusal;

/// Questions and commands that wait for one worker; beyond it the asker is told to come back.
const WAITING_MAX: usize = 4_096;
/// Between two turns of a worker that runs there is a tick; after this it did not run.
const STALL_MAX: Duration = Duration::from_secs(3);
/// What time alone brings is looked for this often.
const TICK: Duration = Duration::from_millis(50);
/// Whose act it is when the rate follows the load.
const BY_LOAD: &str = "load";

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
        not_before: None,
        next_due: None,
        time_first: false,
    };
    shutdown.spawn(worker.run(tail, asks, shutdown.clone()));
    Handle(to_worker)
}

/// What tokens and passes are signed with.
#[derive(Clone)]
pub(super) struct Signing {
    pub(super) keys: Keys,
    /// For how many seconds a key is published before it signs.
    pub(super) rest: u32,
}

pub(super) struct Worker {
    log: Log,
    pub(super) queue: QueueId,
    pub(super) signing: Signing,
    published: Published,
    beats: Arc<Beats>,
    pub(super) line: Line,
    pub(super) service: Service,
    /// What the site reported.
    pub(super) loads: Loads,
    pub(super) halted: Option<Halt>,
    pub(super) commands: VecDeque<Command>,
    in_flight: Option<InFlight>,
    not_before: Option<Instant>,
    /// When the rate allows the next one.
    next_due: Option<Instant>,
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
            tail::Heard::Info(info) => self.service.hear_info(&info),
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
        let entry = match record.read(&self.queue) {
            Ok((entry, _)) => entry,
            Err(halt) => return self.halt(halt),
        };
        self.service.hear_entry(record.stored, &entry, &self.line);
        let change = self.line.apply(record.seq, record.stored, &entry);
        if change.configured {
            self.published.note(self.line.keys(), self.line.at());
        }
        let Entry::Decided(decision) = &entry else { return };
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.hear(decision, record.seq);
        }
        if ends_following(&decision.facts) {
            // What was reported before begins nothing anew.
            self.loads = Loads::since(self.now());
        }
    }

    fn halt(&mut self, halt: Halt) {
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
    fn judging(&self) -> Option<At> {
        let may = self.beats.is_active() && self.service.is_back() && !self.service.has_outage();
        may.then(|| self.now())
    }

    fn sent(&mut self, outcome: Outcome) {
        let Some(in_flight) = &mut self.in_flight else { return };
        if let Some(retry_after) = in_flight.note(&outcome) {
            self.not_before = Some(clock::monotonic() + retry_after);
        }
        if let Err(error) = &outcome
            && in_flight.is_refused(error)
        {
            tracing::error!(queue = %self.queue, %error, "a decision was not taken");
            if let Some(in_flight) = self.in_flight.take() {
                self.keep_outage(&in_flight);
                let why = Refused::Gate(Refusal::LogUnavailable);
                in_flight.commands.into_iter().for_each(|command| command.refuse(why));
            }
        } else if in_flight.is_surely_unsent() {
            // It is made anew later; its commands wait on.
            if let Some(in_flight) = self.in_flight.take() {
                self.keep_outage(&in_flight);
                let commands = in_flight.commands.into_iter().rev();
                commands.for_each(|command| self.commands.push_front(command));
            }
        }
    }

    /// The fence has moved: either our decision came back, or another one that made it void.
    fn settle(&mut self) {
        let prev = self.line.last_decision();
        let moved = |in_flight: &mut InFlight| in_flight.decision.prev != prev;
        let Some(in_flight) = self.in_flight.take_if(moved) else { return };
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
            if in_flight.is_sending() {
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
        let Some((facts, commands)) = next else { return };
        // A pause that is over belongs to an earlier decision; this one is not to be sent twice for it.
        self.not_before = None;
        let (prev, basis) = (self.line.last_decision(), self.line.seq());
        self.in_flight = Some(InFlight::new(Decision { prev, basis, facts }, commands));
        self.send();
    }

    fn send(&mut self) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.send(&self.log, &self.queue);
        }
    }

    /// What was ordered and is not done yet: one entry's worth, of one kind. A redemption is asked of
    /// all workers: it is written by the one whose turn it is, and here only if that is us; whoever
    /// stands by answers it once it is written, and writes it itself when it goes on.
    fn ordered(&mut self, is_active: bool) -> Option<(Facts, Vec<Command>)> {
        let (now, kid) = (self.judging(), self.kid());
        let mut entry: Option<Facts> = None;
        let mut taken = Vec::new();
        for command in std::mem::take(&mut self.commands) {
            let (next, command) = command.next(&self.line, now, &kid);
            match (next, command) {
                (Next::Write(Facts::Redeemed(_)), Some(command)) if !is_active => {
                    self.commands.push_back(command);
                }
                (Next::Write(facts), Some(command)) if taken.len() < DECISIONS_PER_ENTRY_MAX => {
                    if merge(&mut entry, facts) {
                        taken.push(command);
                    } else {
                        self.commands.push_back(command);
                    }
                }
                (Next::Write(_) | Next::Wait, Some(command)) => self.commands.push_back(command),
                (_, None) | (Next::Answered, Some(_)) => {}
            }
        }
        entry.map(|facts| (facts, taken))
    }

    /// What nobody ordered: an outage that is over, our key, dead nodes, the site's load, and what time
    /// brings.
    fn due(&mut self) -> Option<Facts> {
        if let Some(seconds) = self.service.take_outage(&self.line) {
            tracing::warn!(queue = %self.queue, seconds, "after an outage: graces and grants are prolonged");
            return Some(scheduled(Setting::Outage { seconds }));
        }
        if let Some(keys) = self.new_keys() {
            return Some(scheduled(Setting::Keys(keys)));
        }
        if let Some(facts) = admit::lost(&self.line, |node| self.beats.is_silent(node)) {
            tracing::warn!(queue = %self.queue, ?facts, "nodes are silent");
            return Some(facts);
        }
        if let Some(facts) = self.followed() {
            return Some(facts);
        }
        let now = self.now();
        let due = match admit::by_time(&self.line, now).filter(|_| self.service.is_time_sure()) {
            Some(facts) => Due::Facts(facts),
            None => admit::admissions(&self.line, now),
        };
        match due {
            Due::Facts(facts) => Some(facts),
            Due::Admit(visitors) => Some(Facts::Admitted(
                visitors.into_iter().map(|visitor| self.grant(visitor)).collect(),
            )),
            Due::Nothing(Idle::Rate(at)) => {
                let wait = u64::try_from(at.since(now)).unwrap_or(0);
                self.next_due = Some(clock::monotonic() + Duration::from_nanos(wait));
                None
            }
            Due::Nothing(Idle::NotOpen | Idle::NobodyHere | Idle::Full) => None,
        }
    }

    /// The rate that the site's load asks for, if it is another. Only of an open queue: of one that
    /// lets nobody in the load says nothing about the rate.
    fn followed(&self) -> Option<Facts> {
        if self.line.state() != State::Open {
            return None;
        }
        let now = self.now();
        let rate = load::InForce {
            per_minute: self.line.rate().0,
            cap: self.line.policy().rate_per_minute,
            decided_at: self.line.follows().map(|follows| follows.at),
        };
        // Somebody could be let in, were it not for the rate.
        let wanted = matches!(
            admit::admissions(&self.line, now),
            Due::Admit(_) | Due::Nothing(Idle::Rate(_))
        );
        let followed = load::follow(&self.loads, &rate, wanted, now)?;
        let (from, to) = (rate.per_minute, followed.per_minute);
        tracing::info!(queue = %self.queue, from, to, "the rate follows the load");
        let what = Setting::Rate { per_minute: Some(followed.per_minute), loads: followed.loads };
        Some(Facts::Configured(vec![Configured { by: BY_LOAD.to_owned(), what }]))
    }

    /// The keys of the queue with ours, if ours are not among them yet.
    fn new_keys(&self) -> Option<Vec<PublicKey>> {
        let ours = self.published.to_stand(self.signing.keys.signer().public_keys());
        let known = self.line.keys();
        let is_new =
            self.line.last_decision() > Seq(0) && ours.iter().any(|key| !known.contains(key));
        is_new.then(|| with_ours(known, &ours))
    }

    /// The key that signs now.
    pub(super) fn kid(&self) -> String {
        let ours = self.signing.keys.signer().public_keys();
        // A signer holds one at least.
        self.published.signing(&ours, self.now(), self.signing.rest).unwrap_or_default()
    }

    fn grant(&self, visitor: VisitorId) -> Admitted {
        Admitted {
            visitor,
            jti: ids::jti(),
            kid: self.kid(),
            seconds: self.line.policy().token_seconds,
        }
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

fn scheduled(what: Setting) -> Facts {
    Facts::Configured(vec![Configured { by: SCHEDULE.to_owned(), what }])
}

/// Adds facts to an entry of the same kind; false when they have to wait for another one. Two
/// redemptions of one grant never share an entry, since the second is answered from the first; nor do
/// two sets of keys, of which the second is made from the first.
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
            let sets_keys = |fact: &Configured| matches!(fact.what, Setting::Keys(_));
            let twice = all.iter().any(sets_keys) && more.iter().any(sets_keys);
            if !twice {
                all.extend(more);
            }
            !twice
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

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::admission::command::What;

    fn keys(kids: &str) -> Vec<PublicKey> {
        let key = |kid: &str| PublicKey { kid: kid.to_owned(), x: [0; 32] };
        kids.split_whitespace().map(key).collect()
    }

    fn write(line: &mut Line, facts: Facts) {
        let decision = Decision { prev: line.last_decision(), basis: line.seq(), facts };
        line.apply(Seq(line.seq().0 + 1), At(0), &Entry::Decided(decision));
    }

    fn forget(kid: &str) -> Command {
        let (done, _) = oneshot::channel();
        let (kid, by, asked) = (kid.to_owned(), "operator".to_owned(), clock::monotonic());
        let what = What::Forget { kid, ours: keys("new"), by, done };
        Command { what, asked, until: asked, written: None }
    }

    #[test]
    fn of_two_keys_that_are_taken_out_at_the_same_time_neither_comes_back() {
        let mut line = Line::default();
        write(&mut line, scheduled(Setting::Keys(keys("c b a"))));
        let mut commands: Vec<Command> = ["a", "b", "c"].map(forget).into();
        let mut left = Vec::new();
        while !commands.is_empty() {
            // As a worker does: what doesn't go into one entry waits for what comes of it.
            let mut entry = None;
            let mut later = Vec::new();
            for command in commands {
                let (Next::Write(facts), Some(command)) = command.next(&line, None, "c") else {
                    panic!("a key that is there was not taken out");
                };
                if !merge(&mut entry, facts) {
                    later.push(command);
                }
            }
            write(&mut line, entry.unwrap());
            let kids = line.keys().iter().map(|key| key.kid.as_str());
            left.push(kids.collect::<Vec<_>>().join(" "));
            commands = later;
        }
        // A queue is never left without a key.
        assert_eq!(left, ["c b", "c", "new"]);
    }
}
