//! Two levels of logs in one cluster: a log is raised once everybody who reads it can follow, and who
//! can't stops there and says so. The program that knows a level more is the example `next_level`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use async_nats::{Client, ConnectOptions, ServerAddr};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::checker::{Entry, read};
use crate::system::{PROGRAM, System, call, get, is_running, post, signal, wait_until};
use crate::visitor::{Visitor, connection_id, key, name};

const VERSION_1: &str = "this log is of version 1, from before the first release, which nothing reads any \
                         more: begin with a new queue, or a new folder";

/// The worker of `up`, which knows what was released, and the one beside it, which knows a level more.
const OLD: usize = 0;
const NEW: usize = 1;

/// The program that knows one level more, built where this one was.
pub fn next_level() -> PathBuf {
    let folder = Path::new(PROGRAM).parent().unwrap();
    let profile = match folder.file_name().unwrap().to_str().unwrap() {
        "debug" => "dev",
        other => other,
    };
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--example", "next_level", "--profile", profile])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .arg("--target-dir")
        .arg(folder.parent().unwrap())
        .status();
    assert!(built.unwrap().success(), "the example can't be built");
    folder.join("examples/next_level")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_raised_once_all_who_read_it_can_follow_and_who_can_not_stops() {
    let mut system = System::prepare("levels");
    system.program_beside = next_level();
    system.up();
    system.second_projector();
    system.second_admission();
    system.second_node();
    while_some_are_behind_it_is_refused(&system).await;
    stop_the_old(&system);
    let at = alone_it_is_raised_once(&system).await;
    entries_after_it_are_of_that_level(&system, at).await;
    start_the_old(&system);
    who_can_not_follow_stops_and_the_others_go_on(&system, at).await;
}

async fn while_some_are_behind_it_is_refused(system: &System) {
    // Asked at once it waits until it has heard everybody.
    let (status, said) = upgrade(system, NEW, Some(3));
    assert_eq!((status, &said["code"]), (409, &json!("level_unknown")), "{said}");
    assert_two_are_behind(&said);
    let (code, text) = upgrade_by_hand(system, "demo");
    assert!(code == 1 && text.contains("(level_unknown)"), "{text}");
    for role in ["projector ", "worker "] {
        assert!(text.contains(role) && text.contains(" reads up to level 2"), "{text}");
    }
    let (status, said) = upgrade(system, OLD, Some(3));
    let own = said["detail"].as_str().unwrap().contains("the worker that you ask (");
    assert!(status == 409 && own, "{said}");
    let asked = [(OLD, None, 200), (NEW, Some(2), 200), (NEW, Some(1), 409), (NEW, Some(4), 409)];
    for (which, level, expected) in asked {
        let (status, said) = upgrade(system, which, level);
        assert_eq!(status, expected, "level {level:?}: {said}");
    }
    create(system, "early", 2);
    assert!(raised(&read(system, "demo").await).is_empty());
}

/// Two ask for it at once; gives the entry that raised the log.
async fn alone_it_is_raised_once(system: &System) -> u64 {
    wait_until("nobody is heard who is behind", || {
        let (_, said) = upgrade(system, NEW, Some(4));
        !said["detail"].as_str().unwrap().contains(" reads up to level 2")
    });
    let twice = thread::scope(|scope| {
        let asked = [(); 2].map(|()| scope.spawn(|| upgrade(system, NEW, None)));
        asked.map(|asked| asked.join().unwrap())
    });
    for (status, said) in twice {
        assert_eq!((status, &said["level"]), (200, &json!(3)), "{said}");
    }
    let [at] = raised(&read(system, "demo").await)[..] else { panic!("not raised once") };
    for (level, expected) in [(3, 200), (2, 409), (4, 409)] {
        let (status, said) = upgrade(system, NEW, Some(level));
        assert_eq!(status, expected, "level {level}: {said}");
    }
    create(system, "late", 3);
    at
}

async fn entries_after_it_are_of_that_level(system: &System, at: u64) {
    // An ordinary node goes on in the version that it knows, which stays valid.
    for (node, version) in [(0, 2), (1, 3)] {
        visitor_enters(system, node, "demo").await;
        let entries = read(system, "demo").await;
        let joined = entries.iter().rfind(|entry| entry.kind == "joined").unwrap();
        assert_eq!(joined.body["v"], version);
    }
    let entries = read(system, "demo").await;
    let decided = entries.iter().filter(|entry| entry.seq > at && !entry.body["worker"].is_null());
    let versions: Vec<&Value> = decided.map(|entry| &entry.body["v"]).collect();
    assert!(versions.len() >= 4 && versions.iter().all(|version| **version == 3), "{versions:?}");
    is_read(system, "demo", at);
}

async fn who_can_not_follow_stops_and_the_others_go_on(system: &System, at: u64) {
    let why = unreadable(at);
    wait_until("the old projector and the old worker stop there", || {
        let halted = format!("halted queue=demo seq={} reason={why}", at - 1);
        system.logs().matches(&halted).count() == 2
    });
    let (_, said) = get(&format!("{}/readyz", system.operator(OLD)));
    let expected = format!("queue demo: stopped after entry {}: {why}", at - 1);
    assert!(said["reasons"].to_string().contains(&expected), "{said}");
    // What is written behind it is nothing to them.
    visitor_enters(system, 0, "demo").await;
    assert!(!system.logs().contains("panicked"), "one fell where it should stop");
    create(system, "meanwhile", 2);
    assert_eq!(upgrade(system, NEW, Some(3)).0, 200);
    let (status, said) = upgrade(system, NEW, Some(4));
    let old = said["detail"].as_str().unwrap().contains(" reads up to level 2");
    assert!(status == 409 && old, "{said}");
    for queue in ["demo", "late", "early", "meanwhile"] {
        for node in [0, 1] {
            visitor_enters(system, node, queue).await;
        }
    }
    for address in [system.node(0), system.node(1), system.operator(NEW)] {
        let (status, said) = get(&format!("{address}/readyz"));
        assert_eq!(status, 200, "{said}");
    }
    is_read(system, "demo", at);
    assert_eq!(raised(&read(system, "demo").await), [at]);
    for queue in ["early", "meanwhile"] {
        assert_eq!(system.run_json(&["audit", "verify", queue])["ok"], true, "{queue}");
    }
}

fn unreadable(at: u64) -> String {
    format!("entry {at} raises the log to level 3, which this program can't read: upgrade it")
}

/// Asks a worker to raise the log of `demo`, to the newest level that it knows without one.
fn upgrade(system: &System, which: usize, level: Option<u16>) -> (u16, Value) {
    let body = level.map_or_else(|| json!({}), |level| json!({ "level": level }));
    ask(system, which, "POST", "/admin/queues/demo/upgrade", &body)
}

fn ask(system: &System, which: usize, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let bearer = format!("Bearer {}", system.text("operatorToken"));
    let url = format!("{}{path}", system.operator(which));
    call(method, &url, &[("Authorization", &bearer)], body)
}

/// The same from a terminal.
fn upgrade_by_hand(system: &System, queue: &str) -> (i32, String) {
    let (operator, token) = (system.operator(NEW), system.token_file());
    let at = ["--operator", &operator, "--token-file", &token];
    system.run(&[&["queue", "upgrade", queue, "--level", "3"], at.as_slice()].concat())
}

/// Who is behind is named by role and id.
fn assert_two_are_behind(said: &Value) {
    let detail = said["detail"].as_str().unwrap();
    let list = detail.strip_prefix("Not everybody can read level 3: ").unwrap();
    let list: Vec<&str> = list.strip_suffix('.').unwrap().split("; ").collect();
    assert_eq!(list.len(), 2, "{detail}");
    for (one, role) in list.iter().zip(["projector", "worker"]) {
        let (who, level) = one.split_once(" reads up to level ").unwrap();
        let id = who.strip_prefix(role).unwrap().trim();
        assert!(uuid::Uuid::parse_str(id).is_ok() && level == "2", "{one}");
    }
}

/// Makes a queue by the new worker, and sees at which level it begins.
fn create(system: &System, queue: &str, level: u16) {
    let policy = json!({"rate_per_minute": 6000, "token_seconds": 600});
    let (status, said) = ask(system, NEW, "PUT", &format!("/admin/queues/{queue}"), &policy);
    assert_eq!((status, &said["level"]), (201, &json!(level)), "{said}");
}

/// The projector and the worker of `up` stop, and nobody starts them again: `up` stands still.
fn stop_the_old(system: &System) {
    signal(system.up_pid(), Signal::STOP);
    for name in ["projector", "admission"] {
        let pid = system.pid(name);
        signal(pid, Signal::TERM);
        wait_until("it has stopped", || !is_running(pid));
    }
}

fn start_the_old(system: &System) {
    signal(system.up_pid(), Signal::CONT);
}

/// The entries that raise the log.
fn raised(entries: &[Entry]) -> Vec<u64> {
    let raised = entries.iter().filter(|entry| entry.body.get("level").is_some());
    raised.map(|entry| entry.seq).collect()
}

/// The new program reads the log and finds who raised it; the ordinary one halts there.
fn is_read(system: &System, queue: &str, at: u64) {
    let mut audit = Value::Null;
    wait_until("projector and audit say the same", || {
        let verify = |what: &str| -> Value {
            let (_, said) = system.run_program(&next_level(), &[what, "verify", queue, "--json"]);
            serde_json::from_str(&said).unwrap()
        };
        audit = verify("audit");
        let said = verify("projection");
        said["sequence"] == audit["sequence"] && said["digest"] == audit["digest"]
    });
    assert_eq!((&audit["ok"], &audit["level"]), (&json!(true), &json!(3)), "{audit}");
    let notes = audit["notes"].as_array().unwrap();
    let note = notes.iter().find(|note| note["sequence"] == at);
    let what = note.expect("the audit says who raised it")["what"].as_str().unwrap();
    assert!(what.contains("level 3") && what.contains("operator"), "{what}");
    let (code, said) = system.run(&["audit", "verify", queue]);
    assert!(code == 1 && said.contains(&unreadable(at)), "{said}");
}

async fn visitor_enters(system: &System, node: usize, queue: &str) {
    let mut visitor = Visitor::join(&system.socket(node, queue), &key()).await;
    let id = connection_id(&visitor.until("JOINED").await);
    let admitted = visitor.until("ADMITTED").await;
    let token = json!({"token": admitted["payload"]["token"]});
    let (status, answer) = post(&format!("{}/api/tokens/redeem", system.node(node)), &token);
    assert_eq!((status, &answer["visitor"]), (200, &json!(name(&id))), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_version_1_is_refused_in_one_sentence_and_no_other_queue_is_touched() {
    let system = System::start("version-1-log");
    let first = r#"{"v":1,"prev":0,"basis":0,"facts":[{"by":"operator","state":"open"}]}"#;
    make_stream(&system, "old", first).await;
    wait_until("projector and worker stop before its first entry", || {
        let halted = format!("halted queue=old seq=0 reason={VERSION_1}");
        system.logs().matches(&halted).count() == 2
    });
    let (code, said) = system.run(&["audit", "verify", "old"]);
    assert!(code == 1 && said.contains(VERSION_1), "{said}");
    let (code, said) = system.run(&["projection", "verify", "old", "--json"]);
    assert!(code == 1 && said.contains(VERSION_1), "{said}");
    let (status, said) = get(&format!("{}/readyz", system.operator(0)));
    let expected = format!("queue old: stopped after entry 0: {VERSION_1}");
    // The other queue is served.
    assert_eq!((status, &said["reasons"]), (200, &json!([expected])));
    wait_until("the node says so", || {
        get(&format!("{}/readyz", system.node(0))).1["reasons"].to_string().contains(VERSION_1)
    });

    visitor_enters(&system, 0, "demo").await;
    system.queue("new", &json!({"rate_per_minute": 6000}));
    visitor_enters(&system, 0, "new").await;
    for queue in ["demo", "new"] {
        assert_eq!(system.run_json(&["audit", "verify", queue])["ok"], true);
    }
    assert_eq!(read(&system, "old").await.len(), 1, "somebody wrote into it");
}

/// Makes the stream of a queue as the one of `demo` is, by hand, with this as its first message.
async fn make_stream(system: &System, queue: &str, first: &str) {
    let client = operator(system).await;
    let ask = async |subject: String, body: String| -> Value {
        let reply = client.request(subject, body.into()).await.unwrap();
        let answer: Value = serde_json::from_slice(&reply.payload).unwrap();
        assert!(answer["error"].is_null(), "{answer}");
        answer
    };
    let info = ask("$JS.API.STREAM.INFO.ANTEROOM_demo".to_owned(), String::new()).await;
    let config = info["config"].to_string().replace("ANTEROOM_demo", &format!("ANTEROOM_{queue}"));
    let config = config.replace(".demo.", &format!(".{queue}."));
    ask(format!("$JS.API.STREAM.CREATE.ANTEROOM_{queue}"), config).await;
    let stored = ask(format!("anteroom.log.{queue}.admission.configured"), first.to_owned()).await;
    assert_eq!(stored["seq"], 1);
}

async fn operator(system: &System) -> Client {
    let url = std::fs::read_to_string(system.dir.join("run/nats-operator.url")).unwrap();
    let url: ServerAddr = url.trim().parse().unwrap();
    let (user, password) = (url.username().unwrap(), url.password().unwrap());
    let options = ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned());
    options.connect(url).await.unwrap()
}
