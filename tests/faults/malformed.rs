//! What no client says: frames and messages that break the protocol, each drawn from a seed and a
//! number, and what must come of it.

use serde_json::{Value, json};

use crate::raw::{
    BINARY, CLOSE, GOES_ON, PING, TEXT, TEXT_BEGUN, frame, header, join, masked, text,
};

/// Of a message, and of a control frame.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;
const CONTROL_BYTES_MAX: usize = 125;

/// What is said, and what must come of it.
pub struct Case {
    pub what: &'static str,
    pub bytes: Vec<u8>,
    pub ends: Ends,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ends {
    /// Closed with this code, after an ERROR with this one.
    With(u16, &'static str),
    /// It may be good by chance, or not whole: once nothing more is said, the socket is over, and if it
    /// is closed with a code, with one that a broken frame or message has.
    Somehow,
    /// A close is answered by the same.
    AsSaid(u16),
    /// It is good.
    Joined,
}

/// Codes of what is broken.
pub const BROKEN: [u16; 4] = [1002, 1007, 1008, 1009];

const PROTOCOL: Ends = Ends::With(1002, "bad_message");
const NOT_UTF8: Ends = Ends::With(1007, "bad_message");
const POLICY: Ends = Ends::With(1008, "bad_message");
const TOO_BIG: Ends = Ends::With(1009, "bad_message");

/// Random numbers that a seed decides (xorshift64*).
pub struct Dice(u64);

impl Dice {
    /// Those of one case of a seed.
    pub fn new(seed: u64, number: usize) -> Self {
        let mixed = seed ^ (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut dice = Self(mixed.max(1));
        // The first few are much like those of the neighbour.
        for _ in 0..8 {
            dice.next();
        }
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from((self.next() >> 32) % end as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.byte()).collect()
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Text that is UTF-8, and no JSON that says anything.
    fn letters(&mut self, length: usize) -> String {
        (0..length).map(|_| self.one(&['a', 'Z', ' ', '"', '{', '\\', '한', '\u{1}'])).collect()
    }
}

/// A case before JOIN, with the key of a visitor who may join, and one on a socket that is in line.
pub fn case(dice: &mut Dice, key: &str, is_in_line: bool) -> Case {
    let (what, bytes, ends) = match dice.below(3) {
        0 => broken_frame(dice),
        1 => broken_message(dice),
        _ => out_of_place(dice, key, is_in_line),
    };
    Case { what, bytes, ends }
}

type Drawn = (&'static str, Vec<u8>, Ends);

fn broken_frame(dice: &mut Dice) -> Drawn {
    let good = br#"{"type":"LEAVE"}"#;
    match dice.below(16) {
        0 => (
            "random bytes",
            {
                let length = 1 + dice.below(300);
                dice.bytes(length)
            },
            Ends::Somehow,
        ),
        1 => {
            let first = dice.one(&[0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x89, 0x8a, 0x83, 0xf1]);
            let length = dice.below(200);
            let payload = dice.bytes(length);
            ("a random frame with a mask", frame(first, &payload), Ends::Somehow)
        }
        2 => ("reserved bits", frame(TEXT | dice.one(&[0x10, 0x20, 0x40, 0x70]), good), PROTOCOL),
        3 => {
            let opcode = dice.one(&[3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf]);
            let length = dice.below(100);
            let payload = dice.bytes(length);
            ("a reserved opcode", frame(0x80 | opcode, &payload), PROTOCOL)
        }
        4 => ("no mask", [header(TEXT, good.len() as u64), good.to_vec()].concat(), PROTOCOL),
        5 => {
            let more = 1 + dice.below(1_000) as u64;
            ("longer than what comes", masked(TEXT, good.len() as u64 + more, good), Ends::Somehow)
        }
        6 => ("shorter than what comes", masked(TEXT, dice.below(good.len()) as u64, good), POLICY),
        7 => {
            let whole = frame(TEXT, good);
            let length = 1 + dice.below(whole.len() - 1);
            ("half a frame", whole[..length].to_vec(), Ends::Somehow)
        }
        8 => {
            let longer = [(1 << 16) + 1, 1 << 31, 1 << 32, 1 << 62, u64::MAX >> 1];
            let length = dice.one(&longer) + dice.below(1_000) as u64;
            ("a huge length", masked(TEXT, length, good), TOO_BIG)
        }
        9 => ("the highest bit of a length", masked(TEXT, 1 << 63 | 5, good), TOO_BIG),
        10 => {
            let first = dice.one(&[PING & 0x7f, CLOSE & 0x7f, 0x0a]);
            ("a control frame in parts", frame(first, b"x"), PROTOCOL)
        }
        11 => {
            let length = CONTROL_BYTES_MAX + 1 + dice.below(1_000);
            (
                "a long control frame",
                frame(dice.one(&[PING, CLOSE, 0x8a]), &vec![b'x'; length]),
                PROTOCOL,
            )
        }
        12 => ("nothing that goes on", frame(dice.one(&[GOES_ON, 0x80]), good), PROTOCOL),
        13 => {
            let second = dice.one(&[TEXT, TEXT_BEGUN]);
            (
                "one within another",
                [frame(TEXT_BEGUN, b"{"), frame(second, good)].concat(),
                PROTOCOL,
            )
        }
        14 => bad_close(dice),
        _ => {
            let length = dice.below(MESSAGE_BYTES_MAX);
            let payload = dice.bytes(length);
            ("binary", frame(BINARY, &payload), POLICY)
        }
    }
}

fn bad_close(dice: &mut Dice) -> Drawn {
    let code = |code: u16, reason: &[u8]| [&code.to_be_bytes()[..], reason].concat();
    match dice.below(4) {
        0 => ("half a close code", frame(CLOSE, &dice.bytes(1)), PROTOCOL),
        1 => {
            let not_sent = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535];
            (
                "a close code that nobody sends",
                frame(CLOSE, &code(dice.one(&not_sent), b"")),
                PROTOCOL,
            )
        }
        2 => ("a reason that is no UTF-8", frame(CLOSE, &code(1000, &[0xff, 0xfe])), NOT_UTF8),
        _ => {
            let sent = dice.one(&[1000, 1001, 1002, 1003, 1011, 3000, 3999, 4000, 4999]);
            ("a good close", frame(CLOSE, &code(sent, "끝".as_bytes())), Ends::AsSaid(sent))
        }
    }
}

fn broken_message(dice: &mut Dice) -> Drawn {
    match dice.below(8) {
        0 => {
            let mut payload = br#"{"type":"LEAVE"}"#.to_vec();
            let wrong: [&[u8]; 6] = [
                &[0xff],
                &[0xc0, 0x80],
                &[0xed, 0xa0, 0x80],
                &[0xf4, 0x90, 0x80, 0x80],
                &[0xe2, 0x82],
                &[0x80],
            ];
            let at = dice.below(payload.len());
            payload.splice(at..at, dice.one(&wrong).iter().copied());
            ("no UTF-8", frame(TEXT, &payload), NOT_UTF8)
        }
        1 => {
            // Whole only when all parts are there.
            let (begun, rest) = ([frame(TEXT_BEGUN, &[0xed])], [frame(0x80, &[0xa0, 0x80])]);
            ("no UTF-8, in parts", [begun, rest].concat().concat(), NOT_UTF8)
        }
        2 => {
            let length = 1 + dice.below(500);
            ("no JSON", text(&format!("x{}", dice.letters(length))), POLICY)
        }
        3 => {
            let whole = r#"{"type":"JOIN","joinKey":"0b9f9a0c-5d5c-4f0e-8f5c-0d6b8a4c7e11"}"#;
            ("half of JSON", text(&whole[..dice.below(whole.len())]), POLICY)
        }
        4 => {
            let length = MESSAGE_BYTES_MAX + 1 + dice.below(MESSAGE_BYTES_MAX);
            ("too long", text(&"x".repeat(length)), TOO_BIG)
        }
        5 => {
            let part = 50 + dice.below(1_000);
            let parts = (0..=MESSAGE_BYTES_MAX / part).map(|_| frame(GOES_ON, &vec![b'x'; part]));
            let parts: Vec<u8> = parts.flatten().collect();
            ("too long in parts", [frame(TEXT_BEGUN, b""), parts].concat(), too_many_parts(part))
        }
        6 => ("deep", text(&deep(dice)), POLICY),
        _ => ("of wrong types", text(&wrong_types(dice).to_string()), POLICY),
    }
}

/// In small parts, too many frames come before too many bytes.
fn too_many_parts(part: usize) -> Ends {
    const FRAMES_MAX: usize = 64;
    let whole = MESSAGE_BYTES_MAX / part;
    if whole + 1 > FRAMES_MAX { Ends::With(1008, "rate_limited") } else { TOO_BIG }
}

/// Deeper than a reader should follow.
fn deep(dice: &mut Dice) -> String {
    let depth = 200 + dice.below(1_500);
    match dice.below(3) {
        0 => "[".repeat(depth),
        1 => format!("{}1{}", "[".repeat(depth), "]".repeat(depth)),
        _ => format!(r#"{{"type":"JOIN","x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth)),
    }
}

fn wrong_types(dice: &mut Dice) -> Value {
    let wrong = [json!(5), json!(1.5), json!(true), json!([]), json!({}), json!(["JOIN"])];
    let wrong = wrong[dice.below(wrong.len())].clone();
    match dice.below(8) {
        0 => json!({ "type": wrong }),
        1 => json!({"type": "JOIN", "joinKey": wrong}),
        2 => json!({"type": "RECONNECT", "connectionId": wrong}),
        3 => json!({"type": "RECONNECT"}),
        4 => json!({"joinKey": "0b9f9a0c-5d5c-4f0e-8f5c-0d6b8a4c7e11"}),
        5 => json!([{"type": "JOIN"}]),
        6 => json!({"type": dice.letters(10)}),
        _ => json!({"type": dice.one(&["join", "JOIN ", "", "QUEUE_UPDATE", "JOINED", "ERROR"])}),
    }
}

/// What is understood, and does not belong here.
fn out_of_place(dice: &mut Dice, key: &str, is_in_line: bool) -> Drawn {
    let forged_id = |dice: &mut Dice| {
        let letters = [b'A', b'b', b'9', b'-', b'_'];
        let length = dice.one(&[0, 1, 33, 50, 51, 52, 400]);
        let id: String = (0..length).map(|_| char::from(dice.one(&letters))).collect();
        text(&json!({"type": "RECONNECT", "connectionId": id}).to_string())
    };
    if is_in_line {
        return match dice.below(4) {
            0 => ("JOIN in line", join(key), POLICY),
            1 => ("JOIN of another in line", text(r#"{"type":"JOIN"}"#), POLICY),
            2 => ("a forged RECONNECT in line", forged_id(dice), POLICY),
            _ => ("a whole JOIN in parts in line", in_parts(key), POLICY),
        };
    }
    match dice.below(7) {
        0 => ("LEAVE first", text(r#"{"type":"LEAVE"}"#), POLICY),
        1 => ("a forged RECONNECT", forged_id(dice), Ends::With(1008, "unknown_connection")),
        2 => {
            let keys = ["", "mine", "0b9f9a0c-5d5c-1f0e-8f5c-0d6b8a4c7e11", "0b9f9a0c"];
            ("a key that is none", join(dice.one(&keys)), POLICY)
        }
        3 => ("JOIN twice", [join(key), join(key)].concat(), POLICY),
        4 => {
            let x = dice.letters(50);
            let message = json!({"type": "JOIN", "joinKey": key, "x": {"y": [x, null]}, "": 1});
            ("unknown fields", text(&message.to_string()), Ends::Joined)
        }
        5 => {
            let pad = MESSAGE_BYTES_MAX - json!({"type": "JOIN", "joinKey": key}).to_string().len();
            let padding = " ".repeat(pad);
            let message = format!(r#"{{"joinKey":"{key}",{padding}"type":"JOIN"}}"#);
            assert_eq!(message.len(), MESSAGE_BYTES_MAX);
            ("as long as may be", text(&message), Ends::Joined)
        }
        _ => ("a whole JOIN in parts", in_parts(key), Ends::Joined),
    }
}

/// With a question between the parts, and one part that is empty.
fn in_parts(key: &str) -> Vec<u8> {
    let message = json!({"type": "JOIN", "joinKey": key}).to_string();
    let (first, last) = message.as_bytes().split_at(20);
    [frame(TEXT_BEGUN, first), frame(GOES_ON, b""), frame(PING, b"there?"), frame(0x80, last)]
        .concat()
}
