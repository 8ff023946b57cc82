//! WebSocket by hand (RFC 6455): the request for an upgrade, frames of a client, frames of a server.

use std::fmt;

/// The key that the standard gives as a sample. Every visitor may send the same one.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// What a server answers to it.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
const RESERVED: u8 = 0x70;
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// A length of this says that the real one follows in two bytes, one more in eight.
const LENGTH_IN_TWO: u8 = 126;
const LENGTH_IN_EIGHT: u8 = 127;
/// No server says as much to a visitor.
const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// The head of an answer is not longer than this.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// What a server sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A message.
    Text(&'a [u8]),
    /// A question whether we are there.
    Ping(&'a [u8]),
    /// An answer to such a question.
    Pong,
    /// The end: the code, if one is given, and the reason.
    Close(Option<u16>, &'a [u8]),
}

/// What came makes no sense.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken(&'static str);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The request for an upgrade.
pub fn request(host: &str, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

/// What a server answered to the request.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// It speaks WebSocket from the byte after these.
    Upgraded(usize),
    /// It does not; the status.
    Refused(u16),
}

/// The answer at the beginning of what came; `None` until all of its head is there.
pub fn answer(bytes: &[u8]) -> Result<Option<Answer>, Broken> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if bytes.len() > HEAD_BYTES_MAX { Err(Broken("a long head")) } else { Ok(None) };
    };
    let head = str::from_utf8(&bytes[..end]).map_err(|_| Broken("a head that is not text"))?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    match status {
        Some(101) if head.contains(ACCEPT) => Ok(Some(Answer::Upgraded(end + 4))),
        Some(101) => Err(Broken("an answer to another key")),
        Some(status) => Ok(Some(Answer::Refused(status))),
        None => Err(Broken("an answer without a status")),
    }
}

/// The first frame of what came, and how many bytes it has; `None` until all of it is there.
pub fn next(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Broken> {
    let [kind, length, rest @ ..] = bytes else { return Ok(None) };
    if kind & FINAL == 0 || kind & RESERVED != 0 || length & MASKED != 0 {
        return Err(Broken("a frame in pieces, masked or extended"));
    }
    let (length, start) = match (*length, rest) {
        (LENGTH_IN_EIGHT, _) => return Err(Broken("a frame of more than 64 KiB")),
        (LENGTH_IN_TWO, [high, low, ..]) => (usize::from(u16::from_be_bytes([*high, *low])), 4),
        (LENGTH_IN_TWO, _) => return Ok(None),
        (short, _) => (usize::from(short), 2),
    };
    debug_assert!(length < PAYLOAD_BYTES_MAX);
    let Some(payload) = bytes.get(start..start + length) else { return Ok(None) };
    let frame = match (kind & 0x0f, payload) {
        (TEXT, _) => Frame::Text(payload),
        (PING, _) => Frame::Ping(payload),
        (PONG, _) => Frame::Pong,
        (CLOSE, []) => Frame::Close(None, payload),
        (CLOSE, [high, low, reason @ ..]) => {
            Frame::Close(Some(u16::from_be_bytes([*high, *low])), reason)
        }
        _ => return Err(Broken("a frame of a kind that is not sent here")),
    };
    Ok(Some((frame, start + length)))
}

/// A message.
pub fn text(payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    masked(TEXT, payload, mask)
}

/// The answer to a ping.
pub fn pong(payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    masked(PONG, payload, mask)
}

/// The end.
pub fn close(code: u16, mask: [u8; 4]) -> Vec<u8> {
    masked(CLOSE, &code.to_be_bytes(), mask)
}

fn masked(kind: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(payload.len() + 8);
    bytes.push(FINAL | kind);
    match u8::try_from(payload.len()) {
        Ok(length) if length < LENGTH_IN_TWO => bytes.push(MASKED | length),
        _ => {
            let length = u16::try_from(payload.len()).expect("a visitor says little");
            bytes.push(MASKED | LENGTH_IN_TWO);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "Hello" of the standard, a ping, a long text and a close, as a server sends them.
    fn stream() -> Vec<u8> {
        let mut bytes = b"\x81\x05Hello\x89\x02hi".to_vec();
        bytes.extend(b"\x81\x7e\x00\xc8");
        bytes.extend([b'x'; 200]);
        bytes.extend(b"\x88\x03\x03\xf47");
        bytes
    }

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let whole = stream();
        for cut in 1..=whole.len() {
            let mut seen = Vec::new();
            let mut bytes = Vec::new();
            for part in whole.chunks(cut) {
                bytes.extend(part);
                while let Some((frame, length)) = next(&bytes).unwrap() {
                    seen.push(format!("{frame:?}"));
                    bytes.drain(..length);
                }
            }
            assert!(bytes.is_empty(), "cut at {cut}: {} bytes are left", bytes.len());
            let expected = [
                format!("{:?}", Frame::Text(b"Hello")),
                format!("{:?}", Frame::Ping(b"hi")),
                format!("{:?}", Frame::Text(&[b'x'; 200])),
                format!("{:?}", Frame::Close(Some(1012), b"7")),
            ];
            assert_eq!(seen, expected, "cut at {cut}");
        }
    }

    #[test]
    fn what_no_server_may_send_is_refused() {
        for bytes in [
            &b"\x01\x05Hello"[..],
            b"\x81\x85\0\0\0\0Hello",
            b"\xc1\x05Hello",
            b"\x82\x01x",
            b"\x88\x01x",
            b"\x81\x7f\0\0\0\0\0\x01\0\0",
        ] {
            assert!(next(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_sent_is_masked_as_in_the_standard() {
        let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(text(b"Hello", [0x37, 0xfa, 0x21, 0x3d]), hello);
        assert_eq!(text(&[0; 200], [0; 4])[..4], [0x81, 0xfe, 0, 200]);
    }

    #[test]
    fn an_answer_is_read_when_its_head_is_there() {
        let good = format!("HTTP/1.1 101 X\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n\x01");
        for length in 0..good.len() - 1 {
            assert_eq!(answer(&good.as_bytes()[..length]), Ok(None));
        }
        assert_eq!(answer(good.as_bytes()), Ok(Some(Answer::Upgraded(good.len() - 1))));
        assert_eq!(answer(b"HTTP/1.1 503 No\r\n\r\n"), Ok(Some(Answer::Refused(503))));
        assert!(answer(b"HTTP/1.1 101 X\r\n\r\n").is_err());
        assert!(answer(b"SSH-2.0-x\r\n\r\n").is_err());
    }
}
