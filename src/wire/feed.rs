//! What the projector tells all nodes: frames of changes, and a snapshot to begin with. Bincode,
//! for a moment's use: both sides are of one release or take a new snapshot.
//!
//! A frame says what moved, so its size does not depend on how many people wait.

use bincode::config::Configuration;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::queue::estimate::{self, Cause};

/// Raised with every change of these types. A node reads this version and the one before, of which there
/// is none yet: projectors are upgraded after nodes.
pub const FEED_VERSION: u16 = 4;

/// A frame's deltas are split over several frames above this. It keeps one message quick to copy
/// to every node, and far from the server's limit of 1 MiB.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;

/// One message of the feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// [`FEED_VERSION`].
    pub version: u16,
    /// The stream's identity: when it was created, in nanoseconds.
    pub stream: i64,
    /// The last entry that the projector has applied.
    pub through: u64,
    /// The last entry that had a delta, be it in this frame or an earlier one.
    pub last_delta: u64,
    /// The last entry that the log is known to have.
    pub end: u64,
    /// The log's time when the frame was sent, in nanoseconds.
    pub now: i64,
    /// For how long the projector has known of entries that it has not applied, in milliseconds.
    pub behind_millis: u32,
    /// People with a token, used or not.
    pub inside: u32,
    /// Bytes of the stream, in thousandths of its limit.
    pub full_milli: u16,
    /// What the line's movement lets expect, once a second: as long for one who waits as for a million.
    pub outlook: Option<Outlook>,
    /// Why the projector goes no further, if it does not: then there is nothing else to be taken.
    pub halted: Option<Halted>,
    /// What moved, in log order.
    pub deltas: Vec<Delta>,
}

/// A projector that has stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halted {
    /// The last entry that it applied.
    pub after: u64,
    /// Why it goes no further, in words for an operator.
    pub why: String,
    /// Whether the log that it read is there no more: nobody may be put into what is there instead.
    pub is_log_gone: bool,
}

/// What one entry of the log moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// The entry.
    pub seq: u64,
    /// The entry of the delta before this one: what a node must have applied to apply this.
    pub prev: u64,
    /// New places.
    pub joined: Option<Joined>,
    /// Places that are on a socket of this node now, and not on the one they were on before.
    pub came: Option<Came>,
    /// Grants.
    pub admitted: Vec<Grant>,
    /// Tickets whose visitor never saw their turn and waits again, ascending, as gaps.
    pub missed: Vec<u32>,
    /// Tickets whose token was used, ascending, as gaps.
    pub entered: Vec<u32>,
    /// Tickets whose place ended, by how.
    pub ended: Vec<Ended>,
    /// Grants whose pass is refused from now on.
    pub revoked: Vec<Revoked>,
    /// Nodes that were declared lost.
    pub lost: Vec<[u8; 16]>,
    /// The configuration, when it changed.
    pub config: Option<Config>,
}

/// New places of one entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// The first ticket; the others follow it.
    pub first: u32,
    /// How many.
    pub accepted: u32,
    /// Which facts of the entry gave no place, ascending.
    pub ignored: Vec<u32>,
}

/// Places that came to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Came {
    /// The node.
    pub node: [u8; 16],
    /// The tickets, in the order of the entry, and the node's number for each one's socket.
    pub places: Vec<(u32, u64)>,
}

/// One grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Whose.
    pub ticket: u32,
    /// Its name.
    pub jti: [u8; 16],
}

/// A pass that is refused before its time is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// The grant.
    pub jti: [u8; 16],
    /// The pass' own end, seconds since 1970.
    pub until: i64,
}

/// Places that ended in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The standing, as in the digest.
    pub standing: u8,
    /// The tickets, ascending, as gaps.
    pub tickets: Vec<u32>,
}

/// What an operator set, the keys, and the queue's secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The log's level.
    pub level: u16,
    /// The policy as JSON, as the log has it.
    pub policy: String,
    /// Whether nobody's presence is written down.
    pub is_presence_off: bool,
    /// The state, as in the digest.
    pub state: u8,
    /// What visitors are told about it.
    pub reason: Option<String>,
    /// Key ids and public keys.
    pub keys: Vec<(String, [u8; 32])>,
    /// The queue's secret, wrapped: a node may not ask the log for it.
    pub secret: Option<String>,
}

/// Everything that a node has to know of a queue, at one sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`FEED_VERSION`].
    pub version: u16,
    /// The stream's identity.
    pub stream: i64,
    /// The last entry applied.
    pub through: u64,
    /// The last entry that had a delta.
    pub last_delta: u64,
    /// How many tickets were given.
    pub tickets: u32,
    /// Words of zeros left out in front of `words`.
    pub skipped: u32,
    /// Who waits: a bitmap, 64 tickets a word, lowest first.
    pub words: Vec<u64>,
    /// Grants not used yet.
    pub unused: Vec<Grant>,
    /// Grants whose pass is refused though its time is not over.
    pub revoked: Vec<Revoked>,
    /// The configuration.
    pub config: Config,
    /// As in a frame.
    pub now: i64,
    /// As in a frame.
    pub behind_millis: u32,
    /// As in a frame.
    pub inside: u32,
    /// As in a frame.
    pub full_milli: u16,
    /// As in a frame.
    pub outlook: Outlook,
}

/// [`estimate::Outlook`], whose fields these are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outlook {
    /// People a minute while there is room, in thousandths.
    pub rate_milli: u64,
    /// How many until the ceiling binds.
    pub room: Option<u32>,
    /// People a minute behind that, in thousandths.
    pub full_milli: u64,
    /// Of a million, how many stop to count in a second.
    pub leaving_ppm: u32,
    /// Departures that were seen.
    pub departures: u32,
    /// Of a million, how many stop to count or count again in a second.
    pub moving_ppm: u32,
    /// Person-seconds that were seen.
    pub seen: u32,
    /// Why a rise is one: 0 the line slowed, 1 the rate was lowered, 2 people returned, 3 the opening moved.
    pub cause: u8,
    /// Who does not count, up to each of [`estimate::RANKS`], as gaps.
    pub absent: [u32; estimate::RANKS.len()],
}

impl From<&estimate::Outlook> for Outlook {
    fn from(outlook: &estimate::Outlook) -> Self {
        let mut absent = outlook.absent;
        to_gaps(outlook.absent).into_iter().zip(&mut absent).for_each(|(gap, into)| *into = gap);
        Self {
            rate_milli: outlook.rate_milli,
            room: outlook.room,
            full_milli: outlook.full_milli,
            leaving_ppm: outlook.leaving_ppm,
            departures: outlook.departures,
            moving_ppm: outlook.moving_ppm,
            seen: outlook.seen,
            cause: match outlook.cause {
                Cause::LineSlowed => 0,
                Cause::RateLowered => 1,
                Cause::PeopleReturned => 2,
                Cause::OpeningMoved => 3,
            },
            absent,
        }
    }
}

impl From<&Outlook> for estimate::Outlook {
    fn from(outlook: &Outlook) -> Self {
        let mut absent = outlook.absent;
        from_gaps(&outlook.absent).zip(&mut absent).for_each(|(number, into)| *into = number);
        Self {
            rate_milli: outlook.rate_milli,
            room: outlook.room,
            full_milli: outlook.full_milli,
            leaving_ppm: outlook.leaving_ppm,
            departures: outlook.departures,
            moving_ppm: outlook.moving_ppm,
            seen: outlook.seen,
            cause: match outlook.cause {
                1 => Cause::RateLowered,
                2 => Cause::PeopleReturned,
                3 => Cause::OpeningMoved,
                _ => Cause::LineSlowed,
            },
            absent,
        }
    }
}

/// Bytes of a snapshot in one message: well below the server's limit of 1 MiB.
pub const PART_BYTES_MAX: usize = 512 * 1024;

/// A part of an encoded snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotPart {
    /// Which snapshot.
    pub id: u64,
    /// Its bytes in all.
    pub total: u64,
    /// Those from the offset that was asked for.
    pub bytes: Vec<u8>,
}

/// Why bytes are no frame or snapshot.
#[derive(Debug, thiserror::Error)]
#[error("not a feed message of this version: {0}")]
pub struct NotFeed(String);

/// Ascending numbers as the first and then the gaps: small numbers, so few bytes.
pub fn to_gaps(ascending: impl IntoIterator<Item = u32>) -> Vec<u32> {
    let mut before = 0;
    let gap = |number: u32| number.wrapping_sub(std::mem::replace(&mut before, number));
    ascending.into_iter().map(gap).collect()
}

/// The numbers that [`to_gaps`] was given.
pub fn from_gaps(gaps: &[u32]) -> impl Iterator<Item = u32> + '_ {
    gaps.iter().scan(0u32, |before, gap| {
        *before = before.wrapping_add(*gap);
        Some(*before)
    })
}

/// Writes a frame, a snapshot, or another type of a moment's use.
pub fn write<T: Serialize>(message: &T) -> Vec<u8> {
    // Plain data into memory: writing it can't fail.
    bincode::serde::encode_to_vec(message, compact()).unwrap_or_default()
}

/// Reads a frame; of another version it is an error.
pub fn read_frame(bytes: &[u8]) -> Result<Frame, NotFeed> {
    let frame: Frame = read(bytes)?;
    version(frame.version)?;
    Ok(frame)
}

/// Reads a snapshot; of another version it is an error.
pub fn read_snapshot(bytes: &[u8]) -> Result<Snapshot, NotFeed> {
    let snapshot: Snapshot = read(bytes)?;
    version(snapshot.version)?;
    Ok(snapshot)
}

/// Reads what [`write()`] wrote, to the last byte.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, NotFeed> {
    let read = bincode::serde::decode_from_slice(bytes, compact());
    let (message, used) = read.map_err(|error| NotFeed(error.to_string()))?;
    if used == bytes.len() { Ok(message) } else { Err(NotFeed("bytes are left over".to_owned())) }
}

fn version(version: u16) -> Result<(), NotFeed> {
    if version == FEED_VERSION { Ok(()) } else { Err(NotFeed(format!("version {version}"))) }
}

/// Numbers in as few bytes as they need. A claimed length allocates nothing before its bytes came,
/// and nothing above 64 MiB is read at all.
fn compact() -> Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<READ_BYTES_MAX>,
> {
    bincode::config::standard().with_limit::<READ_BYTES_MAX>()
}

const READ_BYTES_MAX: usize = 64 * 1024 * 1024;
