//! What is said and not kept: the feed, questions and answers, heartbeats.

use std::time::Duration;

use async_nats::{Message, Request, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::log::connection::Log;
use crate::log::subjects::{self, QueueId};
use crate::wire::ask::{Answer, Refusal};

/// A question to a projector without an answer after this is given up; the asker decides what to say.
/// A projector puts one off for 2 s at most; whoever waits longer waits for a process that is gone.
pub const ASK_WAIT_MAX: Duration = Duration::from_secs(3);

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Nobody is there to answer it, or nobody did in time.
    #[error("nobody answered")]
    Nobody,
    /// The answer can't be read.
    #[error("the answer can't be read")]
    Unreadable,
    /// The one asked said no.
    #[error("refused: {0:?}")]
    Refused(Refusal),
}

/// What was heard on a subject.
#[derive(Clone, Debug)]
pub struct Heard {
    /// The subject.
    pub subject: String,
    /// The bytes.
    pub payload: Bytes,
    reply: Option<async_nats::Subject>,
}

/// A subscription.
pub struct Listener(Subscriber);

impl Listener {
    /// The next message; `None` when the connection is closed for good. Safe to cancel.
    pub async fn next(&mut self) -> Option<Heard> {
        let Message { subject, payload, reply, .. } = self.0.next().await?;
        Some(Heard { subject: subject.to_string(), payload, reply })
    }
}

impl Log {
    /// Says something to whoever listens. Lossy: without a connection it is not said.
    pub async fn say(&self, subject: String, payload: Vec<u8>) {
        if !self.is_connected() {
            return;
        }
        if let Err(error) = self.client.publish(subject, payload.into()).await {
            tracing::debug!(%error, "could not be said");
        }
    }

    /// Listens to a subject, with wildcards.
    pub async fn listen(&self, subject: String) -> Option<Listener> {
        self.client.subscribe(subject).await.ok().map(Listener)
    }

    /// Answers what was heard, if it was a question.
    pub async fn answer<T: Serialize>(&self, question: &Heard, answer: &Answer<T>) {
        let payload = serde_json::to_vec(answer).unwrap_or_default();
        self.answer_bytes(question, payload).await;
    }

    /// Answers what was heard with bytes of its own format.
    pub async fn answer_bytes(&self, question: &Heard, payload: Vec<u8>) {
        let Some(reply) = question.reply.clone() else { return };
        if let Err(error) = self.client.publish(reply, payload.into()).await {
            tracing::error!(%error, subject = question.subject, "could not be answered");
        }
    }

    /// Asks a projector about a queue.
    pub async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        queue: &QueueId,
        question: &str,
        body: &Q,
    ) -> Result<A, AskError> {
        self.question(subjects::ask(queue, question), body, ASK_WAIT_MAX).await
    }

    /// Asks admission about a queue, and waits so long for the answer.
    pub async fn gate<Q: Serialize, A: DeserializeOwned>(
        &self,
        queue: &QueueId,
        question: &str,
        body: &Q,
        wait: Duration,
    ) -> Result<A, AskError> {
        self.question(subjects::gate(queue, question), body, wait).await
    }

    /// Asks, waits so long, and gives the answer as it came.
    pub async fn ask_bytes(
        &self,
        subject: String,
        body: Vec<u8>,
        wait: Duration,
    ) -> Result<Bytes, AskError> {
        let connection = self.connections();
        if !self.is_connected() {
            return Err(AskError::Nobody);
        }
        let request = Request::new().payload(body.into()).timeout(Some(wait));
        tokio::select! {
            biased;
            message = self.client.send_request(subject, request) => {
                message.map(|message| message.payload).map_err(|_| AskError::Nobody)
            }
            () = self.reconnected(connection) => Err(AskError::Nobody),
        }
    }

    async fn question<Q: Serialize, A: DeserializeOwned>(
        &self,
        subject: String,
        body: &Q,
        wait: Duration,
    ) -> Result<A, AskError> {
        let body = serde_json::to_vec(body).unwrap_or_default();
        let payload = self.ask_bytes(subject, body, wait).await?;
        match serde_json::from_slice(&payload).map_err(|_| AskError::Unreadable)? {
            Answer::Ok(answer) => Ok(answer),
            Answer::No(refusal) => Err(AskError::Refused(refusal)),
        }
    }
}
