//! Where ids come from: the random ones, and those that are made with a key.
//!
//! There are three keys, so that each can be changed or destroyed by itself: a queue's own secret makes
//! the names of its visitors, the installation key keeps those secrets, and the MAC key makes
//! connection ids.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::queue::event::{Jti, NodeId, VisitorId};

mod connection;
mod queue_secret;

pub use connection::ConnectionKeys;
pub use queue_secret::{InstallationKey, NoSecretMade, QueueSecret, UnwrapError, secret_id};

/// A new node's id.
pub fn node() -> NodeId {
    NodeId(random_uuid())
}

/// A new grant's id.
pub fn jti() -> Jti {
    Jti(random_uuid())
}

/// A new visitor, of one who brought no join key.
pub fn visitor() -> VisitorId {
    VisitorId(random_uuid())
}

/// So many random bytes, for keys and passwords.
pub fn secret<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// Whether two secrets are equal, in a time that says nothing about where they differ.
pub fn same_secret(given: &str, expected: &str) -> bool {
    let digest = |text: &str| Sha256::digest(text.as_bytes());
    digest(given).ct_eq(&digest(expected)).into()
}

/// A configured key must have at least this many bytes.
pub const KEY_BYTES_MIN: usize = 32;

/// A configured key is too short.
#[derive(Debug, thiserror::Error)]
#[error("the key has {0} bytes; it must have at least {KEY_BYTES_MIN}")]
pub struct ShortKey(usize);

fn long_enough(key: &[u8]) -> Result<&[u8], ShortKey> {
    if key.len() < KEY_BYTES_MIN { Err(ShortKey(key.len())) } else { Ok(key) }
}

/// What comes of a key for one use: HKDF-SHA-256 (RFC 5869) with the use as its label.
#[expect(clippy::expect_used, reason = "it fails for more than 8,160 bytes, and never for so few")]
fn derive<const N: usize>(key: &[u8], label: &str) -> Zeroizing<[u8; N]> {
    let mut derived = Zeroizing::new([0; N]);
    let hkdf = Hkdf::<Sha256>::new(None, key);
    hkdf.expand(label.as_bytes(), derived.as_mut_slice()).expect("few bytes");
    derived
}

/// A MAC with a key that comes of this one.
#[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
fn mac(key: &[u8], label: &str) -> Hmac<Sha256> {
    let key: Zeroizing<[u8; 32]> = derive(key, label);
    Hmac::new_from_slice(key.as_slice()).expect("any length")
}

#[expect(clippy::disallowed_methods, reason = "this is the door")]
fn random_uuid() -> [u8; 16] {
    uuid::Uuid::new_v4().into_bytes()
}
