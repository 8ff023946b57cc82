//! A visitor's client, written for the tests: it speaks the protocol and remembers what it was told.

use std::time::Duration;

use base64::Engine as _;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// What comes, comes within this: to one who waits, numbers come every 20 s.
const WAIT: Duration = Duration::from_secs(25);

pub struct Visitor {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// What was said and heard, for the one who reads why a test failed.
    heard: Vec<String>,
}

impl Visitor {
    pub async fn connect(url: &str) -> Option<Self> {
        let connected = tokio_tungstenite::connect_async(url).await;
        connected.ok().map(|(socket, _)| Self { socket, heard: vec![url.to_owned()] })
    }

    /// A visitor who has said JOIN with this key.
    pub async fn join(url: &str, key: &str) -> Self {
        let mut visitor = Self::connect(url).await.expect("the node takes a socket");
        visitor.say(&json!({"type": "JOIN", "joinKey": key})).await;
        visitor
    }

    pub async fn reconnect(url: &str, connection_id: &str) -> Self {
        let mut visitor = Self::connect(url).await.expect("the node takes a socket");
        visitor.say(&json!({"type": "RECONNECT", "connectionId": connection_id})).await;
        visitor
    }

    pub async fn say(&mut self, message: &Value) {
        self.heard.push(format!("said {message}"));
        self.say_raw(Message::text(message.to_string())).await;
    }

    /// Sends a frame; a socket that is gone shows at the next reading.
    pub async fn say_raw(&mut self, message: Message) {
        let _ = self.socket.send(message).await;
    }

    /// The next message, or how the socket was closed, as `{"close": code}`; 1006 without a word.
    pub async fn next(&mut self) -> Value {
        loop {
            let next = tokio::time::timeout(WAIT, self.socket.next()).await;
            let next = next.unwrap_or_else(|_| panic!("silence after {:#?}", self.heard));
            match next {
                Some(Ok(Message::Text(text))) => {
                    self.heard.push(text.to_string());
                    return serde_json::from_str(&text).unwrap();
                }
                Some(Ok(Message::Close(Some(frame)))) => {
                    return json!({"close": u16::from(frame.code), "reason": frame.reason.as_str()});
                }
                Some(Ok(Message::Close(None)) | Err(_)) | None => return json!({"close": 1006}),
                Some(Ok(_)) => {}
            }
        }
    }

    /// The next answer to a ping; what comes before it is passed over.
    pub async fn pong(&mut self) -> Vec<u8> {
        loop {
            let next = tokio::time::timeout(WAIT, self.socket.next()).await;
            match next.expect("a ping is answered") {
                Some(Ok(Message::Pong(payload))) => return payload.to_vec(),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => panic!("closed after {:#?}", self.heard),
            }
        }
    }

    /// The next message of this type; what comes before it is passed over.
    pub async fn until(&mut self, kind: &str) -> Value {
        loop {
            let message = self.next().await;
            if message["type"] == kind {
                return message;
            }
            let is_over = message.get("close").is_some();
            assert!(!is_over, "{kind} was awaited, not {message}, after {:#?}", self.heard);
        }
    }

    /// The close, after whatever was said before it.
    pub async fn until_closed(&mut self) -> u16 {
        loop {
            if let Some(code) = self.next().await["close"].as_u64() {
                return u16::try_from(code).unwrap();
            }
        }
    }
}

pub fn key() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// The connection id that JOINED gave.
pub fn connection_id(joined: &Value) -> String {
    joined["connectionId"].as_str().unwrap().to_owned()
}

/// The public name of the visitor: bytes 2 to 17 of a connection id.
pub fn name(connection_id: &str) -> String {
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(connection_id).unwrap();
    uuid::Uuid::from_slice(&bytes[2..18]).unwrap().to_string()
}
