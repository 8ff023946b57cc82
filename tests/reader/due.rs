//! What an admission worker writes that knows what it does.

use anteroom::queue::admit::{Due, SCHEDULE, decide};
use anteroom::queue::event::{
    Admitted, At, Configured, Decision, Entry, Facts, Jti, Millis, Setting, WorkerId,
};
use anteroom::queue::line::Line;
use anteroom::wire::event;
use serde_json::Value;

/// Kind and payload of what is due, or of what says the time where nothing is.
pub(crate) fn due(line: &Line, stored: At) -> (&'static str, Value) {
    let now = line.time().raw(stored).max(line.at());
    let facts = match decide(line, now) {
        Due::Facts(facts) => facts,
        Due::Admit(visitors) => {
            let (kid, seconds) = ("k1".to_owned(), line.policy().token_seconds);
            let grants = visitors.into_iter().map(|visitor| Admitted {
                visitor,
                jti: Jti(visitor.0),
                kid: kid.clone(),
                seconds,
            });
            Facts::Admitted(grants.collect())
        }
        Due::Nothing(_) => {
            Facts::Configured(vec![Configured { by: SCHEDULE.to_owned(), what: Setting::Time }])
        }
    };
    let (prev, basis, now) = (line.last_decision(), line.seq(), Millis::from(now));
    let decision = Decision { prev, basis, now, worker: WorkerId([9; 16]), facts };
    let (_, kind, payload) = event::write(&Entry::Decided(decision), line.level()).unwrap();
    (kind, serde_json::from_slice(&payload).unwrap())
}
