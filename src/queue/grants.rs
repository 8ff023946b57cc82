//! The grants, by the ticket that they were made for.

use std::sync::Arc;

use crate::queue::event::Ticket;
use crate::queue::place::{Grant, Redemption};

/// The grants: at most one a ticket, and most tickets have none.
#[derive(Debug, Default)]
pub(super) struct Grants {
    /// For each ticket the index of its grant, up to the last ticket that has one.
    of: Vec<u32>,
    grants: Vec<Grant>,
    /// Where the next ones go: those of missed turns stood there.
    free: Vec<u32>,
    /// How many were made since the line was begun or restored.
    made: usize,
    /// The name of the key that was named last: one key signs nearly all, and its name is kept once.
    kid: Option<Arc<str>>,
}

const NONE: u32 = u32::MAX;

impl Grants {
    /// How many tickets have one.
    pub(super) fn len(&self) -> usize {
        self.grants.len() - self.free.len()
    }

    /// How many were made since the line was begun or restored, of missed turns too.
    pub(super) fn made(&self) -> usize {
        self.made
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
        let Some(index) = self.of.get_mut(ticket.0 as usize) else { return };
        self.made += 1;
        match self.free.pop().and_then(|free| Some((free, self.grants.get_mut(free as usize)?))) {
            Some((free, old)) => {
                *index = free;
                *old = grant;
            }
            None => {
                *index = self.grants.len() as u32;
                self.grants.push(grant);
            }
        }
    }

    /// Takes back the grant of a ticket.
    pub(super) fn take_back(&mut self, ticket: Ticket) {
        let index = self.of.get_mut(ticket.0 as usize).map(|index| std::mem::replace(index, NONE));
        self.free.extend(index.filter(|index| *index != NONE));
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
