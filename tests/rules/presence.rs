//! Presence off: as a log comes near its end it is written down no more who comes and goes.

use crate::story::{check, line_after};

/// Ann is absent, bob is here, cid has a token and is absent, dan is inside and eve has left.
const PEOPLE: &str = "
    100s policy reconnect_seconds=30
    100s joined n1 ann/1 bob/2 cid/3 dan/4 eve/5
    101s disconnected n1 ann/1 dan/4
    101s admitted cid dan
    102s redeemed dan
    102s disconnected n1 cid/3
    102s left eve
";

#[test]
fn off_takes_everyone_who_waits_or_is_granted_to_be_present_where_they_were_last() {
    check(
        &format!(
            "{PEOPLE}
            104s presence off
            104s look ann
            104s look cid
            104s look dan
            200s due
            "
        ),
        "
        8: ann is taken to be present
        8: cid is taken to be present
        104s: ann at n1/1
        104s: cid at n1/3
        104s: dan at n1/4, absent since 101s
        200s: nothing, not open
        presence off since 104s
        1 ann
        2 bob
        cid granted
        dan inside
        eve left
        ",
    );
}

#[test]
fn while_it_is_off_nobody_goes() {
    check(
        &format!(
            "{PEOPLE}
            104s presence off
            105s disconnected n1 ann/1 fay/9 bob/1
            106s node_lost n1 n9
            107s expired ann
            108s reconnected n2 bob/1
            109s joined n2 gus/2
            109s look bob
            400s due
            "
        ),
        "
        8: ann is taken to be present
        8: cid is taken to be present
        9: ann is void, PresenceOff
        9: fay is void, UnknownVisitor
        9: bob is void, PresenceOff
        10: n1 is void, PresenceOff
        10: n9 is void, UnknownNode
        11: ann is void, Present
        109s: bob at n2/1, came by 12, came back 1 times
        400s: release cid Lapsed
        presence off since 104s
        1 ann
        2 bob
        3 gus
        cid granted
        dan inside
        eve left
        ",
    );
}

#[test]
fn on_again_everyone_is_absent_until_a_node_asserts_them() {
    check(
        &format!(
            "{PEOPLE}
            104s presence off
            110s presence on
            110s look ann
            110s look bob
            110s look cid
            110s look dan
            111s basis=8 reconnected n1 bob/2
            112s node_lost n1
            140s tick
            "
        ),
        "
        8: ann is taken to be present
        8: cid is taken to be present
        110s: ann at n1/1, absent since 110s, kept for 30 s
        110s: bob at n1/2, absent since 110s, kept for 30 s
        110s: cid at n1/3, absent since 110s
        110s: dan at n1/4, absent since 101s
        140s: expire ann
        1 bob absent
        ann expired
        cid granted absent
        dan inside
        eve left
        ",
    );
}

#[test]
fn set_to_what_it_is_it_changes_nothing() {
    check(
        &format!(
            "{PEOPLE}
            103s presence on
            104s presence off
            105s presence off
            "
        ),
        "
        9: ann is taken to be present
        9: cid is taken to be present
        presence off since 104s
        1 ann
        2 bob
        cid granted
        dan inside
        eve left
        ",
    );
    let line = line_after("100s presence on");
    assert_eq!(line.presence().since.0, 0, "on since 1970");
    let line = line_after("100s presence off\n101s presence on\n102s presence on");
    assert_eq!(line.presence().since.0, 101_000_000_000);
}

#[test]
fn off_and_on_in_one_moment_makes_everyone_absent_from_then_on() {
    check(
        &format!(
            "{PEOPLE}
            110s presence off
            110s presence on
            110s look ann
            139999ms due
            140s tick
            "
        ),
        "
        8: ann is taken to be present
        8: cid is taken to be present
        110s: ann at n1/1, absent since 110s, kept for 30 s
        139999ms: nothing, not open
        140s: expire ann bob
        ann expired
        bob expired
        cid granted absent
        dan inside
        eve left
        ",
    );
}

#[test]
fn for_five_seconds_after_on_it_is_found_out_who_is_here_before_anybody_is_let_in() {
    check(
        "
        100s joined n1 ann/1 bob/2 cid/3
        100s state open
        104s presence off
        105s tick
        110s presence on
        111s basis=5 reconnected n1 cid/3
        111s due
        112s basis=5 reconnected n1 bob/2
        114999ms due
        115s tick
        ",
        "
        105s: admit ann
        111s: nothing, calling the roll until 115s
        114999ms: nothing, calling the roll until 115s
        115s: admit bob
        1 cid
        ann granted absent
        bob granted
        ",
    );
}

#[test]
fn a_turn_that_came_while_it_was_off_was_not_missed_by_who_came_to_be_absent_later() {
    check(
        "
        100s joined n1 ann/1 bob/2
        100s time
        101s disconnected n1 ann/1
        102s presence off
        103s admitted seconds=60 ann bob
        110s presence on
        162s time
        163s tick
        ",
        "
        4: ann is taken to be present
        163s: release ann bob Missed
        8: ann missed their turn
        8: bob missed their turn
        1 ann absent
        2 bob absent
        ",
    );
    check(
        "
        100s joined n1 ann/1
        100s time
        102s presence off
        103s admitted seconds=60 ann
        118001ms presence on
        163s tick
        ",
        "
        163s: release ann Lapsed
        ann lapsed
        ",
    );
}

#[test]
fn noted_graces_outlive_it() {
    check(
        "
        100s policy reconnect_seconds=100
        100s joined n1 ann/1
        101s policy reconnect_seconds=10
        102s presence off
        103s presence on
        103s look ann
        113s tick
        ",
        "
        103s: ann at n1/1, absent since 103s, kept for 10 s
        113s: expire ann
        ann expired
        ",
    );
}

#[test]
fn while_it_is_found_out_who_is_here_nobody_loses_their_place() {
    check(
        "
        100s policy reconnect_seconds=1
        100s joined n1 ann/1
        101s presence off
        102s presence on
        104s due
        107s due
        ",
        "
        104s: nothing, not open
        107s: expire ann
        1 ann absent
        ",
    );
}
