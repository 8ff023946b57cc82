//! What a worker answers from its fold alone, and what becomes of a question that it can't answer so.

use std::time::Duration;

use crate::admission::command::{Command, Refused, What};
use crate::admission::handle::{Ask, Renewable, Shown, Tokens};
use crate::admission::signer::Session;
use crate::admission::worker::Worker;
use crate::clock;
use crate::queue::event::{Jti, Seq, VisitorId};
use crate::queue::line::{End, Standing};
use crate::queue::load::Load;
use crate::wire::ask::{Minted, Refusal};
use crate::wire::token::{self, PASS_TYPE, TOKEN_TYPE};

/// A command is given up after this: whoever asked has been told so by then.
const COMMAND_WAIT_MAX: Duration = Duration::from_secs(10);

impl Worker {
    /// Somebody asks: answered at once where the fold has it, otherwise a command that waits its turn.
    pub(super) fn asked(&mut self, ask: Ask) {
        let asked = clock::monotonic();
        let mut wait = COMMAND_WAIT_MAX;
        let what = match ask {
            Ask::Command(what) => what,
            Ask::Redeem { until, done, .. } if until < self.now() => {
                // Whoever asked was told that nothing was done.
                let _ = done.send(Err(Refused::Gate(Refusal::LogUnavailable)));
                return;
            }
            Ask::Redeem { token, key, until, done } => {
                let left = u64::try_from(until.since(self.now())).unwrap_or(0);
                wait = wait.min(Duration::from_nanos(left));
                let (signer, queue) = (self.signing.keys.signer(), self.queue.as_str());
                match token::verify(&token, TOKEN_TYPE, self.line.keys(), signer.issuer(), queue) {
                    Ok(claims) => {
                        let visitor = VisitorId(claims.sub.0);
                        let jti = Jti(claims.jti.0);
                        What::Redeem { visitor, jti, key, done }
                    }
                    Err(_) => {
                        // Before the keys are folded nothing can be said of a token.
                        let refusal = if self.is_caught_up() {
                            Refusal::TokenInvalid
                        } else {
                            Refusal::LogUnavailable
                        };
                        let _ = done.send(Err(Refused::Gate(refusal)));
                        return;
                    }
                }
            }
            Ask::Renew { pass, done } => {
                let _ = done.send(self.renewable(&pass).map_err(Refused::Gate));
                return;
            }
            Ask::Load { milli } => return self.loads.hear(Load { at: self.now(), milli }),
            Ask::Mint { visitors, done } => {
                let minted = visitors.iter().map(|visitor| self.mint(*visitor)).collect();
                let is_behind = visitors.iter().any(|visitor| self.waits(*visitor));
                let _ = done.send(Tokens { minted, is_behind });
                return;
            }
            Ask::Show { done } => {
                let _ = done.send(self.shown());
                return;
            }
        };
        let until = asked + wait;
        self.commands.push_back(Command { what, asked, until, written: None });
    }

    /// The session of this pass, if it goes on: then the pass itself may be over, since whoever comes
    /// back after a pause is still inside.
    fn renewable(&self, pass: &str) -> Result<Renewable, Refusal> {
        if !self.is_caught_up() {
            return Err(Refusal::LogUnavailable);
        }
        let (line, signer, queue) = (&self.line, self.signing.keys.signer(), self.queue.as_str());
        let claims = token::verify(pass, PASS_TYPE, line.keys(), signer.issuer(), queue);
        let claims = claims.map_err(|_| Refusal::PassInvalid)?;
        let visitor = VisitorId(claims.sub.0);
        let ticket = line.ticket(visitor).ok_or(Refusal::PassInvalid)?;
        let grant = line.grant(ticket).filter(|grant| grant.jti == Jti(claims.jti.0));
        let grant = grant.ok_or(Refusal::PassInvalid)?.clone();
        let redemption = grant.redeemed.as_deref().ok_or(Refusal::PassInvalid)?.clone();
        let session = Session { visitor, grant, redemption };
        let now = self.now();
        match line.place(ticket).map(|place| place.standing) {
            Some(Standing::Inside) if now < session.ends() => {
                Ok(Renewable { session, now, kid: self.kid() })
            }
            Some(Standing::Inside | Standing::Ended(End::SessionOver)) => Err(Refusal::PassExpired),
            Some(Standing::Ended(_)) => Err(Refusal::PassReleased),
            Some(Standing::Waiting | Standing::Granted) | None => Err(Refusal::PassInvalid),
        }
    }

    /// Whether a visitor is in line, or not even known, by this fold.
    fn waits(&self, visitor: VisitorId) -> bool {
        let place = self.line.ticket(visitor).and_then(|ticket| self.line.place(ticket));
        place.is_none_or(|place| place.standing == Standing::Waiting)
    }

    fn mint(&self, visitor: VisitorId) -> Option<Minted> {
        let ticket = self.line.ticket(visitor)?;
        if self.line.place(ticket)?.standing != Standing::Granted {
            return None;
        }
        let grant = self.line.grant(ticket)?;
        let graces = self.line.graces();
        let left = grant.lapses.seconds() - graces.running(self.now()).seconds();
        Some(Minted {
            token: self.signing.keys.signer().token(&self.queue, visitor, grant)?,
            expires: graces.log_time(grant.lapses).seconds(),
            expires_in: u64::try_from(left).unwrap_or(0),
        })
    }

    fn shown(&self) -> Shown {
        let line = &self.line;
        Shown {
            configured: line.last_decision() > Seq(0),
            halted: self.halted.as_ref().map(ToString::to_string),
            unready: self.unready(),
            now: self.now(),
            rate: line.rate().0,
            follows: line.follows().is_some(),
            policy: line.policy().clone(),
            keys: line.keys().to_vec(),
            signs: self.kid(),
            state: line.state(),
            reason: line.reason().map(str::to_owned),
            level: line.level(),
            sequence: line.seq().0,
            waiting: line.waiting().len(),
            present: line.present().len(),
            unused: line.unused().len(),
            inside: line.inside().len(),
            visitors: line.places().len(),
            log_bytes: self.service.log_bytes(),
            admitted: line.admitted(),
        }
    }

    /// Why this worker could not decide now, or not all of it.
    fn unready(&self) -> Option<String> {
        if let Some(halt) = &self.halted {
            return Some(format!("stopped after entry {}: {halt}", self.line.seq().0));
        }
        if !self.is_caught_up() {
            return Some(format!("at entry {}, and not at the log's end", self.line.seq().0));
        }
        let late = self.unsettled_for();
        late.map(|late| format!("a decision has been under way for {} s", late.as_secs()))
    }
}
