//! A decision into the log, on the condition that no other came before it.

use async_nats::HeaderMap;

use crate::log::connection::Log;
use crate::log::publish::{PublishError, Stored};
use crate::log::subjects::{self, QueueId};
use crate::queue::event::{Decision, Entry, Level};
use crate::wire;

impl Log {
    /// Appends a decision in this version, if the last admission entry is still the one that it names in `prev`.
    ///
    /// There is no message id: the fence itself lets it in at most once. After
    /// [`PublishError::Unknown`] the same decision may be sent again; [`PublishError::FenceLost`]
    /// then means that some entry was stored, and the tail tells which.
    pub async fn append_fenced(
        &self,
        queue: &QueueId,
        decision: &Decision,
        version: Level,
    ) -> Result<Stored, PublishError> {
        let written = wire::event::write(&Entry::Decided(decision.clone()), version);
        let (writer, kind, payload) =
            written.ok_or_else(|| PublishError::Refused("the decision can't be written".into()))?;
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Last-Subject-Sequence", decision.prev.0.to_string());
        headers.insert(
            "Nats-Expected-Last-Subject-Sequence-Subject",
            subjects::fenced(queue).as_str(),
        );
        self.publish(subjects::log(queue, writer, kind), headers, payload.into()).await
    }
}
