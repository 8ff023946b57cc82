//! The ids of this process: a new one each time that it was declared lost.

use std::sync::{PoisonError, RwLock};

use crate::ids;
use crate::queue::event::NodeId;

/// The ids that this process has had.
pub(super) struct NodeIds(RwLock<Vec<NodeId>>);

impl NodeIds {
    /// The ids of a process that has just begun.
    pub(super) fn new() -> Self {
        Self(RwLock::new(vec![ids::node()]))
    }

    /// The one in use.
    pub(super) fn own(&self) -> NodeId {
        let ids = self.0.read().unwrap_or_else(PoisonError::into_inner);
        ids.last().copied().unwrap_or(NodeId([0; 16]))
    }

    /// Whether this is, or was, one of them.
    pub(super) fn contains(&self, node: NodeId) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&node)
    }

    /// Takes a new one, where this one is in use: of those who find out at once one does.
    pub(super) fn renew(&self, lost: NodeId) -> Option<NodeId> {
        let mut ids = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if ids.last() != Some(&lost) {
            return None;
        }
        let id = ids::node();
        ids.push(id);
        Some(id)
    }
}
