//! The only holder of the private key. A token or a pass is a function of the grant and the key
//! alone: asked for twice, it is the same to the last byte.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use sha2::{Digest as _, Sha256};

use crate::log::subjects::QueueId;
use crate::queue::event::{PublicKey, VisitorId};
use crate::queue::line::{Grant, Redemption};
use crate::wire::id::Id;
use crate::wire::token::{Claims, PASS_TYPE, SKEW_SECONDS, TOKEN_TYPE};

/// Signs tokens and passes.
pub struct Signer {
    key: EncodingKey,
    public: PublicKey,
    issuer: String,
}

/// The signing key can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the signing key must be an Ed25519 private key in PKCS #8 PEM: {0}")]
pub struct BadKey(String);

const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

/// A new signing key, as PKCS #8 PEM.
pub fn generate() -> Result<String, BadKey> {
    let failed = |_| BadKey("the system gave no randomness".to_owned());
    let pair = Ed25519KeyPair::generate().map_err(failed)?;
    let pkcs8 = pair.to_pkcs8v1().map_err(failed)?;
    Ok(format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", STANDARD.encode(pkcs8.as_ref())))
}

impl Signer {
    /// A signer with this key (PKCS #8 PEM), whose tokens name this issuer.
    pub fn new(pem: &str, issuer: String) -> Result<Self, BadKey> {
        let bad = |why: &str| BadKey(why.to_owned());
        let body: String = pem
            .lines()
            .filter(|line| !line.starts_with("-----"))
            .flat_map(|line| line.trim().chars())
            .collect();
        let der = STANDARD.decode(body).map_err(|_| bad("it is no PEM"))?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der);
        let pair = pair.map_err(|_| bad("it is no Ed25519 key"))?;
        let x: [u8; 32] = pair
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| bad("its public key is not 32 bytes"))?;
        let key = EncodingKey::from_ed_der(&der);
        Ok(Self { key, public: PublicKey { kid: thumbprint(&x), x }, issuer })
    }

    /// The public half.
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// What tokens name as their issuer.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The token of a grant; `None` when it is of a key that this signer doesn't hold.
    pub fn token(&self, queue: &QueueId, visitor: VisitorId, grant: &Grant) -> Option<String> {
        self.sign(
            TOKEN_TYPE,
            &grant.kid,
            &self.claims(queue, visitor, grant, grant.at.seconds(), grant.seconds),
        )
    }

    /// The pass that a grant's redemption gave.
    pub fn pass(
        &self,
        queue: &QueueId,
        visitor: VisitorId,
        grant: &Grant,
        redemption: &Redemption,
    ) -> Option<String> {
        let at = redemption.at.seconds();
        let claims = self.claims(queue, visitor, grant, at, redemption.seconds);
        self.sign(PASS_TYPE, &redemption.kid, &claims)
    }

    fn claims(
        &self,
        queue: &QueueId,
        visitor: VisitorId,
        grant: &Grant,
        iat: i64,
        seconds: u32,
    ) -> Claims {
        Claims {
            iss: self.issuer.clone(),
            aud: queue.to_string(),
            sub: Id(visitor.0),
            jti: Id(grant.jti.0),
            iat,
            nbf: iat - i64::from(SKEW_SECONDS),
            exp: iat + i64::from(seconds),
        }
    }

    fn sign(&self, kind: &str, kid: &str, claims: &Claims) -> Option<String> {
        if kid != self.public.kid {
            return None;
        }
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(kind.to_owned());
        header.kid = Some(kid.to_owned());
        jsonwebtoken::encode(&header, claims, &self.key).ok()
    }
}

/// The JWK thumbprint (RFC 7638, with RFC 8037's members): a name that the key itself gives.
fn thumbprint(x: &[u8; 32]) -> String {
    let x = URL_SAFE_NO_PAD.encode(x);
    let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    URL_SAFE_NO_PAD.encode(Sha256::digest(canonical))
}
