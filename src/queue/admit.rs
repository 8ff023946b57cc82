//! Who is let in next, and what else is due: a decision is data, and becomes true only as a fact.

use std::collections::BTreeSet;

use crate::queue::event::{
    At, Facts, Jti, NodeId, ReleaseReason, Released, State, Ticket, VisitorId,
};
use crate::queue::line::Line;

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
    /// Nobody who waits is here.
    NobodyHere,
    /// As many are inside as may be.
    Full,
    /// The rate allows the next one at this time.
    Rate(At),
}

/// What is due at `now`, one entry's worth. `now` is a time that the log's clock has reached.
pub fn decide(line: &Line, now: At) -> Due {
    if let Some(facts) =
        expired(line, now).or_else(|| lapsed(line, now)).or_else(|| over(line, now))
    {
        return Due::Facts(facts);
    }
    admit(line, now)
}

/// What is due about nodes that have not been heard of: those that still hold someone.
pub fn lost(line: &Line, silent: impl Fn(NodeId) -> bool) -> Option<Facts> {
    let nodes: Vec<NodeId> =
        line.nodes().holding().map(|(id, _)| id).filter(|id| silent(*id)).collect();
    (!nodes.is_empty()).then_some(Facts::NodeLost(nodes))
}

/// How many more may be inside: people with an unused grant count, since each may come any moment.
pub fn room(line: &Line) -> usize {
    let inside = line.unused().len() + line.inside().len();
    line.policy().max_inside.map_or(usize::MAX, |max| (max as usize).saturating_sub(inside))
}

fn expired(line: &Line, now: At) -> Option<Facts> {
    let grace = line.policy().reconnect_seconds;
    let running = line.graces().running(now);
    let over = line
        .graces()
        .longest_absent()
        .take_while(|(since, _)| since.plus_seconds(grace) <= running)
        .filter(|(since, ticket)| is_absent_since(line, *ticket, *since));
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
        && line.place(ticket).is_some_and(|place| place.absent == Some(since))
}

fn lapsed(line: &Line, now: At) -> Option<Facts> {
    released(line, line.graces().running(now), line.unused().iter(), ReleaseReason::Lapsed)
}

fn over(line: &Line, now: At) -> Option<Facts> {
    released(line, now, line.inside().iter(), ReleaseReason::SessionOver)
}

fn released<'a>(
    line: &Line,
    now: At,
    deadlines: impl Iterator<Item = &'a (At, Ticket)>,
    reason: ReleaseReason,
) -> Option<Facts> {
    let released: Vec<Released> = deadlines
        .take_while(|(deadline, _)| *deadline <= now)
        .filter_map(|(_, ticket)| Some((line.place(*ticket)?.visitor, line.grant(*ticket)?.jti)))
        .map(|(visitor, jti)| release(visitor, jti, reason))
        .take(DECISIONS_PER_ENTRY_MAX)
        .collect();
    (!released.is_empty()).then_some(Facts::Released(released))
}

fn release(visitor: VisitorId, jti: Jti, reason: ReleaseReason) -> Released {
    Released { visitor, jti, reason, by: SCHEDULE.to_owned() }
}

fn admit(line: &Line, now: At) -> Due {
    if line.state() != State::Open {
        return Due::Nothing(Idle::NotOpen);
    }
    if line.present().is_empty() {
        return Due::Nothing(Idle::NobodyHere);
    }
    let room = room(line);
    if room == 0 {
        return Due::Nothing(Idle::Full);
    }
    let allowed = match allowed_by_rate(line, now) {
        Ok(allowed) => allowed,
        Err(due) => return Due::Nothing(Idle::Rate(due)),
    };
    let many = allowed.min(room).min(GRANTS_PER_ENTRY_MAX);
    let first = line.present().iter().take(many);
    Due::Admit(first.filter_map(|ticket| Some(line.place(ticket)?.visitor)).collect())
}

/// How many the rate allows now, at least one; or when it allows the next.
///
/// The generic cell rate algorithm (ITU-T I.371, annex A) on store times: each grant moves the
/// next due time on by one interval from the later of itself and the log's time, and a grant may
/// come up to `burst - 1` intervals before it is due. So in any w seconds there are at most
/// burst + w x rate / 60 grants, and time in which nobody was let in is never saved up.
fn allowed_by_rate(line: &Line, now: At) -> Result<usize, At> {
    let interval = line.policy().interval_nanos();
    let early = interval * i64::from(line.policy().burst() - 1);
    let ahead = line.next_due().since(now).max(0);
    if ahead > early {
        return Err(At(line.next_due().0 - early));
    }
    Ok(usize::try_from((early - ahead) / interval).unwrap_or(0) + 1)
}
