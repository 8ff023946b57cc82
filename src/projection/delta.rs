//! What the fold says, in the words of the feed.

use crate::queue::digest::{standing_code, state_code};
use crate::queue::event::{At, Presence, Ticket};
use crate::queue::line::{Change, End, Line, Standing};
use crate::wire;
use crate::wire::feed::{Came, Config, Delta, Ended, Grant, Joined, Revoked, Snapshot, to_gaps};
use crate::wire::token::SKEW_SECONDS;

/// What an entry moved, for nodes; `None` when it moved nothing that they need to know.
pub(super) fn delta(line: &Line, change: &Change, prev: u64) -> Option<Delta> {
    let joined = &change.joined;
    let any_join = joined.accepted > 0 || !joined.ignored.is_empty();
    let delta = Delta {
        seq: line.seq().0,
        prev,
        joined: any_join.then(|| Joined {
            first: joined.first.0,
            accepted: joined.accepted,
            ignored: joined.ignored.clone(),
        }),
        came: change.came.first().map(|came| Came {
            node: came.socket.node.0,
            places: change.came.iter().map(|came| (came.ticket.0, came.socket.number)).collect(),
        }),
        admitted: change.admitted.iter().filter_map(|ticket| grant(line, *ticket)).collect(),
        missed: to_gaps(sorted(change.missed.iter().copied())),
        entered: to_gaps(sorted(change.entered.iter().copied())),
        ended: ended(change),
        revoked: revoked(line, change),
        lost: change.lost.iter().map(|node| node.0).collect(),
        config: change.configured.then(|| config(line)),
    };
    let empty = Delta { seq: delta.seq, prev, ..Delta::default() };
    (delta != empty).then_some(delta)
}

/// Everything that nodes need to know, now. The numbers of a frame are filled in by the caller.
pub(super) fn snapshot(line: &Line) -> Snapshot {
    let words = line.waiting().words();
    let skipped = words.iter().take_while(|word| **word == 0).count();
    let end = words.iter().rposition(|word| *word != 0).map_or(skipped, |last| last + 1);
    Snapshot {
        version: wire::feed::FEED_VERSION,
        through: line.seq().0,
        tickets: u32::try_from(line.places().len()).unwrap_or(u32::MAX),
        skipped: u32::try_from(skipped).unwrap_or(u32::MAX),
        words: words.get(skipped..end).unwrap_or_default().to_vec(),
        unused: line.unused().iter().filter_map(|(_, ticket)| grant(line, *ticket)).collect(),
        revoked: refused_passes(line),
        config: config(line),
        ..Snapshot::default()
    }
}

fn grant(line: &Line, ticket: Ticket) -> Option<Grant> {
    Some(Grant { ticket: ticket.0, jti: line.grant(ticket)?.jti.0 })
}

fn config(line: &Line) -> Config {
    Config {
        level: line.level().0,
        policy: wire::policy::write_stored(line.policy()).to_string(),
        is_presence_off: line.presence().state == Presence::Off,
        state: state_code(line.state()),
        reason: line.reason().map(str::to_owned),
        keys: line.keys().iter().map(|key| (key.kid.clone(), key.x)).collect(),
        // It is not in the log; the caller has it of the stream.
        secret: None,
    }
}

fn sorted(tickets: impl Iterator<Item = Ticket>) -> Vec<u32> {
    let mut tickets: Vec<u32> = tickets.map(|ticket| ticket.0).collect();
    tickets.sort_unstable();
    tickets
}

fn ended(change: &Change) -> Vec<Ended> {
    let mut ends: Vec<End> = change.ended.iter().map(|(_, end)| *end).collect();
    ends.sort_unstable();
    ends.dedup();
    let of = |end: End| {
        let tickets = change.ended.iter().filter(move |(_, other)| *other == end);
        sorted(tickets.map(|(ticket, _)| *ticket))
    };
    let group = |end: End| Ended {
        standing: standing_code(Standing::Ended(end)),
        tickets: to_gaps(of(end)),
    };
    ends.into_iter().map(group).collect()
}

/// The passes of those who are done before their pass is over.
fn revoked(line: &Line, change: &Change) -> Vec<Revoked> {
    change.ended.iter().filter_map(|(ticket, end)| refused_pass(line, *ticket, *end)).collect()
}

fn refused_passes(line: &Line) -> Vec<Revoked> {
    let places = (0..).map(Ticket).zip(line.places());
    let ended = places.filter_map(|(ticket, place)| match place.standing {
        Standing::Ended(end) => Some((ticket, end)),
        Standing::Waiting | Standing::Granted | Standing::Inside => None,
    });
    ended.filter_map(|(ticket, end)| refused_pass(line, ticket, end)).collect()
}

fn refused_pass(line: &Line, ticket: Ticket, end: End) -> Option<Revoked> {
    let grant = line.grant(ticket)?;
    let redemption = grant.redeemed.as_ref()?;
    // For as long as anybody may still take it for good.
    let over: At = redemption.at.plus_seconds(redemption.seconds).plus_seconds(SKEW_SECONDS);
    let early = matches!(end, End::Released | End::Removed | End::Left);
    (early && over > line.at()).then(|| Revoked { jti: grant.jti.0, until: over.seconds() })
}
