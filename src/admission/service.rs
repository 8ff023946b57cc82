//! When people could last be served: the log's time as a worker knows it, whether it hears the log, and
//! the outage that is to be written before anybody is judged.

use std::time::{Duration, Instant};

use crate::clock::{self, LogClock};
use crate::log::stream::Info;
use crate::queue::event::{At, Configured, Decision, Facts, Millis, Presence, Setting};
use crate::queue::line::Line;
use crate::queue::time::AGREED_NANOS_MAX;
use crate::wire::event::OUTAGE_SECONDS_MAX;

/// An interruption below this is none: people's graces are longer than the difference it makes.
const OUTAGE_SECONDS_MIN: i64 = 10;
/// Whoever decides writes an outage first of all, as soon as it has read what it missed: within this.
const WRITTEN_WITHIN: Duration = Duration::from_secs(3);
/// Between two entries that say nothing but the time, where the servers' clocks are wrong: the first one
/// tells every reader, and what it does not mend the next one does not either.
const TIME_EVERY: Duration = Duration::from_secs(1);
const NANOS_PER_SECOND: i64 = 1_000_000_000;
/// By so much a second a server's clock is followed: more than any clock goes wrong by itself. So what
/// several servers differ by, each time that another leads, does not add up.
const STEP_NANOS_MAX: i64 = 1_000_000;
/// In thousandths of the stream's limit: from here on nobody's coming and going is written down, so that
/// what decides about people has room to the end …
const PRESENCE_OFF_MILLI: u16 = 900;
/// … and below this, where the limit has grown, it is again.
const PRESENCE_ON_MILLI: u16 = 850;

/// What a worker knows of it.
#[derive(Default)]
pub(super) struct Service {
    /// It goes on evenly, whatever the servers' clocks do.
    clock: Option<LogClock>,
    /// What the log last said of itself; `None` while it is away.
    info: Option<Info>,
    /// Whether we have looked at what we missed since we were away, or began.
    is_back: bool,
    /// Since when we have.
    back_since: Option<Instant>,
    /// The last time at which people could be served, as far as is known.
    served_at: Option<At>,
    /// Seconds of an outage that is over and not written yet.
    outage: Option<u32>,
    /// By how many nanoseconds the server's clock is ahead of the log's time, where it is too far to be
    /// followed.
    apart: i64,
    /// When the time was last said for no other reason.
    told_time: Option<Instant>,
}

impl Service {
    /// The log's time now. What nodes have had written under a server whose clock is ahead may be later by
    /// some seconds: it is waited for, so that nothing of it is left over. It is the whole millisecond that
    /// a decision states: what is due by the one is due by the other, and no statement is ahead of the clock.
    pub(super) fn now(&self, line: &Line) -> At {
        Millis::from(self.clock.as_ref().map_or_else(|| line.at(), LogClock::now)).at()
    }

    /// The log is away, or we were stopped: nothing is decided before we know what was missed.
    pub(super) fn interrupt(&mut self) {
        self.info = None;
        self.is_back = false;
    }

    /// Whether everything that the log is known to have is folded.
    pub(super) fn is_caught_up(&self, line: &Line) -> bool {
        self.info.as_ref().is_some_and(|info| line.seq() >= info.last)
    }

    /// Whether it is known what was missed.
    pub(super) fn is_back(&self) -> bool {
        self.is_back
    }

    /// The log has said how far it is and what time it is.
    pub(super) fn hear_info(&mut self, info: &Info, line: &Line) {
        self.info = Some(info.clone());
        let now = self.now(line);
        let gap = self.served_at.map_or(0, |served_at| now.since(served_at) / NANOS_PER_SECOND);
        if gap > OUTAGE_SECONDS_MIN {
            // The log may have been there all the time: we were not.
            self.is_back = false;
        }
        if self.is_back {
            self.served_at = Some(now);
            self.compare(line);
        }
    }

    /// What an entry that was just folded says of when people could last be served. A decision is
    /// service. What nodes write proves only that the log was there, so it counts where nobody's grace or
    /// grant was running before it (`was_idle`), whom it could have cost something. What can't be known is
    /// taken in the visitors' favour: an outage that is stated too long prolongs their time, and no more.
    pub(super) fn hear_entry(&mut self, decision: Option<&Decision>, line: &Line, was_idle: bool) {
        let Some(decision) = decision else {
            if !self.is_back && was_idle {
                self.served_at = Some(line.at());
            }
            return;
        };
        self.served_at = Some(line.at());
        if outage_of(&decision.facts).is_some() {
            // Whoever wrote it, it is written.
            self.outage = None;
        }
        // The log took less than was stated: whoever decided is ahead of the servers' clocks. That we hear of
        // it late says nothing; only a clock that was stopped is so far behind.
        let was_ahead = decision.now.at().since(line.at()) > AGREED_NANOS_MAX;
        if let Some(clock) = self.clock.as_mut().filter(|_| self.is_back)
            && (was_ahead || clock.is_behind(line.at()))
        {
            clock.correct(line.at());
            self.served_at = Some(line.at());
        }
    }

    /// Another worker decides. What we know as an outage was none, if it was only us who were away; one
    /// of the log it has written before all else. But it may die before it has, and then it is up to us:
    /// so nothing is forgotten at once.
    pub(super) fn is_served_by_another(&mut self) {
        let is_long = |since: Instant| clock::monotonic().duration_since(since) > WRITTEN_WITHIN;
        if self.is_back && self.back_since.is_some_and(is_long) {
            self.outage = None;
        }
    }

    /// Everything that was missed is folded. If it was an outage, it is to be written before anything
    /// is decided.
    pub(super) fn come_back(&mut self, line: &Line) {
        self.is_back = true;
        self.back_since = Some(clock::monotonic());
        self.compare(line);
        let now = self.now(line);
        let Some(served_at) = self.served_at.replace(now) else { return };
        let seconds = now.since(served_at) / NANOS_PER_SECOND;
        if seconds > OUTAGE_SECONDS_MIN {
            let seconds = seconds.clamp(0, i64::from(OUTAGE_SECONDS_MAX));
            self.outage = u32::try_from(seconds).ok();
        }
    }

    /// Whether there is an outage to be written.
    pub(super) fn has_outage(&self) -> bool {
        self.outage.is_some()
    }

    /// The outage that is to be written now, if it was one for anybody.
    pub(super) fn take_outage(&mut self, line: &Line) -> Option<u32> {
        self.outage.take().filter(|_| is_anyone_s_time_running(line))
    }

    /// An outage that was to be written and was not is still to be written.
    pub(super) fn keep_outage(&mut self, facts: &Facts) {
        self.outage = self.outage.or_else(|| outage_of(facts));
    }

    /// Whether the time is to be said though there is nothing else to say: it stands still in the log, or
    /// the server that leads now has another clock.
    pub(super) fn take_time_due(&mut self, line: &Line) -> bool {
        let now = clock::monotonic();
        let is_recent = self.told_time.is_some_and(|told| now.duration_since(told) < TIME_EVERY);
        let is_due = (line.time().is_withheld() || self.apart != 0) && !is_recent;
        if is_due {
            self.told_time = Some(now);
            self.apart = 0;
        }
        is_due
    }

    /// Bytes that the log holds, and that it may hold, as the server last said.
    pub(super) fn log_bytes(&self) -> Option<(u64, u64)> {
        self.info.as_ref().map(|info| (info.bytes, info.max_bytes))
    }

    /// Whether it is to be written down again, or no more, who comes and goes.
    pub(super) fn presence_due(&self, line: &Line) -> Option<Presence> {
        let info = self.info.as_ref()?;
        let milli = info.full_milli();
        match line.presence().state {
            Presence::On if milli >= PRESENCE_OFF_MILLI => Some(Presence::Off),
            Presence::Off if milli < PRESENCE_ON_MILLI => Some(Presence::On),
            Presence::On | Presence::Off => None,
        }
    }

    /// Follows the server's clock, as far as it goes evenly. It is believed before anything is known.
    fn compare(&mut self, line: &Line) {
        let Some(info) = &self.info else { return };
        let raw = line.time().raw(info.now);
        let Some(clock) = &mut self.clock else {
            self.clock = Some(LogClock::since(raw, info.heard));
            return;
        };
        self.apart = clock.follow(raw, info.asked, info.heard, STEP_NANOS_MAX);
    }
}

/// Whether there is a grace or a grant that an outage could cost someone.
pub(super) fn is_anyone_s_time_running(line: &Line) -> bool {
    !line.unused().is_empty() || line.present().len() < line.waiting().len()
}

/// The seconds of the outage among these facts.
pub(super) fn outage_of(facts: &Facts) -> Option<u32> {
    let Facts::Configured(facts) = facts else { return None };
    facts.iter().find_map(|Configured { what, .. }| match what {
        Setting::Outage { seconds } => Some(*seconds),
        Setting::Policy(_)
        | Setting::State(..)
        | Setting::Keys(_)
        | Setting::Rate { .. }
        | Setting::Presence(_)
        | Setting::Secret(_)
        | Setting::Time => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::admit;
    use crate::queue::event::{
        Disconnected, Entry, Join, Joined, NodeId, Seq, State, VisitorId, WorkerId,
    };

    const SECOND: i64 = NANOS_PER_SECOND;
    const HOUR: i64 = 3_600 * SECOND;
    /// When the story begins, by the log.
    const BEGAN: At = At(1_000 * HOUR);

    /// A worker and its fold, and a log whose clock is set as one likes.
    struct Told {
        line: Line,
        service: Service,
    }

    impl Told {
        /// An open queue with somebody who has just gone away, seen by a worker that serves.
        fn begin() -> Self {
            let mut told = Self { line: Line::default(), service: Service::default() };
            let (node, visitor) = (NodeId([9; 16]), VisitorId([1; 16]));
            told.decide(BEGAN, BEGAN, Setting::State(State::Open, None));
            let visitors = vec![Join::plain(visitor, 1)];
            told.write(BEGAN, &Entry::Joined(Joined { node, visitors }));
            let visitors = vec![(visitor, 1)];
            told.write(BEGAN, &Entry::Disconnected(Disconnected { node, visitors }));
            told.look(BEGAN);
            told
        }

        fn write(&mut self, stored: At, entry: &Entry) {
            let was_idle = !is_anyone_s_time_running(&self.line);
            self.line.apply(Seq(self.line.seq().0 + 1), stored, entry);
            let decision = if let Entry::Decided(decision) = entry { Some(decision) } else { None };
            self.service.hear_entry(decision, &self.line, was_idle);
        }

        fn decide(&mut self, stored: At, now: At, what: Setting) {
            let facts = Facts::Configured(vec![Configured { by: "operator".to_owned(), what }]);
            let (prev, basis) = (self.line.last_decision(), self.line.seq());
            let (now, worker) = (Millis::from(now), WorkerId([1; 16]));
            self.write(stored, &Entry::Decided(Decision { prev, basis, now, worker, facts }));
        }

        /// What the worker writes when it is due, stored at this time of the server's.
        fn tell_time(&mut self, stored: At) -> bool {
            let is_due = self.service.take_time_due(&self.line);
            if is_due {
                let now = self.service.now(&self.line);
                self.decide(stored, now, Setting::Time);
            }
            is_due
        }

        /// The server says what time it is, and the worker sees what it has missed.
        fn look(&mut self, now: At) {
            let info = Info { last: self.line.seq(), ..info(now) };
            self.service.hear_info(&info, &self.line);
            if !self.service.is_back() && self.service.is_caught_up(&self.line) {
                self.service.come_back(&self.line);
            }
        }

        /// Whether somebody's time is over, as the worker judges it.
        fn judges(&self) -> bool {
            let now = self.service.now(&self.line);
            admit::by_time(&self.line, now).is_some()
        }

        /// Seconds of the log's time since the story began.
        fn seconds(&self) -> i64 {
            self.service.now(&self.line).since(BEGAN) / SECOND
        }
    }

    /// What a server says at this time, by its clock.
    fn info(now: At) -> Info {
        Info {
            created: BEGAN,
            first: Seq(1),
            last: Seq(0),
            bytes: 0,
            max_bytes: 0,
            secret: None,
            now,
            asked: clock::monotonic(),
            heard: clock::monotonic(),
        }
    }

    #[test]
    fn a_server_whose_clock_is_an_hour_off_either_way_neither_stops_nor_hurries_the_time() {
        for off in [HOUR, -HOUR] {
            let mut told = Told::begin();
            told.look(At(BEGAN.0 + off));
            assert!(!told.judges() && !told.service.has_outage());
            assert!(told.tell_time(At(BEGAN.0 + off)), "every reader is to know");
            assert_eq!((told.seconds(), told.line.time().shift / SECOND), (0, -off / SECOND));
            // From now on its clock is as good as any.
            told.service.told_time = None;
            told.look(At(BEGAN.0 + off));
            assert!(!told.tell_time(At(BEGAN.0 + off)));
            // The first one leads again.
            told.look(BEGAN);
            assert!(told.tell_time(BEGAN));
            assert_eq!((told.seconds(), told.line.time().shift / SECOND), (0, 0));
        }
    }

    #[test]
    fn where_nothing_is_decided_the_time_is_said_so_that_it_goes_on() {
        let mut told = Told::begin();
        let later = |seconds: i64| At(BEGAN.0 + seconds * SECOND);
        let gone = Entry::Left(vec![]);
        told.service.clock = Some(LogClock::new(later(60)));
        told.write(later(60), &gone);
        assert_eq!(told.line.at(), later(5));
        assert!(told.tell_time(later(60)));
        assert_eq!(told.line.at().since(BEGAN) / SECOND, 60);
        assert!(!told.tell_time(later(60)), "once is enough");
    }

    #[test]
    fn an_outage_is_not_taken_for_written_because_another_worker_has_just_begun_to_decide() {
        let mut told = Told::begin();
        told.service.interrupt();
        // Ten minutes later, by both clocks.
        let later = At(BEGAN.0 + 600 * SECOND + SECOND / 2);
        told.service.clock = Some(LogClock::new(later));
        told.service.is_served_by_another();
        told.look(later);
        told.service.is_served_by_another();
        assert_eq!(told.service.take_outage(&told.line), Some(600));
    }

    #[test]
    fn a_worker_that_reads_for_long_when_it_begins_holds_the_time_back_by_nothing() {
        let mut told = Told::begin();
        for _ in 0..2 {
            // It is asked what time it is, reads the log for four seconds, and goes on.
            told.service = Service::default();
            let asked = clock::monotonic() - Duration::from_secs(4);
            let info = Info { asked, heard: asked, last: told.line.seq(), ..info(BEGAN) };
            told.service.hear_info(&info, &told.line);
            told.service.come_back(&told.line);
            assert_eq!(told.seconds(), 4);
            told.look(At(BEGAN.0 + 4 * SECOND));
            assert!(!told.tell_time(At(BEGAN.0 + 4 * SECOND)));
        }
        assert_eq!(told.line.time().shift, 0);
    }

    #[test]
    fn a_decision_that_is_heard_late_makes_no_other_clock_right() {
        let mut told = Told::begin();
        // Three seconds pass before our own decision comes back, and then another server leads.
        told.decide(BEGAN, BEGAN, Setting::Time);
        told.service.clock = Some(LogClock::new(At(BEGAN.0 + 3 * SECOND)));
        told.look(At(BEGAN.0 + 300 * SECOND));
        assert_eq!(told.seconds(), 3);
    }

    #[test]
    fn an_outage_behind_a_shift_is_as_long_as_it_was() {
        let mut told = Told::begin();
        let ahead = At(BEGAN.0 + 300 * SECOND);
        told.decide(ahead, BEGAN, Setting::Time);
        // The worker is gone for 200 s, and another begins.
        told.service.interrupt();
        told.service.clock = Some(LogClock::new(At(BEGAN.0 + 200 * SECOND)));
        told.look(At(ahead.0 + 200 * SECOND));
        assert_eq!(told.service.take_outage(&told.line), Some(200));
    }

    #[test]
    fn a_worker_follows_the_time_that_another_had_to_take() {
        let mut told = Told::begin();
        // It took the time to be an hour later, and was stored by a server that knew better.
        let stored = At(BEGAN.0 + 3 * SECOND);
        told.service.clock = Some(LogClock::new(At(BEGAN.0 + HOUR)));
        told.decide(stored, At(BEGAN.0 + HOUR), Setting::Time);
        told.look(stored);
        assert_eq!(told.seconds(), 3);
    }
}
