//! What a worker decides though nobody ordered it.

use std::time::Duration;

use crate::admission::keys::with_ours;
use crate::admission::worker::Worker;
use crate::clock;
use crate::ids;
use crate::queue::admit::{self, Due, Idle, SCHEDULE};
use crate::queue::event::{Admitted, Configured, Facts, PublicKey, Seq, Setting, State, VisitorId};
use crate::queue::load;

const NANOS_PER_MILLI: u64 = 1_000_000;
/// Whose act it is when the rate follows the load.
const BY_LOAD: &str = "load";

impl Worker {
    /// What nobody ordered: an outage that is over, our key, dead nodes, the site's load, and what time
    /// brings.
    pub(super) fn due(&mut self) -> Option<Facts> {
        if let Some(seconds) = self.service.take_outage(&self.line) {
            tracing::warn!(queue = %self.queue, seconds, "after an outage: graces and grants are prolonged");
            return Some(scheduled(Setting::Outage { seconds }));
        }
        if let Some(presence) = self.service.presence_due(&self.line) {
            tracing::warn!(queue = %self.queue, ?presence, "who comes and goes is written down, or no more, by the log's room");
            return Some(scheduled(Setting::Presence(presence)));
        }
        if let Some(keys) = self.new_keys() {
            return Some(scheduled(Setting::Keys(keys)));
        }
        if let Some(facts) = admit::lost(&self.line, |node| self.beats.is_silent(node)) {
            tracing::warn!(queue = %self.queue, ?facts, "nodes are silent");
            return Some(facts);
        }
        if let Some(facts) = self.followed() {
            return Some(facts);
        }
        let now = self.now();
        match admit::decide(&self.line, now) {
            Due::Facts(facts) => Some(facts),
            Due::Admit(visitors) => {
                let kid = self.kid();
                let grants = visitors.into_iter().map(|visitor| self.grant(visitor, &kid));
                Some(Facts::Admitted(grants.collect()))
            }
            Due::Nothing(Idle::Rate(at) | Idle::CallingRoll(at)) => {
                // Time is judged by whole milliseconds, so it is due in the first that is not before it.
                let wait =
                    u64::try_from(at.since(now)).unwrap_or(0).next_multiple_of(NANOS_PER_MILLI);
                self.next_due = Some(clock::monotonic() + Duration::from_nanos(wait));
                self.time()
            }
            Due::Nothing(Idle::NotOpen | Idle::NobodyHere | Idle::Full) => self.time(),
        }
    }

    /// The time, where it has to be said and there is nothing else to say.
    fn time(&mut self) -> Option<Facts> {
        self.service.take_time_due(&self.line).then(|| scheduled(Setting::Time))
    }

    /// The rate that the site's load asks for, if it is another. Only of an open queue: of one that
    /// lets nobody in the load says nothing about the rate.
    fn followed(&self) -> Option<Facts> {
        if self.line.state() != State::Open {
            return None;
        }
        let now = self.now();
        let rate = load::InForce {
            per_minute: self.line.rate().0,
            cap: self.line.policy().rate_per_minute,
            decided_at: self.line.follows().map(|follows| follows.at),
        };
        // Somebody could be let in, were it not for the rate.
        let wanted = matches!(
            admit::admissions(&self.line, now),
            Due::Admit(_) | Due::Nothing(Idle::Rate(_))
        );
        let followed = load::follow(&self.loads, &rate, wanted, now)?;
        let (from, to) = (rate.per_minute, followed.per_minute);
        tracing::info!(queue = %self.queue, from, to, "the rate follows the load");
        let what = Setting::Rate { per_minute: Some(followed.per_minute), loads: followed.loads };
        Some(Facts::Configured(vec![Configured { by: BY_LOAD.to_owned(), what }]))
    }

    /// The keys of the queue with ours, if ours are not among them yet.
    pub(super) fn new_keys(&self) -> Option<Vec<PublicKey>> {
        let signer = self.signing.keys.signer();
        let ours = self.published.to_stand(signer.public_keys());
        let known = self.line.keys();
        let is_new =
            self.line.last_decision() > Seq(0) && ours.iter().any(|key| !known.contains(key));
        is_new.then(|| with_ours(known, &ours))
    }

    /// The key that signs now.
    pub(super) fn kid(&self) -> String {
        let signer = self.signing.keys.signer();
        // It holds one at least.
        let signs = self.published.signing(signer.public_keys(), self.now(), self.signing.rest);
        signs.unwrap_or_default()
    }

    fn grant(&self, visitor: VisitorId, kid: &str) -> Admitted {
        Admitted {
            visitor,
            jti: ids::jti(),
            kid: kid.to_owned(),
            seconds: self.line.policy().token_seconds,
        }
    }
}

fn scheduled(what: Setting) -> Facts {
    Facts::Configured(vec![Configured { by: SCHEDULE.to_owned(), what }])
}
