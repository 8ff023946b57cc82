//! Who is let in next, and what else is due: a decision is data, and becomes true only as a fact.

use std::collections::BTreeSet;

use crate::queue::event::{
    At, Configured, Facts, Jti, NodeId, Presence, ReleaseReason, Released, Setting, State, Ticket,
    VisitorId,
};
use crate::queue::line::Line;
use crate::queue::policy::Absent;

/// Grants in one entry: the log's answer to one is awaited before the next is decided, and a
/// small entry that has to be decided anew costs little.
pub const GRANTS_PER_ENTRY_MAX: usize = 100;

/// Other decisions in one entry; they cost nobody a wait.
pub const DECISIONS_PER_ENTRY_MAX: usize = 1_000;

/// Who ordered what nobody ordered.
pub const SCHEDULE: &str = "schedule";

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// These facts are to be written: nobody ordered them, time alone brings them.
    Facts(Facts),
    /// These visitors are to be let in, in this order.
    Admit(Vec<VisitorId>),
    /// Nothing, and why nobody is let in.
    Nothing(Idle),
}

/// Why nobody is let in at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// The queue is not open.
    NotOpen,
    /// Nobody waits, or nobody who waits is here.
    NobodyHere,
    /// As many are inside as may be.
    Full,
    /// The rate allows the next one at this time.
    Rate(At),
    /// It is being found out who is here, until this time.
    CallingRoll(At),
}

/// After a time in which nobody's presence was written down nodes say anew who is here. Whoever is said
/// first must not overtake, so nobody is let in for so many seconds.
const ROLL_CALL_SECONDS: u32 = 5;

/// What is due at `now`, one entry's worth. `now` is a time that the log's clock has reached.
pub fn decide(line: &Line, now: At) -> Due {
    by_time(line, now).map_or_else(|| admissions(line, now), Due::Facts)
}

/// What time alone brings: opening and closing, and whose time is over. While the log's time stands still
/// it is not known since when somebody is absent: any decision, which says the time, comes first.
pub fn by_time(line: &Line, now: At) -> Option<Facts> {
    if line.time().is_withheld() {
        return None;
    }
    by_schedule(line, now)
        .or_else(|| expired(line, now))
        .or_else(|| lapsed(line, now))
        .or_else(|| over(line, now))
}

/// Who may be let in at `now`, one entry's worth; or why nobody is.
pub fn admissions(line: &Line, now: At) -> Due {
    if line.state() != State::Open {
        return Due::Nothing(Idle::NotOpen);
    }
    let mut in_turn = in_turn(line).peekable();
    if in_turn.peek().is_none() {
        return Due::Nothing(Idle::NobodyHere);
    }
    if let Some(called) = roll_call(line, now) {
        return Due::Nothing(Idle::CallingRoll(called));
    }
    let room = room(line);
    if room == 0 {
        return Due::Nothing(Idle::Full);
    }
    let allowed = match line.rate().allowed(line.next_due(), now) {
        Ok(allowed) => allowed,
        Err(due) => return Due::Nothing(Idle::Rate(due)),
    };
    let many = allowed.min(room).min(GRANTS_PER_ENTRY_MAX);
    let first = in_turn.take(many);
    Due::Admit(first.filter_map(|ticket| Some(line.place(ticket)?.visitor)).collect())
}

/// What is due about nodes that have not been heard of: those that still hold someone. While nobody's going
/// is written down, theirs is not, either.
pub fn lost(line: &Line, silent: impl Fn(NodeId) -> bool) -> Option<Facts> {
    if line.presence().state == Presence::Off {
        return None;
    }
    let holding = line.nodes().holding().map(|(id, _)| id);
    let nodes: Vec<NodeId> =
        holding.filter(|id| silent(*id)).take(DECISIONS_PER_ENTRY_MAX).collect();
    (!nodes.is_empty()).then_some(Facts::NodeLost(nodes))
}

/// How many more may be inside: people with an unused grant count, since each may come any moment.
pub fn room(line: &Line) -> usize {
    let inside = line.unused().len() + line.inside().len();
    line.policy().max_inside.map_or(usize::MAX, |max| (max as usize).saturating_sub(inside))
}

/// A queue whose times overlap so that it would close before it opens only closes.
fn by_schedule(line: &Line, now: At) -> Option<Facts> {
    let policy = line.policy();
    let has_come = |instant: Option<At>| instant.is_some_and(|instant| instant <= now);
    let state = match line.state() {
        State::Scheduled | State::Open | State::Paused if has_come(policy.closes_at) => {
            State::Closed
        }
        State::Scheduled if has_come(policy.opens_at) => State::Open,
        State::Scheduled | State::Open | State::Paused | State::Closed | State::Deleted => {
            return None;
        }
    };
    let what = Setting::State(state, None);
    Some(Facts::Configured(vec![Configured { by: SCHEDULE.to_owned(), what }]))
}

/// Whose turn may come, in order: who waits and is here, or whoever waits where the absent are let in
/// unseen. Someone absent who has missed a turn already is passed over until they come.
fn in_turn(line: &Line) -> impl Iterator<Item = Ticket> + '_ {
    let in_question = match line.policy().absent {
        Absent::Hold => line.present(),
        Absent::Admit => line.waiting(),
    };
    in_question.iter().filter(|ticket| {
        line.place(*ticket).is_some_and(|place| place.absent().is_none() || place.misses() == 0)
    })
}

/// Until when it is being found out who is here, if it is.
fn roll_call(line: &Line, now: At) -> Option<At> {
    let presence = line.presence();
    let called = presence.since.plus_seconds(ROLL_CALL_SECONDS);
    (presence.state == Presence::On && now < called).then_some(called)
}

fn expired(line: &Line, now: At) -> Option<Facts> {
    if roll_call(line, now).is_some() {
        return None;
    }
    let running = line.graces().running(now);
    let over = line.graces().over(running, line.policy().reconnect_seconds);
    let over = over.filter(|(since, ticket)| is_absent_since(line, *ticket, *since));
    // A set: who went, came back and went again at one moment is noted twice.
    let mut noted = BTreeSet::new();
    for grace in over {
        noted.insert(grace);
        if noted.len() == DECISIONS_PER_ENTRY_MAX {
            break;
        }
    }
    let visitors: Vec<VisitorId> =
        noted.into_iter().filter_map(|(_, ticket)| Some(line.place(ticket)?.visitor)).collect();
    (!visitors.is_empty()).then_some(Facts::Expired(visitors))
}

fn is_absent_since(line: &Line, ticket: Ticket, since: At) -> bool {
    line.waiting().contains(ticket)
        && line.place(ticket).is_some_and(|place| place.absent() == Some(since))
}

fn lapsed(line: &Line, now: At) -> Option<Facts> {
    let running = line.graces().running(now);
    let reason = |ticket| match line.has_missed_turn(ticket, running) {
        true => ReleaseReason::Missed,
        false => ReleaseReason::Lapsed,
    };
    released(line, running, line.unused().iter(), reason)
}

fn over(line: &Line, now: At) -> Option<Facts> {
    released(line, now, line.inside().iter(), |_| ReleaseReason::SessionOver)
}

fn released<'a>(
    line: &Line,
    now: At,
    deadlines: impl Iterator<Item = &'a (At, Ticket)>,
    reason: impl Fn(Ticket) -> ReleaseReason,
) -> Option<Facts> {
    let released: Vec<Released> = deadlines
        .take_while(|(deadline, _)| *deadline <= now)
        .filter_map(|(_, ticket)| {
            let (place, grant) = line.place(*ticket).zip(line.grant(*ticket))?;
            Some(release(place.visitor, grant.jti, reason(*ticket)))
        })
        .take(DECISIONS_PER_ENTRY_MAX)
        .collect();
    (!released.is_empty()).then_some(Facts::Released(released))
}

fn release(visitor: VisitorId, jti: Jti, reason: ReleaseReason) -> Released {
    Released { visitor, jti, reason, by: SCHEDULE.to_owned() }
}
