//! Bad tokens and bad passes, each bad in one way. Most are signed with the system's own key.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE};
use serde_json::{Value, json};

use crate::forger::{Forger, encoded, part, text};

/// The order of Ed25519's group, from its lowest byte on (RFC 8032, 5.1).
const GROUP_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];
/// A whole day, in seconds.
const DAY: i64 = 86_400;

/// One that must open nothing.
pub struct Bad {
    pub name: String,
    /// As it stands in a request's body: a text, but for those who send something else.
    pub value: Value,
}

impl Bad {
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), value: Value::String(text.into()) }
    }

    pub fn text(&self) -> Option<&str> {
        self.value.as_str()
    }
}

/// What is bad as a token and as a pass.
pub fn all(forger: &Forger) -> Vec<Bad> {
    let groups = [
        algorithms(forger),
        keys(forger),
        headers(forger),
        places(forger),
        nobody(forger),
        times(forger),
        parts(forger),
        spellings(forger),
        signatures(forger),
        contents(forger),
    ];
    groups.into_iter().flatten().collect()
}

/// What only a careless signer could make, and what a reader may take all the same: of two claims of one
/// name the last counts (RFC 7519, 4), and a name is a text. We are stricter with what we read.
pub fn of_careless_signers(forger: &Forger) -> Vec<Bad> {
    let marked = format!("\u{feff}{}", text(&forger.claims));
    let marked = forger.sign(&text(&forger.header), marked);
    let mut bad = repetitions(forger);
    bad.extend(names(forger));
    bad.push(Bad::new("payload with a byte order mark", marked));
    bad
}

/// What only the one who knows the grants can tell to be bad: tokens, which admission verifies.
pub fn of_tokens(forger: &Forger) -> Vec<Bad> {
    let somebody: Value = serde_json::from_slice(&part(&forger.another, 1)).unwrap();
    let nobody = "00000000-0000-4000-8000-000000000000";
    let shifted = forger.number("iat") - DAY;
    vec![
        Bad::new("jti of no grant", forger.with_claim("jti", nobody.into())),
        Bad::new("jti of somebody else's", forger.with_claim("jti", somebody["jti"].clone())),
        Bad::new("sub of nobody", forger.with_claim("sub", nobody.into())),
        Bad::new("sub of somebody else", forger.with_claim("sub", somebody["sub"].clone())),
        Bad::new("iat negative", forger.with_claim("iat", (-1).into())),
        Bad::new("nbf negative", forger.with_claim("nbf", (-1).into())),
        Bad::new("iat of another day", forger.with_claim("iat", shifted.into())),
    ]
}

fn algorithms(forger: &Forger) -> Vec<Bad> {
    let [_, payload, signature] = forger.parts();
    let mut bad = Vec::new();
    for none in ["none", "None", "nOnE", "NONE"] {
        let mut header = forger.header.clone();
        header.insert("alg".to_owned(), none.into());
        let head = encoded(text(&header));
        bad.push(Bad::new(format!("alg {none}"), format!("{head}.{payload}.")));
        bad.push(Bad::new(
            format!("alg {none}, signature kept"),
            format!("{head}.{payload}.{signature}"),
        ));
    }
    bad.push(Bad::new("alg missing", forger.without_header("alg")));
    let others = ["", "HS256", "RS256", "PS512", "ES256", "ES256K", "Ed25519", "Ed448", "eddsa"];
    for other in others {
        bad.push(Bad::new(
            format!("alg {other:?} claimed"),
            forger.with_header("alg", other.into()),
        ));
    }
    bad.push(Bad::new("alg a list", forger.with_header("alg", json!(["EdDSA"]))));
    bad.push(Bad::new("alg null", forger.with_header("alg", Value::Null)));
    for algorithm in ["HS256", "HS512"] {
        for (form, secret) in forger.public_key_as_secret() {
            let name = format!("{algorithm} with the public key {form}");
            bad.push(Bad::new(name, forger.mac(algorithm, &secret)));
        }
        bad.push(Bad::new(format!("{algorithm} with no secret"), forger.mac(algorithm, b"")));
    }
    bad
}

fn keys(forger: &Forger) -> Vec<Bad> {
    let kid = |name: &str, value: Value| Bad::new(name, forger.with_header("kid", value));
    let own = |name: &str, field: &str, value: Value| Bad::new(name, forger.sign_own(field, value));
    let (jwk, thumbprint) = forger.own_jwk();
    let address = format!("http://{}/keys", forger.listener);
    let known = forger.header["kid"].clone();
    vec![
        kid("kid unknown", thumbprint.as_str().into()),
        kid("kid a path", "../../../../dev/null".into()),
        kid("kid SQL", "x' UNION SELECT 'AAAA' --".into()),
        kid("kid an address", address.as_str().into()),
        kid("kid a number", 1.into()),
        kid("kid null", Value::Null),
        kid("kid empty", "".into()),
        kid("kid a list", json!([known])),
        kid("kid with a space", format!("{} ", known.as_str().unwrap()).into()),
        Bad::new("kid missing", forger.without_header("kid")),
        own("another key under our kid", "kid", known),
        own("another key under its own kid", "kid", thumbprint.into()),
        own("jku", "jku", address.as_str().into()),
        own("x5u", "x5u", address.as_str().into()),
        own("jwk", "jwk", jwk.clone()),
        own("x5c", "x5c", json!([jwk["x"]])),
        own("jku to a file", "jku", "file:///dev/zero".into()),
    ]
}

fn headers(forger: &Forger) -> Vec<Bad> {
    let with =
        |name: &str, field: &str, value: Value| Bad::new(name, forger.with_header(field, value));
    let kind = forger.header["typ"].as_str().unwrap().to_owned();
    let unencoded = format!("{}.", encoded(text(&forger.header)));
    let mut raw = forger.header.clone();
    raw.insert("b64".to_owned(), false.into());
    raw.insert("crit".to_owned(), json!(["b64"]));
    vec![
        with("typ JWT", "typ", "JWT".into()),
        with("typ at+jwt", "typ", "at+jwt".into()),
        with("typ in upper case", "typ", kind.to_uppercase().into()),
        with("typ with application/", "typ", format!("application/{kind}").into()),
        with("typ a number", "typ", 1.into()),
        with("typ null", "typ", Value::Null),
        Bad::new("typ missing", forger.without_header("typ")),
        with("crit of an unknown extension", "crit", json!(["anteroom"])),
        with("crit of a claim", "crit", json!(["exp"])),
        with("crit empty", "crit", json!([])),
        Bad::new("b64 false", forger.sign_parts(&encoded(text(&raw)), &text(&forger.claims))),
        Bad::new("zip", zipped(forger)),
        Bad::new("header no JSON", forger.sign("typ=jwt", text(&forger.claims))),
        Bad::new(
            "header a list",
            forger.sign(&json!([forger.header]).to_string(), text(&forger.claims)),
        ),
        Bad::new("header empty", forger.sign("", text(&forger.claims))),
        Bad::new("header alone", unencoded),
    ]
}

fn zipped(forger: &Forger) -> String {
    let mut header = forger.header.clone();
    header.insert("zip".to_owned(), "DEF".into());
    let mut writer = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    writer.write_all(text(&forger.claims).as_bytes()).unwrap();
    forger.sign(&text(&header), writer.finish().unwrap())
}

/// Of another queue or issuer.
fn places(forger: &Forger) -> Vec<Bad> {
    let (own, issuer) = (forger.claims["aud"].clone(), forger.claims["iss"].clone());
    let loud = |value: &Value| Value::from(value.as_str().unwrap().to_uppercase());
    let cases = [
        ("aud", "of another queue", json!("two")),
        ("aud", "of no queue", json!("nowhere")),
        ("aud", "a list", json!([own])),
        ("aud", "a list with another", json!(["two", own])),
        ("aud", "empty", json!("")),
        ("aud", "an empty list", json!([])),
        ("aud", "in upper case", loud(&own)),
        ("aud", "a wildcard", json!("*")),
        ("aud", "a number", json!(1)),
        ("aud", "null", Value::Null),
        ("iss", "another", json!("https://evil.example")),
        ("iss", "in upper case", loud(&issuer)),
        ("iss", "a list", json!([issuer])),
        ("iss", "empty", json!("")),
        ("iss", "null", Value::Null),
    ];
    let cases = cases.into_iter().map(|(claim, what, value)| {
        Bad::new(format!("{claim} {what}"), forger.with_claim(claim, value))
    });
    let missing = ["aud", "iss"];
    let missing =
        missing.map(|claim| Bad::new(format!("{claim} missing"), forger.without_claim(claim)));
    cases.chain(missing).collect()
}

/// Of nobody, or by no grant.
fn nobody(forger: &Forger) -> Vec<Bad> {
    let mut bad = Vec::new();
    for claim in ["sub", "jti"] {
        let cases = [
            ("a number", json!(1)),
            ("null", Value::Null),
            ("a list", json!([forger.claims[claim]])),
            ("an object", json!({})),
        ];
        for (what, value) in cases {
            bad.push(Bad::new(format!("{claim} {what}"), forger.with_claim(claim, value)));
        }
        bad.push(Bad::new(format!("{claim} missing"), forger.without_claim(claim)));
    }
    bad
}

/// Of a visitor or a grant whose name is none.
fn names(forger: &Forger) -> Vec<Bad> {
    let mut bad = Vec::new();
    for claim in ["sub", "jti"] {
        let own = forger.claims[claim].as_str().unwrap();
        let cases = [
            ("no UUID", "somebody".to_owned()),
            ("empty", String::new()),
            ("without hyphens", own.replace('-', "")),
            ("in upper case", own.to_uppercase()),
            ("in braces", format!("{{{own}}}")),
        ];
        for (what, value) in cases {
            bad.push(Bad::new(format!("{claim} {what}"), forger.with_claim(claim, value.into())));
        }
    }
    bad
}

fn times(forger: &Forger) -> Vec<Bad> {
    let mut bad = Vec::new();
    for claim in ["iat", "nbf", "exp"] {
        let own = forger.number(claim);
        let cases = [
            ("a text", json!(own.to_string())),
            ("a fraction", json!(own as f64 + 0.5)),
            ("null", Value::Null),
            ("true", json!(true)),
            ("a list", json!([own])),
            ("beyond all numbers", json!(1e300)),
        ];
        for (what, value) in cases {
            bad.push(Bad::new(format!("{claim} {what}"), forger.with_claim(claim, value)));
        }
        bad.push(Bad::new(format!("{claim} missing"), forger.without_claim(claim)));
    }
    let before = forger.number("iat") - DAY;
    bad.push(Bad::new("exp over since a day", forger.with_claim("exp", before.into())));
    bad.push(Bad::new("exp negative", forger.with_claim("exp", (-1).into())));
    bad.push(Bad::new("exp zero", forger.with_claim("exp", 0.into())));
    let later = forger.number("exp") + DAY;
    bad.push(Bad::new("nbf in a day", forger.with_claim("nbf", later.into())));
    bad
}

/// What is said twice: two readers could believe two things.
fn repetitions(forger: &Forger) -> Vec<Bad> {
    let (header, claims) = (text(&forger.header), text(&forger.claims));
    let twice = |object: &str, first: &str| object.replacen('{', &format!("{{{first},"), 1);
    let claim = |name: &str, first: &str| {
        Bad::new(format!("{name} twice"), forger.sign(&header, twice(&claims, first)))
    };
    let field = |name: &str, first: &str| {
        Bad::new(format!("{name} twice"), forger.sign(&twice(&header, first), &claims))
    };
    vec![
        claim("aud", r#""aud":"two""#),
        claim("exp", r#""exp":1"#),
        claim("sub", r#""sub":"00000000-0000-4000-8000-000000000000""#),
        claim("jti", r#""jti":"00000000-0000-4000-8000-000000000000""#),
        claim("iss", r#""iss":"evil""#),
        field("alg", r#""alg":"none""#),
        field("kid", r#""kid":"other""#),
        field("typ", r#""typ":"JWT""#),
    ]
}

/// Not three parts, or cut off.
fn parts(forger: &Forger) -> Vec<Bad> {
    let good = &forger.good;
    let [header, payload, signature] = forger.parts();
    let flattened = json!({"protected": header, "payload": payload, "signature": signature});
    let general =
        json!({"payload": payload, "signatures": [{"protected": header, "signature": signature}]});
    let mut bad = vec![
        Bad::new("nothing", ""),
        Bad::new("one dot", "."),
        Bad::new("two dots", ".."),
        Bad::new("one part", header),
        Bad::new("two parts", format!("{header}.{payload}")),
        Bad::new("no signature", format!("{header}.{payload}.")),
        Bad::new("no payload", format!("{header}..{signature}")),
        Bad::new("no header", format!(".{payload}.{signature}")),
        Bad::new("four parts", format!("{good}.{signature}")),
        Bad::new(
            "five parts, as a JWE",
            format!("{header}.{payload}.{signature}.{payload}.{signature}"),
        ),
        Bad::new("a dot after it", format!("{good}.")),
        Bad::new("a dot before it", format!(".{good}")),
        Bad::new("parts in another order", format!("{payload}.{header}.{signature}")),
        Bad::new("two of them, with a comma", format!("{good},{good}")),
        Bad::new("Bearer before it", format!("Bearer {good}")),
        Bad::new("flattened JSON", flattened.to_string()),
        Bad::new("general JSON", general.to_string()),
    ];
    for end in
        [1, header.len() / 2, header.len() + 1 + payload.len() / 2, good.len() - 43, good.len() - 1]
    {
        bad.push(Bad::new(format!("cut off after {end} bytes"), &good[..end]));
    }
    bad
}

/// The same bytes, spelled in another way.
fn spellings(forger: &Forger) -> Vec<Bad> {
    let good = &forger.good;
    let [header, payload, signature] = forger.parts();
    let padded = |part: &str| URL_SAFE.encode(crate::forger::part(&format!("{part}.."), 0));
    let cut = header.len() + 5;
    let inside = |what: &str| format!("{}{what}{}", &good[..cut], &good[cut..]);
    vec![
        Bad::new("signature padded", format!("{header}.{payload}.{}", padded(signature))),
        Bad::new("padding after it", format!("{good}==")),
        Bad::new("all parts padded", format!("{}=.{}=.{}=", header, payload, signature)),
        Bad::new("standard base64", standard(forger)),
        Bad::new("last character not canonical", last_character(good)),
        Bad::new("space before it", format!(" {good}")),
        Bad::new("space after it", format!("{good} ")),
        Bad::new("newline after it", format!("{good}\n")),
        Bad::new("space inside", inside(" ")),
        Bad::new("tab inside", inside("\t")),
        Bad::new("newline inside", inside("\n")),
        Bad::new("return and newline inside", inside("\r\n")),
        Bad::new("NUL inside", inside("\0")),
        Bad::new("NUL after it", format!("{good}\0")),
        Bad::new("equals sign inside", inside("=")),
        Bad::new("no character of base64 inside", inside("!")),
        Bad::new("not ASCII inside", inside("é")),
        Bad::new("full-width dots", good.replace('.', "．")),
        Bad::new("percent-encoded dots", good.replace('.', "%2E")),
        Bad::new("byte order mark before it", format!("\u{feff}{good}")),
        Bad::new("in quotes", format!("\"{good}\"")),
        Bad::new("in upper case", good.to_uppercase()),
    ]
}

/// With a character that only the other alphabet has; white space in the payload changes the
/// signature until there is one.
fn standard(forger: &Forger) -> String {
    let signed = (0..200).map(|spaces| {
        let payload = text(&forger.claims) + &" ".repeat(spaces);
        forger.sign(&text(&forger.header), payload)
    });
    let special = |token: &String| token.contains(['-', '_']);
    let token =
        signed.filter(special).map(|token| token.replace('-', "+").replace('_', "/")).next();
    let token = token.unwrap();
    assert!(STANDARD_NO_PAD.decode(token.rsplit('.').next().unwrap()).is_ok());
    token
}

/// The last character of 86 holds four bits that nobody needs: set, the bytes are the same to whoever
/// is lenient.
fn last_character(good: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (head, last) = good.split_at(good.len() - 1);
    let place = ALPHABET.iter().position(|letter| *letter == last.as_bytes()[0]).unwrap();
    format!("{head}{}", char::from(ALPHABET[place + 1]))
}

fn signatures(forger: &Forger) -> Vec<Bad> {
    let good = forger.signature();
    let [header, payload, signature] = forger.parts();
    let [flipped_first, flipped_last] = [0, 63].map(|at| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    });
    let (r, s) = good.split_at(32);
    // The point at zero, of which a verifier that forgets to look at the key would believe all.
    let mut neutral = [0; 64];
    neutral[0] = 1;
    let of = |other: &str| part(other, 2);
    let raised = forger.with_claim("exp", (forger.number("exp") + 3_600).into());
    let raised_payload = raised.split('.').nth(1).unwrap();
    let renamed = forger.with_header("kid", "x".into());
    let renamed_header = renamed.split('.').next().unwrap();
    let somebody = forger.another.split('.').nth(1).unwrap();
    vec![
        Bad::new("first bit of the signature flipped", forger.with_signature(flipped_first)),
        Bad::new("last bit of the signature flipped", forger.with_signature(flipped_last)),
        Bad::new("signature zero", forger.with_signature([0; 64])),
        Bad::new("signature all ones", forger.with_signature([255; 64])),
        Bad::new("signature of the neutral point", forger.with_signature(neutral)),
        Bad::new("signature of somebody else's", forger.with_signature(of(&forger.another))),
        Bad::new("signature of another message", forger.with_signature(of(&raised))),
        Bad::new("signature with S + L", forger.with_signature([r, &plus_order(s)].concat())),
        Bad::new("signature with its halves changed", forger.with_signature([s, r].concat())),
        Bad::new("half a signature", forger.with_signature(r)),
        Bad::new("signature twice", forger.with_signature([good.clone(), good.clone()].concat())),
        Bad::new(
            "a byte after the signature",
            forger.with_signature([good.as_slice(), &[0]].concat()),
        ),
        Bad::new("header altered", format!("{renamed_header}.{payload}.{signature}")),
        Bad::new("exp altered", format!("{header}.{raised_payload}.{signature}")),
        Bad::new("claims of somebody else's", format!("{header}.{somebody}.{signature}")),
    ]
}

/// S + L, which signs the same where S is not looked at (RFC 8032, 5.1.7 asks for it).
fn plus_order(s: &[u8]) -> Vec<u8> {
    let mut carry = 0;
    let sum = s.iter().zip(GROUP_ORDER).map(|(byte, order)| {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        carry = sum >> 8;
        sum.to_le_bytes()[0]
    });
    sum.collect()
}

/// Something else than claims, too much of them, or something else altogether.
fn contents(forger: &Forger) -> Vec<Bad> {
    let (header, claims) = (text(&forger.header), text(&forger.claims));
    let holds = |name: &str, payload: &[u8]| Bad::new(name, forger.sign(&header, payload));
    let padding = "x".repeat(64 * 1024);
    let mut nested = forger.header.clone();
    nested.insert("cty".to_owned(), "JWT".into());
    vec![
        holds("payload a list", json!([forger.claims]).to_string().as_bytes()),
        holds("payload a text", json!(claims).to_string().as_bytes()),
        holds("payload null", b"null"),
        holds("payload empty", b""),
        holds("payload an empty object", b"{}"),
        holds("payload no UTF-8", &[claims.as_bytes(), &[0xff]].concat()),
        holds("payload with more after it", format!("{claims}{claims}").as_bytes()),
        holds("payload cut off", &claims.as_bytes()[..claims.len() - 1]),
        Bad::new("nested", forger.sign(&text(&nested), &forger.good)),
        Bad::new("2,049 bytes long", long(forger, 2_049)),
        Bad::new("64 KB long", forger.with_claim("x", padding.into())),
        Bad::new("a UUID", "6f1c2f5e-7a7b-4d53-9d1c-0f5d8a3b2c11"),
        Bad::new("the word null", "null"),
        Bad::new("the word undefined", "undefined"),
        Bad::new("a path", "../../../../etc/passwd"),
        Bad::new("SQL", "' OR '1'='1"),
    ]
}

/// A good one but for its length, which white space brings about.
fn long(forger: &Forger, length: usize) -> String {
    let mut lengths = (0..length).map(|spaces| {
        forger.sign(&text(&forger.header), text(&forger.claims) + &" ".repeat(spaces))
    });
    lengths.find(|token| token.len() >= length).unwrap()
}
