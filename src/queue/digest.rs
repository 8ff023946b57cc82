//! Two fingerprints. The chain is of the log's bytes: equal chains, equal history. The digest is of
//! the line that the history folds to: equal digests, equal state.

use sha2::{Digest as _, Sha256};

use crate::queue::event::{At, Presence, Seq, State, Ticket};
use crate::queue::line::{End, Grant, Line, Place, Standing};
use crate::queue::policy::{Absent, Policy};

/// SHA-256 over everything that the log held up to a sequence, entry by entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chain(pub [u8; 32]);

impl Chain {
    /// The chain after one more entry: SHA-256 of the chain before it, the sequence (u64, big
    /// endian), the store time (i64 nanoseconds, big endian), the subject, a zero byte, the payload.
    #[must_use]
    pub fn then(self, seq: Seq, stored: At, subject: &str, payload: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(seq.0.to_be_bytes());
        hash.update(stored.0.to_be_bytes());
        hash.update(subject.as_bytes());
        hash.update([0]);
        hash.update(payload);
        Self(hash.finalize().into())
    }
}

/// SHA-256 of the state, whole: a label with the log's level, the sequence, then the state in
/// the encoding that this file is and that the level has for good. Numbers are big endian; texts and lists have their length (u32)
/// in front; what may be missing is a byte 0, or 1 and the value. What follows from these fields
/// (the index, the bitmaps, the queues of deadlines) is not hashed again.
pub fn digest(line: &Line) -> [u8; 32] {
    let mut out = Canonical(Sha256::new());
    let head = line.head();
    out.text(&format!("anteroom line {}", head.level));
    out.u64(head.seq.0);
    out.at(head.time.now);
    out.at(At(head.time.shift));
    out.at(head.time.decided);
    out.u64(head.last_decision.0);
    out.policy(&head.policy);
    out.maybe(head.follows, |out, follows| {
        out.u32(follows.per_minute);
        out.at(follows.at);
    });
    out.list(&head.longer_graces, |out, (until, seconds)| {
        out.at(*until);
        out.u32(*seconds);
    });
    out.u8(presence_code(head.presence.state));
    out.at(head.presence.since);
    out.u8(state_code(head.state));
    out.maybe(head.reason.as_deref(), Canonical::text);
    out.maybe(head.secret, |out, secret| out.raw(&secret.0));
    out.list(&head.keys, |out, key| {
        out.text(&key.kid);
        out.raw(&key.x);
    });
    out.list(&head.nodes, |out, node| out.raw(&node.0));
    out.u64(head.outages.unsigned_abs());
    out.at(head.next_due);
    out.u64(head.tickets);
    for (ticket, place) in (0..).map(Ticket).zip(line.places()) {
        out.place(place);
        out.maybe(line.grant(ticket), Canonical::grant);
    }
    out.0.finalize().into()
}

/// The fingerprint as it is written: 64 lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Canonical(Sha256);

impl Canonical {
    fn raw(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn u8(&mut self, value: u8) {
        self.raw(&[value]);
    }

    fn u32(&mut self, value: u32) {
        self.raw(&value.to_be_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.raw(&value.to_be_bytes());
    }

    fn at(&mut self, value: At) {
        self.raw(&value.0.to_be_bytes());
    }

    #[expect(clippy::cast_possible_truncation, reason = "texts and lists are bounded when read")]
    fn len(&mut self, value: usize) {
        self.u32(value as u32);
    }

    fn text(&mut self, value: &str) {
        self.len(value.len());
        self.raw(value.as_bytes());
    }

    fn maybe<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.u8(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn u16(&mut self, value: u16) {
        self.raw(&value.to_be_bytes());
    }

    fn list<T>(&mut self, values: &[T], write: impl Fn(&mut Self, &T)) {
        self.len(values.len());
        for value in values {
            write(self, value);
        }
    }

    fn policy(&mut self, policy: &Policy) {
        self.maybe(policy.opens_at, Self::at);
        self.maybe(policy.closes_at, Self::at);
        self.u32(policy.rate_per_minute);
        self.maybe(policy.max_inside, Self::u32);
        self.u32(policy.token_seconds);
        self.u32(policy.session_seconds);
        self.u32(policy.reconnect_seconds);
        self.u8(absent_code(policy.absent));
        self.u8(policy.missed_turns);
        self.text(&policy.door);
    }

    fn place(&mut self, place: &Place) {
        self.raw(&place.visitor.0);
        self.u64(place.joined.0);
        self.u64(place.came.0);
        self.u32(place.node.0);
        self.u64(place.socket);
        self.u32(place.opened);
        self.u32(place.hand);
        self.u16(place.returns);
        self.u8(place.misses());
        self.u8(place.lane());
        self.maybe(place.absent(), Self::at);
        self.u8(standing_code(place.standing));
    }

    fn grant(&mut self, grant: &Grant) {
        self.raw(&grant.jti.0);
        self.text(&grant.kid);
        self.u32(grant.seconds);
        self.u64(grant.seq.0);
        self.at(grant.at);
        self.at(grant.lapses);
        self.maybe(grant.redeemed.as_deref(), |out, redemption| {
            out.u64(redemption.seq.0);
            out.at(redemption.at);
            out.text(&redemption.kid);
            out.u32(redemption.seconds);
            out.maybe(redemption.key, |out, key| out.raw(&key));
        });
    }
}

/// The number that stands for what becomes of the absent, for good.
fn absent_code(absent: Absent) -> u8 {
    match absent {
        Absent::Hold => 0,
        Absent::Admit => 1,
    }
}

/// The number that stands for whether it is written down who comes and goes, for good.
pub fn presence_code(presence: Presence) -> u8 {
    match presence {
        Presence::On => 0,
        Presence::Off => 1,
    }
}

/// Whether it is written down who comes and goes, by its number.
pub fn presence_of_code(code: u8) -> Option<Presence> {
    [Presence::On, Presence::Off].into_iter().find(|presence| presence_code(*presence) == code)
}

/// The number that stands for a state, for good.
pub fn state_code(state: State) -> u8 {
    match state {
        State::Scheduled => 0,
        State::Open => 1,
        State::Paused => 2,
        State::Closed => 3,
        State::Deleted => 4,
    }
}

/// The state that a number stands for.
pub fn state_of_code(code: u8) -> Option<State> {
    let states = [State::Scheduled, State::Open, State::Paused, State::Closed, State::Deleted];
    states.into_iter().find(|state| state_code(*state) == code)
}

/// The standing that a number stands for.
pub fn standing_of_code(code: u8) -> Option<Standing> {
    let ends =
        [End::Left, End::Expired, End::Removed, End::Lapsed, End::Released, End::SessionOver];
    let standings = [Standing::Waiting, Standing::Granted, Standing::Inside].into_iter();
    let mut standings = standings.chain(ends.map(Standing::Ended));
    standings.find(|standing| standing_code(*standing) == code)
}

/// The number that stands for a standing, for good.
pub fn standing_code(standing: Standing) -> u8 {
    match standing {
        Standing::Waiting => 0,
        Standing::Granted => 1,
        Standing::Inside => 2,
        Standing::Ended(End::Left) => 3,
        Standing::Ended(End::Expired) => 4,
        Standing::Ended(End::Removed) => 5,
        Standing::Ended(End::Lapsed) => 6,
        Standing::Ended(End::Released) => 7,
        Standing::Ended(End::SessionOver) => 8,
    }
}
