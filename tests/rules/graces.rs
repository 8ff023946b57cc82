//! Graces: a place is kept for the longest time that anybody was told since its visitor went.

use anteroom::queue::event::At;

use crate::story::{check, line_after};

/// So many people who joined at 100 s, and are absent since 101 s.
fn absent(people: usize) -> String {
    let seats = |from: usize| {
        let seats: Vec<String> = (from..from + people).map(|n| format!("v{n}/{n}")).collect();
        seats.join(" ")
    };
    format!(
        "100s policy reconnect_seconds=300
        100s joined n1 {} late/99
        101s disconnected n1 {}",
        seats(0),
        seats(0)
    )
}

#[test]
fn twenty_who_are_absent_keep_their_grace_when_it_is_lowered() {
    let names: Vec<String> = (0..20).map(|n| format!("v{n}")).collect();
    let names = names.join(" ");
    let ends: Vec<String> = names.split(' ').map(|name| format!("{name} expired")).collect();
    check(
        &format!(
            "{}
            102s policy reconnect_seconds=1
            102s look v7
            103s disconnected n1 late/99
            103s look late
            103999ms due
            104s tick
            400999ms due
            401s tick
            ",
            absent(20)
        ),
        &format!(
            "
            102s: v7 at n1/7, absent since 101s, kept for 300 s
            103s: late at n1/99, absent since 103s, kept for 1 s
            103999ms: nothing, not open
            104s: expire late
            400999ms: nothing, not open
            401s: expire {names}
            {}
            late expired
            ",
            ends.join("\n")
        ),
    );
}

#[test]
fn a_longer_grace_is_for_all_who_are_absent() {
    check(
        "
        100s policy reconnect_seconds=10
        100s joined n1 ann/1
        101s disconnected n1 ann/1
        102s policy reconnect_seconds=60
        102s look ann
        160999ms due
        161s tick
        ",
        "
        102s: ann at n1/1, absent since 101s, kept for 60 s
        160999ms: nothing, not open
        161s: expire ann
        ann expired
        ",
    );
}

#[test]
fn who_came_back_and_goes_again_has_the_grace_of_now() {
    check(
        &format!(
            "{}
            102s policy reconnect_seconds=10
            103s reconnected n1 v0/7
            104s disconnected n1 v0/7
            104s look v0
            113999ms due
            114s tick
            ",
            absent(1)
        ),
        "
        104s: v0 at n1/7, came by 5, came back 1 times, absent since 104s, kept for 10 s
        113999ms: nothing, not open
        114s: expire v0
        1 late
        v0 expired
        ",
    );
}

/// The graces that are noted after a story: running time in seconds, and seconds.
fn noted(story: &str) -> Vec<(i64, u32)> {
    let line = line_after(story);
    let seconds = |(At(at), seconds): &(At, u32)| (at / 1_000_000_000, *seconds);
    line.graces().longer().iter().map(seconds).collect()
}

#[test]
fn what_is_noted_is_longer_than_all_that_came_after_it_and_not_over() {
    let begin = "100s policy reconnect_seconds=200";
    assert_eq!(noted(begin), [(100, 300)], "what was in force before, by default");
    assert_eq!(noted("100s policy reconnect_seconds=300"), []);
    assert_eq!(noted("100s policy reconnect_seconds=400"), []);
    let nested =
        format!("{begin}\n110s policy reconnect_seconds=100\n120s policy reconnect_seconds=50");
    assert_eq!(noted(&nested), [(100, 300), (110, 200), (120, 100)]);
    assert_eq!(
        noted(&format!("{nested}\n125s policy reconnect_seconds=50")).len(),
        3,
        "the same again"
    );
    let raised = format!("{nested}\n130s policy reconnect_seconds=200");
    assert_eq!(noted(&raised), [(100, 300)]);
    assert_eq!(
        noted(&format!("{raised}\n140s policy reconnect_seconds=50")),
        [(100, 300), (140, 200)]
    );
    assert_eq!(noted(&format!("{nested}\n219s policy reconnect_seconds=50")).len(), 3);
    let over = format!("{nested}\n220s policy reconnect_seconds=50");
    assert_eq!(noted(&over), [(100, 300), (110, 200)], "120 s and 100 s are not after 220 s");
    assert_eq!(noted(&format!("{over}\n400s policy reconnect_seconds=50")), []);
    // Nothing is forgotten but by a policy.
    assert_eq!(noted(&format!("{nested}\n900s state open")).len(), 3);
}

#[test]
fn who_went_at_the_very_moment_of_a_lower_grace_has_the_longer_one() {
    check(
        "
        100s policy reconnect_seconds=100
        100s joined n1 ann/1 bob/2 cid/3
        102s disconnected n1 ann/1
        102s policy reconnect_seconds=10
        102s disconnected n1 bob/2
        102001ms disconnected n1 cid/3
        102001ms look ann
        102001ms look bob
        102001ms look cid
        112001ms tick
        202s tick
        ",
        "
        102001ms: ann at n1/1, absent since 102s, kept for 100 s
        102001ms: bob at n1/2, absent since 102s, kept for 100 s
        102001ms: cid at n1/3, absent since 102001ms, kept for 10 s
        112001ms: expire cid
        202s: expire ann bob
        ann expired
        bob expired
        cid expired
        ",
    );
}

#[test]
fn each_who_is_absent_has_the_longest_that_was_in_force_since() {
    check(
        "
        100s joined n1 ann/1 bob/2 cid/3 dan/4
        101s policy reconnect_seconds=200
        102s disconnected n1 ann/1
        103s policy reconnect_seconds=50
        104s disconnected n1 bob/2
        105s policy reconnect_seconds=100
        106s disconnected n1 cid/3
        107s policy reconnect_seconds=20
        108s disconnected n1 dan/4
        108s look ann
        108s look bob
        108s look cid
        108s look dan
        128s tick
        204s tick
        206s tick
        302s tick
        ",
        "
        108s: ann at n1/1, absent since 102s, kept for 200 s
        108s: bob at n1/2, absent since 104s, kept for 100 s
        108s: cid at n1/3, absent since 106s, kept for 100 s
        108s: dan at n1/4, absent since 108s, kept for 20 s
        128s: expire dan
        204s: expire bob
        206s: expire cid
        302s: expire ann
        ann expired
        bob expired
        cid expired
        dan expired
        ",
    );
}

#[test]
fn an_outage_moves_what_is_noted_to_where_the_running_time_stood() {
    check(
        "
        100s policy reconnect_seconds=100
        100s joined n1 ann/1 bob/2 cid/3
        101s disconnected n1 ann/1
        110s time
        111s disconnected n1 bob/2
        112s policy reconnect_seconds=10
        113s disconnected n1 cid/3
        130s outage 25
        130s clock
        130s look ann
        130s look bob
        130s look cid
        225999ms due
        226s tick
        229999ms due
        230s tick
        ",
        "
        8: bob is prolonged
        8: cid is prolonged
        130s: it is 130s, running 105s
        130s: ann at n1/1, absent since 101s, kept for 100 s
        130s: bob at n1/2, absent since 105s, kept for 100 s
        130s: cid at n1/3, absent since 105s, kept for 100 s
        225999ms: nothing, not open
        226s: expire ann
        229999ms: nothing, not open
        230s: expire bob cid
        ann expired
        bob expired
        cid expired
        ",
    );
}

#[test]
fn outages_and_lower_graces_one_after_the_other_shorten_nobody_s() {
    check(
        "
        50s policy reconnect_seconds=50
        100s time
        100s joined n1 ann/1 bob/2
        101s disconnected n1 ann/1
        120s outage 10
        120s policy reconnect_seconds=40
        121s disconnected n1 bob/2
        130s outage 20
        130s policy reconnect_seconds=5
        130s clock
        130s look ann
        130s look bob
        179s tick
        180s tick
        ",
        "
        8: ann is prolonged
        8: bob is prolonged
        130s: it is 130s, running 100s
        130s: ann at n1/1, absent since 100s, kept for 50 s
        130s: bob at n1/2, absent since 100s, kept for 50 s
        179s: nothing, not open
        180s: expire ann bob
        ann expired
        bob expired
        ",
    );
}

#[test]
fn an_outage_back_to_the_moment_of_a_lower_grace_gives_the_longer_one() {
    check(
        "
        100s policy reconnect_seconds=50
        100s joined n1 ann/1
        101s disconnected n1 ann/1
        101s look ann
        110s outage 20
        110s look ann
        ",
        "
        101s: ann at n1/1, absent since 101s, kept for 50 s
        4: ann is prolonged
        110s: ann at n1/1, absent since 90s, kept for 300 s
        1 ann absent
        ",
    );
}

#[test]
fn a_thousand_policies_one_second_apart_note_no_more_than_what_differs() {
    let story: Vec<String> = (0..1_000)
        .map(|n| {
            format!("{}s policy reconnect_seconds={}", 1_000 + n, if n % 2 == 0 { 90 } else { 30 })
        })
        .collect();
    assert_eq!(noted(&story.join("\n")), [(1_999, 90)]);
}
