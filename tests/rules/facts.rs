//! Taking a place, keeping it and giving it up: the facts that nodes write.

use crate::story::check;

#[test]
fn places_are_given_in_the_order_of_the_log() {
    check(
        "
        1s joined n1 ann/1 bob/2
        2s joined n2 cid/1
        3s joined n1 dan/3
        ",
        "
        1 ann
        2 bob
        3 cid
        4 dan
        ",
    );
}

#[test]
fn a_leaver_moves_everyone_behind_one_place_up() {
    check(
        "
        1s joined n1 ann/1 bob/2 cid/3 dan/4
        2s left bob
        ",
        "
        1 ann
        2 cid
        3 dan
        bob left
        ",
    );
}

#[test]
fn the_first_join_of_a_visitor_counts_for_good() {
    check(
        "
        1s joined n1 ann/1 bob/2
        2s joined n2 ann/1 cid/2 cid/3
        3s left bob
        4s joined n1 bob/4
        ",
        "
        2: ann joined before
        2: cid joined before
        4: bob joined before
        1 ann
        2 cid
        bob left
        ",
    );
}

#[test]
fn a_second_join_does_not_move_the_visitor_to_its_socket() {
    check(
        "
        1s joined n1 ann/1
        2s joined n2 ann/7
        3s disconnected n2 ann/7
        ",
        "
        2: ann joined before
        1 ann
        ",
    );
}

#[test]
fn who_is_absent_keeps_the_place() {
    check(
        "
        1s joined n1 ann/1 bob/2
        2s disconnected n1 ann/1
        ",
        "
        1 ann absent
        2 bob
        ",
    );
}

#[test]
fn who_comes_back_on_any_node_has_the_place_that_they_had() {
    check(
        "
        1s joined n1 ann/1 bob/2
        2s disconnected n1 ann/1
        3s reconnected n2 ann/1
        ",
        "
        1 ann
        2 bob
        ",
    );
}

#[test]
fn a_late_disconnected_changes_nothing() {
    check(
        "
        1s joined n1 ann/1 bob/2
        2s reconnected n2 ann/1
        3s disconnected n1 ann/1
        4s reconnected n1 bob/3
        5s disconnected n1 bob/2
        ",
        "
        1 ann
        2 bob
        ",
    );
}

#[test]
fn the_latest_socket_is_the_one_that_counts() {
    check(
        "
        1s joined n1 ann/5
        2s reconnected n1 ann/9
        3s reconnected n1 ann/7
        4s disconnected n1 ann/9
        5s disconnected n1 ann/7
        ",
        "
        1 ann absent
        ",
    );
}

#[test]
fn a_socket_that_is_gone_twice_is_gone() {
    check(
        "
        1s joined n1 ann/1
        2s disconnected n1 ann/1 ann/1
        3s disconnected n1 ann/1
        ",
        "
        1 ann absent
        ",
    );
}

#[test]
fn a_lost_node_takes_along_only_those_who_are_still_there() {
    check(
        "
        1s joined n1 ann/1 bob/2 cid/3
        2s joined n2 dan/1
        3s reconnected n2 bob/2
        4s node_lost n1
        ",
        "
        1 ann absent
        2 bob
        3 cid absent
        4 dan
        ",
    );
}

#[test]
fn a_node_that_was_declared_lost_can_hold_people_again() {
    check(
        "
        1s joined n1 ann/1 bob/2
        2s node_lost n1
        3s reconnected n1 ann/1
        4s node_lost n1 n9
        5s reconnected n1 bob/2
        ",
        "
        4: n9 is void, UnknownNode
        1 ann absent
        2 bob
        ",
    );
}

#[test]
fn nobody_can_be_told_of_who_never_joined() {
    check(
        "
        1s joined n1 ann/1
        2s reconnected n1 eve/2 ann/3
        3s disconnected n1 eve/2
        4s left eve ann
        ",
        "
        2: eve is void, UnknownVisitor
        3: eve is void, UnknownVisitor
        4: eve is void, UnknownVisitor
        ann left
        ",
    );
}

#[test]
fn a_place_that_has_ended_does_not_come_back() {
    check(
        "
        1s joined n1 ann/1
        2s left ann
        3s reconnected n1 ann/2
        4s disconnected n1 ann/2
        5s left ann
        ",
        "
        3: ann is void, Ended
        5: ann is void, Ended
        ann left
        ",
    );
}

#[test]
fn who_has_a_token_can_leave_and_who_is_inside_has_nothing_to_leave() {
    check(
        "
        1s joined n1 ann/1 bob/2
        2s admitted ann bob
        3s redeemed bob
        4s left ann bob
        5s reconnected n1 bob/3
        ",
        "
        4: bob is void, Ended
        5: bob is void, Ended
        ann left
        bob inside
        ",
    );
}

#[test]
fn who_has_a_token_can_be_absent_and_come_back() {
    check(
        "
        1s joined n1 ann/1 bob/2
        2s admitted ann bob
        3s node_lost n1
        4s reconnected n2 bob/1
        ",
        "
        ann granted absent
        bob granted
        ",
    );
}

#[test]
fn a_void_entry_has_its_place_in_the_log_and_nothing_else() {
    check(
        "
        1s joined n1 ann/1
        2s void
        3s void fenced
        4s joined n1 bob/2
        ",
        "
        2: void, Unreadable
        3: void, Unreadable
        1 ann
        2 bob
        ",
    );
}
