//! Steady load: visitors who join, wait, change nodes, come back after whatever happens, are let in,
//! enter, and come again as somebody new.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::system::{System, call};
use crate::visitor::{Visitor, connection_id, key, name};

/// Before a visitor whose socket is gone tries the other node.
const PAUSE: Duration = Duration::from_millis(100);

/// One who joined, and was told so.
pub struct Visit {
    pub name: String,
    /// When JOIN was said for the first time, and when JOINED was heard.
    pub asked: Instant,
    pub told: Instant,
    /// How often a RECONNECT was answered by the same place.
    pub returns: usize,
    /// How often the numbers were said to be old.
    pub stale: usize,
    /// When ADMITTED was heard.
    pub let_in: Option<Instant>,
    /// Let in, and entered.
    pub entered: bool,
}

pub struct Crowd {
    is_over: Arc<AtomicBool>,
    entered: Arc<AtomicUsize>,
    members: Vec<JoinHandle<Vec<Visit>>>,
}

impl Crowd {
    /// So many visitors at a time; after each there is a pause before the next one.
    pub fn gather(system: &System, queue: &str, size: usize, pause: Duration) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let entered = Arc::new(AtomicUsize::new(0));
        let mut members = Vec::new();
        for number in 0..size {
            let door = Door::of(system, queue);
            let (is_over, entered) = (Arc::clone(&is_over), Arc::clone(&entered));
            members.push(tokio::spawn(async move {
                let mut visits = Vec::new();
                while !is_over.load(Ordering::SeqCst) {
                    visits.push(door.visit(number + visits.len()).await);
                    entered.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(pause).await;
                }
                visits
            }));
        }
        Self { is_over, entered, members }
    }

    /// How many have entered by now.
    pub fn entered(&self) -> usize {
        self.entered.load(Ordering::SeqCst)
    }

    /// Nobody comes any more; waits until all who are here have entered.
    pub async fn leave(self) -> Vec<Visit> {
        self.is_over.store(true, Ordering::SeqCst);
        let mut visits = Vec::new();
        for member in self.members {
            visits.extend(member.await.unwrap());
        }
        visits
    }
}

/// The two nodes of a queue.
pub struct Door {
    sockets: [String; 2],
    redeem: [String; 2],
}

impl Door {
    pub fn of(system: &System, queue: &str) -> Self {
        let redeem = |node| format!("{}/api/tokens/redeem", system.node(node));
        Self {
            sockets: [system.socket(0, queue), system.socket(1, queue)],
            redeem: [redeem(0), redeem(1)],
        }
    }

    /// From JOIN to the pass. Every other visitor changes nodes once they have their numbers.
    pub async fn visit(&self, number: usize) -> Visit {
        let key = key();
        let mut visit: Option<(String, Visit)> = None;
        let mut asked = None;
        let mut position = u64::MAX;
        let mut is_restless = number.is_multiple_of(2);
        for attempt in number.. {
            let Some(mut visitor) = Visitor::connect(&self.sockets[attempt % 2]).await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let first_asked = *asked.get_or_insert_with(Instant::now);
            match &visit {
                Some((id, _)) => {
                    visitor.say(&json!({"type": "RECONNECT", "connectionId": id})).await;
                }
                None => visitor.say(&json!({"type": "JOIN", "joinKey": key})).await,
            }
            loop {
                let message = visitor.next().await;
                match message["type"].as_str() {
                    Some("JOINED") => note_joined(&mut visit, first_asked, &message),
                    Some("QUEUE_UPDATE") => {
                        let now = message["payload"]["position"].as_u64().unwrap();
                        assert!(now <= position, "a position rose from {position} to {now}");
                        position = now;
                        if let Some((_, visit)) = &mut visit {
                            visit.stale += usize::from(message["payload"]["stale"] == true);
                        }
                        if std::mem::take(&mut is_restless) {
                            break;
                        }
                    }
                    Some("ADMITTED") => {
                        let let_in = Some(Instant::now());
                        self.redeem(&message["payload"]["token"]).await;
                        let (_, visit) = visit.unwrap();
                        return Visit { let_in, entered: true, ..visit };
                    }
                    Some("ERROR") => {
                        let code = &message["payload"]["code"];
                        assert_ne!(
                            code, "unknown_connection",
                            "an acknowledged place is not known"
                        );
                    }
                    Some(_) => panic!("{message}"),
                    None => break,
                }
            }
            drop(visitor);
            tokio::time::sleep(PAUSE).await;
        }
        unreachable!("a visitor tries for ever")
    }

    /// Joins until there are fresh numbers, and gives the place up.
    pub async fn look_in(&self, number: usize) -> Visit {
        let key = key();
        let asked = Instant::now();
        let mut visit = None;
        for attempt in number.. {
            let Some(mut visitor) = Visitor::connect(&self.sockets[attempt % 2]).await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            visitor.say(&json!({"type": "JOIN", "joinKey": key})).await;
            loop {
                let message = visitor.next().await;
                match message["type"].as_str() {
                    Some("JOINED") => note_joined(&mut visit, asked, &message),
                    Some("QUEUE_UPDATE") if message["payload"]["stale"] != true => {
                        visitor.say(&json!({"type": "LEAVE"})).await;
                    }
                    Some("ENDED") => return visit.unwrap().1,
                    Some(_) => {}
                    None => break,
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        unreachable!("a visitor tries for ever")
    }

    /// Enters with a token, asking again as one request until there is an answer.
    async fn redeem(&self, token: &Value) {
        let request = key();
        for attempt in 0.. {
            let url = self.redeem[attempt % 2].clone();
            let (request, body) = (request.clone(), json!({ "token": token }));
            let asking = tokio::task::spawn_blocking(move || {
                call("POST", &url, &[("Idempotency-Key", &request)], &body)
            });
            match asking.await.unwrap() {
                (200, _) => return,
                (0 | 503, _) => tokio::time::sleep(PAUSE).await,
                (status, problem) => panic!("a good token was refused: {status} {problem}"),
            }
        }
    }
}

fn note_joined(visit: &mut Option<(String, Visit)>, asked: Instant, message: &Value) {
    let id = connection_id(message);
    if let Some((before, visit)) = visit {
        assert_eq!(*before, id, "another place");
        visit.returns += 1;
    } else {
        let told = Instant::now();
        let name = name(&id);
        let seen = Visit { name, asked, told, returns: 0, stale: 0, let_in: None, entered: false };
        *visit = Some((id, seen));
    }
}
