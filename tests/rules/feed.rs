//! What the feed costs: bytes for what moved, none for who waits.

#![expect(clippy::expect_used, reason = "a movement that does not count fails its test")]

use anteroom::queue::estimate::{self, Cause};
use anteroom::queue::event::{
    self, Admitted, At, Decision, Entry, Facts, Join, Jti, Left, Millis, NodeId, Redeemed, Seq,
    Ticket, VisitorId,
};
use anteroom::queue::line::{Change, Line, Standing};
use anteroom::queue::pace::Pace;
use anteroom::wire::feed::{
    Came, Config, Delta, Ended, FEED_VERSION, Frame, Grant, Halted, Joined, Outlook, Revoked,
    from_gaps, read_frame, to_gaps, write,
};
use proptest::prelude::*;

use crate::story::WORKER;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn numbers_come_back_from_their_gaps(
        numbers in prop::collection::btree_set(any::<u32>(), 0..200),
    ) {
        let gaps = to_gaps(numbers.iter().copied());
        prop_assert!(from_gaps(&gaps).eq(numbers));
    }

    #[test]
    fn a_frame_comes_back_from_its_bytes(frame in any_frame()) {
        let bytes = write(&frame);
        prop_assert_eq!(read_frame(&bytes).map_err(|error| TestCaseError::fail(error.to_string()))?, frame);
    }

    #[test]
    fn bytes_that_are_no_frame_are_an_error_and_no_panic(
        frame in any_frame(),
        cut in any::<prop::sample::Index>(),
        noise in any::<Vec<u8>>(),
    ) {
        let bytes = write(&frame);
        prop_assert!(read_frame(&bytes[..cut.index(bytes.len())]).is_err());
        prop_assert!(read_frame(&[&bytes[..], &[0]].concat()).is_err());
        let _ = read_frame(&noise);
    }
}

#[test]
fn an_outlook_comes_back_from_what_the_feed_says_of_it() {
    for cause in [Cause::LineSlowed, Cause::RateLowered, Cause::PeopleReturned, Cause::OpeningMoved]
    {
        let outlook = estimate::Outlook {
            rate_milli: 60_000,
            room: Some(3),
            full_milli: 31_234,
            leaving_ppm: 5,
            departures: 6,
            moving_ppm: 7,
            seen: 8,
            cause,
            absent: [1, 1, 2, 3, 5, 5, 5, 8, 13, 13, 13, 21, 34, 55, 55, 900_000],
        };
        assert_eq!(estimate::Outlook::from(&Outlook::from(&outlook)), outlook);
    }
}

#[test]
fn a_frame_of_another_version_is_an_error() {
    let frame = Frame { version: FEED_VERSION + 1, ..frame(Vec::new()) };
    let error = read_frame(&write(&frame)).unwrap_err().to_string();
    assert!(error.contains(&(FEED_VERSION + 1).to_string()), "{error}");
}

#[test]
fn a_movement_costs_as_many_bytes_with_a_million_waiting_as_with_a_thousand() {
    let few = bytes_of_a_movement(1_000);
    let many = bytes_of_a_movement(1_000_000);
    // A number below 2^16 takes at most 3 bytes, a larger one 5. These are the numbers that grow
    // with the line: the first ticket of the joins, of the leavers and of those who entered, and
    // the tickets of two grants.
    let wider = 2 * (1 + 1 + 1 + 2);
    assert!(many >= few && many - few <= wider, "{few} and {many} bytes");
    assert!(many < 200, "{many} bytes");
}

/// The bytes of the frame for the same four entries, behind so many people.
fn bytes_of_a_movement(people: u32) -> usize {
    let mut line = Line::default();
    // As many entries whatever the people, so that the sequences are the same.
    let per_entry = people / 1_000;
    for first in (0..people).step_by(per_entry as usize) {
        apply(&mut line, &Entry::Joined(joined(first..first + per_entry)));
    }
    let from = line.seq().0;
    let middle = people / 2;
    let moved = [
        Entry::Joined(joined(people..people + 10)),
        Entry::Left(
            [0, 7, 300].map(|off| Left { visitor: visitor(middle + off), hand: 0 }).to_vec(),
        ),
        decided(&line, 2, Facts::Admitted([middle + 1, middle + 2].map(admitted).to_vec())),
        decided(&line, 3, Facts::Redeemed(vec![redeemed(middle + 2)])),
    ];
    let changes: Vec<Change> = moved.iter().map(|entry| apply(&mut line, entry)).collect();
    let deltas = (from..).zip(&changes).map(|(prev, change)| delta(&line, prev, change)).collect();
    let outlook = Some((&Pace::default().look(&line, line.at())).into());
    let frame = Frame { through: line.seq().0, last_delta: line.seq().0, outlook, ..frame(deltas) };
    assert_eq!(line.waiting().len(), people + 10 - 3 - 2);
    write(&frame).len()
}

fn apply(line: &mut Line, entry: &Entry) -> Change {
    let change = line.apply(Seq(line.seq().0 + 1), At(0), entry);
    assert!(change.void.is_empty() && change.void_entry.is_none(), "{change:?}");
    change
}

/// A decision for the entry that comes so many after this line's; the one before it decided too.
fn decided(line: &Line, after: u64, facts: Facts) -> Entry {
    let basis = Seq(line.seq().0 + after);
    let prev = if after == 2 { Seq(0) } else { basis };
    Entry::Decided(Decision { prev, basis, now: Millis(0), worker: WORKER, facts })
}

/// The delta that a change comes to.
fn delta(line: &Line, prev: u64, change: &Change) -> Delta {
    let mut ended: Vec<u32> = change.ended.iter().map(|(ticket, _)| ticket.0).collect();
    ended.sort_unstable();
    let joined = Joined {
        first: change.joined.first.0,
        accepted: change.joined.accepted,
        ignored: change.joined.ignored.clone(),
    };
    let grant = |ticket: &Ticket| {
        let grant = line.grant(*ticket).expect("who is admitted has a grant");
        Grant { ticket: ticket.0, jti: grant.jti.0 }
    };
    let standing = change.ended.first().map(|(_, end)| Standing::Ended(*end));
    let standing = standing.map(anteroom::queue::digest::standing_code);
    Delta {
        seq: prev + 1,
        prev,
        joined: (joined.accepted > 0).then_some(joined),
        admitted: change.admitted.iter().map(grant).collect(),
        entered: to_gaps(change.entered.iter().map(|ticket| ticket.0)),
        ended: standing
            .map(|standing| Ended { standing, tickets: to_gaps(ended) })
            .into_iter()
            .collect(),
        ..Delta::default()
    }
}

fn frame(deltas: Vec<Delta>) -> Frame {
    Frame {
        version: FEED_VERSION,
        stream: 1_700_000_000_000_000_000,
        through: 0,
        last_delta: 0,
        end: 0,
        now: 1_700_000_100_000_000_000,
        behind_millis: 0,
        inside: 2,
        full_milli: 0,
        outlook: Some(Outlook { rate_milli: 60_000, full_milli: 60_000, ..Outlook::default() }),
        halted: None,
        deltas,
    }
}

fn joined(visitors: impl Iterator<Item = u32>) -> event::Joined {
    let visitors = visitors.map(|n| Join::plain(visitor(n), u64::from(n))).collect();
    event::Joined { node: NodeId([1; 16]), visitors }
}

fn visitor(n: u32) -> VisitorId {
    VisitorId(u128::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835).to_be_bytes())
}

fn admitted(n: u32) -> Admitted {
    let visitor = visitor(n);
    Admitted { visitor, jti: Jti(visitor.0), kid: "k1".to_owned(), seconds: 120 }
}

fn redeemed(n: u32) -> Redeemed {
    let visitor = visitor(n);
    let (jti, kid) = (Jti(visitor.0), "k1".to_owned());
    Redeemed { visitor, jti, kid, seconds: 1_800, key: None }
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let numbers = any::<(i64, u64, u64, i64, u32, u32, u16, Option<u64>)>();
    (numbers, prop::collection::vec(any_delta(), 0..4)).prop_map(|(n, deltas)| Frame {
        version: FEED_VERSION,
        stream: n.0,
        through: n.1,
        last_delta: n.2,
        end: n.2,
        now: n.3,
        behind_millis: n.4,
        inside: n.5,
        full_milli: n.6,
        halted: n.7.map(|after| Halted { after, why: "why".to_owned(), is_log_gone: false }),
        outlook: n.7.map(|rate_milli| Outlook {
            rate_milli,
            room: Some(n.5),
            ..Outlook::default()
        }),
        deltas,
    })
}

fn any_delta() -> impl Strategy<Value = Delta> {
    let joined = any::<(u32, u32, Vec<u32>)>();
    let joined = joined.prop_map(|(first, accepted, ignored)| Joined { first, accepted, ignored });
    let came = any::<([u8; 16], Vec<(u32, u64)>)>();
    let came = came.prop_map(|(node, places)| Came { node, places });
    let grant = any::<(u32, [u8; 16])>().prop_map(|(ticket, jti)| Grant { ticket, jti });
    let ended = any::<(u8, Vec<u32>)>();
    let ended = ended.prop_map(|(standing, tickets)| Ended { standing, tickets });
    let config =
        any::<((u16, bool), String, u8, Option<String>, Vec<(String, [u8; 32])>, Option<String>)>();
    let config =
        config.prop_map(|((level, is_presence_off), policy, state, reason, keys, secret)| Config {
            level,
            policy,
            is_presence_off,
            state,
            reason,
            keys,
            secret,
        });
    (
        (any::<u64>(), any::<u64>(), prop::option::of(joined), prop::option::of(came)),
        (prop::collection::vec(grant, 0..5), any::<[Vec<u32>; 2]>()),
        prop::collection::vec(ended, 0..3),
        any::<(Vec<[u8; 16]>, Vec<[u8; 16]>)>(),
        prop::option::of(config),
    )
        .prop_map(
            |((seq, prev, joined, came), (admitted, [missed, entered]), ended, ids, config)| {
                Delta {
                    seq,
                    prev,
                    joined,
                    came,
                    admitted,
                    missed,
                    entered,
                    ended,
                    revoked: ids.0.into_iter().map(|jti| Revoked { jti, until: 0 }).collect(),
                    lost: ids.1,
                    config,
                }
            },
        )
}
