//! The set of tickets beside a set that nobody doubts.

use std::collections::BTreeSet;

use anteroom::queue::event::Ticket;
use anteroom::queue::places::Places;
use proptest::prelude::*;

/// Tickets near the borders of words, blocks and groups, and anywhere.
fn ticket() -> impl Strategy<Value = u32> {
    let border = (0..4u32, prop::sample::select(vec![64u32, 512, 32_768]), 0..3u32);
    prop_oneof![
        0..200u32,
        0..100_000u32,
        border.prop_map(|(times, size, off)| (times * size + off).saturating_sub(1)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn places_are_a_set_in_order_that_knows_its_ranks(
        changes in prop::collection::vec((any::<bool>(), ticket()), 0..300),
        probes in prop::collection::vec(ticket(), 20),
    ) {
        let mut places = Places::default();
        let mut model = BTreeSet::new();
        for &(insert, ticket) in &changes {
            if insert {
                prop_assert_eq!(places.insert(Ticket(ticket)), model.insert(ticket));
            } else {
                prop_assert_eq!(places.remove(Ticket(ticket)), model.remove(&ticket));
            }
        }
        let named = changes.iter().map(|(_, ticket)| *ticket);
        for probe in probes.into_iter().chain(named).chain([u32::MAX]) {
            prop_assert_eq!(places.contains(Ticket(probe)), model.contains(&probe));
            prop_assert_eq!(places.rank(Ticket(probe)) as usize, model.range(..probe).count());
        }
        prop_assert_eq!(places.len() as usize, model.len());
        prop_assert_eq!(places.is_empty(), model.is_empty());
        let members: Vec<u32> = places.iter().map(|ticket| ticket.0).collect();
        prop_assert!(members.iter().eq(&model), "in ascending order");
    }

    #[test]
    fn places_come_back_from_their_bitmap(
        tickets in prop::collection::btree_set(ticket(), 0..300),
        more in prop::collection::vec(ticket(), 20),
    ) {
        let mut places: Places = Places::default();
        for &ticket in &tickets {
            places.insert(Ticket(ticket));
        }
        let mut again = Places::from_words(places.words().to_vec());
        prop_assert_eq!(&again, &places);
        // A bitmap may end with its last member.
        let used = places.words().iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
        let mut short = Places::from_words(places.words()[..used].to_vec());
        for ticket in more.into_iter().map(Ticket) {
            let rank = places.rank(ticket);
            prop_assert_eq!((again.rank(ticket), short.rank(ticket)), (rank, rank));
            let new = places.insert(ticket);
            prop_assert_eq!((again.insert(ticket), short.insert(ticket)), (new, new));
        }
        prop_assert!(again.iter().eq(places.iter()) && short.iter().eq(places.iter()));
    }
}

#[test]
fn a_million_people_wait_and_a_third_of_them_leaves() {
    const PEOPLE: u32 = 1_000_000;
    let mut places = Places::default();
    assert!((0..PEOPLE).all(|ticket| places.insert(Ticket(ticket))));
    assert_eq!(places.rank(Ticket(PEOPLE - 1)), PEOPLE - 1);

    let leaves = |ticket: u32| ticket.wrapping_mul(2_654_435_761).is_multiple_of(3);
    assert!(
        (0..PEOPLE).filter(|ticket| leaves(*ticket)).all(|ticket| places.remove(Ticket(ticket)))
    );

    let mut ahead = 0;
    for ticket in 0..PEOPLE {
        assert_eq!(places.contains(Ticket(ticket)), !leaves(ticket));
        if ticket.is_multiple_of(7) {
            assert_eq!(places.rank(Ticket(ticket)), ahead);
        }
        ahead += u32::from(!leaves(ticket));
    }
    assert_eq!(places.len(), ahead);
    let staying = (0..PEOPLE).filter(|ticket| !leaves(*ticket));
    assert!(places.iter().map(|ticket| ticket.0).eq(staying));
    assert_eq!(Places::from_words(places.words().to_vec()), places);
}
