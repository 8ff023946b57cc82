//! Where ids come from: the random ones, and the two that are made with a key.
//!
//! A connection id proves to any node, without a look-up, that some node gave it out for this
//! queue and this visitor. It is a secret of its visitor; the visitor id inside is a public name.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::queue::event::{Jti, NodeId, VisitorId};

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

/// SHA-256 of a request's idempotency key, as hexadecimal digits: what the log may hold of it.
pub fn key_digest(key: &str) -> String {
    crate::queue::digest::hex(&Sha256::digest(key.as_bytes()))
}

/// Whether two secrets are equal, in a time that says nothing about where they differ.
pub fn same_secret(given: &str, expected: &str) -> bool {
    let digest = |text: &str| Sha256::digest(text.as_bytes());
    digest(given).ct_eq(&digest(expected)).into()
}

#[expect(clippy::disallowed_methods, reason = "this is the door")]
fn random_uuid() -> [u8; 16] {
    uuid::Uuid::new_v4().into_bytes()
}

/// The keys behind visitor ids and connection ids, derived from the one configured MAC key.
pub struct Keys {
    join: Hmac<Sha256>,
    connection: Hmac<Sha256>,
    key_id: u8,
}

/// The MAC key must have at least this many bytes.
pub const MAC_KEY_BYTES_MIN: usize = 32;

const CONNECTION_VERSION: u8 = 1;
const MAC_BYTES: usize = 16;
const CONNECTION_BYTES: usize = 2 + 16 + MAC_BYTES;

/// The MAC key is too short.
#[derive(Debug, thiserror::Error)]
#[error("the MAC key has {0} bytes; it must have at least {MAC_KEY_BYTES_MIN}")]
pub struct ShortKey(usize);

impl Keys {
    /// Derives both keys (HKDF-SHA-256, RFC 5869).
    pub fn derive(mac_key: &[u8]) -> Result<Self, ShortKey> {
        if mac_key.len() < MAC_KEY_BYTES_MIN {
            return Err(ShortKey(mac_key.len()));
        }
        let hkdf = Hkdf::<Sha256>::new(None, mac_key);
        let expand = |label: &str| {
            let mut key = [0; 32];
            hkdf.expand(label.as_bytes(), &mut key).map_err(|_| ShortKey(mac_key.len()))?;
            Hmac::<Sha256>::new_from_slice(&key).map_err(|_| ShortKey(mac_key.len()))
        };
        let mut key_id = [0];
        hkdf.expand(b"anteroom key id 1", &mut key_id).map_err(|_| ShortKey(mac_key.len()))?;
        Ok(Self {
            join: expand("anteroom visitor 1")?,
            connection: expand("anteroom connection 1")?,
            key_id: key_id[0],
        })
    }

    /// The visitor with this join key in this queue: a UUIDv8 of a MAC, so that the same key is the
    /// same visitor and nobody can choose an id. `None` when it is no v4 UUID.
    pub fn visitor(&self, queue: &str, join_key: &str) -> Option<VisitorId> {
        let key = uuid::Uuid::try_parse(join_key).ok()?;
        if key.get_version() != Some(uuid::Version::Random) {
            return None;
        }
        let mut mac = self.join.clone();
        mac.update(queue.as_bytes());
        mac.update(&[0]);
        mac.update(key.as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(mac.finalize().into_bytes().get(..16)?);
        Some(VisitorId(uuid::Builder::from_custom_bytes(bytes).into_uuid().into_bytes()))
    }

    /// The connection id of a visitor.
    pub fn connection_id(&self, queue: &str, visitor: VisitorId) -> String {
        let mut bytes = Vec::with_capacity(CONNECTION_BYTES);
        bytes.extend([CONNECTION_VERSION, self.key_id]);
        bytes.extend(visitor.0);
        bytes.extend(self.connection_mac(queue, visitor));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The visitor behind a connection id of this queue; `None` when it is forged or foreign.
    pub fn verify(&self, queue: &str, connection_id: &str) -> Option<VisitorId> {
        let bytes = URL_SAFE_NO_PAD.decode(connection_id).ok()?;
        let (head, rest) = bytes.split_at_checked(2)?;
        let (visitor, mac) = rest.split_at_checked(16)?;
        if bytes.len() != CONNECTION_BYTES || head != [CONNECTION_VERSION, self.key_id] {
            return None;
        }
        let visitor = VisitorId(visitor.try_into().ok()?);
        let right: bool = self.connection_mac(queue, visitor).ct_eq(mac).into();
        right.then_some(visitor)
    }

    fn connection_mac(&self, queue: &str, visitor: VisitorId) -> [u8; MAC_BYTES] {
        let mut mac = self.connection.clone();
        mac.update(b"anteroom connection\0");
        mac.update(queue.as_bytes());
        mac.update(&[0]);
        mac.update(&visitor.0);
        let full = mac.finalize().into_bytes();
        let mut short = [0; MAC_BYTES];
        short.iter_mut().zip(full).for_each(|(to, from)| *to = from);
        short
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "6f1c2f5e-7a7b-4d53-9d1c-0f5d8a3b2c11";

    fn keys(byte: u8) -> Keys {
        Keys::derive(&[byte; 32]).unwrap()
    }

    #[test]
    fn the_same_join_key_is_the_same_visitor_of_one_queue_only() {
        let visitor = keys(1).visitor("demo", KEY).unwrap();
        assert_eq!(keys(1).visitor("demo", &KEY.to_uppercase()), Some(visitor));
        assert_ne!(keys(1).visitor("other", KEY), Some(visitor));
        assert_ne!(keys(2).visitor("demo", KEY), Some(visitor));
        assert_eq!(uuid::Uuid::from_bytes(visitor.0).get_version_num(), 8);
        assert_eq!(keys(1).visitor("demo", "not a uuid"), None);
        assert_eq!(keys(1).visitor("demo", "00000000-0000-1000-8000-000000000000"), None);
    }

    #[test]
    fn a_connection_id_is_good_for_its_queue_and_key_and_to_the_last_bit() {
        let visitor = visitor();
        let id = keys(1).connection_id("demo", visitor);
        assert_eq!(keys(1).verify("demo", &id), Some(visitor));
        assert_eq!(keys(1).verify("other", &id), None);
        assert_eq!(keys(2).verify("demo", &id), None);
        let bytes = URL_SAFE_NO_PAD.decode(&id).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut forged = bytes.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(keys(1).verify("demo", &URL_SAFE_NO_PAD.encode(forged)), None, "bit {bit}");
        }
        for end in 0..id.len() {
            assert_eq!(keys(1).verify("demo", &id[..end]), None);
        }
    }
}
