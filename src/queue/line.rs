//! The line: what all facts so far come to.
//!
//! [`Line::apply`] is the only way this state changes, live and on replay. It never fails: a fact
//! that may not count counts nowhere and is named in the [`Change`].

#![expect(
    clippy::indexing_slicing,
    reason = "tickets are dense: every ticket is an index of `places`"
)]

use std::collections::BTreeSet;

use crate::queue::event::{
    Admitted, At, Configured, Decision, Entry, Facts, Jti, NodeId, PublicKey, Redeemed,
    ReleaseReason, Released, Removed, Seated, Seq, Setting, Socket, State, Ticket, VisitorId,
};
use crate::queue::grants::Grants;
use crate::queue::index::VisitorIndex;
use crate::queue::places::Places;
use crate::queue::policy::Policy;
use crate::queue::presence::{Graces, Nodes};
use crate::queue::rate::Rate;

pub use crate::queue::change::{Change, Joins, VoidEntry, VoidFact};
pub use crate::queue::checkpoint::Head;
pub use crate::queue::place::{End, Grant, Place, Redemption, Standing};

/// Raised whenever the same log would fold to another state or another encoding of it. A store
/// written by another version is rebuilt, and digests of different versions differ.
pub const FOLD_VERSION: u16 = 2;

/// A rate that follows the load of the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follows {
    /// People a minute, as last decided.
    pub per_minute: u32,
    /// When that was.
    pub at: At,
}

/// The state of one queue after the entry `seq`.
#[derive(Debug, Default)]
pub struct Line {
    pub(super) seq: Seq,
    pub(super) at: At,
    pub(super) last_decision: Seq,
    pub(super) policy: Policy,
    pub(super) follows: Option<Follows>,
    pub(super) state: State,
    pub(super) reason: Option<String>,
    pub(super) keys: Vec<PublicKey>,
    pub(super) places: Vec<Place>,
    pub(super) index: VisitorIndex,
    pub(super) grants: Grants,
    pub(super) waiting: Places,
    pub(super) present: Places,
    pub(super) nodes: Nodes,
    pub(super) graces: Graces,
    /// Grants not used yet, by the running time at which they lapse.
    pub(super) unused: BTreeSet<(At, Ticket)>,
    /// People inside, by the end of their pass.
    pub(super) inside: BTreeSet<(At, Ticket)>,
    /// The rate limiter's theoretical arrival time (GCRA): when the next grant is due.
    pub(super) next_due: At,
}

impl Line {
    /// Applies one entry. `seq` is the next one of the log; `at` its store time.
    ///
    /// # Panics
    /// When entries don't arrive in order, without a gap: the reader of the log sees to that.
    pub fn apply(&mut self, seq: Seq, at: At, entry: &Entry) -> Change {
        assert_eq!(seq.0, self.seq.0 + 1, "entries arrive in order and without a gap");
        self.seq = seq;
        self.at = self.at.max(at);
        let mut change = Change::default();
        match entry {
            Entry::Joined(seated) => self.join(seated, &mut change),
            Entry::Reconnected(seated) => self.reconnect(seated, &mut change),
            Entry::Disconnected(seated) => self.disconnect(seated, &mut change),
            Entry::Left(visitors) => self.leave(visitors, &mut change),
            Entry::Decided(decision) => self.decided(decision, &mut change),
            Entry::Void { fenced } => {
                change.void_entry = Some(VoidEntry::Unreadable);
                if *fenced {
                    self.last_decision = seq;
                }
            }
        }
        change
    }

    /// The last entry applied.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// The time of the last entry, never going back.
    pub fn at(&self) -> At {
        self.at
    }

    /// The last entry on an admission subject: what the next decision is fenced on.
    pub fn last_decision(&self) -> Seq {
        self.last_decision
    }

    /// The policy in force.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// How many people are let in a minute now: the policy's rate, or fewer while the site says so.
    pub fn rate(&self) -> Rate {
        let most = self.policy.rate_per_minute;
        Rate(self.follows.map_or(most, |follows| follows.per_minute.min(most)))
    }

    /// How the rate follows the site's load; `None` while it does not.
    pub fn follows(&self) -> Option<Follows> {
        self.follows
    }

    /// The state of the queue.
    pub fn state(&self) -> State {
        self.state
    }

    /// What the operator tells visitors about the state.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// The public keys that tokens and passes may be signed with.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// Every place ever given, by ticket.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// The ticket of a visitor.
    pub fn ticket(&self, visitor: VisitorId) -> Option<Ticket> {
        self.index.find(visitor, &self.places)
    }

    /// The place with this ticket.
    pub fn place(&self, ticket: Ticket) -> Option<&Place> {
        self.places.get(ticket.0 as usize)
    }

    /// The grant of the visitor with this ticket.
    pub fn grant(&self, ticket: Ticket) -> Option<&Grant> {
        self.grants.get(ticket)
    }

    /// Who waits, present or not.
    pub fn waiting(&self) -> &Places {
        &self.waiting
    }

    /// Who waits and is here.
    pub fn present(&self) -> &Places {
        &self.present
    }

    /// The nodes, and whom they hold.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// The graces that run.
    pub fn graces(&self) -> &Graces {
        &self.graces
    }

    /// Grants not used yet, by the running time at which they lapse.
    pub fn unused(&self) -> &BTreeSet<(At, Ticket)> {
        &self.unused
    }

    /// People inside, by the end of their pass.
    pub fn inside(&self) -> &BTreeSet<(At, Ticket)> {
        &self.inside
    }

    /// How many grants were ever made.
    pub fn grants_len(&self) -> usize {
        self.grants.len()
    }

    /// When the next grant is due by the rate alone (GCRA's theoretical arrival time).
    pub fn next_due(&self) -> At {
        self.next_due
    }

    fn join(&mut self, seated: &Seated, change: &mut Change) {
        self.warm(seated.visitors.iter().map(|(visitor, _)| *visitor));
        let node = self.nodes.intern(seated.node);
        change.joined.first = self.next_ticket();
        for (index, &(visitor, socket)) in (0..).zip(&seated.visitors) {
            let ticket = self.next_ticket();
            if self.ticket(visitor).is_some() {
                change.joined.ignored.push(index);
                continue;
            }
            self.index.insert(visitor, ticket);
            self.places.push(Place {
                visitor,
                joined: self.seq,
                came: self.seq,
                node,
                socket,
                absent: None,
                standing: Standing::Waiting,
            });
            self.nodes.took(node);
            self.waiting.insert(ticket);
            self.present.insert(ticket);
            change.joined.accepted += 1;
        }
    }

    fn reconnect(&mut self, seated: &Seated, change: &mut Change) {
        self.warm(seated.visitors.iter().map(|(visitor, _)| *visitor));
        let node = self.nodes.intern(seated.node);
        for (index, &(visitor, number)) in seated.visitors.iter().enumerate() {
            let Some(ticket) = self.known(visitor, index, change) else { continue };
            if !self.is_held_or_waited_for(ticket) {
                change.void.push((index, VoidFact::Ended));
                continue;
            }
            self.release_socket(ticket);
            let seq = self.seq;
            let place = self.place_mut(ticket);
            (place.node, place.socket, place.came) = (node, number, seq);
            self.nodes.took(node);
            if self.waiting.contains(ticket) {
                self.present.insert(ticket);
            }
            change.came.push((ticket, Socket { node: seated.node, number }));
        }
    }

    fn disconnect(&mut self, seated: &Seated, change: &mut Change) {
        self.warm(seated.visitors.iter().map(|(visitor, _)| *visitor));
        let node = self.nodes.intern(seated.node);
        for (index, &(visitor, number)) in seated.visitors.iter().enumerate() {
            let Some(ticket) = self.known(visitor, index, change) else { continue };
            let place = &self.places[ticket.0 as usize];
            if place.node == node && place.socket == number {
                self.went(ticket, change);
            }
        }
    }

    fn leave(&mut self, visitors: &[VisitorId], change: &mut Change) {
        self.warm(visitors.iter().copied());
        for (index, &visitor) in visitors.iter().enumerate() {
            let Some(ticket) = self.known(visitor, index, change) else { continue };
            if self.is_held_or_waited_for(ticket) {
                self.end(ticket, End::Left, change);
            } else {
                change.void.push((index, VoidFact::Ended));
            }
        }
    }

    fn decided(&mut self, decision: &Decision, change: &mut Change) {
        let prev = std::mem::replace(&mut self.last_decision, self.seq);
        if decision.prev != prev {
            change.void_entry = Some(VoidEntry::WrongPrev);
            return;
        }
        if decision.basis < prev || decision.basis >= self.seq {
            change.void_entry = Some(VoidEntry::WrongBasis);
            return;
        }
        match &decision.facts {
            Facts::Configured(facts) => facts.iter().for_each(|fact| self.configure(fact, change)),
            Facts::Admitted(facts) => {
                self.warm(facts.iter().map(|fact| fact.visitor));
                each(facts, change, |fact, change| self.admit(fact, change));
            }
            Facts::Redeemed(facts) => {
                self.warm(facts.iter().map(|fact| fact.visitor));
                each(facts, change, |fact, change| self.redeem(fact, change));
            }
            Facts::Released(facts) => {
                self.warm(facts.iter().map(|fact| fact.visitor));
                each(facts, change, |fact, change| self.release(fact, change));
            }
            Facts::Expired(facts) => {
                each(facts, change, |visitor, change| self.expire(*visitor, decision.basis, change))
            }
            Facts::Removed(facts) => each(facts, change, |fact, change| self.remove(fact, change)),
            Facts::NodeLost(nodes) => {
                each(nodes, change, |node, change| self.lose_node(*node, change));
            }
        }
    }

    fn configure(&mut self, fact: &Configured, change: &mut Change) {
        change.configured = true;
        let before = self.rate();
        match &fact.what {
            Setting::Policy(policy) => self.policy = policy.clone(),
            Setting::Rate { per_minute, .. } => {
                self.follows = per_minute.map(|per_minute| Follows { per_minute, at: self.at });
            }
            Setting::State(state, reason) => {
                self.state = *state;
                self.reason.clone_from(reason);
            }
            Setting::Keys(keys) => self.keys.clone_from(keys),
            Setting::Outage { seconds } => self.outage(*seconds, change),
        }
        self.next_due = self.rate().take_over(before, self.next_due, self.at);
    }

    /// Graces and unused grants are prolonged by an outage that ended with this entry.
    fn outage(&mut self, seconds: u32, change: &mut Change) {
        let from = At(self.at.0 - At(0).plus_seconds(seconds).0);
        let (places, waiting) = (&self.places, &self.waiting);
        let (stood, late) = self.graces.outage(from, self.at, |ticket, since| {
            places[ticket.0 as usize].absent == Some(since) && waiting.contains(ticket)
        });
        for &ticket in &late {
            self.place_mut(ticket).absent = Some(stood);
        }
        change.prolonged.extend(late);
    }

    fn admit(&mut self, fact: &Admitted, change: &mut Change) -> Result<(), VoidFact> {
        let ticket = self.ticket(fact.visitor).ok_or(VoidFact::UnknownVisitor)?;
        if !self.waiting.contains(ticket) {
            return Err(VoidFact::NotWaiting);
        }
        self.stop_waiting(ticket);
        let lapses = self.graces.running(self.at).plus_seconds(fact.seconds);
        let grant = Grant {
            jti: fact.jti,
            kid: self.grants.kid(&fact.kid),
            seconds: fact.seconds,
            seq: self.seq,
            at: self.at,
            lapses,
            redeemed: None,
        };
        self.grants.insert(ticket, grant);
        self.unused.insert((lapses, ticket));
        self.place_mut(ticket).standing = Standing::Granted;
        self.next_due = self.rate().after_grant(self.next_due, self.at);
        change.admitted.push(ticket);
        Ok(())
    }

    fn redeem(&mut self, fact: &Redeemed, change: &mut Change) -> Result<(), VoidFact> {
        let ticket = self.granted(fact.visitor, fact.jti)?;
        match self.places[ticket.0 as usize].standing {
            Standing::Granted => {}
            Standing::Inside => return Err(VoidFact::AlreadyRedeemed),
            Standing::Waiting | Standing::Ended(_) => return Err(VoidFact::NoSuchGrant),
        }
        let at = self.at;
        if let Some(grant) = self.grants.get(ticket) {
            self.unused.remove(&(grant.lapses, ticket));
        }
        let redemption = Redemption {
            seq: self.seq,
            at,
            kid: self.grants.kid(&fact.kid),
            seconds: fact.seconds,
            key: fact.key,
        };
        self.grants.redeem(ticket, redemption);
        self.inside.insert((at.plus_seconds(fact.seconds), ticket));
        self.hold_no_longer(ticket);
        self.place_mut(ticket).standing = Standing::Inside;
        change.entered.push(ticket);
        Ok(())
    }

    fn release(&mut self, fact: &Released, change: &mut Change) -> Result<(), VoidFact> {
        let ticket = self.granted(fact.visitor, fact.jti)?;
        let end = match (self.places[ticket.0 as usize].standing, fact.reason) {
            (Standing::Granted, ReleaseReason::Lapsed) => End::Lapsed,
            (Standing::Granted | Standing::Inside, ReleaseReason::Released) => End::Released,
            (Standing::Inside, ReleaseReason::SessionOver) => End::SessionOver,
            (_, ReleaseReason::Lapsed | ReleaseReason::Released | ReleaseReason::SessionOver) => {
                return Err(VoidFact::NoSuchGrant);
            }
        };
        self.end(ticket, end, change);
        Ok(())
    }

    fn expire(&mut self, who: VisitorId, basis: Seq, change: &mut Change) -> Result<(), VoidFact> {
        let ticket = self.ticket(who).ok_or(VoidFact::UnknownVisitor)?;
        let place = &self.places[ticket.0 as usize];
        if place.standing != Standing::Waiting {
            return Err(VoidFact::NotWaiting);
        }
        if place.absent.is_none() {
            return Err(VoidFact::Present);
        }
        if place.came > basis {
            return Err(VoidFact::CameBack);
        }
        self.end(ticket, End::Expired, change);
        Ok(())
    }

    fn remove(&mut self, fact: &Removed, change: &mut Change) -> Result<(), VoidFact> {
        let ticket = self.ticket(fact.visitor).ok_or(VoidFact::UnknownVisitor)?;
        if matches!(self.places[ticket.0 as usize].standing, Standing::Ended(_)) {
            return Err(VoidFact::Ended);
        }
        self.end(ticket, End::Removed, change);
        Ok(())
    }

    fn lose_node(&mut self, id: NodeId, change: &mut Change) -> Result<(), VoidFact> {
        let node = self.nodes.find(id).ok_or(VoidFact::UnknownNode)?;
        for ticket in (0..self.next_ticket().0).map(Ticket) {
            if self.nodes.held(node) == 0 {
                break;
            }
            if self.places[ticket.0 as usize].node == node {
                self.went(ticket, change);
            }
        }
        change.lost.push(id);
        Ok(())
    }

    /// Has what an entry's facts will read of these visitors at hand. It changes nothing.
    fn warm(&self, visitors: impl Iterator<Item = VisitorId>) {
        self.index.warm(visitors, &self.places);
    }

    /// The ticket of a visitor that a fact names; a void fact when there is none.
    fn known(&self, visitor: VisitorId, index: usize, change: &mut Change) -> Option<Ticket> {
        let ticket = self.ticket(visitor);
        if ticket.is_none() {
            change.void.push((index, VoidFact::UnknownVisitor));
        }
        ticket
    }

    /// The ticket of the visitor who has this grant.
    fn granted(&self, visitor: VisitorId, jti: Jti) -> Result<Ticket, VoidFact> {
        let ticket = self.ticket(visitor).ok_or(VoidFact::UnknownVisitor)?;
        let grant = self.grant(ticket).ok_or(VoidFact::NoSuchGrant)?;
        if grant.jti == jti { Ok(ticket) } else { Err(VoidFact::NoSuchGrant) }
    }

    /// Whether the visitor still has something to be present for: a turn to come, or a token.
    pub(super) fn is_held_or_waited_for(&self, ticket: Ticket) -> bool {
        matches!(self.places[ticket.0 as usize].standing, Standing::Waiting | Standing::Granted)
    }

    /// The visitor's latest socket is gone, if it was not gone already.
    fn went(&mut self, ticket: Ticket, change: &mut Change) {
        let place = &self.places[ticket.0 as usize];
        if place.absent.is_some() || !self.is_held_or_waited_for(ticket) {
            return;
        }
        self.nodes.lost_one(place.node);
        let since = self.graces.running(self.at);
        self.place_mut(ticket).absent = Some(since);
        if self.present.remove(ticket) {
            self.graces.start(since, ticket);
        }
        change.went.push(ticket);
    }

    /// The visitor is on no socket for a moment: neither counted at a node nor absent.
    fn release_socket(&mut self, ticket: Ticket) {
        let place = &mut self.places[ticket.0 as usize];
        let was_absent = place.absent.take().is_some();
        let node = place.node;
        if !was_absent {
            self.nodes.lost_one(node);
        } else if self.waiting.contains(ticket) {
            self.stop_grace();
        }
    }

    fn stop_grace(&mut self) {
        let (places, waiting) = (&self.places, &self.waiting);
        self.graces.stop(|ticket, since| {
            places[ticket.0 as usize].absent == Some(since) && waiting.contains(ticket)
        });
    }

    fn stop_waiting(&mut self, ticket: Ticket) {
        let was_absent = self.places[ticket.0 as usize].absent.is_some();
        if self.waiting.remove(ticket) && was_absent {
            self.stop_grace();
        }
        self.present.remove(ticket);
    }

    /// Presence no longer matters: the node is not asked for this visitor any more.
    fn hold_no_longer(&mut self, ticket: Ticket) {
        let place = &self.places[ticket.0 as usize];
        if place.absent.is_none() && self.is_held_or_waited_for(ticket) {
            self.nodes.lost_one(place.node);
        }
    }

    fn end(&mut self, ticket: Ticket, end: End, change: &mut Change) {
        self.hold_no_longer(ticket);
        self.stop_waiting(ticket);
        if let Some(grant) = self.grants.get(ticket) {
            self.unused.remove(&(grant.lapses, ticket));
            if let Some(redemption) = &grant.redeemed {
                self.inside.remove(&(redemption.at.plus_seconds(redemption.seconds), ticket));
            }
        }
        self.place_mut(ticket).standing = Standing::Ended(end);
        change.ended.push((ticket, end));
    }

    fn place_mut(&mut self, ticket: Ticket) -> &mut Place {
        &mut self.places[ticket.0 as usize]
    }

    #[expect(clippy::cast_possible_truncation, reason = "a log of 4 billion joins is not kept")]
    pub(super) fn next_ticket(&self) -> Ticket {
        Ticket(self.places.len() as u32)
    }
}

/// Applies each fact of an entry, noting those that count nowhere.
fn each<F>(
    facts: &[F],
    change: &mut Change,
    mut apply: impl FnMut(&F, &mut Change) -> Result<(), VoidFact>,
) {
    for (index, fact) in facts.iter().enumerate() {
        if let Err(why) = apply(fact, change) {
            change.void.push((index, why));
        }
    }
}
