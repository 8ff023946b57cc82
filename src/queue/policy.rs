//! What an operator may set and the rules read, with its limits. A policy that exists has been
//! checked. What only nodes and pages read is in its [`door`](crate::queue::door).

use std::fmt;

use crate::queue::event::{At, State};

/// How a queue lets people in. Made by [`Policy::check`], so its values are within their limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// When a queue that is not open yet opens by itself; only by an operator when absent.
    pub opens_at: Option<At>,
    /// When it closes by itself; never when absent.
    pub closes_at: Option<At>,
    /// How many people are let in a minute, at most: where the site reports its load, fewer may be.
    pub rate_per_minute: u32,
    /// How many may be inside at once, grants not yet used included; no ceiling when absent.
    pub max_inside: Option<u32>,
    /// For how many seconds a token can be used.
    pub token_seconds: u32,
    /// For how many seconds a pass is good.
    pub session_seconds: u32,
    /// For how many seconds the place of someone absent is kept.
    pub reconnect_seconds: u32,
    /// What becomes of someone whose turn it is and who is not here.
    pub absent: Absent,
    /// How many turns someone may miss who did not see them, and have another.
    pub missed_turns: u8,
    /// What nodes and pages read of the policy: a JSON text, kept as it was set and never judged
    /// here. [`Door`](crate::queue::door::Door) has what is known of it.
    pub door: String,
}

/// What becomes of someone whose turn it is and who is not here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Absent {
    /// They are passed over, hold nobody up, and are the first when they are back.
    #[default]
    Hold,
    /// They are let in unseen; their token's time runs.
    Admit,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            opens_at: None,
            closes_at: None,
            rate_per_minute: 60,
            max_inside: None,
            token_seconds: 120,
            session_seconds: 1_800,
            reconnect_seconds: 300,
            absent: Absent::Hold,
            missed_turns: 1,
            door: "{}".to_owned(),
        }
    }
}

/// A key of a policy whose value can't be taken, and what can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key as the operator wrote it.
    pub key: String,
    /// What is allowed there, as the end of the sentence "`key` must be …".
    pub allowed: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} must be {}", self.key, self.allowed)
    }
}

/// People a minute at most.
pub const RATE_MAX: u32 = 600_000;
const INSIDE_MAX: u32 = 10_000_000;
/// A token below this could run out on its way to the page.
const TOKEN_SECONDS_MIN: u32 = 5;
const DAY_SECONDS: u32 = 86_400;
/// Each of them holds a slot under the ceiling once more, for a place that nobody may come to fill.
const MISSED_TURNS_MAX: u8 = 10;
/// The door goes into the log with every change of the policy, and to every node in one message.
pub const DOOR_CHARS_MAX: usize = 65_536;

impl Policy {
    /// The policy, if every value is within its limits; otherwise every fault, not only the first.
    pub fn check(self) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut within = |key: &str, value: u32, low: u32, high: u32| {
            if !(low..=high).contains(&value) {
                let allowed = format!("a whole number from {low} to {high}");
                faults.push(Fault { key: key.to_owned(), allowed });
            }
        };
        within("rate_per_minute", self.rate_per_minute, 1, RATE_MAX);
        within("max_inside", self.max_inside.unwrap_or(1), 1, INSIDE_MAX);
        within("token_seconds", self.token_seconds, TOKEN_SECONDS_MIN, DAY_SECONDS);
        within("session_seconds", self.session_seconds, TOKEN_SECONDS_MIN, 30 * DAY_SECONDS);
        within("reconnect_seconds", self.reconnect_seconds, 1, DAY_SECONDS);
        within("missed_turns", u32::from(self.missed_turns), 0, u32::from(MISSED_TURNS_MAX));
        if !(2..=DOOR_CHARS_MAX).contains(&self.door.chars().count()) {
            let allowed = format!("a text of 2 to {DOOR_CHARS_MAX} characters");
            faults.push(Fault { key: "door".to_owned(), allowed });
        }
        if faults.is_empty() { Ok(self) } else { Err(faults) }
    }

    /// Why nobody can ever be let in under this policy, or not before somebody orders it, in words for
    /// an operator; empty when people can.
    pub fn warnings(&self, state: State, now: At) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut warn = |what: &str| warnings.push(what.to_owned());
        let is_over = matches!(state, State::Closed | State::Deleted);
        let has_come = |instant: Option<At>| instant.is_some_and(|instant| instant <= now);
        if is_over {
            return warnings;
        }
        if has_come(self.closes_at) {
            warn("closes_at is past: the queue closes at once, and nobody is let in");
        } else if self.closes_at.is_some_and(|closes| self.opens_at.is_some_and(|it| closes <= it))
        {
            warn("closes_at is not after opens_at: the queue closes before it opens by itself");
        }
        if state == State::Scheduled && self.opens_at.is_none() {
            warn("it is scheduled and has no opens_at: nobody is let in until somebody opens it");
        }
        if state == State::Open && self.opens_at.is_some() && !has_come(self.opens_at) {
            warn("it is open already: opens_at, which is still to come, changes nothing");
        }
        warnings
    }
}
