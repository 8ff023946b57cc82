//! Every grant ever made, by the ticket that it was made for.

use std::sync::Arc;

use crate::queue::event::Ticket;
use crate::queue::place::{Grant, Redemption};

/// The grants: at most one a ticket, and most tickets have none.
#[derive(Debug, Default)]
pub(super) struct Grants {
    /// For each ticket the index of its grant, up to the last ticket that has one.
    of: Vec<u32>,
    grants: Vec<Grant>,
    /// The name of the key that was named last: one key signs nearly all, and its name is kept once.
    kid: Option<Arc<str>>,
}

const NONE: u32 = u32::MAX;

impl Grants {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.grants.len()
    }

    /// The grant of a ticket.
    pub(super) fn get(&self, ticket: Ticket) -> Option<&Grant> {
        self.grants.get(*self.of.get(ticket.0 as usize)? as usize)
    }

    /// Adds the grant of a ticket that has none.
    #[expect(clippy::cast_possible_truncation, reason = "at most one grant a ticket")]
    pub(super) fn insert(&mut self, ticket: Ticket, grant: Grant) {
        let needed = self.of.len().max(ticket.0 as usize + 1);
        self.of.resize(needed, NONE);
        if let Some(index) = self.of.get_mut(ticket.0 as usize) {
            *index = self.grants.len() as u32;
            self.grants.push(grant);
        }
    }

    /// Notes how the grant of a ticket was used.
    pub(super) fn redeem(&mut self, ticket: Ticket, redemption: Redemption) {
        let index = self.of.get(ticket.0 as usize).copied().unwrap_or(NONE);
        if let Some(grant) = self.grants.get_mut(index as usize) {
            grant.redeemed = Some(Box::new(redemption));
        }
    }

    /// The name of a key, shared with the grant before.
    pub(super) fn kid(&mut self, kid: &str) -> Arc<str> {
        match &self.kid {
            Some(last) if **last == *kid => Arc::clone(last),
            _ => Arc::clone(self.kid.insert(kid.into())),
        }
    }
}
