//! What one writes with axum: a task a socket, which waits for its visitor and for moves of the
//! line, and sends the visitor's own numbers.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::Router;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use axum::routing::get;
use axum::serve::ListenerExt as _;
use tokio::net::TcpSocket;
use tokio::sync::watch;

use crate::protocol::{self, ClientMessage, ServerMessage};
use crate::{BACKLOG, say_ready};

/// The library fills this with zeros at each read and keeps it for each socket; a message is small.
const READ_BUFFER_BYTES: usize = 512;
const MESSAGE_BYTES_MAX: usize = 4 * 1_024;
/// A socket on which nobody joins is closed.
const JOIN_WAIT_MAX: Duration = Duration::from_secs(5);
/// For how long the other side's answer to a close is waited for.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(1);

#[tokio::main]
pub async fn serve() -> anyhow::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let listener = socket.listen(BACKLOG.unsigned_abs())?;
    say_ready(listener.local_addr()?)?;
    // Numbers are small, and nothing follows that they could wait for.
    let listener = listener.tap_io(|stream| _ = stream.set_nodelay(true));
    let line = Arc::new(watch::Sender::new(Line::default()));
    let app = Router::new().route("/ws/{queue}", get(upgrade)).with_state(line);
    axum::serve(listener, app).await?;
    Ok(())
}

/// Who is in line: all tickets that were handed out, but for those who left.
#[derive(Default)]
struct Line {
    next: u64,
    /// In ascending order.
    left: Vec<u64>,
}

impl Line {
    fn join(&mut self) -> u64 {
        let ticket = self.next;
        self.next += 1;
        ticket
    }

    fn leave(&mut self, ticket: u64) {
        self.left.insert(self.left_before(ticket), ticket);
    }

    fn left_before(&self, ticket: u64) -> usize {
        self.left.partition_point(|left| *left < ticket)
    }

    /// How many are ahead.
    fn count(&self, ticket: u64) -> u64 {
        ticket - self.left_before(ticket) as u64
    }

    fn waiting(&self) -> u64 {
        self.next - self.left.len() as u64
    }
}

async fn upgrade(
    upgrade: WebSocketUpgrade,
    State(line): State<Arc<watch::Sender<Line>>>,
) -> Response {
    upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .on_upgrade(async move |socket| {
            // Nobody is there to be told why it ended.
            let _ = visit(socket, &line).await;
        })
}

async fn visit(mut socket: WebSocket, line: &watch::Sender<Line>) -> anyhow::Result<()> {
    let first = tokio::time::timeout(JOIN_WAIT_MAX, socket.recv()).await?;
    let Some(ClientMessage::Join {}) = read(first)? else { bail!("no JOIN") };
    let mut moved = line.subscribe();
    let mut ticket = 0;
    line.send_if_modified(|line| {
        ticket = line.join();
        // Nobody else has moved.
        false
    });
    send(&mut socket, &protocol::joined(ticket)).await?;
    let mut told = None;
    loop {
        let (count, waiting) = {
            let line = moved.borrow_and_update();
            (line.count(ticket), line.waiting())
        };
        if told != Some(count) {
            told = Some(count);
            send(&mut socket, &protocol::update(count, waiting)).await?;
        }
        tokio::select! {
            message = socket.recv() => {
                if let Some(ClientMessage::Leave {}) = read(message)? {
                    break;
                }
            }
            changed = moved.changed() => changed?,
        }
    }
    send(&mut socket, &protocol::ended()).await?;
    line.send_modify(|line| line.leave(ticket));
    let close = CloseFrame { code: close_code::NORMAL, reason: "".into() };
    socket.send(Message::Close(Some(close))).await?;
    let drain = async { while let Some(Ok(_)) = socket.recv().await {} };
    tokio::time::timeout(CLOSE_WAIT_MAX, drain).await?;
    Ok(())
}

/// A message, or `None` if it was a ping or the like.
fn read(received: Option<Result<Message, axum::Error>>) -> anyhow::Result<Option<ClientMessage>> {
    match received.context("gone")?? {
        Message::Text(text) => Ok(Some(serde_json::from_str(&text)?)),
        Message::Binary(_) => bail!("a message is a text frame"),
        Message::Close(_) => bail!("closed"),
        Message::Ping(_) | Message::Pong(_) => Ok(None),
    }
}

async fn send(socket: &mut WebSocket, message: &ServerMessage) -> anyhow::Result<()> {
    socket.send(Message::Text(protocol::write(message)?.into())).await?;
    Ok(())
}
