//! From a visitor to their ticket.
//!
//! Nobody is ever taken out, and the places have every visitor's name already, so this is a table of
//! tickets and half hashes: 8 bytes a slot, and most look-ups touch one cache line of it.

#![expect(clippy::indexing_slicing, reason = "every slot is masked or counted by the table's size")]

use std::hint::black_box;

use crate::queue::event::{Ticket, VisitorId};
use crate::queue::place::Place;

/// The tickets of all visitors: open addressing with linear probing, at most 3/4 full.
#[derive(Debug, Default)]
pub(super) struct VisitorIndex {
    /// A power of two of them, or none at all.
    slots: Vec<Slot>,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// The upper half of the visitor's hash, whose first bits are the slot to begin at: so the table
    /// grows without a look at the places.
    hash: u32,
    ticket: u32,
}

const FREE: Slot = Slot { hash: 0, ticket: u32::MAX };
const SLOTS_MIN: usize = 64;

impl VisitorIndex {
    /// The ticket of this visitor.
    pub(super) fn find(&self, visitor: VisitorId, places: &[Place]) -> Option<Ticket> {
        if self.slots.is_empty() {
            return None;
        }
        let hash = hash(visitor);
        let mut at = self.home(hash);
        loop {
            let slot = self.slots[at];
            if slot.ticket == FREE.ticket {
                return None;
            }
            if slot.hash == hash && places[slot.ticket as usize].visitor == visitor {
                return Some(Ticket(slot.ticket));
            }
            at = self.after(at);
        }
    }

    /// Adds a visitor who is not in it.
    pub(super) fn insert(&mut self, visitor: VisitorId, ticket: Ticket) {
        self.reserve(1);
        self.put(Slot { hash: hash(visitor), ticket: ticket.0 });
        self.len += 1;
    }

    /// Room for so many more.
    pub(super) fn reserve(&mut self, more: usize) {
        let needed = ((self.len + more) * 4 / 3 + 1).next_power_of_two().max(SLOTS_MIN);
        if needed > self.slots.len() {
            let before = std::mem::replace(&mut self.slots, vec![FREE; needed]);
            before.into_iter().filter(|slot| slot.ticket != FREE.ticket).for_each(|s| self.put(s));
        }
    }

    /// Looks all of these up, for nothing but their being at hand afterwards. With no work in between,
    /// the processor waits for the memory of many at once and not for each in turn.
    pub(super) fn warm(&self, visitors: impl Iterator<Item = VisitorId>, places: &[Place]) {
        for visitor in visitors {
            black_box(self.find(visitor, places));
        }
    }

    fn put(&mut self, slot: Slot) {
        let mut at = self.home(slot.hash);
        while self.slots[at].ticket != FREE.ticket {
            at = self.after(at);
        }
        self.slots[at] = slot;
    }

    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.slots.len() as u64) >> 32) as usize
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }
}

/// Mixes the bytes of a visitor. Visitor ids are outputs of a keyed hash or random, so nobody who
/// lacks the key can choose ids that collide. The odd constant is 2^64 / golden ratio (Knuth, TAOCP
/// 3, 6.4).
fn hash(visitor: VisitorId) -> u32 {
    let mut hash: u64 = 0;
    for half in visitor.0.chunks_exact(8) {
        let mut word = [0; 8];
        word.copy_from_slice(half);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        hash ^= hash >> 32;
    }
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::event::{Join, Seq};
    use crate::queue::presence::NodeIndex;

    #[test]
    fn everybody_is_found_however_often_the_table_grows() {
        let mut index = VisitorIndex::default();
        let mut places = Vec::new();
        let visitor = |number: u32| VisitorId(u128::from(number).to_be_bytes());
        for number in 0..10_000 {
            assert_eq!(index.find(visitor(number), &places), None);
            index.insert(visitor(number), Ticket(number));
            let join = Join::plain(visitor(number), 0);
            places.push(Place::new(&join, Seq(1), NodeIndex(0)));
        }
        for number in 0..10_000 {
            assert_eq!(index.find(visitor(number), &places), Some(Ticket(number)));
        }
    }
}
