//! What a visitor is told as time goes on: it counts down, and does not go up and down by chance.

use anteroom::queue::estimate::{Estimate, Turn, opening, told};
use anteroom::queue::event::{At, State};
use anteroom::queue::policy::Policy;
use proptest::prelude::*;

const SECOND: i64 = 1_000_000_000;
const NOON: i64 = 1_700_000_000 * SECOND;

fn wait(seconds: f64) -> Estimate {
    Estimate { seconds, deviation: 0.0 }
}

/// What one is told who is told an estimate of so many seconds, `seconds` after noon.
fn tell(before: Option<Turn>, after: i64, seconds: f64) -> (Turn, u32) {
    let now = At(NOON + after * SECOND);
    let turn = told(before, now, &wait(seconds));
    (turn, turn.whole_seconds(now))
}

#[test]
fn it_counts_down_by_itself_and_is_no_news_then() {
    let (first, seconds) = tell(None, 0, 600.0);
    assert_eq!(seconds, 600);
    let (second, seconds) = tell(Some(first), 60, 540.0);
    assert_eq!((second, seconds), (first, 540));
    let (third, seconds) = tell(Some(second), 120, 500.0);
    assert_eq!((third, seconds), (first, 480), "what is within chance changes nothing");
}

#[test]
fn what_is_beyond_chance_is_told() {
    let (first, _) = tell(None, 0, 600.0);
    let (later, seconds) = tell(Some(first), 60, 700.0);
    assert!(later > first);
    assert_eq!(seconds, 700);
    let (sooner, seconds) = tell(Some(first), 60, 400.0);
    assert!(sooner < first);
    assert_eq!(seconds, 400);
}

#[test]
fn who_is_due_and_not_let_in_is_not_told_of_a_rise_for_a_moment() {
    let (first, _) = tell(None, 0, 2.0);
    assert_eq!(tell(Some(first), 4, 2.0), (first, 0));
    assert_eq!(tell(Some(first), 4, 8.0).1, 8);
}

#[test]
fn an_opening_is_waited_for_where_its_time_is_known() {
    let policy = Policy { opens_at: Some(At(NOON)), ..Policy::default() };
    let early = At(NOON - 90 * SECOND);
    assert_eq!(opening(State::Scheduled, &policy, early), Some(90.0));
    assert_eq!(opening(State::Scheduled, &policy, At(NOON + SECOND)), Some(0.0));
    assert_eq!(opening(State::Scheduled, &Policy::default(), early), None);
    assert_eq!(opening(State::Open, &policy, early), Some(0.0));
    for state in [State::Paused, State::Closed, State::Deleted] {
        assert_eq!(opening(state, &policy, early), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn it_rises_by_no_little(
        estimates in prop::collection::vec((0.0..5_000.0f64, 0.0..50.0f64), 1..60),
    ) {
        let mut before: Option<Turn> = None;
        for (at, (seconds, deviation)) in (0..).zip(&estimates) {
            let now = At(NOON + at * SECOND);
            let estimate = Estimate { seconds: *seconds, deviation: *deviation };
            let turn = told(before, now, &estimate);
            if let Some(before) = before.filter(|before| turn > *before) {
                let rise = turn.whole_seconds(now) - before.whole_seconds(now);
                prop_assert!(f64::from(rise) >= (seconds / 10.0).max(3.0) - 1.5, "{rise} s");
            }
            before = Some(turn);
        }
    }

    #[test]
    fn a_range_is_around_what_is_told(
        seconds in 0.0..1e6f64,
        deviation in 0.0..1e5f64,
        told in any::<u32>(),
    ) {
        let (low, high) = Estimate { seconds, deviation }.range(told);
        prop_assert!(low <= told && told <= high);
        prop_assert!(f64::from(low) <= seconds.ceil() && seconds.floor() <= f64::from(high));
    }
}
