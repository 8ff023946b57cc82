//! A visitor in line: their socket goes to a pusher, and what happens to their seat when it ends.
//!
//! Where there is no pusher for a socket, a task tells its visitor the same, at more cost.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::clock;
use crate::log::append::NodeFact;
use crate::node::counts;
use crate::node::ending::{self, End};
use crate::node::hall::pushers::Handed;
use crate::node::hall::sitting::{Notice, Sitting, Taken};
use crate::node::places::{Prospect, Standpoint, Words};
use crate::node::session::{Bad, Came, Gone, Parts, Session};
use crate::node::{APPEND_WAIT_MAX, Node, Queue};
use crate::queue::estimate::{Cause, Turn};
use crate::queue::event::{Left, State, Ticket};
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

/// Hands a visitor's socket over to their pusher. It comes back when there is none for it.
pub(super) fn hand_over(
    queue: &Arc<Queue>,
    session: Session,
    (sitting, notices): Taken,
) -> Option<Box<Handed>> {
    let Parts { stream, inbound, unsent, place } = session.into_parts();
    let Ok(socket) = stream.into_std() else {
        rise(queue, sitting, &End::Gone);
        return None;
    };
    let (socket, in_queue) = (socket.into(), Arc::clone(queue));
    let handed = Handed { socket, queue: in_queue, sitting, inbound, unsent, notices, place };
    queue.hall.hand_over(handed).err()
}

/// The wait of one whom no pusher has, from JOINED on.
pub(super) async fn in_line(node: &Arc<Node>, handed: Handed) {
    let Handed { socket, queue, sitting, inbound, unsent, mut notices, place } = handed;
    let Ok(stream) = TcpStream::from_std(socket.into()) else {
        return rise(&queue, sitting, &End::Gone);
    };
    let mut session = Session::from_parts(Parts { stream, inbound, unsent, place });
    let end = wait(node, &queue, &mut session, sitting, &mut notices).await;
    rise(&queue, sitting, &end);
    ending::finish(session, end).await;
}

/// What becomes of a seat when its socket ends.
pub(super) fn rise(queue: &Arc<Queue>, sitting: Sitting, end: &End) {
    counts::ended(end.reason());
    match end {
        // The seat is somebody else's, or gone.
        End::Ended(_) | End::Replaced(_) | End::Carried => {}
        End::Going(_) => {
            // Nobody comes back to a node that is going, so there is nothing to wait for.
            if queue.hall.rise(sitting) {
                clear_seat(queue, sitting);
            }
        }
        End::Refused(_)
        | End::UnknownQueue
        | End::UnknownConnection
        | End::Full
        | End::Unavailable(_)
        | End::Gone
        | End::Silent
        | End::NotReading => leave_seat(queue, sitting),
    }
}

async fn wait(
    node: &Arc<Node>,
    queue: &Arc<Queue>,
    session: &mut Session,
    sitting: Sitting,
    notices: &mut mpsc::Receiver<Notice>,
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
                    Ok(Came::Pong | Came::Ping(_) | Came::Close(_)) => Ok(()),
                    Ok(Came::Message(ClientMessage::Leave {})) => {
                        return leave(queue, sitting.ticket).await;
                    }
                    Ok(Came::Message(_)) => {
                        return End::Refused(Bad::out_of_order("this socket has a place already"));
                    }
                    Ok(Came::Bad(bad)) => return End::Refused(bad),
                    Err(Gone) => return End::Gone,
                }
            }
            notice = notices.recv() => match notice {
                Some(Notice::Admitted(minted)) => session.send(&admitted(queue, minted)).await,
                Some(Notice::Ended(reason)) => return End::Ended(reason),
                Some(Notice::Unavailable(code)) => return End::Unavailable(code),
                Some(Notice::Replaced) | None => return End::Replaced(0),
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
                    return End::Silent;
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
    sent: Option<(Standpoint, Words)>,
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
        let before = self.sent.as_ref().and_then(|(point, _)| point.turn);
        let now = {
            let view = queue.view();
            let prospect = view.prospect();
            let point = view.standpoint(ticket, before, &prospect);
            point.map(|point| ((point, view.words()), prospect))
        };
        // Whoever does not wait any more is told so by a notice.
        let Some((now, prospect)) = now else { return Ok(()) };
        if self.sent.as_ref() == Some(&now) && !always {
            return Ok(());
        }
        let message = update(&now.0, &now.1, &prospect, before);
        self.sent = Some(now);
        session.send(&message).await
    }
}

/// A visitor's numbers, as a message to one who was told `before`. An operator's word about the state is
/// the only reason that they are told; without one, a turn that comes later than was told has its own.
pub(super) fn update(
    point: &Standpoint,
    words: &Words,
    prospect: &Prospect,
    before: Option<Turn>,
) -> ServerMessage {
    let seconds = prospect.seconds(point);
    let range = seconds.map(|(_, range)| range);
    let is_later = before.is_some() && point.turn > before;
    let reason = words.reason.clone();
    let payload = UpdatePayload {
        position: point.ahead + 1,
        count: point.ahead,
        waiting: point.waiting,
        seconds: seconds.map(|(seconds, _)| u64::from(seconds)),
        seconds_low: range.map(|(low, _)| u64::from(low)),
        seconds_high: range.map(|(_, high)| u64::from(high)),
        status: status(words.state),
        opens_at: words.opens_at.map(|at| clock::rfc3339(at.seconds())),
        reason: reason.or_else(|| is_later.then(|| code(prospect.cause()).to_owned())),
        stale: words.stale,
    };
    ServerMessage::QueueUpdate { payload }
}

/// Why a turn comes later than was told, as programs are told it: `schemas/socket` has the words.
fn code(cause: Cause) -> &'static str {
    match cause {
        Cause::RateLowered => "rate_lowered",
        Cause::LineSlowed => "line_slowed",
        Cause::PeopleReturned => "people_returned",
        Cause::OpeningMoved => "opening_moved",
    }
}

/// Their turn, as a message.
pub(super) fn admitted(queue: &Queue, minted: Minted) -> ServerMessage {
    let payload = AdmittedPayload {
        token: minted.token,
        expires_at: clock::rfc3339(minted.expires),
        expires_in: minted.expires_in,
        target: queue.target(),
    };
    ServerMessage::Admitted { payload }
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

/// Gives the place up, and says so once the log has it.
pub(super) async fn leave(queue: &Queue, ticket: Ticket) -> End {
    let Some((visitor, hand)) = queue.hall.holder(ticket) else {
        return End::Ended(EndReason::Left);
    };
    let Ok(mut pending) = queue.appender.append(NodeFact::Left(Left { visitor, hand })) else {
        return End::Unavailable(ErrorCode::LogUnavailable);
    };
    match tokio::time::timeout(APPEND_WAIT_MAX, pending.known()).await {
        Ok(Ok(_)) => {
            queue.hall.end(ticket, EndReason::Left);
            End::Ended(EndReason::Left)
        }
        Ok(Err(_)) | Err(_) => End::Unavailable(ErrorCode::LogUnavailable),
    }
}

/// Leaves the seat; unless somebody takes it within a moment, the log is told.
pub(super) fn leave_seat(queue: &Arc<Queue>, sitting: Sitting) {
    if !queue.hall.rise(sitting) {
        return;
    }
    let queue = Arc::clone(queue);
    crate::shutdown::detached(async move {
        tokio::time::sleep(REFRESH_PAUSE).await;
        clear_seat(&queue, sitting);
    });
}

fn clear_seat(queue: &Queue, sitting: Sitting) {
    if let Some((visitor, socket)) = queue.hall.clear(sitting) {
        queue.write(NodeFact::Disconnected(visitor, socket));
    }
}
