//! Time in which nobody could be served costs nobody their place.

use crate::story::check;

#[test]
fn an_outage_prolongs_graces_that_ran_by_its_length() {
    check(
        "
        1s joined n1 ann/1 bob/2
        10s time
        10s disconnected n1 ann/1
        200s outage 60
        369999ms due
        370s due
        ",
        "
        369999ms: nothing, not open
        370s: expire ann
        1 ann absent
        2 bob
        ",
    );
}

#[test]
fn who_became_absent_within_an_outage_has_the_whole_grace_after_it() {
    check(
        "
        1s joined n1 ann/1 bob/2 cid/3
        140s time
        140s disconnected n1 ann/1
        160s time
        160s disconnected n1 bob/2
        190s time
        190s disconnected n1 cid/3
        200s outage 60
        499999ms due
        500s due
        ",
        "
        8: bob is prolonged
        8: cid is prolonged
        499999ms: nothing, not open
        500s: expire ann bob cid
        1 ann absent
        2 bob absent
        3 cid absent
        ",
    );
}

#[test]
fn who_became_absent_after_an_outage_has_the_usual_grace() {
    check(
        "
        1s joined n1 ann/1
        200s outage 60
        210s time
        210s disconnected n1 ann/1
        509999ms due
        510s due
        ",
        "
        509999ms: nothing, not open
        510s: expire ann
        1 ann absent
        ",
    );
}

#[test]
fn outages_add_up() {
    check(
        "
        1s joined n1 ann/1
        10s time
        10s disconnected n1 ann/1
        100s outage 50
        200s outage 50
        409999ms due
        410s due
        ",
        "
        409999ms: nothing, not open
        410s: expire ann
        1 ann absent
        ",
    );
}

#[test]
fn an_outage_prolongs_unused_grants_and_not_sessions() {
    check(
        "
        1s joined n1 ann/1 bob/2
        100s admitted seconds=120 ann bob
        101s redeemed seconds=150 bob
        200s outage 60
        250999ms due
        251s tick
        279999ms due
        280s tick
        ",
        "
        250999ms: nothing, not open
        251s: release bob SessionOver
        279999ms: nothing, not open
        280s: release ann Lapsed
        ann lapsed
        bob sessionover
        ",
    );
}

#[test]
fn an_outage_does_not_touch_who_came_back() {
    check(
        "
        1s joined n1 ann/1
        150s time
        150s disconnected n1 ann/1
        160s time
        160s reconnected n1 ann/2
        200s outage 60
        300s time
        300s disconnected n1 ann/2
        599999ms due
        600s due
        ",
        "
        599999ms: nothing, not open
        600s: expire ann
        1 ann absent
        ",
    );
}

#[test]
fn a_grant_after_an_outage_has_its_usual_time() {
    check(
        "
        1s joined n1 ann/1
        100s outage 60
        200s admitted seconds=20 ann
        219999ms due
        220s due
        ",
        "
        219999ms: nothing, not open
        220s: release ann Lapsed
        ann granted
        ",
    );
}
