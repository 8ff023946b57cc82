//! The only file that knows sled. It writes behind the feed, on a thread of its own, and what it
//! kept is believed only after every value was checked.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, mpsc};

use serde::{Deserialize, Serialize};

use crate::projection::key::{self, PLACES_PER_PAGE};
use crate::queue::digest::{Chain, standing_code, standing_of_code, state_code, state_of_code};
use crate::queue::event::{At, Jti, NodeId, PublicKey, Seq, Ticket, VisitorId};
use crate::queue::line::{FOLD_VERSION, Grant, Head, Line, Place, Redemption};
use crate::queue::presence::NodeIndex;
use crate::wire;

/// Sled's page cache: a checkpoint touches few pages, so little is enough.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// A line as it was at a checkpoint.
pub(super) struct Restored {
    /// The stream that it was folded from.
    pub(super) stream: At,
    /// The chain up to there.
    pub(super) chain: Chain,
    /// The line.
    pub(super) line: Line,
}

/// Why there is no checkpoint to go on from.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoCheckpoint {
    /// Nothing was ever written here.
    #[error("there is none yet")]
    Empty,
    /// Something is wrong with it.
    #[error("the store is damaged: {0}")]
    Damaged(String),
}

/// What is written at one time: all of it, or nothing.
pub(super) struct Checkpoint {
    stream: At,
    chain: Chain,
    head: Head,
    pages: Vec<(u32, Vec<Row>)>,
}

impl Checkpoint {
    /// The line now, with those of its pages that changed since the checkpoint before.
    pub(super) fn new(
        stream: At,
        chain: Chain,
        line: &Line,
        pages: impl Iterator<Item = u32>,
    ) -> Self {
        let rows = |page: u32| (page, rows(line, page));
        Self { stream, chain, head: line.head(), pages: pages.map(rows).collect() }
    }
}

/// The page that a ticket is on.
#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
pub(super) fn page_of(ticket: Ticket) -> u32 {
    ticket.0 / PLACES_PER_PAGE as u32
}

/// A handle to the writing thread.
pub(super) struct Store {
    to_thread: mpsc::SyncSender<Checkpoint>,
    failed: Arc<OnceLock<String>>,
}

impl Store {
    /// Reads what the folder holds and starts the writing thread. What can't be believed is moved
    /// aside, and the folder begins anew.
    pub(super) fn open(dir: &Path) -> Result<(Self, Option<Restored>), std::io::Error> {
        let (db, restored) = match guarded(|| open_and_read(dir)) {
            Ok((db, restored)) => (db, Some(restored)),
            Err(why) => {
                if let NoCheckpoint::Damaged(why) = why {
                    tracing::warn!(dir = %dir.display(), why, "moved aside; rebuilding from the log");
                    quarantine(dir)?;
                }
                (open_db(dir).map_err(std::io::Error::other)?, None)
            }
        };
        Ok((Self::start(db)?, restored))
    }

    /// Moves what the folder holds aside and begins with an empty store.
    pub(super) fn begin_anew(dir: &Path) -> Result<Self, std::io::Error> {
        quarantine(dir)?;
        Self::start(open_db(dir).map_err(std::io::Error::other)?)
    }

    fn start(db: sled::Db) -> Result<Self, std::io::Error> {
        // One checkpoint waits while one is written; the projector merges further ones itself.
        let (to_thread, checkpoints) = mpsc::sync_channel(1);
        let failed = Arc::new(OnceLock::new());
        let failure = Arc::clone(&failed);
        std::thread::Builder::new().name("store".to_owned()).spawn(move || {
            for checkpoint in checkpoints {
                let written = catch_unwind(AssertUnwindSafe(|| write(&db, &checkpoint)));
                let why = match written {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => "sled panicked".to_owned(),
                };
                failure.get_or_init(|| why);
                return;
            }
        })?;
        Ok(Self { to_thread, failed })
    }

    /// Hands a checkpoint to the writing thread; false when it is still busy with those before.
    pub(super) fn try_write(&self, checkpoint: Checkpoint) -> bool {
        self.to_thread.try_send(checkpoint).is_ok()
    }

    /// Why the writing thread has stopped, if it has.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failed.get().map(String::as_str)
    }
}

/// Runs something of sled's that may panic on damaged files.
fn guarded<T>(read: impl FnOnce() -> Result<T, NoCheckpoint>) -> Result<T, NoCheckpoint> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(NoCheckpoint::Damaged("sled panicked".to_owned())))
}

/// Moves a store aside, in the place of one that was moved aside before.
fn quarantine(dir: &Path) -> Result<(), std::io::Error> {
    let mut aside = PathBuf::from(dir);
    aside.as_mut_os_string().push(".damaged");
    match std::fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match std::fs::rename(dir, &aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn open_db(dir: &Path) -> Result<sled::Db, sled::Error> {
    // Only an explicit flush counts, so sled need not flush by itself.
    sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None).open()
}

fn write(db: &sled::Db, checkpoint: &Checkpoint) -> Result<(), sled::Error> {
    let mut batch = sled::Batch::default();
    for (number, rows) in &checkpoint.pages {
        batch.insert(key::page(*number).as_slice(), key::seal(&wire::feed::write(rows)));
    }
    let head = HeadRow::new(checkpoint);
    batch.insert(key::CHECKPOINT, key::seal(&wire::feed::write(&head)));
    db.apply_batch(batch)?;
    db.flush()?;
    Ok(())
}

fn open_and_read(dir: &Path) -> Result<(sled::Db, Restored), NoCheckpoint> {
    let damaged = |why: String| NoCheckpoint::Damaged(why);
    let db = open_db(dir).map_err(|error| damaged(error.to_string()))?;
    let sealed = db.get(key::CHECKPOINT).map_err(|error| damaged(error.to_string()))?;
    let Some(sealed) = sealed else { return Err(NoCheckpoint::Empty) };
    let head: HeadRow = read_value(&sealed).ok_or_else(|| damaged("checkpoint".to_owned()))?;
    if head.fold_version != FOLD_VERSION {
        return Err(damaged(format!("it is of fold version {}", head.fold_version)));
    }
    let mut places = Vec::new();
    for (number, entry) in (0..).zip(db.range(key::page(0)..)) {
        let (found, sealed) = entry.map_err(|error| damaged(error.to_string()))?;
        let rows: Option<Vec<Row>> = read_value(&sealed).filter(|_| found == key::page(number));
        let rows = rows.ok_or_else(|| damaged(format!("page {number}")))?;
        places.extend(rows.into_iter().filter_map(Row::into_place));
    }
    let (stream, chain, tickets) = (At(head.stream), Chain(head.chain), head.tickets);
    if places.len() as u64 != tickets {
        return Err(damaged(format!("{} of {tickets} places are there", places.len())));
    }
    let line = head.into_head().and_then(|head| Line::restore(head, places));
    let line = line.ok_or_else(|| damaged("its parts don't fit together".to_owned()))?;
    Ok((db, Restored { stream, chain, line }))
}

fn read_value<T: for<'de> Deserialize<'de>>(sealed: &[u8]) -> Option<T> {
    wire::feed::read(key::open(sealed)?).ok()
}

#[derive(Serialize, Deserialize)]
struct HeadRow {
    fold_version: u16,
    stream: i64,
    chain: [u8; 32],
    tickets: u64,
    seq: u64,
    at: i64,
    last_decision: u64,
    policy: String,
    state: u8,
    reason: Option<String>,
    keys: Vec<(String, [u8; 32])>,
    nodes: Vec<[u8; 16]>,
    outages: i64,
    next_due: i64,
}

impl HeadRow {
    fn new(checkpoint: &Checkpoint) -> Self {
        let head = &checkpoint.head;
        Self {
            fold_version: FOLD_VERSION,
            stream: checkpoint.stream.0,
            chain: checkpoint.chain.0,
            tickets: head.tickets,
            seq: head.seq.0,
            at: head.at.0,
            last_decision: head.last_decision.0,
            policy: wire::policy::write(&head.policy).to_string(),
            state: state_code(head.state),
            reason: head.reason.clone(),
            keys: head.keys.iter().map(|key| (key.kid.clone(), key.x)).collect(),
            nodes: head.nodes.iter().map(|node| node.0).collect(),
            outages: head.outages,
            next_due: head.next_due.0,
        }
    }

    fn into_head(self) -> Option<Head> {
        let policy = serde_json::from_str(&self.policy).ok()?;
        Some(Head {
            tickets: self.tickets,
            seq: Seq(self.seq),
            at: At(self.at),
            last_decision: Seq(self.last_decision),
            policy: wire::policy::parse(&policy).ok()?,
            state: state_of_code(self.state)?,
            reason: self.reason,
            keys: self.keys.into_iter().map(|(kid, x)| PublicKey { kid, x }).collect(),
            nodes: self.nodes.into_iter().map(NodeId).collect(),
            outages: self.outages,
            next_due: At(self.next_due),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct Row {
    visitor: [u8; 16],
    joined: u64,
    came: u64,
    node: u32,
    socket: u64,
    absent: Option<i64>,
    standing: u8,
    grant: Option<GrantRow>,
}

#[derive(Serialize, Deserialize)]
struct GrantRow {
    jti: [u8; 16],
    kid: String,
    seconds: u32,
    seq: u64,
    at: i64,
    lapses: i64,
    redeemed: Option<RedemptionRow>,
}

#[derive(Serialize, Deserialize)]
struct RedemptionRow {
    seq: u64,
    at: i64,
    kid: String,
    seconds: u32,
    key: Option<[u8; 32]>,
}

#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
fn rows(line: &Line, page: u32) -> Vec<Row> {
    let first = page * PLACES_PER_PAGE as u32;
    let tickets = (first..first + PLACES_PER_PAGE as u32).map(Ticket);
    tickets.map_while(|ticket| Some(Row::new(line.place(ticket)?, line.grant(ticket)))).collect()
}

impl Row {
    fn new(place: &Place, grant: Option<&Grant>) -> Self {
        Self {
            visitor: place.visitor.0,
            joined: place.joined.0,
            came: place.came.0,
            node: place.node.0,
            socket: place.socket,
            absent: place.absent.map(|at| at.0),
            standing: standing_code(place.standing),
            grant: grant.map(|grant| GrantRow {
                jti: grant.jti.0,
                kid: grant.kid.clone(),
                seconds: grant.seconds,
                seq: grant.seq.0,
                at: grant.at.0,
                lapses: grant.lapses.0,
                redeemed: grant.redeemed.as_ref().map(|redemption| RedemptionRow {
                    seq: redemption.seq.0,
                    at: redemption.at.0,
                    kid: redemption.kid.clone(),
                    seconds: redemption.seconds,
                    key: redemption.key,
                }),
            }),
        }
    }

    /// `None` for a standing that this version doesn't know: the count of places then tells.
    fn into_place(self) -> Option<(Place, Option<Grant>)> {
        let socket = (NodeIndex(self.node), self.socket);
        let mut place =
            Place::stored(VisitorId(self.visitor), Seq(self.joined), Seq(self.came), socket);
        place.absent = self.absent.map(At);
        place.standing = standing_of_code(self.standing)?;
        let grant = self.grant.map(|grant| Grant {
            jti: Jti(grant.jti),
            kid: grant.kid,
            seconds: grant.seconds,
            seq: Seq(grant.seq),
            at: At(grant.at),
            lapses: At(grant.lapses),
            redeemed: grant.redeemed.map(|redemption| Redemption {
                seq: Seq(redemption.seq),
                at: At(redemption.at),
                kid: redemption.kid,
                seconds: redemption.seconds,
                key: redemption.key,
            }),
        });
        Some((place, grant))
    }
}
