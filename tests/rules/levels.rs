//! Levels: a log is raised by one at a time, and nothing of a higher level counts before.

use anteroom::log::record::Record;
use anteroom::queue::digest::digest;
use anteroom::queue::event::{At, Level, Seq};
use anteroom::queue::line::Line;

use crate::readings::queue;
use crate::story::{TRIED, check, line_after};

#[test]
fn a_log_is_raised_by_one_level_at_its_own_place() {
    check(
        "
        1s joined n1 ann/1
        2s level 3
        3s joined n1 bob/2
        ",
        "
        level 3
        1 ann
        2 bob
        ",
    );
}

#[test]
fn the_same_level_a_lower_one_and_one_that_skips_do_not_stand() {
    check(
        "
        1s level 4
        2s level 65535
        3s level 2
        4s level 3
        5s level 3
        6s level 2
        7s level 65535
        8s level 5
        9s joined n1 ann/1
        ",
        "
        1: void, WrongLevel
        2: void, WrongLevel
        3: void, WrongLevel
        5: void, WrongLevel
        6: void, WrongLevel
        7: void, WrongLevel
        8: void, WrongLevel
        level 3
        1 ann
        ",
    );
}

#[test]
fn of_two_who_raise_it_at_once_one_does() {
    check(
        "
        1s state open
        2s level 3
        2s prev=1 basis=1 level 3
        3s joined n1 ann/1
        4s admitted ann
        ",
        "
        3: void, WrongPrev
        level 3
        ann granted
        ",
    );
}

#[test]
fn a_raise_is_a_decision_like_any_other() {
    check(
        "
        100s joined n1 ann/1
        100s state open
        101s prev=1 level 3
        101s basis=4 level 3
        110s now=110s level 3
        110s clock
        111s prev=3 admitted ann
        112s admitted ann
        ",
        "
        3: void, WrongPrev
        4: void, WrongBasis
        110s: it is 110s
        6: void, WrongPrev
        level 3
        ann granted
        ",
    );
}

#[test]
fn a_reader_halts_at_the_entry_that_raises_the_log_to_a_level_that_it_does_not_know() {
    check(
        "
        1s level 3
        2s joined n1 ann/1
        3s level 4
        4s joined n1 bob/2
        ",
        "
        3: halt, level 4
        level 3
        1 ann
        ",
    );
}

#[test]
fn what_does_not_raise_the_log_halts_nobody() {
    check(
        "
        1s level 3
        2s joined n1 ann/1
        3s prev=0 level 4
        4s basis=0 level 4
        5s basis=9 level 4
        6s prev=5 level 5
        7s level 4
        8s left ann
        ",
        "
        3: void, WrongPrev
        4: void, WrongBasis
        5: void, WrongBasis
        6: void, WrongLevel
        7: halt, level 4
        level 3
        1 ann
        ",
    );
}

#[test]
fn an_entry_above_the_log_s_level_is_void_for_good() {
    check(
        "
        1s v=3 joined n1 ann/1
        2s joined n2 ann/1
        3s v=3 state open
        4s prev=0 state paused
        5s prev=3 node_lost n1 n2
        6s level 3
        7s v=3 joined n1 bob/2
        8s joined n1 cid/3
        9s v=3 left cid
        10s due
        ",
        "
        1: void, Unreadable
        3: void, Unreadable
        4: void, WrongPrev
        5: void, WrongPrev
        10s: nothing, not open
        level 3
        1 ann
        2 bob
        cid left
        ",
    );
}

#[test]
fn a_node_is_not_known_by_an_entry_above_the_log_s_level() {
    check(
        "
        1s v=3 joined n7 ann/1
        2s node_lost n7
        ",
        "
        1: void, Unreadable
        2: n7 is void, UnknownNode
        ",
    );
}

#[test]
fn the_digest_says_by_which_level_it_was_taken() {
    let (two, three) = (line_after("1s level 3"), line_after("1s time"));
    assert_eq!(two.head().seq, three.head().seq);
    assert_ne!(digest(&two), digest(&three));
    // Nothing else of the state is different.
    let head = anteroom::queue::line::Head { level: Level(2), ..two.head() };
    let lowered = Line::restore(head, []).map(|line| digest(&line));
    assert_eq!(lowered, Some(digest(&three)));
}

/// Whether a reader who knows levels up to `newest` finds this an entry of a log of this level.
fn counts(kind: &str, payload: &str, newest: Level, level: Level) -> bool {
    let subject = format!("anteroom.log.demo.{kind}");
    let payload = payload.to_owned().into();
    let record = Record { seq: Seq(2), stored: At(0), subject, payload };
    record.read(&queue(), newest).is_ok_and(|written| written.at_level(level).1.is_none())
}

#[test]
fn a_version_counts_from_2_up_to_the_log_s_level() {
    let left = |v: &str| {
        format!(r#"{{"v":{v},"facts":[{{"visitor":"018f3f2e-0000-7000-8000-000000000001"}}]}}"#)
    };
    for (v, at_two, at_three) in [
        ("0", false, false),
        ("1", false, false),
        ("2", true, true),
        ("2.0", true, true),
        ("3", false, true),
        ("3e0", false, true),
        ("4", false, false),
        ("65538", false, false),
        ("9007199254740991", false, false),
        ("-2", false, false),
        ("2.5", false, false),
        ("true", false, false),
        (r#""2""#, false, false),
    ] {
        assert_eq!(counts("node.left", &left(v), TRIED, Level(2)), at_two, "{v}");
        assert_eq!(counts("node.left", &left(v), TRIED, Level(3)), at_three, "{v}");
        assert_eq!(counts("node.left", &left(v), Level(2), Level(2)), at_two, "{v}");
    }
}

#[test]
fn the_entry_that_raises_has_the_version_2_whatever_the_level() {
    let raise = |v: u8, level: &str| {
        format!(
            r#"{{"v":{v},"prev":0,"basis":0,"now":0,"worker":"018f3f2e-0000-7000-8000-000000000001","level":{level},"by":"ops"}}"#
        )
    };
    let counts = |v, level: &str, at| counts("admission.configured", &raise(v, level), TRIED, at);
    for at in [Level(2), Level(3)] {
        assert!(counts(2, "3", at) && counts(2, "4", at) && counts(2, "65535", at));
        assert!(!counts(3, "3", at) && !counts(3, "4", at), "of version 3");
        for level in ["2", "1", "0", "-3", "3.5", "65536", "null", r#""3""#, "[3]"] {
            assert!(!counts(2, level, at), "{level}");
        }
    }
}

#[test]
fn a_log_that_begins_with_version_1_is_refused_and_behind_that_it_is_void() {
    let read = |seq, kind: &str, payload: &str| {
        let subject = format!("anteroom.log.demo.{kind}");
        let payload = payload.to_owned().into();
        let record = Record { seq: Seq(seq), stored: At(0), subject, payload };
        record.read(&queue(), TRIED).map(|written| written.at_level(TRIED).1.is_none())
    };
    let first = r#"{"v":1,"prev":0,"basis":0,"facts":[]}"#;
    assert!(read(1, "admission.configured", first).is_err());
    assert!(read(1, "admission.admitted", r#"{"v":1.0}"#).is_err());
    assert_eq!(read(2, "admission.configured", first), Ok(false));
    assert_eq!(read(1, "node.joined", r#"{"v":1,"facts":[]}"#), Ok(false));
    assert_eq!(read(1, "admission.configured", r#"{"v":0}"#), Ok(false));
}
