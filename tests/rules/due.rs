//! What is due: who is let in next, and what time alone brings.

use anteroom::queue::admit::{
    DECISIONS_PER_ENTRY_MAX, Due, GRANTS_PER_ENTRY_MAX, Idle, decide, lost, room,
};
use anteroom::queue::event::{Facts, NodeId};

use crate::story::{bytes, check, line_after, time};

#[test]
fn one_person_a_second_is_let_in_at_sixty_a_minute() {
    check(
        "
        1s joined n1 ann/1 bob/2 cid/3
        2s state open
        10s tick
        10s due
        10999ms due
        11s tick
        ",
        "
        10s: admit ann
        10s: nothing before 11s
        10999ms: nothing before 11s
        11s: admit bob
        1 cid
        ann granted
        bob granted
        ",
    );
}

#[test]
fn unused_time_is_never_saved_up() {
    check(
        "
        1s joined n1 ann/1 bob/2 cid/3
        2s state open
        100s tick
        100s due
        150s tick
        150s due
        ",
        "
        100s: admit ann
        100s: nothing before 101s
        150s: admit bob
        150s: nothing before 151s
        1 cid
        ann granted
        bob granted
        ",
    );
}

#[test]
fn a_tenth_of_a_second_s_worth_may_come_at_once() {
    check(
        "
        1s joined n1 a/1 b/2 c/3 d/4 e/5 f/6
        2s policy rate_per_minute=1800
        3s state open
        10s tick
        10s due
        10034ms tick
        10101ms tick
        ",
        "
        10s: admit a b c
        10s: nothing before 10033ms
        10034ms: admit d
        10101ms: admit e f
        a granted
        b granted
        c granted
        d granted
        e granted
        f granted
        ",
    );
}

#[test]
fn a_rate_that_is_raised_is_felt_at_once() {
    check(
        "
        1s joined n1 ann/1 bob/2 cid/3
        2s policy rate_per_minute=1
        3s state open
        10s tick
        40s policy rate_per_minute=60
        40s due
        40500ms tick
        41500ms tick
        ",
        "
        10s: admit ann
        40s: nothing before 40500ms
        40500ms: admit bob
        41500ms: admit cid
        ann granted
        bob granted
        cid granted
        ",
    );
}

#[test]
fn a_rate_that_is_lowered_makes_nobody_pay_for_an_earlier_burst() {
    let many: Vec<String> = (0..12).map(|n| format!("v{n}/{n}")).collect();
    let line = line_after(&format!(
        "
        1s joined n1 {}
        2s policy rate_per_minute=6000
        3s state open
        10s admitted v0 v1 v2 v3 v4 v5 v6 v7 v8 v9
        10s policy rate_per_minute=60
        ",
        many.join(" ")
    ));
    assert_eq!(decide(&line, time("10s")), Due::Nothing(Idle::Rate(time("11s"))));
}

#[test]
fn the_rate_follows_the_load_below_the_policy_s_and_no_further() {
    let rate = |more: &str| {
        let story = format!(
            "1s policy rate_per_minute=600
{more}"
        );
        line_after(&story).rate().0
    };
    assert_eq!(rate(""), 600);
    assert_eq!(rate("2s rate 60"), 60);
    assert_eq!(rate("2s rate 6000"), 600);
    assert_eq!(
        rate(
            "2s rate 60
3s policy rate_per_minute=30"
        ),
        30
    );
    assert_eq!(
        rate(
            "2s rate 60
3s policy rate_per_minute=30
4s policy"
        ),
        60
    );
    assert_eq!(
        rate(
            "2s rate 60
3s rate"
        ),
        600
    );
}

#[test]
fn a_queue_opens_and_closes_at_its_time_and_those_who_came_early_keep_their_order() {
    check(
        "
        1s policy opens_at=100s closes_at=200s
        2s state scheduled
        3s joined n1 ann/1 bob/2 cid/3
        99999ms due
        100s tick
        100s tick
        101s joined n1 dan/4
        101s tick
        150s state paused
        199999ms due
        200s tick
        210s due
        ",
        "
        99999ms: nothing, not open
        100s: set Open by schedule
        100s: admit ann
        101s: admit bob
        199999ms: nothing, not open
        200s: set Closed by schedule
        210s: nothing, not open
        1 cid
        2 dan
        ann granted
        bob granted
        ",
    );
}

#[test]
fn a_queue_that_an_operator_paused_does_not_open_by_itself() {
    check(
        "
        1s policy opens_at=100s
        2s state paused
        100s due
        ",
        "100s: nothing, not open",
    );
}

#[test]
fn a_queue_that_closes_before_it_opens_only_closes() {
    check(
        "
        1s policy opens_at=100s closes_at=50s
        100s tick
        100s due
        ",
        "
        100s: set Closed by schedule
        100s: nothing, not open
        ",
    );
}

#[test]
fn the_absent_are_let_in_unseen_where_the_policy_says_so() {
    check(
        "
        1s joined n1 ann/1 bob/2
        2s policy absent=admit
        2s state open
        3s disconnected n1 ann/1
        10s tick
        11s reconnected n1 ann/3
        11s tick
        ",
        "
        10s: admit ann
        11s: admit bob
        ann granted
        bob granted
        ",
    );
}

#[test]
fn who_is_absent_is_passed_over_and_is_first_on_return() {
    check(
        "
        1s joined n1 ann/1 bob/2 cid/3 dan/4
        2s state open
        3s disconnected n1 ann/1 bob/2
        10s tick
        11s reconnected n2 ann/1
        12s tick
        13s tick
        14s due
        ",
        "
        10s: admit cid
        12s: admit ann
        13s: admit dan
        14s: nothing, nobody here
        1 bob absent
        ann granted
        cid granted
        dan granted
        ",
    );
}

#[test]
fn unused_grants_count_towards_the_ceiling() {
    check(
        "
        1s joined n1 ann/1 bob/2 cid/3 dan/4
        2s policy rate_per_minute=6000 max_inside=2
        3s state open
        10s tick
        11s due
        12s redeemed ann
        13s due
        14s released lapsed bob
        15s tick
        16s released released ann
        17s tick
        ",
        "
        10s: admit ann bob
        11s: nothing, full
        13s: nothing, full
        15s: admit cid
        17s: admit dan
        ann released
        bob lapsed
        cid granted
        dan granted
        ",
    );
}

#[test]
fn a_ceiling_below_those_inside_throws_nobody_out() {
    let story = "
        1s joined n1 ann/1 bob/2 cid/3
        2s state open
        3s admitted ann bob
        4s redeemed ann
        5s policy max_inside=1
        ";
    check(
        &format!("{story}\n 6s due"),
        "
        6s: nothing, full
        1 cid
        ann inside
        bob granted
        ",
    );
    assert_eq!(room(&line_after(story)), 0);
}

#[test]
fn nobody_is_let_in_unless_the_queue_is_open() {
    for state in ["scheduled", "paused", "closed", "deleted"] {
        check(
            &format!(
                "
                1s joined n1 ann/1
                2s state open
                3s state {state}
                10s due
                "
            ),
            "
            10s: nothing, not open
            1 ann
            ",
        );
    }
    check("1s joined n1 ann/1\n 10s due", "10s: nothing, not open\n 1 ann");
    check("1s state open\n 10s due", "10s: nothing, nobody here");
}

#[test]
fn a_place_expires_exactly_when_the_grace_is_over() {
    check(
        "
        1s joined n1 ann/1 bob/2
        2s policy reconnect_seconds=30
        10s time
        10s disconnected n1 ann/1
        20s time
        20s disconnected n1 bob/2
        39999ms due
        40s tick
        49999ms due
        50s tick
        ",
        "
        39999ms: nothing, not open
        40s: expire ann
        49999ms: nothing, not open
        50s: expire bob
        ann expired
        bob expired
        ",
    );
}

#[test]
fn a_grace_begins_anew_with_each_absence() {
    check(
        "
        1s joined n1 ann/1
        10s time
        10s disconnected n1 ann/1
        300s time
        300s reconnected n1 ann/2
        301s disconnected n1 ann/2
        600999ms due
        601s due
        ",
        "
        600999ms: nothing, not open
        601s: expire ann
        1 ann absent
        ",
    );
}

#[test]
fn who_comes_and_goes_within_one_moment_expires_once() {
    // The log's time stands still when its clock was set back.
    check(
        "
        10s time
        10s joined n1 ann/1 bob/2
        10s disconnected n1 bob/2
        10s disconnected n1 ann/1
        9s reconnected n1 ann/3
        8s disconnected n1 ann/3
        310s due
        ",
        "
        310s: expire ann bob
        1 ann absent
        2 bob absent
        ",
    );
}

#[test]
fn who_became_absent_by_the_loss_of_a_node_has_the_grace_from_then_on() {
    check(
        "
        1s joined n1 ann/1 bob/2
        5s time
        5s disconnected n1 ann/1
        10s node_lost n1
        305s tick
        309s due
        310s tick
        ",
        "
        305s: expire ann
        309s: nothing, not open
        310s: expire bob
        ann expired
        bob expired
        ",
    );
}

#[test]
fn a_grant_lapses_exactly_when_its_time_is_over() {
    check(
        "
        1s joined n1 ann/1 bob/2
        10s admitted seconds=20 ann
        11s admitted seconds=10 bob
        20999ms due
        21s tick
        29999ms due
        30s tick
        ",
        "
        20999ms: nothing, not open
        21s: release bob Lapsed
        29999ms: nothing, not open
        30s: release ann Lapsed
        ann lapsed
        bob lapsed
        ",
    );
}

#[test]
fn a_session_is_over_exactly_when_the_pass_ends() {
    check(
        "
        1s joined n1 ann/1
        10s admitted ann
        20s redeemed seconds=600 ann
        619999ms due
        620s tick
        ",
        "
        619999ms: nothing, not open
        620s: release ann SessionOver
        ann sessionover
        ",
    );
}

#[test]
fn expiry_comes_before_lapse_before_the_end_of_sessions_before_admission() {
    check(
        "
        1s joined n1 ann/1 bob/2 cid/3 dan/4
        2s state open
        3s disconnected n1 ann/1
        4s admitted bob cid
        5s redeemed seconds=60 cid
        500s tick
        500s tick
        500s tick
        500s tick
        500s due
        ",
        "
        500s: expire ann
        500s: release bob Lapsed
        500s: release cid SessionOver
        500s: admit dan
        500s: nothing, nobody here
        ann expired
        bob lapsed
        cid sessionover
        dan granted
        ",
    );
}

#[test]
fn time_brings_its_due_in_a_queue_that_is_paused_or_closed() {
    check(
        "
        1s joined n1 ann/1 bob/2
        2s disconnected n1 ann/1
        3s admitted bob
        4s state closed
        500s tick
        500s tick
        500s tick
        ",
        "
        500s: expire ann
        500s: release bob Lapsed
        500s: nothing, not open
        ann expired
        bob lapsed
        ",
    );
}

#[test]
fn time_never_goes_back() {
    check(
        "
        100s policy missed_turns=0
        100s joined n1 ann/1
        50s disconnected n1 ann/1
        60s admitted seconds=10 ann
        109999ms due
        110s due
        ",
        "
        109999ms: nothing, not open
        110s: release ann Lapsed
        ann granted absent
        ",
    );
}

#[test]
fn an_entry_has_at_most_a_hundred_grants() {
    let story = crowd(GRANTS_PER_ENTRY_MAX + 50);
    let line = line_after(&format!("{story}\n 2s policy rate_per_minute=600000\n 3s state open"));
    let Due::Admit(visitors) = decide(&line, time("10s")) else { panic!("people wait") };
    assert_eq!(visitors.len(), GRANTS_PER_ENTRY_MAX);
    let first: Vec<_> = (0..GRANTS_PER_ENTRY_MAX).map(|n| bytes(&format!("v{n}"))).collect();
    assert_eq!(visitors.iter().map(|visitor| visitor.0).collect::<Vec<_>>(), first);
}

#[test]
fn an_entry_has_at_most_a_thousand_expiries_the_longest_absent_first() {
    let story = crowd(DECISIONS_PER_ENTRY_MAX + 50);
    let story = format!("{story}\n 5s time\n 5s disconnected n1 v700/700\n 10s node_lost n1");
    let Due::Facts(Facts::Expired(visitors)) = decide(&line_after(&story), time("310s")) else {
        panic!("places expire")
    };
    assert_eq!(visitors.len(), DECISIONS_PER_ENTRY_MAX);
    assert_eq!(visitors[0].0, bytes("v700"));
    assert_eq!(visitors[1].0, bytes("v0"));
}

#[test]
fn only_a_silent_node_that_holds_someone_is_lost() {
    let line = line_after(
        "
        1s joined n1 ann/1
        2s joined n2 bob/1
        3s joined n3 cid/1 dan/2
        4s reconnected n1 bob/2
        5s disconnected n3 cid/1
        ",
    );
    let node = |name: &str| NodeId(bytes(name));
    assert_eq!(lost(&line, |_| false), None);
    assert_eq!(lost(&line, |id| id == node("n2")), None, "nobody is left there");
    let both = Facts::NodeLost(vec![node("n1"), node("n3")]);
    assert_eq!(lost(&line, |_| true), Some(both));
    let held: Vec<_> = line.nodes().holding().collect();
    assert_eq!(held, [(node("n1"), 2), (node("n3"), 1)]);
}

#[test]
fn no_node_is_lost_while_nobody_s_going_is_written_down() {
    let line = line_after(
        "
        1s joined n1 ann/1
        2s node_lost n1
        3s joined n2 bob/1
        4s presence off
        ",
    );
    let held = line.nodes().holding().count();
    assert_eq!((held, lost(&line, |_| true)), (2, None), "it would be void, and due again at once");
}

#[test]
fn an_entry_has_at_most_a_thousand_lost_nodes() {
    let story: String =
        (0..DECISIONS_PER_ENTRY_MAX + 1).map(|n| format!("1s joined n{n} v{n}/1\n")).collect();
    let Some(Facts::NodeLost(nodes)) = lost(&line_after(&story), |_| true) else {
        panic!("nodes are lost")
    };
    assert_eq!(nodes.len(), DECISIONS_PER_ENTRY_MAX);
}

/// So many people who joined in one entry.
fn crowd(people: usize) -> String {
    let names: Vec<String> = (0..people).map(|n| format!("v{n}/{n}")).collect();
    format!("1s joined n1 {}", names.join(" "))
}
