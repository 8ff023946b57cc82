//! The database of one queue, on one screen. It is a cache: whatever is odd about it, the log has
//! everything.
//!
//! | key | value |
//! |---|---|
//! | `c` | the checkpoint: stream identity, fold version, chain, and the line without its places |
//! | `p` + page number (u32, big endian) | the places of [`PLACES_PER_PAGE`] tickets, with their grants |
//!
//! A value is 8 bytes of checksum and then bincode.

use sha2::{Digest as _, Sha256};

/// Tickets in one page. A page is some 25 KiB: sled then writes few, larger values, and a join
/// rewrites no more than that.
pub(super) const PLACES_PER_PAGE: usize = 256;

/// The key of the checkpoint.
pub(super) const CHECKPOINT: &[u8] = b"c";

const CHECKSUM_BYTES: usize = 8;

/// The key of a page.
pub(super) fn page(number: u32) -> [u8; 5] {
    let [a, b, c, d] = number.to_be_bytes();
    [b'p', a, b, c, d]
}

/// Puts the checksum in front of a value.
pub(super) fn seal(value: &[u8]) -> Vec<u8> {
    [checksum(value).as_slice(), value].concat()
}

/// The value behind its checksum; `None` when it is not what was written.
pub(super) fn open(sealed: &[u8]) -> Option<&[u8]> {
    let (sum, value) = sealed.split_at_checked(CHECKSUM_BYTES)?;
    (sum == checksum(value)).then_some(value)
}

fn checksum(value: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = [0; CHECKSUM_BYTES];
    sum.iter_mut().zip(Sha256::digest(value)).for_each(|(to, from)| *to = from);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_sort_by_their_number_and_a_flipped_bit_is_seen() {
        assert!(page(255) < page(256) && CHECKPOINT < page(0).as_slice());
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
