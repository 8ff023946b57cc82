//! Group commit: many facts in few entries, each of them told where it is.

use anteroom::log::append::{AppendError, Appended, FACTS_WAITING_MAX, NodeFact};
use anteroom::queue::event::{Left, Return, Seq, Socket};
use serde_json::Value;

use crate::world::{NODE, World, fold, joined, name, put, soon, visitor};

#[tokio::test]
async fn a_fact_that_comes_alone_leaves_alone() {
    let world = World::new().await;
    let appender = world.appender().await;
    for (seq, who) in [(1, "ann"), (2, "bob"), (3, "cid")] {
        let mut pending = appender.append(joined(who, seq)).unwrap();
        let appended = soon(pending.known()).await;
        assert_eq!(appended, Ok(Appended { seq: Seq(seq), index: 0 }));
    }
    let left = NodeFact::Left(Left { visitor: visitor("bob"), hand: 0 });
    soon(appender.append(left).unwrap().known()).await.unwrap();
    world
        .says("1 node.joined ann/1\n2 node.joined bob/2\n3 node.joined cid/3\n4 node.left bob")
        .await;
}

#[tokio::test]
async fn facts_that_come_together_share_few_entries_and_each_is_told_its_own_place() {
    let world = World::new().await;
    let appender = world.appender().await;
    let mut facts = Vec::new();
    for number in 0..4_000 {
        let name = format!("v{number}");
        facts.push(("node.joined", name.clone(), joined(&name, number)));
        if number % 8 == 0 {
            let here = Socket { node: NODE, number };
            let gone = NodeFact::Disconnected(visitor(&name), here);
            facts.push(("node.disconnected", name.clone(), gone));
            let back = Return::plain(visitor(&name), number);
            let back = NodeFact::Reconnected(NODE, None, back);
            facts.push(("node.reconnected", name, back));
        }
    }
    assert_eq!(facts.len(), 5_000);
    let pending: Vec<_> =
        facts.iter().map(|(_, _, fact)| appender.append(*fact).unwrap()).collect();
    let mut told = Vec::new();
    for mut pending in pending {
        told.push(soon(pending.known()).await.unwrap());
    }

    let stored = world.stored().await;
    assert!(stored.len() <= 12, "{} entries", stored.len());
    let mut places_of = std::collections::BTreeMap::<&str, Vec<Appended>>::new();
    for ((kind, who, _), told) in facts.iter().zip(&told) {
        let entry = &stored[usize::try_from(told.seq.0).unwrap() - 1];
        let json: Value = serde_json::from_slice(&entry.payload).unwrap();
        let fact = &json["facts"][told.index as usize];
        assert!(entry.subject.ends_with(kind), "{who} {kind} {told:?}");
        assert_eq!(name(fact["visitor"].as_str().unwrap()), *who);
        places_of.entry(who).or_default().push(*told);
    }
    for (who, places) in places_of {
        assert!(places.is_sorted_by_key(|place| place.seq), "{who} {places:?}");
    }
    let joins = facts.iter().zip(&told).filter(|((kind, ..), _)| *kind == "node.joined");
    assert!(joins.is_sorted_by_key(|(_, told)| (told.seq, told.index)));
    assert_eq!(fold(&stored).places().len(), 4_000);
}

#[tokio::test]
async fn an_entry_that_is_stored_twice_is_one_place() {
    let world = World::new().await;
    let node = world.raw("node").await;
    let entry = crate::world::joined_json("ann");
    // As a retry is stored when the server has forgotten the first one's message id.
    put(&node, "node.joined", &[("Nats-Msg-Id", "n-1")], entry.clone()).await;
    put(&node, "node.joined", &[("Nats-Msg-Id", "n-2")], entry.clone()).await;
    // And as it is not, while the server remembers.
    put(&node, "node.joined", &[("Nats-Msg-Id", "n-2")], entry).await;
    world.says("1 node.joined ann/1\n2 node.joined ann/1").await;
    let line = fold(&world.stored().await);
    assert_eq!(line.places().len(), 1);
    assert_eq!(line.seq(), Seq(2));
}

#[tokio::test]
async fn behind_a_crowd_that_waits_there_is_room_for_who_has_a_place() {
    let mut world = World::new().await;
    let appender = world.appender().await;
    let mut pending = vec![appender.append(joined("ann", 1)).unwrap()];
    soon(pending[0].known()).await.unwrap();
    world.nats.kill();
    // The writer has some in hand besides.
    let mut taken = 0;
    let refused = loop {
        match appender.append(joined("crowd", taken)) {
            Ok(waits) => pending.push(waits),
            Err(refused) => break refused,
        }
        taken += 1;
        assert!(taken <= 3 * FACTS_WAITING_MAX as u64, "there is no bound");
        if taken.is_multiple_of(1_000) {
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(refused, AppendError::Busy);
    assert!(taken >= FACTS_WAITING_MAX as u64);
    let gone = NodeFact::Disconnected(visitor("ann"), Socket { node: NODE, number: 1 });
    let mut gone = appender.append(gone).unwrap();
    world.nats.start();
    soon(gone.known()).await.unwrap();
}
