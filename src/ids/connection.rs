//! Connection ids. One proves to any node, without a look-up, that some node gave it out for this
//! queue, this visitor and this hand. It is a secret of its visitor; the visitor's name inside is public.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::ids::{ShortKey, derive, long_enough, mac};
use crate::queue::event::VisitorId;

/// Makes and verifies connection ids, by the configured MAC key. With another key the ids given out so
/// far are unknown, and no visitor has another name.
pub struct ConnectionKeys {
    mac: Hmac<Sha256>,
    /// Tells ids of another key apart; it proves nothing.
    key_id: u8,
}

const VERSION: u8 = 2;
const MAC_BYTES: usize = 16;
/// Version, key id, visitor, hand and MAC.
const BYTES: usize = 1 + 1 + 16 + 4 + MAC_BYTES;

impl ConnectionKeys {
    /// The keys that come of a MAC key.
    pub fn derive(mac_key: &[u8]) -> Result<Self, ShortKey> {
        let key = long_enough(mac_key)?;
        let [key_id] = *derive(key, "anteroom key id 2");
        Ok(Self { mac: mac(key, "anteroom connection 2"), key_id })
    }

    /// The connection id of a visitor whose place is in this hand.
    pub fn connection_id(&self, queue: &str, visitor: VisitorId, hand: u32) -> String {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend([VERSION, self.key_id]);
        bytes.extend(visitor.0);
        bytes.extend(hand.to_be_bytes());
        bytes.extend(self.proof(queue, visitor, hand));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The visitor and the hand of a connection id of this queue; `None` when it is forged or foreign.
    pub fn verify(&self, queue: &str, connection_id: &str) -> Option<(VisitorId, u32)> {
        let bytes = URL_SAFE_NO_PAD.decode(connection_id).ok()?;
        let (head, rest) = bytes.split_first_chunk::<2>()?;
        let (visitor, rest) = rest.split_first_chunk()?;
        let (hand, proof) = rest.split_first_chunk()?;
        if *head != [VERSION, self.key_id] {
            return None;
        }
        let (visitor, hand) = (VisitorId(*visitor), u32::from_be_bytes(*hand));
        // One of another length is not equal either.
        let is_right: bool = self.proof(queue, visitor, hand).as_slice().ct_eq(proof).into();
        is_right.then_some((visitor, hand))
    }

    fn proof(&self, queue: &str, visitor: VisitorId, hand: u32) -> [u8; MAC_BYTES] {
        let mut mac = self.mac.clone();
        mac.update(b"anteroom connection 2\0");
        mac.update(queue.as_bytes());
        mac.update(&[0]);
        mac.update(&visitor.0);
        mac.update(&hand.to_be_bytes());
        let full = mac.finalize().into_bytes();
        let mut short = [0; MAC_BYTES];
        short.iter_mut().zip(full).for_each(|(to, from)| *to = from);
        short
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::visitor;

    fn keys(byte: u8) -> ConnectionKeys {
        ConnectionKeys::derive(&[byte; 32]).unwrap()
    }

    #[test]
    fn a_connection_id_is_good_for_its_queue_and_key_and_to_the_last_bit() {
        let visitor = visitor();
        for hand in [0, 1, u32::MAX] {
            let id = keys(1).connection_id("demo", visitor, hand);
            assert_eq!(keys(1).verify("demo", &id), Some((visitor, hand)));
            assert_eq!(keys(1).verify("other", &id), None);
            assert_eq!(keys(2).verify("demo", &id), None);
            let bytes = URL_SAFE_NO_PAD.decode(&id).unwrap();
            assert_eq!(bytes.len(), BYTES);
            for bit in 0..bytes.len() * 8 {
                let mut forged = bytes.clone();
                forged[bit / 8] ^= 1 << (bit % 8);
                let forged = URL_SAFE_NO_PAD.encode(forged);
                assert_eq!(keys(1).verify("demo", &forged), None, "bit {bit}");
            }
            for end in 0..id.len() {
                assert_eq!(keys(1).verify("demo", &id[..end]), None);
            }
            assert_eq!(keys(1).verify("demo", &format!("{id}AAAA")), None);
        }
    }

    /// Ids that were given out stay good, so what comes of a key must not change.
    #[test]
    fn a_known_connection_id() {
        let id = keys(7).connection_id("demo", VisitorId([9; 16]), 1);
        assert_eq!(id, "AiEJCQkJCQkJCQkJCQkJCQkJAAAAAVZsyLnEUhNOwKc8DL2ZwYw");
    }

    #[test]
    fn a_short_key_is_refused() {
        let error = ConnectionKeys::derive(&[1; 31]).err().unwrap().to_string();
        assert_eq!(error, "the key has 31 bytes; it must have at least 32");
    }
}
