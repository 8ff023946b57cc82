//! Tokens for the visitors who sit here and have their turn: asked for until they have come.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::log::connection::Log;
use crate::log::talk::AskError;
use crate::node::Queue;
use crate::queue::event::Ticket;
use crate::shutdown::Shutdown;
use crate::wire::ask::{MintAnswer, MintQuestion, VISITORS_PER_QUESTION_MAX};
use crate::wire::id::Id;

/// Tickets that wait for their token; one that finds no room is asked for at its reconnect.
pub(super) const WAITING_MAX: usize = 65_536;
/// Pause after admission gave no token: it may be folding the grant, or be away for a moment.
const RETRY_WAIT: Duration = Duration::from_millis(250);

/// A worker answers from its memory: whoever waits longer waits for one that is gone.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(2);

/// Asks for tokens until asked to stop.
pub(super) async fn run(
    log: Log,
    queue: Arc<Queue>,
    mut granted: mpsc::Receiver<Ticket>,
    shutdown: Shutdown,
) {
    let mut batch = Vec::new();
    let mut pending: BTreeMap<Ticket, Id> = BTreeMap::new();
    // After whom is asked next: whoever gets no token holds nobody else up.
    let mut after = None;
    loop {
        if pending.is_empty() {
            tokio::select! {
                some = granted.recv_many(&mut batch, VISITORS_PER_QUESTION_MAX) => {
                    if some == 0 { return }
                }
                () = shutdown.stopped() => return,
            }
        } else {
            while batch.len() < VISITORS_PER_QUESTION_MAX {
                let Ok(ticket) = granted.try_recv() else { break };
                batch.push(ticket);
            }
        }
        for ticket in batch.drain(..) {
            if let Some(visitor) = queue.hall.visitor(ticket) {
                pending.insert(ticket, Id(visitor.0));
            }
        }
        let all_came = ask(&log, &queue, &mut pending, &mut after).await;
        forget_done(&queue, &mut pending);
        if !all_came {
            tokio::select! {
                () = tokio::time::sleep(RETRY_WAIT) => {}
                () = shutdown.stopped() => return,
            }
        }
    }
}

/// Who has left, or whose grant is over, needs no token any more.
fn forget_done(queue: &Queue, pending: &mut BTreeMap<Ticket, Id>) {
    let view = queue.view();
    pending.retain(|ticket, _| {
        view.has_unused_grant(*ticket) && queue.hall.visitor(*ticket).is_some()
    });
}

/// Who goes into the next question: as many as it takes, behind the last one of the question before.
fn next_asked(pending: &BTreeMap<Ticket, Id>, after: &mut Option<Ticket>) -> Vec<(Ticket, Id)> {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let behind = pending.range((from, Bound::Unbounded));
    let asked: Vec<(Ticket, Id)> = behind
        .take(VISITORS_PER_QUESTION_MAX)
        .map(|(ticket, visitor)| (*ticket, *visitor))
        .collect();
    // At the end it begins anew.
    let is_whole = asked.len() == VISITORS_PER_QUESTION_MAX;
    *after = asked.last().filter(|_| is_whole).map(|(ticket, _)| *ticket);
    asked
}

/// Asks once for as many as go into a question; whether all of them came.
async fn ask(
    log: &Log,
    queue: &Queue,
    pending: &mut BTreeMap<Ticket, Id>,
    after: &mut Option<Ticket>,
) -> bool {
    let asked = next_asked(pending, after);
    if asked.is_empty() {
        return true;
    }
    let question = MintQuestion { visitors: asked.iter().map(|(_, visitor)| *visitor).collect() };
    let answer: Result<MintAnswer, AskError> =
        log.gate(&queue.id, "mint", &question, ANSWER_WAIT_MAX).await;
    let Ok(answer) = answer else { return false };
    let mut all = true;
    for ((ticket, _), minted) in asked.into_iter().zip(answer.tokens) {
        match minted {
            Some(minted) => {
                queue.hall.admit(ticket, minted);
                pending.remove(&ticket);
            }
            None => all = false,
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_gets_no_token_holds_nobody_up() {
        let count = u32::try_from(2 * VISITORS_PER_QUESTION_MAX + 3).unwrap();
        let mut pending: BTreeMap<Ticket, Id> =
            (0..count).map(|n| (Ticket(n), Id([0; 16]))).collect();
        let mut after = None;
        let mut asked = || {
            let asked = next_asked(&pending, &mut after);
            (asked.first().map(|it| it.0.0), asked.len())
        };
        let each = VISITORS_PER_QUESTION_MAX;
        let second = u32::try_from(each).unwrap();
        assert_eq!(asked(), (Some(0), each));
        assert_eq!(asked(), (Some(second), each));
        assert_eq!(asked(), (Some(2 * second), 3));
        assert_eq!(asked(), (Some(0), each));
        pending.clear();
        let mut after = Some(Ticket(7));
        assert_eq!((next_asked(&pending, &mut after), after), (Vec::new(), None));
    }
}
