//! The digest of a reading, encoded from `schemas/README.md` and not by the code of the live fold:
//! both must come to the same 32 bytes.

use sha2::{Digest as _, Sha256};

use crate::audit::reading::{Ending, Grant, Person, Reading, Standing};
use crate::queue::event::{Presence, State};
use crate::queue::policy::Absent;

impl Reading {
    /// SHA-256 of the label, the sequence, the times and the state, in ticket order.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut bytes = Vec::new();
        text(&mut bytes, &format!("anteroom line {}", self.level));
        bytes.extend(self.seq.to_be_bytes());
        for time in [self.times.now, self.times.shift, self.times.decided] {
            bytes.extend(time.to_be_bytes());
        }
        bytes.extend(self.last_decision.to_be_bytes());
        self.policy(&mut bytes);
        self.presence_and_state(&mut bytes);
        bytes.extend(self.times.outages.to_be_bytes());
        bytes.extend(self.next_due.to_be_bytes());
        bytes.extend((self.people.len() as u64).to_be_bytes());
        let mut hash = Sha256::new();
        for one in &self.people {
            hash.update(&bytes);
            bytes.clear();
            person(&mut bytes, one);
        }
        hash.update(&bytes);
        hash.finalize().into()
    }

    fn policy(&self, bytes: &mut Vec<u8>) {
        let policy = &self.policy;
        for instant in [policy.opens_at, policy.closes_at] {
            maybe(bytes, instant.as_ref(), |bytes, instant| bytes.extend(instant.0.to_be_bytes()));
        }
        bytes.extend(policy.rate_per_minute.to_be_bytes());
        maybe(bytes, policy.max_inside.as_ref(), |bytes, max| bytes.extend(max.to_be_bytes()));
        for seconds in [policy.token_seconds, policy.session_seconds, policy.reconnect_seconds] {
            bytes.extend(seconds.to_be_bytes());
        }
        bytes.push(match policy.absent {
            Absent::Hold => 0,
            Absent::Admit => 1,
        });
        bytes.push(policy.missed_turns);
        text(bytes, &policy.door);
        maybe(bytes, self.follows.as_ref(), |bytes, (per_minute, at)| {
            bytes.extend(per_minute.to_be_bytes());
            bytes.extend(at.to_be_bytes());
        });
    }

    fn presence_and_state(&self, bytes: &mut Vec<u8>) {
        let noted = self.graces.noted(self.policy.reconnect_seconds);
        count(bytes, noted.len());
        for (until, seconds) in noted {
            bytes.extend(until.to_be_bytes());
            bytes.extend(seconds.to_be_bytes());
        }
        let (presence, since) = self.presence;
        bytes.push(match presence {
            Presence::On => 0,
            Presence::Off => 1,
        });
        bytes.extend(since.to_be_bytes());
        bytes.push(match self.state {
            State::Scheduled => 0,
            State::Open => 1,
            State::Paused => 2,
            State::Closed => 3,
            State::Deleted => 4,
        });
        maybe(bytes, self.reason.as_ref(), |bytes, reason| text(bytes, reason));
        maybe(bytes, self.secret.as_ref(), |bytes, secret| bytes.extend(secret.0));
        count(bytes, self.keys.len());
        for key in &self.keys {
            text(bytes, &key.kid);
            bytes.extend(key.x);
        }
        count(bytes, self.nodes.len());
        self.nodes.iter().for_each(|node| bytes.extend(node.0));
    }
}

fn person(bytes: &mut Vec<u8>, person: &Person) {
    bytes.extend(person.visitor.0);
    bytes.extend(person.joined.to_be_bytes());
    bytes.extend(person.came.to_be_bytes());
    bytes.extend(person.socket.0.to_be_bytes());
    bytes.extend(person.socket.1.to_be_bytes());
    bytes.extend(person.opened.to_be_bytes());
    bytes.extend(person.hand.to_be_bytes());
    bytes.extend(person.returns.to_be_bytes());
    bytes.push(person.misses);
    bytes.push(person.lane);
    maybe(bytes, person.absent.as_ref(), |bytes, since| bytes.extend(since.to_be_bytes()));
    bytes.push(match person.standing {
        Standing::Waiting => 0,
        Standing::Granted => 1,
        Standing::Inside => 2,
        Standing::Ended(Ending::Left) => 3,
        Standing::Ended(Ending::Expired) => 4,
        Standing::Ended(Ending::Removed) => 5,
        Standing::Ended(Ending::Lapsed) => 6,
        Standing::Ended(Ending::Released) => 7,
        Standing::Ended(Ending::SessionOver) => 8,
    });
    maybe(bytes, person.grant.as_ref(), grant);
}

fn grant(bytes: &mut Vec<u8>, grant: &Grant) {
    bytes.extend(grant.jti.0);
    text(bytes, &grant.kid);
    bytes.extend(grant.seconds.to_be_bytes());
    bytes.extend(grant.seq.to_be_bytes());
    bytes.extend(grant.at.to_be_bytes());
    bytes.extend(grant.lapses.to_be_bytes());
    maybe(bytes, grant.used.as_ref(), |bytes, used| {
        bytes.extend(used.seq.to_be_bytes());
        bytes.extend(used.at.to_be_bytes());
        text(bytes, &used.kid);
        bytes.extend(used.seconds.to_be_bytes());
        maybe(bytes, used.key.as_ref(), |bytes, key| bytes.extend(key));
    });
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    count(bytes, text.len());
    bytes.extend(text.as_bytes());
}

#[expect(clippy::cast_possible_truncation, reason = "texts and lists are bounded when read")]
fn count(bytes: &mut Vec<u8>, count: usize) {
    bytes.extend((count as u32).to_be_bytes());
}

fn maybe<T>(bytes: &mut Vec<u8>, value: Option<T>, write: impl FnOnce(&mut Vec<u8>, T)) {
    bytes.push(u8::from(value.is_some()));
    if let Some(value) = value {
        write(bytes, value);
    }
}
