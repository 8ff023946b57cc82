//! What is no token or no pass opens nothing, whoever looks at it, and costs the good one nothing.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::checker::{read, retell};
use crate::corpus::{self, Bad};
use crate::forger::Forger;
use crate::system::{System, call, post};
use crate::visitor::{Visitor, connection_id, key, name};

/// Longer bodies are not read.
const BODY_BYTES_MAX: usize = 8 * 1024;
/// Kinds that there must be at least.
const KINDS_MIN: usize = 50;

/// One who was let in: the public name, the token and the connection id.
struct Guest {
    name: String,
    token: String,
    connection_id: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_token_opens_nothing_and_spends_nothing() {
    let system = Arc::new(system("bad-tokens"));
    let (good, another) = (guest(&system, "one").await, guest(&system, "one").await);
    let listener = listener();
    let forger = Forger::new(&system, &good.token, &another.token, listener.local_addr().unwrap());
    let mut bad = corpus::all(&forger);
    bad.extend(corpus::of_careless_signers(&forger));
    bad.extend(corpus::of_tokens(&forger));
    bad.push(Bad::new("a pass that was given back", released_pass(&system).await));
    bad.push(Bad::new("a connection id", &*good.connection_id));
    bad.push(Bad::new("a token whose time is over", lapsed_token(&system).await));
    for (name, value) in [
        ("a list", json!([good.token])),
        ("an object", json!({"token": good.token})),
        ("a number", json!(1)),
        ("null", Value::Null),
        ("true", json!(true)),
    ] {
        bad.push(Bad { name: name.to_owned(), value });
    }
    let before = redeemed(&system).await;

    let asking: Vec<_> = bad
        .into_iter()
        .map(|bad| {
            let system = Arc::clone(&system);
            tokio::task::spawn_blocking(move || try_token(&system, &bad))
        })
        .collect();
    let (count, mut wrong) = (asking.len(), Vec::new());
    println!("| bad token | redeem | enter | authorize, X-Waiting-Token | authorize, Bearer |");
    println!("|---|---|---|---|---|");
    for asked in asking {
        let (row, is_right) = asked.await.unwrap();
        println!("{row}");
        wrong.extend((!is_right).then_some(row));
    }
    assert!(
        wrong.is_empty(),
        "{} of {count} were not refused as they should be:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(count >= KINDS_MIN, "only {count} kinds");
    assert_eq!(redeemed(&system).await, before, "a bad token has used a grant");
    let fetched = fetched(&listener);
    assert_eq!(fetched, 0, "keys were fetched from where a token says");
    for token in [&good.token, &another.token] {
        let redeem = format!("{}/api/tokens/redeem", system.node(0));
        assert_eq!(post(&redeem, &json!({ "token": token })).0, 200, "the good ones are spent");
    }
    println!(
        "{count} kinds of bad tokens refused; {fetched} keys fetched; the good one still good"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_pass_opens_nothing_here_and_nothing_where_it_is_verified_offline() {
    let system = Arc::new(system("bad-passes"));
    let (first, second) = (guest(&system, "one").await, guest(&system, "one").await);
    let (pass, another) = (pass(&system, &first.token), pass(&system, &second.token));
    let listener = listener();
    let forger = Forger::new(&system, &pass, &another, listener.local_addr().unwrap());
    let mut bad = corpus::all(&forger);
    bad.push(Bad::new("a token that was used", &*first.token));
    bad.push(Bad::new("a connection id", &*first.connection_id));

    let here_alone = corpus::of_careless_signers(&forger);
    let offline: Vec<&str> = bad.iter().filter_map(in_one_line).collect();
    let verifiers =
        [("python3", "tools/gateways/verify.py"), ("node", "tools/gateways/verify.mjs")];
    let mut verdicts = verifiers.map(|(program, verifier)| {
        let mut verdicts = verify_offline(&system, program, verifier, &offline, &pass);
        let of_good = verdicts.pop();
        assert_eq!(of_good, Some(format!("ok {}", first.name)), "{verifier}, a good pass");
        verdicts.into_iter()
    });
    let bad = bad.iter().map(|bad| (bad, in_one_line(bad).is_some()));
    let bad: Vec<_> = bad.chain(here_alone.iter().map(|bad| (bad, false))).collect();
    let mut wrong = Vec::new();
    println!("| bad pass | X-Waiting-Token | Bearer | cookie | verify.py | verify.mjs |");
    println!("|---|---|---|---|---|---|");
    for (bad, is_offline) in &bad {
        let mut cells = try_pass(&system, bad);
        for verdicts in &mut verdicts {
            let verdict = if *is_offline { verdicts.next() } else { Some("-".to_owned()) };
            cells.push(verdict.unwrap());
        }
        let row = format!("| {} | {} |", bad.name, cells.join(" | "));
        println!("{row}");
        let is_refused = |cell: &String| ["403", "431", "no", "-"].contains(&cell.as_str());
        wrong.extend((!cells.iter().all(is_refused)).then_some(row));
    }
    let count = bad.len();
    assert!(wrong.is_empty(), "{} of {count} were taken:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count >= KINDS_MIN, "only {count} kinds");
    assert_eq!(fetched(&listener), 0, "keys were fetched from where a pass says");
    let authorize = format!("{}/api/authorize?queue=one", system.node(0));
    let (status, answer) = call("GET", &authorize, &[("X-Waiting-Token", &pass)], &Value::Null);
    assert_eq!((status, &answer["header x-anteroom-visitor"]), (200, &json!(first.name)));
    println!(
        "{count} kinds of bad passes refused, {} of them offline by both verifiers; 0 keys fetched",
        offline.len(),
    );
}

fn system(name: &str) -> System {
    let system = System::start(name);
    system.queue("one", &json!({"rate_per_minute": 6000, "token_seconds": 600}));
    system.queue("two", &json!({"rate_per_minute": 6000, "token_seconds": 600}));
    system
}

async fn guest(system: &System, queue: &str) -> Guest {
    let mut visitor = Visitor::join(&system.socket(0, queue), &key()).await;
    let connection_id = connection_id(&visitor.until("JOINED").await);
    let admitted = visitor.until("ADMITTED").await;
    let token = admitted["payload"]["token"].as_str().unwrap().to_owned();
    Guest { name: name(&connection_id), token, connection_id }
}

fn pass(system: &System, token: &str) -> String {
    let redeem = format!("{}/api/tokens/redeem", system.node(0));
    let (status, answer) = post(&redeem, &json!({ "token": token }));
    assert_eq!(status, 200, "{answer}");
    answer["pass"].as_str().unwrap().to_owned()
}

async fn released_pass(system: &System) -> String {
    let guest = guest(system, "one").await;
    let pass = pass(system, &guest.token);
    let release = "/admin/queues/one/release";
    assert_eq!(system.operate("POST", release, &json!({"visitor": guest.name})).0, 200);
    let authorize = format!("{}/api/authorize?queue=one", system.node(0));
    crate::system::wait_until("the released pass is refused", || {
        let header = [("X-Waiting-Token", pass.as_str())];
        call("GET", &authorize, &header, &Value::Null).1["code"] == "pass_released"
    });
    pass
}

async fn lapsed_token(system: &System) -> String {
    system.queue("brief", &json!({"rate_per_minute": 6000, "token_seconds": 5}));
    let mut visitor = Visitor::join(&system.socket(0, "brief"), &key()).await;
    let admitted = visitor.until("ADMITTED").await;
    assert_eq!(visitor.until("ENDED").await["payload"]["reason"], "expired");
    admitted["payload"]["token"].as_str().unwrap().to_owned()
}

/// How often grants of either queue were used, by the log.
async fn redeemed(system: &System) -> Vec<String> {
    let mut redeemed = Vec::new();
    for queue in ["one", "two", "brief"] {
        redeemed.extend(retell(&read(system, queue).await).redeemed);
    }
    redeemed
}

/// Where a forger's keys could be fetched.
fn listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

/// How many came to fetch one.
fn fetched(listener: &TcpListener) -> usize {
    // A connection of our own comes last, so that it is seen that they are seen.
    let last = TcpStream::connect(listener.local_addr().unwrap()).unwrap().local_addr().unwrap();
    let mut count = 0;
    loop {
        match listener.accept() {
            Ok((_, peer)) if peer == last => return count,
            Ok(_) => count += 1,
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    }
}

/// Presents a bad token everywhere where a token may be: the row of the table, and whether all was
/// refused as it should be.
fn try_token(system: &System, bad: &Bad) -> (String, bool) {
    let (mut cells, mut is_right) = (Vec::new(), true);
    let expected = match bad.text() {
        None => (400, "bad_request"),
        Some(text) if text.len() > BODY_BYTES_MAX => (413, "too_large"),
        Some(_) if bad.name == "a token whose time is over" => (401, "token_expired"),
        Some(_) => (401, "token_invalid"),
    };
    for path in ["/api/tokens/redeem", "/anteroom/enter"] {
        let url = format!("{}{path}", system.node(0));
        let (status, answer) = post(&url, &json!({"token": bad.value}));
        let code = answer["code"].as_str().unwrap_or_default();
        is_right &= (status, code) == expected && answer["header set-cookie"].is_null();
        cells.push(format!("{status} {code}"));
    }
    let text = in_a_header(bad);
    let bearer = text.map(|text| format!("Bearer {text}"));
    for (header, value) in [("X-Waiting-Token", text), ("Authorization", bearer.as_deref())] {
        let cell = value.map_or_else(|| "-".to_owned(), |value| authorize(system, (header, value)));
        is_right &= ["403", "431", "-"].contains(&cell.as_str());
        cells.push(cell);
    }
    (format!("| {} | {} |", bad.name, cells.join(" | ")), is_right)
}

/// What authorize says to a bad pass in each place where a pass may be.
fn try_pass(system: &System, bad: &Bad) -> Vec<String> {
    let Some(text) = in_a_header(bad) else { return vec!["-".to_owned(); 3] };
    let (bearer, cookie) = (format!("Bearer {text}"), format!("anteroom_pass={text}"));
    [("X-Waiting-Token", text), ("Authorization", &bearer), ("Cookie", &cookie)]
        .map(|header| authorize(system, header))
        .to_vec()
}

/// The status of the answer, and what it gives where it should give nothing.
fn authorize(system: &System, header: (&str, &str)) -> String {
    let url = format!("{}/api/authorize?queue=one", system.node(0));
    let (status, answer) = call("GET", &url, &[header], &Value::Null);
    let given = ["set-cookie", "x-anteroom-pass", "x-anteroom-visitor"];
    let given = given.iter().filter(|name| !answer[format!("header {name}")].is_null());
    given.fold(status.to_string(), |cell, name| format!("{cell} {name}"))
}

/// The text, where it can stand in a header and is not made another by it.
fn in_a_header(bad: &Bad) -> Option<&str> {
    let is_plain = |byte: u8| matches!(byte, b'\t' | b' ' | b'!'..=b'~');
    bad.text().filter(|text| text.trim() == *text && text.bytes().all(is_plain))
}

/// The text, where it can stand in a line by itself.
fn in_one_line(bad: &Bad) -> Option<&str> {
    bad.text().filter(|text| !text.contains(['\n', '\r']))
}

/// What an offline verifier says to each of the bad ones, and to the good one as the last.
fn verify_offline(
    system: &System,
    program: &str,
    verifier: &str,
    bad: &[&str],
    good: &str,
) -> Vec<String> {
    let keys = format!("{}/.well-known/jwks.json", system.node(0));
    let mut verifying = Command::new(program)
        .args([verifier, &keys, "one", "anteroom"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = bad.iter().chain(&[good]).map(|text| format!("{text}\n")).collect::<String>();
    let mut stdin = verifying.stdin.take().unwrap();
    // What it answers meanwhile is read while it is still told.
    let telling = std::thread::spawn(move || stdin.write_all(input.as_bytes()).unwrap());
    let output = verifying.wait_with_output().unwrap();
    telling.join().unwrap();
    assert!(output.status.success(), "{verifier} failed");
    let verdicts = String::from_utf8(output.stdout).unwrap();
    let verdicts: Vec<String> = verdicts.lines().map(str::to_owned).collect();
    assert_eq!(verdicts.len(), bad.len() + 1, "{verifier} does not answer every line");
    verdicts
}
