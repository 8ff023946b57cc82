//! From a visitor to their ticket.

use std::hash::{BuildHasherDefault, Hasher};

use crate::queue::event::{Ticket, VisitorId};

/// The tickets of all visitors.
#[expect(clippy::disallowed_types, reason = "looked up only, never iterated: no order to leak")]
pub(super) type VisitorIndex =
    std::collections::HashMap<VisitorId, Ticket, BuildHasherDefault<VisitorHasher>>;

/// Hashes a visitor by folding its bytes. Visitor ids are outputs of a keyed hash or random, so
/// nobody who lacks the key can choose ids that collide.
#[derive(Default)]
pub(super) struct VisitorHasher(u64);

impl Hasher for VisitorHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            // The odd constant is 2^64 / golden ratio (Knuth, TAOCP 3, 6.4).
            let mixed = (self.0.rotate_left(23) ^ u64::from_le_bytes(word))
                .wrapping_mul(0x9E37_79B9_7F4A_7C15);
            self.0 = mixed ^ (mixed >> 32);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
