//! What admission decided: the facts of its entries, and the time that they state.

#![expect(
    clippy::indexing_slicing,
    reason = "tickets are dense: every ticket is an index of `places`"
)]

use crate::queue::event::{
    Admitted, At, Configured, Decision, Facts, Jti, Redeemed, ReleaseReason, Released, Removed,
    Seq, Setting, Ticket, VisitorId,
};
use crate::queue::line::{
    Change, End, Follows, Grant, Line, Redemption, Shift, Standing, VoidFact,
};

const NANOS_PER_SECOND: i64 = 1_000_000_000;

impl Line {
    pub(super) fn decided(&mut self, stored: At, decision: &Decision, change: &mut Change) {
        let fence = std::mem::replace(&mut self.last_decision, self.seq);
        if let Some(why) = self.why_void(decision, self.seq, fence) {
            change.void_entry = Some(why);
            self.time.pass(stored);
            return;
        }
        self.tell_time(stored, decision, change);
        match &decision.facts {
            Facts::Configured(facts) => facts.iter().for_each(|fact| self.configure(fact, change)),
            Facts::Raised(level, _) => {
                self.level = *level;
                change.configured = true;
            }
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
                each(facts, change, |fact, change| self.release(fact, decision.basis, change));
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

    /// Takes the time that a decision states.
    fn tell_time(&mut self, stored: At, decision: &Decision, change: &mut Change) {
        let stood = self.running();
        let decided = self.time.decide(stored, decision.now);
        if let Some(from) = decided.shifted_from {
            let (to, outage) = (self.time.shift, decided.outage);
            change.shifted = Some(Shift { from, to, outage });
        }
        if decided.outage > 0 {
            self.outage(decided.outage, change);
        }
        if decided.was_withheld {
            self.end_withholding(stood, change);
        }
    }

    fn configure(&mut self, fact: &Configured, change: &mut Change) {
        change.configured = true;
        let before = self.rate();
        let at = self.time.now;
        match &fact.what {
            Setting::Policy(policy) => {
                let (seconds, new) = (self.policy.reconnect_seconds, policy.reconnect_seconds);
                self.graces.change(seconds, new, at);
                self.policy = policy.clone();
            }
            Setting::Rate { per_minute, .. } => {
                self.follows = per_minute.map(|per_minute| Follows { per_minute, at });
            }
            Setting::State(state, reason) => {
                self.state = *state;
                self.reason.clone_from(reason);
            }
            Setting::Keys(keys) => self.keys.clone_from(keys),
            Setting::Outage { seconds } => {
                self.outage(i64::from(*seconds) * NANOS_PER_SECOND, change);
            }
            Setting::Presence(state) => self.set_presence(*state, change),
            Setting::Secret(id) => self.secret = Some(*id),
            Setting::Time => {}
        }
        self.next_due = self.rate().take_over(before, self.next_due, at);
    }

    fn admit(&mut self, fact: &Admitted, change: &mut Change) -> Result<(), VoidFact> {
        let ticket = self.ticket(fact.visitor).ok_or(VoidFact::UnknownVisitor)?;
        if !self.waiting.contains(ticket) {
            return Err(VoidFact::NotWaiting);
        }
        self.stop_waiting(ticket);
        let (at, lapses) = (self.time.now, self.running().plus_seconds(fact.seconds));
        let grant = Grant {
            jti: fact.jti,
            kid: self.grants.kid(&fact.kid),
            seconds: fact.seconds,
            seq: self.seq,
            at,
            lapses,
            redeemed: None,
        };
        self.grants.insert(ticket, grant);
        self.unused.insert((lapses, ticket));
        self.place_mut(ticket).standing = Standing::Granted;
        self.next_due = self.rate().after_grant(self.next_due, at);
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
        let at = self.time.now;
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

    fn release(
        &mut self,
        fact: &Released,
        basis: Seq,
        change: &mut Change,
    ) -> Result<(), VoidFact> {
        let ticket = self.granted(fact.visitor, fact.jti)?;
        let place = &self.places[ticket.0 as usize];
        let missed = self.has_missed_turn(ticket, self.running());
        let end = match (place.standing, fact.reason) {
            (Standing::Granted, ReleaseReason::Lapsed | ReleaseReason::Missed)
                if place.came > basis =>
            {
                return Err(VoidFact::CameBack);
            }
            (Standing::Granted, ReleaseReason::Lapsed) if missed => return Err(VoidFact::Missed),
            (Standing::Granted, ReleaseReason::Missed) if missed => {
                self.wait_again(ticket, change);
                return Ok(());
            }
            (Standing::Granted, ReleaseReason::Missed) => return Err(VoidFact::NotMissed),
            (Standing::Granted, ReleaseReason::Lapsed) => End::Lapsed,
            (Standing::Granted | Standing::Inside, ReleaseReason::Released) => End::Released,
            (Standing::Inside, ReleaseReason::SessionOver) => End::SessionOver,
            (
                _,
                ReleaseReason::Lapsed
                | ReleaseReason::Missed
                | ReleaseReason::Released
                | ReleaseReason::SessionOver,
            ) => return Err(VoidFact::NoSuchGrant),
        };
        self.end(ticket, end, change);
        Ok(())
    }

    /// Someone never saw their turn: they wait again where they were, and are absent as of now.
    fn wait_again(&mut self, ticket: Ticket, change: &mut Change) {
        if let Some(grant) = self.grants.get(ticket) {
            self.unused.remove(&(grant.lapses, ticket));
        }
        self.grants.take_back(ticket);
        let running = self.running();
        let place = self.place_mut(ticket);
        place.standing = Standing::Waiting;
        place.set_misses(place.misses().saturating_add(1));
        place.set_absent(Some(running));
        self.waiting.insert(ticket);
        self.graces.start(running, ticket);
        change.missed.push(ticket);
    }

    fn expire(&mut self, who: VisitorId, basis: Seq, change: &mut Change) -> Result<(), VoidFact> {
        let ticket = self.ticket(who).ok_or(VoidFact::UnknownVisitor)?;
        let place = &self.places[ticket.0 as usize];
        if place.standing != Standing::Waiting {
            return Err(VoidFact::NotWaiting);
        }
        if place.absent().is_none() {
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

    /// The ticket of the visitor who has this grant.
    fn granted(&self, visitor: VisitorId, jti: Jti) -> Result<Ticket, VoidFact> {
        let ticket = self.ticket(visitor).ok_or(VoidFact::UnknownVisitor)?;
        let grant = self.grant(ticket).ok_or(VoidFact::NoSuchGrant)?;
        if grant.jti == jti { Ok(ticket) } else { Err(VoidFact::NoSuchGrant) }
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
