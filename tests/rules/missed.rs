//! A missed turn: who was let in and did not see it waits again, with the same ticket.

use crate::story::{check, line_after};

/// An open queue that lets in the absent, in which Ann went before her turn, and cid just after it.
const UNSEEN: &str = "
    100s policy absent=admit rate_per_minute=600 token_seconds=30
    100s state open
    100s joined n1 ann/1 bob/2 cid/3
    101s disconnected n1 ann/1
    102s admitted seconds=30 ann
    102s admitted seconds=30 bob cid
";

#[test]
fn who_was_absent_when_their_turn_came_waits_again_where_they_were() {
    check(
        &format!(
            "{UNSEEN}
            131999ms due
            132s tick
            132s look ann
            132s due
            133s reconnected n2 ann/1
            133s look ann
            133s tick
            "
        ),
        "
        131999ms: nothing, nobody here
        132s: release ann Missed bob cid Lapsed
        7: ann missed their turn
        132s: ann at n1/1, missed 1, absent since 132s, kept for 300 s
        132s: nothing, nobody here
        133s: ann at n2/1, came by 8, came back 1 times, missed 1
        133s: admit ann
        ann granted
        bob lapsed
        cid lapsed
        ",
    );
}

#[test]
fn who_went_within_fifteen_seconds_of_the_grant_did_not_see_it_and_who_went_later_did() {
    check(
        "
        100s joined n1 ann/1 bob/2 cid/3
        100s admitted seconds=60 ann bob cid
        115s time
        115s disconnected n1 ann/1
        115001ms disconnected n1 bob/2
        160s tick
        ",
        "
        160s: release ann Missed bob cid Lapsed
        6: ann missed their turn
        1 ann absent
        bob lapsed
        cid lapsed
        ",
    );
}

#[test]
fn the_fifteen_seconds_are_running_time() {
    check(
        "
        100s joined n1 ann/1 bob/2
        100s admitted seconds=60 ann bob
        110s outage 10
        124s time
        125s disconnected n1 ann/1
        125001ms disconnected n1 bob/2
        169999ms due
        170s tick
        ",
        "
        169999ms: nothing, not open
        170s: release ann Missed bob Lapsed
        7: ann missed their turn
        1 ann absent
        bob lapsed
        ",
    );
}

#[test]
fn who_came_after_the_grant_has_seen_it() {
    check(
        "
        100s time
        100s joined n1 ann/1 bob/2
        101s disconnected n1 ann/1 bob/2
        102s admitted seconds=60 ann bob
        103s reconnected n1 ann/3
        104s disconnected n1 ann/3
        162s tick
        ",
        "
        162s: release ann Lapsed bob Missed
        7: bob missed their turn
        1 bob absent
        ann lapsed
        ",
    );
}

#[test]
fn a_turn_is_missed_as_often_as_the_policy_says_and_then_the_grant_lapses() {
    check(
        "
        100s policy missed_turns=2
        100s joined n1 ann/1
        101s disconnected n1 ann/1
        102s admitted seconds=30 ann
        132s tick
        133s admitted seconds=30 ann
        163s tick
        164s admitted seconds=30 ann
        194s tick
        ",
        "
        132s: release ann Missed
        5: ann missed their turn
        163s: release ann Missed
        7: ann missed their turn
        194s: release ann Lapsed
        ann lapsed
        ",
    );
}

#[test]
fn a_policy_without_missed_turns_gives_no_other() {
    check(
        "
        100s policy missed_turns=0
        100s joined n1 ann/1
        101s disconnected n1 ann/1
        102s admitted seconds=30 ann
        132s released missed ann
        133s tick
        ",
        "
        5: ann is void, NotMissed
        133s: release ann Lapsed
        ann lapsed
        ",
    );
}

#[test]
fn the_policy_of_the_end_says_how_many_turns_are_missed() {
    check(
        "
        100s time
        100s joined n1 ann/1 bob/2
        101s disconnected n1 ann/1 bob/2
        101s admitted seconds=30 ann
        102s policy missed_turns=0
        131s tick
        132s policy missed_turns=10
        132s admitted seconds=30 bob
        162s tick
        ",
        "
        131s: release ann Lapsed
        162s: release bob Missed
        9: bob missed their turn
        1 bob absent
        ann lapsed
        ",
    );
}

#[test]
fn for_who_missed_a_turn_lapsed_is_void_and_for_all_others_missed_is() {
    check(
        "
        100s joined n1 ann/1 bob/2 cid/3 dan/4
        101s time
        101s disconnected n1 ann/1
        102s admitted seconds=30 ann bob cid
        103s redeemed cid
        120s released missed ann
        140s released lapsed ann
        141s released missed bob cid dan eve
        142s released missed ann#bob
        143s released missed ann ann
        144s redeemed ann
        145s released lapsed ann
        ",
        "
        6: ann is void, NotMissed
        7: ann is void, Missed
        8: bob is void, NotMissed
        8: cid is void, NoSuchGrant
        8: dan is void, NoSuchGrant
        8: eve is void, UnknownVisitor
        9: ann is void, NoSuchGrant
        10: ann is void, NoSuchGrant
        10: ann missed their turn
        11: ann is void, NoSuchGrant
        12: ann is void, NoSuchGrant
        1 ann absent
        2 dan
        bob granted
        cid inside
        ",
    );
}

#[test]
fn who_came_back_after_the_decision_was_made_neither_misses_a_turn_nor_loses_it() {
    check(
        "
        100s joined n1 ann/1 bob/2
        100s time
        101s disconnected n1 ann/1 bob/2
        102s admitted seconds=30 ann bob
        132s time
        132s reconnected n1 ann/3 bob/4
        132s disconnected n1 bob/4
        133s basis=5 released missed ann bob
        ",
        "
        8: ann is void, CameBack
        8: bob is void, CameBack
        ann granted
        bob granted absent
        ",
    );
    check(
        "
        100s joined n1 ann/1 bob/2
        102s admitted seconds=30 ann bob
        133s time
        133s reconnected n1 ann/3 bob/4
        133s disconnected n1 bob/4
        133s basis=3 released lapsed ann bob
        134s tick
        ",
        "
        6: ann is void, CameBack
        6: bob is void, CameBack
        134s: release ann bob Lapsed
        ann lapsed
        bob lapsed
        ",
    );
}

#[test]
fn who_missed_a_turn_is_passed_over_until_they_come_also_where_the_absent_are_let_in() {
    check(
        &format!(
            "{UNSEEN}
            132s tick
            133s joined n1 dan/4
            134s disconnected n1 dan/4
            134s tick
            135s reconnected n1 ann/9
            135s joined n1 eve/5
            136s tick
            137s tick
            "
        ),
        "
        132s: release ann Missed bob cid Lapsed
        7: ann missed their turn
        134s: admit dan
        136s: admit ann
        137s: admit eve
        ann granted
        bob lapsed
        cid lapsed
        dan granted absent
        eve granted
        ",
    );
}

#[test]
fn a_missed_turn_begins_a_grace_of_its_own() {
    check(
        "
        100s policy reconnect_seconds=40
        100s joined n1 ann/1
        101s disconnected n1 ann/1
        102s admitted seconds=30 ann
        132s tick
        171999ms due
        172s tick
        ",
        "
        132s: release ann Missed
        5: ann missed their turn
        171999ms: nothing, not open
        172s: expire ann
        ann expired
        ",
    );
}

#[test]
fn a_missed_turn_gives_its_room_to_others() {
    check(
        "
        100s policy max_inside=1 absent=admit
        100s state open
        100s joined n1 ann/1 bob/2
        101s disconnected n1 ann/1
        102s admitted seconds=30 ann
        103s due
        132s tick
        132s tick
        ",
        "
        103s: nothing, full
        132s: release ann Missed
        6: ann missed their turn
        132s: admit bob
        1 ann absent
        bob granted
        ",
    );
}

#[test]
fn who_missed_a_turn_is_not_among_those_let_in_and_the_grant_was_made() {
    let line = line_after(&format!(
        "{UNSEEN}
        132s released missed ann
        133s admitted ann#again
        134s released released ann#again
        135s joined n1 dan/4
        136s admitted dan
        "
    ));
    assert_eq!((line.admitted(), line.grants_made()), (4, 5));
    let without = line_after(&format!("{UNSEEN}\n132s released missed ann"));
    assert_eq!((without.admitted(), without.grants_made()), (2, 3));
}

#[test]
fn who_went_while_nobody_could_be_served_did_not_see_their_turn_either() {
    check(
        "
        100s joined n1 ann/1
        100s admitted seconds=60 ann
        150s disconnected n1 ann/1
        201s outage 100
        201s look ann
        265s due
        ",
        "
        4: ann is prolonged
        201s: ann at n1/1, absent since 101s
        265s: release ann Missed
        ann granted absent
        ",
    );
}
