//! What nodes ask admission: tokens for the visitors they hold, and passes for tokens.

use std::time::Duration;

use crate::admission::command::Refused;
use crate::admission::handle::Renewable;
use crate::admission::signer::{Session, Signed};
use crate::admission::{NoWorker, Workers};
use crate::log::subjects::{self, QueueId};
use crate::log::talk::Heard;
use crate::queue::event::{At, VisitorId};
use crate::wire::ask::{
    Answer, MintAnswer, MintQuestion, PassAnswer, RedeemQuestion, Refusal, RenewQuestion,
    VISITORS_PER_QUESTION_MAX,
};
use crate::wire::id::Id;

/// Questions that are answered at the same time; the others wait in the connection's buffer.
const ANSWERED_AT_ONCE: usize = 2_048;

/// How long a worker that can't answer waits for another that can.
const YIELD: Duration = Duration::from_millis(300);

/// A node hears of a grant by the feed, which may be quicker than our own reading of the log: we look
/// again after this…
const FOLD_LOOK_EVERY: Duration = Duration::from_millis(5);
/// … so many times, which is less than the node's own pause before it asks again.
const FOLD_LOOKS_MAX: u32 = 20;

/// Answers questions until asked to stop.
pub(super) async fn serve(workers: &Workers) -> anyhow::Result<()> {
    let mut questions = workers
        .log
        .listen(subjects::gate_all())
        .await
        .ok_or_else(|| anyhow::anyhow!("the connection to NATS is closed"))?;
    let (workers, shutdown) = (workers.clone(), workers.shutdown.clone());
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(ANSWERED_AT_ONCE));
    shutdown.clone().spawn(async move {
        loop {
            let question = tokio::select! {
                question = questions.next() => question,
                () = shutdown.stopped() => return,
            };
            let place = std::sync::Arc::clone(&places).acquire_owned().await;
            let (Some(question), Ok(place)) = (question, place) else { return };
            let workers = workers.clone();
            shutdown.spawn(async move {
                answer(&workers, &question).await;
                drop(place);
            });
        }
    });
    Ok(())
}

async fn answer(workers: &Workers, heard: &Heard) {
    let Some((queue, question)) = subjects::question(&heard.subject) else { return };
    match question {
        "mint" => {
            let answer = mint(workers, &queue, &heard.payload).await;
            let is_whole = |answer: &MintAnswer| answer.tokens.iter().all(Option::is_some);
            if !workers.beats.is_active() && !answer.as_ref().is_ok_and(is_whole) {
                // Whoever made the grant has it in its fold already.
                tokio::time::sleep(YIELD).await;
            } else {
                yield_to_others(&answer).await;
            }
            workers.log.answer(heard, &answer.map_or_else(Answer::No, Answer::Ok)).await;
        }
        "redeem" => {
            let answer = redeem(workers, &queue, &heard.payload).await;
            yield_to_others(&answer).await;
            workers.log.answer(heard, &answer.map_or_else(Answer::No, Answer::Ok)).await;
        }
        "renew" => {
            let answer = renew(workers, &queue, &heard.payload).await;
            yield_to_others(&answer).await;
            workers.log.answer(heard, &answer.map_or_else(Answer::No, Answer::Ok)).await;
        }
        _ => workers.log.answer(heard, &Answer::<()>::No(Refusal::BadQuestion)).await,
    }
}

/// The first answer is the one that counts: a worker that can't tell lets one that can speak first.
async fn yield_to_others<T>(answer: &Result<T, Refusal>) {
    if matches!(answer, Err(Refusal::LogUnavailable | Refusal::UnknownQueue)) {
        tokio::time::sleep(YIELD).await;
    }
}

fn refused(why: NoWorker) -> Refusal {
    match why {
        NoWorker::UnknownQueue => Refusal::UnknownQueue,
        NoWorker::LogUnavailable => Refusal::LogUnavailable,
    }
}

async fn mint(workers: &Workers, queue: &QueueId, body: &[u8]) -> Result<MintAnswer, Refusal> {
    let question: MintQuestion = serde_json::from_slice(body).map_err(|_| Refusal::BadQuestion)?;
    if question.visitors.len() > VISITORS_PER_QUESTION_MAX {
        return Err(Refusal::BadQuestion);
    }
    let worker = workers.find(queue).await.map_err(refused)?;
    let visitors: Vec<VisitorId> = question.visitors.iter().map(|id| VisitorId(id.0)).collect();
    let mut again = 0;
    loop {
        let tokens = worker.mint(visitors.clone()).await.ok_or(Refusal::LogUnavailable)?;
        if !tokens.is_behind || again == FOLD_LOOKS_MAX {
            return Ok(MintAnswer { tokens: tokens.minted });
        }
        again += 1;
        tokio::time::sleep(FOLD_LOOK_EVERY).await;
    }
}

async fn redeem(workers: &Workers, queue: &QueueId, body: &[u8]) -> Result<PassAnswer, Refusal> {
    let question: RedeemQuestion =
        serde_json::from_slice(body).map_err(|_| Refusal::BadQuestion)?;
    let key = match question.key.as_deref() {
        Some(hex) => Some(crate::wire::id::from_hex(hex).ok_or(Refusal::BadQuestion)?),
        None => None,
    };
    let worker = workers.find(queue).await.map_err(refused)?;
    match worker.redeem(question.token, key, At(question.until)).await {
        Ok(session) => {
            let Some(pass) = workers.signing.keys.signer().pass(queue, &session) else {
                // Another worker may hold the key. Where none does, the pass can't be made again.
                tokio::time::sleep(YIELD).await;
                return Err(Refusal::TokenAlreadyUsed);
            };
            Ok(pass_answer(&session, pass))
        }
        Err(Refused::Gate(refusal)) => Err(refusal),
        Err(Refused::Nobody) => Err(Refusal::TokenInvalid),
        Err(Refused::Unavailable) => Err(Refusal::LogUnavailable),
    }
}

async fn renew(workers: &Workers, queue: &QueueId, body: &[u8]) -> Result<PassAnswer, Refusal> {
    let question: RenewQuestion = serde_json::from_slice(body).map_err(|_| Refusal::BadQuestion)?;
    let worker = workers.find(queue).await.map_err(refused)?;
    match worker.renew(question.pass).await {
        Ok(Renewable { session, now, kid }) => {
            let signer = workers.signing.keys.signer();
            // The file may have lost the key just now.
            let pass = signer.renewed(queue, &session, now, &kid).ok_or(Refusal::LogUnavailable)?;
            Ok(pass_answer(&session, pass))
        }
        Err(Refused::Gate(refusal)) => Err(refusal),
        Err(Refused::Nobody) => Err(Refusal::PassInvalid),
        Err(Refused::Unavailable) => Err(Refusal::LogUnavailable),
    }
}

fn pass_answer(session: &Session, pass: Signed) -> PassAnswer {
    PassAnswer {
        pass: pass.text,
        expires: pass.expires,
        visitor: Id(session.visitor.0),
        redeemed_at: session.redemption.at.0,
    }
}
