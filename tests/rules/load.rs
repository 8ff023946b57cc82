//! The rate that follows a load: its bounds against models of sites, and what holds for any reports.

use anteroom::queue::event::At;
use anteroom::queue::load::{
    InForce, LOADS_MAX, Load, Loads, PACE_SECONDS, SILENCE_SECONDS, floor, follow,
};
use proptest::prelude::*;

use crate::site::{DAY_END, FAIR, SILENCE, STEP, Site, Weather, day, figures, run, steady};

#[test]
fn sites_of_thirty_seeds_are_kept_within_the_bounds_of_docs_load() {
    for seed in 10..40 {
        let site = Site::drawn(seed);
        let seconds = run(&site, seed, DAY_END, day);
        let seen = figures(&site, seed, &seconds);
        let bounds = [
            ("undisturbed the load stays under 0.9", seen.peak <= 0.9),
            ("a fifth more load still finds room", seen.step_peak <= 1.0),
            ("the start takes at most ten minutes", seen.start_minutes <= 10.0),
            ("what the site bears is used", (0.85..=1.0).contains(&seen.steady.used)),
            ("the rate does not swing", seen.steady.swing <= 1.15),
            ("in half an hour at most 45 changes", seen.steady.changes <= 45),
            ("in half an hour at most 25 turns", seen.steady.turns <= 25),
            (
                "half the capacity: too many for 150 s longer than must be",
                seen.half_over <= seen.half_least + 150,
            ),
            ("half the capacity: seven minutes to come back", seen.half_minutes <= 7.0),
            ("silence leads to the floor in three minutes", seen.floor_seconds <= 180.0),
            ("at the floor silence changes nothing", seen.silent_changes == 0),
            ("silence: eleven minutes to come back", seen.silence_minutes <= 11.0),
            ("at most one change in five seconds", seen.gap >= PACE_SECONDS as usize),
            ("at most 330 changes in three and a half hours", seen.facts <= 330),
        ];
        for (bound, kept) in bounds {
            assert!(kept, "seed {seed}: not so: {bound}\n{site:?}\n{seen:?}");
        }
        let allowed = floor(site.cap)..=site.cap;
        assert!(seconds.iter().all(|s| allowed.contains(&s.per_minute)), "seed {seed}");
    }
}

#[test]
fn a_site_that_bears_more_than_the_cap_gets_the_cap_and_no_more_facts() {
    for seed in 10..20 {
        let site = Site { sustainable: 1.6, ..Site::drawn(seed) };
        let seconds = run(&site, seed, STEP, |_| FAIR);
        let (rise, rest) = seconds.split_at(20 * 60);
        assert!(rise.iter().map(|s| s.per_minute).is_sorted(), "seed {seed}: {site:?}");
        assert!(rest.iter().all(|s| s.per_minute == site.cap), "seed {seed}: {site:?}");
    }
}

#[test]
fn a_new_worker_every_five_minutes_does_not_shake_a_steady_rate() {
    for seed in 10..40 {
        let site = Site::drawn(seed);
        let weather = |second| Weather { new_worker: second >= 5_400 && second % 300 == 0, ..FAIR };
        let seconds = run(&site, seed, STEP, weather);
        let seen = steady(&site, &seconds);
        assert!(seen.swing <= 1.25 && seen.used >= 0.85, "seed {seed}: {site:?}\n{seen:?}");
    }
}

#[test]
fn while_nobody_wants_in_an_idle_site_is_no_reason_to_raise() {
    let site = Site::drawn(10);
    let weather = |second| Weather { wanted: second >= 600, ..FAIR };
    let seconds = run(&site, 10, 1_200, weather);
    let (before, after) = seconds.split_at(600);
    assert!(before.iter().all(|s| s.per_minute == floor(site.cap)));
    assert!(after.last().is_some_and(|s| s.per_minute > floor(site.cap)));
}

#[test]
fn without_a_report_ever_nothing_changes() {
    let site = Site::drawn(11);
    let seconds = run(&site, 11, SILENCE, |_| Weather { reports: false, ..FAIR });
    assert!(seconds.iter().all(|s| s.fact.is_none()));
}

#[test]
fn the_first_report_sets_the_floor_and_is_what_it_rests_on() {
    let mut loads = Loads::since(at(0));
    loads.hear(Load { at: at(3), milli: 120 });
    let rate = InForce { per_minute: 600, cap: 600, decided_at: None };
    let followed = follow(&loads, &rate, true, at(3)).unwrap();
    assert_eq!((followed.per_minute, followed.loads), (30, vec![120]));
}

#[test]
fn a_worker_that_has_just_begun_to_listen_waits_before_it_calls_it_silence() {
    let loads = Loads::since(at(1_000));
    let rate = InForce { per_minute: 600, cap: 600, decided_at: Some(at(10)) };
    assert_eq!(follow(&loads, &rate, true, at(1_000 + SILENCE_SECONDS - 1)), None);
    let followed = follow(&loads, &rate, true, at(1_000 + SILENCE_SECONDS)).unwrap();
    assert_eq!((followed.per_minute, followed.loads), (300, vec![]));
}

#[test]
fn a_report_that_the_rate_rests_on_already_is_no_reason_for_a_second_change() {
    let mut loads = Loads::since(at(0));
    for second in [0, 10, 20] {
        loads.hear(Load { at: at(second), milli: 1_000 });
    }
    let rate = |decided_at| InForce { per_minute: 600, cap: 600, decided_at: Some(at(decided_at)) };
    assert_eq!(follow(&loads, &rate(20), true, at(26)), None);
    let followed = follow(&loads, &rate(19), true, at(26)).unwrap();
    assert_eq!((followed.per_minute, followed.loads), (492, vec![1_000; 3]));
}

#[test]
fn a_raised_cap_takes_the_floor_with_it() {
    let loads = Loads::since(at(0));
    let rate = InForce { per_minute: 30, cap: 6_000, decided_at: Some(at(0)) };
    assert_eq!(follow(&loads, &rate, false, at(10)).unwrap().per_minute, 300);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn whatever_is_reported_the_rate_keeps_its_bounds_and_its_pace(
        cap in prop_oneof![1..=50u32, 50..=600_000u32],
        reports in prop::collection::vec((0..=40_000i64, 0..=1_200u16, any::<bool>()), 1..150),
    ) {
        let mut rate = InForce { per_minute: cap, cap, decided_at: None };
        let mut loads = Loads::since(at(0));
        let mut now = at(0);
        for (millis, milli, wanted) in reports {
            // Looked at shortly before each report and at it: also silence is seen.
            for report in [false, true] {
                if report {
                    loads.hear(Load { at: now, milli });
                } else {
                    now = At(now.0 + millis * 1_000_000);
                }
                let Some(followed) = follow(&loads, &rate, wanted, now) else { continue };
                prop_assert_ne!(followed.per_minute, rate.per_minute);
                prop_assert!((floor(cap)..=cap).contains(&followed.per_minute));
                prop_assert!(wanted || followed.per_minute < rate.per_minute);
                prop_assert!(followed.loads.len() <= LOADS_MAX);
                prop_assert!(followed.loads.iter().all(|milli| *milli <= 1_000));
                let paced = |at: At| now >= at.plus_seconds(PACE_SECONDS);
                prop_assert!(rate.decided_at.is_none_or(paced));
                rate = InForce { per_minute: followed.per_minute, decided_at: Some(now), ..rate };
            }
        }
    }
}

fn at(second: u32) -> At {
    At(1_800_000_000_000_000_000).plus_seconds(second)
}
