//! Acknowledgements that never arrive: the writer does not know, finds out, and nothing is stored
//! twice or out of order.

use anteroom::log::append::{Appended, Appender};
use anteroom::log::publish::PublishError;
use anteroom::queue::event::{Level, Seq};

use crate::road::{Accident, Road};
use crate::support::Nats;
use crate::world::{World, connect, decision, fold, joined, soon};

/// As the server answers an append whose message id it knows.
const DUPLICATE: &str = r#""duplicate": true"#;

#[tokio::test]
async fn a_join_whose_ack_is_lost_is_one_place_and_nothing_overtakes_it() {
    let world = World::new().await;
    let (road, appender) = writer(&world).await;
    road.set(Accident::AnswersLost);
    let mut ann = appender.append(joined("ann", 1)).unwrap();
    road.said(r#""seq":1"#, 1).await;
    let mut bob = appender.append(joined("bob", 2)).unwrap();
    road.set(Accident::None);
    assert_eq!(soon(bob.known()).await, Ok(Appended { seq: Seq(2), index: 0 }));
    assert_eq!(soon(ann.known()).await, Ok(Appended { seq: Seq(1), index: 0 }));
    road.said(DUPLICATE, 1).await;
    world.says("1 node.joined ann/1\n2 node.joined bob/2").await;
    assert_eq!(fold(&world.stored().await).places().len(), 2);
}

#[tokio::test]
async fn a_join_whose_connection_breaks_at_the_ack_is_one_place() {
    let world = World::new().await;
    let (road, appender) = writer(&world).await;
    road.set(Accident::CutAtAck);
    let mut ann = appender.append(joined("ann", 1)).unwrap();
    assert_eq!(soon(ann.known()).await, Ok(Appended { seq: Seq(1), index: 0 }));
    road.said(DUPLICATE, 1).await;
    world.says("1 node.joined ann/1").await;
}

#[tokio::test]
async fn a_join_whose_connection_breaks_before_it_arrives_is_sent_again() {
    let world = World::new().await;
    let (road, appender) = writer(&world).await;
    road.set(Accident::CutAtAppend);
    let mut ann = appender.append(joined("ann", 1)).unwrap();
    assert_eq!(soon(ann.known()).await, Ok(Appended { seq: Seq(1), index: 0 }));
    world.says("1 node.joined ann/1").await;
}

#[tokio::test]
async fn a_decision_whose_ack_is_lost_is_unknown_and_can_only_land_once() {
    for accident in [Accident::AnswersLost, Accident::CutAtAck] {
        let world = World::new().await;
        let road = Road::to(world.nats.address()).await;
        let log = connect(&Nats::url_at("admission", road.address())).await;
        road.set(accident);
        let ann = decision(0, "ann");
        let unknown = soon(log.append_fenced(&world.queue, &ann, Level::FIRST)).await;
        assert_eq!(unknown, Err(PublishError::Unknown), "{accident:?}");
        road.said(r#""seq":1"#, 1).await;
        road.set(Accident::None);
        let again = soon(log.append_fenced(&world.queue, &ann, Level::FIRST)).await;
        assert_eq!(again, Err(PublishError::FenceLost), "{accident:?}");
        road.said(r#""err_code":10071"#, 1).await;
        world.says("1 admission.configured prev=0 ann").await;
        let found = log.fetch(&world.queue, Seq(1), 10).await.unwrap();
        assert_eq!(found.iter().map(|record| record.seq).collect::<Vec<_>>(), [Seq(1)]);
    }
}

async fn writer(world: &World) -> (Road, Appender) {
    let road = Road::to(world.nats.address()).await;
    let log = connect(&Nats::url_at("node", road.address())).await;
    let appender = Appender::start(&log, &world.queue, &world.shutdown);
    (road, appender)
}
