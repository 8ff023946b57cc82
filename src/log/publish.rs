//! One message into the log, and what is known of it afterwards.

use async_nats::client::RequestErrorKind;
use async_nats::{HeaderMap, Request};
use bytes::Bytes;
use serde::Deserialize;

use crate::log::codes::{ApiError, Meaning};
use crate::log::connection::Log;
use crate::queue::event::Seq;

/// The log's acknowledgement: the message is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Where.
    pub seq: Seq,
    /// The server had a message of this id already; this is where.
    pub duplicate: bool,
}

/// What is known of a message that was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// There is no connection, or nobody takes messages for this stream: it was not stored.
    #[error("the log can't be reached")]
    Away,
    /// No answer came in time: it may be stored, now or later.
    #[error("the log did not answer in time")]
    Unknown,
    /// Another admission entry was stored first: this one was not.
    #[error("another entry was stored first")]
    FenceLost,
    /// The stream is at its limit: it was not stored.
    #[error("the log is full")]
    Full,
    /// The server refused it: it was not stored.
    #[error("the log refused: {0}")]
    Refused(String),
}

#[derive(Deserialize)]
struct Ack {
    error: Option<ApiError>,
    seq: Option<u64>,
    #[serde(default)]
    duplicate: bool,
}

impl Log {
    pub(super) async fn publish(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<Stored, PublishError> {
        let connection = self.connections();
        // Without a connection the client would keep the message and send it later.
        if !self.is_connected() {
            return Err(PublishError::Away);
        }
        let request = Request::new().headers(headers).payload(payload);
        let reply = tokio::select! {
            biased;
            reply = self.client.send_request(subject, request) => reply,
            () = self.reconnected(connection) => return Err(PublishError::Unknown),
        };
        let message = reply.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => PublishError::Away,
            RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
                PublishError::Refused(error.to_string())
            }
            RequestErrorKind::TimedOut | RequestErrorKind::Other => PublishError::Unknown,
        })?;
        read_ack(&message.payload)
    }
}

fn read_ack(payload: &[u8]) -> Result<Stored, PublishError> {
    let Ok(ack) = serde_json::from_slice::<Ack>(payload) else {
        return Err(PublishError::Unknown);
    };
    match (ack.error, ack.seq) {
        (None, Some(seq)) => Ok(Stored { seq: Seq(seq), duplicate: ack.duplicate }),
        (None, None) => Err(PublishError::Unknown),
        (Some(error), _) => Err(match error.meaning() {
            Meaning::OtherFirst => PublishError::FenceLost,
            Meaning::UnderWay => PublishError::Unknown,
            Meaning::Full => PublishError::Full,
            Meaning::Passes | Meaning::Missing => PublishError::Away,
            Meaning::Exists | Meaning::Nothing | Meaning::Refused => {
                PublishError::Refused(error.description)
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_says_whether_the_message_is_stored() {
        let read = |json: &str| read_ack(json.as_bytes());
        let stored = |seq, duplicate| Ok(Stored { seq: Seq(seq), duplicate });
        assert_eq!(read(r#"{"stream":"S","seq":7}"#), stored(7, false));
        assert_eq!(read(r#"{"stream":"S","seq":7,"duplicate":true}"#), stored(7, true));
        let error = |code: u32, http: u16| {
            read(&format!(r#"{{"error":{{"code":{http},"err_code":{code},"description":"d"}}}}"#))
        };
        assert_eq!(error(10_071, 400), Err(PublishError::FenceLost));
        assert_eq!(error(10_164, 400), Err(PublishError::Unknown));
        assert_eq!(error(10_158, 409), Err(PublishError::Unknown));
        assert_eq!(error(10_077, 503), Err(PublishError::Full));
        assert_eq!(error(10_008, 503), Err(PublishError::Away));
        assert_eq!(error(10_060, 400), Err(PublishError::Refused("d".to_owned())));
        assert_eq!(read("garbage"), Err(PublishError::Unknown));
        assert_eq!(read("{}"), Err(PublishError::Unknown));
    }
}
