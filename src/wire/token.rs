//! Admission tokens and passes: JWTs (RFC 7519) signed with Ed25519 (RFC 8037).
//!
//! What is accepted is fixed here, and nothing that a token says about itself widens it: one
//! algorithm, one type, keys that the log named, every claim required. The private key is
//! admission's alone.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
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
    /// Its time is over.
    #[error("its time is over")]
    Expired,
}

/// Verifies everything about a token but its time, which [`in_time`] judges.
pub fn verify(
    token: &str,
    kind: &str,
    keys: &[PublicKey],
    issuer: &str,
    queue: &str,
) -> Result<Claims, Invalid> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Invalid::NotOurs);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| Invalid::NotOurs)?;
    if header.typ.as_deref() != Some(kind) || header.alg != Algorithm::EdDSA {
        return Err(Invalid::NotOurs);
    }
    let kid = header.kid.as_deref().ok_or(Invalid::NotOurs)?;
    let key = keys.iter().find(|key| key.kid == kid).ok_or(Invalid::NotOurs)?;
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&[queue]);
    validation.set_issuer(&[issuer]);
    validation.set_required_spec_claims(&["iss", "aud", "sub", "exp", "nbf"]);
    // The library would ask the machine's wall clock; time is the log's here.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    let decoded =
        jsonwebtoken::decode::<Claims>(token, &DecodingKey::from_ed_der(&key.x), &validation);
    decoded.map(|data| data.claims).map_err(|_| Invalid::NotOurs)
}

/// The queue that a token names, unverified: good only for knowing whom to ask about it.
pub fn queue_of(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Audience {
        aud: String,
    }
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Audience>(&payload).ok().map(|claims| claims.aud)
}

/// Whether a text says of itself that it is an admission token.
pub fn is_token(text: &str) -> bool {
    let header = text.len() <= TOKEN_BYTES_MAX;
    let header = header.then(|| jsonwebtoken::decode_header(text).ok()).flatten();
    header.is_some_and(|header| header.typ.as_deref() == Some(TOKEN_TYPE))
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
    if now.seconds() >= claims.exp + i64::from(SKEW_SECONDS) {
        return Err(Invalid::Expired);
    }
    if now.seconds() + i64::from(SKEW_SECONDS) < claims.nbf {
        return Err(Invalid::NotOurs);
    }
    Ok(())
}
