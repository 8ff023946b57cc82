//! Admission tokens and passes: JWTs (RFC 7519) signed with Ed25519 (RFC 8037).
//!
//! What is accepted is fixed here, and nothing that a token says about itself widens it: one
//! algorithm, one type, keys that the log named, every claim required. The private key is
//! admission's alone.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::queue::event::{At, PublicKey};
use crate::wire::id::Id;

/// The `typ` of an admission token.
pub const TOKEN_TYPE: &str = "admission+jwt";
/// The `typ` of a pass.
pub const PASS_TYPE: &str = "pass+jwt";

/// Clocks that verify a token may differ by this much, in seconds.
pub const SKEW_SECONDS: u32 = 30;

/// A longer text is no token of ours and is not looked at.
const TOKEN_BYTES_MAX: usize = 2_048;

/// The claims of a token or a pass. All are required.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who issued it.
    pub iss: String,
    /// The queue.
    pub aud: String,
    /// The visitor.
    pub sub: Id,
    /// The grant.
    pub jti: Id,
    /// Issued at, seconds since 1970.
    pub iat: i64,
    /// Not before, seconds since 1970.
    pub nbf: i64,
    /// Not at or after, seconds since 1970.
    pub exp: i64,
}

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Altered, of another type, queue or issuer, or signed with another key.
    #[error("not a token of this queue, or altered")]
    NotOurs,
    /// It names a key that is not known, or not yet.
    #[error("signed with an unknown key")]
    UnknownKey,
    /// Its time is over.
    #[error("its time is over")]
    Expired,
}

/// The header of a token. Ours say nothing else of themselves, so what else a header may say (a key, an
/// address of one, what must be understood) makes it no token of ours.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    alg: Algorithm,
    typ: String,
    kid: String,
}

/// Verifies everything about a token but its time, which [`in_time`] judges.
pub fn verify(
    token: &str,
    kind: &str,
    keys: &[PublicKey],
    issuer: &str,
    queue: &str,
) -> Result<Claims, Invalid> {
    let parts = Parts::of(token).ok_or(Invalid::NotOurs)?;
    let head: Head = Parts::read(parts.head).ok_or(Invalid::NotOurs)?;
    if head.typ != kind || head.alg != Algorithm::EdDSA {
        return Err(Invalid::NotOurs);
    }
    let key = keys.iter().find(|key| key.kid == head.kid).ok_or(Invalid::UnknownKey)?;
    let key = DecodingKey::from_ed_der(&key.x);
    let signed = parts.signed.as_bytes();
    if !crypto::verify(parts.signature, signed, &key, Algorithm::EdDSA).unwrap_or(false) {
        return Err(Invalid::NotOurs);
    }
    let claims: Claims = Parts::read(parts.claims).ok_or(Invalid::NotOurs)?;
    // As a signer makes them; whoever judges the time by the grant need not judge these.
    let is_one_span = claims.nbf == claims.iat.saturating_sub(i64::from(SKEW_SECONDS))
        && (0..=claims.exp).contains(&claims.iat);
    let is_ours = is_one_span && claims.iss == issuer && claims.aud == queue;
    is_ours.then_some(claims).ok_or(Invalid::NotOurs)
}

/// The parts of a token in its compact form (RFC 7515, 3.1).
struct Parts<'a> {
    /// What the signature is of: the head and the claims.
    signed: &'a str,
    head: &'a str,
    claims: &'a str,
    signature: &'a str,
}

impl<'a> Parts<'a> {
    fn of(token: &'a str) -> Option<Self> {
        let (signed, signature) =
            token.rsplit_once('.').filter(|_| token.len() <= TOKEN_BYTES_MAX)?;
        let (head, claims) = signed.split_once('.')?;
        Some(Self { signed, head, claims, signature })
    }

    fn read<T: DeserializeOwned>(part: &str) -> Option<T> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
    }
}

/// The queue that a token names, unverified: good only for knowing whom to ask about it.
pub fn queue_of(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Audience {
        aud: String,
    }
    let parts = Parts::of(token)?;
    Parts::read::<Audience>(parts.claims).map(|claims| claims.aud)
}

/// Whether a text says of itself that it is of this `typ`.
pub fn is_of_type(text: &str, kind: &str) -> bool {
    let head = Parts::of(text).and_then(|parts| Parts::read::<Head>(parts.head));
    head.is_some_and(|head| head.typ == kind)
}

/// A public key as a JWK (RFC 7517 and 8037).
pub fn jwk(key: &PublicKey) -> serde_json::Value {
    serde_json::json!({
        "kty": "OKP",
        "crv": "Ed25519",
        "use": "sig",
        "alg": "EdDSA",
        "kid": key.kid,
        "x": URL_SAFE_NO_PAD.encode(key.x),
    })
}

/// Whether `now` is within a token's time, give or take [`SKEW_SECONDS`].
pub fn in_time(claims: &Claims, now: At) -> Result<(), Invalid> {
    if now.seconds() >= claims.exp.saturating_add(i64::from(SKEW_SECONDS)) {
        return Err(Invalid::Expired);
    }
    if now.seconds() + i64::from(SKEW_SECONDS) < claims.nbf {
        return Err(Invalid::NotOurs);
    }
    Ok(())
}
