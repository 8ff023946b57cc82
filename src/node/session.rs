//! One socket in a task's hands: reading with limits, writing with a deadline, ending with a code.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::clock;
use crate::http::door::Place;
use crate::node::allowance::Allowance;
use crate::wire::frame::{self, Broken, CloseCode, Inbound, Said};
use crate::wire::socket::{self, ClientMessage, ErrorCode, ErrorPayload, ServerMessage};

/// A visitor who takes nothing for this long is let go; they reconnect when they can.
pub(super) const SEND_WAIT_MAX: Duration = Duration::from_secs(10);
/// For how long the other side's answer to a close is waited for.
pub(super) const CLOSE_WAIT_MAX: Duration = Duration::from_secs(1);
/// Bytes that are read at once: what a visitor says is about a hundred.
const READ_BYTES: usize = 1024;
/// Bytes that the kernel may hold for one visitor who does not read, so that many of them are no
/// burden. It doubles this, and a handful of updates fit.
const SEND_BUFFER_BYTES: usize = 4 * 1024;
/// Answers to pings wait for room like all else, but no more of them than this.
const UNSENT_BYTES_MAX: usize = 8 * 1024;

/// A socket after its upgrade.
pub(super) struct Session {
    stream: TcpStream,
    inbound: Inbound,
    unsent: Vec<u8>,
    allowance: Allowance,
    begun: Instant,
    place: Option<Place>,
}

/// The socket is of no more use, and needs no further word.
#[derive(Debug)]
pub(super) struct Gone;

/// What came from the visitor.
pub(super) enum Came {
    /// A message.
    Message(ClientMessage),
    /// A question whether we are there, and what to answer with.
    Ping(Vec<u8>),
    /// A sign of life.
    Pong,
    /// Their end.
    Close(Option<CloseCode>),
    /// Nothing that can be understood.
    Bad(Bad),
}

/// Why it can't be understood: what is said about it, and the code to close with.
pub(super) struct Bad {
    /// What the visitor's client is told.
    pub(super) error: ErrorCode,
    /// In words.
    pub(super) message: String,
    /// The code of the close after it.
    pub(super) code: CloseCode,
    /// In a word, as it is counted.
    pub(super) reason: &'static str,
}

/// A socket, given up by its session.
pub(super) struct Parts {
    pub(super) stream: TcpStream,
    pub(super) inbound: Inbound,
    pub(super) unsent: Vec<u8>,
    pub(super) place: Option<Place>,
}

impl Bad {
    /// A message that does not belong here.
    pub(super) fn out_of_order(message: &str) -> Self {
        let (error, message) = (ErrorCode::BadMessage, message.to_owned());
        Self { error, message, code: CloseCode::Policy, reason: "bad_message" }
    }

    /// Nothing was said that says who this is.
    pub(super) fn too_late() -> Self {
        let bad = Self::out_of_order("JOIN or RECONNECT was not said in time");
        Self { reason: "no_first_message", ..bad }
    }

    /// Too much was said.
    pub(super) fn too_much() -> Self {
        let message = "too many frames in a short time".to_owned();
        let (error, reason) = (ErrorCode::RateLimited, "rate_limited");
        Self { error, message, code: CloseCode::Policy, reason }
    }
}

impl From<Broken> for Bad {
    fn from(broken: Broken) -> Self {
        let (error, message) = (ErrorCode::BadMessage, broken.to_string());
        Self { error, message, code: broken.code(), reason: "bad_message" }
    }
}

/// What the next frame of a socket means; `None` until more has come.
pub(super) fn next_of(inbound: &mut Inbound, allowance: &mut Allowance, now: u32) -> Option<Came> {
    loop {
        let said = match inbound.next_said() {
            Ok(Some(said)) => said,
            Ok(None) => return None,
            Err(broken) => return Some(Came::Bad(broken.into())),
        };
        if !allowance.spend(now) {
            return Some(Came::Bad(Bad::too_much()));
        }
        return Some(match said {
            Said::Part => continue,
            Said::Text(text) => match socket::read(&text) {
                Ok(message) => Came::Message(message),
                Err(error) => Came::Bad(Bad::out_of_order(&error.to_string())),
            },
            Said::Ping(payload) => Came::Ping(payload),
            Said::Pong => Came::Pong,
            Said::Close(code) => Came::Close(code),
        });
    }
}

/// Whether a close is in what came after our own; all else is passed over by now.
pub(super) fn has_closed(inbound: &mut Inbound) -> bool {
    loop {
        match inbound.next_said() {
            Ok(Some(Said::Close(_))) => return true,
            Ok(Some(Said::Text(_) | Said::Part | Said::Ping(_) | Said::Pong)) => {}
            Ok(None) => return false,
            Err(_) => {
                inbound.clear();
                return false;
            }
        }
    }
}

/// Writes a message as a frame behind what is in `out`.
pub(super) fn write_message(out: &mut Vec<u8>, message: &ServerMessage) {
    frame::write_text(out, |out| socket::write(out, message));
}

/// Writes what is wrong.
pub(super) fn write_error(
    out: &mut Vec<u8>,
    code: ErrorCode,
    message: &str,
    retry_after: Option<u32>,
) {
    let payload = ErrorPayload { code, message: message.to_owned(), retry_after, opened: None };
    write_message(out, &ServerMessage::Error { payload });
}

impl Session {
    /// Takes a socket over, with what was already read of it, and its place among the connections.
    pub(super) fn new(stream: TcpStream, already_read: &[u8], place: Option<Place>) -> Self {
        if let Err(error) =
            rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES)
        {
            tracing::debug!(%error, "the send buffer keeps its size");
        }
        let mut inbound = Inbound::default();
        inbound.put(already_read);
        let (unsent, allowance) = (Vec::new(), Allowance::default());
        Self { stream, inbound, unsent, allowance, begun: clock::monotonic(), place }
    }

    /// Gives the socket up to somebody else.
    pub(super) fn into_parts(self) -> Parts {
        let Self { stream, inbound, unsent, place, .. } = self;
        Parts { stream, inbound, unsent, place }
    }

    /// A session of what was given up.
    pub(super) fn from_parts(parts: Parts) -> Self {
        let Parts { stream, inbound, unsent, place } = parts;
        let (allowance, begun) = (Allowance::default(), clock::monotonic());
        Self { stream, inbound, unsent, allowance, begun, place }
    }

    /// The next thing that the visitor says; pings are answered in here. Safe to cancel.
    pub(super) async fn next(&mut self) -> Result<Came, Gone> {
        loop {
            let passed = clock::monotonic().duration_since(self.begun).as_millis();
            let now = u32::try_from(passed & u128::from(u32::MAX)).unwrap_or(0);
            match next_of(&mut self.inbound, &mut self.allowance, now) {
                Some(Came::Ping(payload)) => {
                    if self.unsent.len() < UNSENT_BYTES_MAX {
                        frame::write_pong(&mut self.unsent, &payload);
                    }
                }
                Some(Came::Close(code)) => {
                    frame::write_close(&mut self.unsent, code.unwrap_or(CloseCode::Normal), "");
                    // One who has gone needs no answer.
                    let _ = self.write_now();
                    return Err(Gone);
                }
                Some(came) => return Ok(came),
                None => self.exchange().await?,
            }
        }
    }

    /// Says something.
    pub(super) async fn send(&mut self, message: &ServerMessage) -> Result<(), Gone> {
        self.put(message);
        self.flush().await
    }

    /// Says something with whatever is said next.
    pub(super) fn put(&mut self, message: &ServerMessage) {
        write_message(&mut self.unsent, message);
    }

    /// Asks for a sign of life.
    pub(super) async fn ping(&mut self) -> Result<(), Gone> {
        frame::write_ping(&mut self.unsent);
        self.flush().await
    }

    /// Says what is wrong.
    pub(super) async fn error(
        &mut self,
        code: ErrorCode,
        message: &str,
        retry_after: Option<u32>,
    ) -> Result<(), Gone> {
        write_error(&mut self.unsent, code, message, retry_after);
        self.flush().await
    }

    /// Says the last words, a close among them, and waits a moment for the other side, so that they
    /// arrive.
    pub(super) async fn close(mut self, last_words: &[u8]) {
        self.unsent.extend_from_slice(last_words);
        if self.flush().await.is_err() {
            return;
        }
        let closed = async {
            while self.stream.readable().await.is_ok() {
                // Of one who talks on without end something is always there: others go first then.
                tokio::task::coop::consume_budget().await;
                if self.read_now().is_err() || has_closed(&mut self.inbound) {
                    return;
                }
            }
        };
        // One who does not answer is left.
        let _ = tokio::time::timeout(CLOSE_WAIT_MAX, closed).await;
    }

    /// Sends whatever was not sent yet.
    pub(super) async fn flush(&mut self) -> Result<(), Gone> {
        let all = async {
            while !self.unsent.is_empty() {
                self.write_now()?;
                if !self.unsent.is_empty() {
                    self.stream.writable().await.map_err(|_| Gone)?;
                }
            }
            Ok(())
        };
        tokio::time::timeout(SEND_WAIT_MAX, all).await.unwrap_or(Err(Gone))
    }

    /// Waits until something can be read or the rest be written, and does it.
    async fn exchange(&mut self) -> Result<(), Gone> {
        let both = Interest::READABLE | Interest::WRITABLE;
        let interest = if self.unsent.is_empty() { Interest::READABLE } else { both };
        let ready = self.stream.ready(interest).await.map_err(|_| Gone)?;
        if ready.is_writable() {
            self.write_now()?;
        }
        if ready.is_readable() { self.read_now() } else { Ok(()) }
    }

    fn read_now(&mut self) -> Result<(), Gone> {
        let mut bytes = [0; READ_BYTES];
        match self.stream.try_read(&mut bytes) {
            Ok(0) => Err(Gone),
            Ok(read) => {
                self.inbound.put(bytes.get(..read).unwrap_or_default());
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(Gone),
        }
    }

    fn write_now(&mut self) -> Result<(), Gone> {
        match self.stream.try_write(&self.unsent) {
            Ok(sent) if sent == self.unsent.len() => self.unsent.clear(),
            Ok(sent) => drop(self.unsent.drain(..sent)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(Gone),
        }
        Ok(())
    }
}
