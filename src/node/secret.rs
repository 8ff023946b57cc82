//! What a node makes with the secret of a queue: visitors' names and digests of requests. The feed brings
//! the secret wrapped; it is unwrapped when it is needed and kept nowhere.

use crate::ids::{InstallationKey, QueueSecret, UnwrapError};
use crate::node::Queue;
use crate::queue::event::State;

/// Why a queue has no secret for us.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoSecret {
    /// It was destroyed, or the log names another.
    #[error(
        "its secret is gone from its stream, or the log names another than is there, so nobody new \
         can be put in line"
    )]
    Gone,
    /// It is there, and not for us.
    #[error("{0}, so nobody new can be put in line")]
    Wrapped(#[from] UnwrapError),
}

impl Queue {
    /// The secret of this queue: a microsecond's work, of which a join takes many.
    pub(super) fn secret(&self, installation: &InstallationKey) -> Result<QueueSecret, NoSecret> {
        let wrapped = self.view().secret().ok_or(NoSecret::Gone)?;
        let (_, secret) = installation.unwrap(self.id.as_str(), &wrapped)?;
        Ok(secret)
    }

    /// Why nobody's name can be told here, in words for an operator. Where nobody can join any more, that
    /// is as it should be.
    pub(super) fn why_no_names(&self, installation: &InstallationKey) -> Option<String> {
        let is_over = matches!(self.view().state(), State::Closed | State::Deleted);
        let why = self.secret(installation).err().filter(|_| !is_over)?;
        Some(why.to_string())
    }
}
