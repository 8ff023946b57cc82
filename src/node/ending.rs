//! How a socket ends: what is said, and the code that it is closed with.

use crate::node::session::{Bad, Gone, Session, write_error, write_message};
use crate::wire::frame::{self, CloseCode};
use crate::wire::socket::{EndReason, EndedPayload, ErrorCode, ErrorPayload, ServerMessage};

/// What a visitor is told to wait when the log or a projector does not answer.
pub(super) const RETRY_AFTER_SECONDS: u32 = 3;

/// Those whom a stopping node sends away come back spread over this many seconds.
const SPREAD_SECONDS: u64 = 8;

/// How a socket ends.
pub(super) enum End {
    /// The visitor's place is gone.
    Ended(EndReason),
    /// A newer socket has the place; of those that the client opened it is this one, where that is known.
    Replaced(u32),
    /// The place was carried to another browser or device.
    Carried,
    /// Something that came can't be accepted.
    Refused(Bad),
    /// There is no queue of this name.
    UnknownQueue,
    /// The connection id is not one of this queue's.
    UnknownConnection,
    /// The log takes no more people.
    Full,
    /// The log or a projector does not answer, and the visitor has nothing to wait for here.
    Unavailable(ErrorCode),
    /// This node is going; come back in so many seconds.
    Going(u64),
    /// The socket is gone.
    Gone,
    /// Nothing was heard of it for too long.
    Silent,
    /// It took nothing for too long.
    NotReading,
}

impl From<Gone> for End {
    fn from(Gone: Gone) -> Self {
        Self::Gone
    }
}

/// Says what is to be said at the end, and closes.
pub(super) async fn finish(session: Session, end: End) {
    let mut last_words = Vec::new();
    if end.write(&mut last_words) {
        session.close(&last_words).await;
    }
}

impl End {
    /// This node is going. `number` is any that differs between visitors, to spread their return.
    pub(super) fn going(number: u64) -> Self {
        Self::Going(1 + number % SPREAD_SECONDS)
    }

    /// Whether somebody is turned away who is not in line, and has not been.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Refused(_)
            | Self::UnknownQueue
            | Self::UnknownConnection
            | Self::Full
            | Self::Unavailable(_) => true,
            Self::Ended(_)
            | Self::Replaced(_)
            | Self::Carried
            | Self::Going(_)
            | Self::Gone
            | Self::Silent
            | Self::NotReading => false,
        }
    }

    /// In a word, as it is counted.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Ended(_) => "ended",
            Self::Replaced(_) => "replaced",
            Self::Carried => "carried",
            Self::Refused(bad) => bad.reason,
            Self::UnknownQueue => "unknown_queue",
            Self::UnknownConnection => "unknown_connection",
            Self::Full => "queue_full",
            Self::Unavailable(_) => "unavailable",
            Self::Going(_) => "going",
            Self::Gone => "gone",
            Self::Silent => "silent",
            Self::NotReading => "not_reading",
        }
    }

    /// Writes the last words of a socket, its close among them; false when nobody hears them.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> bool {
        let (code, reason) = match self {
            Self::Ended(reason) => {
                let payload = EndedPayload { reason: *reason };
                write_message(out, &ServerMessage::Ended { payload });
                (CloseCode::Normal, String::new())
            }
            Self::Replaced(opened) => {
                let message = "this place is open on a newer connection".to_owned();
                let opened = (*opened > 0).then_some(*opened);
                let code = ErrorCode::Replaced;
                let payload = ErrorPayload { code, message, retry_after: None, opened };
                write_message(out, &ServerMessage::Error { payload });
                (CloseCode::Normal, "replaced".to_owned())
            }
            Self::Carried => {
                let message = "this place was carried to another browser or device";
                write_error(out, ErrorCode::Carried, message, None);
                (CloseCode::Normal, "carried".to_owned())
            }
            Self::Refused(bad) => {
                write_error(out, bad.error, &bad.message, None);
                (bad.code, String::new())
            }
            Self::UnknownQueue => {
                write_error(out, ErrorCode::UnknownQueue, "there is no such queue", None);
                (CloseCode::Policy, "unknown queue".to_owned())
            }
            Self::UnknownConnection => {
                let message = "this connection id is not one of this queue's";
                write_error(out, ErrorCode::UnknownConnection, message, None);
                (CloseCode::Policy, "unknown connection".to_owned())
            }
            Self::Full => {
                let message = "no more people can be taken for now";
                write_error(out, ErrorCode::QueueFull, message, Some(60));
                (CloseCode::Again, "try later".to_owned())
            }
            Self::Unavailable(code) => {
                let message = "this can't be done at the moment";
                write_error(out, *code, message, Some(RETRY_AFTER_SECONDS));
                (CloseCode::Again, "try later".to_owned())
            }
            Self::Going(seconds) => (CloseCode::Restart, seconds.to_string()),
            Self::Gone | Self::Silent | Self::NotReading => return false,
        };
        frame::write_close(out, code, &reason);
        true
    }
}
