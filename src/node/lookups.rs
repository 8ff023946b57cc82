//! Questions to a projector, asked for many visitors at once: one is under way, and whoever comes
//! meanwhile goes into the next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::clock;
use crate::log::connection::Log;
use crate::log::subjects::QueueId;
use crate::log::talk::{ASK_WAIT_MAX, AskError};
use crate::node::places::end_reason;
use crate::node::{Node, Queue};
use crate::queue::digest::standing_of_code;
use crate::queue::event::{NodeId, Seq, Socket, Ticket, VisitorId};
use crate::queue::line::Standing;
use crate::queue::seat;
use crate::shutdown::Shutdown;
use crate::wire::ask::{PlaceAnswer, PlaceQuestion, Refusal, VISITORS_PER_QUESTION_MAX};
use crate::wire::id::Id;

/// Visitors that wait to be looked up; beyond it they are told to come back.
const WAITING_MAX: usize = 16_384;

/// A question that is not answered within this went to a connection that was just lost, perhaps, and is
/// asked again. One that a projector puts off is answered as soon as it can be, however often it is asked.
const ATTEMPT_MAX: Duration = Duration::from_secs(1);
/// Pause before that.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Where a visitor was when the projector had applied `through`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) ticket: Ticket,
    pub(super) standing: u8,
    /// The socket that they were on; none while they were absent.
    pub(super) socket: Option<Socket>,
    /// Which of the sockets that their client opened they were on last; 0 when it did not say.
    pub(super) opened: u32,
    /// Whose hand the place is in.
    pub(super) hand: u32,
    /// The last entry by which they came.
    pub(super) came: Seq,
    pub(super) through: Seq,
}

/// Looks visitors of one queue up. Cheap to clone.
#[derive(Clone)]
pub(super) struct Lookups(mpsc::Sender<Wanted>);

struct Wanted {
    visitor: VisitorId,
    at_least: Seq,
    /// Until when it is asked.
    until: Instant,
    done: oneshot::Sender<Result<Option<Found>, AskError>>,
}

impl Lookups {
    pub(super) fn start(log: &Log, queue: &QueueId, shutdown: &Shutdown) -> Self {
        let (to_asker, mut wanted) = mpsc::channel::<Wanted>(WAITING_MAX);
        let (log, queue, stopping) = (log.clone(), queue.clone(), shutdown.clone());
        shutdown.spawn(async move {
            let mut batch = Vec::new();
            loop {
                let some = tokio::select! {
                    some = wanted.recv_many(&mut batch, VISITORS_PER_QUESTION_MAX) => some,
                    () = stopping.stopped() => return,
                };
                if some == 0 {
                    return;
                }
                tokio::select! {
                    () = ask(&log, &queue, std::mem::take(&mut batch)) => {}
                    () = stopping.stopped() => return,
                }
            }
        });
        Self(to_asker)
    }

    /// Where the visitor is, once `at_least` is applied; `None` for one who never joined.
    pub(super) async fn find(
        &self,
        visitor: VisitorId,
        at_least: Seq,
    ) -> Result<Option<Found>, AskError> {
        let (done, found) = oneshot::channel();
        let until = clock::monotonic() + ASK_WAIT_MAX;
        let wanted = Wanted { visitor, at_least, until, done };
        self.0.try_send(wanted).map_err(|_| AskError::Nobody)?;
        found.await.unwrap_or(Err(AskError::Nobody))
    }
}

async fn ask(log: &Log, queue: &QueueId, mut batch: Vec<Wanted>) {
    let answer = loop {
        let question = PlaceQuestion {
            visitors: batch.iter().map(|wanted| Id(wanted.visitor.0)).collect(),
            at_least: batch.iter().map(|wanted| wanted.at_least.0).max().unwrap_or(0),
        };
        let answer = tokio::time::timeout(ATTEMPT_MAX, log.ask(queue, "place", &question)).await;
        let answer: Result<PlaceAnswer, AskError> = answer.unwrap_or(Err(AskError::Nobody));
        // Our connection or the projector's may just be lost, and is there again in a moment.
        let Err(error @ (AskError::Nobody | AskError::Refused(Refusal::LogUnavailable))) = answer
        else {
            break answer;
        };
        let again = clock::monotonic() + ASK_AGAIN;
        let (late, in_time) = batch.into_iter().partition(|wanted| wanted.until <= again);
        answer_all(late, error);
        if in_time.is_empty() {
            return;
        }
        batch = in_time;
        tokio::time::sleep(ASK_AGAIN).await;
    };
    let answer = answer.and_then(|answer| {
        if answer.places.len() == batch.len() { Ok(answer) } else { Err(AskError::Unreadable) }
    });
    match answer {
        Ok(PlaceAnswer { through, places }) => {
            for (wanted, place) in batch.into_iter().zip(places) {
                let found = place.map(|place| Found {
                    ticket: Ticket(place.ticket),
                    standing: place.standing,
                    socket: place
                        .node
                        .map(|node| Socket { node: NodeId(node.0), number: place.socket }),
                    opened: place.opened,
                    hand: place.hand,
                    came: Seq(place.came),
                    through: Seq(through),
                });
                // The socket may be gone; then nobody needs to know.
                let _ = wanted.done.send(Ok(found));
            }
        }
        Err(error) => answer_all(batch, error),
    }
}

fn answer_all(batch: Vec<Wanted>, error: AskError) {
    for wanted in batch {
        // The socket may be gone; then nobody needs to know.
        let _ = wanted.done.send(Err(error));
    }
}

/// Pause before a look-up that failed is tried again.
const RETRY_WAIT: Duration = Duration::from_millis(500);

/// Finds out what happened to someone who sits here and was not told, once `at_least` is applied,
/// and sees to it that they are. Tries until it knows, or they are gone.
pub(super) async fn catch_up(
    node: &Arc<Node>,
    queue: &Arc<Queue>,
    ticket: Ticket,
    visitor: VisitorId,
    mut at_least: Seq,
) {
    while queue.hall.visitor(ticket) == Some(visitor) && !node.shutdown.is_stopping() {
        // Who sits here has a place, so whoever does not find them knows too little.
        let Ok(Some(found)) = queue.lookups.find(visitor, at_least).await else {
            tokio::time::sleep(RETRY_WAIT).await;
            continue;
        };
        let is_granted = match standing_of_code(found.standing) {
            Some(Standing::Waiting) => false,
            Some(Standing::Granted) => true,
            Some(Standing::Inside | Standing::Ended(_)) | None => {
                return queue.hall.end(ticket, end_reason(found.standing));
            }
        };
        let Found { socket, came, through, .. } = found;
        let place = seat::Found { socket, came, through };
        // That it was declared lost was among what was missed, perhaps.
        let own = node.id();
        if queue.hall.is_lost(ticket, place, own) {
            node.reborn(own);
        }
        let missed = queue.hall.looked_up(ticket, place, &mut |word| queue.assert_here(word));
        if let Some(missed) = missed {
            at_least = missed;
            continue;
        }
        if is_granted {
            return queue.wants_token(ticket);
        }
        // Where the replica has moved on over them since, there is more to find out.
        let (waits, seen) = {
            let view = queue.view();
            (view.is_waiting(ticket), view.through())
        };
        if waits || seen < found.through {
            return;
        }
        at_least = seen;
        tokio::time::sleep(RETRY_WAIT).await;
    }
}
