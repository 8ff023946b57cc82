//! The log's time beside clocks: of servers that take turns, of honest workers, and of workers that lie.

use anteroom::queue::event::{At, Configured, Decision, Entry, Facts, Millis, Seq, Setting};
use anteroom::queue::line::Line;
use anteroom::queue::time::AGREED_NANOS_MAX;
use proptest::prelude::*;

use crate::story::fresh;

const SECOND: i64 = 1_000_000_000;

/// A decision that says nothing but the time.
fn says(line: &Line, now: Millis) -> Entry {
    let what = Setting::Time;
    let facts = Facts::Configured(vec![Configured { by: "schedule".to_owned(), what }]);
    let Entry::Decided(decision) = fresh(line, At(0), facts) else {
        return Entry::Void { fenced: true };
    };
    Entry::Decided(Decision { now, ..decision })
}

/// When the log begins, by the clock that goes evenly.
const BEGINS: i64 = 1_795_377_600 * SECOND;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn twenty_changes_between_clocks_five_minutes_apart_leave_nothing_behind(
        // For so many seconds a server leads whose clock is so many milliseconds off.
        leaders in prop::collection::vec(
            (1..60i64, prop::sample::select(vec![-300_000, 0, 300_000])),
            20,
        ),
        written in 0..1_000i64,
    ) {
        even_enough(&leaders, written, false, 0)?;
    }

    #[test]
    fn twenty_changes_between_clocks_leave_no_more_than_what_is_agreed(
        leaders in prop::collection::vec((1..60i64, apart()), 20),
        written in 0..1_000i64,
    ) {
        even_enough(&leaders, written, false, AGREED_NANOS_MAX)?;
    }

    // What nodes write before a new leader has heard of a decision moves the time by the whole five
    // seconds. It stands still then whenever something is decided, and goes on between: half a second in
    // each, here.
    #[test]
    fn what_a_new_leader_stores_first_moves_the_time_for_a_while(
        leaders in prop::collection::vec((20..60i64, apart()), 20),
        written in 0..500i64,
    ) {
        even_enough(&leaders, written, true, AGREED_NANOS_MAX)?;
    }

    #[test]
    fn each_change_of_leader_moves_the_time_by_five_seconds_at_most(
        leaders in prop::collection::vec((1..60i64, -300_000..=300_000i64), 20),
        written in 0..1_000i64,
    ) {
        even_enough(&leaders, written, true, AGREED_NANOS_MAX + 20 * 5 * SECOND)?;
    }

    #[test]
    fn a_worker_that_lies_gains_five_seconds_for_each_step_back_of_a_servers_clock(
        steps in steps(),
    ) {
        let extremes = [Millis(0), Millis((1 << 53) - 1)].into_iter().cycle();
        lies(steps.into_iter().zip(extremes.map(Lie::Says)), 5 * SECOND, 0)?;
    }

    #[test]
    fn whatever_a_worker_says_it_gains_no_more_than_that_and_what_is_agreed(
        steps in steps(),
        lies in prop::collection::vec(lie(), 120),
    ) {
        self::lies(steps.into_iter().zip(lies), 5 * SECOND + AGREED_NANOS_MAX, AGREED_NANOS_MAX)?;
    }
}

/// Milliseconds by which a server's clock is off: two of them agree, or are far from it. (One that is two or
/// three seconds behind another has the time wait for it.)
fn apart() -> impl Strategy<Value = i64> {
    (-30..=30i64, -500..=500i64).prop_map(|(tens, millis)| tens * 10_000 + millis)
}

/// Milliseconds by which a server's clock goes on from decision to decision, or back.
fn steps() -> impl Strategy<Value = Vec<i64>> {
    let step = prop_oneof![6 => 0..5_000i64, 1 => -400_000..0i64, 1 => -3_000..0i64];
    prop::collection::vec(step, 1..120)
}

/// What a worker says that does not care what time it is.
#[derive(Clone, Copy, Debug)]
enum Lie {
    Says(Millis),
    /// So many milliseconds more than the log's time, as the server's clock has it.
    Off(i64),
}

fn lie() -> impl Strategy<Value = Lie> {
    let extremes = prop::sample::select(vec![Millis(0), Millis((1 << 53) - 1)]);
    prop_oneof![
        2 => extremes.prop_map(Lie::Says),
        1 => Just(Lie::Off(2_000)),
        1 => (-8_000..8_000i64).prop_map(Lie::Off),
    ]
}

/// Asserts that the log's time gains no more on the servers' clocks, each step back of theirs left out, than
/// `each` for such a step, and `once`.
fn lies(said: impl Iterator<Item = (i64, Lie)>, each: i64, once: i64) -> Result<(), TestCaseError> {
    const MILLI: i64 = 1_000_000;
    let mut line = Line::default();
    // How far the clocks went on, and how often back.
    let (mut clock, mut on, mut back) = (BEGINS, BEGINS, 0);
    line.apply(Seq(1), At(clock), &says(&line, Millis::from(At(clock))));
    for (step, lie) in said {
        clock += step * MILLI;
        on += step.max(0) * MILLI;
        back += i64::from(step < 0);
        let now = match lie {
            Lie::Says(now) => now,
            Lie::Off(off) => Millis::from(At(line.time().raw(At(clock)).0 + off * MILLI)),
        };
        let before = line.at();
        line.apply(Seq(line.seq().0 + 1), At(clock), &says(&line, now));
        prop_assert!(line.at() >= before);
        let most = At(on + back * each + once);
        prop_assert!(line.at() <= most, "{} ns beyond", line.at().since(most));
    }
    Ok(())
}

/// Asserts that the time goes on as an even clock does, while servers take turns and something is decided
/// each second, and written by a node so many milliseconds after it: at most five seconds ahead of it and
/// one behind, and what servers and workers may be `apart` unnoticed. The first entry that a new leader
/// stores may be one that is `heard` before a decision is.
fn even_enough(
    leaders: &[(i64, i64)],
    written: i64,
    heard: bool,
    apart: i64,
) -> Result<(), TestCaseError> {
    const MILLI: i64 = 1_000_000;
    let mut clocks = Clocks { line: Line::default(), apart, moved: BEGINS };
    let mut even = BEGINS;
    for (seconds, off) in [(1, 0)].iter().chain(leaders).chain(&[(10, 0)]) {
        let off = off * MILLI;
        if heard && even > BEGINS {
            clocks.write(even - 1, off, false)?;
        }
        for _ in 0..*seconds {
            clocks.write(even, off, true)?;
            clocks.write(even + written * MILLI, off, false)?;
            even += SECOND;
        }
    }
    let left_over = clocks.line.at().since(At(even - SECOND + written * MILLI));
    prop_assert!(left_over.abs() <= apart, "{} ns are left over", left_over);
    Ok(())
}

/// A log beside an even clock.
struct Clocks {
    line: Line,
    apart: i64,
    /// When the log's time last went on.
    moved: i64,
}

impl Clocks {
    /// Stores an entry by a server whose clock is off: a decision by an honest worker, or what a node says.
    fn write(&mut self, now: i64, off: i64, decided: bool) -> Result<(), TestCaseError> {
        let node = Entry::Void { fenced: false };
        let entry = if decided { says(&self.line, Millis::from(At(now))) } else { node };
        let before = self.line.at();
        self.line.apply(Seq(self.line.seq().0 + 1), At(now + off), &entry);
        let ahead = self.line.at().since(At(now));
        prop_assert!(ahead <= 5 * SECOND + self.apart, "{} ns ahead", ahead);
        prop_assert!(ahead >= -SECOND - self.apart, "{} ns behind", -ahead);
        if self.line.at() > before {
            self.moved = now;
        }
        prop_assert!(now - self.moved <= 5 * SECOND + self.apart, "it stands since {}", self.moved);
        Ok(())
    }
}

#[test]
fn a_worker_that_says_0_holds_the_time_back_and_the_next_one_sets_it_right() {
    let mut line = Line::default();
    for second in 0..100 {
        let stored = At(BEGINS + second * SECOND);
        let now = Millis::from(if second == 0 { stored } else { At(0) });
        line.apply(Seq(line.seq().0 + 1), stored, &says(&line, now));
    }
    assert_eq!(line.at(), At(BEGINS));
    let stored = At(BEGINS + 100 * SECOND);
    line.apply(Seq(line.seq().0 + 1), stored, &says(&line, Millis::from(stored)));
    assert_eq!(line.at(), stored);
    assert_eq!(line.graces().running(line.at()), At(BEGINS + SECOND), "the rest is an outage");
}
