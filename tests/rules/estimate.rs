//! Estimates: what a line's movement comes to, and how far it can be believed.

use anteroom::queue::estimate::{Cause, Outlook};
use anteroom::queue::event::{At, Entry, Seq};
use anteroom::queue::line::Line;
use anteroom::queue::pace::Pace;

use crate::backtest::{self, Moment, Scenario, Scores};
use crate::story::{entries_of, line_after, time};

/// Seeds that a test has the time for; `tools/bench estimates` has thirty, and the table.
const SEEDS: std::ops::Range<u64> = 0..2;

fn scores(scenario: Scenario) -> Scores {
    let scores = backtest::scores(scenario, SEEDS);
    assert!(scores.moments.len() > 1_000, "{scenario:?}: too few moments to say anything");
    scores
}

#[test]
fn estimates_are_about_what_comes() {
    let mut all = Scores::default();
    for scenario in Scenario::ALL {
        let scores = scores(scenario);
        let moments: Vec<&Moment> = scores.moments.iter().filter(|m| !m.is_cut).collect();
        let error = backtest::median_error(&moments, Moment::estimate).unwrap_or(f64::INFINITY);
        assert!(error < 15.0, "{}: {error:.1} %", scenario.name());
        all.add(scores);
    }
    let moments: Vec<&Moment> = all.moments.iter().filter(|moment| !moment.is_cut).collect();
    let error = backtest::median_error(&moments, Moment::estimate).unwrap_or(f64::INFINITY);
    let naive =
        backtest::median_error(&moments, |moment| Some(moment.naive)).unwrap_or(f64::INFINITY);
    let within = backtest::within_range(&moments).unwrap_or_default();
    assert!(error < 10.0 && error < naive, "{error:.1} %, by position and rate {naive:.1} %");
    assert!((70.0..95.0).contains(&within), "{within:.1} % within the range");
}

#[test]
fn the_same_seed_is_the_same_history_and_another_one_another() {
    let of = |seed| backtest::history(Scenario::Absentees, seed);
    assert_eq!(of(3), of(3));
    assert_ne!(of(3), of(4));
}

#[test]
fn three_of_ten_leave_where_three_of_ten_are_meant_to() {
    let scores = scores(Scenario::Leaving);
    let share = scores.gone as f64 / (scores.gone + scores.admitted) as f64;
    assert!((0.2..0.4).contains(&share), "{share:.2}");
}

#[test]
fn one_a_second_is_let_in_at_sixty_a_minute_and_who_is_absent_does_not_count() {
    let story = "
        1s joined n1 ann/1 bob/2 cid/3 dan/4 eve/5 fay/6
        2s state open
        3s disconnected n1 ann/1 cid/3
        ";
    let line = line_after(story);
    // A page that is loaded anew is back at once: for half a minute they count.
    let soon = Pace::default().look(&line, time("20s"));
    assert_eq!(soon.absent[..3], [0, 0, 0]);
    assert_eq!(soon.estimate(5, 0.0).map(|wait| wait.seconds), Some(5.5));
    let late = Pace::default().look(&line, time("40s"));
    assert_eq!(late.absent[..3], [1, 2, 2]);
    assert_eq!(late.estimate(5, 0.0).map(|wait| wait.seconds), Some(3.5));
    assert_eq!(late.rate_milli, 60_000);
}

#[test]
fn who_leaves_shortens_the_wait_by_the_logarithm() {
    let leaving_ppm = 1_000;
    let outlook = Outlook { rate_milli: 60_000, leaving_ppm, ..Outlook::default() };
    let seconds = outlook.estimate(999, 0.0).map(|wait| wait.seconds);
    // ln(1 + 0.001 x 999.5) / 0.001
    assert!(seconds.is_some_and(|seconds| (seconds - 692.9).abs() < 0.1), "{seconds:?}");
    let none = Outlook { leaving_ppm: 0, ..outlook };
    assert_eq!(none.estimate(999, 0.0).map(|wait| wait.seconds), Some(999.5));
}

#[test]
fn a_ceiling_binds_once_the_room_is_used() {
    let outlook =
        Outlook { rate_milli: 60_000, room: Some(10), full_milli: 6_000, ..Outlook::default() };
    let seconds = |ahead| outlook.estimate(ahead, 0.0).map(|wait| wait.seconds.round());
    // Ten a second apart, and then one in ten seconds.
    assert_eq!((seconds(5), seconds(10), seconds(20)), (Some(6.0), Some(15.0), Some(115.0)));
}

#[test]
fn where_nobody_is_let_in_there_is_no_estimate() {
    assert!(Outlook::default().estimate(3, 0.0).is_none());
    let never = Outlook { rate_milli: 60_000, room: Some(2), ..Outlook::default() };
    assert!(never.estimate(9, 0.0).is_none(), "nobody goes from inside");
}

#[test]
fn a_rise_is_due_to_what_happened_last() {
    let cause_after = |story: &str, until: &str| {
        let (mut line, mut pace, mut entries) =
            (Line::default(), Pace::default(), entries_of(story).into_iter().peekable());
        let mut cause = Cause::default();
        for second in 0..=time(until).seconds() {
            while let Some((at, entry)) = entries.next_if(|(at, _)| at.seconds() <= second) {
                apply(&mut line, at, &entry);
            }
            cause = pace.look(&line, At(second * 1_000_000_000)).cause;
        }
        cause
    };
    let story = "
        1s joined n1 ann/1 bob/2 cid/3 dan/4 eve/5
        2s policy rate_per_minute=60
        3s state open
        5s disconnected n1 ann/1 bob/2 cid/3
        60s policy rate_per_minute=30
        140s reconnected n1 ann/4 bob/5 cid/6
        ";
    assert_eq!(cause_after(story, "50s"), Cause::LineSlowed);
    assert_eq!(cause_after(story, "70s"), Cause::RateLowered);
    assert_eq!(cause_after(story, "130s"), Cause::LineSlowed);
    assert_eq!(cause_after(story, "145s"), Cause::PeopleReturned);
}

fn apply(line: &mut Line, at: At, entry: &Entry) {
    line.apply(Seq(line.seq().0 + 1), at, entry);
}
