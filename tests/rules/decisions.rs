//! What admission decided: which of it counts, and which counts nowhere.

use crate::story::{check, line_after};

#[test]
fn a_wrong_prev_voids_the_whole_entry_and_the_queue_goes_on() {
    check(
        "
        1s joined n1 ann/1 bob/2 cid/3
        2s admitted ann
        3s prev=1 admitted bob cid
        4s prev=2 admitted bob
        5s prev=4 admitted cid
        ",
        "
        3: void, WrongPrev
        4: void, WrongPrev
        1 bob
        ann granted
        cid granted
        ",
    );
}

#[test]
fn the_first_decision_has_nothing_before_it() {
    check(
        "
        1s prev=1 state open
        2s prev=1 policy max_inside=1
        ",
        "
        1: void, WrongPrev
        ",
    );
    check("1s prev=0 basis=0 state open", "");
}

#[test]
fn a_basis_lies_between_prev_and_the_entry_itself() {
    check(
        "
        1s joined n1 ann/1 bob/2 cid/3
        2s admitted ann
        3s basis=1 admitted bob
        4s basis=4 admitted bob
        5s basis=9 admitted bob
        6s basis=5 admitted bob
        7s basis=6 admitted cid
        ",
        "
        3: void, WrongBasis
        4: void, WrongBasis
        5: void, WrongBasis
        ann granted
        bob granted
        cid granted
        ",
    );
}

#[test]
fn an_unreadable_entry_on_an_admission_subject_moves_the_fence() {
    check(
        "
        1s joined n1 ann/1 bob/2
        2s state open
        3s void fenced
        4s prev=2 admitted ann
        5s prev=4 admitted bob
        ",
        "
        3: void, Unreadable
        4: void, WrongPrev
        1 ann
        bob granted
        ",
    );
}

#[test]
fn an_unreadable_entry_on_any_other_subject_does_not_move_the_fence() {
    check(
        "
        1s joined n1 ann/1
        2s state open
        3s void
        4s prev=2 admitted ann
        ",
        "
        3: void, Unreadable
        ann granted
        ",
    );
}

#[test]
fn only_who_waits_is_admitted() {
    check(
        "
        1s joined n1 ann/1 bob/2 cid/3
        2s left bob
        3s admitted ann#1 bob eve ann#2 cid
        4s admitted ann#3
        5s redeemed ann#2 ann#1
        ",
        "
        3: bob is void, NotWaiting
        3: eve is void, UnknownVisitor
        3: ann is void, NotWaiting
        4: ann is void, NotWaiting
        5: ann is void, NoSuchGrant
        ann inside
        bob left
        cid granted
        ",
    );
}

#[test]
fn who_is_absent_can_be_admitted_unseen() {
    check(
        "
        1s joined n1 ann/1
        2s disconnected n1 ann/1
        3s admitted ann
        4s redeemed ann
        ",
        "
        ann inside
        ",
    );
}

#[test]
fn who_is_present_does_not_expire() {
    check(
        "
        1s joined n1 ann/1 bob/2
        2s disconnected n1 bob/2
        3s expired ann bob eve
        4s expired bob
        ",
        "
        3: ann is void, Present
        3: eve is void, UnknownVisitor
        4: bob is void, NotWaiting
        1 ann
        bob expired
        ",
    );
}

#[test]
fn who_came_back_after_the_decision_was_made_does_not_expire() {
    check(
        "
        1s joined n1 ann/1
        2s disconnected n1 ann/1
        3s reconnected n1 ann/2
        4s disconnected n1 ann/2
        5s basis=2 expired ann
        ",
        "
        5: ann is void, CameBack
        1 ann absent
        ",
    );
    check(
        "
        1s joined n1 ann/1
        2s disconnected n1 ann/1
        3s reconnected n1 ann/2
        4s disconnected n1 ann/2
        5s basis=3 expired ann
        ",
        "
        ann expired
        ",
    );
}

#[test]
fn who_has_a_token_does_not_expire() {
    check(
        "
        1s joined n1 ann/1
        2s disconnected n1 ann/1
        3s admitted ann
        4s expired ann
        ",
        "
        4: ann is void, NotWaiting
        ann granted absent
        ",
    );
}

#[test]
fn a_grant_is_used_once() {
    check(
        "
        1s joined n1 ann/1 bob/2
        2s admitted ann
        3s redeemed ann
        4s redeemed ann bob eve
        ",
        "
        4: ann is void, AlreadyRedeemed
        4: bob is void, NoSuchGrant
        4: eve is void, UnknownVisitor
        1 bob
        ann inside
        ",
    );
}

#[test]
fn a_grant_that_ended_is_not_used() {
    check(
        "
        1s joined n1 ann/1 bob/2 cid/3 dan/4
        2s admitted ann bob cid dan
        3s released lapsed ann
        4s left bob
        5s removed cid
        6s released released dan
        7s redeemed ann bob cid dan
        ",
        "
        7: ann is void, NoSuchGrant
        7: bob is void, NoSuchGrant
        7: cid is void, NoSuchGrant
        7: dan is void, NoSuchGrant
        ann lapsed
        bob left
        cid removed
        dan released
        ",
    );
}

#[test]
fn a_grant_lapses_only_unused_and_a_session_is_over_only_when_there_was_one() {
    check(
        "
        1s joined n1 ann/1 bob/2 cid/3
        2s admitted ann bob
        3s redeemed bob
        4s released session_over ann
        5s released lapsed bob
        6s released lapsed cid
        7s released lapsed ann
        8s released session_over bob
        ",
        "
        4: ann is void, NoSuchGrant
        5: bob is void, NoSuchGrant
        6: cid is void, NoSuchGrant
        1 cid
        ann lapsed
        bob sessionover
        ",
    );
}

#[test]
fn someone_is_released_by_their_own_grant_and_once() {
    check(
        "
        1s joined n1 ann/1 bob/2
        2s admitted ann#a bob#b
        3s redeemed ann#a
        4s released released ann#b bob#a
        5s released released ann#a bob#b
        6s released released ann#a bob#b
        ",
        "
        4: ann is void, NoSuchGrant
        4: bob is void, NoSuchGrant
        6: ann is void, NoSuchGrant
        6: bob is void, NoSuchGrant
        ann released
        bob released
        ",
    );
}

#[test]
fn anyone_with_a_place_can_be_removed() {
    check(
        "
        1s joined n1 ann/1 bob/2 cid/3 dan/4 eve/5
        2s admitted bob cid
        3s redeemed cid
        4s disconnected n1 dan/4
        5s removed ann bob cid dan fox
        6s removed ann
        7s reconnected n1 dan/6
        ",
        "
        5: fox is void, UnknownVisitor
        6: ann is void, Ended
        7: dan is void, Ended
        1 eve
        ann removed
        bob removed
        cid removed
        dan removed
        ",
    );
}

#[test]
fn a_policy_replaces_the_one_before_whole() {
    let line = line_after(
        "
        1s policy rate_per_minute=600 max_inside=5
        2s policy token_seconds=30
        ",
    );
    assert_eq!(line.policy().rate_per_minute, 60);
    assert_eq!(line.policy().max_inside, None);
    assert_eq!(line.policy().token_seconds, 30);
}

#[test]
fn a_queue_counts_those_with_a_token_and_those_inside() {
    let line = line_after(
        "
        1s joined n1 ann/1 bob/2 cid/3 dan/4
        2s admitted ann bob cid
        3s redeemed ann bob
        4s released released ann
        ",
    );
    assert_eq!(line.unused().len(), 1);
    assert_eq!(line.inside().len(), 1);
    assert_eq!(line.waiting().len(), 1);
    assert_eq!(line.admitted(), 3);
}
