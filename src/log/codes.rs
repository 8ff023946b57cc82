//! What the server's error codes mean to an append, a decision, a question about a stream: one table.
//!
//! The codes are those of nats-server 2.14 to 2.15 (its `server/errors.json`), and each meaning is read off
//! the places there that answer with it.

use serde::Deserialize;

/// An error as JetStream's API writes it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ApiError {
    code: u16,
    #[serde(default)]
    err_code: u32,
    #[serde(default)]
    pub(super) description: String,
}

/// What an error means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Not stored: another entry was stored first.
    OtherFirst,
    /// Unknown: the same message, or another that the fence would let in, is being stored. It may come
    /// to nothing with its leader.
    UnderWay,
    /// Not stored: there is no room.
    Full,
    /// Not stored, and it passes: no leader, no quorum, too much at once, starting.
    Passes,
    /// There is no such stream.
    Missing,
    /// There is no message from there on.
    Nothing,
    /// There is a stream of this name already.
    Exists,
    /// Not stored, and it would not be next time.
    Refused,
}

/// Every code that something of ours can be answered with.
const MEANINGS: [(u32, Meaning); 37] = {
    use Meaning::{Exists, Full, Missing, Nothing, OtherFirst, Passes, Refused, UnderWay};
    [
        // Appends.
        // The last sequence on the fence's subjects is another.
        (10_071, OtherFirst),
        // Something on the fence's subjects is proposed and not applied yet.
        (10_164, UnderWay),
        // A message of this id is proposed and not applied yet.
        (10_158, UnderWay),
        // The fence can't be looked at yet.
        (10_163, Passes),
        // The stream's limit in bytes. With several replicas it is looked at before it is proposed.
        (10_077, Full),
        // Too large, or a header that is.
        (10_054, Refused),
        (10_097, Refused),
        // Not the stream that was meant; sealed; headers that the stream does not take.
        (10_060, Refused),
        (10_109, Refused),
        (10_193, Refused),
        // Appends and streams: room on the server or in the account.
        (10_002, Full),
        (10_023, Full),
        (10_028, Full),
        (10_047, Full),
        // No leader of the cluster or the stream, not assigned, not its leader, not ready.
        (10_004, Passes),
        (10_006, Passes),
        (10_007, Passes),
        (10_008, Passes),
        (10_009, Passes),
        (10_075, Passes),
        (10_076, Passes),
        (10_118, Passes),
        (10_124, Passes),
        (10_167, Passes),
        (10_194, Passes),
        (10_202, Passes),
        // Streams.
        (10_058, Exists),
        (10_059, Missing),
        (10_037, Nothing),
        // Peers, replicas, limits and accounts that are set up otherwise.
        (10_005, Refused),
        (10_027, Refused),
        (10_035, Refused),
        (10_039, Refused),
        (10_052, Refused),
        (10_065, Refused),
        (10_074, Refused),
        (10_122, Refused),
    ]
};

/// HTTP-like classes of codes that are not in the table.
const UNAVAILABLE: u16 = 503;
const TOO_MANY: u16 = 429;
const INTERNAL: u16 = 500;

impl ApiError {
    pub(super) fn meaning(&self) -> Meaning {
        let known = MEANINGS.iter().find(|(code, _)| *code == self.err_code);
        known.map_or_else(
            || match self.code {
                UNAVAILABLE | TOO_MANY => Meaning::Passes,
                // The server does not know itself what became of it.
                INTERNAL => Meaning::UnderWay,
                _ => Meaning::Refused,
            },
            |(_, meaning)| *meaning,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(code: u16, err_code: u32) -> Meaning {
        ApiError { code, err_code, description: String::new() }.meaning()
    }

    #[test]
    fn each_code_has_one_meaning() {
        for (index, (code, meant)) in MEANINGS.iter().enumerate() {
            assert!(MEANINGS[..index].iter().all(|(other, _)| other != code), "{code} twice");
            assert_eq!(meaning(400, *code), *meant);
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_judged_by_its_class() {
        assert_eq!(meaning(503, 19_999), Meaning::Passes);
        assert_eq!(meaning(429, 10_210), Meaning::Passes);
        // An append of which the server does not say what became of it may be stored.
        assert_eq!(meaning(500, 10_051), Meaning::UnderWay);
        assert_eq!(meaning(400, 10_003), Meaning::Refused);
    }
}
