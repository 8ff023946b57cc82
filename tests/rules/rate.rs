//! The law of the rate: in any w seconds at most burst + w x rate / 60 people are let in.

use anteroom::queue::admit::{Due, Idle, decide};
use anteroom::queue::event::{
    At, Configured, Entry, Facts, Join, Joined, NodeId, Seq, Setting, State, VisitorId,
};
use anteroom::queue::line::Line;
use anteroom::queue::policy::Policy;
use proptest::prelude::*;

use crate::story::{entry_of, fresh};

const PEOPLE: u64 = 600;

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_window_of_any_length_lets_more_people_in_than_the_rate(
        rate_per_minute in prop_oneof![10..=600u32, 600..=6_000u32, 6_000..=600_000u32],
        // Thousandths of the interval between two people: until the worker looks again, and until
        // its entry is stored.
        ticks in prop::collection::vec((0..=20_000i64, 0..=1_500i64), 1..200),
        greedy in any::<bool>(),
    ) {
        let mut line = open(rate_per_minute);
        let rate = line.rate();
        let interval = rate.interval_nanos();
        let mut grants: Vec<At> = Vec::new();
        let mut now = At(1_000_000_000_000);
        for (wait, delay) in ticks {
            now = At(now.0 + wait * interval / 1_000);
            loop {
                let due = decide(&line, now);
                if let Due::Nothing(Idle::Rate(at)) = due {
                    let allowed_only_then = at > now
                        && matches!(decide(&line, at), Due::Admit(_))
                        && matches!(decide(&line, At(at.0 - 1)), Due::Nothing(_));
                    prop_assert!(allowed_only_then, "the next at {:?}, it is {:?}", at, now);
                    // A greedy worker looks at the first moment that may let someone in.
                    if greedy {
                        now = at;
                    }
                }
                let Due::Admit(ref visitors) = due else { break };
                let stored = At(now.0 + delay * interval / 1_000);
                grants.extend(visitors.iter().map(|_| stored));
                let Some(entry) = entry_of(&line, due, stored) else { break };
                let change = line.apply(Seq(line.seq().0 + 1), stored, &entry);
                prop_assert!(change.void.is_empty() && change.void_entry.is_none());
                now = stored;
            }
        }
        prop_assert!(!grants.is_empty());
        // Counted naively: every window that begins and ends with a grant, both of them in it.
        for (first, &from) in grants.iter().enumerate() {
            for (last, &to) in grants.iter().enumerate().skip(first) {
                let people = i128::try_from(last - first + 1)?;
                let most = i128::from(rate.burst()) * 60_000_000_000
                    + i128::from(to.since(from)) * i128::from(rate_per_minute);
                prop_assert!(people * 60_000_000_000 <= most, "{} from {:?} to {:?}", people, from, to);
            }
        }
    }

    #[test]
    fn a_rate_that_changes_gives_no_more_than_one_rate_after_the_other(
        // The rate from here on, and for how many thousandths of its interval it is looked at how often.
        changes in prop::collection::vec(
            (prop_oneof![1..=600u32, 600..=60_000u32], 0..=5_000i64, 1..=12usize, any::<bool>()),
            2..40,
        ),
    ) {
        let mut line = open(changes.first().map_or(60, |(rate, ..)| *rate));
        let mut now = At(1_000_000_000_000);
        // When, how many people the rates so far would have let in, in people x minute in nanoseconds,
        // and the greatest burst since the one before.
        let mut grants: Vec<(i128, u32)> = Vec::new();
        let (mut integral, mut burst) = (0i128, 0);
        let mut burst_before = 0u32;
        for (rate_per_minute, wait, looks, by_load) in changes {
            let what = if by_load {
                Setting::Rate { per_minute: Some(rate_per_minute), loads: Vec::new() }
            } else {
                Setting::Policy(Policy { rate_per_minute, token_seconds: 86_400, ..Policy::default() })
            };
            let facts = Facts::Configured(vec![Configured { by: "ops".to_owned(), what }]);
            let set = fresh(&line, now, facts);
            line.apply(Seq(line.seq().0 + 1), now, &set);
            let rate = line.rate();
            burst = burst.max(rate.burst());
            // What a lowering forgives.
            let forgiven = std::mem::replace(&mut burst_before, rate.burst()).saturating_sub(rate.burst());
            integral += i128::from(forgiven) * 60_000_000_000;
            // What is owed is taken over in whole nanoseconds, rounded down.
            integral += i128::from(rate.0);
            for _ in 0..looks {
                let passed = wait * rate.interval_nanos() / 1_000;
                now = At(now.0 + passed);
                integral += i128::from(passed) * i128::from(rate.0);
                while let due @ Due::Admit(_) = decide(&line, now) {
                    let before = line.admitted();
                    let Some(entry) = entry_of(&line, due, now) else { break };
                    line.apply(Seq(line.seq().0 + 1), now, &entry);
                    for _ in before..line.admitted() {
                        grants.push((integral, std::mem::replace(&mut burst, rate.burst())));
                    }
                }
            }
        }
        for (first, (from, _)) in grants.iter().enumerate() {
            let mut burst = 0;
            for (last, (to, since)) in grants.iter().enumerate().skip(first) {
                // What was in force at the first grant counts, and all that came after it.
                burst = burst.max(*since).max(grants[last].1);
                let people = i128::try_from(last - first + 1)?;
                let most = i128::from(burst) * 60_000_000_000 + to - from;
                prop_assert!(people * 60_000_000_000 <= most, "{} of {}", people, grants.len());
            }
        }
    }

    #[test]
    fn a_worker_that_never_rests_lets_in_as_many_as_the_rate_says(
        rate_per_minute in prop_oneof![1..=600u32, 600..=600_000u32],
    ) {
        let mut line = open(rate_per_minute);
        let start = At(1_000_000_000_000);
        let mut now = start;
        let mut grants = 0;
        while grants < 300 {
            let due = decide(&line, now);
            if let Due::Nothing(Idle::Rate(at)) = due {
                now = at;
                continue;
            }
            let before = line.admitted();
            let entry = entry_of(&line, due, now).ok_or_else(|| TestCaseError::fail("people wait"))?;
            line.apply(Seq(line.seq().0 + 1), now, &entry);
            grants += line.admitted() - before;
        }
        let after_the_burst = grants.saturating_sub(line.rate().burst() as usize);
        let exact = after_the_burst as i128 * 60_000_000_000 / i128::from(rate_per_minute);
        let late = i128::from(now.since(start)) - exact;
        // An interval is rounded up to a whole nanosecond.
        prop_assert!((0..=grants as i128).contains(&late), "{} ns late", late);
    }
}

/// An open queue of this rate, in which everybody waits.
fn open(rate_per_minute: u32) -> Line {
    let mut line = Line::default();
    // No grant lapses while a test runs.
    let policy = Policy { rate_per_minute, token_seconds: 86_400, ..Policy::default() };
    let set = |what| Configured { by: "ops".to_owned(), what };
    let facts = vec![set(Setting::Policy(policy)), set(Setting::State(State::Open, None))];
    let decision = fresh(&line, At(0), Facts::Configured(facts));
    line.apply(Seq(1), At(0), &decision);
    let join = |n| Join::plain(VisitorId(u128::from(n).to_be_bytes()), n);
    let joined = Joined { node: NodeId([1; 16]), visitors: (0..PEOPLE).map(join).collect() };
    line.apply(Seq(2), At(0), &Entry::Joined(joined));
    line
}
