//! The secret of a queue, and the key that keeps it.
//!
//! The names that visitors have in a queue's log come of 32 random bytes that the queue has for itself.
//! The log has nothing but their id. The bytes are kept beside the log, sealed under the installation
//! key, which nodes and admission workers have; whoever has the log alone can link a name to nobody.
//! A queue whose secret is destroyed has such a log for good.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::error::Unspecified;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use uuid::{Builder, Uuid, Version};
use zeroize::Zeroizing;

use crate::ids::{self, ShortKey, derive, long_enough, mac};
use crate::queue::event::{SecretId, VisitorId};

/// Wraps the secrets of queues and unwraps them again. Everybody who does has the same key; with another
/// one no queue of this installation takes anybody in.
pub struct InstallationKey(RandomizedNonceKey);

/// No secret could be made: the system has no random bytes to give.
#[derive(Debug, thiserror::Error)]
#[error("no secret could be made: {0}")]
pub struct NoSecretMade(String);

/// Why a secret can't be unwrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnwrapError {
    /// It is not written as this program writes it.
    #[error("its secret is not written as this program writes one")]
    Malformed,
    /// It is another queue's, or altered, or wrapped under another key.
    #[error("its secret does not open with this installation key")]
    NotOurs,
}

const SECRET_BYTES: usize = 32;

impl InstallationKey {
    /// The key that comes of a configured one.
    #[expect(clippy::expect_used, reason = "AES-256-GCM takes every key of 32 bytes")]
    pub fn derive(key: &[u8]) -> Result<Self, ShortKey> {
        let key: Zeroizing<[u8; 32]> = derive(long_enough(key)?, "anteroom installation 2");
        let key = RandomizedNonceKey::new(&AES_256_GCM, key.as_slice());
        Ok(Self(key.expect("32 bytes")))
    }

    /// A new secret for a queue, wrapped.
    pub fn wrap_new(&self, queue: &str) -> Result<String, NoSecretMade> {
        let failed = |why: &dyn std::fmt::Display| NoSecretMade(why.to_string());
        let secret = Zeroizing::new(ids::secret().map_err(|why| failed(&why))?);
        let id = SecretId(ids::random_uuid());
        self.wrap(queue, id, &secret).map_err(|why| failed(&why))
    }

    /// A secret as text, `<id>:<base64url of nonce, sealed bytes and tag>`, for this queue alone.
    fn wrap(
        &self,
        queue: &str,
        id: SecretId,
        secret: &[u8; SECRET_BYTES],
    ) -> Result<String, Unspecified> {
        // Of the size that it will have, so that growing leaves no copy of the secret behind.
        let mut sealed = Vec::with_capacity(SECRET_BYTES + AES_256_GCM.tag_len());
        sealed.extend(secret);
        let nonce = self.0.seal_in_place_append_tag(bound_to(queue, id), &mut sealed)?;
        let bytes = [nonce.as_ref().as_slice(), &sealed].concat();
        Ok(format!("{id}:{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// The secret of a queue, and its id, which is what the queue's log says of it.
    pub fn unwrap(&self, queue: &str, text: &str) -> Result<(SecretId, QueueSecret), UnwrapError> {
        let (id, sealed) = read(text).ok_or(UnwrapError::Malformed)?;
        let (nonce, sealed) =
            sealed.split_first_chunk::<NONCE_LEN>().ok_or(UnwrapError::Malformed)?;
        let mut opened = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let secret = self.0.open_in_place(nonce, bound_to(queue, id), &mut opened);
        let secret = secret.map_err(|Unspecified| UnwrapError::NotOurs)?;
        Ok((id, QueueSecret::derive(secret)))
    }
}

/// What makes a wrapped secret good for its queue and under its id only.
fn bound_to(queue: &str, id: SecretId) -> Aad<Vec<u8>> {
    Aad::from([b"anteroom queue secret 2\0", queue.as_bytes(), &[0], &id.0].concat())
}

/// The id of a wrapped secret; none where it is not one.
pub fn secret_id(text: &str) -> Option<SecretId> {
    read(text).map(|(id, _)| id)
}

fn read(text: &str) -> Option<(SecretId, Vec<u8>)> {
    let (id, sealed) = text.split_once(':')?;
    let id = SecretId(Uuid::try_parse(id).ok()?.into_bytes());
    Some((id, URL_SAFE_NO_PAD.decode(sealed).ok()?))
}

/// What is made with the secret of one queue.
pub struct QueueSecret {
    visitor: Hmac<Sha256>,
    request: Hmac<Sha256>,
}

impl QueueSecret {
    fn derive(secret: &[u8]) -> Self {
        Self {
            visitor: mac(secret, "anteroom visitor 2"),
            request: mac(secret, "anteroom request 2"),
        }
    }

    /// The visitor with this join key in this queue: a UUIDv8 of a MAC, so that the same key is the
    /// same visitor and nobody can choose an id. `None` when it is no v4 UUID.
    pub fn visitor(&self, join_key: &str) -> Option<VisitorId> {
        let key = Uuid::try_parse(join_key).ok()?;
        if key.get_version() != Some(Version::Random) {
            return None;
        }
        let mac = self.visitor.clone().chain_update(key.as_bytes()).finalize().into_bytes();
        let bytes = mac.first_chunk()?;
        Some(VisitorId(Builder::from_custom_bytes(*bytes).into_uuid().into_bytes()))
    }

    /// What the log may hold of a request's idempotency key.
    pub fn request_digest(&self, idempotency_key: &str) -> [u8; 32] {
        let mac = self.request.clone().chain_update(idempotency_key.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOIN_KEY: &str = "6f1c2f5e-7a7b-4d53-9d1c-0f5d8a3b2c11";
    const ID: SecretId = SecretId([5; 16]);

    fn installation(byte: u8) -> InstallationKey {
        InstallationKey::derive(&[byte; 32]).unwrap()
    }

    /// What an unwrapped secret makes of a join key, under the id that came with it; or why there is none.
    fn unwrapped(key: &InstallationKey, queue: &str, text: &str) -> Result<String, UnwrapError> {
        let (id, secret) = key.unwrap(queue, text)?;
        Ok(format!("{id} {}", secret.visitor(JOIN_KEY).unwrap()))
    }

    #[test]
    fn a_secret_comes_back_for_its_queue_and_key_only() {
        let text = installation(1).wrap_new("demo").unwrap();
        let came = unwrapped(&installation(1), "demo", &text).unwrap();
        assert!(came.starts_with(text.split_once(':').unwrap().0), "{came}, {text}");
        let not_ours = Err(UnwrapError::NotOurs);
        assert_eq!(unwrapped(&installation(2), "demo", &text), not_ours);
        assert_eq!(unwrapped(&installation(1), "other", &text), not_ours);
        // No two are the same, and neither are two wrappings of the same one.
        let other = installation(1).wrap_new("demo").unwrap();
        assert_ne!(unwrapped(&installation(1), "demo", &other), Ok(came));
        let wrap = || installation(1).wrap("demo", ID, &[3; 32]).unwrap();
        let (one, another) = (wrap(), wrap());
        assert_ne!(one, another);
        let came = |text: &str| unwrapped(&installation(1), "demo", text).unwrap();
        assert_eq!(came(&one), came(&another));
    }

    #[test]
    fn an_altered_secret_is_none() {
        let text = installation(1).wrap("demo", ID, &[3; 32]).unwrap();
        let (id, sealed) = text.split_once(':').unwrap();
        let sealed = URL_SAFE_NO_PAD.decode(sealed).unwrap();
        let bytes = [ID.0.as_slice(), &sealed].concat();
        for bit in 0..bytes.len() * 8 {
            let mut altered = bytes.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let (id, sealed) = altered.split_first_chunk().unwrap();
            let altered = format!("{}:{}", SecretId(*id), URL_SAFE_NO_PAD.encode(sealed));
            let came = unwrapped(&installation(1), "demo", &altered);
            assert_eq!(came, Err(UnwrapError::NotOurs), "bit {bit}");
        }
        for end in 0..text.len() {
            assert!(unwrapped(&installation(1), "demo", &text[..end]).is_err(), "{end}");
        }
        let long = format!("{id}:{}", URL_SAFE_NO_PAD.encode([&sealed[..], b"x"].concat()));
        for (text, why) in [
            (long.as_str(), UnwrapError::NotOurs),
            ("", UnwrapError::Malformed),
            ("no colon", UnwrapError::Malformed),
            ("no-uuid:AAAA", UnwrapError::Malformed),
            (&format!("{ID}:"), UnwrapError::Malformed),
            (&format!("{ID}:not base64"), UnwrapError::Malformed),
        ] {
            assert_eq!(unwrapped(&installation(1), "demo", text), Err(why), "{text}");
        }
    }

    #[test]
    fn the_same_join_key_is_the_same_visitor_by_the_same_secret_only() {
        let (secret, other) = (QueueSecret::derive(&[1; 32]), QueueSecret::derive(&[2; 32]));
        let visitor = secret.visitor(JOIN_KEY).unwrap();
        assert_eq!(secret.visitor(&JOIN_KEY.to_uppercase()), Some(visitor));
        assert_ne!(other.visitor(JOIN_KEY), Some(visitor));
        assert_eq!(Uuid::from_bytes(visitor.0).get_version_num(), 8);
        assert_eq!(secret.visitor("not a uuid"), None);
        assert_eq!(secret.visitor("00000000-0000-1000-8000-000000000000"), None);
    }

    #[test]
    fn the_same_request_is_the_same_by_the_same_secret_only() {
        let (secret, other) = (QueueSecret::derive(&[1; 32]), QueueSecret::derive(&[2; 32]));
        let digest = secret.request_digest(JOIN_KEY);
        assert_eq!(secret.request_digest(JOIN_KEY), digest);
        assert_ne!(secret.request_digest("another"), digest);
        assert_ne!(other.request_digest(JOIN_KEY), digest);
        // One says nothing about the other.
        assert_ne!(digest.first_chunk(), Some(&secret.visitor(JOIN_KEY).unwrap().0));
    }

    /// What is in the log stays there, so what comes of a secret must not change.
    #[test]
    fn known_names() {
        let secret = QueueSecret::derive(&[7; 32]);
        assert_eq!(
            secret.visitor(JOIN_KEY).unwrap().to_string(),
            "23350ee7-d7e1-8552-87ee-a24a1b169b71"
        );
        let digest = crate::queue::digest::hex(&secret.request_digest("request 1"));
        assert_eq!(digest, "7cbba129cc63938088d81c2d575f0b81f3d28654a6cd185b8a3d9fcf257c3f91");
        let wrapped = "05050505-0505-0505-0505-050505050505:\
            AAECAwQFBgcICQoLZWBDp--mUE2dDlZcjXcRr5Wl_0BQAzxtttrZ5zmuWRYKSke9PmnGreKPtkjBZ4gr";
        let came = unwrapped(&installation(7), "demo", wrapped).unwrap();
        assert_eq!(
            came,
            "05050505-0505-0505-0505-050505050505 23350ee7-d7e1-8552-87ee-a24a1b169b71"
        );
    }

    #[test]
    fn a_short_key_is_refused() {
        assert!(InstallationKey::derive(&[1; 31]).is_err());
    }
}
