//! What is said on the socket, as far as it is spoken here.

use serde::{Deserialize, Serialize};

/// What a visitor says.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "UPPERCASE")]
pub enum ClientMessage {
    Join {},
    Leave {},
}

/// What a visitor is told.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServerMessage {
    #[serde(rename_all = "camelCase")]
    Joined {
        connection_id: String,
        payload: JoinedPayload,
    },
    QueueUpdate {
        payload: UpdatePayload,
    },
    Ended {
        payload: EndedPayload,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinedPayload {
    queue: &'static str,
    reconnect_within: u32,
}

#[derive(Serialize)]
pub struct UpdatePayload {
    position: u64,
    count: u64,
    waiting: u64,
    seconds: u64,
    status: &'static str,
}

#[derive(Serialize)]
pub struct EndedPayload {
    reason: &'static str,
}

pub fn joined(ticket: u64) -> ServerMessage {
    ServerMessage::Joined {
        connection_id: format!("bench-{ticket}"),
        payload: JoinedPayload { queue: "bench", reconnect_within: 300 },
    }
}

pub fn update(count: u64, waiting: u64) -> ServerMessage {
    // An estimate as at ten a second, so that its digits are there.
    let seconds = count / 10;
    let payload = UpdatePayload { position: count + 1, count, waiting, seconds, status: "open" };
    ServerMessage::QueueUpdate { payload }
}

pub fn ended() -> ServerMessage {
    ServerMessage::Ended { payload: EndedPayload { reason: "left" } }
}

pub fn write(message: &ServerMessage) -> serde_json::Result<String> {
    serde_json::to_string(message)
}
