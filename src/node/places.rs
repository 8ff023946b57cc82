//! What a node knows of a queue: a replica of the line, kept by the feed. Positions are looked up
//! here and nowhere else; nothing in here is decided.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::{self, LogClock};
use crate::queue::digest::{standing_of_code, state_of_code};
use crate::queue::door::Door;
use crate::queue::estimate::{self, Cause, Outlook, Turn};
use crate::queue::event::{At, Jti, Level, NodeId, PublicKey, Seq, Socket, State, Ticket};
use crate::queue::line::{End, Standing};
use crate::queue::places::Places;
use crate::queue::policy::Policy;
use crate::wire;
use crate::wire::feed::{Config, Delta, Frame, Snapshot, from_gaps};
use crate::wire::socket::EndReason;
use crate::wire::token::SKEW_SECONDS;

/// Without a frame for this long the numbers may be old: three heartbeats.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// A projector that is further behind than this tells old numbers.
const BEHIND_MILLIS_MAX: u32 = 2_000;
/// An entry of our own that the feed does not cover within this means the same.
const UNCOVERED_MAX: Duration = Duration::from_secs(2);
/// Entries of joins that are remembered for sockets whose acknowledgement comes after the feed.
const JOINS_KEPT: usize = 1_024;
/// In thousandths of the stream's limit: above it no one is let into the line, so that what is
/// left is for all other facts.
const FULL_MILLI: u16 = 800;

/// The replica.
pub(super) struct View {
    stream: i64,
    through: Seq,
    last_delta: Seq,
    tickets: u32,
    waiting: Places,
    unused: BTreeMap<Ticket, Jti>,
    /// Grants whose pass is refused, until its time is over by itself.
    revoked: BTreeMap<Jti, i64>,
    level: Level,
    policy: Policy,
    door: Door,
    is_presence_off: bool,
    state: State,
    reason: Option<String>,
    keys: Arc<[PublicKey]>,
    secret: Option<Arc<str>>,
    full_milli: u16,
    outlook: Outlook,
    behind_millis: u32,
    /// How far the projector last said that it is, and where the log ends.
    projector_at: (Seq, Seq),
    heard: Instant,
    clock: LogClock,
    joins: VecDeque<Joins>,
    /// Our own entries that were acknowledged and are not covered yet: the first of them.
    uncovered: Option<(Seq, Instant)>,
    /// The feed went over to another stream: what is in here is no longer told anew.
    halted: bool,
}

struct Joins {
    seq: Seq,
    first: Ticket,
    ignored: Vec<u32>,
}

/// What a frame means for visitors on this node.
#[derive(Default)]
pub(super) struct Moved {
    pub(super) admitted: Vec<Ticket>,
    pub(super) ended: Vec<(Ticket, EndReason)>,
    pub(super) came: Vec<Came>,
    pub(super) lost: Vec<NodeId>,
    /// It is written down again who comes and goes: everyone who waits is taken to be absent.
    pub(super) calls_roll: bool,
}

/// Visitors who came to a node, by one entry of the log.
pub(super) struct Came {
    pub(super) seq: Seq,
    pub(super) places: Vec<(Ticket, Socket)>,
}

/// Why a frame could not be taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Missed {
    /// Deltas before it are missing: a snapshot is needed.
    Hole,
    /// It is of another stream than the one this replica is of.
    OtherStream,
}

/// Where a join of ours ended up.
pub(super) enum JoinFound {
    /// It gave this place.
    Ticket(Ticket),
    /// The visitor had a place already.
    Ignored,
    /// The feed has not covered it yet.
    NotYet,
    /// The feed covered it too long ago to tell.
    Forgotten,
}

/// A visitor's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standpoint {
    pub(super) ahead: u32,
    pub(super) waiting: u32,
    /// When it is their turn, as estimated.
    pub(super) turn: Option<Turn>,
}

/// What is to be expected from a moment on: taken once for all who are looked at then.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Prospect {
    outlook: Outlook,
    now: At,
    opening: Option<f64>,
}

impl Prospect {
    /// When it is the turn of someone with so many ahead, who was told `before`.
    fn turn(&self, ahead: u32, before: Option<Turn>) -> Option<Turn> {
        let estimate = self.outlook.estimate(ahead, self.opening?)?;
        Some(estimate::told(before, self.now, &estimate))
    }

    /// Seconds until a turn that is told, and between how many it is.
    pub(super) fn seconds(&self, point: &Standpoint) -> Option<(u32, (u32, u32))> {
        let seconds = point.turn?.whole_seconds(self.now);
        let estimate = self.outlook.estimate(point.ahead, self.opening?)?;
        Some((seconds, estimate.range(seconds)))
    }

    /// Why a turn comes later than was told.
    pub(super) fn cause(&self) -> Cause {
        self.outlook.cause
    }
}

/// What everyone in a queue is told alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) state: State,
    pub(super) reason: Option<String>,
    pub(super) stale: bool,
    /// When it opens, while it is not open yet.
    pub(super) opens_at: Option<At>,
}

impl View {
    /// A replica that begins with this snapshot; `None` when it can't be one.
    pub(super) fn new(snapshot: Snapshot) -> Option<Self> {
        let skipped = usize::try_from(snapshot.skipped).ok()?;
        let words_max = usize::try_from(snapshot.tickets).ok()?.div_ceil(64);
        if skipped.saturating_add(snapshot.words.len()) > words_max.max(skipped) {
            return None;
        }
        let mut words = vec![0; skipped.min(words_max)];
        words.extend(snapshot.words);
        let mut view = Self {
            stream: snapshot.stream,
            through: Seq(snapshot.through),
            // Whatever had no delta up to here has none for any projector.
            last_delta: Seq(snapshot.last_delta.max(snapshot.through)),
            tickets: snapshot.tickets,
            waiting: Places::from_words(words),
            unused: snapshot.unused.iter().map(|g| (Ticket(g.ticket), Jti(g.jti))).collect(),
            revoked: snapshot.revoked.iter().map(|r| (Jti(r.jti), r.until)).collect(),
            level: Level::FIRST,
            policy: Policy::default(),
            door: Door::default(),
            is_presence_off: false,
            state: State::default(),
            reason: None,
            keys: Arc::new([]),
            secret: None,
            full_milli: snapshot.full_milli,
            outlook: (&snapshot.outlook).into(),
            behind_millis: snapshot.behind_millis,
            projector_at: (Seq(snapshot.through), Seq(snapshot.through)),
            heard: clock::monotonic(),
            clock: LogClock::new(At(snapshot.now)),
            joins: VecDeque::new(),
            uncovered: None,
            halted: false,
        };
        view.configure(&snapshot.config);
        Some(view)
    }

    /// Takes a frame. Deltas that are known already do no harm.
    pub(super) fn apply(&mut self, frame: &Frame) -> Result<Moved, Missed> {
        if frame.stream != self.stream {
            return Err(Missed::OtherStream);
        }
        self.projector_at = (Seq(frame.through), Seq(frame.end));
        let mut moved = Moved::default();
        for delta in &frame.deltas {
            if delta.seq <= self.last_delta.0 {
                continue;
            }
            if delta.prev > self.last_delta.0 {
                return Err(Missed::Hole);
            }
            self.delta(delta, &mut moved);
            self.last_delta = Seq(delta.seq);
        }
        if frame.last_delta > self.last_delta.0 {
            return Err(Missed::Hole);
        }
        if frame.through >= self.through.0 {
            self.through = Seq(frame.through);
            self.last_delta = self.last_delta.max(self.through);
            self.behind_millis = frame.behind_millis;
            self.full_milli = frame.full_milli;
            if let Some(outlook) = &frame.outlook {
                self.outlook = outlook.into();
            }
            // What a projector says that has stopped is right, and no news.
            if frame.halted.is_none() {
                // A projector that follows this stream overrules what another has said of it.
                self.halted = false;
                self.heard = clock::monotonic();
                self.clock.set(At(frame.now));
            }
        }
        if self.uncovered.is_some_and(|(seq, _)| seq <= self.through) {
            self.uncovered = None;
        }
        Ok(moved)
    }

    /// Notes that an entry of our own is stored: the feed must cover it soon.
    pub(super) fn appended(&mut self, seq: Seq) {
        if seq > self.through && self.uncovered.is_none() {
            self.uncovered = Some((seq, clock::monotonic()));
        }
    }

    /// The last entry that this replica knows of.
    pub(super) fn through(&self) -> Seq {
        self.through
    }

    /// Where the join is that was stored at this place of the log.
    pub(super) fn find_join(&self, seq: Seq, index: u32) -> JoinFound {
        if self.through < seq {
            return JoinFound::NotYet;
        }
        let Some(joins) = self.joins.iter().rev().find(|joins| joins.seq == seq) else {
            return JoinFound::Forgotten;
        };
        match joins.ignored.binary_search(&index) {
            Ok(_) => JoinFound::Ignored,
            Err(ignored_before) => {
                let before = u32::try_from(ignored_before).unwrap_or(0);
                JoinFound::Ticket(Ticket(joins.first.0 + index - before))
            }
        }
    }

    /// The numbers of someone who waits, who was told `before`; `None` for others.
    pub(super) fn standpoint(
        &self,
        ticket: Ticket,
        before: Option<Turn>,
        prospect: &Prospect,
    ) -> Option<Standpoint> {
        if !self.is_waiting(ticket) {
            return None;
        }
        let ahead = self.waiting.rank(ticket);
        let turn = prospect.turn(ahead, before);
        Some(Standpoint { ahead, waiting: self.waiting.len(), turn })
    }

    /// Whether this ticket's visitor waits.
    pub(super) fn is_waiting(&self, ticket: Ticket) -> bool {
        self.waiting.contains(ticket)
    }

    /// What is to be expected from now on.
    pub(super) fn prospect(&self) -> Prospect {
        let now = self.now();
        let opening = estimate::opening(self.state, &self.policy, now);
        Prospect { outlook: self.outlook, now, opening }
    }

    /// What everyone is told alike.
    pub(super) fn words(&self) -> Words {
        Words {
            state: self.state,
            reason: self.reason.clone(),
            stale: self.is_stale(),
            opens_at: self.opens_at(),
        }
    }

    /// When the queue opens by itself, while it is not open yet.
    pub(super) fn opens_at(&self) -> Option<At> {
        self.policy.opens_at.filter(|_| self.state == State::Scheduled)
    }

    /// Whether this ticket has a grant that was not used.
    pub(super) fn has_unused_grant(&self, ticket: Ticket) -> bool {
        self.unused.contains_key(&ticket)
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> u32 {
        self.waiting.len()
    }

    /// Another stream has taken the place of the one that this is of, unless a projector is heard that
    /// follows this one; true the first time.
    pub(super) fn halt(&mut self) -> bool {
        !self.is_heard() && !std::mem::replace(&mut self.halted, true)
    }

    /// Whether a projector is heard that goes on.
    fn is_heard(&self) -> bool {
        clock::monotonic().duration_since(self.heard) <= SILENCE_MAX
    }

    /// Whether the log of this replica is gone: nobody new can be put in line.
    pub(super) fn is_halted(&self) -> bool {
        self.halted
    }

    /// The stream that this is a replica of: when it was made.
    pub(super) fn stream(&self) -> i64 {
        self.stream
    }

    /// Whether the numbers may be old.
    pub(super) fn is_stale(&self) -> bool {
        let now = clock::monotonic();
        let uncovered =
            self.uncovered.is_some_and(|(_, at)| now.duration_since(at) > UNCOVERED_MAX);
        self.halted || uncovered || self.behind_millis > BEHIND_MILLIS_MAX || !self.is_heard()
    }

    /// Why the numbers may be old, in words for an operator; `None` when they are fresh.
    pub(super) fn staleness(&self) -> Option<String> {
        if self.halted {
            let why = "its log is another than before; a node that is started again serves the new";
            return Some(why.to_owned());
        }
        let (at, end) = self.projector_at;
        let behind = self.behind_millis > BEHIND_MILLIS_MAX || at < self.through;
        match (self.is_stale(), behind) {
            (false, _) => None,
            (true, true) => Some(format!("its projector is at entry {} of {}", at.0, end.0)),
            (true, false) => Some("no fresh news".to_owned()),
        }
    }

    /// Whether the log is so full that it takes no more joins.
    pub(super) fn is_full(&self) -> bool {
        self.full_milli >= FULL_MILLI
    }

    /// Whether the pass of this grant is refused though its time is not over.
    pub(super) fn is_revoked(&self, jti: Jti) -> bool {
        self.revoked.contains_key(&jti)
    }

    /// The log's level.
    pub(super) fn level(&self) -> Level {
        self.level
    }

    /// The policy.
    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The part of it that is for nodes and pages.
    pub(super) fn door(&self) -> &Door {
        &self.door
    }

    /// Whether nobody's going is written down: the log has no room for it.
    pub(super) fn is_presence_off(&self) -> bool {
        self.is_presence_off
    }

    /// The state.
    pub(super) fn state(&self) -> State {
        self.state
    }

    /// What the operator says about it.
    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// The public keys, to be held while the view goes on.
    pub(super) fn keys(&self) -> Arc<[PublicKey]> {
        Arc::clone(&self.keys)
    }

    /// The queue's secret, wrapped.
    pub(super) fn secret(&self) -> Option<Arc<str>> {
        self.secret.clone()
    }

    /// The log's time now.
    pub(super) fn now(&self) -> At {
        self.clock.now()
    }

    fn delta(&mut self, delta: &Delta, moved: &mut Moved) {
        if let Some(joined) = &delta.joined {
            let first = Ticket(joined.first);
            for ticket in joined.first..joined.first.saturating_add(joined.accepted) {
                self.waiting.insert(Ticket(ticket));
            }
            self.tickets = self.tickets.max(joined.first.saturating_add(joined.accepted));
            let ignored = joined.ignored.clone();
            self.joins.push_back(Joins { seq: Seq(delta.seq), first, ignored });
            if self.joins.len() > JOINS_KEPT {
                self.joins.pop_front();
            }
        }
        if let Some(came) = &delta.came {
            let node = NodeId(came.node);
            let place =
                |(ticket, number): &(u32, u64)| (Ticket(*ticket), Socket { node, number: *number });
            let places = came.places.iter().map(place).collect();
            moved.came.push(Came { seq: Seq(delta.seq), places });
        }
        for grant in &delta.admitted {
            let ticket = Ticket(grant.ticket);
            self.waiting.remove(ticket);
            self.unused.insert(ticket, Jti(grant.jti));
            moved.admitted.push(ticket);
        }
        for ticket in from_gaps(&delta.missed).map(Ticket) {
            self.unused.remove(&ticket);
            self.waiting.insert(ticket);
        }
        for ticket in from_gaps(&delta.entered).map(Ticket) {
            self.unused.remove(&ticket);
            moved.ended.push((ticket, EndReason::Redeemed));
        }
        for ended in &delta.ended {
            let reason = end_reason(ended.standing);
            for ticket in from_gaps(&ended.tickets).map(Ticket) {
                self.waiting.remove(ticket);
                self.unused.remove(&ticket);
                moved.ended.push((ticket, reason));
            }
        }
        if !delta.revoked.is_empty() {
            let now = self.now().seconds() - i64::from(SKEW_SECONDS);
            self.revoked.retain(|_, until| *until > now);
            self.revoked.extend(delta.revoked.iter().map(|r| (Jti(r.jti), r.until)));
        }
        moved.lost.extend(delta.lost.iter().copied().map(NodeId));
        if let Some(config) = &delta.config {
            let was_off = self.is_presence_off;
            self.configure(config);
            moved.calls_roll |= was_off && !self.is_presence_off;
        }
    }

    /// Takes what was set. What this program does not know of it leaves the rest as it is.
    fn configure(&mut self, config: &Config) {
        let policy = serde_json::from_str(&config.policy).ok();
        match policy.and_then(|policy| wire::policy::read_stored(&policy).ok()) {
            Some(policy) => {
                self.door = wire::policy::door(&policy.door);
                self.policy = policy;
            }
            None => tracing::error!("the feed's policy can't be read"),
        }
        match state_of_code(config.state) {
            Some(state) => self.state = state,
            None => tracing::error!(state = config.state, "the feed's state can't be read"),
        }
        self.level = Level(config.level);
        self.is_presence_off = config.is_presence_off;
        self.reason.clone_from(&config.reason);
        let key = |(kid, x): &(String, [u8; 32])| PublicKey { kid: kid.clone(), x: *x };
        self.keys = config.keys.iter().map(key).collect();
        self.secret = config.secret.as_deref().map(Arc::from);
    }
}

/// How visitors are told that a place ended.
pub(super) fn end_reason(standing: u8) -> EndReason {
    match standing_of_code(standing) {
        Some(Standing::Ended(End::Left)) => EndReason::Left,
        Some(Standing::Ended(End::Removed)) => EndReason::Removed,
        Some(Standing::Inside | Standing::Ended(End::Released | End::SessionOver)) => {
            EndReason::Redeemed
        }
        Some(
            Standing::Waiting | Standing::Granted | Standing::Ended(End::Expired | End::Lapsed),
        )
        | None => EndReason::Expired,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::digest::state_code;
    use crate::wire::feed::FEED_VERSION;

    /// A replica at entry 100 of 100, and how fresh it is after each of these frames: `through/end`,
    /// and for how many milliseconds its projector has known of what it has not applied.
    fn freshness(frames: &str) -> String {
        let policy = r#"{"door":"{}"}"#.to_owned();
        let config = Config { policy, state: state_code(State::Open), ..Config::default() };
        let snapshot = Snapshot { through: 100, last_delta: 100, config, ..Snapshot::default() };
        let mut view = View::new(snapshot).unwrap();
        let mut said = Vec::new();
        for frame in frames.split(", ") {
            if frame == "silence" {
                view.heard = view.heard.checked_sub(SILENCE_MAX + Duration::from_secs(1)).unwrap();
            } else {
                let (at, behind_millis) = frame.split_once(' ').unwrap();
                let (through, end) = at.split_once('/').unwrap();
                let [through, end] = [through, end].map(|seq| seq.parse().unwrap());
                let frame = frame_of(through, end, behind_millis.parse().unwrap());
                assert!(view.apply(&frame).is_ok());
            }
            let why = view.staleness().unwrap_or_else(|| "fresh".to_owned());
            said.push(format!("{}: {why}", view.through().0));
        }
        said.join(", ")
    }

    fn frame_of(through: u64, end: u64, behind_millis: u32) -> Frame {
        Frame {
            version: FEED_VERSION,
            stream: 0,
            through,
            last_delta: through.min(100),
            end,
            now: 0,
            behind_millis,
            inside: 0,
            full_milli: 0,
            outlook: None,
            halted: None,
            deltas: Vec::new(),
        }
    }

    #[test]
    fn a_projector_that_lags_behind_another_makes_nothing_stale_and_nothing_fresh() {
        // Another one is as far as the log: what the first has not applied is known here.
        assert_eq!(
            freshness("60/100 9000, 100/100 0, 80/100 9000"),
            "100: fresh, 100: fresh, 100: fresh"
        );
        // Nobody is as far as this replica: that the one who lags is heard makes nothing fresh.
        assert_eq!(
            freshness("silence, 60/100 9000, 105/105 0"),
            "100: no fresh news, 100: its projector is at entry 60 of 100, 105: fresh"
        );
        // As far as this replica and not as the log: there is news that is not here, until somebody
        // brings it.
        assert_eq!(
            freshness("100/107 2500, 60/107 9000, 107/107 0"),
            "100: its projector is at entry 100 of 107, 100: its projector is at entry 60 of 107, \
             107: fresh"
        );
    }

    #[test]
    fn a_policy_that_can_t_be_read_leaves_the_rest_of_what_was_set() {
        let policy = r#"{"rate_per_minute":5,"door":"{\"title\":\"Sale\"}"}"#.to_owned();
        let config = Config { policy, state: state_code(State::Open), ..Config::default() };
        let mut view = View::new(Snapshot { config, ..Snapshot::default() }).unwrap();
        let config = Config {
            policy: r#"{"lanes":2,"door":"{}"}"#.to_owned(),
            state: state_code(State::Paused),
            keys: vec![("k".to_owned(), [1; 32])],
            secret: Some("wrapped".to_owned()),
            ..Config::default()
        };
        view.configure(&config);
        assert_eq!(view.policy().rate_per_minute, 5);
        assert_eq!(view.door().title.as_deref(), Some("Sale"));
        assert_eq!(view.state(), State::Paused);
        assert_eq!(view.keys, [PublicKey { kid: "k".to_owned(), x: [1; 32] }].into());
        assert_eq!(view.secret.as_deref(), Some("wrapped"));
    }
}
