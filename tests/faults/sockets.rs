//! Sockets that stop taking what they are told, or end in whatever way: nobody else has less of it,
//! and nothing of them is left.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::acks::paused_queue;
use crate::burden::{Burden, descriptors};
use crate::raw::{Heard, PONG, Raw, close, frame, join, text};
use crate::row::{row, times};
use crate::system::{System, wait_until};
use crate::visitor::{Visitor, key};

/// A socket that takes nothing is closed after this; the row is looked at each second.
const BLOCKED_MAX: Duration = Duration::from_secs(11);
/// Timers of a machine that is busy with the test itself are late.
const LATE_MAX: Duration = Duration::from_secs(5);
/// One that says nothing either is let go for that after this; whoever takes nothing, sooner.
const SILENCE_MAX: Duration = Duration::from_secs(65);
/// The feed says what is new each 25 ms: so each move is news of its own.
const MOVE_EVERY: Duration = Duration::from_millis(30);
/// What the node may hold more than before: what was sent to those who read is not kept.
const KEPT_KIBIBYTES_MAX: usize = 16 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_never_read_are_closed_and_the_others_are_told_all() {
    let system = System::start("deaf");
    system.queue("line", &json!({}));
    // Every update says why nobody is let in: so few of them are more than the kernel holds for one who
    // does not read, and they come in much less than the time after which silence would be enough.
    let why = "The shop is being restocked, and goes on in a moment. ".repeat(4);
    let paused = system.operate("POST", "/admin/queues/line/pause", &json!({ "reason": why }));
    assert_eq!(paused.0, 200, "{paused:?}");
    let (node, pid) = (system.node(0), system.pid("node"));
    let at_first = descriptors(pid);
    let moves = times(200, 600);
    let honest = times(40, 450);
    // The front, who leave one after another, and the last of them when all is over.
    let mut front = Vec::new();
    for _ in 0..=moves {
        front.push(in_line(&system).await);
    }
    let mut readers: Vec<JoinHandle<()>> = Vec::new();
    let mut deaf = Vec::new();
    let silent_until = Instant::now() + SILENCE_MAX;
    for number in 0..honest {
        let (visitor, position) = in_line(&system).await;
        let last = position - moves as u64 - 1;
        readers.push(tokio::spawn(reads_until(visitor, position, last)));
        if number % 10 == 9 {
            let mut raw = Raw::connect_deaf(&node).await.unwrap();
            assert_eq!(raw.upgrade("line", &[]).await.status, 101);
            raw.join(&key()).await;
            deaf.push(raw);
        }
    }
    let before = Burden::of(pid);
    let (all_is_over, over) = oneshot::channel();
    let last_of_front = tokio::spawn(leaves_then(front.pop().unwrap().0, over));
    let moving = tokio::spawn(async move {
        for (mut visitor, _) in front {
            leave(&mut visitor).await;
            tokio::time::sleep(MOVE_EVERY).await;
        }
    });
    let (worst, most) = all_closed(&deaf, &node, pid, silent_until).await;
    moving.await.unwrap();
    let blocked = Burden::of(pid);
    assert!(worst < BLOCKED_MAX + LATE_MAX, "closed only {worst:?} after it took nothing");
    wait_until("the node says why", || {
        let metrics = system.metrics();
        let mut lines = metrics.lines().filter(|line| line.contains(r#"reason="not_reading""#));
        lines.any(|line| line.ends_with(&format!(" {}", deaf.len())))
    });
    let kept = most.saturating_sub(before.kibibytes);
    assert!(kept < KEPT_KIBIBYTES_MAX, "{kept} KiB more are held");
    all_is_over.send(()).unwrap();
    last_of_front.await.unwrap();
    for reader in readers {
        reader.await.unwrap();
    }
    wait_until("all descriptors are free", || descriptors(pid) <= at_first);
    let result = format!(
        "{} of {} never read: all closed by the node, the last {:.1} s after it took nothing more; \
         {moves} moves meanwhile, {honest} others had the right place at the end; the node holds \
         {before} before, {:.1} MiB at most, {blocked} when they were closed; {} descriptors at first, \
         {} at last",
        deaf.len(),
        honest + deaf.len(),
        worst.as_secs_f64(),
        most as f64 / 1024.0,
        at_first,
        descriptors(pid),
    );
    row("10 % of clients never read", 1, &result);
}

/// A visitor who behaves, and their first position.
async fn in_line(system: &System) -> (Visitor, u64) {
    let mut visitor = Visitor::join(&system.socket(0, "line"), &key()).await;
    let position = visitor.until("QUEUE_UPDATE").await["payload"]["position"].as_u64().unwrap();
    (visitor, position)
}

/// Reads until this position, which only comes when all have moved.
async fn reads_until(mut visitor: Visitor, mut position: u64, last: u64) {
    while position != last {
        let now = visitor.until("QUEUE_UPDATE").await["payload"]["position"].as_u64().unwrap();
        assert!((last..=position).contains(&now), "from {position} to {now}, not to {last}");
        position = now;
    }
}

/// Reads what comes, and leaves when it is time.
async fn leaves_then(mut visitor: Visitor, mut time: oneshot::Receiver<()>) {
    loop {
        tokio::select! {
            time = &mut time => {
                time.unwrap();
                return leave(&mut visitor).await;
            }
            message = visitor.next() => assert!(message.get("close").is_none(), "{message}"),
        }
    }
}

async fn leave(visitor: &mut Visitor) {
    visitor.say(&json!({"type": "LEAVE"})).await;
    assert_eq!(visitor.until("ENDED").await["payload"]["reason"], "left");
}

/// Waits until the node has closed all of these, whose clients can't see it: for how long it bore with
/// one that took nothing more, and the most that it held meanwhile.
async fn all_closed(deaf: &[Raw], node: &str, pid: i32, until: Instant) -> (Duration, usize) {
    let port = |address: &str| address.rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
    let ports = deaf.iter().map(|raw| raw.stream.local_addr().unwrap().port());
    let mut open: BTreeMap<u16, (usize, Instant)> =
        ports.map(|port| (port, (0, Instant::now()))).collect();
    let (mut worst, mut most) = (Duration::ZERO, 0);
    while !open.is_empty() {
        assert!(Instant::now() < until, "{} are not closed", open.len());
        let unsent = unsent(port(node));
        open.retain(|port, (before, since)| match unsent.get(port) {
            Some(bytes) => {
                if bytes != before {
                    (*before, *since) = (*bytes, Instant::now());
                }
                true
            }
            None => {
                worst = worst.max(since.elapsed());
                false
            }
        });
        most = most.max(Burden::of(pid).kibibytes);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    (worst, most)
}

/// Bytes that a process which listens at this port has sent and the other side has not taken, by the
/// port of the other side; without those connections that no process has any more.
fn unsent(port: u16) -> BTreeMap<u16, usize> {
    let hex = |text: &str| usize::from_str_radix(text, 16).unwrap();
    let port_of = |address: &str| u16::try_from(hex(address.rsplit_once(':').unwrap().1)).unwrap();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines
        .filter(|fields| port_of(fields[1]) == port && fields[9] != "0")
        .map(|fields| (port_of(fields[2]), hex(fields[4].split_once(':').unwrap().0)))
        .collect()
}

/// How a connection comes to its end. Each is tried as often.
#[derive(Clone, Copy, Debug)]
enum Way {
    SaysNothing,
    StopsInTheRequest,
    ClosesBeforeJoin,
    ClosesAfterJoin,
    ResetsAfterJoin,
    Closes,
    Resets,
    StopsTalking,
    Refreshes,
    Leaves,
}

const WAYS: [Way; 10] = [
    Way::SaysNothing,
    Way::StopsInTheRequest,
    Way::ClosesBeforeJoin,
    Way::ClosesAfterJoin,
    Way::ResetsAfterJoin,
    Way::Closes,
    Way::Resets,
    Way::StopsTalking,
    Way::Refreshes,
    Way::Leaves,
];

/// Sockets at once.
const WORKERS: usize = 32;

#[tokio::test(flavor = "multi_thread")]
async fn of_sockets_that_end_in_whatever_way_nothing_is_left() {
    let system = System::start("leak");
    paused_queue(&system, "line");
    let (node, pid) = (system.node(0), system.pid("node"));
    let at_first = Burden::of(pid);
    let began = Instant::now();
    // Of ten visits, one takes two connections.
    let half = times(1_000, 455_000);
    let at_rest = || {
        wait_until("all descriptors are free", || descriptors(pid) <= at_first.descriptors);
        wait_until("no socket and no slot is counted", || {
            let metrics = system.metrics();
            let counts = metrics.lines().filter(|line| {
                line.starts_with("anteroom_sockets{") || line.starts_with("anteroom_slots{")
            });
            let counts: Vec<_> = counts.map(|line| line.rsplit(' ').next().unwrap()).collect();
            counts == ["0", "0"]
        });
        Burden::of(pid)
    };
    let mut connects = come_and_go(&node, half).await;
    let half_way = at_rest();
    connects += come_and_go(&node, half).await;
    let at_last = at_rest();
    let grown = at_last.kibibytes.saturating_sub(half_way.kibibytes);
    assert!(grown < KEPT_KIBIBYTES_MAX, "{grown} KiB more than half-way");
    assert_eq!(system.pid("node"), pid);
    assert!(!system.logs().contains("panicked"));
    let seconds = began.elapsed().as_secs_f64();
    let result = format!(
        "ended in {} ways, {:.0} a second; the node holds {at_first} at first, {half_way} half-way, \
         {at_last} at last",
        WAYS.len(),
        connects as f64 / seconds,
    );
    row("no leak of slots or descriptors", connects, &result);
}

/// So many visits, spread over all ways; how many connections that were.
async fn come_and_go(node: &str, visits: usize) -> usize {
    let next = Arc::new(AtomicUsize::new(0));
    let workers = (0..WORKERS).map(|_| {
        let (next, node, keys) = (Arc::clone(&next), node.to_owned(), [key(), key()]);
        tokio::spawn(async move {
            let mut connects = 0;
            loop {
                let number = next.fetch_add(1, Ordering::SeqCst);
                if number >= visits {
                    return connects;
                }
                connects += visit(&node, &keys, WAYS[number % WAYS.len()]).await;
            }
        })
    });
    join_all(workers).await.into_iter().map(|connects| connects.unwrap()).sum()
}

/// One visit; how many connections it took. Whoever goes before they have JOINED has a key of their
/// own: their JOIN may come true later, and then has the newest socket.
async fn visit(node: &str, [key, early]: &[String; 2], way: Way) -> usize {
    match way {
        Way::SaysNothing => drop(Raw::connect(node).await.unwrap()),
        Way::StopsInTheRequest => {
            let mut raw = Raw::connect(node).await.unwrap();
            let request = raw.request("line", &[]);
            raw.send(&request.as_bytes()[..request.len() / 2]).await.unwrap();
            raw.reset();
        }
        Way::ClosesBeforeJoin => Raw::open(node, "line").await.reset(),
        Way::ClosesAfterJoin | Way::ResetsAfterJoin => {
            let mut raw = Raw::open(node, "line").await;
            raw.send(&join(early)).await.unwrap();
            if matches!(way, Way::ResetsAfterJoin) {
                raw.reset();
            }
        }
        Way::Closes => {
            let mut raw = Raw::in_line(node, "line", key).await;
            raw.send(&close(1001)).await.unwrap();
            assert_eq!(raw.until_closed().await, (Some(1001), None));
            assert_eq!(raw.next().await, Heard::End);
        }
        Way::Resets => Raw::in_line(node, "line", key).await.reset(),
        Way::StopsTalking => {
            let mut raw = Raw::in_line(node, "line", key).await;
            raw.send(&frame(PONG, b"")).await.unwrap();
            raw.hush().await;
            assert_eq!(raw.until_closed().await, (None, None));
        }
        Way::Refreshes => {
            let mut before = Raw::in_line(node, "line", key).await;
            let mut now = Raw::in_line(node, "line", key).await;
            assert_eq!(before.until_closed().await, (Some(1000), Some("replaced".to_owned())));
            now.send(&close(1000)).await.unwrap();
            assert_eq!(now.until_closed().await, (Some(1000), None));
            return 2;
        }
        Way::Leaves => {
            let mut raw = Raw::in_line(node, "line", &crate::visitor::key()).await;
            raw.send(&text(r#"{"type":"LEAVE"}"#)).await.unwrap();
            assert_eq!(raw.until_closed().await, (Some(1000), None));
        }
    }
    1
}
