//! Decisions: let in only behind the one that they name.

use anteroom::log::publish::{PublishError, Stored};
use anteroom::queue::event::{Level, Seq};

use crate::world::{World, decision, fold, joined, soon};

#[tokio::test]
async fn a_decision_behind_another_than_the_last_one_is_not_stored() {
    let world = World::new().await;
    let log = world.log("admission").await;
    let first = log.append_fenced(&world.queue, &decision(0, "ann"), Level::FIRST).await;
    assert_eq!(first, Ok(Stored { seq: Seq(1), duplicate: false }));
    for wrong in [0, 2, 7] {
        let refused = log.append_fenced(&world.queue, &decision(wrong, "bob"), Level::FIRST).await;
        assert_eq!(refused, Err(PublishError::FenceLost), "prev={wrong}");
    }
    // What nodes write moves no fence.
    soon(world.appender().await.append(joined("eve", 1)).unwrap().known()).await.unwrap();
    log.append_fenced(&world.queue, &decision(1, "cid"), Level::FIRST).await.unwrap();
    world
        .says(
            "1 admission.configured prev=0 ann
             2 node.joined eve/1
             3 admission.configured prev=1 cid",
        )
        .await;
}

#[tokio::test]
async fn of_two_who_decide_at_once_exactly_one_is_let_in() {
    const ROUNDS: u64 = 100;
    let world = World::new().await;
    let (ann, bob) = (world.log("admission").await, world.log("admission").await);
    for prev in 0..ROUNDS {
        let (by_ann, by_bob) = (decision(prev, "ann"), decision(prev, "bob"));
        let outcomes = soon(async {
            tokio::join!(
                ann.append_fenced(&world.queue, &by_ann, Level::FIRST),
                bob.append_fenced(&world.queue, &by_bob, Level::FIRST),
            )
        });
        let stored = Ok(Stored { seq: Seq(prev + 1), duplicate: false });
        match outcomes.await {
            (won, Err(PublishError::FenceLost)) | (Err(PublishError::FenceLost), won) => {
                assert_eq!(won, stored);
            }
            both => panic!("round {prev}: {both:?}"),
        }
    }
    let line = fold(&world.stored().await);
    assert_eq!((line.seq(), line.last_decision()), (Seq(ROUNDS), Seq(ROUNDS)));
}
