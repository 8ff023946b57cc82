//! A visitor at the door: join, reconnect, and a seat.

use std::sync::Arc;
use std::time::Duration;

use crate::http::door::Handshake;
use crate::ids;
use crate::log::append::{AppendError, Appended, NodeFact, Pending};
use crate::log::talk::AskError;
use crate::node::counts;
use crate::node::ending::{self, End, RETRY_AFTER_SECONDS};
use crate::node::hall::seats::{Arrival, NoSeat, Sat, Word};
use crate::node::hall::sitting::Taken;
use crate::node::lookups::{self, Found};
use crate::node::places::{JoinFound, end_reason};
use crate::node::session::{Bad, Came, Gone, Session};
use crate::node::waiting;
use crate::node::{APPEND_WAIT_MAX, Node, Queue};
use crate::queue::digest::{standing_code, standing_of_code};
use crate::queue::event::{Join, Left, Seq, Socket, State, Ticket, VisitorId};
use crate::queue::line::Standing;
use crate::queue::seat::Claim;
use crate::wire::socket::{ClientMessage, EndReason, ErrorCode, JoinedPayload, ServerMessage};

/// The first message must be here within this.
const FIRST_MESSAGE_MAX: Duration = Duration::from_secs(5);
/// When so many facts wait for the log, JOINED is said together with the first numbers: a system call
/// less for each of a crowd, who wait for the log's next entry anyway…
const CROWD: usize = 16;
/// … unless the numbers take longer than this: five frames of the feed.
const TOGETHER_WAIT_MAX: Duration = Duration::from_millis(50);
/// How long the feed may take to cover a join before a projector is asked.
const COVER_WAIT_MAX: Duration = Duration::from_secs(3);

/// Serves one socket from its first message, with which its handshake is over. Of a crowd, this is what
/// each of them takes while they join: whatever is not on that way is boxed.
pub(super) async fn serve(
    node: Arc<Node>,
    queue: Arc<Queue>,
    mut session: Session,
    handshake: Handshake,
) {
    let first = tokio::time::timeout(FIRST_MESSAGE_MAX, first_of(&mut session)).await;
    drop(handshake);
    let arrived = match first {
        Ok(Ok(Came::Message(ClientMessage::Join { join_key, opened }))) => {
            join(&node, &queue, &mut session, join_key.as_deref(), opened).await
        }
        Ok(Ok(Came::Message(ClientMessage::Reconnect { connection_id, opened }))) => {
            match node.keys.verify(queue.id.as_str(), &connection_id) {
                Some((visitor, hand)) => {
                    let who = Who { visitor, hand, opened };
                    Box::pin(resume(&node, &queue, &mut session, who, Seq(0))).await
                }
                None => Err(End::UnknownConnection),
            }
        }
        Ok(Ok(Came::Message(ClientMessage::Leave {}))) => {
            Err(End::Refused(Bad::out_of_order("JOIN or RECONNECT comes first")))
        }
        Ok(Ok(Came::Bad(bad))) => Err(End::Refused(bad)),
        Ok(Ok(Came::Ping(_) | Came::Pong | Came::Close(_))) | Err(_) => {
            Err(End::Refused(Bad::too_late()))
        }
        Ok(Err(Gone)) => Err(End::Gone),
    };
    match arrived {
        Ok(taken) => {
            if let Some(handed) = waiting::hand_over(&queue, session, taken) {
                Box::pin(waiting::in_line(&node, *handed)).await;
            }
        }
        Err(end) => {
            if end.is_refusal() {
                counts::refused(end.reason());
            }
            Box::pin(ending::finish(session, end)).await;
        }
    }
}

/// What a client says first. A pong that nobody asked for is a sign of life (RFC 6455, 5.5.3).
async fn first_of(session: &mut Session) -> Result<Came, Gone> {
    loop {
        let came = session.next().await?;
        if !matches!(came, Came::Pong) {
            return Ok(came);
        }
    }
}

/// Who is at the door.
#[derive(Clone, Copy)]
struct Who {
    visitor: VisitorId,
    /// By whose hand they have the place.
    hand: u32,
    /// Which of the sockets that their client opened this is; 0 when it does not say.
    opened: u32,
}

async fn join(
    node: &Arc<Node>,
    queue: &Arc<Queue>,
    session: &mut Session,
    join_key: Option<&str>,
    opened: u32,
) -> Result<Taken, End> {
    let visitor = visitor(node, queue, join_key)?;
    // Whoever has only the key has the place by the first hand.
    let who = Who { visitor, hand: 0, opened };
    if queue.hall.sits(visitor) {
        return Box::pin(resume(node, queue, session, who, Seq(0))).await;
    }
    if let Some(shut) = door(queue) {
        // Whoever has a place already is let through to it.
        let known =
            join_key.is_some() && matches!(queue.lookups.find(visitor, Seq(0)).await, Ok(Some(_)));
        if !known {
            return Err(shut);
        }
        return Box::pin(resume(node, queue, session, who, Seq(0))).await;
    }
    let socket = node.next_socket();
    let fact = Join { opened, ..Join::plain(visitor, socket.number) };
    let pending = queue.appender.append(NodeFact::Joined(socket.node, fact));
    let pending = pending.map_err(|_| End::Unavailable(ErrorCode::LogUnavailable))?;
    let is_crowd = queue.appender.waiting() >= CROWD;
    let appended = match until_stored(queue, session, visitor, socket, pending).await? {
        Ok(appended) => appended,
        Err(error) => {
            gone_after(queue, &error, visitor, socket);
            return Err(match error {
                AppendError::Full => End::Full,
                AppendError::Busy
                | AppendError::Refused(_)
                | AppendError::OtherStream
                | AppendError::Withdrawn
                | AppendError::Stopping => End::Unavailable(ErrorCode::LogUnavailable),
            });
        }
    };
    queue.view_mut().appended(appended.seq);
    session.put(&joined(node, queue, who));
    let until_said = if is_crowd { TOGETHER_WAIT_MAX } else { Duration::ZERO };
    let ticket = tokio::select! {
        ticket = say_and_find(queue, session, appended, until_said) => ticket,
        () = node.shutdown.stopped() => Err(End::going(socket.number)),
    };
    let ticket = ticket.inspect_err(|_| queue.write(NodeFact::Disconnected(visitor, socket)))?;
    match ticket {
        Some(ticket) => {
            let found = Found {
                ticket,
                standing: standing_code(Standing::Waiting),
                socket: Some(socket),
                opened,
                hand: 0,
                came: appended.seq,
                through: appended.seq,
            };
            let taken = seat(node, queue, who, socket, found, true);
            // The log has the visitor on this socket, which came too late for the seat.
            taken.inspect_err(|_| queue.write(NodeFact::Disconnected(visitor, socket)))
        }
        // The visitor had a place before: it is theirs again, on this socket.
        None => {
            let resumed =
                Box::pin(resume_quietly(node, queue, who, appended.seq, Some(socket))).await;
            if resumed.is_err() {
                // Should it have been a new place after all, nobody is on it now.
                queue.write(NodeFact::Disconnected(visitor, socket));
            }
            resumed
        }
    }
}

/// Who says JOIN. Without the queue's secret nobody has a name that they would have again.
fn visitor(node: &Node, queue: &Queue, join_key: Option<&str>) -> Result<VisitorId, End> {
    let Ok(secret) = queue.secret(&node.installation) else {
        return Err(door(queue).unwrap_or(End::Unavailable(ErrorCode::Unavailable)));
    };
    let Some(key) = join_key else { return Ok(ids::visitor()) };
    let visitor = secret.visitor(key);
    visitor.ok_or_else(|| End::Refused(Bad::out_of_order("joinKey is a version 4 UUID")))
}

/// Why the queue takes nobody new, if it does not.
fn door(queue: &Queue) -> Option<End> {
    let view = queue.view();
    if view.is_halted() {
        return Some(End::Unavailable(ErrorCode::LogUnavailable));
    }
    if matches!(view.state(), State::Closed | State::Deleted) {
        return Some(End::Ended(EndReason::Closed));
    }
    // Who joins through us and is not in the line yet counts; what other nodes take in meanwhile does
    // not, so the bound is soft by that.
    let coming = u32::try_from(queue.appender.waiting()).unwrap_or(u32::MAX);
    let max_waiting = view.door().max_waiting;
    let is_long = max_waiting.is_some_and(|max| view.waiting().saturating_add(coming) >= max);
    (view.is_full() || is_long).then_some(End::Full)
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
                Ok(Came::Ping(_) | Came::Pong | Came::Close(_)) => {}
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
        match pending.known().await {
            Ok(_) if left => queue.write(NodeFact::Left(Left { visitor, hand: 0 })),
            Ok(_) => queue.write(NodeFact::Disconnected(visitor, socket)),
            Err(error) => gone_after(&queue, &error, visitor, socket),
        }
    });
    Err(end)
}

/// A join that the log refused may be stored all the same, by servers of which the one that refused it was not
/// told; then nobody is there.
fn gone_after(queue: &Queue, error: &AppendError, visitor: VisitorId, socket: Socket) {
    if matches!(error, AppendError::Full | AppendError::Refused(_)) {
        queue.write(NodeFact::Disconnected(visitor, socket));
    }
}

fn joined(node: &Node, queue: &Queue, who: Who) -> ServerMessage {
    let reconnect_within = queue.view().policy().reconnect_seconds;
    let opened = (who.opened > 0).then_some(who.opened);
    let payload = JoinedPayload { queue: queue.id.to_string(), reconnect_within, opened };
    let connection_id = node.keys.connection_id(queue.id.as_str(), who.visitor, who.hand);
    ServerMessage::Joined { connection_id, payload }
}

/// The ticket that a stored join gave. JOINED, which is with the session, is sent no later than after
/// `until_said`; before that it goes out with whatever follows.
async fn say_and_find(
    queue: &Queue,
    session: &mut Session,
    appended: Appended,
    until_said: Duration,
) -> Result<Option<Ticket>, End> {
    let ticket = ticket_of(queue, appended);
    tokio::pin!(ticket);
    if let Ok(ticket) = tokio::time::timeout(until_said, ticket.as_mut()).await {
        return Ok(ticket);
    }
    session.flush().await?;
    Ok(ticket.await)
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
/// moved them before the seat was taken, and was told to nobody, still reaches them. Unless the log has
/// them here already (`is_stored`), it is told that they have come.
fn seat(
    node: &Arc<Node>,
    queue: &Arc<Queue>,
    who: Who,
    socket: Socket,
    found: Found,
    is_stored: bool,
) -> Result<Taken, End> {
    let Who { visitor, hand, opened } = who;
    let ticket = found.ticket;
    let claim = match is_stored {
        true => Claim::joined(socket, opened, found.came),
        false => Claim::returned(socket, opened, found.came),
    };
    let tell = |before: Option<Socket>, word: Word| {
        if let Some(before) = before {
            // What is to be said of the new socket may never be written.
            queue.write(NodeFact::Disconnected(visitor, before));
        }
        if !is_stored {
            queue.tell_log(word, None);
        }
    };
    let arrival = Arrival { ticket, visitor, hand, claim, through: found.through };
    let Sat { taken, missed } = queue.hall.sit(arrival, tell).map_err(no_seat)?;
    if socket.node != node.id() {
        // Declared lost meanwhile: the log has them as absent, under the id that we had.
        queue.claim_seat(ticket, node.id());
    }
    let is_granted = standing_of_code(found.standing) == Some(Standing::Granted);
    if is_granted {
        queue.wants_token(ticket);
    }
    let (waits, seen) = {
        let view = queue.view();
        (view.is_waiting(ticket), view.through())
    };
    // Where the replica is behind what was found, it will tell what comes by itself.
    if missed.is_some() || (!is_granted && !waits && seen >= found.through) {
        let (node, queue) = (Arc::clone(node), Arc::clone(queue));
        let at_least = seen.max(missed.unwrap_or_default());
        crate::shutdown::detached(async move {
            lookups::catch_up(&node, &queue, ticket, visitor, at_least).await;
        });
    }
    Ok(taken)
}

fn no_seat(why: NoSeat) -> End {
    match why {
        NoSeat::Newer(opened) => End::Replaced(opened),
        NoSeat::Carried => End::Carried,
        NoSeat::Nobody => End::Unavailable(ErrorCode::Unavailable),
    }
}

/// Takes up a place that the visitor has, and says JOINED.
async fn resume(
    node: &Arc<Node>,
    queue: &Arc<Queue>,
    session: &mut Session,
    who: Who,
    at_least: Seq,
) -> Result<Taken, End> {
    let taken = match queue.hall.take_over(who.visitor, who.hand, who.opened) {
        Ok((sitting, notices)) => {
            if queue.view().has_unused_grant(sitting.ticket) {
                queue.wants_token(sitting.ticket);
            }
            (sitting, notices)
        }
        Err(why @ (NoSeat::Newer(_) | NoSeat::Carried)) => return Err(no_seat(why)),
        Err(NoSeat::Nobody) => resume_quietly(node, queue, who, at_least, None).await?,
    };
    // The first numbers follow at once, from the pusher.
    session.put(&joined(node, queue, who));
    Ok(taken)
}

/// The same without a word. `join` is the socket of a join that may have given a place after all.
async fn resume_quietly(
    node: &Arc<Node>,
    queue: &Arc<Queue>,
    who: Who,
    at_least: Seq,
    join: Option<Socket>,
) -> Result<Taken, End> {
    if queue.view().is_halted() {
        // Whatever is found now is a ticket of another line.
        return Err(End::Unavailable(ErrorCode::Unavailable));
    }
    if queue.view().state() == State::Deleted {
        return Err(End::Ended(EndReason::Closed));
    }
    let found = match queue.lookups.find(who.visitor, at_least).await {
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
    if who.hand < found.hand {
        return Err(End::Carried);
    }
    if who.hand > found.hand {
        // A projector that is behind does not know yet that the place was carried.
        return Err(End::Unavailable(ErrorCode::Unavailable));
    }
    if 0 < who.opened && who.opened < found.opened {
        return Err(End::Replaced(found.opened));
    }
    match join {
        Some(join) if found.socket == Some(join) => seat(node, queue, who, join, found, true),
        // They came to another socket after this join was stored, and are there.
        Some(_) if found.socket.is_some() && found.came > at_least => {
            Err(End::Replaced(found.opened))
        }
        Some(_) | None => seat(node, queue, who, node.next_socket(), found, false),
    }
}
