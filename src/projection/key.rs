//! The database of one queue, on one screen. It is a cache: whatever is odd about it, the log has
//! everything.
//!
//! | key | value |
//! |---|---|
//! | `c` | the checkpoint: stream identity, level, chain, the line without its places, and which pages belong to it |
//! | `p` + page number (u32) + sequence (u64), big endian | the places of [`PLACES_PER_PAGE`] tickets, with their grants, as they were after that entry |
//!
//! A value is 8 bytes of checksum and then bincode. A page is never written over: the new one stands
//! beside the old one until the checkpoint that names the new one is on disk. So a checkpoint of a
//! million places can be written in small batches (sled keeps a whole batch in memory, many times
//! over), and ends with one small write that makes all of it count, or none.

use sha2::{Digest as _, Sha256};

/// Tickets in one page. A page is some 10 KiB: sled then writes few, larger values, and a join
/// rewrites no more than that.
pub(super) const PLACES_PER_PAGE: usize = 256;

/// The key of the checkpoint.
pub(super) const CHECKPOINT: &[u8] = b"c";

/// What all keys of pages begin with.
pub(super) const PAGES: &[u8] = b"p";

const CHECKSUM_BYTES: usize = 8;

/// The first bytes of the SHA-256 of a value.
pub(super) type Checksum = [u8; CHECKSUM_BYTES];

/// The key of a page as it was after an entry.
pub(super) fn page(number: u32, seq: u64) -> [u8; 13] {
    let mut key = [b'p'; 13];
    let (to_number, to_seq) = key[1..].split_at_mut(4);
    to_number.copy_from_slice(&number.to_be_bytes());
    to_seq.copy_from_slice(&seq.to_be_bytes());
    key
}

/// Puts the checksum in front of a value.
pub(super) fn seal(value: &[u8]) -> Vec<u8> {
    [checksum(value).as_slice(), value].concat()
}

/// The checksum in front of a value.
pub(super) fn sum_of(sealed: &[u8]) -> Option<Checksum> {
    sealed.first_chunk().copied()
}

/// The value behind its checksum; `None` when it is not what was written.
pub(super) fn open(sealed: &[u8]) -> Option<&[u8]> {
    let (sum, value) = sealed.split_at_checked(CHECKSUM_BYTES)?;
    (sum == checksum(value)).then_some(value)
}

fn checksum(value: &[u8]) -> Checksum {
    let mut sum = [0; CHECKSUM_BYTES];
    sum.iter_mut().zip(Sha256::digest(value)).for_each(|(to, from)| *to = from);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_sort_by_their_number_and_a_flipped_bit_is_seen() {
        assert!(page(255, 9) < page(256, 1) && CHECKPOINT < PAGES);
        let mut sealed = seal(b"value");
        assert_eq!(open(&sealed), Some(b"value".as_slice()));
        for bit in 0..sealed.len() * 8 {
            sealed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&sealed), None);
            sealed[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(open(b"short"), None);
    }
}
