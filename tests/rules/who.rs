//! Who is where: RECONNECTs as they are heard, seats that nodes assert, sockets that a client counts, and
//! places that are carried to another hand.

#![expect(clippy::expect_used, reason = "a place that is not there fails its test")]

use anteroom::queue::event::{
    At, Entry, Level, NodeId, Reconnected, Return, Seq, Ticket, VisitorId,
};
use anteroom::queue::line::{Line, VoidFact};
use anteroom::wire::event::{Read, read};
use proptest::prelude::*;

use crate::story::{bytes, check, line_after};

#[test]
fn each_reconnect_just_heard_is_a_return_and_an_asserted_seat_is_none() {
    check(
        "
        1s joined n1 ann/1
        2s reconnected n1 ann/2
        3s reconnected n2 ann/1
        4s basis=3 reconnected n2 ann/1
        4s look ann
        ",
        "
        4s: ann at n2/1, came by 4, came back 2 times
        1 ann
        ",
    );
}

#[test]
fn an_asserted_seat_is_void_once_its_visitor_came_after_what_the_node_was_told() {
    check(
        "
        1s joined n1 ann/1 bob/2
        2s disconnected n1 ann/1 bob/2
        3s reconnected n2 ann/1
        4s basis=2 reconnected n1 ann/1 bob/2
        4s look ann
        4s look bob
        ",
        "
        4: ann is void, CameElsewhere
        4s: ann at n2/1, came by 3, came back 1 times
        4s: bob at n1/2, came by 4
        1 ann
        2 bob
        ",
    );
}

#[test]
fn an_asserted_seat_counts_where_its_node_knew_of_all() {
    check(
        "
        1s joined n1 ann/1
        2s reconnected n2 ann/1
        3s disconnected n2 ann/1
        4s basis=2 reconnected n1 ann/1
        5s basis=4 reconnected n2 ann/1
        5s look ann
        ",
        "
        5s: ann at n2/1, came by 5, came back 1 times
        1 ann
        ",
    );
}

#[test]
fn an_assertion_that_comes_twice_counts_once() {
    check(
        "
        1s joined n1 ann/1
        2s disconnected n1 ann/1
        3s basis=2 reconnected n1 ann/1 ann/1
        4s basis=2 reconnected n1 ann/1
        4s look ann
        ",
        "
        3: ann is void, CameElsewhere
        4: ann is void, CameElsewhere
        4s: ann at n1/1, came by 3
        1 ann
        ",
    );
}

#[test]
fn an_assertion_that_rests_on_itself_or_on_what_is_to_come_is_void() {
    check(
        "
        1s joined n1 ann/1 bob/2
        2s disconnected n1 ann/1 bob/2
        3s basis=3 reconnected n1 ann/1
        4s basis=9007199254740991 reconnected n9 ann/1/9@1 bob/2
        5s node_lost n9
        ",
        "
        3: ann is void, BasisAhead
        4: ann is void, BasisAhead
        4: bob is void, BasisAhead
        1 ann absent
        2 bob absent
        ",
    );
}

#[test]
fn a_node_is_known_by_its_first_valid_entry_whatever_becomes_of_the_facts() {
    check(
        "
        1s node_lost n7
        2s reconnected n7 eve/1
        3s node_lost n7
        4s disconnected n8 eve/1
        5s node_lost n8 n9
        ",
        "
        1: n7 is void, UnknownNode
        2: eve is void, UnknownVisitor
        4: eve is void, UnknownVisitor
        5: n9 is void, UnknownNode
        ",
    );
}

#[test]
fn of_two_sockets_that_a_client_counted_the_newer_one_counts_however_late_it_is_heard_of() {
    check(
        "
        1s joined n1 ann/1/1
        2s reconnected n2 ann/1/3
        3s reconnected n1 ann/2/2
        4s basis=1 reconnected n1 ann/2/2
        5s basis=1 reconnected n3 ann/1/4
        6s look ann
        6s disconnected n2 ann/1
        7s disconnected n3 ann/1
        ",
        "
        3: ann is void, OlderSocket
        4: ann is void, OlderSocket
        6s: ann at n3/1, opened 4, came by 5, came back 1 times
        1 ann absent
        ",
    );
}

#[test]
fn where_a_socket_has_no_number_the_order_of_the_log_decides() {
    check(
        "
        1s joined n1 ann/1/7
        2s reconnected n2 ann/1
        2s look ann
        3s reconnected n1 ann/2/3
        3s look ann
        4s reconnected n2 ann/3/3
        5s basis=3 reconnected n1 ann/2/3
        6s basis=1 reconnected n1 ann/2
        6s look ann
        ",
        "
        2s: ann at n2/1, came by 2, came back 1 times
        3s: ann at n1/2, opened 3, came by 3, came back 2 times
        5: ann is void, CameElsewhere
        6: ann is void, CameElsewhere
        6s: ann at n2/3, opened 3, came by 4, came back 3 times
        1 ann
        ",
    );
}

#[test]
fn no_socket_is_newer_than_the_last_one_that_can_be_counted() {
    check(
        "
        1s joined n1 ann/1/4294967295
        2s reconnected n1 ann/2/4294967294
        3s reconnected n1 ann/3/4294967295
        3s look ann
        ",
        "
        2: ann is void, OlderSocket
        3s: ann at n1/3, opened 4294967295, came by 3, came back 1 times
        1 ann
        ",
    );
}

#[test]
fn the_first_join_counts_for_good_with_its_socket_and_lane() {
    check(
        "
        1s lane=3 joined n1 ann/1/5
        2s lane=7 joined n2 ann/2/9
        2s look ann
        ",
        "
        2: ann joined before
        2s: ann at n1/1, opened 5, lane 3
        1 ann
        ",
    );
}

#[test]
fn a_place_is_carried_to_the_next_hand_and_the_one_before_has_it_no_more() {
    check(
        "
        1s joined n1 ann/1/8
        2s reconnected n2 ann/1/1@1
        2s look ann
        3s reconnected n1 ann/2/9
        4s basis=3 reconnected n1 ann/1/9
        5s disconnected n1 ann/1
        6s left ann
        7s reconnected n3 ann/1/1@2
        8s left ann@1 ann@3
        8s look ann
        9s left ann@2
        ",
        "
        2s: ann at n2/1, opened 1, hand 1, came by 2, came back 1 times
        3: ann is void, Carried
        4: ann is void, Carried
        6: ann is void, Carried
        8: ann is void, Carried
        8: ann is void, HandAhead
        8s: ann at n3/1, opened 1, hand 2, came by 7, came back 2 times
        ann left
        ",
    );
}

#[test]
fn a_place_is_carried_one_hand_at_a_time_and_by_no_assertion() {
    check(
        "
        1s joined n1 ann/1
        2s reconnected n2 ann/1@2
        3s basis=2 reconnected n2 ann/1@1
        4s reconnected n2 ann/1@4294967295
        5s left ann@1
        6s reconnected n2 ann/1@1 ann/2@2
        7s basis=6 reconnected n2 ann/2@2
        7s look ann
        ",
        "
        2: ann is void, HandAhead
        3: ann is void, HandAhead
        4: ann is void, HandAhead
        5: ann is void, HandAhead
        7s: ann at n2/2, hand 2, came by 7, came back 2 times
        1 ann
        ",
    );
}

/// Ann's place in the last hand that there is.
fn in_the_last_hand() -> Line {
    let line = line_after("1s joined n1 ann/1");
    let places = line.places().iter().map(|place| {
        let mut place = *place;
        place.hand = u32::MAX;
        (place, None)
    });
    Line::restore(line.head(), places.collect::<Vec<_>>()).expect("it is the same but for the hand")
}

#[test]
fn a_place_in_the_last_hand_is_carried_no_further() {
    let comes = |hand, basis| {
        let mut line = in_the_last_hand();
        let (node, visitor) = (NodeId(bytes("n2")), VisitorId(bytes("ann")));
        let visitors = vec![Return { hand, ..Return::plain(visitor, 2) }];
        let entry = Entry::Reconnected(Reconnected { node, basis, visitors });
        let change = line.apply(Seq(2), At(0), &entry);
        (change.came.len(), change.void, line.place(Ticket(0)).map(|place| place.hand))
    };
    let last = Some(u32::MAX);
    assert_eq!(comes(u32::MAX, None), (1, vec![], last));
    assert_eq!(comes(u32::MAX, Some(Seq(1))), (1, vec![], last));
    assert_eq!(comes(0, None), (0, vec![(0, VoidFact::Carried)], last));
    assert_eq!(comes(u32::MAX - 1, None), (0, vec![(0, VoidFact::Carried)], last));
}

#[test]
fn what_is_beyond_the_last_hand_or_socket_voids_the_entry() {
    let ann = VisitorId(bytes("ann"));
    let is_valid = |kind: &str, more: &str| {
        let node = if kind == "left" { String::new() } else { format!(r#""node":"{ann}","#) };
        let socket = if kind == "left" { "" } else { r#","socket":1"# };
        let payload = format!(r#"{{"v":2,{node}"facts":[{{"visitor":"{ann}"{socket}{more}}}]}}"#);
        let entry = read(&format!("node.{kind}"), payload.as_bytes(), Level::FIRST);
        matches!(entry, Read::Entry(..))
    };
    for kind in ["reconnected", "left"] {
        assert!(is_valid(kind, "") && is_valid(kind, r#","hand":4294967295"#));
        assert!(!is_valid(kind, r#","hand":4294967296"#) && !is_valid(kind, r#","hand":0"#));
    }
    for kind in ["joined", "reconnected"] {
        assert!(is_valid(kind, r#","opened":4294967295"#));
        assert!(!is_valid(kind, r#","opened":4294967296"#) && !is_valid(kind, r#","opened":0"#));
    }
    assert!(!is_valid("joined", r#","hand":1"#) && !is_valid("left", r#","opened":1"#));
}

#[test]
fn a_disconnected_is_of_one_node_and_one_socket() {
    check(
        "
        1s joined n1 ann/1 bob/2
        2s disconnected n2 ann/1
        3s disconnected n1 ann/2 bob/1
        4s basis=1 reconnected n2 ann/1
        4s disconnected n1 ann/1
        4s look ann
        5s disconnected n2 ann/1
        ",
        "
        4s: ann at n2/1, came by 4
        1 ann absent
        2 bob
        ",
    );
}

#[test]
fn a_return_is_counted_up_to_65535_times() {
    let mut line = line_after("1s joined n1 ann/1");
    let (node, visitor) = (NodeId(bytes("n1")), VisitorId(bytes("ann")));
    let back = |many| {
        Entry::Reconnected(Reconnected {
            node,
            basis: None,
            visitors: vec![Return::plain(visitor, 1); many],
        })
    };
    for (many, counted) in [(65_534, 65_534), (1, u16::MAX), (1, u16::MAX)] {
        line.apply(Seq(line.seq().0 + 1), At(0), &back(many));
        assert_eq!(line.place(Ticket(0)).map(|place| place.returns), Some(counted));
    }
}

/// One thing that is said of the only visitor there is.
#[derive(Clone, Copy, Debug)]
struct Said {
    node: u8,
    opened: u32,
    asserted: bool,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn whatever_the_order_in_which_nodes_are_heard_the_newest_socket_has_the_place(
        said in prop::collection::vec((0..3u8, any::<bool>()), 1..12)
            .prop_map(|said| {
                let counted = said.into_iter().zip(2u32..);
                counted.map(|((node, asserted), opened)| Said { node, opened, asserted }).collect::<Vec<_>>()
            })
            .prop_shuffle(),
        doubled in any::<prop::sample::Index>(),
    ) {
        let mut line = line_after("1s joined n1 ann/1/1");
        let visitor = VisitorId(bytes("ann"));
        let mut all = said.clone();
        all.insert(doubled.index(said.len()), *doubled.get(&said));
        for one in &all {
            let basis = one.asserted.then_some(Seq(1));
            let back = Return { opened: one.opened, ..Return::plain(visitor, u64::from(one.opened)) };
            let node = NodeId([one.node; 16]);
            let entry = Entry::Reconnected(Reconnected { node, basis, visitors: vec![back] });
            line.apply(Seq(line.seq().0 + 1), At(0), &entry);
        }
        let newest = said.iter().max_by_key(|one| one.opened).expect("there is one");
        let place = line.place(Ticket(0)).expect("she has a place");
        prop_assert_eq!(place.opened, newest.opened);
        prop_assert_eq!(line.nodes().id(place.node), NodeId([newest.node; 16]));
        prop_assert_eq!(place.absent(), None);
    }
}
