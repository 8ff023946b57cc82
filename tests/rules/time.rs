//! What time it is: store times are of whichever server leads, so decisions state the time, and no clock
//! alone can move the log's far.

use anteroom::queue::event::{At, Configured, Facts, Seq, Setting};
use anteroom::queue::line::Line;

use crate::story::{check, fresh, same_by_audit};

const SECOND: i64 = 1_000_000_000;

#[test]
fn a_decision_within_two_seconds_of_the_servers_clock_shifts_nothing() {
    check(
        "
        100s now=102s time
        100s clock
        200s now=198s time
        200s clock
        300s now=302001ms time
        300s clock
        400s now=397999ms time
        400s clock
        ",
        "
        100s: it is 102s
        200s: it is 200s
        300s: it is 300s
        4: shifted from 0s to -2001ms
        400s: it is 397999ms, shifted by -2001ms
        ",
    );
}

#[test]
fn a_server_whose_clock_is_ahead_is_shifted_back_and_the_next_one_forward() {
    check(
        "
        1000s now=1000s time
        1301s now=1001s time
        1301s clock
        1302s now=1002s time
        1302s clock
        1003s now=1003s time
        1003s clock
        704s now=1004s time
        704s clock
        ",
        "
        2: shifted from 0s to -300s
        1301s: it is 1001s, shifted by -300s
        1302s: it is 1002s, shifted by -300s
        4: shifted from -300s to 0s, an outage of 1s
        1003s: it is 1003s, running 1002s
        5: shifted from 0s to 300s, an outage of 1s
        704s: it is 1004s, shifted by 300s, running 1002s
        ",
    );
}

#[test]
fn where_the_servers_clock_is_behind_five_seconds_are_the_most() {
    check(
        "
        1000s now=1000s time
        700s now=1004s time
        700s clock
        701s now=9999s time
        701s clock
        ",
        "
        2: shifted from 0s to 304s, an outage of 4s
        700s: it is 1004s, shifted by 304s, running 1000s
        701s: it is 1005s, shifted by 304s, running 1001s
        ",
    );
    check(
        "
        1000s now=1000s time
        700s now=9999s time
        700s clock
        400s now=9999s time
        400s clock
        ",
        "
        2: shifted from 0s to 305s, an outage of 5s
        700s: it is 1005s, shifted by 305s, running 1000s
        3: shifted from 305s to 610s, an outage of 5s
        400s: it is 1010s, shifted by 610s, running 1000s
        ",
    );
}

#[test]
fn a_server_that_is_two_seconds_behind_is_not_behind() {
    check(
        "
        100s time
        98s now=9999s time
        98s clock
        97999ms now=9999s time
        97999ms clock
        ",
        "
        98s: it is 100s
        3: shifted from 0s to 7001ms, an outage of 5s
        97999ms: it is 105s, shifted by 7001ms, running 100s
        ",
    );
}

#[test]
fn whoever_decides_by_a_clock_that_is_ahead_by_what_is_agreed_is_not_early() {
    check(
        "
        100s policy reconnect_seconds=10
        100s joined n1 ann/1 bob/2
        101s disconnected n1 ann/1
        109s now=111s expired ann
        109s clock
        109500ms joined n1 cid/3
        109500ms clock
        112s joined n1 dan/4
        112s clock
        ",
        "
        109s: it is 111s
        109500ms: it is 111s
        112s: it is 112s
        1 bob
        2 cid
        3 dan
        ann expired
        ",
    );
}

#[test]
fn what_time_a_decision_states_never_voids_it_and_never_goes_back() {
    check(
        "
        1000s joined n1 ann/1 bob/2 cid/3 dan/4
        1000s time
        1001s now=0ms admitted ann
        1001s clock
        1002s now=10413792000s admitted bob
        1002s clock
        1003s now=9007199254740991ms admitted cid
        1003s clock
        1004s now=900s admitted dan
        1004s clock
        1005s now=1005s time
        1005s clock
        ",
        "
        3: shifted from 0s to -1s
        1001s: it is 1000s, shifted by -1s
        4: shifted from -1s to 0s, an outage of 1s
        1002s: it is 1002s, running 1001s
        1003s: it is 1003s, running 1002s
        6: shifted from 0s to -1s
        1004s: it is 1003s, shifted by -1s, running 1002s
        1005s: it is 1005s, shifted by -1s, running 1004s
        ann granted
        bob granted
        cid granted
        dan granted
        ",
    );
}

#[test]
fn a_log_may_begin_in_1970_and_go_on_for_centuries() {
    check(
        "
        0s now=0ms time
        0s clock
        9000000000s now=9000000000s time
        9000000000s clock
        ",
        "
        0s: it is 0s
        9000000000s: it is 9000000000s
        ",
    );
    // Store times end in 2262; what is stated beyond is no time of theirs.
    check(
        "
        9000000000s now=9007199254740991ms time
        9000000001s now=0ms time
        9000000001s clock
        ",
        "
        2: shifted from 0s to -1s
        9000000001s: it is 9000000000s, shifted by -1s
        ",
    );
}

#[test]
fn without_a_decision_the_time_goes_on_for_five_seconds_and_no_further() {
    check(
        "
        100s joined n1 ann/1
        100s clock
        101s time
        101s clock
        104s joined n1 bob/2
        104s clock
        105s void
        105s clock
        105999ms prev=1 admitted ann
        105999ms clock
        106s void fenced
        106s clock
        200s disconnected n1 bob/2
        200s clock
        104s left bob
        104s clock
        ",
        "
        100s: it is 5s, withheld
        101s: it is 101s
        104s: it is 104s
        4: void, Unreadable
        105s: it is 105s
        5: void, WrongPrev
        105999ms: it is 105999ms
        6: void, Unreadable
        106s: it is 106s, withheld
        200s: it is 106s, withheld
        104s: it is 106s, withheld
        1 ann
        bob left
        ",
    );
}

#[test]
fn a_server_ahead_moves_the_time_by_five_seconds_before_the_next_decision_takes_it_back() {
    check(
        "
        1000s now=1000s time
        1300s joined n1 ann/1
        1300s clock
        1301s now=1001s time
        1301s clock
        1305s now=1005s time
        1305s clock
        1306s now=1006s time
        1306s clock
        ",
        "
        1300s: it is 1005s, withheld
        3: shifted from 0s to -296s
        1301s: it is 1005s, shifted by -296s
        4: shifted from -296s to -300s
        1305s: it is 1005s, shifted by -300s
        1306s: it is 1006s, shifted by -300s
        1 ann
        ",
    );
}

#[test]
fn who_went_while_the_time_was_withheld_is_absent_since_the_next_decision() {
    check(
        "
        100s time
        100s joined n1 ann/1 bob/2 cid/3 dan/4 eve/5
        101s admitted cid dan
        104s disconnected n1 bob/2 dan/4
        200s disconnected n1 ann/1 cid/3
        200s look ann
        300s time
        300s look ann
        300s look bob
        300s look cid
        300s look dan
        300s look eve
        ",
        "
        200s: ann at n1/1, absent since 106s, kept for 300 s
        6: ann is prolonged
        6: cid is prolonged
        300s: ann at n1/1, absent since 300s, kept for 300 s
        300s: bob at n1/2, absent since 104s, kept for 300 s
        300s: cid at n1/3, absent since 300s
        300s: dan at n1/4, absent since 104s
        300s: eve at n1/5
        1 ann absent
        2 bob absent
        3 eve
        cid granted absent
        dan granted absent
        ",
    );
}

#[test]
fn the_end_of_a_withholding_comes_after_the_outage_of_its_shift() {
    check(
        "
        1000s joined n1 ann/1 bob/2
        1000s time
        1004s disconnected n1 bob/2
        1010s disconnected n1 ann/1
        711s now=1011s time
        711s clock
        711s look ann
        711s look bob
        ",
        "
        5: shifted from 0s to 299s, an outage of 5s
        5: ann is prolonged
        711s: it is 1010s, shifted by 299s, running 1005s
        711s: ann at n1/1, absent since 1005s, kept for 300 s
        711s: bob at n1/2, absent since 1004s, kept for 300 s
        1 ann absent
        2 bob absent
        ",
    );
}

#[test]
fn nobody_is_judged_by_a_time_that_is_withheld() {
    check(
        "
        100s policy opens_at=200s reconnect_seconds=1
        100s joined n1 ann/1 bob/2
        101s disconnected n1 ann/1
        105s left bob
        300s due
        300s time
        300s tick
        300s tick
        300s due
        ",
        "
        300s: nothing, not open
        300s: set Open by schedule
        300s: expire ann
        300s: nothing, nobody here
        ann expired
        bob left
        ",
    );
}

#[test]
fn an_outage_of_a_shift_prolongs_graces_and_grants_and_not_sessions_nor_openings() {
    // The next leader's clock is five seconds behind what was said, three times: fifteen seconds of outage.
    check(
        "
        990s policy reconnect_seconds=20 closes_at=1030s missed_turns=0
        1000s state open
        1000s joined n1 ann/1 bob/2 cid/3
        1000s disconnected n1 ann/1
        1000s admitted seconds=20 bob cid
        1000s redeemed seconds=40 cid
        900s now=1005s time
        800s now=1010s time
        700s now=1015s time
        700s clock
        714999ms due
        715s tick
        719999ms due
        720s tick
        720s tick
        724999ms due
        725s tick
        ",
        "
        7: shifted from 0s to 105s, an outage of 5s
        8: shifted from 105s to 210s, an outage of 5s
        9: shifted from 210s to 315s, an outage of 5s
        700s: it is 1015s, shifted by 315s, running 1000s
        714999ms: nothing, nobody here
        715s: set Closed by schedule
        719999ms: nothing, not open
        720s: expire ann
        720s: release bob Lapsed
        724999ms: nothing, not open
        725s: release cid SessionOver
        ann expired
        bob lapsed
        cid sessionover
        ",
    );
}

#[test]
fn all_outage_together_has_an_end() {
    // A year each: 293 of them are more nanoseconds than there are.
    let (by, what) = ("ops".to_owned(), Setting::Outage { seconds: 366 * 86_400 });
    let outages = vec![Configured { by, what }; 300];
    let mut line = Line::default();
    let entry = fresh(&line, At(1_000 * SECOND), Facts::Configured(outages));
    line.apply(Seq(1), At(1_000 * SECOND), &entry);
    assert_eq!(line.graces().outages(), i64::MAX);
    assert_eq!(line.graces().running(line.at()), At(1_000 * SECOND - i64::MAX));
    same_by_audit(&[(At(1_000 * SECOND), entry)]);
}
