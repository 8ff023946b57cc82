//! What an operator may set, with its limits. A policy that exists has been checked.

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
    /// How many may wait; whoever comes beyond it is kept at the door. No limit when absent.
    pub max_waiting: Option<u32>,
    /// Where an admitted visitor goes; the node's own landing page when absent.
    pub target: Option<String>,
    /// Origins besides the node's own that may open sockets and be gone to.
    pub allowed_origins: Vec<String>,
    /// What the page calls the queue.
    pub title: Option<String>,
    /// What the page shows while people wait.
    pub content: Option<String>,
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
            max_waiting: None,
            target: None,
            allowed_origins: Vec::new(),
            title: None,
            content: None,
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
const URL_BYTES_MAX: usize = 2_000;
const TITLE_CHARS_MAX: usize = 200;
const ORIGINS_MAX: usize = 50;
const WAITING_MAX: u32 = 100_000_000;
/// Some paragraphs: it goes into the log with every change of the policy, and to every node.
const CONTENT_CHARS_MAX: usize = 4_000;

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
        within("max_waiting", self.max_waiting.unwrap_or(1), 1, WAITING_MAX);
        let mut fault = |key: &str, allowed: String| {
            faults.push(Fault { key: key.to_owned(), allowed });
        };
        if self.target.as_deref().is_some_and(|target| !is_target(target)) {
            fault(
                "target",
                "an http:// or https:// address, or a path that begins with one /".into(),
            );
        }
        if self.allowed_origins.len() > ORIGINS_MAX {
            fault("allowed_origins", format!("a list of at most {ORIGINS_MAX} origins"));
        }
        for (index, origin) in self.allowed_origins.iter().enumerate() {
            if !is_origin(origin) {
                let key = format!("allowed_origins[{index}]");
                fault(&key, "an origin like https://shop.example or http://localhost:3000".into());
            }
        }
        if self.title.as_ref().is_some_and(|title| title.chars().count() > TITLE_CHARS_MAX) {
            fault("title", format!("a text of at most {TITLE_CHARS_MAX} characters"));
        }
        if self.content.as_ref().is_some_and(|it| it.chars().count() > CONTENT_CHARS_MAX) {
            fault("content", format!("a text of at most {CONTENT_CHARS_MAX} characters"));
        }
        if faults.is_empty() { Ok(self) } else { Err(faults) }
    }

    /// Whether an admitted visitor may be led to this address, which anybody may have written: only one
    /// within the allowed origins, and in no way that a browser might read otherwise.
    pub fn may_lead_to(&self, target: &str) -> bool {
        let origin = origin_of(target).filter(|_| is_target(target));
        origin.is_some_and(|origin| self.allowed_origins.iter().any(|allowed| allowed == origin))
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

/// An absolute http(s) address, or a path on the node's own origin.
fn is_target(target: &str) -> bool {
    let plain = target.len() <= URL_BYTES_MAX
        && target.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'#'));
    let path = target.starts_with('/') && !target.starts_with("//");
    plain && (path || origin_of(target).is_some())
}

/// The origin of an absolute http(s) address, as browsers write it in `Origin`.
pub fn origin_of(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next()?;
    let origin = url.get(..scheme.len() + 3 + host.len())?;
    is_origin(origin).then_some(origin)
}

/// scheme://host or scheme://host:port, in lower case, with nothing behind it (RFC 6454, 6.2).
fn is_origin(origin: &str) -> bool {
    let Some(host) = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"))
    else {
        return false;
    };
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let bracketed = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let name_ok = match bracketed {
        Some(v6) => {
            !v6.is_empty() && v6.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b':'))
        }
        None => name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.')),
    };
    let port_ok = port.is_none_or(|port| {
        // No sign and no leading zero, which `parse` would take and no browser writes.
        port.starts_with(|first| matches!(first, '1'..='9')) && port.parse::<u16>().is_ok()
    });
    !name.is_empty() && name_ok && port_ok && origin.len() <= URL_BYTES_MAX
}
