//! The road between a role and the log. It reads NATS's own frames, so that a test can decide what
//! becomes of each one, and knows which appends were not answered when a connection ended.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use crate::system::System;

/// What a test waits for on a road comes within this.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Frames on their way in one direction of a connection.
const FRAMES_MAX: usize = 10_000;

/// One frame of NATS's protocol.
pub struct Frame {
    pub is_to_log: bool,
    /// Of a message; empty for the rest, as PING.
    pub subject: String,
    /// Of an answer to an append: the subject of the append.
    pub answers: Option<String>,
    pub bytes: Vec<u8>,
    reply: Option<String>,
    /// In the order in which frames came to the road.
    number: u64,
}

impl Frame {
    pub fn is_append(&self) -> bool {
        self.is_to_log && self.subject.starts_with("anteroom.log.")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The same message with one text replaced by another as long, so that nobody is answered.
    pub fn without_reply(&self, text: &str, by: &str) -> Vec<u8> {
        let reply = format!(" {} ", self.reply.as_deref().unwrap());
        self.text().replacen(&reply, " ", 1).replacen(text, by, 1).into_bytes()
    }

    fn unnamed(bytes: Vec<u8>) -> Self {
        let subject = String::new();
        Self { is_to_log: false, subject, answers: None, bytes, reply: None, number: 0 }
    }
}

/// What becomes of a frame.
pub enum Fate {
    Passes,
    IsLost,
    /// It comes after this; what comes behind it overtakes it.
    IsLate(Duration),
    /// It waits for [`Road::release`], even if the one who sent it is dead by then.
    IsHeld,
    /// These bytes follow it.
    IsFollowed(Vec<u8>),
    /// These bytes come in its place.
    Becomes(Vec<u8>),
}

/// An append whose answer was handed over.
pub struct Answered {
    pub subject: String,
    pub at: Instant,
    /// Of the answer, in the order in which they came to the road.
    number: u64,
}

/// What was seen on a road.
#[derive(Default)]
pub struct Seen {
    /// Appends that were sent and not answered yet: their subjects, by where the answer goes.
    unanswered: BTreeMap<String, (u64, String)>,
    /// For each connection that ended, how many appends of its were never answered.
    pub cut: Vec<usize>,
    pub answered: Vec<Answered>,
    /// Frames that wait to be released.
    pub held: usize,
    /// Appends that were handed to the log.
    pub appended: usize,
}

impl Seen {
    pub fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// How many answers came after one that was younger.
    pub fn overtaken(&self) -> usize {
        let mut youngest = 0;
        let mut overtaken = 0;
        for answered in &self.answered {
            overtaken += usize::from(answered.number < youngest);
            youngest = youngest.max(answered.number);
        }
        overtaken
    }
}

type Rule = Box<dyn FnMut(&Frame) -> Fate + Send>;
type Held = (mpsc::Sender<Frame>, Frame);

/// A TCP proxy. It lives as long as the test's runtime.
pub struct Road(Arc<Shared>);

struct Shared {
    address: SocketAddr,
    rule: Mutex<Rule>,
    held: Mutex<Vec<Held>>,
    seen: watch::Sender<Seen>,
    frames: AtomicU64,
    is_shut: watch::Sender<bool>,
}

impl Road {
    /// Leads a role's way to the log over a new road, from the role's next start on.
    pub async fn lead(system: &System, role: &str) -> Self {
        let file = system.dir.join(format!("run/nats-{role}.url"));
        let url = std::fs::read_to_string(&file).unwrap();
        let (identity, server) = url.trim().rsplit_once('@').unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let shared = Arc::new(Shared {
            address: listener.local_addr().unwrap(),
            rule: Mutex::new(Box::new(|_| Fate::Passes)),
            held: Mutex::default(),
            seen: watch::Sender::new(Seen::default()),
            frames: AtomicU64::new(0),
            is_shut: watch::Sender::new(false),
        });
        tokio::spawn(accept(listener, server.parse().unwrap(), Arc::clone(&shared)));
        std::fs::write(&file, format!("{identity}@{}", shared.address)).unwrap();
        Self(shared)
    }

    /// From now on this decides of every frame.
    pub fn rule(&self, rule: impl FnMut(&Frame) -> Fate + Send + 'static) {
        *self.0.rule.lock().unwrap() = Box::new(rule);
    }

    pub fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.0.seen.borrow())
    }

    /// Waits until this was seen; false when it was not.
    pub async fn sees(&self, within: Duration, is_seen: impl FnMut(&Seen) -> bool) -> bool {
        let mut seen = self.0.seen.subscribe();
        tokio::time::timeout(within, seen.wait_for(is_seen)).await.is_ok()
    }

    /// Waits until this was seen.
    pub async fn until(&self, what: &str, is_seen: impl FnMut(&Seen) -> bool) {
        assert!(self.sees(WAIT_MAX, is_seen).await, "in vain: {what}");
    }

    /// Hands over what was held, and how many frames that were. Nothing more is held.
    pub async fn release(&self) -> usize {
        self.rule(|_| Fate::Passes);
        let held = self.take();
        let count = held.len();
        for (to, frame) in held {
            // Whoever it is for may be gone.
            let _ = to.send(frame).await;
        }
        count
    }

    /// What was held never arrives. Nothing more is held.
    pub fn forget(&self) {
        self.rule(|_| Fate::Passes);
        drop(self.take());
    }

    /// Resets every connection, and each new one at once, until the road is opened.
    pub fn shut(&self) {
        self.0.is_shut.send_replace(true);
    }

    pub fn open(&self) {
        self.0.is_shut.send_replace(false);
    }

    fn take(&self) -> Vec<Held> {
        self.0.seen.send_modify(|seen| seen.held = 0);
        std::mem::take(&mut *self.0.held.lock().unwrap())
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, shared: Arc<Shared>) {
    for number in 0.. {
        let (client, _) = listener.accept().await.unwrap();
        if *shared.is_shut.borrow() {
            client.set_zero_linger().unwrap();
            continue;
        }
        // While the log is away, so is the road.
        let Ok(server) = TcpStream::connect(server).await else { continue };
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let connection = Connection { number, has_ended: Arc::default(), shared: shared.clone() };
        tokio::spawn(connection.clone().carry(true, from_client, to_server));
        tokio::spawn(connection.carry(false, from_server, to_client));
    }
}

#[derive(Clone)]
struct Connection {
    number: u64,
    has_ended: Arc<AtomicBool>,
    shared: Arc<Shared>,
}

impl Connection {
    /// Carries one direction until nothing more comes and nothing is late or held: each such frame
    /// keeps the way to its end open.
    async fn carry(self, is_to_log: bool, from: OwnedReadHalf, to: OwnedWriteHalf) {
        let (sender, frames) = mpsc::channel(FRAMES_MAX);
        tokio::spawn(hand_over(frames, to, self.shared.clone()));
        let mut from = BufReader::new(from);
        let mut is_shut = self.shared.is_shut.subscribe();
        loop {
            let frame = tokio::select! {
                frame = read(&mut from, is_to_log) => frame,
                _ = is_shut.wait_for(|is_shut| *is_shut) => {
                    from.get_ref().as_ref().set_zero_linger().unwrap();
                    None
                }
            };
            let Some(mut frame) = frame else { break };
            self.note(&mut frame);
            let fate = (self.shared.rule.lock().unwrap())(&frame);
            let copy = match fate {
                Fate::Passes => None,
                Fate::IsFollowed(bytes) => Some(Frame::unnamed(bytes)),
                Fate::Becomes(bytes) => {
                    frame.bytes = bytes;
                    None
                }
                Fate::IsLost => continue,
                Fate::IsLate(late) => {
                    let sender = sender.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(late).await;
                        // Whoever it is for may be gone.
                        let _ = sender.send(frame).await;
                    });
                    continue;
                }
                Fate::IsHeld => {
                    self.shared.held.lock().unwrap().push((sender.clone(), frame));
                    self.shared.seen.send_modify(|seen| seen.held += 1);
                    continue;
                }
            };
            for frame in std::iter::once(frame).chain(copy) {
                if sender.send(frame).await.is_err() {
                    return self.ended();
                }
            }
        }
        self.ended();
    }

    /// Keeps the appends that wait for their answers, and finds whose answer this is.
    fn note(&self, frame: &mut Frame) {
        frame.number = self.shared.frames.fetch_add(1, Ordering::SeqCst) + 1;
        if frame.is_append()
            && let Some(reply) = frame.reply.clone()
        {
            let append = (self.number, frame.subject.clone());
            self.shared.seen.send_modify(|seen| drop(seen.unanswered.insert(reply, append)));
        } else if !frame.is_to_log {
            let append = self.shared.seen.borrow().unanswered.get(&frame.subject).cloned();
            frame.answers = append.map(|(_, subject)| subject);
        }
    }

    /// What was not answered by now is not answered on this connection.
    fn ended(&self) {
        let is_first = !self.has_ended.swap(true, Ordering::SeqCst);
        self.shared.seen.send_modify(|seen| {
            let before = seen.unanswered.len();
            seen.unanswered.retain(|_, (connection, _)| *connection != self.number);
            if is_first {
                seen.cut.push(before - seen.unanswered.len());
            }
        });
    }
}

async fn hand_over(mut frames: mpsc::Receiver<Frame>, mut to: OwnedWriteHalf, shared: Arc<Shared>) {
    while let Some(frame) = frames.recv().await {
        // Before it is, so that nothing counts as unanswered whose answer may have come.
        if let Some(subject) = &frame.answers {
            let answered =
                Answered { subject: subject.clone(), at: Instant::now(), number: frame.number };
            shared.seen.send_modify(|seen| {
                seen.unanswered.remove(&frame.subject);
                seen.answered.push(answered);
            });
        }
        if to.write_all(&frame.bytes).await.is_err() {
            return;
        }
        if frame.is_append() {
            shared.seen.send_modify(|seen| seen.appended += 1);
        }
    }
}

/// The next frame: a line, and of a message as many bytes as its last word says.
async fn read(from: &mut BufReader<OwnedReadHalf>, is_to_log: bool) -> Option<Frame> {
    let mut bytes = Vec::new();
    from.read_until(b'\n', &mut bytes).await.ok().filter(|count| *count > 0)?;
    let line = String::from_utf8_lossy(&bytes).into_owned();
    let words: Vec<&str> = line.split_whitespace().collect();
    let (subject, reply) = match words.as_slice() {
        ["PUB", subject, reply @ .., _] | ["HPUB", subject, reply @ .., _, _] => (*subject, reply),
        ["MSG", subject, _, reply @ .., _] | ["HMSG", subject, _, reply @ .., _, _] => {
            (*subject, reply)
        }
        _ => return Some(Frame { is_to_log, ..Frame::unnamed(bytes) }),
    };
    let (subject, reply) = (subject.to_owned(), reply.first().map(|&reply| reply.to_owned()));
    let length: usize = words.last().unwrap().parse().unwrap();
    let head = bytes.len();
    bytes.resize(head + length + "\r\n".len(), 0);
    from.read_exact(&mut bytes[head..]).await.ok()?;
    Some(Frame { is_to_log, subject, reply, ..Frame::unnamed(bytes) })
}
