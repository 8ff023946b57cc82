//! A bare socket to a node, for whoever does not keep to the protocol: bytes go out as they are, and
//! what the node says to them is read.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// What comes, comes within this: to one who waits, numbers come every 20 s.
const WAIT: Duration = Duration::from_secs(30);

const FINAL: u8 = 0x80;
pub const TEXT: u8 = FINAL | 0x1;
pub const TEXT_BEGUN: u8 = 0x1;
pub const GOES_ON: u8 = 0x0;
pub const BINARY: u8 = FINAL | 0x2;
pub const CLOSE: u8 = FINAL | 0x8;
pub const PING: u8 = FINAL | 0x9;
pub const PONG: u8 = FINAL | 0xa;

pub struct Raw {
    pub stream: TcpStream,
    node: String,
    heard: Vec<u8>,
}

/// What the node said.
#[derive(Debug, PartialEq)]
pub enum Heard {
    Message(Value),
    Ping,
    Pong,
    Close(u16, String),
    /// The connection is over.
    End,
}

/// The answer to a request.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Value,
}

impl Raw {
    /// A connection to this node, which is named as in [`System::node`](crate::system::System::node).
    pub async fn connect(node: &str) -> io::Result<Self> {
        Self::connect_by(node, TcpSocket::new_v4()?).await
    }

    /// A connection from this address of the machine.
    pub async fn connect_from(node: &str, address: IpAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(address, 0))?;
        Self::connect_by(node, socket).await
    }

    /// A connection that has hardly any room for what the node says.
    pub async fn connect_deaf(node: &str) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        // The kernel makes of it the least that there is.
        socket.set_recv_buffer_size(1)?;
        Self::connect_by(node, socket).await
    }

    async fn connect_by(node: &str, socket: TcpSocket) -> io::Result<Self> {
        let node = node.strip_prefix("http://").unwrap().to_owned();
        let stream = socket.connect(node.parse().unwrap()).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, node, heard: Vec::new() })
    }

    /// A socket of this queue, with no message said yet.
    pub async fn open(node: &str, queue: &str) -> Self {
        let mut raw = Self::connect(node).await.unwrap();
        let answer = raw.upgrade(queue, &[]).await;
        assert_eq!(answer.status, 101, "{answer:?}");
        raw
    }

    /// A socket whose visitor has their numbers.
    pub async fn in_line(node: &str, queue: &str, key: &str) -> Self {
        let mut raw = Self::open(node, queue).await;
        raw.join(key).await;
        raw
    }

    /// Says JOIN, and hears the first numbers. Gives the connection id and the position.
    pub async fn join(&mut self, key: &str) -> (String, u64) {
        self.send(&join(key)).await.unwrap();
        let mut id = String::new();
        loop {
            let Heard::Message(message) = self.next().await else { panic!("no place is given") };
            match message["type"].as_str().unwrap() {
                "JOINED" => message["connectionId"].as_str().unwrap().clone_into(&mut id),
                "QUEUE_UPDATE" => return (id, message["payload"]["position"].as_u64().unwrap()),
                _ => panic!("no place is given: {message}"),
            }
        }
    }

    /// Asks for a socket, with further headers.
    pub async fn upgrade(&mut self, queue: &str, headers: &[(&str, &str)]) -> Answer {
        let request = self.request(queue, headers);
        self.send(request.as_bytes()).await.unwrap();
        self.answer().await
    }

    /// The request for a socket.
    pub fn request(&self, queue: &str, headers: &[(&str, &str)]) -> String {
        let further = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        format!(
            "GET /ws/{queue} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{}\r\n",
            self.node,
            further.collect::<String>(),
        )
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Says no more, and goes on listening.
    pub async fn hush(&mut self) {
        // It fails where the node has ended the connection meanwhile.
        let _ = self.stream.shutdown().await;
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }

    async fn answer(&mut self) -> Answer {
        let end = loop {
            let end = self.heard.windows(4).position(|four| four == b"\r\n\r\n");
            match end {
                Some(end) => break end + 4,
                None => assert!(self.more().await, "no answer but {:?}", self.heard),
            }
        };
        let head = String::from_utf8(self.heard.drain(..end).collect()).unwrap().to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        while self.heard.len() < length {
            assert!(self.more().await, "half an answer");
        }
        let body: Vec<u8> = self.heard.drain(..length).collect();
        Answer { status, head, body: serde_json::from_slice(&body).unwrap_or_default() }
    }

    /// The next thing that the node says.
    pub async fn next(&mut self) -> Heard {
        loop {
            if let Some(heard) = self.frame() {
                return heard;
            }
            if !self.more().await {
                assert!(self.heard.is_empty(), "the end within a frame: {:?}", self.heard);
                return Heard::End;
            }
        }
    }

    /// The code that the socket is closed with, after all that is said before, and the code of the
    /// last ERROR; no code when the connection ends without one.
    pub async fn until_closed(&mut self) -> (Option<u16>, Option<String>) {
        let mut error = None;
        loop {
            match self.next().await {
                Heard::Message(message) if message["type"] == "ERROR" => {
                    error = message["payload"]["code"].as_str().map(str::to_owned);
                }
                Heard::Message(_) | Heard::Ping | Heard::Pong => {}
                Heard::Close(code, _) => return (Some(code), error),
                Heard::End => return (None, error),
            }
        }
    }

    fn frame(&mut self) -> Option<Heard> {
        let short = usize::from(*self.heard.get(1)?);
        let (begin, length) = match short {
            126 => (4, usize::from(u16::from_be_bytes(*self.heard.get(2..)?.first_chunk()?))),
            127.. => panic!("a node says nothing so long, and masks nothing"),
            _ => (2, short),
        };
        self.heard.get(begin..begin + length)?;
        let frame: Vec<u8> = self.heard.drain(..begin + length).collect();
        let payload = &frame[begin..];
        Some(match frame[0] {
            TEXT => Heard::Message(serde_json::from_slice(payload).unwrap()),
            PING => Heard::Ping,
            PONG => Heard::Pong,
            CLOSE => {
                let (code, reason) = payload.split_first_chunk().unwrap();
                let reason = String::from_utf8(reason.to_vec()).unwrap();
                Heard::Close(u16::from_be_bytes(*code), reason)
            }
            other => panic!("a node says no frame that begins with {other:x}"),
        })
    }

    /// Reads on; false when the connection is over.
    async fn more(&mut self) -> bool {
        let read = tokio::time::timeout(WAIT, self.stream.read_buf(&mut self.heard)).await;
        read.expect("the node says something, or ends the connection").is_ok_and(|read| read > 0)
    }
}

/// A frame as a client sends it.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    masked(first, payload.len() as u64, payload)
}

/// A frame that announces so many bytes, whatever comes of them.
pub fn masked(first: u8, length: u64, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x5a, 0x01, 0xff, 0x80];
    let mut bytes = header(first, length);
    bytes[1] |= 0x80;
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The header of a frame that is not masked.
pub fn header(first: u8, length: u64) -> Vec<u8> {
    let (second, longer) = match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => (short, Vec::new()),
        (_, Ok(length)) => (126, length.to_be_bytes().to_vec()),
        _ => (127, length.to_be_bytes().to_vec()),
    };
    [vec![first, second], longer].concat()
}

pub fn text(message: &str) -> Vec<u8> {
    frame(TEXT, message.as_bytes())
}

pub fn join(key: &str) -> Vec<u8> {
    text(&json!({"type": "JOIN", "joinKey": key}).to_string())
}

pub fn close(code: u16) -> Vec<u8> {
    frame(CLOSE, &code.to_be_bytes())
}
