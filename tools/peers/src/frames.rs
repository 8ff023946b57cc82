//! WebSocket by hand, as little as will do: each read is taken to hold whole frames, which holds for
//! small messages on loopback. Whatever else comes is an error.

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use sha1::{Digest as _, Sha1};

/// RFC 6455, 1.3: hashed together with the client's key.
const HANDSHAKE_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
/// A length that says that the real one follows in two bytes.
const LENGTH_FOLLOWS: usize = 126;

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What a client sent.
pub enum Frame<'a> {
    Text(&'a [u8]),
    Ping(&'a [u8]),
    Pong,
    Close,
}

/// The answer to a request for an upgrade.
pub fn answer(request: &[u8]) -> anyhow::Result<String> {
    let request = std::str::from_utf8(request)?;
    ensure!(request.ends_with("\r\n\r\n"), "half a request");
    let key = request
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
        .context("no key")?
        .1
        .trim();
    let hash = Sha1::new().chain_update(key).chain_update(HANDSHAKE_GUID).finalize();
    let accept = base64::engine::general_purpose::STANDARD.encode(hash);
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ))
}

/// The first frame of what was read, unmasked where it is, and the rest.
pub fn split_first(bytes: &mut [u8]) -> anyhow::Result<(Frame<'_>, &mut [u8])> {
    let (head, rest) = bytes.split_first_chunk_mut::<2>().context("half a header")?;
    let [kind, length] = *head;
    ensure!(kind & FINAL != 0 && length & MASKED != 0, "in pieces, or not masked");
    let mut length = usize::from(length & !MASKED);
    let mut rest = rest;
    if length >= LENGTH_FOLLOWS {
        ensure!(length == LENGTH_FOLLOWS, "longer than any message");
        let (long, after) = rest.split_first_chunk_mut::<2>().context("half a header")?;
        (length, rest) = (u16::from_be_bytes(*long).into(), after);
    }
    let (mask, rest) = rest.split_first_chunk_mut::<4>().context("half a header")?;
    let (payload, rest) = rest.split_at_mut_checked(length).context("half a frame")?;
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    let frame = match kind & !FINAL {
        TEXT => Frame::Text(payload),
        PING => Frame::Ping(payload),
        PONG => Frame::Pong,
        CLOSE => Frame::Close,
        other => bail!("a frame of kind {other}"),
    };
    Ok((frame, rest))
}

pub fn text(payload: &str) -> anyhow::Result<Vec<u8>> {
    frame(TEXT, payload.as_bytes())
}

pub fn pong(payload: &[u8]) -> anyhow::Result<Vec<u8>> {
    frame(PONG, payload)
}

pub fn close(code: u16) -> anyhow::Result<Vec<u8>> {
    frame(CLOSE, &code.to_be_bytes())
}

fn frame(kind: u8, payload: &[u8]) -> anyhow::Result<Vec<u8>> {
    let length = u8::try_from(payload.len())?;
    let mut bytes = vec![FINAL | kind];
    if usize::from(length) < LENGTH_FOLLOWS {
        bytes.push(length);
    } else {
        bytes.extend([LENGTH_FOLLOWS as u8, 0, length]);
    }
    bytes.extend(payload);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_standard_is_answered_as_there() -> anyhow::Result<()> {
        let said = answer(
            b"GET /ws/bench HTTP/1.1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )?;
        assert!(said.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{said}");
        Ok(())
    }

    #[test]
    fn frames_are_taken_off_one_by_one() -> anyhow::Result<()> {
        // "Hello" of the standard, twice.
        let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        let mut bytes = [hello, hello].concat();
        let (first, rest) = split_first(&mut bytes)?;
        assert!(matches!(first, Frame::Text(b"Hello")));
        let (second, rest) = split_first(rest)?;
        assert!(matches!(second, Frame::Text(b"Hello")));
        assert!(rest.is_empty());
        Ok(())
    }
}
