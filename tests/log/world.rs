//! A server with one queue, and the stream read back naively: message by message, by the server's
//! own words, without the code under test.

use std::fmt::Write as _;
use std::future::Future;
use std::time::Duration;

use anteroom::clock;
use anteroom::log::append::{Appender, NodeFact};
use anteroom::log::connection::Log;
use anteroom::log::stream::Limits;
use anteroom::log::subjects::QueueId;
use anteroom::queue::event::{
    Configured, Decision, Entry, Facts, Join, Level, Millis, NodeId, Seq, Setting, State,
    VisitorId, WorkerId,
};
use anteroom::queue::line::Line;
use anteroom::shutdown::Shutdown;
use anteroom::wire;
use anteroom::wire::event::Read;
use async_nats::{Client, ConnectOptions, HeaderMap, ServerAddr};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::Nats;

/// Whatever is waited for in these tests comes within this, on a busy machine too.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// What most tests allow a stream.
pub(crate) const ROOMY: Limits = Limits { max_bytes: 256_000_000, replicas: 1 };

/// What their streams have as their secret; who reads and writes a log does not look into it.
pub(crate) const SECRET: &str = "a secret that is wrapped";

pub(crate) const NODE: NodeId = NodeId(*b"n\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");

const WORKER: WorkerId = WorkerId(*b"w\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");

/// A server, and the stream of the queue `demo`.
pub(crate) struct World {
    pub(crate) nats: Nats,
    pub(crate) queue: QueueId,
    pub(crate) shutdown: Shutdown,
}

/// One message of the stream, as the server tells it.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) seq: u64,
    pub(crate) time: String,
    pub(crate) subject: String,
    pub(crate) headers: String,
    pub(crate) payload: Vec<u8>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(ROOMY).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        let world = Self {
            nats: Nats::start_new(),
            queue: QueueId::parse("demo").unwrap(),
            shutdown: Shutdown::default(),
        };
        world.log("admission").await.create_stream(&world.queue, limits, SECRET).await.unwrap();
        world
    }

    /// A connection by the code under test.
    pub(crate) async fn log(&self, identity: &str) -> Log {
        connect(&self.nats.url(identity)).await
    }

    pub(crate) async fn appender(&self) -> Appender {
        Appender::start(&self.log("node").await, &self.queue, &self.shutdown)
    }

    /// A connection of the bare client.
    pub(crate) async fn raw(&self, identity: &str) -> Client {
        raw(&self.nats.url(identity)).await
    }

    /// Everything that the stream holds.
    pub(crate) async fn stored(&self) -> Vec<Stored> {
        stored(&self.raw("auditor").await, "demo").await
    }

    /// What the stream says, one entry a line.
    pub(crate) async fn tell(&self) -> String {
        tell(&self.stored().await)
    }

    /// Asserts what the stream says.
    #[track_caller]
    pub(crate) fn says(&self, expected: &str) -> impl Future<Output = ()> {
        let at = std::panic::Location::caller();
        let expected: Vec<&str> = expected.lines().map(str::trim).collect();
        let expected = expected.join("\n").trim().to_owned();
        async move { assert_eq!(self.tell().await.trim(), expected, "at {at}") }
    }
}

/// A connection of the bare client, by an address with its identity.
pub(crate) async fn raw(url: &str) -> Client {
    let server: ServerAddr = url.parse().unwrap();
    let (user, password) = (server.username().unwrap(), server.password().unwrap());
    let options = ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned());
    options.connect(server).await.unwrap()
}

/// Everything that the stream of a queue holds.
pub(crate) async fn stored(auditor: &Client, queue: &str) -> Vec<Stored> {
    let info = ask(auditor, &format!("$JS.API.STREAM.INFO.ANTEROOM_{queue}"), json!({})).await;
    let subject = format!("$JS.API.STREAM.MSG.GET.ANTEROOM_{queue}");
    let mut all = Vec::new();
    for seq in 1..=info["state"]["last_seq"].as_u64().unwrap() {
        let message = ask(auditor, &subject, json!({"seq": seq})).await["message"].take();
        let text = |key: &str| message[key].as_str().unwrap_or_default().to_owned();
        let bytes = |key: &str| STANDARD.decode(text(key)).unwrap();
        assert_eq!(message["seq"], seq);
        all.push(Stored {
            seq,
            time: text("time"),
            subject: text("subject"),
            headers: String::from_utf8_lossy(&bytes("hdrs")).into_owned(),
            payload: bytes("data"),
        });
    }
    all
}

pub(crate) async fn connect(url: &str) -> Log {
    let log = Log::connect(url, "a test", Level::NEWEST).await.unwrap();
    assert!(log.connected_within(WAIT_MAX).await);
    log
}

/// Waits for what must happen.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT_MAX, what).await.expect("this should have happened by now")
}

/// Waits until something is true that can only be looked at.
pub(crate) async fn until(is_true: impl Fn() -> bool) {
    let late = clock::monotonic() + WAIT_MAX;
    while !is_true() {
        assert!(clock::monotonic() < late, "this should be true by now");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Asks the server and gives its answer.
pub(crate) async fn ask(client: &Client, subject: &str, body: Value) -> Value {
    let reply = client.request(subject.to_owned(), body.to_string().into()).await.unwrap();
    serde_json::from_slice(&reply.payload).unwrap()
}

/// Puts a message into the stream without the code under test, and gives its sequence.
pub(crate) async fn put(
    client: &Client,
    kind: &str,
    headers: &[(&str, &str)],
    payload: impl Into<Vec<u8>>,
) -> u64 {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, *value);
    }
    let payload = payload.into().into();
    let subject = format!("anteroom.log.demo.{kind}");
    let reply = client.request_with_headers(subject, map, payload).await.unwrap();
    let ack: Value = serde_json::from_slice(&reply.payload).unwrap();
    ack["seq"].as_u64().unwrap_or_else(|| panic!("not stored: {ack}"))
}

/// Puts a join of one visitor into `demo` by hand, with bytes as its headers that no client sends.
pub(crate) async fn put_with_raw_headers(node_url: &str, headers: &[u8], payload: &[u8]) {
    let server: ServerAddr = node_url.parse().unwrap();
    let password = server.password().unwrap();
    let connect = format!(
        "CONNECT {{\"user\":\"node\",\"pass\":\"{password}\",\"verbose\":false,\
         \"headers\":true,\"no_responders\":true}}\r\n"
    );
    let head = headers.len();
    let all = head + payload.len();
    let publish = format!("HPUB anteroom.log.demo.node.joined {head} {all}\r\n");
    let bytes =
        [connect.as_bytes(), publish.as_bytes(), headers, payload, b"\r\nPING\r\n"].concat();
    let mut stream = TcpStream::connect((server.host(), server.port())).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut answer = Vec::new();
    soon(async {
        while !String::from_utf8_lossy(&answer).contains("PONG") {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{answer:?}");
        }
    })
    .await;
    assert!(!String::from_utf8_lossy(&answer).contains("-ERR"), "{answer:?}");
}

/// The visitor of a name: its letters, then zeros.
pub(crate) fn visitor(name: &str) -> VisitorId {
    let mut bytes = [0; 16];
    bytes.get_mut(..name.len()).unwrap().copy_from_slice(name.as_bytes());
    VisitorId(bytes)
}

pub(crate) fn joined(name: &str, number: u64) -> NodeFact {
    NodeFact::Joined(NODE, Join::plain(visitor(name), number))
}

/// The payload of one join.
pub(crate) fn joined_json(name: &str) -> String {
    let facts = [json!({"visitor": visitor(name).to_string(), "socket": 1})];
    json!({"v": 2, "node": NODE.to_string(), "facts": facts}).to_string()
}

/// An operator sets the state; `by` tells decisions apart.
pub(crate) fn decision(prev: u64, by: &str) -> Decision {
    let what = Setting::State(State::Open, None);
    let facts = Facts::Configured(vec![Configured { by: by.to_owned(), what }]);
    let (prev, now) = (Seq(prev), Millis(1_795_377_600_000));
    Decision { prev, basis: prev, now, worker: WORKER, facts }
}

/// The line after these messages.
pub(crate) fn fold(stored: &[Stored]) -> Line {
    let mut line = Line::default();
    for message in stored {
        let subject = message.subject.strip_prefix("anteroom.log.demo.").unwrap();
        let entry = match wire::event::read(subject, &message.payload, Level::NEWEST) {
            Read::Entry(_, entry) => entry,
            Read::Void { fenced, .. } => Entry::Void { fenced },
        };
        assert_eq!(line.raised_by(&entry), None, "entry {}", message.seq);
        line.apply(Seq(message.seq), clock::parse_rfc3339(&message.time).unwrap(), &entry);
    }
    line
}

/// Messages as text: `1 node.joined ann/1 bob/2`, `2 admission.configured prev=0 ops`.
pub(crate) fn tell(stored: &[Stored]) -> String {
    let mut text = String::new();
    for message in stored {
        let subject = message.subject.strip_prefix("anteroom.log.demo.").unwrap();
        write!(text, "{} {subject}", message.seq).unwrap();
        let Ok(json) = serde_json::from_slice::<Value>(&message.payload) else {
            writeln!(text, " {}", String::from_utf8_lossy(&message.payload)).unwrap();
            continue;
        };
        if let Some(prev) = json["prev"].as_u64() {
            write!(text, " prev={prev}").unwrap();
        }
        for fact in json["facts"].as_array().into_iter().flatten() {
            let name = fact["visitor"]
                .as_str()
                .map(name)
                .or_else(|| fact["by"].as_str().map(str::to_owned));
            write!(text, " {}", name.unwrap()).unwrap();
            if let Some(socket) = fact["socket"].as_u64() {
                write!(text, "/{socket}").unwrap();
            }
        }
        text.push('\n');
    }
    text
}

/// The name of a visitor by their id.
pub(crate) fn name(id: &str) -> String {
    let digits = id.replace('-', "");
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    let bytes: Vec<u8> = (0..32).step_by(2).map_while(byte).collect();
    String::from_utf8(bytes).unwrap().trim_end_matches('\0').to_owned()
}
