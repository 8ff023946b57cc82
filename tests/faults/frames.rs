//! Frames and messages that nobody should send, on real sockets: before JOIN, and in line.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::acks::paused_queue;
use crate::burden::{Burden, descriptors};
use crate::malformed::{BROKEN, Case, Dice, Ends, case};
use crate::raw::{
    GOES_ON, Heard, PING, PONG, Raw, TEXT, TEXT_BEGUN, close, frame, join, masked, text,
};
use crate::row::{row, times};
use crate::system::{System, wait_until};
use crate::visitor::key;

/// Sockets at once.
const WORKERS: usize = 32;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_malformed_is_closed_with_its_code_and_harms_nobody() {
    let system = System::start("malformed");
    paused_queue(&system, "line");
    let bystander = Bystander::join(&system).await;
    // Whoever wants a run again gives its seed.
    let seed = std::env::var("ANTEROOM_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = seed.unwrap_or_else(|| getrandom::u64().unwrap());
    println!("seed {seed}");
    let repetitions = times(2_000, 100_000);
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let workers = (0..WORKERS).map(|_| {
        let (next, node, key) = (Arc::clone(&next), system.node(0), key());
        tokio::spawn(async move {
            let mut seen = [0; 5];
            loop {
                let number = next.fetch_add(1, Ordering::SeqCst);
                if number >= repetitions {
                    return seen;
                }
                let mut dice = Dice::new(seed, number);
                let is_in_line = dice.below(2) == 0;
                let case = case(&mut dice, &key, is_in_line);
                let what =
                    format!("seed {seed}, case {number}, in line {is_in_line}: {}", case.what);
                let code = say(&node, &key, case, is_in_line, &what).await;
                let which = BROKEN.iter().position(|broken| Some(*broken) == code);
                seen[which.unwrap_or(BROKEN.len())] += 1;
            }
        })
    });
    let mut seen = [0; 5];
    for worker in join_all(workers).await {
        seen.iter_mut().zip(worker.unwrap()).for_each(|(sum, seen)| *sum += seen);
    }
    let took = began.elapsed();
    let numbers = bystander.end_well(&system).await;
    let [protocol, not_utf8, policy, too_big, other] = seen;
    row(
        "malformed frames and JSON on sockets",
        repetitions,
        &format!(
            "seed {seed}: closed with 1002 {protocol} times, 1007 {not_utf8}, 1008 {policy}, 1009 \
             {too_big}; {other} were good, or cut off in the middle; 0 panics, the same process; one \
             in line all the while kept their place, and heard {numbers} numbers; {:.0} s",
            took.as_secs_f64(),
        ),
    );
}

/// Says what is malformed on a socket of its own, and sees what comes of it.
async fn say(node: &str, key: &str, case: Case, is_in_line: bool, what: &str) -> Option<u16> {
    let mut raw = if is_in_line {
        Raw::in_line(node, "line", key).await
    } else {
        Raw::open(node, "line").await
    };
    // In two pieces, which may come at once or not. It fails where the first was enough.
    let (first, second) = case.bytes.split_at(case.bytes.len() / 2);
    let _ = raw.send(first).await;
    let _ = raw.send(second).await;
    match case.ends {
        Ends::With(code, error) => {
            let said = raw.until_closed().await;
            assert_eq!(said, (Some(code), Some(error.to_owned())), "{what}");
            Some(code)
        }
        Ends::AsSaid(code) => {
            assert_eq!(raw.until_closed().await, (Some(code), None), "{what}");
            None
        }
        Ends::Somehow => {
            raw.hush().await;
            let (code, _) = raw.until_closed().await;
            assert!(code.is_none_or(|code| BROKEN.contains(&code)), "{what}: {code:?}");
            code
        }
        Ends::Joined => {
            loop {
                match raw.next().await {
                    Heard::Message(message) if message["type"] == "JOINED" => break,
                    Heard::Pong => {}
                    other @ (Heard::Message(_) | Heard::Ping | Heard::Close(..) | Heard::End) => {
                        panic!("{what}: {other:?}")
                    }
                }
            }
            raw.send(&close(1000)).await.unwrap();
            assert_eq!(raw.until_closed().await, (Some(1000), None), "{what}");
            None
        }
    }
}

/// What a client does without end, or with which it stops in the middle.
#[derive(Clone, Copy, Debug)]
enum Flood {
    Announced,
    TooLong,
    LongParts,
    EmptyParts,
    Pings,
    LargePings,
    Pongs,
    Messages,
    LongMessages,
}

const FLOODS: [Flood; 9] = [
    Flood::Announced,
    Flood::TooLong,
    Flood::LongParts,
    Flood::EmptyParts,
    Flood::Pings,
    Flood::LargePings,
    Flood::Pongs,
    Flood::Messages,
    Flood::LongMessages,
];

/// A client that floods says so much at once, until it is closed.
const FLOOD_FRAMES: usize = 200;
/// One who was told the end is waited for for a second.
const CUT_OFF_MAX: Duration = Duration::from_secs(20);
/// A socket in line without a sign of life is let go after this.
const SILENCE_MAX: Duration = Duration::from_secs(65);
/// Timers of a machine that is busy with the test itself are late.
const LATE_MAX: Duration = Duration::from_secs(10);
/// Whoever waits is told something within 20 s.
const NEWS_MAX: Duration = Duration::from_secs(30);
/// What may be held of one who says half: a frame and a message, in buffers that doubled, and a seat.
const HELD_KIBIBYTES_MAX: usize = 24;
/// What the node may hold more than before for no reason: its allocator keeps some of what was used.
const KEPT_KIBIBYTES_MAX: usize = 16 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn whoever_says_too_much_is_closed_and_the_memory_stays() {
    let system = System::start("flood");
    paused_queue(&system, "line");
    let (node, pid) = (system.node(0), system.pid("node"));
    let bystander = Bystander::join(&system).await;
    let before = Burden::of(pid);
    let repetitions = times(72, 1_000);
    let next = Arc::new(AtomicUsize::new(0));
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (next, node, key) = (Arc::clone(&next), node.clone(), key());
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= repetitions {
                        return;
                    }
                    let kind = FLOODS[number % FLOODS.len()];
                    flood(&node, &key, kind, (number / FLOODS.len()).is_multiple_of(2)).await;
                }
            })
        })
        .collect();
    let flooding = tokio::spawn(join_all(workers));
    let mut most = before.kibibytes;
    while !flooding.is_finished() {
        most = most.max(Burden::of(pid).kibibytes);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    flooding.await.unwrap().into_iter().for_each(|worker| worker.unwrap());
    wait_until("all descriptors are free", || descriptors(pid) <= before.descriptors);
    let after = Burden::of(pid);
    let half = say_half(&node, pid).await;
    wait_until("all descriptors are free", || descriptors(pid) <= before.descriptors);
    let numbers = bystander.end_well(&system).await;
    assert!(after.kibibytes < before.kibibytes + KEPT_KIBIBYTES_MAX, "{before} -> {after}");
    row(
        "oversized, fragmented, ping flood",
        repetitions,
        &format!(
            "closed with 1009 what was too long, with 1008 what was too much; the node holds {before} \
             before, {:.1} MiB at most, {after} after; {half}; one in line all the while kept their \
             place, and heard {numbers} numbers",
            most as f64 / 1024.0,
        ),
    );
}

/// One client who does this until it is closed.
async fn flood(node: &str, key: &str, kind: Flood, is_in_line: bool) {
    let mut raw = if is_in_line {
        Raw::in_line(node, "line", key).await
    } else {
        Raw::open(node, "line").await
    };
    let long = "x".repeat(4_080);
    let long = format!("{{\"type\":\"{long}\"}}");
    let many = |frame: Vec<u8>| frame.repeat(FLOOD_FRAMES);
    let (begins, goes_on, code, error) = match kind {
        Flood::Announced => (masked(TEXT, 1 << 30, b""), vec![], 1009, "bad_message"),
        Flood::TooLong => (vec![], frame(TEXT, &[b'x'; 5_000]), 1009, "bad_message"),
        Flood::LongParts => {
            (frame(TEXT_BEGUN, b"{"), many(frame(GOES_ON, &[b' '; 500])), 1009, "bad_message")
        }
        Flood::EmptyParts => {
            (frame(TEXT_BEGUN, b""), many(frame(GOES_ON, b"")), 1008, "rate_limited")
        }
        Flood::Pings => (vec![], many(frame(PING, b"")), 1008, "rate_limited"),
        Flood::LargePings => (vec![], many(frame(PING, &[b'x'; 125])), 1008, "rate_limited"),
        Flood::Pongs => (vec![], many(frame(PONG, b"")), 1008, "rate_limited"),
        Flood::Messages => (vec![], many(join(key)), 1008, "bad_message"),
        Flood::LongMessages => (vec![], text(&long), 1008, "bad_message"),
    };
    let what = format!("{kind:?}, in line {is_in_line}");
    // It fails where less was enough.
    let _ = raw.send(&begins).await;
    let _ = raw.send(&goes_on).await;
    assert_eq!(raw.until_closed().await, (Some(code), Some(error.to_owned())), "{what}");
    // And whoever goes on all the same is cut off.
    let more = frame(PONG, &[b'x'; 125]).repeat(FLOOD_FRAMES);
    let cut_off = async { while raw.send(&more).await.is_ok() {} };
    tokio::time::timeout(CUT_OFF_MAX, cut_off).await.expect(&what);
}

/// Clients in line who begin as much as the node keeps of one of them, and say nothing more; then as
/// many once more, for whom what the first ones had must do.
async fn say_half(node: &str, pid: i32) -> String {
    let count = times(100, 1_000);
    let before = Burden::of(pid);
    let first = say_half_at_once(node, count).await;
    let held = Burden::of(pid).kibibytes.saturating_sub(before.kibibytes);
    assert!(held < count * HELD_KIBIBYTES_MAX + KEPT_KIBIBYTES_MAX, "{count} hold {held} KiB");
    first.into_iter().for_each(Raw::reset);
    wait_until("all descriptors are free", || descriptors(pid) <= before.descriptors);
    let mut second = say_half_at_once(node, count).await;
    let again = Burden::of(pid).kibibytes.saturating_sub(before.kibibytes);
    assert!(again < held + KEPT_KIBIBYTES_MAX, "{count} hold {held} KiB, and then {again} KiB");
    let mut fate = "let go when they went".to_owned();
    for _ in 0..times(0, 1) {
        let since = Instant::now();
        let ends = join_all(second.iter_mut().map(Raw::until_closed)).await;
        assert!(ends.iter().all(|end| *end == (None, None)), "{ends:?}");
        let took = since.elapsed();
        assert!(took < SILENCE_MAX + LATE_MAX, "half a frame was waited for for {took:?}");
        fate = format!("let go by the node after {:.0} s", took.as_secs_f64());
    }
    format!(
        "{count} in line who stop within a frame hold {held} KiB in all, {again} KiB when as many come \
         after them, and are {fate}"
    )
}

async fn say_half_at_once(node: &str, count: usize) -> Vec<Raw> {
    let begun = frame(TEXT_BEGUN, &[b'x'; 4_096]);
    let half = [begun, masked(GOES_ON, 4_096, &[b'x'; 4_095])].concat();
    let say = || async {
        let mut raw = Raw::in_line(node, "line", &key()).await;
        raw.send(&half).await.unwrap();
        raw
    };
    let all = join_all((0..count).map(|_| say())).await;
    // Others are served, and by now the node has what was said.
    Raw::in_line(node, "line", &key()).await.reset();
    all
}

/// One who is first in line, and reads what they are told.
struct Bystander {
    pid: i32,
    told: watch::Receiver<usize>,
    reading: JoinHandle<()>,
}

impl Bystander {
    async fn join(system: &System) -> Self {
        let mut raw = Raw::open(&system.node(0), "line").await;
        assert_eq!(raw.join(&key()).await.1, 1);
        let (telling, told) = watch::channel(0);
        let reading = tokio::spawn(async move {
            loop {
                match raw.next().await {
                    Heard::Message(message) => {
                        assert_eq!(message["payload"]["position"], 1, "{message}");
                        telling.send_modify(|told| *told += 1);
                    }
                    Heard::Ping => raw.send(&frame(PONG, b"")).await.unwrap(),
                    other @ (Heard::Pong | Heard::Close(..) | Heard::End) => {
                        panic!("one who did nothing wrong heard {other:?}")
                    }
                }
            }
        });
        Self { pid: system.pid("node"), told, reading }
    }

    /// They still stand where they stood, and hear of a newcomer. Gives how often they were told.
    async fn end_well(mut self, system: &System) -> usize {
        let told = *self.told.borrow();
        Raw::in_line(&system.node(0), "line", &key()).await;
        let news = self.told.wait_for(|now| *now > told);
        let news = tokio::time::timeout(NEWS_MAX, news).await.expect("a newcomer is news");
        let told = *news.expect("the place is kept");
        self.reading.abort();
        assert_eq!(system.pid("node"), self.pid, "another process");
        assert!(!system.logs().contains("panicked"));
        told
    }
}
