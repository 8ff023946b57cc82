//! The sockets of one pusher: numbered slots, used again when a socket has ended. A key carries the
//! slot's generation, so that news of a socket that has ended never reaches the one after it.

use std::num::NonZeroU32;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use crate::http::door::Place;
use crate::node::allowance::Allowance;
use crate::node::hall::cadence::Numbers;
use crate::node::hall::room::Room;
use crate::node::hall::sitting::Sitting;
use crate::queue::estimate::Turn;
use crate::wire::frame::Inbound;

/// Bytes that one socket may leave unsent: a token, an end, a close, and the rest of one update.
/// One that has more to read is dropped.
const UNSENT_BYTES_MAX: usize = 8 * 1024;

/// A slot of a pusher, of one socket only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) slot: u32,
    generation: u32,
}

/// What a pusher has of one socket. Instants are milliseconds since the pusher began.
///
/// In this order, what a walk looks at is one cache line: it looks at everyone, and tells few.
#[repr(C, align(64))]
pub(super) struct Slot {
    pub(super) socket: OwnedFd,
    generation: u32,
    pub(super) row: u32,
    pub(super) sitting: Sitting,
    /// What was last said; when another place than before was, and when anything new was.
    pub(super) told: Option<Numbers>,
    pub(super) placed_at: u32,
    pub(super) told_at: u32,
    /// When there was last a sign of life.
    pub(super) heard_at: u32,
    /// When it was last asked for one.
    pub(super) pinged_at: u32,
    blocked_since: Option<NonZeroU32>,
    pub(super) stage: Stage,
    pub(super) allowance: Allowance,
    /// Of whole frames, what the socket did not take yet.
    #[expect(clippy::box_collection, reason = "nearly always none, and then a third as large")]
    unsent: Option<Box<Vec<u8>>>,
    pub(super) inbound: Option<Box<Inbound>>,
    place: Option<Place>,
}

/// How far a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Waiting, or with a token.
    Here,
    /// LEAVE was said; the log does not have it yet.
    Leaving,
    /// All is said; the other side's close is waited for.
    Closing,
}

/// The other side is not there any more, or takes too little of what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lost;

impl Slot {
    pub(super) fn new(
        socket: OwnedFd,
        row: u32,
        sitting: Sitting,
        now: u32,
        place: Option<Place>,
    ) -> Self {
        Self {
            socket,
            generation: 0,
            row,
            sitting,
            told: None,
            placed_at: now,
            told_at: now,
            heard_at: now,
            pinged_at: now,
            blocked_since: None,
            stage: Stage::Here,
            allowance: Allowance::default(),
            unsent: None,
            inbound: None,
            place,
        }
    }

    /// Notes what the visitor was told. The same once more puts nothing off.
    pub(super) fn note_told(&mut self, numbers: Option<Numbers>, now: u32) {
        if self.told == numbers {
            return;
        }
        let ahead = |numbers: Option<Numbers>| numbers.map(|numbers| numbers.point.ahead);
        if ahead(self.told) != ahead(numbers) {
            self.placed_at = now;
        }
        self.told_at = now;
        self.told = numbers;
    }

    /// The turn that the visitor was last told.
    pub(super) fn told_turn(&self) -> Option<Turn> {
        self.told.and_then(|told| told.point.turn)
    }

    /// Since when it takes nothing.
    pub(super) fn blocked_since(&self) -> Option<u32> {
        self.blocked_since.map(NonZeroU32::get)
    }

    fn block(&mut self, now: u32) {
        // The first millisecond of a pusher counts as its second.
        self.blocked_since = self.blocked_since.or_else(|| NonZeroU32::new(now.max(1)));
    }

    /// Sends what must arrive: behind whatever waits already.
    pub(super) fn send(&mut self, bytes: &[u8], now: u32) -> Result<(), Lost> {
        if let Some(unsent) = &mut self.unsent {
            unsent.extend_from_slice(bytes);
            return if unsent.len() > UNSENT_BYTES_MAX { Err(Lost) } else { Ok(()) };
        }
        let sent = self.send_now(bytes)?;
        if let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            self.unsent = Some(Box::new(rest.to_vec()));
            self.block(now);
        }
        Ok(())
    }

    /// Sends what something newer may replace; false when the socket takes nothing now.
    pub(super) fn offer(&mut self, bytes: &[u8], now: u32) -> Result<bool, Lost> {
        if self.blocked_since.is_some() {
            return Ok(false);
        }
        let sent = self.send_now(bytes)?;
        if sent == 0 {
            self.block(now);
            return Ok(false);
        }
        // What has begun must be finished.
        if let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            self.unsent = Some(Box::new(rest.to_vec()));
            self.block(now);
        }
        Ok(true)
    }

    /// Sends what waits; true when nothing is left of it.
    pub(super) fn flush(&mut self) -> Result<bool, Lost> {
        if let Some(mut unsent) = self.unsent.take() {
            let sent = self.send_now(&unsent)?;
            if sent < unsent.len() {
                unsent.drain(..sent);
                self.unsent = Some(unsent);
                return Ok(false);
            }
        }
        self.blocked_since = None;
        Ok(true)
    }

    fn send_now(&self, bytes: &[u8]) -> Result<usize, Lost> {
        match send(&self.socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) => Ok(sent),
            Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => Ok(0),
            Err(_) => Err(Lost),
        }
    }
}

/// The slots.
pub(super) struct Slots {
    slots: Room<Slot>,
    /// Of the socket that came last: no other has it until four thousand million more have come.
    generation: u32,
}

impl Slots {
    /// Room for so many sockets.
    pub(super) fn new(sockets: usize) -> Self {
        Self { slots: Room::new(sockets), generation: 0 }
    }

    /// How many are used.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Puts a socket into a free slot.
    pub(super) fn insert(&mut self, mut slot: Slot) -> Key {
        self.generation = self.generation.wrapping_add(1);
        slot.generation = self.generation;
        Key { slot: self.slots.insert(slot), generation: self.generation }
    }

    /// Takes a socket out; its slot is used again under another key.
    pub(super) fn remove(&mut self, number: u32) -> Option<Slot> {
        self.slots.remove(number)
    }

    /// The socket in a slot.
    pub(super) fn get(&mut self, number: u32) -> Option<&mut Slot> {
        self.slots.get_mut(number)
    }

    /// The socket in a slot, and its key.
    pub(super) fn entry(&mut self, number: u32) -> Option<(Key, &mut Slot)> {
        let slot = self.slots.get_mut(number)?;
        Some((Key { slot: number, generation: slot.generation }, slot))
    }

    /// The slot of a key, while its socket is in it.
    pub(super) fn find(&mut self, key: Key) -> Option<u32> {
        self.entry(key.slot).is_some_and(|(found, _)| found == key).then_some(key.slot)
    }
}

impl Key {
    /// As it is registered with epoll.
    pub(super) fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    /// The key that was registered.
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of a key")]
    pub(super) fn from_u64(key: u64) -> Self {
        Self { slot: key as u32, generation: (key >> 32) as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_small() {
        assert!(size_of::<Option<Slot>>() <= 128);
        // What a walk looks at ends here.
        assert!(std::mem::offset_of!(Slot, allowance) <= 64);
    }
}
