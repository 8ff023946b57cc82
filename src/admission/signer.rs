//! The only holder of the private key. A token or a pass is a function of the grant and the key
//! alone: asked for twice, it is the same to the last byte.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use sha2::{Digest as _, Sha256};

use crate::log::subjects::QueueId;
use crate::queue::event::{At, PublicKey, VisitorId};
use crate::queue::line::{Grant, Redemption};
use crate::wire::id::Id;
use crate::wire::token::{Claims, PASS_TYPE, SKEW_SECONDS, TOKEN_TYPE};

/// Signs tokens and passes.
pub struct Signer {
    key: EncodingKey,
    public: PublicKey,
    issuer: String,
    /// For how many seconds a pass is good, where its session lasts longer.
    pass_seconds: Option<u32>,
}

/// Who is inside, and by what.
#[derive(Clone, Debug)]
pub struct Session {
    /// Who.
    pub visitor: VisitorId,
    /// By which grant.
    pub grant: Grant,
    /// How it was used.
    pub redemption: Redemption,
}

impl Session {
    /// When it is over.
    pub fn ends(&self) -> At {
        self.redemption.at.plus_seconds(self.redemption.seconds)
    }
}

/// A pass.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The JWT.
    pub text: String,
    /// Its end, seconds since 1970.
    pub expires: i64,
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
    /// A signer with this key (PKCS #8 PEM), whose tokens name this issuer, and whose passes are good
    /// for so many seconds, or as long as the session.
    pub fn new(pem: &str, issuer: String, pass_seconds: Option<u32>) -> Result<Self, BadKey> {
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
        Ok(Self { key, public: PublicKey { kid: thumbprint(&x), x }, issuer, pass_seconds })
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
    pub fn pass(&self, queue: &QueueId, session: &Session) -> Option<Signed> {
        self.pass_from(queue, session, session.redemption.at, &session.redemption.kid)
    }

    /// A pass of the same session that begins now. It ends with the session at the latest.
    pub fn renewed(&self, queue: &QueueId, session: &Session, now: At) -> Option<Signed> {
        self.pass_from(queue, session, now, &self.public.kid)
    }

    fn pass_from(&self, queue: &QueueId, session: &Session, from: At, kid: &str) -> Option<Signed> {
        let from = from.seconds();
        let left = u32::try_from(session.ends().seconds() - from).unwrap_or(0);
        let seconds = self.pass_seconds.map_or(left, |most| most.min(left));
        let claims = self.claims(queue, session.visitor, &session.grant, from, seconds);
        Some(Signed { text: self.sign(PASS_TYPE, kid, &claims)?, expires: claims.exp })
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
