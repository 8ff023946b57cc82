//! When people could last be served: the log's time as a worker knows it, whether it hears the log, and
//! the outage that is to be written before anybody is judged.

use std::time::{Duration, Instant};

use crate::clock::{self, LogClock};
use crate::log::stream::Info;
use crate::queue::event::{At, Configured, Entry, Facts, Seq, Setting};
use crate::queue::line::Line;
use crate::wire::event::OUTAGE_SECONDS_MAX;

/// An interruption below this is none: people's graces are longer than the difference it makes. The
/// clocks may be as far apart before they are said to disagree.
const OUTAGE_SECONDS_MIN: i64 = 10;
/// After the clocks have disagreed nobody's time is taken to be over for so long: a clock that was set
/// may be set again.
const DOUBT: Duration = Duration::from_secs(60);
/// Whoever decides writes an outage first of all, as soon as it has read what it missed: within this.
const WRITTEN_WITHIN: Duration = Duration::from_secs(3);
const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// What a worker knows of it.
#[derive(Default)]
pub(super) struct Service {
    clock: Option<LogClock>,
    /// The log's end as last heard; `None` while the log is away.
    end: Option<Seq>,
    /// Whether we have looked at what we missed since we were away, or began.
    is_back: bool,
    /// Since when we have.
    back_since: Option<Instant>,
    /// The last time at which people could be served, as far as is known.
    served_at: Option<At>,
    /// Seconds of an outage that is over and not written yet.
    outage: Option<u32>,
    /// When the log's clock and this machine's monotonic one last disagreed, and by how many seconds.
    disagreed: Option<(Instant, i64)>,
}

impl Service {
    /// The log's time now.
    pub(super) fn now(&self, line: &Line) -> At {
        let now = self.clock.as_ref().map_or(At(0), LogClock::now);
        now.max(line.at())
    }

    /// The log is away, or we were stopped: nothing is decided before we know what was missed.
    pub(super) fn interrupt(&mut self) {
        self.end = None;
        self.is_back = false;
    }

    /// Whether everything that the log is known to have is folded.
    pub(super) fn is_caught_up(&self, line: &Line) -> bool {
        self.end.is_some_and(|end| line.seq() >= end)
    }

    /// Whether it is known what was missed.
    pub(super) fn is_back(&self) -> bool {
        self.is_back
    }

    /// The log has said how far it is and what time it is.
    pub(super) fn hear_info(&mut self, info: &Info) {
        let apart = match &mut self.clock {
            Some(clock) => clock.hear_answer(info.now, info.asked),
            None => {
                self.clock = Some(LogClock::new(info.now));
                0
            }
        };
        self.compare(apart);
        self.end = Some(info.last);
        let gap =
            self.served_at.map_or(0, |served_at| info.now.since(served_at) / NANOS_PER_SECOND);
        if gap > OUTAGE_SECONDS_MIN {
            // The log may have been there all the time: we were not.
            self.is_back = false;
        }
        if self.is_back {
            self.served_at = Some(info.now);
        }
    }

    /// What an entry that is about to be folded says of when people could last be served. A decision
    /// is service. What nodes write proves only that the log was there, so it counts while nobody's
    /// grace or grant was running, whom it could have cost something. What can't be known is taken in
    /// the visitors' favour: an outage that is stated too long prolongs their time, and no more.
    pub(super) fn hear_entry(&mut self, stored: At, entry: &Entry, line: &Line) {
        let apart = self.clock.map_or(0, |clock| stored.since(clock.now()).max(0));
        if self.is_back && self.compare(apart) {
            // It stands in the log with a time that cannot be yet: whose time is over by that?
            self.is_back = false;
            self.clock = Some(LogClock::new(stored));
            return;
        }
        if let Entry::Decided(decision) = entry {
            self.served_at = Some(stored);
            if outage_of(&decision.facts).is_some() {
                // Whoever wrote it, it is written.
                self.outage = None;
            }
        } else if !self.is_back && !is_anyone_s_time_running(line) {
            self.served_at = Some(stored);
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

    /// Whether the log's time can be trusted to say that somebody's time is over.
    pub(super) fn is_time_sure(&self) -> bool {
        self.disagreed.is_none_or(|(when, _)| clock::monotonic().duration_since(when) >= DOUBT)
    }

    /// Why the log's time can't be trusted, in words for an operator.
    pub(super) fn doubt(&self, line: &Line) -> Option<String> {
        let behind = self.clock.map_or(0, |clock| line.at().since(clock.now()) / NANOS_PER_SECOND);
        if behind > OUTAGE_SECONDS_MIN {
            return Some(format!(
                "the log's clock is {behind} s behind its own last entry: until it is there again \
                 nobody's time runs, and no more are let in than a burst"
            ));
        }
        let (_, seconds) = self.disagreed.filter(|_| !self.is_time_sure())?;
        Some(format!(
            "the log's clock and this machine's monotonic one came to differ by {seconds} s: \
             nobody's time is taken to be over until they have agreed for {} s",
            DOUBT.as_secs()
        ))
    }

    /// Notes how far the clocks are apart, in nanoseconds; whether that is too far.
    fn compare(&mut self, apart: i64) -> bool {
        let seconds = apart / NANOS_PER_SECOND;
        if seconds.abs() <= OUTAGE_SECONDS_MIN {
            return false;
        }
        if self.is_time_sure() {
            tracing::error!(seconds, "the log's clock and the monotonic one disagree");
        }
        self.disagreed = Some((clock::monotonic(), seconds));
        true
    }
}

/// Whether there is a grace or a grant that an outage could cost someone.
fn is_anyone_s_time_running(line: &Line) -> bool {
    !line.unused().is_empty() || line.present().len() < line.waiting().len()
}

/// The seconds of the outage among these facts.
pub(super) fn outage_of(facts: &Facts) -> Option<u32> {
    let Facts::Configured(facts) = facts else { return None };
    facts.iter().find_map(|Configured { what, .. }| match what {
        Setting::Outage { seconds } => Some(*seconds),
        Setting::Policy(_) | Setting::State(..) | Setting::Keys(_) | Setting::Rate { .. } => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::admit;
    use crate::queue::event::{Decision, NodeId, Seated, State, VisitorId};

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
            let seated = |number| {
                let visitors = vec![(VisitorId([number; 16]), 1)];
                Seated { node: NodeId([9; 16]), visitors }
            };
            told.write(BEGAN, &decided(0, 0, Setting::State(State::Open, None)));
            told.write(BEGAN, &Entry::Joined(seated(1)));
            told.write(BEGAN, &Entry::Disconnected(seated(1)));
            told.look(BEGAN);
            told
        }

        fn write(&mut self, stored: At, entry: &Entry) {
            self.service.hear_entry(stored, entry, &self.line);
            self.line.apply(Seq(self.line.seq().0 + 1), stored, entry);
        }

        /// The server says what time it is, and the worker sees what it has missed.
        fn look(&mut self, now: At) {
            self.service.hear_info(&Info {
                created: BEGAN,
                first: Seq(1),
                last: self.line.seq(),
                bytes: 0,
                max_bytes: 0,
                now,
                asked: clock::monotonic(),
            });
            if !self.service.is_back() && self.service.is_caught_up(&self.line) {
                self.service.come_back(&self.line);
            }
        }

        /// Whether somebody's time is over, as the worker judges it.
        fn judges(&self) -> bool {
            let now = self.service.now(&self.line);
            admit::by_time(&self.line, now).is_some_and(|_| self.service.is_time_sure())
        }

        fn doubt(&self) -> String {
            self.service.doubt(&self.line).unwrap_or_default()
        }
    }

    fn decided(prev: u64, basis: u64, what: Setting) -> Entry {
        let facts = Facts::Configured(vec![Configured { by: "operator".to_owned(), what }]);
        Entry::Decided(Decision { prev: Seq(prev), basis: Seq(basis), facts })
    }

    #[test]
    fn a_log_clock_that_is_set_an_hour_ahead_is_an_outage_and_costs_nobody_their_grace() {
        let mut told = Told::begin();
        assert_eq!((told.judges(), told.doubt()), (false, String::new()));
        let ahead = At(BEGAN.0 + HOUR);
        told.look(ahead);
        // By its time alone the absent one's grace would be over.
        let now = told.service.now(&told.line);
        assert!(admit::by_time(&told.line, now).is_some());
        assert!(!told.judges());
        let says = "monotonic one came to differ by 3";
        assert!(told.doubt().contains(says), "{}", told.doubt());
        let seconds = told.service.take_outage(&told.line).unwrap();
        assert!((3_600..3_700).contains(&seconds), "{seconds}");
        told.write(ahead, &decided(1, 3, Setting::Outage { seconds }));
        told.look(ahead);
        assert!(!told.service.has_outage(), "it is written once");
        let now = told.service.now(&told.line);
        assert_eq!(admit::by_time(&told.line, now), None, "the grace goes on where it was");
    }

    #[test]
    fn an_entry_that_is_stored_an_hour_ahead_is_an_outage_too() {
        let mut told = Told::begin();
        told.write(At(BEGAN.0 + HOUR), &Entry::Left(vec![VisitorId([2; 16])]));
        assert!(!told.service.is_back(), "nothing is decided before it is known what was missed");
        told.look(At(BEGAN.0 + HOUR));
        assert!(!told.judges());
        assert!(told.service.has_outage());
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
    fn while_the_log_clock_is_behind_its_own_entries_nobodys_time_runs() {
        let mut told = Told::begin();
        told.look(At(BEGAN.0 - HOUR));
        assert!(!told.judges());
        let says = "behind its own last entry: until it is there again nobody's time runs";
        assert!(told.doubt().contains(says), "{}", told.doubt());
        assert_eq!(told.service.now(&told.line), BEGAN);
        assert!(!told.service.has_outage());
        // When the clock is there again, so is the grace.
        told.look(At(BEGAN.0 + SECOND));
        let now = told.service.now(&told.line);
        assert_eq!(admit::by_time(&told.line, now), None);
    }
}
