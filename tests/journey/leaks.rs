//! Looks for secrets in whatever was written, in every form in which one could have got there.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// What is shorter could stand somewhere by chance.
const SECRET_BYTES_MIN: usize = 16;
/// By so many bytes at its beginning a form is looked for.
const BEGINNING: usize = 8;
/// Of what is around a leak, so much is shown.
const AROUND: usize = 120;

/// Secrets, by what each is.
#[derive(Default)]
pub struct Secrets(Vec<(String, Vec<u8>)>);

impl Secrets {
    pub fn add(&mut self, what: &str, secret: impl AsRef<[u8]>) {
        let secret = secret.as_ref();
        assert!(secret.len() >= SECRET_BYTES_MIN, "{what} is too short to be looked for");
        self.0.push((what.to_owned(), secret.to_vec()));
    }

    /// A text, and the bytes that it stands for.
    pub fn add_hex(&mut self, what: &str, text: &str) {
        self.add(what, text);
        let digits: Vec<char> = text.chars().collect();
        let byte =
            |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
        self.add(&format!("{what}, its bytes"), digits.chunks(2).map(byte).collect::<Vec<_>>());
    }

    /// A key that is a UUID.
    pub fn add_uuid(&mut self, what: &str, text: &str) {
        let uuid = uuid::Uuid::parse_str(text).unwrap();
        self.add(what, text);
        self.add(&format!("{what}, without hyphens"), uuid.simple().to_string());
        self.add(&format!("{what}, its bytes"), uuid.as_bytes());
    }

    /// A connection id, of which the visitor's public name and the hand are no secret.
    pub fn add_connection_id(&mut self, text: &str) {
        self.add("connection id", text);
        self.add("connection id, its MAC", &text[30..]);
        let bytes = URL_SAFE_NO_PAD.decode(text).unwrap();
        self.add("connection id, the bytes of its MAC", &bytes[22..]);
    }

    /// A token or a pass, which nobody may have, and neither may they its parts.
    pub fn add_jwt(&mut self, what: &str, text: &str) {
        self.add(what, text);
        let mut parts = text.split('.').skip(1);
        let (payload, signature) = (parts.next().unwrap(), parts.next().unwrap());
        self.add(&format!("{what}, its payload"), payload);
        self.add(&format!("{what}, its signature"), signature);
        self.add(&format!("{what}, half of its signature"), &signature[..signature.len() / 2]);
        let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        self.add(&format!("{what}, the bytes of its signature"), bytes);
    }

    /// A private key in PEM.
    pub fn add_pem(&mut self, what: &str, text: &str) {
        let lines = text.lines().filter(|line| !line.starts_with("-----"));
        for line in lines.clone() {
            self.add(&format!("{what}, a line"), line);
        }
        let der = STANDARD.decode(lines.collect::<String>()).unwrap();
        // The seed is the last 32 bytes before what may follow it (RFC 8410, 7).
        let begin = der.windows(2).position(|pair| pair == [4, 32]).unwrap() + 2;
        self.add(&format!("{what}, its seed"), &der[begin..begin + 32]);
        self.add(&format!("{what}, as DER"), der);
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(|(_, secret)| secret).collect::<BTreeSet<_>>().len()
    }

    /// Prepares the search.
    pub fn search(&self) -> Search {
        let mut search = Search {
            forms: Vec::new(),
            by_beginning: BTreeMap::new(),
            begins: vec![false; 1 << 16],
        };
        for (what, secret) in &self.0 {
            for (form, bytes) in forms(secret) {
                search.begins[pair(&bytes)] = true;
                let beginning = beginning(&bytes).unwrap();
                search.by_beginning.entry(beginning).or_default().push(search.forms.len());
                search.forms.push((format!("{what}, {form}"), bytes));
            }
        }
        search
    }
}

/// Every form of every secret.
pub struct Search {
    forms: Vec<(String, Vec<u8>)>,
    by_beginning: BTreeMap<[u8; BEGINNING], Vec<usize>>,
    /// Whether any form begins with these two bytes.
    begins: Vec<bool>,
}

impl Search {
    /// Which secrets stand in this, in which form, and what is around them.
    pub fn find(&self, text: &[u8]) -> Vec<String> {
        let mut found: BTreeMap<usize, String> = BTreeMap::new();
        for at in 0..text.len().saturating_sub(BEGINNING - 1) {
            let rest = &text[at..];
            if !self.begins[pair(rest)] {
                continue;
            }
            let candidates =
                beginning(rest).and_then(|beginning| self.by_beginning.get(&beginning));
            for &number in candidates.into_iter().flatten() {
                let (_, bytes) = &self.forms[number];
                if rest.starts_with(bytes) {
                    let around = &text[at.saturating_sub(AROUND)..text.len().min(at + AROUND)];
                    found
                        .entry(number)
                        .or_insert_with(|| String::from_utf8_lossy(around).into_owned());
                }
            }
        }
        let told = |(number, around): (usize, String)| {
            let (name, _) = &self.forms[number];
            format!("{name}: …{around}…")
        };
        found.into_iter().map(told).collect()
    }

    pub fn forms(&self) -> usize {
        self.forms.len()
    }

    /// A text that has every form of every secret in it.
    pub fn everything(&self) -> Vec<u8> {
        let forms = self.forms.iter().flat_map(|(_, bytes)| [bytes.as_slice(), b"\n"].concat());
        forms.collect()
    }
}

fn pair(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) << 8 | usize::from(bytes[1])
}

fn beginning(bytes: &[u8]) -> Option<[u8; BEGINNING]> {
    bytes.first_chunk().copied()
}

/// A secret as it is, and as programs write bytes.
fn forms(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let list: Vec<String> = secret.iter().map(u8::to_string).collect();
    let mut forms = vec![
        ("as it is", secret.to_vec()),
        ("as hexadecimal digits", hex.clone().into_bytes()),
        ("as hexadecimal digits in upper case", hex.to_uppercase().into_bytes()),
        ("as a list of numbers", list.join(", ").into_bytes()),
        ("in base64, with padding", STANDARD.encode(secret).into_bytes()),
    ];
    // Within something longer that is in base64, it may begin at any of three places.
    for shift in 0..3 {
        let encoded = STANDARD_NO_PAD.encode([&b"\0\0\0"[..shift], secret].concat());
        let end = encoded.len() - usize::from(!(shift + secret.len()).is_multiple_of(3));
        let inner = &encoded[[0, 2, 3][shift]..end];
        forms.push(("within base64", inner.as_bytes().to_vec()));
        let url = inner.replace('+', "-").replace('/', "_");
        forms.push(("within base64url", url.into_bytes()));
    }
    let percent = |upper: bool| -> Vec<u8> {
        let escaped = secret.iter().map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(*byte).to_string()
            }
            byte if upper => format!("%{byte:02X}"),
            byte => format!("%{byte:02x}"),
        });
        escaped.collect::<String>().into_bytes()
    };
    forms.push(("percent-encoded", percent(true)));
    forms.push(("percent-encoded in lower case", percent(false)));
    forms.push(("escaped as in a string", secret.escape_ascii().to_string().into_bytes()));
    let mut seen = BTreeSet::new();
    forms.retain(|(_, bytes)| seen.insert(bytes.clone()));
    forms
}

#[test]
fn a_secret_is_found_in_every_form_and_nothing_in_what_has_none() {
    let mut secrets = Secrets::default();
    secrets.add_uuid("key", "6f1c2f5e-7a7b-4d53-9d1c-0f5d8a3b2c11");
    secrets
        .add("bytes", [7, 255, 0, 128, 34, 92, 10, 13, 200, 201, 202, 203, 204, 205, 206, 207, 1]);
    let search = secrets.search();
    let found = search.find(&search.everything());
    for (name, _) in &search.forms {
        assert!(found.iter().any(|found| found.starts_with(name)), "{name} is not found");
    }
    for shift in 0..3 {
        let longer =
            [&b"abc"[..shift], b"Bearer 6f1c2f5e-7a7b-4d53-9d1c-0f5d8a3b2c11, and more"].concat();
        let found = search.find(STANDARD.encode(longer).as_bytes());
        assert!(!found.is_empty(), "in base64 from {shift} on");
    }
    let other = b"6f1c2f5e-7a7b-4d53-9d1c-0f5d8a3b2c12 and nothing else that is secret";
    assert_eq!(search.find(other), Vec::<String>::new());
}
