//! The line: what all facts so far come to.
//!
//! [`Line::apply`] is the only way this state changes, live and on replay. It never fails: a fact
//! that may not count counts nowhere and is named in the [`Change`].

#![expect(
    clippy::indexing_slicing,
    reason = "tickets are dense: every ticket is an index of `places`"
)]

use std::collections::BTreeSet;
use std::hash::{BuildHasherDefault, Hasher};

use crate::queue::event::{
    Admitted, At, Configured, Decision, Entry, Facts, Jti, NodeId, PublicKey, Redeemed,
    ReleaseReason, Released, Removed, Seated, Seq, Setting, Socket, State, Ticket, VisitorId,
};
use crate::queue::places::Places;
use crate::queue::policy::Policy;
use crate::queue::presence::{Graces, NodeIndex, Nodes};

/// Raised whenever the same log would fold to another state or another encoding of it. A store
/// written by another version is rebuilt, and digests of different versions differ.
pub const FOLD_VERSION: u16 = 1;

#[expect(clippy::disallowed_types, reason = "looked up only, never iterated: no order to leak")]
type VisitorIndex = std::collections::HashMap<VisitorId, Ticket, BuildHasherDefault<VisitorHasher>>;

/// The state of one queue after the entry `seq`.
#[derive(Debug, Default)]
pub struct Line {
    seq: Seq,
    at: At,
    last_decision: Seq,
    policy: Policy,
    state: State,
    reason: Option<String>,
    keys: Vec<PublicKey>,
    places: Vec<Place>,
    index: VisitorIndex,
    grants: Vec<Grant>,
    waiting: Places,
    present: Places,
    nodes: Nodes,
    graces: Graces,
    /// Grants not used yet, by the running time at which they lapse.
    unused: BTreeSet<(At, Ticket)>,
    /// People inside, by the end of their pass.
    inside: BTreeSet<(At, Ticket)>,
    /// The rate limiter's theoretical arrival time (GCRA): when the next grant is due.
    next_due: At,
}

/// One visitor's place, from the join for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whose.
    pub visitor: VisitorId,
    /// The entry that gave it.
    pub joined: Seq,
    /// The last entry by which the visitor became present.
    pub came: Seq,
    /// The node of the visitor's latest socket.
    pub node: NodeIndex,
    /// That node's number for it.
    pub socket: u64,
    /// Since when the visitor is absent, in running time; not while they are present.
    pub absent: Option<At>,
    /// Where they stand.
    pub standing: Standing,
    grant: u32,
}

const NO_GRANT: u32 = u32::MAX;

/// Where a visitor stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// In line.
    Waiting,
    /// Let in; the token is not used yet.
    Granted,
    /// The token was used.
    Inside,
    /// The place is gone.
    Ended(End),
}

/// How a place ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// Given up.
    Left,
    /// Absent for too long.
    Expired,
    /// Taken out by an operator.
    Removed,
    /// Let in, but the token was not used in time.
    Lapsed,
    /// Was inside, and is done.
    Released,
    /// Was inside until the pass ended.
    SessionOver,
}

/// One grant, as the log gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its name.
    pub jti: Jti,
    /// The key that signs its token.
    pub kid: String,
    /// For how many seconds the token is good.
    pub seconds: u32,
    /// The entry that made it.
    pub seq: Seq,
    /// When.
    pub at: At,
    /// The running time at which it lapses unless it is used.
    pub lapses: At,
    /// How it was used.
    pub redeemed: Option<Redemption>,
}

/// How a grant was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redemption {
    /// The entry that says so.
    pub seq: Seq,
    /// When.
    pub at: At,
    /// The key that signs the pass.
    pub kid: String,
    /// For how many seconds the pass is good.
    pub seconds: u32,
    /// SHA-256 of the request's idempotency key.
    pub key: Option<[u8; 32]>,
}

/// What one entry did, in the words of the feed: who moved, and which of its facts count nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Visitors who joined.
    pub joined: Joins,
    /// Visitors who became present, and on which socket.
    pub came: Vec<(Ticket, Socket)>,
    /// Visitors who became absent.
    pub went: Vec<Ticket>,
    /// Visitors who were let in.
    pub admitted: Vec<Ticket>,
    /// Visitors whose token was used.
    pub entered: Vec<Ticket>,
    /// Visitors whose place ended, and how.
    pub ended: Vec<(Ticket, End)>,
    /// Absent visitors whose grace starts only now, after an outage.
    pub prolonged: Vec<Ticket>,
    /// Nodes declared lost.
    pub lost: Vec<NodeId>,
    /// Whether policy, state, reason or keys are different now.
    pub configured: bool,
    /// Facts that count nowhere: their index in the entry, and why.
    pub void: Vec<(usize, VoidFact)>,
    /// Why the whole entry counts nowhere.
    pub void_entry: Option<VoidEntry>,
}

/// The outcome of a `joined` entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Joins {
    /// The ticket of the first accepted join.
    pub first: Ticket,
    /// How many were accepted; they have consecutive tickets.
    pub accepted: u32,
    /// Which facts of the entry were not: these visitors had joined before.
    pub ignored: Vec<u32>,
}

/// Why a fact counts nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VoidFact {
    /// Nobody of that name ever joined.
    UnknownVisitor,
    /// The visitor is not in line.
    NotWaiting,
    /// The visitor is here.
    Present,
    /// The visitor came back after the decision was made.
    CameBack,
    /// There is no such grant, or it is no longer to be used.
    NoSuchGrant,
    /// The grant was used already.
    AlreadyRedeemed,
    /// The visitor's place has ended.
    Ended,
    /// No fact was ever written by that node.
    UnknownNode,
}

/// Why an entry counts nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VoidEntry {
    /// It can't be read, or stands on the wrong subject.
    Unreadable,
    /// `prev` is not the admission entry before it.
    WrongPrev,
    /// `basis` is not between `prev` and the entry itself.
    WrongBasis,
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
        self.index.get(&visitor).copied()
    }

    /// The place with this ticket.
    pub fn place(&self, ticket: Ticket) -> Option<&Place> {
        self.places.get(ticket.0 as usize)
    }

    /// The grant of the visitor with this ticket.
    pub fn grant(&self, ticket: Ticket) -> Option<&Grant> {
        self.grants.get(self.place(ticket)?.grant as usize)
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
        let node = self.nodes.intern(seated.node);
        change.joined.first = self.next_ticket();
        for (index, &(visitor, socket)) in (0..).zip(&seated.visitors) {
            let ticket = self.next_ticket();
            match self.index.entry(visitor) {
                std::collections::hash_map::Entry::Occupied(_) => {
                    change.joined.ignored.push(index);
                    continue;
                }
                std::collections::hash_map::Entry::Vacant(vacant) => vacant.insert(ticket),
            };
            self.places.push(Place {
                visitor,
                joined: self.seq,
                came: self.seq,
                node,
                socket,
                absent: None,
                standing: Standing::Waiting,
                grant: NO_GRANT,
            });
            self.nodes.took(node);
            self.waiting.insert(ticket);
            self.present.insert(ticket);
            change.joined.accepted += 1;
        }
    }

    fn reconnect(&mut self, seated: &Seated, change: &mut Change) {
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
            Facts::Admitted(facts) => each(facts, change, |fact, change| self.admit(fact, change)),
            Facts::Redeemed(facts) => each(facts, change, |fact, change| self.redeem(fact, change)),
            Facts::Released(facts) => {
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
        match &fact.what {
            Setting::Policy(policy) => self.policy = policy.clone(),
            Setting::State(state, reason) => {
                self.state = *state;
                self.reason.clone_from(reason);
            }
            Setting::Keys(keys) => self.keys.clone_from(keys),
            Setting::Outage { seconds } => self.outage(*seconds, change),
        }
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
        let grant = self.next_grant();
        self.grants.push(Grant {
            jti: fact.jti,
            kid: fact.kid.clone(),
            seconds: fact.seconds,
            seq: self.seq,
            at: self.at,
            lapses,
            redeemed: None,
        });
        self.unused.insert((lapses, ticket));
        let place = self.place_mut(ticket);
        (place.standing, place.grant) = (Standing::Granted, grant);
        self.next_due = At(self.next_due.max(self.at).0 + self.policy.interval_nanos());
        change.admitted.push(ticket);
        Ok(())
    }

    fn redeem(&mut self, fact: &Redeemed, change: &mut Change) -> Result<(), VoidFact> {
        let ticket = self.granted(fact.visitor, fact.jti)?;
        let place = self.places[ticket.0 as usize];
        match place.standing {
            Standing::Granted => {}
            Standing::Inside => return Err(VoidFact::AlreadyRedeemed),
            Standing::Waiting | Standing::Ended(_) => return Err(VoidFact::NoSuchGrant),
        }
        let at = self.at;
        let grant = &mut self.grants[place.grant as usize];
        let lapses = grant.lapses;
        grant.redeemed = Some(Redemption {
            seq: self.seq,
            at,
            kid: fact.kid.clone(),
            seconds: fact.seconds,
            key: fact.key,
        });
        self.unused.remove(&(lapses, ticket));
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
    fn is_held_or_waited_for(&self, ticket: Ticket) -> bool {
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
        let place = self.places[ticket.0 as usize];
        if let Some(grant) = self.grants.get(place.grant as usize) {
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
    fn next_ticket(&self) -> Ticket {
        Ticket(self.places.len() as u32)
    }

    #[expect(clippy::cast_possible_truncation, reason = "at most one grant a ticket")]
    fn next_grant(&self) -> u32 {
        self.grants.len() as u32
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

/// What a fold keeps besides its places: with them, enough to go on from here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// How many places there are.
    pub tickets: u64,
    /// The last entry applied.
    pub seq: Seq,
    /// Its time.
    pub at: At,
    /// The last entry on an admission subject.
    pub last_decision: Seq,
    /// The policy.
    pub policy: Policy,
    /// The state.
    pub state: State,
    /// What visitors are told about it.
    pub reason: Option<String>,
    /// The public keys.
    pub keys: Vec<PublicKey>,
    /// The nodes, by their number.
    pub nodes: Vec<NodeId>,
    /// Nanoseconds of outage.
    pub outages: i64,
    /// When the next grant is due.
    pub next_due: At,
}

impl Line {
    /// What is kept besides the places.
    pub fn head(&self) -> Head {
        Head {
            tickets: self.places.len() as u64,
            seq: self.seq,
            at: self.at,
            last_decision: self.last_decision,
            policy: self.policy.clone(),
            state: self.state,
            reason: self.reason.clone(),
            keys: self.keys.clone(),
            nodes: self.nodes.ids().to_vec(),
            outages: self.graces.outages(),
            next_due: self.next_due,
        }
    }

    /// The line that had this head and these places, with their grants, by ticket. `None` when
    /// they can't belong together.
    pub fn restore(head: Head, places: Vec<(Place, Option<Grant>)>) -> Option<Self> {
        let mut line = Self {
            seq: head.seq,
            at: head.at,
            last_decision: head.last_decision,
            policy: head.policy,
            state: head.state,
            reason: head.reason,
            keys: head.keys,
            next_due: head.next_due,
            ..Self::default()
        };
        for id in head.nodes {
            line.nodes.intern(id);
        }
        line.places.reserve(places.len());
        line.index.reserve(places.len());
        let mut absent = Vec::new();
        for (place, grant) in places {
            line.restore_place(place, grant, &mut absent)?;
        }
        line.graces = Graces::restore(head.outages, absent);
        (line.places.len() as u64 == head.tickets).then_some(line)
    }

    fn restore_place(
        &mut self,
        place: Place,
        grant: Option<Grant>,
        absent: &mut Vec<(At, Ticket)>,
    ) -> Option<()> {
        let ticket = self.next_ticket();
        let known_node = (place.node.0 as usize) < self.nodes.ids().len();
        if self.index.insert(place.visitor, ticket).is_some() || !known_node {
            return None;
        }
        match (place.standing, &grant) {
            (Standing::Waiting, None) => {
                self.waiting.insert(ticket);
                match place.absent {
                    Some(since) => absent.push((since, ticket)),
                    None => {
                        self.present.insert(ticket);
                    }
                }
            }
            (Standing::Granted, Some(grant)) => {
                self.unused.insert((grant.lapses, ticket));
            }
            (Standing::Inside, Some(Grant { redeemed: Some(redemption), .. })) => {
                let over = redemption.at.plus_seconds(redemption.seconds);
                self.inside.insert((over, ticket));
            }
            (Standing::Ended(_), _) => {}
            (Standing::Waiting | Standing::Granted | Standing::Inside, _) => return None,
        }
        let index = if grant.is_some() { self.next_grant() } else { NO_GRANT };
        self.grants.extend(grant);
        self.places.push(Place { grant: index, ..place });
        if place.absent.is_none() && self.is_held_or_waited_for(ticket) {
            self.nodes.took(place.node);
        }
        Some(())
    }
}

impl Place {
    /// A place as a store kept it; [`Line::restore`] ties it to its grant.
    pub fn stored(visitor: VisitorId, joined: Seq, came: Seq, at_socket: (NodeIndex, u64)) -> Self {
        Self {
            visitor,
            joined,
            came,
            node: at_socket.0,
            socket: at_socket.1,
            absent: None,
            standing: Standing::Waiting,
            grant: NO_GRANT,
        }
    }
}

/// Hashes a visitor by folding its bytes. Visitor ids are outputs of a keyed hash or random, so
/// nobody who lacks the key can choose ids that collide.
#[derive(Default)]
pub struct VisitorHasher(u64);

impl Hasher for VisitorHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            // The odd constant is 2^64 / golden ratio (Knuth, TAOCP 3, 6.4).
            let mixed = (self.0.rotate_left(23) ^ u64::from_le_bytes(word))
                .wrapping_mul(0x9E37_79B9_7F4A_7C15);
            self.0 = mixed ^ (mixed >> 32);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
