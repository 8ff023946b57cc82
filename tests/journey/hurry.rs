//! A visitor who changes nodes, or sockets on one node, quicker than these hear of it.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::checker::read;
use crate::sitting::{FAILING, GOOD, Listening, Sitter, Told, WAIT_MAX, whereabouts};
use crate::system::System;

/// Nothing more happens to the last socket after it has the place.
const AT_REST: Duration = Duration::from_secs(2);

/// One who counts their sockets goes to the other node and back so many times, and closes none of them:
/// after how long only the last one is left.
pub async fn there_and_back(system: &System, queue: &str, rounds: usize) -> Duration {
    system.queue(queue, &json!({"reconnect_seconds": 5}));
    let pause = format!("/admin/queues/{queue}/pause");
    assert_eq!(system.operate("POST", &pause, &json!({})).0, 200);
    let (here, there) = (system.socket(FAILING, queue), system.socket(GOOD, queue));
    let mut sitter = Sitter::join(&here, true).await;
    let home = whereabouts(&read(system, queue).await)[&sitter.name()].node.clone();
    let mut old = Vec::new();
    for round in 0..rounds {
        if round.is_multiple_of(2) {
            old.push(sitter.returns(&there).await);
            old.push(sitter.returns(&here).await);
        } else {
            // Before the other has answered.
            old.extend(sitter.returns_to_both(&there, &here).await);
        }
    }
    let began = Instant::now();
    loop {
        let place = whereabouts(&read(system, queue).await)[&sitter.name()].clone();
        let open = old.iter().filter(|socket| socket.is_open()).count();
        let told = sitter.told();
        let is_last = place.opened == 1 + 2 * rounds as u64 && place.node == home;
        if open == 0 && is_last && told.position == Some(1) {
            break;
        }
        assert!(began.elapsed() < WAIT_MAX, "{open} old sockets are open: {place:?}, {told:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let back = began.elapsed();
    let errors: Vec<Option<String>> = old.iter().map(Listening::error).collect();
    assert!(errors.iter().all(|error| error.as_deref() == Some("replaced")), "{errors:?}");
    tokio::time::sleep(AT_REST).await;
    let told = sitter.told();
    assert!(told.error.is_none() && told.closed.is_none(), "{told:?}");
    let (_, shown) = system.operate("GET", &format!("/admin/queues/{queue}"), &json!(null));
    assert_eq!((&shown["waiting"], &shown["present"]), (&json!(1), &json!(1)), "{shown}");
    assert_eq!(whereabouts(&read(system, queue).await)[&sitter.name()].node, home);
    assert_eq!(system.run_json(&["audit", "verify", queue])["ok"], true);
    back
}

/// So many come back on several sockets of one node at once: each keeps the one that was counted last,
/// in whatever order the node's tasks came to them.
pub async fn all_at_once(system: &System, queue: &str, visitors: usize, sockets: usize) {
    system.queue(queue, &json!({"reconnect_seconds": 5}));
    let pause = format!("/admin/queues/{queue}/pause");
    assert_eq!(system.operate("POST", &pause, &json!({})).0, 200);
    let url = system.socket(GOOD, queue);
    let mut sitters = join_all((0..visitors).map(|_| Sitter::join(&url, true))).await;
    let returns = sitters.iter_mut().map(|sitter| sitter.returns_on_all(&url, sockets));
    let old: Vec<Listening> = join_all(returns).await.into_iter().flatten().collect();
    for mut socket in old {
        let is_over = |told: &Told| told.closed.is_some();
        let over = tokio::time::timeout(WAIT_MAX, socket.told.wait_for(is_over)).await;
        let told = over.expect("the old socket is closed").unwrap().clone();
        assert_eq!(told.error.as_deref(), Some("replaced"), "{told:?}");
    }
    tokio::time::sleep(AT_REST).await;
    for sitter in &sitters {
        let told = sitter.told();
        let is_there = told.position.is_some() && told.error.is_none() && told.closed.is_none();
        assert!(is_there, "{told:?}");
    }
    let (_, shown) = system.operate("GET", &format!("/admin/queues/{queue}"), &json!(null));
    assert_eq!(
        (&shown["waiting"], &shown["present"]),
        (&json!(visitors), &json!(visitors)),
        "{shown}"
    );
}
