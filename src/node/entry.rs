//! A visitor at the door and in line: join, reconnect, wait, be let in, leave.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::clock;
use crate::ids;
use crate::log::append::{AppendError, Appended, NodeFact, Pending};
use crate::log::talk::AskError;
use crate::node::hall::{Notice, Sitting, Told};
use crate::node::lookups::{self, Found};
use crate::node::places::{JoinFound, Standpoint, end_reason};
use crate::node::session::{Bad, Came, Gone, Session};
use crate::node::{Node, Queue};
use crate::queue::digest::{standing_code, standing_of_code};
use crate::queue::event::{Seq, Socket, State, Ticket, VisitorId};
use crate::queue::line::Standing;
use crate::wire::ask::Minted;
use crate::wire::socket::{
    AdmittedPayload, ClientMessage, EndReason, EndedPayload, ErrorCode, JoinedPayload,
    ServerMessage, Status, UpdatePayload,
};

/// The first message must be here within this.
const FIRST_MESSAGE_MAX: Duration = Duration::from_secs(5);
/// After this a visitor is told that the log does not answer; their join may still be stored.
const APPEND_WAIT_MAX: Duration = Duration::from_secs(3);
/// How long the feed may take to cover a join before a projector is asked.
const COVER_WAIT_MAX: Duration = Duration::from_secs(3);
/// A socket that is gone for this long was no refresh.
const REFRESH_PAUSE: Duration = Duration::from_secs(3);
/// Numbers are sent no more often than this to one visitor; what is newer replaces what waits.
const UPDATE_EVERY: Duration = Duration::from_millis(250);
/// Numbers are sent at least this often, with a ping.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(20);
/// A socket without any sign of life for this long is let go: three pings.
const SILENCE_MAX: Duration = Duration::from_secs(65);
/// Those whom a stopping node sends away come back spread over this many seconds.
const SPREAD_SECONDS: u64 = 8;
/// What a visitor is told to wait when the log or a projector does not answer.
const RETRY_AFTER_SECONDS: u32 = 3;

/// Serves one socket from its first message to its end.
pub(super) async fn serve(node: Arc<Node>, queue: Arc<Queue>, mut session: Session) {
    let first = tokio::time::timeout(FIRST_MESSAGE_MAX, session.next()).await;
    let arrived = match first {
        Ok(Ok(Came::Message(ClientMessage::Join { join_key }))) => {
            join(&node, &queue, &mut session, join_key.as_deref()).await
        }
        Ok(Ok(Came::Message(ClientMessage::Reconnect { connection_id }))) => {
            match node.keys.verify(queue.id.as_str(), &connection_id) {
                Some(visitor) => resume(&node, &queue, &mut session, visitor, Seq(0)).await,
                None => Err(End::UnknownConnection),
            }
        }
        Ok(Ok(Came::Message(ClientMessage::Leave {}))) => {
            Err(End::Refused(Bad::out_of_order("JOIN or RECONNECT comes first")))
        }
        Ok(Ok(Came::Bad(bad))) => Err(End::Refused(bad)),
        Ok(Ok(Came::Pong)) | Err(_) => {
            Err(End::Refused(Bad::out_of_order("JOIN or RECONNECT was not said in time")))
        }
        Ok(Err(Gone)) => Err(End::Gone),
    };
    let end = match arrived {
        Ok(sitting) => in_line(&node, &queue, &mut session, sitting).await,
        Err(end) => end,
    };
    finish(&queue, session, end).await;
}

/// How a socket ends.
enum End {
    /// The visitor's place is gone.
    Ended(EndReason),
    /// A newer socket has the place.
    Replaced,
    /// Something that came can't be accepted.
    Refused(Bad),
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

async fn finish(queue: &Queue, mut session: Session, end: End) {
    let said = match &end {
        End::Ended(reason) => {
            let payload = EndedPayload { reason: *reason };
            session.send(&ServerMessage::Ended { payload }).await
        }
        End::Replaced => {
            let message = "this place is open on a newer connection";
            session.error(ErrorCode::Replaced, message, None).await
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
        End::UnknownConnection => session.close(CloseCode::Policy, "unknown connection").await,
        End::Full | End::Unavailable(_) => session.close(CloseCode::Again, "try later").await,
        End::Refused(bad) => session.refuse(bad).await,
        End::Going(seconds) => session.close(CloseCode::Restart, &seconds.to_string()).await,
        End::Gone => {}
    }
    tracing::trace!(queue = %queue.id, "a socket ended");
}

async fn join(
    node: &Arc<Node>,
    queue: &Arc<Queue>,
    session: &mut Session,
    join_key: Option<&str>,
) -> Result<Sitting, End> {
    let visitor = match join_key {
        Some(key) => node
            .keys
            .visitor(queue.id.as_str(), key)
            .ok_or_else(|| End::Refused(Bad::out_of_order("joinKey is a version 4 UUID")))?,
        None => ids::visitor(),
    };
    if queue.hall.sits(visitor) {
        return resume(node, queue, session, visitor, Seq(0)).await;
    }
    if let Some(shut) = door(queue) {
        // Whoever has a place already is let through to it.
        let known =
            join_key.is_some() && matches!(queue.lookups.find(visitor, Seq(0)).await, Ok(Some(_)));
        return match known {
            true => resume(node, queue, session, visitor, Seq(0)).await,
            false => Err(shut),
        };
    }
    let socket = node.next_socket();
    let pending = queue.appender.append(NodeFact::Joined(visitor, socket));
    let pending = pending.map_err(|_| End::Unavailable(ErrorCode::LogUnavailable))?;
    let appended = match until_stored(queue, session, visitor, socket, pending).await? {
        Ok(appended) => appended,
        Err(AppendError::Full) => return Err(End::Full),
        Err(AppendError::Busy | AppendError::Refused(_) | AppendError::Stopping) => {
            return Err(End::Unavailable(ErrorCode::LogUnavailable));
        }
    };
    queue.view_mut().appended(appended.seq);
    say_joined_or_go(node, queue, session, visitor, socket).await?;
    let ticket = tokio::select! {
        ticket = ticket_of(queue, appended) => ticket,
        () = node.shutdown.stopped() => {
            queue.write(NodeFact::Disconnected(visitor, socket));
            return Err(End::Going(1 + socket.number % SPREAD_SECONDS));
        }
    };
    match ticket {
        Some(ticket) => {
            let standing = standing_code(Standing::Waiting);
            let here = Some(socket.node);
            let found = Found { ticket, standing, node: here, through: appended.seq };
            seat(node, queue, visitor, socket, found, Told::Yes)
        }
        // The visitor had a place before: it is theirs again, on this socket.
        None => {
            let resumed = resume_quietly(node, queue, visitor, appended.seq).await;
            if resumed.is_err() {
                // Should it have been a new place after all, nobody is on it now.
                queue.write(NodeFact::Disconnected(visitor, socket));
            }
            resumed
        }
    }
}

/// Why the queue takes nobody new, if it does not.
fn door(queue: &Queue) -> Option<End> {
    let view = queue.view();
    if matches!(view.state(), State::Closed | State::Deleted) {
        return Some(End::Ended(EndReason::Closed));
    }
    view.is_full().then_some(End::Full)
}

/// Waits for the fate of a join. Whoever goes away meanwhile is disconnected once it is stored.
async fn until_stored(
    queue: &Arc<Queue>,
    session: &mut Session,
    visitor: VisitorId,
    socket: Socket,
    mut pending: Pending,
) -> Result<Result<Appended, AppendError>, End> {
    let mut late = Box::pin(tokio::time::sleep(APPEND_WAIT_MAX));
    let mut told = false;
    let end = loop {
        tokio::select! {
            fate = pending.known() => return Ok(fate),
            () = &mut late, if !told => {
                told = true;
                let message = "the log does not answer; you will be in line as soon as it does";
                let said = session
                    .error(ErrorCode::LogUnavailable, message, Some(RETRY_AFTER_SECONDS))
                    .await;
                if said.is_err() {
                    break (End::Gone, false);
                }
            }
            came = session.next() => match came {
                Ok(Came::Pong) => {}
                Ok(Came::Message(ClientMessage::Leave {})) => {
                    break (End::Ended(EndReason::Left), true);
                }
                Ok(Came::Message(_)) => {
                    break (End::Refused(Bad::out_of_order("JOIN was said already")), false);
                }
                Ok(Came::Bad(bad)) => break (End::Refused(bad), false),
                Err(Gone) => break (End::Gone, false),
            },
        }
    };
    let (end, left) = end;
    let queue = Arc::clone(queue);
    crate::shutdown::detached(async move {
        if pending.known().await.is_ok() {
            queue.write(if left {
                NodeFact::Left(visitor)
            } else {
                NodeFact::Disconnected(visitor, socket)
            });
        }
    });
    Err(end)
}

async fn say_joined(
    node: &Node,
    queue: &Queue,
    session: &mut Session,
    visitor: VisitorId,
) -> Result<(), Gone> {
    let reconnect_within = queue.view().policy().reconnect_seconds;
    let payload = JoinedPayload { queue: queue.id.to_string(), reconnect_within };
    let connection_id = queue.connection_id(node, visitor);
    session.send(&ServerMessage::Joined { connection_id, payload }).await
}

/// Says JOINED to one whom the log knows on this socket; if they are gone, so is the socket.
async fn say_joined_or_go(
    node: &Node,
    queue: &Queue,
    session: &mut Session,
    visitor: VisitorId,
    socket: Socket,
) -> Result<(), End> {
    if say_joined(node, queue, session, visitor).await.is_err() {
        queue.write(NodeFact::Disconnected(visitor, socket));
        return Err(End::Gone);
    }
    Ok(())
}

/// The ticket that a stored join gave, as soon as the feed covers it; `None` when it gave none or
/// the feed does not say.
async fn ticket_of(queue: &Queue, appended: Appended) -> Option<Ticket> {
    let mut moved = queue.moved.subscribe();
    let found = async {
        loop {
            match queue.view().find_join(appended.seq, appended.index) {
                JoinFound::Ticket(ticket) => return Some(ticket),
                JoinFound::Ignored | JoinFound::Forgotten => return None,
                JoinFound::NotYet => {}
            }
            moved.changed().await.ok()?;
        }
    };
    tokio::time::timeout(COVER_WAIT_MAX, found).await.ok().flatten()
}

/// Takes a seat for someone who was found in line or with a grant, and sees to it that whatever
/// moved them before the seat was taken, and was told to nobody, still reaches them.
fn seat(
    node: &Arc<Node>,
    queue: &Arc<Queue>,
    visitor: VisitorId,
    socket: Socket,
    found: Found,
    told: Told,
) -> Result<Sitting, End> {
    let sitting = queue.hall.sit(found.ticket, visitor, socket, told).ok_or(End::Replaced)?;
    if told == Told::Sent {
        queue.assert_here(found.ticket, visitor, socket);
    }
    if socket.node != node.id() {
        // Declared lost meanwhile: the log has them as absent, under the id that we had.
        queue.claim_seats(node.id());
    }
    if standing_of_code(found.standing) == Some(Standing::Granted) {
        queue.wants_token(found.ticket);
        return Ok(sitting);
    }
    let (waits, seen) = {
        let view = queue.view();
        (view.standpoint(found.ticket).is_some(), view.through())
    };
    // Where the replica is behind what was found, it will tell what comes by itself.
    if !waits && seen >= found.through {
        let (node, queue) = (Arc::clone(node), Arc::clone(queue));
        crate::shutdown::detached(async move {
            lookups::catch_up(&node, &queue, found.ticket, visitor, seen).await;
        });
    }
    Ok(sitting)
}

/// Takes up a place that the visitor has, and says JOINED.
async fn resume(
    node: &Arc<Node>,
    queue: &Arc<Queue>,
    session: &mut Session,
    visitor: VisitorId,
    at_least: Seq,
) -> Result<Sitting, End> {
    let sitting = match queue.take_over(visitor) {
        Some(sitting) => {
            if queue.view().has_unused_grant(sitting.ticket) {
                queue.wants_token(sitting.ticket);
            }
            sitting
        }
        None => resume_quietly(node, queue, visitor, at_least).await?,
    };
    if say_joined(node, queue, session, visitor).await.is_err() {
        leave_seat(queue, sitting);
        return Err(End::Gone);
    }
    Ok(sitting)
}

async fn resume_quietly(
    node: &Arc<Node>,
    queue: &Arc<Queue>,
    visitor: VisitorId,
    at_least: Seq,
) -> Result<Sitting, End> {
    let found = match queue.lookups.find(visitor, at_least).await {
        Ok(Some(found)) => found,
        Ok(None) => return Err(End::UnknownConnection),
        Err(AskError::Nobody | AskError::Unreadable | AskError::Refused(_)) => {
            return Err(End::Unavailable(ErrorCode::Unavailable));
        }
    };
    match standing_of_code(found.standing) {
        Some(Standing::Waiting | Standing::Granted) => {}
        Some(Standing::Inside | Standing::Ended(_)) | None => {
            return Err(End::Ended(end_reason(found.standing)));
        }
    }
    let socket = node.next_socket();
    seat(node, queue, visitor, socket, found, Told::Sent)
}

/// The wait, from the first numbers to the end.
async fn in_line(
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
        End::Refused(_) | End::UnknownConnection | End::Full | End::Unavailable(_) | End::Gone => {
            leave_seat(queue, sitting)
        }
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
                return End::Going(1 + u64::from(sitting.ticket.0) % SPREAD_SECONDS);
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
fn leave_seat(queue: &Arc<Queue>, sitting: Sitting) {
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
