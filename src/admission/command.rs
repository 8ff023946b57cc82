//! What others ask of a worker, and when it is done. Whether something is done is read from the
//! fold alone, never from the answer to the append.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::admission::signer::Session;
use crate::clock;
use crate::queue::event::At;
use crate::queue::event::{
    Configured, Facts, Jti, Level, PublicKey, Redeemed, ReleaseReason, Released, Removed, Seq,
    Setting, VisitorId,
};
use crate::queue::line::{End, Line, Standing};
use crate::wire::ask::Refusal;
use crate::wire::token::SKEW_SECONDS;

/// How long a grant may take to reach this fold after somebody presents its token. Whoever asks waits
/// longer for the answer, or would ask again and never hear it.
const GRANT_WAIT_MAX: Duration = Duration::from_secs(1);

/// Something to be written.
pub(super) struct Command {
    pub(super) what: What,
    /// When it was asked, and until when it may be carried out: then nobody waits for it any more.
    pub(super) asked: Instant,
    pub(super) until: Instant,
    /// The entry with which this command was written, once it came back.
    pub(super) written: Option<Seq>,
}

pub(super) enum What {
    /// Use a grant.
    Redeem { visitor: VisitorId, jti: Jti, key: Option<[u8; 32]>, done: Done<Session> },
    /// Set something.
    Configure { facts: Vec<Configured>, done: Done<Seq> },
    /// Raise the log to this level, one step after the other.
    Raise { level: Level, by: String, done: Done<Level> },
    /// Take a key out of the queue; where it has no other, `ours` take its place.
    Forget { kid: String, ours: Vec<PublicKey>, by: String, done: Done<()> },
    /// Someone is no longer inside.
    Release { who: Who, by: String, done: Done<VisitorId> },
    /// Take a visitor out.
    Remove { visitor: VisitorId, by: String, done: Done<VisitorId> },
}

pub(super) type Done<T> = oneshot::Sender<Result<T, Refused>>;

/// Why a command was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// As told at the gate.
    Gate(Refusal),
    /// There is nobody like that.
    Nobody,
    /// Not now.
    Unavailable,
}

/// Whom an operator means.
#[derive(Clone, Copy)]
pub(super) enum Who {
    Visitor(VisitorId),
    Jti(Jti),
}

/// What is to be done about a command.
pub(super) enum Next {
    /// Write this.
    Write(Facts),
    /// The fold may not be far enough yet to tell.
    Wait,
    /// It is done, or can't be.
    Answered,
}

impl Command {
    /// Answers the command if the fold has the answer; otherwise says what to write. An answer uses the
    /// command up, so it is answered at most once.
    ///
    /// `now` is the time by which a grant is judged; none where this worker may not: whose turn it is
    /// not may not know of an outage that is about to be written.
    pub(super) fn next(self, line: &Line, now: Option<At>, kid: &str) -> (Next, Option<Self>) {
        let Self { what, asked, until, written } = self;
        let again = |what| Some(Self { what, asked, until, written });
        match what {
            What::Redeem { visitor, jti, key, done } => {
                match redeem(line, now, visitor, jti, key, written) {
                    Ok(Some(session)) => answered(done, Ok(session)),
                    Err(Refusal::TokenInvalid) if is_new(asked) => {
                        (Next::Wait, again(What::Redeem { visitor, jti, key, done }))
                    }
                    Ok(None) => {
                        let seconds = line.policy().session_seconds;
                        let fact = Redeemed { visitor, jti, kid: kid.to_owned(), seconds, key };
                        let again = again(What::Redeem { visitor, jti, key, done });
                        (Next::Write(Facts::Redeemed(vec![fact])), again)
                    }
                    Err(refusal) => answered(done, Err(Refused::Gate(refusal))),
                }
            }
            What::Configure { facts, done } => match written {
                Some(seq) => answered(done, Ok(seq)),
                // Nothing to write: it was only to be known that everything is folded.
                None if facts.is_empty() => answered(done, Ok(line.seq())),
                None => {
                    let write = Next::Write(Facts::Configured(facts.clone()));
                    (write, again(What::Configure { facts, done }))
                }
            },
            What::Raise { level, done, .. } if line.level() >= level => {
                answered(done, Ok(line.level()))
            }
            What::Raise { level, by, done } => {
                let write = Next::Write(Facts::Raised(line.level().next(), by.clone()));
                (write, again(What::Raise { level, by, done }))
            }
            What::Forget { kid, ours, by, done } => match without(line.keys(), &kid, &ours) {
                _ if written.is_some() => answered(done, Ok(())),
                None => answered(done, Err(Refused::Nobody)),
                Some(keys) => {
                    let fact = Configured { by: by.clone(), what: Setting::Keys(keys) };
                    let again = again(What::Forget { kid, ours, by, done });
                    (Next::Write(Facts::Configured(vec![fact])), again)
                }
            },
            What::Release { who, by, done } => match inside(line, who) {
                _ if written.is_some() => answered(done, find(line, who).ok_or(Refused::Nobody)),
                None => answered(done, Err(Refused::Nobody)),
                Some((visitor, jti)) => {
                    let reason = ReleaseReason::Released;
                    let fact = Released { visitor, jti, reason, by: by.clone() };
                    let who = Who::Visitor(visitor);
                    let again = again(What::Release { who, by, done });
                    (Next::Write(Facts::Released(vec![fact])), again)
                }
            },
            What::Remove { visitor, by, done } => match line.ticket(visitor) {
                _ if written.is_some() => answered(done, Ok(visitor)),
                Some(ticket) if !has_ended(line, ticket) => {
                    let fact = Removed { visitor, by: by.clone(), reason: None };
                    let again = again(What::Remove { visitor, by, done });
                    (Next::Write(Facts::Removed(vec![fact])), again)
                }
                _ => answered(done, Err(Refused::Nobody)),
            },
        }
    }

    /// Gives the command up.
    pub(super) fn refuse(self, why: Refused) {
        // Whoever asked may have gone; then nobody needs to know.
        match self.what {
            What::Redeem { done, .. } => drop(done.send(Err(why))),
            What::Configure { done, .. } => drop(done.send(Err(why))),
            What::Forget { done, .. } => drop(done.send(Err(why))),
            What::Raise { done, .. } => drop(done.send(Err(why))),
            What::Release { done, .. } | What::Remove { done, .. } => drop(done.send(Err(why))),
        }
    }
}

/// Whether a command has not waited for long. A token that our key has signed is of a grant that the
/// log has, though perhaps not yet this fold: another worker may have been quicker.
fn is_new(asked: Instant) -> bool {
    clock::monotonic().duration_since(asked) < GRANT_WAIT_MAX
}

fn answered<T>(done: Done<T>, answer: Result<T, Refused>) -> (Next, Option<Command>) {
    // Whoever asked may have gone; then nobody needs to know.
    let _ = done.send(answer);
    (Next::Answered, None)
}

/// The redemption, if it stands and is this request's; `None` when it is still to be written.
fn redeem(
    line: &Line,
    now: Option<At>,
    visitor: VisitorId,
    jti: Jti,
    key: Option<[u8; 32]>,
    written: Option<Seq>,
) -> Result<Option<Session>, Refusal> {
    let ticket = line.ticket(visitor).ok_or(Refusal::TokenInvalid)?;
    let (place, grant) = line.place(ticket).zip(line.grant(ticket)).ok_or(Refusal::TokenInvalid)?;
    if grant.jti != jti {
        return Err(Refusal::TokenInvalid);
    }
    if let Some(redemption) = grant.redeemed.as_deref() {
        let same_request = key.is_some() && redemption.key == key;
        if same_request || written == Some(redemption.seq) {
            let (grant, redemption) = (grant.clone(), redemption.clone());
            return Ok(Some(Session { visitor, grant, redemption }));
        }
        return Err(Refusal::TokenAlreadyUsed);
    }
    let lapsed = grant.lapses.seconds() + i64::from(SKEW_SECONDS);
    let late = now.is_some_and(|now| line.graces().running(now).seconds() >= lapsed);
    match place.standing {
        Standing::Granted if !late => Ok(None),
        Standing::Granted | Standing::Ended(End::Lapsed) => Err(Refusal::TokenExpired),
        Standing::Waiting | Standing::Inside | Standing::Ended(_) => Err(Refusal::TokenInvalid),
    }
}

/// What is left of a queue's keys without this one, if it is among them.
fn without(keys: &[PublicKey], kid: &str, ours: &[PublicKey]) -> Option<Vec<PublicKey>> {
    let left: Vec<PublicKey> = keys.iter().filter(|key| key.kid != kid).cloned().collect();
    match left.len() {
        many if many == keys.len() => None,
        0 => Some(ours.to_vec()),
        _ => Some(left),
    }
}

fn find(line: &Line, who: Who) -> Option<VisitorId> {
    match who {
        Who::Visitor(visitor) => line.ticket(visitor).map(|_| visitor),
        Who::Jti(jti) => {
            let mut granted = line.unused().iter().chain(line.inside()).map(|(_, ticket)| *ticket);
            let ticket =
                granted.find(|ticket| line.grant(*ticket).is_some_and(|g| g.jti == jti))?;
            Some(line.place(ticket)?.visitor)
        }
    }
}

/// The visitor and their grant, if they are inside or may come in.
fn inside(line: &Line, who: Who) -> Option<(VisitorId, Jti)> {
    let visitor = find(line, who)?;
    let ticket = line.ticket(visitor)?;
    let standing = line.place(ticket)?.standing;
    let jti = line.grant(ticket)?.jti;
    matches!(standing, Standing::Granted | Standing::Inside).then_some((visitor, jti))
}

fn has_ended(line: &Line, ticket: crate::queue::event::Ticket) -> bool {
    line.place(ticket).is_none_or(|place| matches!(place.standing, Standing::Ended(_)))
}
