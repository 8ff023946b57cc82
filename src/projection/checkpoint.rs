//! A line as it is kept: the bytes of its pages and of its head, and the line that they give again.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::projection::key::{self, Checksum, PLACES_PER_PAGE};
use crate::queue::digest::{
    Chain, presence_code, presence_of_code, standing_code, standing_of_code, state_code,
    state_of_code,
};
use crate::queue::event::{
    At, Join, Jti, Level, NodeId, PublicKey, SecretId, Seq, Ticket, VisitorId,
};
use crate::queue::line::{Follows, Grant, Head, Line, Place, Presence, Redemption};
use crate::queue::presence::NodeIndex;
use crate::queue::time::LogTime;
use crate::wire;

/// The layout of the store, and what the same log folds to: a change of either raises this, and a store
/// of another is made anew (4 since 2026-11-30, with the second version of the log).
const FORMAT: u16 = 4;

/// Pages for which a second thread is worth its start: some milliseconds of work.
const PAGES_SHARED_MIN: usize = 256;

/// What is to be written at one time: all of it counts, or none.
pub(super) struct Checkpoint {
    pub(super) stream: At,
    pub(super) stored: At,
    pub(super) chain: Chain,
    pub(super) head: Head,
    /// The pages that changed, sealed, by their number.
    pub(super) pages: Vec<(u32, Vec<u8>)>,
}

/// A line as it was at a checkpoint.
pub(super) struct Restored {
    /// The stream that it was folded from.
    pub(super) stream: At,
    /// When the last entry was stored: by that it is known again.
    pub(super) stored: At,
    /// The chain up to there.
    pub(super) chain: Chain,
    /// The line.
    pub(super) line: Line,
}

/// One place, with its grant.
pub(super) type Kept = (Place, Option<Grant>);

/// A page that a checkpoint is made of: the entry after which it was written, and its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PageRef {
    pub(super) seq: u64,
    pub(super) sum: Checksum,
}

/// The page that a ticket is on.
#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
pub(super) fn page_of(ticket: Ticket) -> u32 {
    ticket.0 / PLACES_PER_PAGE as u32
}

/// How many pages a line has.
pub(super) fn page_count(line: &Line) -> usize {
    line.places().len().div_ceil(PLACES_PER_PAGE)
}

/// These pages of the line, sealed. The feed waits for it, so many pages are shared out.
pub(super) fn seal_pages(line: &Line, pages: &[u32]) -> Vec<(u32, Vec<u8>)> {
    let seal = |pages: &[u32]| -> Vec<(u32, Vec<u8>)> {
        pages.iter().map(|page| (*page, seal_page(line, *page))).collect()
    };
    if pages.len() < PAGES_SHARED_MIN {
        return seal(pages);
    }
    let (first, second) = pages.split_at(pages.len() / 2);
    std::thread::scope(|scope| {
        let second = scope.spawn(|| seal(second));
        let mut sealed = seal(first);
        // A panic in there is one of ours.
        sealed.extend(second.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        sealed
    })
}

/// A page of the line, sealed.
#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
fn seal_page(line: &Line, page: u32) -> Vec<u8> {
    let first = page * PLACES_PER_PAGE as u32;
    let tickets = (first..first + PLACES_PER_PAGE as u32).map(Ticket);
    let row = |ticket| Some(Row::new(line.place(ticket)?, line.grant(ticket)));
    let rows: Vec<Row<'_>> = tickets.map_while(row).collect();
    key::seal(&wire::feed::write(&rows))
}

/// The places of a page, with their grants; `None` when it is not what was written.
pub(super) fn open_page(sealed: &[u8]) -> Option<Vec<Kept>> {
    let rows: Vec<Row<'_>> = wire::feed::read(key::open(sealed)?).ok()?;
    rows.into_iter().map(Row::into_place).collect()
}

/// The head of a checkpoint, with the pages that belong to it, sealed.
pub(super) fn seal_head(checkpoint: &Checkpoint, pages: &[PageRef]) -> Vec<u8> {
    key::seal(&wire::feed::write(&HeadRow::new(checkpoint, pages)))
}

/// Reads a head.
pub(super) fn open_head(sealed: &[u8]) -> Result<HeadRow, String> {
    let bytes = key::open(sealed).ok_or("the checkpoint is not what was written")?;
    let format = bytes.first_chunk::<2>().map_or(0, |bytes| u16::from_le_bytes(*bytes));
    if format != FORMAT {
        return Err(format!("it is of format {format}, and this program's is {FORMAT}"));
    }
    wire::feed::read(bytes).map_err(|error| format!("the checkpoint can't be read: {error}"))
}

#[derive(Serialize, Deserialize)]
pub(super) struct HeadRow {
    /// In two bytes, whatever follows: the first thing that any version reads.
    format: [u8; 2],
    level: u16,
    stream: i64,
    stored: i64,
    chain: [u8; 32],
    tickets: u64,
    seq: u64,
    at: i64,
    shift: i64,
    decided: i64,
    last_decision: u64,
    policy: String,
    follows: Option<(u32, i64)>,
    state: u8,
    reason: Option<String>,
    secret: Option<[u8; 16]>,
    presence: (u8, i64),
    keys: Vec<(String, [u8; 32])>,
    nodes: Vec<[u8; 16]>,
    outages: i64,
    longer_graces: Vec<(i64, u32)>,
    next_due: i64,
    pub(super) pages: Vec<PageRef>,
}

impl HeadRow {
    fn new(checkpoint: &Checkpoint, pages: &[PageRef]) -> Self {
        let head = &checkpoint.head;
        Self {
            format: FORMAT.to_le_bytes(),
            level: head.level.0,
            stream: checkpoint.stream.0,
            stored: checkpoint.stored.0,
            chain: checkpoint.chain.0,
            tickets: head.tickets,
            seq: head.seq.0,
            at: head.time.now.0,
            shift: head.time.shift,
            decided: head.time.decided.0,
            last_decision: head.last_decision.0,
            policy: wire::policy::write_stored(&head.policy).to_string(),
            follows: head.follows.map(|follows| (follows.per_minute, follows.at.0)),
            state: state_code(head.state),
            reason: head.reason.clone(),
            secret: head.secret.map(|secret| secret.0),
            presence: (presence_code(head.presence.state), head.presence.since.0),
            keys: head.keys.iter().map(|key| (key.kid.clone(), key.x)).collect(),
            nodes: head.nodes.iter().map(|node| node.0).collect(),
            outages: head.outages,
            longer_graces: head.longer_graces.iter().map(|(at, secs)| (at.0, *secs)).collect(),
            next_due: head.next_due.0,
            pages: pages.to_vec(),
        }
    }

    /// The line that had this head and these places; `None` when they can't belong together.
    pub(super) fn restore(self, places: impl Iterator<Item = Kept>) -> Option<Restored> {
        let policy = serde_json::from_str(&self.policy).ok()?;
        let head = Head {
            tickets: self.tickets,
            seq: Seq(self.seq),
            level: Level(self.level),
            time: LogTime { now: At(self.at), shift: self.shift, decided: At(self.decided) },
            last_decision: Seq(self.last_decision),
            policy: wire::policy::read_stored(&policy).ok()?,
            follows: self.follows.map(|(per_minute, at)| Follows { per_minute, at: At(at) }),
            state: state_of_code(self.state)?,
            reason: self.reason,
            secret: self.secret.map(SecretId),
            presence: Presence {
                state: presence_of_code(self.presence.0)?,
                since: At(self.presence.1),
            },
            keys: self.keys.into_iter().map(|(kid, x)| PublicKey { kid, x }).collect(),
            nodes: self.nodes.into_iter().map(NodeId).collect(),
            outages: self.outages,
            longer_graces: self.longer_graces.iter().map(|(at, secs)| (At(*at), *secs)).collect(),
            next_due: At(self.next_due),
        };
        let line = Line::restore(head, places)?;
        let (stream, stored) = (At(self.stream), At(self.stored));
        Some(Restored { stream, stored, chain: Chain(self.chain), line })
    }
}

#[derive(Serialize, Deserialize)]
struct Row<'a> {
    visitor: [u8; 16],
    joined: u64,
    came: u64,
    node: u32,
    socket: u64,
    opened: u32,
    hand: u32,
    returns: u16,
    misses: u8,
    lane: u8,
    absent: Option<i64>,
    standing: u8,
    grant: Option<GrantRow<'a>>,
}

#[derive(Serialize, Deserialize)]
struct GrantRow<'a> {
    jti: [u8; 16],
    kid: Cow<'a, str>,
    seconds: u32,
    seq: u64,
    at: i64,
    lapses: i64,
    redeemed: Option<RedemptionRow<'a>>,
}

#[derive(Serialize, Deserialize)]
struct RedemptionRow<'a> {
    seq: u64,
    at: i64,
    kid: Cow<'a, str>,
    seconds: u32,
    key: Option<[u8; 32]>,
}

impl<'a> Row<'a> {
    fn new(place: &Place, grant: Option<&'a Grant>) -> Self {
        Self {
            visitor: place.visitor.0,
            joined: place.joined.0,
            came: place.came.0,
            node: place.node.0,
            socket: place.socket,
            opened: place.opened,
            hand: place.hand,
            returns: place.returns,
            misses: place.misses(),
            lane: place.lane(),
            absent: place.absent().map(|at| at.0),
            standing: standing_code(place.standing),
            grant: grant.map(|grant| GrantRow {
                jti: grant.jti.0,
                kid: Cow::Borrowed(&grant.kid),
                seconds: grant.seconds,
                seq: grant.seq.0,
                at: grant.at.0,
                lapses: grant.lapses.0,
                redeemed: grant.redeemed.as_deref().map(|redemption| RedemptionRow {
                    seq: redemption.seq.0,
                    at: redemption.at.0,
                    kid: Cow::Borrowed(&redemption.kid),
                    seconds: redemption.seconds,
                    key: redemption.key,
                }),
            }),
        }
    }

    /// `None` for a standing that this version doesn't know.
    fn into_place(self) -> Option<Kept> {
        let join = Join {
            opened: self.opened,
            lane: self.lane,
            ..Join::plain(VisitorId(self.visitor), self.socket)
        };
        let mut place = Place::new(&join, Seq(self.joined), NodeIndex(self.node));
        place.set_absent(self.absent.map(At));
        place.set_misses(self.misses);
        place.standing = standing_of_code(self.standing)?;
        (place.returns, place.hand, place.came) = (self.returns, self.hand, Seq(self.came));
        let grant = self.grant.map(|grant| Grant {
            jti: Jti(grant.jti),
            kid: grant.kid.as_ref().into(),
            seconds: grant.seconds,
            seq: Seq(grant.seq),
            at: At(grant.at),
            lapses: At(grant.lapses),
            redeemed: grant.redeemed.map(|redemption| {
                Box::new(Redemption {
                    seq: Seq(redemption.seq),
                    at: At(redemption.at),
                    kid: redemption.kid.as_ref().into(),
                    seconds: redemption.seconds,
                    key: redemption.key,
                })
            }),
        });
        Some((place, grant))
    }
}
