//! Keeps the house in order: the directions between rooms, and which words may stand where.
//!
//! It reads the sources as text, so every `use` must name its room by `crate::room::…`.

#![expect(clippy::unwrap_used, reason = "a test that can't read its own sources has failed")]

use std::path::Path;

/// What each room may use. A room that is not listed is a door, and may use `queue` and doors.
const MAY_USE: &[(&str, &[&str])] = &[
    ("queue", &[]),
    ("wire", &["queue"]),
    ("log", &["queue", "wire", DOORS]),
    ("projection", &["queue", "wire", "log", DOORS]),
    ("node", &["queue", "wire", "log", DOORS]),
    ("admission", &["queue", "wire", "log", DOORS]),
    ("audit", &["queue", "wire", "log", DOORS]),
    // The supervisor makes the keys that admission reads.
    ("up", &["queue", "admission", DOORS]),
    ("cli", &["queue", "wire", "log", "audit", "projection", "up", DOORS]),
    // The configuration is resolved to what the roles take.
    ("config", &["queue", "log", "admission", DOORS]),
];

const DOORS: &str = "config clock ids http scheduling shutdown telemetry";

/// Words that may stand only in files whose path begins with one of these.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("async_nats", &["log/", "telemetry.rs"]),
    ("sled::", &["projection/store.rs"]),
    ("aws_lc_rs::", &["ids/", "admission/signer.rs"]),
    ("jsonwebtoken::", &["wire/token.rs", "admission/signer.rs"]),
    ("tungstenite", &["wire/frame.rs"]),
    ("hyper::", &["http.rs", "node/api.rs"]),
    (
        "rustix::",
        &["up/", "node/hall/", "node/session.rs", "http/door.rs", "scheduling.rs", "clock.rs"],
    ),
    ("thread_priority::", &["scheduling.rs"]),
    ("SystemTime", &["clock.rs"]),
    ("Instant::now", &["clock.rs"]),
    ("env::var", &["up/lifeline.rs"]),
    ("getrandom", &["ids.rs"]),
    ("tokio::spawn", &["shutdown.rs"]),
    ("clap::", &["cli.rs", "cli/", "config.rs", "switchboard.rs"]),
];

/// What the audit must not use: the live fold, which it is there to check.
const NOT_IN_AUDIT: &[&str] = &[
    "queue::admit",
    "queue::attendance",
    "queue::change",
    "queue::checkpoint",
    "queue::decisions",
    "queue::estimate",
    "queue::grants",
    "queue::index",
    "queue::line",
    "queue::pace",
    "queue::place",
    "queue::presence",
    "queue::rate",
    "queue::seat",
    "queue::time",
    "digest::digest",
    "interval_nanos()",
    ".burst()",
];

/// Words that the rules must not know.
const NOT_IN_QUEUE: &[&str] =
    &["async ", ".await", "tokio", "serde", "tracing", "rand", "std::time", "std::fs", "std::net"];

const FILE_LINES_MAX: usize = 600;

fn complaints(file: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut complain = |what: String| complaints.push(format!("{file}: {what}"));
    let code: Vec<&str> =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let room = file.split(['/', '.']).next().unwrap();
    for line in &code {
        for other in rooms_named(line) {
            if other != room && !may_use(room, other) {
                complain(format!("{room} may not use {other}: {}", line.trim()));
            }
        }
        for (word, places) in ONLY_IN {
            if line.contains(word) && !places.iter().any(|place| file.starts_with(place)) {
                complain(format!("{word} may stand only in {places:?}"));
            }
        }
        for word in NOT_IN_AUDIT.iter().filter(|_| room == "audit") {
            if line.contains(word) {
                complain(format!("the audit may not share {word:?}: {}", line.trim()));
            }
        }
        for word in NOT_IN_QUEUE.iter().filter(|_| room == "queue") {
            if line.contains(word) {
                complain(format!("the rules may not know {word:?}: {}", line.trim()));
            }
        }
    }
    if !text.starts_with("//!") {
        complain("begins without saying what it is".to_owned());
    }
    if text.lines().count() > FILE_LINES_MAX {
        complain(format!("has more than {FILE_LINES_MAX} lines"));
    }
    complaints
}

/// The rooms that a line names as `crate::room` (or, in the program itself, `anteroom::room`).
fn rooms_named(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("crate::").filter_map(|(at, found)| {
        let rest = &line[at + found.len()..];
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        (end > 0).then_some(&rest[..end])
    })
}

fn may_use(room: &str, other: &str) -> bool {
    let listed = MAY_USE.iter().find(|(listed, _)| *listed == room);
    let allowed = match listed {
        Some((_, allowed)) => allowed.to_vec(),
        // The map and the switchboard name everything.
        None if matches!(room, "lib" | "switchboard") => return true,
        None => vec!["queue", DOORS],
    };
    allowed.iter().any(|rooms| rooms.split(' ').any(|allowed| allowed == other))
}

fn sources(dir: &Path, base: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, base, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(base).unwrap().to_str().unwrap().to_owned();
            found.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn the_house_is_tidy() {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&base, &base, &mut found);
    assert!(found.len() > 40, "only {} files were found", found.len());
    let complaints: Vec<String> =
        found.iter().flat_map(|(file, text)| complaints(file, text)).collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn what_is_out_of_order_is_seen() {
    let says = |file: &str, text: &str, part: &str| {
        let complaints = complaints(file, text).join("\n");
        assert!(complaints.contains(part), "{file}: {complaints:?} does not say {part:?}");
    };
    says("queue/line.rs", "//! x\nuse crate::wire::id::Id;\n", "queue may not use wire");
    says("node/api.rs", "//! x\nuse crate::admission::signer;\n", "node may not use admission");
    says("log/tail.rs", "//! x\nuse crate::node::Queue;\n", "log may not use node");
    says("wire/id.rs", "//! x\nlet now = crate::clock::monotonic();\n", "wire may not use clock");
    says("node/hall.rs", "//! x\nuse async_nats::Client;\n", "may stand only in");
    says("queue/line.rs", "//! x\nlet now = std::time::Duration::ZERO;\n", "may not know");
    says("audit/judge.rs", "//! x\nuse crate::queue::line::Line;\n", "may not share");
    says("node/hall.rs", "use std::fmt;\n", "begins without saying");
    says("node/hall.rs", &format!("//! x\n{}", "\n".repeat(FILE_LINES_MAX)), "more than");
    assert!(complaints("node/hall.rs", "//! x\n// async_nats is not used here\n").is_empty());
}
