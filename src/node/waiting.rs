//! A visitor in line: the numbers, the turn, and whatever ends it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::clock;
use crate::log::append::NodeFact;
use crate::node::ending::End;
use crate::node::hall::{Notice, Sitting};
use crate::node::places::Standpoint;
use crate::node::session::{Bad, Came, Gone, Session};
use crate::node::{APPEND_WAIT_MAX, Node, Queue};
use crate::queue::event::{State, Ticket};
use crate::wire::ask::Minted;
use crate::wire::socket::{
    AdmittedPayload, ClientMessage, EndReason, ErrorCode, ServerMessage, Status, UpdatePayload,
};

/// A socket that is gone for this long was no refresh.
const REFRESH_PAUSE: Duration = Duration::from_secs(3);
/// Numbers are sent no more often than this to one visitor; what is newer replaces what waits.
const UPDATE_EVERY: Duration = Duration::from_millis(250);
/// Numbers are sent at least this often, with a ping.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(20);
/// A socket without any sign of life for this long is let go: three pings.
const SILENCE_MAX: Duration = Duration::from_secs(65);

/// The wait, from the first numbers to the end.
pub(super) async fn in_line(
    node: &Arc<Node>,
    queue: &Arc<Queue>,
    session: &mut Session,
    mut sitting: Sitting,
) -> End {
    let end = wait(node, queue, session, &mut sitting).await;
    match end {
        // The seat is somebody else's, or gone.
        End::Ended(_) | End::Replaced => {}
        End::Going(_) => {
            // Nobody comes back to a node that is going, so there is nothing to wait for.
            if queue.hall.rise(&sitting) {
                clear_seat(queue, &sitting);
            }
        }
        End::Refused(_)
        | End::UnknownQueue
        | End::UnknownConnection
        | End::Full
        | End::Unavailable(_)
        | End::Gone => leave_seat(queue, sitting),
    }
    end
}

async fn wait(
    node: &Arc<Node>,
    queue: &Arc<Queue>,
    session: &mut Session,
    sitting: &mut Sitting,
) -> End {
    let mut moved = queue.moved.subscribe();
    let mut numbers = Numbers::default();
    let mut update = tokio::time::interval(UPDATE_EVERY);
    update.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut keep_alive =
        tokio::time::interval_at((clock::monotonic() + KEEP_ALIVE_EVERY).into(), KEEP_ALIVE_EVERY);
    let mut heard = clock::monotonic();
    let mut due = true;
    loop {
        let said = tokio::select! {
            came = session.next() => {
                heard = clock::monotonic();
                match came {
                    Ok(Came::Pong) => Ok(()),
                    Ok(Came::Message(ClientMessage::Leave {})) => {
                        return leave(queue, sitting).await;
                    }
                    Ok(Came::Message(_)) => {
                        return End::Refused(Bad::out_of_order("this socket has a place already"));
                    }
                    Ok(Came::Bad(bad)) => return End::Refused(bad),
                    Err(Gone) => return End::Gone,
                }
            }
            notice = sitting.notices.recv() => match notice {
                Some(Notice::Admitted(minted)) => say_admitted(queue, session, minted).await,
                Some(Notice::Ended(reason)) => return End::Ended(reason),
                Some(Notice::Replaced) | None => return End::Replaced,
            },
            Ok(()) = moved.changed(), if !due => {
                due = true;
                Ok(())
            }
            _ = update.tick(), if due => {
                due = false;
                numbers.say(queue, session, sitting.ticket, false).await
            }
            _ = keep_alive.tick() => {
                if clock::monotonic().duration_since(heard) > SILENCE_MAX {
                    return End::Gone;
                }
                match session.ping().await {
                    Ok(()) => numbers.say(queue, session, sitting.ticket, true).await,
                    Err(Gone) => Err(Gone),
                }
            }
            () = node.shutdown.stopped() => {
                return End::going(u64::from(sitting.ticket.0));
            }
        };
        if said.is_err() {
            return End::Gone;
        }
    }
}

/// The numbers as they were last sent.
#[derive(Default)]
struct Numbers {
    sent: Option<(Standpoint, Option<String>)>,
}

impl Numbers {
    /// Sends the numbers, if they are others than before or `always`.
    async fn say(
        &mut self,
        queue: &Queue,
        session: &mut Session,
        ticket: Ticket,
        always: bool,
    ) -> Result<(), Gone> {
        let now = {
            let view = queue.view();
            view.standpoint(ticket).map(|point| (point, view.reason().map(str::to_owned)))
        };
        // Whoever does not wait any more is told so by a notice.
        let Some(now) = now else { return Ok(()) };
        if self.sent.as_ref() == Some(&now) && !always {
            return Ok(());
        }
        let (point, reason) = now.clone();
        self.sent = Some(now);
        let payload = UpdatePayload {
            position: point.ahead + 1,
            count: point.ahead,
            waiting: point.waiting,
            seconds: point.seconds,
            status: status(point.state),
            reason,
            stale: point.stale,
        };
        session.send(&ServerMessage::QueueUpdate { payload }).await
    }
}

/// The state as visitors are told it.
pub(super) fn status(state: State) -> Status {
    match state {
        State::Scheduled => Status::Scheduled,
        State::Open => Status::Open,
        State::Paused => Status::Paused,
        State::Closed | State::Deleted => Status::Closed,
    }
}

async fn say_admitted(queue: &Queue, session: &mut Session, minted: Minted) -> Result<(), Gone> {
    let payload = AdmittedPayload {
        token: minted.token,
        expires_at: clock::rfc3339(minted.expires),
        expires_in: minted.expires_in,
        target: queue.target(),
    };
    session.send(&ServerMessage::Admitted { payload }).await
}

/// Gives the place up, and says so once the log has it.
async fn leave(queue: &Arc<Queue>, sitting: &mut Sitting) -> End {
    let Some(visitor) = queue.hall.visitor(sitting.ticket) else {
        return End::Ended(EndReason::Left);
    };
    let Ok(mut pending) = queue.appender.append(NodeFact::Left(visitor)) else {
        return End::Unavailable(ErrorCode::LogUnavailable);
    };
    match tokio::time::timeout(APPEND_WAIT_MAX, pending.known()).await {
        Ok(Ok(_)) => {
            queue.hall.end(sitting.ticket, EndReason::Left);
            End::Ended(EndReason::Left)
        }
        Ok(Err(_)) | Err(_) => End::Unavailable(ErrorCode::LogUnavailable),
    }
}

/// Leaves the seat; unless somebody takes it within a moment, the log is told.
pub(super) fn leave_seat(queue: &Arc<Queue>, sitting: Sitting) {
    if !queue.hall.rise(&sitting) {
        return;
    }
    let queue = Arc::clone(queue);
    crate::shutdown::detached(async move {
        tokio::time::sleep(REFRESH_PAUSE).await;
        clear_seat(&queue, &sitting);
    });
}

fn clear_seat(queue: &Queue, sitting: &Sitting) {
    if let Some((visitor, socket)) = queue.hall.clear(sitting) {
        queue.write(NodeFact::Disconnected(visitor, socket));
    }
}
