//! Reads the raw stream a second time, naively: JSON objects, lists and sets, no code of the fold.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;
use serde_json::Value;

use crate::system::System;

/// One message of the log.
pub struct Entry {
    pub seq: u64,
    /// When it was stored, as the server writes it.
    pub time: String,
    pub kind: String,
    pub body: Value,
}

/// Everything in the log of a queue.
pub async fn read(system: &System, queue: &str) -> Vec<Entry> {
    let url: async_nats::ServerAddr = system.text("auditor").parse().unwrap();
    let options = async_nats::ConnectOptions::new()
        .user_and_password(url.username().unwrap().to_owned(), url.password().unwrap().to_owned());
    let client = options.connect(url).await.unwrap();
    let mut entries = Vec::new();
    loop {
        let inbox = client.new_inbox();
        let mut replies = client.subscribe(inbox.clone()).await.unwrap();
        let next = entries.last().map_or(1, |entry: &Entry| entry.seq + 1);
        let request = serde_json::json!({"seq": next, "next_by_subj": ">", "batch": 500});
        let subject = format!("$JS.API.DIRECT.GET.ANTEROOM_{queue}");
        let before = entries.len();
        client.publish_with_reply(subject, inbox, request.to_string().into()).await.unwrap();
        while let Some(message) = replies.next().await.filter(|message| message.status.is_none()) {
            let headers = message.headers.unwrap();
            let text = |name: &str| headers.get_last(name).unwrap().to_string();
            entries.push(Entry {
                seq: text("Nats-Sequence").parse().unwrap(),
                time: text("Nats-Time-Stamp"),
                kind: text("Nats-Subject").rsplit('.').next().unwrap().to_owned(),
                body: serde_json::from_slice(&message.payload).unwrap(),
            });
        }
        if entries.len() == before {
            return entries;
        }
    }
}

/// What the log comes to.
#[derive(Debug, Default)]
pub struct Story {
    /// Visitors in the order of their first join.
    pub joined: Vec<String>,
    /// Visitors in the order of their admission.
    pub admitted: Vec<String>,
    /// Grants that were used.
    pub redeemed: Vec<String>,
    /// Who was passed over though they were there when it was decided.
    pub overtaken: Vec<String>,
}

/// Retells the log, and finds who was overtaken: someone present at an admission's `basis` who had
/// joined before a visitor that it let in, and was not let in by then.
pub fn retell(entries: &[Entry]) -> Story {
    let mut story = Story::default();
    let mut sockets: BTreeMap<String, Vec<(u64, Option<String>)>> = BTreeMap::new();
    let mut last: BTreeMap<String, Came> = BTreeMap::new();
    let mut done: BTreeSet<String> = BTreeSet::new();
    for entry in entries {
        // One that raises the level has none.
        let facts = entry.body["facts"].as_array().map_or(&[][..], Vec::as_slice);
        let node = entry.body["node"].as_str().unwrap_or_default();
        if entry.kind == "admitted" {
            let let_in: Vec<String> = facts.iter().map(visitor).collect();
            let basis = entry.body["basis"].as_u64().unwrap();
            overtaken(&mut story, &sockets, &done, &let_in, basis);
        }
        for fact in facts {
            let who = visitor(fact);
            let socket = format!("{node}/{}", fact["socket"]);
            match entry.kind.as_str() {
                "joined" if !sockets.contains_key(&who) => {
                    story.joined.push(who.clone());
                    last.insert(who.clone(), Came::by(entry, fact));
                    sockets.insert(who, vec![(entry.seq, Some(socket))]);
                }
                "reconnected" if last.get_mut(&who).unwrap().is_followed_by(entry, fact) => {
                    sockets.get_mut(&who).unwrap().push((entry.seq, Some(socket)));
                }
                "disconnected" => {
                    let on = sockets.get_mut(&who).unwrap();
                    if on.last().unwrap().1.as_ref() == Some(&socket) {
                        on.push((entry.seq, None));
                    }
                }
                "node_lost" => {
                    let lost = format!("{}/", fact["node"].as_str().unwrap());
                    for on in sockets.values_mut() {
                        if on.last().unwrap().1.as_ref().is_some_and(|at| at.starts_with(&lost)) {
                            on.push((entry.seq, None));
                        }
                    }
                }
                "admitted" => {
                    story.admitted.push(who.clone());
                    done.insert(who);
                }
                // They never saw it, and wait again.
                "released" if fact["reason"] == "missed" => {
                    story.admitted.retain(|other| *other != who);
                    done.remove(&who);
                }
                "redeemed" => story.redeemed.push(fact["jti"].as_str().unwrap().to_owned()),
                "left" | "expired" | "removed" => drop(done.insert(who)),
                _ => {}
            }
        }
    }
    story
}

/// How somebody came last: by which entry, and on which of the sockets that their client opened.
struct Came {
    seq: u64,
    opened: Option<u64>,
}

impl Came {
    fn by(entry: &Entry, fact: &Value) -> Self {
        Self { seq: entry.seq, opened: fact["opened"].as_u64() }
    }

    /// Whether they are where this fact of a `reconnected` entry says, and so come by it; or a socket that
    /// was opened later has their place, or the node that says so had not heard where they came since.
    fn is_followed_by(&mut self, entry: &Entry, fact: &Value) -> bool {
        let new = Self::by(entry, fact);
        let basis = entry.body["basis"].as_u64();
        let counts = match (new.opened, self.opened) {
            (Some(new), Some(before)) if new != before => new > before,
            _ => basis.is_none_or(|basis| self.seq <= basis),
        };
        if counts {
            // Where it is not said, it is not known any more.
            *self = new;
        }
        counts
    }
}

fn overtaken(
    story: &mut Story,
    sockets: &BTreeMap<String, Vec<(u64, Option<String>)>>,
    done: &BTreeSet<String>,
    let_in: &[String],
    basis: u64,
) {
    let place = |who: &String| story.joined.iter().position(|other| other == who).unwrap();
    let last = let_in.iter().map(place).max().unwrap();
    let present = |who: &&String| {
        let before = sockets[*who].iter().take_while(|(seq, _)| *seq <= basis).last();
        before.is_some_and(|(_, socket)| socket.is_some())
    };
    let passed_over = story.joined[..last].iter();
    let passed_over = passed_over.filter(|who| !done.contains(*who) && !let_in.contains(who));
    let found: Vec<String> = passed_over.filter(present).cloned().collect();
    story.overtaken.extend(found);
}

fn visitor(fact: &Value) -> String {
    fact["visitor"].as_str().unwrap_or_default().to_owned()
}

/// Nobody twice.
pub fn assert_once(list: &[String], what: &str) {
    let different: BTreeSet<&String> = list.iter().collect();
    assert_eq!(different.len(), list.len(), "{what} twice");
}
