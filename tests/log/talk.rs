//! What is said and not kept.

use std::time::Duration;

use anteroom::clock;
use anteroom::log::subjects;
use anteroom::log::talk::AskError;
use anteroom::wire::ask::{Answer, Refusal};
use serde_json::{Value, json};

use crate::world::{World, soon};

#[tokio::test]
async fn a_question_to_nobody_is_answered_at_once() {
    let world = World::new().await;
    let log = world.log("node").await;
    let started = clock::monotonic();
    let asked = log.ask::<Value, Value>(&world.queue, "place", &json!({})).await;
    assert_eq!(asked, Err(AskError::Nobody));
    let asked =
        log.gate::<Value, Value>(&world.queue, "mint", &json!({}), Duration::from_secs(2)).await;
    assert_eq!(asked, Err(AskError::Nobody));
    assert!(clock::monotonic() - started < Duration::from_millis(500));
}

#[tokio::test]
async fn an_answer_comes_back_and_so_does_a_refusal() {
    let world = World::new().await;
    let projector = world.log("projector").await;
    let mut questions = projector.listen(subjects::ask_all()).await.unwrap();
    // An answer to this connection: the server has the subscription that it sent before.
    projector.stream_info(&world.queue).await.unwrap();
    let answering = async {
        for answer in [Answer::Ok(json!({"through": 7})), Answer::No(Refusal::Behind)] {
            let question = questions.next().await.unwrap();
            let named = subjects::question(&question.subject).unwrap();
            assert_eq!(named, (world.queue.clone(), "place"));
            assert_eq!(&question.payload[..], br#"{"who":"ann"}"#);
            projector.answer(&question, &answer).await;
        }
    };
    let log = world.log("node").await;
    let asking = async {
        let body = json!({"who": "ann"});
        let first = log.ask::<_, Value>(&world.queue, "place", &body).await;
        (first, log.ask::<_, Value>(&world.queue, "place", &body).await)
    };
    let ((), (first, second)) = soon(async { tokio::join!(answering, asking) }).await;
    assert_eq!(first, Ok(json!({"through": 7})));
    assert_eq!(second, Err(AskError::Refused(Refusal::Behind)));
}
