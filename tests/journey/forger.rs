//! A forger of tokens and passes, who even has the system's own key: what is refused is refused for
//! what it says, and not only for want of a signature.

use std::net::SocketAddr;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256, Sha512};

use crate::system::System;

/// Every Ed25519 public key as DER begins so (RFC 8410).
const PUBLIC_KEY_DER: [u8; 12] = [48, 42, 48, 5, 6, 3, 43, 101, 112, 3, 33, 0];

pub struct Forger {
    /// The system's key, and one of the forger's own.
    key: Ed25519KeyPair,
    own: Ed25519KeyPair,
    /// What is forged.
    pub good: String,
    pub header: Map<String, Value>,
    pub claims: Map<String, Value>,
    /// One of the same kind and queue that is somebody else's.
    pub another: String,
    /// Where the forger's keys would be fetched from.
    pub listener: SocketAddr,
}

impl Forger {
    pub fn new(system: &System, good: &str, another: &str, listener: SocketAddr) -> Self {
        let pem = std::fs::read_to_string(system.dir.join("keys/signing.pem")).unwrap();
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(body).unwrap();
        let (header, claims) = (part(good, 0), part(good, 1));
        Self {
            key: Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).unwrap(),
            own: Ed25519KeyPair::generate().unwrap(),
            good: good.to_owned(),
            header: serde_json::from_slice(&header).unwrap(),
            claims: serde_json::from_slice(&claims).unwrap(),
            another: another.to_owned(),
            listener,
        }
    }

    /// With a field of the header set, signed with the system's key.
    pub fn with_header(&self, name: &str, value: Value) -> String {
        let mut header = self.header.clone();
        header.insert(name.to_owned(), value);
        self.sign(&text(&header), text(&self.claims))
    }

    pub fn without_header(&self, name: &str) -> String {
        let mut header = self.header.clone();
        header.remove(name).unwrap();
        self.sign(&text(&header), text(&self.claims))
    }

    /// With a claim set, signed with the system's key.
    pub fn with_claim(&self, name: &str, value: Value) -> String {
        let mut claims = self.claims.clone();
        claims.insert(name.to_owned(), value);
        self.sign(&text(&self.header), text(&claims))
    }

    pub fn without_claim(&self, name: &str) -> String {
        let mut claims = self.claims.clone();
        claims.remove(name).unwrap();
        self.sign(&text(&self.header), text(&claims))
    }

    /// With a whole number as claim.
    pub fn number(&self, claim: &str) -> i64 {
        self.claims[claim].as_i64().unwrap()
    }

    /// Any header and any payload, signed with the system's key.
    pub fn sign(&self, header: &str, payload: impl AsRef<[u8]>) -> String {
        self.sign_parts(&encoded(header), &encoded(payload))
    }

    /// Parts as they are, signed with the system's key.
    pub fn sign_parts(&self, header: &str, payload: &str) -> String {
        let message = format!("{header}.{payload}");
        format!("{message}.{}", encoded(self.key.sign(message.as_bytes())))
    }

    /// The good claims under the forger's own key, and a header that says where it is found.
    pub fn sign_own(&self, name: &str, value: Value) -> String {
        let mut header = self.header.clone();
        header.insert(name.to_owned(), value);
        let message = format!("{}.{}", encoded(text(&header)), encoded(text(&self.claims)));
        format!("{message}.{}", encoded(self.own.sign(message.as_bytes())))
    }

    /// The forger's own public key as a JWK, and the name that it gives itself (RFC 7638).
    pub fn own_jwk(&self) -> (Value, String) {
        let x = encoded(self.own.public_key());
        let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        (json!({"kty": "OKP", "crv": "Ed25519", "x": x}), encoded(Sha256::digest(canonical)))
    }

    /// The system's public key in the forms in which a careless verifier would take it for a secret.
    pub fn public_key_as_secret(&self) -> [(&'static str, Vec<u8>); 4] {
        let raw = self.key.public_key().as_ref();
        let der = STANDARD.encode([&PUBLIC_KEY_DER, raw].concat());
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n");
        let jwk = json!({
            "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA",
            "kid": self.header["kid"], "x": encoded(raw),
        });
        [
            ("raw", raw.to_vec()),
            ("as PEM", pem.into_bytes()),
            ("as JWK", jwk.to_string().into_bytes()),
            ("as base64", encoded(raw).into_bytes()),
        ]
    }

    /// The good claims with a MAC in place of the signature.
    pub fn mac(&self, algorithm: &str, secret: &[u8]) -> String {
        let mut header = self.header.clone();
        header.insert("alg".to_owned(), algorithm.into());
        let message = format!("{}.{}", encoded(text(&header)), encoded(text(&self.claims)));
        let mac = if algorithm == "HS256" {
            let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
            mac.update(message.as_bytes());
            mac.finalize().into_bytes().to_vec()
        } else {
            let mut mac = Hmac::<Sha512>::new_from_slice(secret).unwrap();
            mac.update(message.as_bytes());
            mac.finalize().into_bytes().to_vec()
        };
        format!("{message}.{}", encoded(mac))
    }

    /// The three parts of the good one.
    pub fn parts(&self) -> [&str; 3] {
        let parts: Vec<&str> = self.good.split('.').collect();
        parts.try_into().unwrap()
    }

    /// The good header and claims with this signature.
    pub fn with_signature(&self, signature: impl AsRef<[u8]>) -> String {
        let [header, payload, _] = self.parts();
        format!("{header}.{payload}.{}", encoded(signature))
    }

    pub fn signature(&self) -> Vec<u8> {
        part(&self.good, 2)
    }
}

/// What a part of a token or a pass says.
pub fn part(token: &str, which: usize) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(token.split('.').nth(which).unwrap()).unwrap()
}

pub fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub fn text(object: &Map<String, Value>) -> String {
    serde_json::to_string(object).unwrap()
}
