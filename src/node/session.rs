//! One socket: reading with limits, writing with a deadline, and ending with a code.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use crate::wire::socket::{self, ClientMessage, ErrorCode, ErrorPayload, ServerMessage};

/// A message of a visitor; theirs are some 100 bytes.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// A visitor who takes nothing for this long is let go; they reconnect when they can.
const SEND_WAIT_MAX: Duration = Duration::from_secs(10);
/// For how long the other side's answer to a close is waited for.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(1);

/// A socket after its upgrade.
pub(super) struct Session {
    socket: WebSocketStream<TcpStream>,
}

/// The socket is of no more use, and needs no further word.
#[derive(Debug)]
pub(super) struct Gone;

/// What came from the visitor.
pub(super) enum Came {
    /// A message.
    Message(ClientMessage),
    /// A sign of life.
    Pong,
    /// Nothing that can be understood.
    Bad(Bad),
}

/// Why it can't be understood: what is said about it, and the code to close with.
pub(super) struct Bad {
    message: String,
    code: CloseCode,
}

impl Bad {
    /// A message that does not belong here.
    pub(super) fn out_of_order(message: &str) -> Self {
        Self { message: message.to_owned(), code: CloseCode::Policy }
    }
}

impl Session {
    /// Takes a socket over, with what was already read of it.
    pub(super) async fn new(stream: TcpStream, already_read: Vec<u8>) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(MESSAGE_BYTES_MAX)
            .write_buffer_size(0)
            .max_write_buffer_size(64 * 1024)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let socket =
            WebSocketStream::from_partially_read(stream, already_read, Role::Server, Some(config));
        Self { socket: socket.await }
    }

    /// The next thing that the visitor says. Safe to cancel.
    pub(super) async fn next(&mut self) -> Result<Came, Gone> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    return Ok(match socket::read(&text) {
                        Ok(message) => Came::Message(message),
                        Err(error) => Came::Bad(Bad::out_of_order(&error.to_string())),
                    });
                }
                Some(Ok(Message::Binary(_))) => {
                    return Ok(Came::Bad(Bad::out_of_order("a message is a text frame")));
                }
                Some(Ok(Message::Pong(_))) => return Ok(Came::Pong),
                // Answered by the library at the next write or read.
                Some(Ok(Message::Ping(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_))) | None => return Err(Gone),
                Some(Err(error)) => return bad(&error).map(Came::Bad).ok_or(Gone),
            }
        }
    }

    /// Says something.
    pub(super) async fn send(&mut self, message: &ServerMessage) -> Result<(), Gone> {
        self.put(Message::Text(socket::write(message).into())).await
    }

    /// Asks for a sign of life.
    pub(super) async fn ping(&mut self) -> Result<(), Gone> {
        self.put(Message::Ping(Vec::new().into())).await
    }

    /// Says what is wrong.
    pub(super) async fn error(
        &mut self,
        code: ErrorCode,
        message: &str,
        retry_after: Option<u32>,
    ) -> Result<(), Gone> {
        let payload = ErrorPayload { code, message: message.to_owned(), retry_after };
        self.send(&ServerMessage::Error { payload }).await
    }

    /// Says what is wrong with what came, and closes.
    pub(super) async fn refuse(mut self, bad: Bad) {
        if self.error(ErrorCode::BadMessage, &bad.message, None).await.is_ok() {
            self.close(bad.code, "").await;
        }
    }

    /// Closes with a code, and waits a moment for the other side, so that what was said arrives.
    pub(super) async fn close(mut self, code: CloseCode, reason: &str) {
        let frame = CloseFrame { code, reason: reason.to_owned().into() };
        if self.put(Message::Close(Some(frame))).await.is_err() {
            return;
        }
        let drain = async { while let Some(Ok(_)) = self.socket.next().await {} };
        // One who does not answer is left.
        let _ = tokio::time::timeout(CLOSE_WAIT_MAX, drain).await;
    }

    async fn put(&mut self, message: Message) -> Result<(), Gone> {
        match tokio::time::timeout(SEND_WAIT_MAX, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }
}

/// What to say about an error of the protocol; `None` when there is nobody to say it to.
fn bad(error: &Error) -> Option<Bad> {
    let (message, code) = if let Error::Capacity(CapacityError::MessageTooLong { .. }) = error {
        (format!("a message has at most {MESSAGE_BYTES_MAX} bytes"), CloseCode::Size)
    } else if let Error::Utf8(_) = error {
        ("a text is UTF-8".to_owned(), CloseCode::Invalid)
    } else if let Error::Protocol(error) = error {
        (error.to_string(), CloseCode::Protocol)
    } else {
        return None;
    };
    Some(Bad { message, code })
}
