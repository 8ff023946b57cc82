//! The part of a policy that nodes and pages read, with its limits: who is kept at the door, where
//! they go from there, and what they are shown. No rule of the line looks at it.

use crate::queue::policy::Fault;

/// What is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Door {
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

const URL_BYTES_MAX: usize = 2_000;
const TITLE_CHARS_MAX: usize = 200;
const ORIGINS_MAX: usize = 50;
const WAITING_MAX: u32 = 100_000_000;
/// Some paragraphs: it goes into the log with every change of the policy, and to every node.
const CONTENT_CHARS_MAX: usize = 4_000;

impl Door {
    /// What is not within its limits: every fault, not only the first.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, allowed: String| {
            faults.push(Fault { key: key.to_owned(), allowed });
        };
        if self.max_waiting.is_some_and(|max| !(1..=WAITING_MAX).contains(&max)) {
            fault("max_waiting", format!("a whole number from 1 to {WAITING_MAX}"));
        }
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
        faults
    }

    /// Whether an admitted visitor may be led to this address, which anybody may have written: only one
    /// within the allowed origins, and in no way that a browser might read otherwise.
    pub fn may_lead_to(&self, target: &str) -> bool {
        let origin = origin_of(target).filter(|_| is_target(target));
        origin.is_some_and(|origin| self.allowed_origins.iter().any(|allowed| allowed == origin))
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
