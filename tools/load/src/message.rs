//! What visitors and servers say, as JSON.

use serde::Deserialize;

const UPDATE: &[u8] = br#"{"type":"QUEUE_UPDATE""#;

/// What a server said.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// The place is taken, or found again.
    Joined(String),
    /// How many are ahead, and how many wait in all.
    Update { count: u32, waiting: u32 },
    /// It is the visitor's turn.
    Admitted,
    /// The place is gone, and why.
    Ended(String),
    /// Something is wrong: a stable code.
    Error(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    r#type: String,
    connection_id: Option<String>,
    payload: Payload,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Payload {
    count: Option<u32>,
    waiting: Option<u32>,
    reason: Option<String>,
    code: Option<String>,
}

/// Reads a message. Nearly all are updates, whose numbers are found without a parser.
pub fn read(bytes: &[u8]) -> Option<Message> {
    if bytes.starts_with(UPDATE)
        && let Some(count) = number(bytes, b"\"count\":")
        && let Some(waiting) = number(bytes, b"\"waiting\":")
    {
        return Some(Message::Update { count, waiting });
    }
    let Envelope { r#type, connection_id, payload } = serde_json::from_slice(bytes).ok()?;
    match r#type.as_str() {
        "JOINED" => connection_id.map(Message::Joined),
        "QUEUE_UPDATE" => {
            Some(Message::Update { count: payload.count?, waiting: payload.waiting? })
        }
        "ADMITTED" => Some(Message::Admitted),
        "ENDED" => payload.reason.map(Message::Ended),
        "ERROR" => payload.code.map(Message::Error),
        _ => None,
    }
}

/// The number behind a key. No text of an update can hold a key with its quotation marks: they would
/// be escaped.
fn number(bytes: &[u8], key: &[u8]) -> Option<u32> {
    let start = bytes.windows(key.len()).position(|window| window == key)? + key.len();
    let digits = bytes.get(start..)?.iter().take_while(|byte| byte.is_ascii_digit());
    let mut number = None;
    for digit in digits {
        number =
            Some(number.unwrap_or(0_u32).checked_mul(10)?.checked_add(u32::from(digit - b'0'))?);
    }
    number
}

/// Says JOIN, with random bits as the browser's key.
pub fn join(key: u128) -> String {
    // The version and the variant of a random UUID (RFC 9562).
    let key = key & !(0xf << 76) & !(0b11 << 62) | 0x4 << 76 | 0b10 << 62;
    let hex = format!("{key:032x}");
    let (a, b, c, d, e) = (&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    format!(r#"{{"type":"JOIN","joinKey":"{a}-{b}-{c}-{d}-{e}"}}"#)
}

/// Says RECONNECT.
pub fn reconnect(connection_id: &str) -> String {
    format!(r#"{{"type":"RECONNECT","connectionId":"{connection_id}"}}"#)
}

/// Says LEAVE.
pub const LEAVE: &str = r#"{"type":"LEAVE"}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_are_read_with_and_without_a_parser() {
        let expected = Some(Message::Update { count: 1_243, waiting: 51_234 });
        let numbers = r#""payload":{"position":1244,"count":1243,"waiting":51234,"seconds":null}"#;
        assert_eq!(read(format!(r#"{{"type":"QUEUE_UPDATE",{numbers}}}"#).as_bytes()), expected);
        assert_eq!(read(format!(r#"{{{numbers},"type":"QUEUE_UPDATE"}}"#).as_bytes()), expected);
        assert_eq!(read(br#"{"type":"QUEUE_UPDATE","payload":{"count":1}}"#), None);
        assert_eq!(read(br#"{"type":"QUEUE_UPDATE","payload":{"count":4294967296}}"#), None);
    }

    #[test]
    fn all_else_is_read() {
        let joined = br#"{"type":"JOINED","connectionId":"a","payload":{"queue":"demo"}}"#;
        assert_eq!(read(joined), Some(Message::Joined("a".to_owned())));
        let ended = br#"{"type":"ENDED","payload":{"reason":"left"}}"#;
        assert_eq!(read(ended), Some(Message::Ended("left".to_owned())));
        assert_eq!(read(b"{}"), None);
    }

    #[test]
    fn a_join_key_is_a_random_uuid() {
        let said = join(0);
        assert_eq!(said, r#"{"type":"JOIN","joinKey":"00000000-0000-4000-8000-000000000000"}"#);
        let said = join(u128::MAX);
        assert_eq!(said, r#"{"type":"JOIN","joinKey":"ffffffff-ffff-4fff-bfff-ffffffffffff"}"#);
    }
}
