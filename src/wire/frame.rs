//! Frames of a visitor's socket (RFC 6455, section 5), without any input or output: bytes that came
//! are put in, what was said comes out; what is to be said is written behind other bytes.
//!
//! Headers are read and written by tungstenite; a whole connection of its kind would hold buffers for
//! each of many thousand sockets that are silent nearly all the time.

use std::io::Cursor;

use tungstenite::Error;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::FrameHeader;
pub use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Bytes of a visitor's message; theirs are some 100.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// The longest header that a frame can have.
const HEADER_BYTES_MAX: usize = 14;
/// Bytes that a frame which is allowed can have.
pub const FRAME_BYTES_MAX: usize = HEADER_BYTES_MAX + MESSAGE_BYTES_MAX;
/// Bytes that a control frame may carry (RFC 6455, 5.5).
const CONTROL_BYTES_MAX: usize = 125;
/// Payloads below this have their length in the header's second byte.
const SHORT_BYTES: usize = 126;

/// Something that the other side said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A whole message.
    Text(String),
    /// A part of a message that goes on. It says nothing yet, and is counted like any frame.
    Part,
    /// A question whether we are there, and what to answer with.
    Ping(Vec<u8>),
    /// A sign of life.
    Pong,
    /// The end, and perhaps why.
    Close(Option<CloseCode>),
}

/// What came breaks the protocol. Nothing after it can be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A message is too long.
    #[error("a message has at most {MESSAGE_BYTES_MAX} bytes")]
    TooLong,
    /// A text is not UTF-8.
    #[error("a text is UTF-8")]
    NotUtf8,
    /// A message is binary.
    #[error("a message is a text frame")]
    NotText,
    /// A frame is not as the protocol says.
    #[error("{0}")]
    Frame(&'static str),
}

impl Broken {
    /// The code to close with.
    pub fn code(self) -> CloseCode {
        match self {
            Self::TooLong => CloseCode::Size,
            Self::NotUtf8 => CloseCode::Invalid,
            Self::NotText => CloseCode::Policy,
            Self::Frame(_) => CloseCode::Protocol,
        }
    }
}

/// What came of one socket and is not understood yet. It holds no more than one frame that is not
/// whole, and one message that is not, each of at most [`MESSAGE_BYTES_MAX`].
#[derive(Debug, Default)]
pub struct Inbound {
    bytes: Vec<u8>,
    /// How many of the bytes have been understood.
    read: usize,
    /// The message so far whose last fragment has not come.
    text: Option<Vec<u8>>,
}

impl Inbound {
    /// Takes bytes that came. Whatever is whole should be taken out before more is put in.
    pub fn put(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.read);
        self.read = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next thing that was said; `None` until more has come.
    pub fn next_said(&mut self) -> Result<Option<Said>, Broken> {
        let rest = self.bytes.get(self.read..).unwrap_or_default();
        let mut cursor = Cursor::new(rest);
        let header = FrameHeader::parse(&mut cursor).map_err(|error| broken(&error))?;
        let Some((header, length)) = header else { return Ok(None) };
        let (begin, length) = (cursor.position(), check(&header, length)?);
        let begin = usize::try_from(begin).map_err(|_| Broken::TooLong)?;
        let Some(payload) = rest.get(begin..begin + length) else { return Ok(None) };
        let mask = header.mask.unwrap_or_default();
        let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        let payload: Vec<u8> = payload.collect();
        self.read += begin + length;
        self.frame(&header, payload).map(Some)
    }

    /// Whether everything that came is understood, so that nothing needs to be kept.
    pub fn is_empty(&self) -> bool {
        self.read == self.bytes.len() && self.text.is_none()
    }

    /// Bytes that are kept of what is not whole.
    pub fn kept(&self) -> usize {
        self.bytes.len() - self.read + self.text.as_ref().map_or(0, Vec::len)
    }

    /// Forgets what is left.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.read = 0;
        self.text = None;
    }

    fn frame(&mut self, header: &FrameHeader, payload: Vec<u8>) -> Result<Said, Broken> {
        match header.opcode {
            OpCode::Control(Control::Ping) => Ok(Said::Ping(payload)),
            OpCode::Control(Control::Pong) => Ok(Said::Pong),
            OpCode::Control(Control::Close) => close_code(&payload).map(Said::Close),
            OpCode::Data(Data::Binary) => Err(Broken::NotText),
            OpCode::Data(Data::Text) if self.text.is_some() => {
                Err(Broken::Frame("a message began before the one before it had ended"))
            }
            OpCode::Data(Data::Text) => self.fragment(payload, header.is_final),
            OpCode::Data(Data::Continue) => {
                let begun = self.text.take();
                let mut text = begun.ok_or(Broken::Frame("nothing was begun that goes on"))?;
                if text.len() + payload.len() > MESSAGE_BYTES_MAX {
                    return Err(Broken::TooLong);
                }
                text.extend(payload);
                self.fragment(text, header.is_final)
            }
            OpCode::Control(Control::Reserved(_)) | OpCode::Data(Data::Reserved(_)) => {
                Err(Broken::Frame(UNKNOWN_OPCODE))
            }
        }
    }

    fn fragment(&mut self, text: Vec<u8>, is_final: bool) -> Result<Said, Broken> {
        if is_final {
            let text = String::from_utf8(text).map_err(|_| Broken::NotUtf8)?;
            return Ok(Said::Text(text));
        }
        self.text = Some(text);
        Ok(Said::Part)
    }
}

const UNKNOWN_OPCODE: &str = "a frame has an unknown opcode";

/// The length of an allowed frame.
fn check(header: &FrameHeader, length: u64) -> Result<usize, Broken> {
    if header.rsv1 || header.rsv2 || header.rsv3 {
        return Err(Broken::Frame("a frame has reserved bits"));
    }
    if header.mask.is_none() {
        return Err(Broken::Frame("a client masks its frames"));
    }
    let length = usize::try_from(length).map_err(|_| Broken::TooLong)?;
    if matches!(header.opcode, OpCode::Control(_)) {
        if !header.is_final || length > CONTROL_BYTES_MAX {
            return Err(Broken::Frame("a control frame is whole and has at most 125 bytes"));
        }
    } else if length > MESSAGE_BYTES_MAX {
        return Err(Broken::TooLong);
    }
    Ok(length)
}

fn broken(error: &Error) -> Broken {
    // Reading from memory: nothing else is wrong with a header than what it says.
    if matches!(error, Error::Capacity(_)) {
        Broken::TooLong
    } else {
        Broken::Frame(UNKNOWN_OPCODE)
    }
}

/// What a close frame says (RFC 6455, 5.5.1 and 7.4).
fn close_code(payload: &[u8]) -> Result<Option<CloseCode>, Broken> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(None) } else { Err(Broken::Frame(BAD_CLOSE)) };
    };
    let code = CloseCode::from(u16::from_be_bytes(*code));
    if !code.is_allowed() {
        return Err(Broken::Frame(BAD_CLOSE));
    }
    std::str::from_utf8(reason).map_err(|_| Broken::NotUtf8)?;
    Ok(Some(code))
}

const BAD_CLOSE: &str = "a close frame has no allowed code";

/// Writes a text frame behind what is in `out`; `body` writes its text.
pub fn write_text(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    write(out, OpCode::Data(Data::Text), body);
}

/// Writes a question whether the other side is there.
pub fn write_ping(out: &mut Vec<u8>) {
    write(out, OpCode::Control(Control::Ping), |_| {});
}

/// Writes the answer to such a question.
pub fn write_pong(out: &mut Vec<u8>, payload: &[u8]) {
    write(out, OpCode::Control(Control::Pong), |out| out.extend_from_slice(payload));
}

/// Writes the end. A reason has at most 123 bytes; what is longer is left out.
pub fn write_close(out: &mut Vec<u8>, code: CloseCode, reason: &str) {
    let reason = if reason.len() + 2 > CONTROL_BYTES_MAX { "" } else { reason };
    write(out, OpCode::Control(Control::Close), |out| {
        out.extend_from_slice(&u16::from(code).to_be_bytes());
        out.extend_from_slice(reason.as_bytes());
    });
}

fn write(out: &mut Vec<u8>, opcode: OpCode, body: impl FnOnce(&mut Vec<u8>)) {
    const FINAL: u8 = 0x80;
    let begin = out.len();
    // Room for the usual header; a longer one pushes the body on.
    out.extend_from_slice(&[FINAL | u8::from(opcode), 0]);
    body(out);
    let length = out.len() - begin - 2;
    let (second, longer) = match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if length < SHORT_BYTES => (short, Vec::new()),
        (_, Ok(length)) => (126, length.to_be_bytes().to_vec()),
        _ => (127, (length as u64).to_be_bytes().to_vec()),
    };
    if let Some(byte) = out.get_mut(begin + 1) {
        *byte = second;
    }
    out.splice(begin + 2..begin + 2, longer);
}

/// The answer to the key of an upgrade (RFC 6455, 4.2.2).
pub fn accept_key(key: &[u8]) -> String {
    derive_accept_key(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's frame, masked.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [7, 11, 13, 17];
        let mut bytes = vec![first];
        match u8::try_from(payload.len()) {
            Ok(length) if length < 126 => bytes.push(0x80 | length),
            _ => {
                bytes.push(0x80 | 126);
                bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
            }
        }
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    /// All that is said by these bytes, put in pieces of this size.
    fn said(bytes: &[u8], piece: usize) -> (Vec<Said>, Option<Broken>) {
        let (mut inbound, mut said) = (Inbound::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            inbound.put(piece);
            loop {
                match inbound.next_said() {
                    Ok(Some(one)) => said.push(one),
                    Ok(None) => break,
                    Err(broken) => return (said, Some(broken)),
                }
            }
            assert!(inbound.kept() <= FRAME_BYTES_MAX + MESSAGE_BYTES_MAX);
        }
        (said, None)
    }

    fn text(text: &str) -> Said {
        Said::Text(text.to_owned())
    }

    #[test]
    fn the_same_is_said_however_the_bytes_arrive() {
        let long = "한".repeat(1000);
        let bytes = [
            frame(0x81, b"one"),
            frame(0x01, b"in "),
            frame(0x89, b"there?"),
            frame(0x00, b""),
            frame(0x80, b"parts"),
            frame(0x8a, b""),
            frame(0x81, long.as_bytes()),
            frame(0x88, &[&1000_u16.to_be_bytes()[..], b"done"].concat()),
        ]
        .concat();
        let expected = [
            text("one"),
            Said::Part,
            Said::Ping(b"there?".to_vec()),
            Said::Part,
            text("in parts"),
            Said::Pong,
            text(&long),
            Said::Close(Some(CloseCode::Normal)),
        ];
        for piece in [1, 2, 3, 7, 100, bytes.len()] {
            assert_eq!(said(&bytes, piece), (expected.to_vec(), None), "pieces of {piece}");
        }
    }

    #[test]
    fn what_is_not_allowed_has_its_code() {
        let unmasked = vec![0x81, 1, b'x'];
        let huge = vec![0x81, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4];
        let endless = [vec![0x01, 0xff], u64::MAX.to_be_bytes().to_vec(), vec![0; 4]].concat();
        let parts = [frame(0x01, &[b'x'; 4000]), frame(0x80, &[b'x'; 97])].concat();
        for (what, bytes, code) in [
            ("unmasked", unmasked, 1002),
            ("reserved bit", frame(0xc1, b"x"), 1002),
            ("unknown opcode", frame(0x83, b"x"), 1002),
            ("unknown control", frame(0x8b, b"x"), 1002),
            ("ping in parts", frame(0x09, b"x"), 1002),
            ("long ping", frame(0x89, &[0; 126]), 1002),
            ("goes on from nothing", frame(0x80, b"x"), 1002),
            ("begins twice", [frame(0x01, b"x"), frame(0x81, b"y")].concat(), 1002),
            ("close without a code", frame(0x88, b"x"), 1002),
            ("close with code 1005", frame(0x88, &1005_u16.to_be_bytes()), 1002),
            ("close with code 0", frame(0x88, &[0, 0]), 1002),
            ("close in no UTF-8", frame(0x88, &[3, 232, 0xff]), 1007),
            ("no UTF-8", frame(0x81, &[0xff]), 1007),
            ("binary", frame(0x82, b"x"), 1008),
            ("too long", frame(0x81, &[b'x'; MESSAGE_BYTES_MAX + 1]), 1009),
            ("too long in parts", parts, 1009),
            ("4 GiB", huge, 1009),
            ("2^64 bytes", endless, 1009),
        ] {
            let (said, broken) = said(&bytes, bytes.len());
            assert_eq!(broken.map(|broken| u16::from(broken.code())), Some(code), "{what}");
            assert!(said.iter().all(|said| *said == Said::Part), "{what}");
        }
    }

    #[test]
    fn what_is_written_is_read_by_others() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
            let mut out = b"before".to_vec();
            write_text(&mut out, |out| out.resize(out.len() + length, b'x'));
            let mut cursor = Cursor::new(&out[6..]);
            let (header, read) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
            assert_eq!((header.opcode, header.mask), (OpCode::Data(Data::Text), None));
            assert_eq!(usize::try_from(read).unwrap(), length);
            assert_eq!(out.len() - 6, usize::try_from(cursor.position()).unwrap() + length);
        }
        let mut out = Vec::new();
        write_close(&mut out, CloseCode::Restart, "4");
        assert_eq!(out, [0x88, 3, 0x03, 0xf4, b'4']);
    }
}
