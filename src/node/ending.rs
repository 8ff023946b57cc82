//! How a socket ends: what is said, and the code that it is closed with.

use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::node::session::{Bad, Gone, Session};
use crate::wire::socket::{EndReason, EndedPayload, ErrorCode, ServerMessage};

/// What a visitor is told to wait when the log or a projector does not answer.
pub(super) const RETRY_AFTER_SECONDS: u32 = 3;

/// Those whom a stopping node sends away come back spread over this many seconds.
const SPREAD_SECONDS: u64 = 8;

/// How a socket ends.
pub(super) enum End {
    /// The visitor's place is gone.
    Ended(EndReason),
    /// A newer socket has the place.
    Replaced,
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
}

impl From<Gone> for End {
    fn from(Gone: Gone) -> Self {
        Self::Gone
    }
}

/// Says what is to be said at the end, and closes.
pub(super) async fn finish(mut session: Session, end: End) {
    let said = match &end {
        End::Ended(reason) => {
            let payload = EndedPayload { reason: *reason };
            session.send(&ServerMessage::Ended { payload }).await
        }
        End::Replaced => {
            let message = "this place is open on a newer connection";
            session.error(ErrorCode::Replaced, message, None).await
        }
        End::UnknownQueue => {
            session.error(ErrorCode::UnknownQueue, "there is no such queue", None).await
        }
        End::UnknownConnection => {
            let message = "this connection id is not one of this queue's";
            session.error(ErrorCode::UnknownConnection, message, None).await
        }
        End::Full => {
            let message = "no more people can be taken for now";
            session.error(ErrorCode::QueueFull, message, Some(60)).await
        }
        End::Unavailable(code) => {
            let message = "this can't be done at the moment";
            session.error(*code, message, Some(RETRY_AFTER_SECONDS)).await
        }
        End::Refused(_) | End::Going(_) | End::Gone => Ok(()),
    };
    if said.is_err() {
        return;
    }
    match end {
        End::Ended(_) => session.close(CloseCode::Normal, "").await,
        End::Replaced => session.close(CloseCode::Normal, "replaced").await,
        End::UnknownQueue => session.close(CloseCode::Policy, "unknown queue").await,
        End::UnknownConnection => session.close(CloseCode::Policy, "unknown connection").await,
        End::Full | End::Unavailable(_) => session.close(CloseCode::Again, "try later").await,
        End::Refused(bad) => session.refuse(bad).await,
        End::Going(seconds) => session.close(CloseCode::Restart, &seconds.to_string()).await,
        End::Gone => {}
    }
}

impl End {
    /// This node is going. `number` is any that differs between visitors, to spread their return.
    pub(super) fn going(number: u64) -> Self {
        Self::Going(1 + number % SPREAD_SECONDS)
    }
}
