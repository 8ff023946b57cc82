//! The only holder of the private keys. A token or a pass is a function of the grant and the key that it
//! names alone: asked for twice, it is the same to the last byte.

use std::collections::BTreeSet;

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
    /// The first is the one to sign with; what the others have signed stays good.
    private: Vec<EncodingKey>,
    /// Their public halves, in the same order.
    public: Vec<PublicKey>,
    issuer: String,
    /// For how many seconds a pass is good, where its session lasts longer.
    pass_seconds: Option<u32>,
}

/// Keys that one signer holds at most: years of rotation, and all of them go into the log together.
pub const HELD_MAX: usize = 8;

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

/// The signing keys can't be used.
#[derive(Debug, thiserror::Error)]
#[error("signing keys must be Ed25519 private keys in PKCS #8 PEM: {0}")]
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
    /// A signer with these keys (PKCS #8 PEM, one behind the other), whose tokens name this issuer, and
    /// whose passes are good for so many seconds, or as long as the session.
    pub fn new(pem: &str, issuer: String, pass_seconds: Option<u32>) -> Result<Self, BadKey> {
        let (private, public) = read(pem)?;
        Ok(Self { private, public, issuer, pass_seconds })
    }

    /// The same with other keys.
    pub fn with_keys(&self, pem: &str) -> Result<Self, BadKey> {
        Self::new(pem, self.issuer.clone(), self.pass_seconds)
    }

    /// The public halves; the first is of the key to sign with.
    pub fn public_keys(&self) -> &[PublicKey] {
        &self.public
    }

    /// What tokens name as their issuer.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The token of a grant; `None` when it names a key that this signer doesn't hold.
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

    /// A pass of the same session that begins now, by this key. It ends with the session at the latest.
    pub fn renewed(
        &self,
        queue: &QueueId,
        session: &Session,
        now: At,
        kid: &str,
    ) -> Option<Signed> {
        self.pass_from(queue, session, now, kid)
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
        let held = self.public.iter().zip(&self.private).find(|(public, _)| public.kid == kid)?;
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(kind.to_owned());
        header.kid = Some(kid.to_owned());
        jsonwebtoken::encode(&header, claims, held.1).ok()
    }
}

/// The keys of a file.
fn read(pem: &str) -> Result<(Vec<EncodingKey>, Vec<PublicKey>), BadKey> {
    let read = blocks(pem).into_iter().map(read_one);
    let (private, public): (Vec<_>, Vec<_>) = read.collect::<Result<_, _>>()?;
    let kids: BTreeSet<&str> = public.iter().map(|key| key.kid.as_str()).collect();
    match public.len() {
        0 => Err(BadKey("there is none".to_owned())),
        1..=HELD_MAX if kids.len() == public.len() => Ok((private, public)),
        1..=HELD_MAX => Err(BadKey("one is there twice".to_owned())),
        many => Err(BadKey(format!("there are {many}, of at most {HELD_MAX}"))),
    }
}

/// The PEM blocks of a text, in their order.
pub fn blocks(pem: &str) -> Vec<&str> {
    let ends = pem.match_indices(PEM_END).map(|(at, end)| at + end.len());
    let mut from = 0;
    let blocks = ends.filter_map(|end| pem.get(std::mem::replace(&mut from, end)..end));
    let blocks: Vec<&str> = blocks.map(str::trim).collect();
    // What stands behind the last one is not passed over.
    let rest = pem.get(from..).map(str::trim).filter(|rest| !rest.is_empty());
    blocks.into_iter().chain(rest).collect()
}

/// The name of the key in one PEM block.
pub fn kid(block: &str) -> Result<String, BadKey> {
    let (_, public) = read_one(block)?;
    Ok(public.kid)
}

fn read_one(block: &str) -> Result<(EncodingKey, PublicKey), BadKey> {
    let bad = |why: &str| BadKey(why.to_owned());
    let body: String = block
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .flat_map(|line| line.trim().chars())
        .collect();
    let der = STANDARD.decode(body).map_err(|_| bad("one is no PEM"))?;
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der);
    let pair = pair.map_err(|_| bad("one is no Ed25519 key"))?;
    let x: [u8; 32] =
        pair.public_key().as_ref().try_into().map_err(|_| bad("a public key is not 32 bytes"))?;
    Ok((EncodingKey::from_ed_der(&der), PublicKey { kid: thumbprint(&x), x }))
}

/// The JWK thumbprint (RFC 7638, with RFC 8037's members): a name that the key itself gives.
fn thumbprint(x: &[u8; 32]) -> String {
    let x = URL_SAFE_NO_PAD.encode(x);
    let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    URL_SAFE_NO_PAD.encode(Sha256::digest(canonical))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_some_keys_and_each_signs_what_names_it() {
        let (one, two) = (generate().unwrap(), generate().unwrap());
        let signer = Signer::new(&format!("{one}\n{two}"), "anteroom".to_owned(), None).unwrap();
        let kids: Vec<String> = signer.public_keys().iter().map(|key| key.kid.clone()).collect();
        assert_eq!(kids, [kid(&one).unwrap(), kid(&two).unwrap()]);
        let queue = QueueId::parse("demo").unwrap();
        let grant = |kid: &str| Grant {
            jti: crate::queue::event::Jti([1; 16]),
            kid: kid.into(),
            seconds: 120,
            seq: crate::queue::event::Seq(2),
            at: At(0),
            lapses: At(0),
            redeemed: None,
        };
        for kid in &kids {
            let token = signer.token(&queue, VisitorId([2; 16]), &grant(kid)).unwrap();
            let keys = signer.public_keys();
            let verified = crate::wire::token::verify(&token, TOKEN_TYPE, keys, "anteroom", "demo");
            assert_eq!(verified.map(|claims| claims.jti), Ok(Id([1; 16])));
            let head = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
            assert!(String::from_utf8(head).unwrap().contains(kid));
        }
        assert_eq!(signer.token(&queue, VisitorId([2; 16]), &grant("gone")), None);
    }

    #[test]
    fn a_faulty_file_is_refused_with_the_reason() {
        let one = generate().unwrap();
        let many = (0..=HELD_MAX).map(|_| generate().unwrap()).collect::<String>();
        for (pem, why) in [
            (String::new(), "there is none"),
            (one.repeat(2), "one is there twice"),
            (many, "there are 9, of at most 8"),
            (format!("{one}trailing!"), "one is no PEM"),
            (one.replace("MC4", "AAA"), "one is no Ed25519 key"),
        ] {
            let refused = Signer::new(&pem, "anteroom".to_owned(), None).err().unwrap().to_string();
            assert!(refused.ends_with(why), "{refused} does not say {why}");
        }
    }
}
