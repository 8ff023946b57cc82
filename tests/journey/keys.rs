//! The signing key is rotated while people are let in, and nobody notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::system::{System, call, get, post, signal, wait_until};
use crate::visitor::{Visitor, connection_id, key};

/// For so long a new key rests before it signs, in seconds: long enough to be seen resting.
const REST: u64 = 12;
/// Visitors who come at the same time while keys are rotated.
const CROWD: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_costs_nobody_anything_and_a_removed_one_opens_nothing() {
    let mut system = System::prepare("keys");
    system.settings = ["--key-rest", &REST.to_string()].map(str::to_owned).to_vec();
    system.up();
    system.second_node();
    system.second_admission();
    system.queue("site", &json!({"rate_per_minute": 6000, "token_seconds": 120}));
    // What was deleted keeps the keys that it had, and they are public no more.
    system.queue("gone", &json!({}));
    assert_eq!(system.operate("DELETE", "/admin/queues/gone", &Value::Null).0, 204);
    let old = kids(&system)[0].clone();
    let mut early = admitted(&system, 0).await;
    let redeemed = redeem(&system, &early.token, "early");
    assert_eq!((&early.kid, kid_of(&redeemed.1["pass"])), (&old, old.clone()));
    let waiting = admitted(&system, 1).await;

    let new = system.run_json(&["key", "rotate"])["kid"].as_str().unwrap().to_owned();
    let listed = system.run_json(&["key", "list"]);
    assert_eq!(listed["keys"], json!([new, old]));
    // Whoever keeps the keys meets the new one before the first token under it.
    wait_until("both keys are public", || kids(&system).contains(&new));
    let resting = admitted(&system, 1).await;
    assert_eq!(resting.kid, old, "a key rests before it signs");
    let shown = system.operate("GET", "/admin/queues/site", &Value::Null).1;
    assert_eq!((&shown["keys"], &shown["signs"]), (&json!([new, old]), &json!(old)));
    wait_until("the new key signs", || signs(&system) == new);
    let late = admitted(&system, 0).await;
    assert_eq!(late.kid, new);

    // What was granted under the old one is minted again, used, and the same on a retry, also by a
    // worker that was just started.
    early.socket.until("ENDED").await;
    system.kill("admission");
    let mut back = Visitor::reconnect(&system.socket(0, "site"), &waiting.connection_id).await;
    assert_eq!(back.until("ADMITTED").await["payload"]["token"], waiting.token.as_str());
    assert_eq!(redeem(&system, &early.token, "early").1["pass"], redeemed.1["pass"]);
    let passes: Vec<Value> = [&waiting, &resting, &late]
        .map(|guest| {
            let (status, answer) = redeem(&system, &guest.token, "first");
            assert_eq!(status, 200, "{answer}");
            answer["pass"].clone()
        })
        .to_vec();
    // A token of the old key is exchanged for a pass by the new one.
    assert!(passes.iter().all(|pass| kid_of(pass) == new));
    // A worker that has just been started goes by the time of the last entry at first.
    let renew = || post(&format!("{}/api/passes/renew", system.node(0)), &redeemed.1).1;
    wait_until("a pass is renewed by the new key", || kid_of(&renew()["pass"]) == new);
    let renewed = renew();
    for pass in [&redeemed.1["pass"], &passes[0], &renewed["pass"]] {
        assert_eq!(authorize(&system, pass), (200, Value::Null));
    }

    // The second worker has the same file.
    let removed = system.run_json(&["key", "remove", &old]);
    assert_eq!(removed["queues"], json!(["demo", "site"]));
    wait_until("the old pass is refused", || authorize(&system, &redeemed.1["pass"]).0 == 403);
    assert_eq!(authorize(&system, &passes[0]).0, 200);
    assert_eq!(kids(&system), [new.as_str()]);
    // It stays so: no worker publishes it again.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(kids(&system), [new.as_str()]);
    assert_eq!(system.run(&["key", "remove", &new]).0, 1, "the only one");
    let (status, problem) =
        system.operate("DELETE", &format!("/admin/queues/site/keys/{new}"), &Value::Null);
    assert_eq!((status, &problem["code"]), (409, &json!("key_in_use")));
    let (status, problem) = system.operate("DELETE", "/admin/queues/site/keys/none", &Value::Null);
    assert_eq!((status, &problem["code"]), (404, &json!("unknown_key")));
    assert_eq!(system.run_json(&["audit", "verify", "site"])["ok"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_keys_are_rotated_everyone_gets_in_and_none_is_told_no() {
    let mut system = System::prepare("keys-crowd");
    system.settings = ["--key-rest", "3"].map(str::to_owned).to_vec();
    system.up();
    system.second_node();
    system.queue("site", &json!({"rate_per_minute": 6000, "token_seconds": 120}));
    let system = Arc::new(system);
    let old = kids(&system)[0].clone();
    let stop = Arc::new(AtomicBool::new(false));
    let crowd: Vec<_> = (0..CROWD)
        .map(|one| tokio::spawn(come_and_come(Arc::clone(&system), one, Arc::clone(&stop))))
        .collect();
    let new = system.run_json(&["key", "rotate"])["kid"].as_str().unwrap().to_owned();
    wait_until("the new key signs", || signs(&system) == new);
    // Some more come by the new one.
    tokio::time::sleep(Duration::from_secs(3)).await;
    stop.store(true, Ordering::SeqCst);
    let mut passes = Vec::new();
    for one in crowd {
        passes.extend(one.await.unwrap());
    }
    let of = |kid: &str| passes.iter().filter(|pass| *pass == kid).count();
    println!(
        "{} let in: {} passes by the old key, {} by the new",
        passes.len(),
        of(&old),
        of(&new)
    );
    assert!(of(&old) > 0 && of(&new) > 0 && of(&old) + of(&new) == passes.len());
    assert_eq!(system.run_json(&["audit", "verify", "site"])["ok"], true);
}

/// Visitors one after the other: by which key each had a pass. Whatever is asked on the way is answered
/// with yes, and each key is public before anything that is signed with it is seen.
async fn come_and_come(system: Arc<System>, one: usize, stop: Arc<AtomicBool>) -> Vec<String> {
    let mut passes = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let guest = admitted(&system, one).await;
        let node = one + passes.len();
        assert!(kids_at(&system, node).contains(&guest.kid), "a token by a key that is not public");
        let (status, answer) = redeem(&system, &guest.token, "first");
        assert_eq!(status, 200, "{answer}");
        assert_eq!(redeem(&system, &guest.token, "first").1["pass"], answer["pass"]);
        let kid = kid_of(&answer["pass"]);
        assert!(kids_at(&system, node).contains(&kid), "a pass by a key that is not public");
        assert_eq!(authorize(&system, &answer["pass"]), (200, Value::Null));
        passes.push(kid);
    }
    passes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_key_stays_out_whoever_decides_and_whoever_removes_another() {
    let mut system = System::prepare("keys-out");
    system.settings = ["--key-rest", "1"].map(str::to_owned).to_vec();
    system.up();
    system.second_node();
    system.queue("site", &json!({"rate_per_minute": 6000}));
    system.queue("gone", &json!({"rate_per_minute": 6000}));
    let first = kids(&system)[0].clone();
    let rotate = || system.run_json(&["key", "rotate"])["kid"].as_str().unwrap().to_owned();
    let (second, third) = (rotate(), rotate());
    wait_until("all are public", || kids(&system).contains(&third) && kids(&system).len() == 3);
    assert_eq!(system.operate("DELETE", "/admin/queues/gone", &Value::Null).0, 204);

    // The one that decides has another file, which is not changed.
    let other = system.dir.join("other.pem");
    std::fs::copy(system.dir.join("keys/signing.pem"), &other).unwrap();
    system.second_admission_with(other.to_str().unwrap());
    signal(system.pid("admission"), Signal::STOP);
    let decides = || get(&format!("{}/readyz", system.operator(1))).1["active"] == json!(true);
    wait_until("the second worker decides", decides);
    // Whoever has not looked for a second looks first who does.
    tokio::time::sleep(Duration::from_secs(2)).await;
    signal(system.pid("admission"), Signal::CONT);

    // Both are taken out at the same time.
    std::thread::scope(|scope| {
        for kid in [&first, &second] {
            let removed = || system.run_json(&["key", "remove", kid]);
            scope.spawn(move || assert_eq!(removed()["queues"], json!(["demo", "site"])));
        }
    });
    wait_until("only the third is public", || kids(&system) == [third.as_str()]);
    assert!(decides(), "the worker with the other file decides");
    let guest = admitted(&system, 0).await;
    let (status, answer) = redeem(&system, &guest.token, "first");
    assert_eq!((status, &guest.kid, kid_of(&answer["pass"])), (200, &third, third.clone()));
    assert_eq!(authorize(&system, &answer["pass"]), (200, Value::Null));
    // Long enough for any worker to look at its file again.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(kids(&system), [third.as_str()]);
    let (code, said) = system.run(&["key", "remove", "none"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("neither the file nor a queue has the key none"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_key_file_changes_nothing_and_is_said() {
    let system = System::start("key-file");
    let file = system.dir.join("keys/signing.pem");
    let good = std::fs::read_to_string(&file).unwrap();
    let readiness = || get(&format!("{}/readyz", system.operator(0))).1["reasons"].to_string();
    std::fs::write(&file, "no key").unwrap();
    wait_until("the fault is said", || readiness().contains("signing_key_file: signing keys must"));
    system.queue("site", &json!({"rate_per_minute": 6000}));
    let guest = admitted(&system, 0).await;
    assert_eq!(redeem(&system, &guest.token, "key").0, 200);
    std::fs::write(&file, &good).unwrap();
    wait_until("it is over", || readiness() == "[]");
    assert!(!system.logs().contains(good.lines().nth(1).unwrap()), "the key is in a log");
}

struct Guest {
    connection_id: String,
    token: String,
    kid: String,
    socket: Visitor,
}

async fn admitted(system: &System, node: usize) -> Guest {
    let mut socket = Visitor::join(&system.socket(node, "site"), &key()).await;
    let connection_id = connection_id(&socket.until("JOINED").await);
    let admitted = socket.until("ADMITTED").await;
    let token = admitted["payload"]["token"].clone();
    let kid = kid_of(&token);
    Guest { connection_id, token: token.as_str().unwrap().to_owned(), kid, socket }
}

fn kid_of(token: &Value) -> String {
    let head = token.as_str().unwrap().split('.').next().unwrap();
    let head: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(head).unwrap()).unwrap();
    head["kid"].as_str().unwrap().to_owned()
}

fn redeem(system: &System, token: &str, key: &str) -> (u16, Value) {
    let url = format!("{}/api/tokens/redeem", system.node(0));
    call("POST", &url, &[("Idempotency-Key", key)], &json!({ "token": token }))
}

fn authorize(system: &System, pass: &Value) -> (u16, Value) {
    let url = format!("{}/api/authorize?queue=site", system.node(1));
    let (status, answer) =
        call("GET", &url, &[("X-Waiting-Token", pass.as_str().unwrap())], &Value::Null);
    (status, answer["code"].clone())
}

/// The id of the key that signs.
fn signs(system: &System) -> String {
    let shown = system.operate("GET", "/admin/queues/site", &Value::Null).1;
    shown["signs"].as_str().unwrap_or_default().to_owned()
}

/// The ids of the public keys, on both nodes alike.
fn kids(system: &System) -> Vec<String> {
    wait_until("both nodes have the same keys", || {
        let (here, there) = (kids_at(system, 0), kids_at(system, 1));
        !here.is_empty() && here == there
    });
    kids_at(system, 0)
}

/// None while the node has not heard of a queue yet.
fn kids_at(system: &System, node: usize) -> Vec<String> {
    let (_, set) = get(&format!("{}/.well-known/jwks.json", system.node(node)));
    let keys = set["keys"].as_array().into_iter().flatten();
    keys.map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}
