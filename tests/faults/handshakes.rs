//! Those who come in slowly, not at all, too many of one address, or from a page that may not.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::acks::paused_queue;
use crate::burden::{Burden, descriptors};
use crate::raw::{Answer, Heard, Raw};
use crate::row::{row, times};
use crate::system::{System, get, wait_until};
use crate::visitor::{Visitor, key};

/// A request's head, and then the first message, must be there within this.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(5);
/// Timers of a machine that is busy with the test itself are late.
const LATE_MAX: Duration = Duration::from_secs(5);
/// Connections that the kernel holds until the node accepts them are more than these. Of one beyond them
/// the node never hears, and its client may not notice.
const BACKLOG_MAX: usize = 100;
/// What the node may hold more than before for no reason: its allocator keeps some of what was used.
const KEPT_KIBIBYTES_MAX: usize = 16 * 1024;
/// Between two bytes of one who drips: none of them gets a request through in time.
const DRIP_EVERY: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread")]
async fn whoever_dawdles_at_the_door_is_sent_away_and_the_others_get_in() {
    let system = System::start("dawdle");
    paused_queue(&system, "line");
    let (node, pid) = (system.node(0), system.pid("node"));
    Raw::in_line(&node, "line", &key()).await.reset();
    let before = Burden::of(pid);
    let count = times(75, 2_000);
    let is_over = Arc::new(AtomicBool::new(false));
    let honest = tokio::spawn(come_in(system.socket(0, "line"), Arc::clone(&is_over)));
    let mut worst = Duration::ZERO;
    let mut after = Vec::new();
    for _ in 0..2 {
        worst = worst.max(dawdle(&node, count).await);
        // One who behaves may be there.
        wait_until("all descriptors are free", || descriptors(pid) <= before.descriptors + 1);
        after.push(Burden::of(pid));
    }
    is_over.store(true, Ordering::SeqCst);
    let honest = honest.await.unwrap();
    assert!(worst < HANDSHAKE_WAIT + LATE_MAX, "closed only after {worst:?}");
    assert!(honest > 0, "nobody else got in");
    let grown = after[1].kibibytes.saturating_sub(after[0].kibibytes);
    assert!(grown < KEPT_KIBIBYTES_MAX, "{grown} KiB more for those who came next");
    let result = format!(
        "all closed by the node, the last {:.1} s after it had connected or was upgraded; meanwhile \
         {honest} visitors, one after another, got their numbers; the node holds {before} before, {} \
         when the first half has gone, {} at last",
        worst.as_secs_f64(),
        after[0],
        after[1],
    );
    row("slow handshakes, header drip, no first message", 2 * count, &result);
}

/// So many come in who dawdle, at once; how long the node bore with one of them.
async fn dawdle(node: &str, count: usize) -> Duration {
    let mut dawdlers = Vec::new();
    for number in 0..count {
        let raw = Raw::connect(node).await.unwrap();
        dawdlers.push(tokio::spawn(async move {
            match number % 3 {
                0 => say_nothing(raw).await,
                1 => drip(raw).await,
                _ => say_no_message(raw).await,
            }
        }));
        if number % BACKLOG_MAX == BACKLOG_MAX - 1 {
            // Once this is answered, the node has all that connected before it.
            assert_eq!(get(&format!("{node}/healthz")).0, 200);
        }
    }
    let took = join_all(dawdlers).await;
    took.into_iter().map(|took| took.unwrap()).max().unwrap()
}

/// Visitors who behave, one after another; how many got their numbers.
async fn come_in(url: String, is_over: Arc<AtomicBool>) -> usize {
    let mut count = 0;
    while !is_over.load(Ordering::SeqCst) {
        let mut visitor = Visitor::join(&url, &key()).await;
        visitor.until("QUEUE_UPDATE").await;
        visitor.say(&json!({"type": "LEAVE"})).await;
        visitor.until("ENDED").await;
        count += 1;
    }
    count
}

/// Gives how long the node bore with one who connects and is silent.
async fn say_nothing(mut raw: Raw) -> Duration {
    let since = Instant::now();
    assert_eq!(raw.next().await, Heard::End);
    since.elapsed()
}

async fn drip(raw: Raw) -> Duration {
    let since = Instant::now();
    let request = raw.request("line", &[("X-Padding", &"x".repeat(1_000))]);
    let (mut from_node, mut to_node) = raw.stream.into_split();
    let dripping = tokio::spawn(async move {
        for byte in request.bytes() {
            if to_node.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(DRIP_EVERY).await;
        }
        panic!("a request that takes so long was read to its end");
    });
    let mut heard = Vec::new();
    // Whether the connection ends or is reset is the same to us.
    let _ = from_node.read_to_end(&mut heard).await;
    let took = since.elapsed();
    assert!(!heard.starts_with(b"HTTP/1.1 101"), "half a request was taken");
    dripping.await.unwrap();
    took
}

async fn say_no_message(mut raw: Raw) -> Duration {
    assert_eq!(raw.upgrade("line", &[]).await.status, 101);
    let since = Instant::now();
    let (code, error) = raw.until_closed().await;
    assert_eq!((code, error.as_deref()), (Some(1008), Some("bad_message")));
    since.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_no_answer_is_sent_away() {
    let system = System::start("takes-nothing");
    let (node, pid) = (system.node(0), system.pid("node"));
    let before = descriptors(pid);
    // More answers than the kernel holds for one connection.
    let request = "GET /client.js HTTP/1.1\r\nHost: node\r\n\r\n".repeat(500);
    let mut takers = Vec::new();
    for _ in 0..times(20, 200) {
        let mut raw = Raw::connect_deaf(&node).await.unwrap();
        raw.send(request.as_bytes()).await.unwrap();
        takers.push(raw);
    }
    wait_until("the node has them", || descriptors(pid) > before);
    let since = Instant::now();
    wait_until("all of them are sent away", || descriptors(pid) <= before);
    let result = format!("all closed by the node {:.1} s later", since.elapsed().as_secs_f64());
    row("requests whose answers are not taken", takers.len(), &result);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_and_an_address_with_too_many_connections_say_so() {
    let mut system = System::prepare("full");
    let limits = [("sockets-max", "3"), ("connections-per-address", "3")];
    system.settings.extend(limits.map(|(name, value)| format!("--{name}={value}")));
    system.up();
    let node = system.node(0);
    let mut sockets = Vec::new();
    paused_queue(&system, "line");
    for _ in 0..3 {
        sockets.push(Raw::in_line(&node, "line", &key()).await);
    }
    assert_refused(&ask(&node, &[]).await.1, 503, "node_full");
    let ready = || get(&format!("{node}/readyz")).0;
    assert_eq!(ready(), 503, "a full node asks for more visitors");
    sockets.pop();
    wait_until("a place is free", || ready() == 200);
    assert_eq!(ask(&node, &[]).await.1.status, 101, "a place that is free is given again");
    drop(sockets);
    wait_until("all places are free", || ready() == 200);

    // Behind a proxy that is trusted, each visitor is counted by their own address. The IPv6 ones are
    // of one household, and so are the last ones, whose last word is the proxy's.
    let households = [
        ["203.0.113.7"; 4],
        ["2001:db8:1:2::1", "2001:db8:1:2::2", "2001:db8:1:2:3:4:5:6", "[2001:db8:1:2::9]:443"],
        ["6.6.6.1, 198.51.100.4", "6.6.6.2, 198.51.100.4", "198.51.100.4", "198.51.100.4:80"],
    ];
    for household in households {
        // Those before have gone, as far as the node has noticed by now.
        wait_until("all places are free", || ready() == 200);
        let mut inside = Vec::new();
        for address in &household[..3] {
            let (mut raw, answer) = come_for(&node, address).await;
            assert_eq!(answer.status, 101, "{address}: {answer:?}");
            raw.join(&key()).await;
            inside.push(raw);
        }
        let (_, answer) = come_for(&node, household[3]).await;
        assert_refused(&answer, 429, "rate_limited");
        inside.pop();
        wait_until("a place is free", || ready() == 200);
        let (_other, answer) = come_for(&node, "203.0.113.8").await;
        assert_eq!(answer.status, 101, "another address has places of its own");
    }
}

/// Asks on behalf of this address, as a proxy does.
async fn come_for(node: &str, address: &str) -> (Raw, Answer) {
    ask(node, &[("X-Forwarded-For", address)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_trusted_proxies_nobody_can_say_that_they_are_somebody_else() {
    let mut system = System::prepare("forged");
    let limits = [("connections-per-address", "3"), ("trusted-proxies", "")];
    system.settings.extend(limits.map(|(name, value)| format!("--{name}={value}")));
    system.up();
    paused_queue(&system, "line");
    let node = system.node(0);
    let home = |last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
    let mut inside = Vec::new();
    for number in 1..=4 {
        // Whatever stands in the header, the peer is counted.
        let forged = format!("203.0.113.{number}");
        let mut raw = Raw::connect_from(&node, home(2)).await.unwrap();
        let answer = raw.upgrade("line", &[("X-Forwarded-For", &forged)]).await;
        if number <= 3 {
            assert_eq!(answer.status, 101, "{answer:?}");
            raw.join(&key()).await;
            inside.push(raw);
        } else {
            assert_refused(&answer, 429, "rate_limited");
        }
    }
    // One who forges the address of another takes none of their places.
    let mut other = Raw::connect_from(&node, home(3)).await.unwrap();
    let forged = [("X-Forwarded-For", "127.0.0.2")];
    assert_eq!(other.upgrade("line", &forged).await.status, 101);
    // And any request of one who has all their places is refused.
    let mut fourth = Raw::connect_from(&node, home(2)).await.unwrap();
    assert_refused(&fourth.upgrade("none", &[]).await, 429, "rate_limited");
    inside.pop();
    let until = Instant::now() + HANDSHAKE_WAIT;
    loop {
        let mut again = Raw::connect_from(&node, home(2)).await.unwrap();
        if again.upgrade("line", &[]).await.status == 101 {
            break;
        }
        assert!(Instant::now() < until, "a place that is free is given again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_may_not_opens_no_socket() {
    let system = System::start("origins");
    system.queue("door", &json!({"allowed_origins": ["https://shop.example"]}));
    assert_eq!(system.operate("POST", "/admin/queues/door/pause", &json!({})).0, 200);
    let node = system.node(0);
    let (_, port) = node.rsplit_once(':').unwrap();
    let own = |host: &str| format!("http://{host}:{port}");
    let refused = [
        vec!["null".to_owned()],
        vec!["http://shop.example".to_owned()],
        vec!["ftp://shop.example".to_owned()],
        vec!["https://shop.example:8443".to_owned()],
        vec!["https://shop.example:443".to_owned()],
        vec!["https://www.shop.example".to_owned()],
        vec!["https://shop.example.evil.example".to_owned()],
        vec!["https://evilshop.example".to_owned()],
        vec!["https://SHOP.example".to_owned()],
        vec!["HTTPS://shop.example".to_owned()],
        vec!["https://shop.example.".to_owned()],
        vec!["https://shop.example/".to_owned()],
        vec!["https://shop.example/page".to_owned()],
        vec!["https://shop.example@evil.example".to_owned()],
        vec!["https://user@shop.example".to_owned()],
        vec!["https://evil.example?https://shop.example".to_owned()],
        vec!["https://ѕhop.example".to_owned()],
        vec!["shop.example".to_owned()],
        vec![String::new()],
        vec!["https://shop.example https://evil.example".to_owned()],
        vec!["https://shop.example".to_owned(), "https://evil.example".to_owned()],
        vec!["https://evil.example".to_owned(), "https://shop.example".to_owned()],
        vec![own("127.0.0.2")],
        vec![own("localhost")],
        vec!["http://127.0.0.1".to_owned()],
        vec![own("127.0.0.1.evil.example")],
        vec![own("127.0.0.1@evil.example")],
    ];
    for origins in &refused {
        let headers: Vec<_> = origins.iter().map(|origin| ("Origin", origin.as_str())).collect();
        let (_, answer) = ask_for(&node, "door", &headers).await;
        let said = (answer.status, &answer.body["code"]);
        assert_eq!(said, (403, &json!("origin_refused")), "{origins:?}");
    }
    for origins in [vec![], vec![node.as_str()], vec!["https://shop.example"]] {
        let headers: Vec<_> = origins.iter().map(|origin| ("Origin", *origin)).collect();
        let (mut raw, answer) = ask_for(&node, "door", &headers).await;
        assert_eq!(answer.status, 101, "{origins:?}");
        raw.join(&key()).await;
    }
    let result = "403 `origin_refused` before the upgrade; none, the node's own and one of \
                  `allowed_origins` are let in";
    row("wrong, null, look-alike Origin", refused.len(), result);
}

async fn ask(node: &str, headers: &[(&str, &str)]) -> (Raw, Answer) {
    ask_for(node, "line", headers).await
}

async fn ask_for(node: &str, queue: &str, headers: &[(&str, &str)]) -> (Raw, Answer) {
    let mut raw = Raw::connect(node).await.unwrap();
    let answer = raw.upgrade(queue, headers).await;
    (raw, answer)
}

fn assert_refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, &answer.body["code"]), (status, &json!(code)), "{answer:?}");
    assert!(answer.head.contains("\r\nretry-after: "), "{answer:?}");
}
