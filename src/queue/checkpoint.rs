//! A line taken apart for a store, and put together again.

use crate::queue::event::{At, Level, NodeId, PublicKey, SecretId, Seq, State, Ticket};
use crate::queue::line::{Follows, Line, Presence};
use crate::queue::place::{Grant, Place, Standing};
use crate::queue::policy::Policy;
use crate::queue::presence::Graces;
use crate::queue::time::LogTime;

/// What a fold keeps besides its places: with them, enough to go on from here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// How many places there are.
    pub tickets: u64,
    /// The last entry applied.
    pub seq: Seq,
    /// The rules in force.
    pub level: Level,
    /// Its time.
    pub time: LogTime,
    /// The last entry on an admission subject.
    pub last_decision: Seq,
    /// The policy.
    pub policy: Policy,
    /// How the rate follows the site's load.
    pub follows: Option<Follows>,
    /// The state.
    pub state: State,
    /// What visitors are told about it.
    pub reason: Option<String>,
    /// The secret that visitors' names come of.
    pub secret: Option<SecretId>,
    /// Whether it is written down who comes and goes.
    pub presence: Presence,
    /// The public keys.
    pub keys: Vec<PublicKey>,
    /// The nodes, by their number.
    pub nodes: Vec<NodeId>,
    /// Nanoseconds of outage.
    pub outages: i64,
    /// Graces that are longer than the policy's: up to which running time, and how many seconds.
    pub longer_graces: Vec<(At, u32)>,
    /// When the next grant is due.
    pub next_due: At,
}

impl Line {
    /// What is kept besides the places.
    pub fn head(&self) -> Head {
        Head {
            tickets: self.places.len() as u64,
            seq: self.seq,
            level: self.level,
            time: self.time,
            last_decision: self.last_decision,
            policy: self.policy.clone(),
            follows: self.follows,
            state: self.state,
            reason: self.reason.clone(),
            secret: self.secret,
            presence: self.presence,
            keys: self.keys.clone(),
            nodes: self.nodes.ids().to_vec(),
            outages: self.graces.outages(),
            longer_graces: self.graces.longer().to_vec(),
            next_due: self.next_due,
        }
    }

    /// The line that had this head and these places, with their grants, by ticket. `None` when
    /// they can't belong together.
    pub fn restore(
        head: Head,
        places: impl IntoIterator<Item = (Place, Option<Grant>)>,
    ) -> Option<Self> {
        let mut line = Self {
            seq: head.seq,
            level: head.level,
            time: head.time,
            last_decision: head.last_decision,
            policy: head.policy,
            follows: head.follows,
            state: head.state,
            reason: head.reason,
            secret: head.secret,
            presence: head.presence,
            keys: head.keys,
            next_due: head.next_due,
            ..Self::default()
        };
        for id in head.nodes {
            line.nodes.intern(id);
        }
        let tickets = usize::try_from(head.tickets).ok().filter(|n| *n < u32::MAX as usize)?;
        line.places.reserve(tickets);
        line.index.reserve(tickets);
        let mut absent = Vec::new();
        for (place, grant) in places {
            line.restore_place(place, grant, &mut absent)?;
        }
        line.graces = Graces::restore(head.outages, head.longer_graces, absent);
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
        if self.ticket(place.visitor).is_some() || !known_node {
            return None;
        }
        self.index.insert(place.visitor, ticket);
        match (place.standing, &grant) {
            (Standing::Waiting, None) => {
                self.waiting.insert(ticket);
                match place.absent() {
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
        if let Some(mut grant) = grant {
            grant.kid = self.grants.kid(&grant.kid);
            if let Some(redemption) = &mut grant.redeemed {
                redemption.kid = self.grants.kid(&redemption.kid);
            }
            self.grants.insert(ticket, grant);
        }
        self.places.push(place);
        if place.absent().is_none() && self.is_held_or_waited_for(ticket) {
            self.nodes.took(place.node);
        }
        Some(())
    }
}
