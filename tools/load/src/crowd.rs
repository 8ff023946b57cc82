//! Everyone of one process: their sockets, what comes in on them, and what is due.

mod opening;
mod reading;
mod hostile;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use anyhow::Context as _;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

use crate::checks::Census;
use crate::clock::{self, SECOND};
use crate::orders::{Setup, Tally, Told};
use crate::random::Random;
use crate::socket::{Sources, Target};
use crate::visitor::{Role, Stage, UNKNOWN, Visitor};

/// Events taken at once: enough to make the call cheap, few enough that the clock is fresh.
const EVENTS_MAX: usize = 256;
/// Bytes read at once: a hundred updates.
const READ_BYTES: usize = 16 * 1024;
/// The orders' key in the epoll. No visitor has this number.
const ORDERS: u64 = u64::MAX;
/// Longer than this it is not slept, whatever is due.
const SLEEP_MAX: u64 = SECOND;
/// An attempt that fails so often in a row is the last one. With full jitter up to 20 s this takes
/// two minutes.
const TRIES_MAX: u32 = 15;

/// Everyone of this process.
pub struct Crowd {
    /// What was counted since it was last taken.
    pub tally: Tally,
    /// When each of those who were watched was told.
    pub told: Vec<u64>,
    /// Those who are watched, and were not told yet.
    pub untold: usize,
    /// What the front was told since it is looked at.
    pub front: Vec<Told>,
    /// When LEAVE was said last, and ENDED came upon it.
    pub left: Option<(u64, Option<u64>)>,
    /// When somebody last came further.
    pub progress_at: u64,
    /// Nobody goes back to this node.
    pub shunned: Option<usize>,
    setup: Setup,
    targets: Vec<Target>,
    visitors: Vec<Visitor>,
    epoll: OwnedFd,
    sources: Sources,
    random: Random,
    scratch: Vec<u8>,
    due: BinaryHeap<Reverse<(u64, usize, Due)>>,
    /// Those who are to get a socket as soon as there is room for a handshake.
    queue: VecDeque<usize>,
    opening: usize,
    unopened: usize,
    unsettled: usize,
    in_line: usize,
}

/// What is due at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// A new socket.
    Open,
    /// The old socket is given up, with a word or without one.
    Refresh { politely: bool },
    /// One more byte of a request that takes its time, on the socket of this generation.
    Drip { generation: u32 },
}

impl Crowd {
    /// Nobody yet. What comes on `orders` wakes it up.
    pub fn new(setup: Setup, orders: impl AsFd) -> anyhow::Result<Self> {
        let targets = setup.urls.iter().map(|url| Target::parse(url)).collect::<Result<_, _>>()?;
        let mut random = Random::new()?;
        let epoll = epoll::create(CreateFlags::CLOEXEC).context("no epoll")?;
        epoll::add(&epoll, orders, EventData::new_u64(ORDERS), EventFlags::IN)?;
        Ok(Self {
            tally: Tally::default(),
            told: Vec::new(),
            untold: 0,
            front: Vec::new(),
            left: None,
            progress_at: clock::now(),
            shunned: None,
            sources: Sources::new(random.next_u64()),
            setup,
            targets,
            visitors: Vec::new(),
            epoll,
            random,
            scratch: vec![0; READ_BYTES],
            due: BinaryHeap::new(),
            queue: VecDeque::new(),
            opening: 0,
            unopened: 0,
            unsettled: 0,
            in_line: 0,
        })
    }

    /// Serves everyone until something came or is due, or until `until`; whether an order came.
    pub fn turn(&mut self, until: u64) -> anyhow::Result<bool> {
        self.carry_out_due();
        self.open_queued();
        let now = clock::now();
        let next = self.due.peek().map_or(u64::MAX, |Reverse((at, ..))| *at);
        let sleep = next.min(until).saturating_sub(now).min(SLEEP_MAX);
        let timeout = Timespec {
            tv_sec: (sleep / SECOND).cast_signed(),
            tv_nsec: (sleep % SECOND).cast_signed(),
        };
        let mut events = [MaybeUninit::uninit(); EVENTS_MAX];
        let events = match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => return Ok(false),
            Err(error) => return Err(error).context("epoll"),
        };
        let mut ordered = false;
        for event in events {
            let (key, flags) = (event.data.u64(), event.flags);
            if key == ORDERS {
                ordered = true;
                continue;
            }
            let index = usize::try_from(key & u64::from(u32::MAX))?;
            if u64::from(self.visitors[index].generation) == key >> 32 {
                self.notice(index, flags);
            }
        }
        Ok(ordered)
    }

    /// New visitors come.
    pub fn arrive(&mut self, role: Role, count: usize, joins: bool, url: Option<usize>) {
        for number in 0..count {
            let url = url.unwrap_or(number % self.targets.len());
            let index = self.add(role, joins, url);
            self.queue.push_back(index);
        }
        self.progress_at = clock::now();
    }

    /// More who come one after the other, each at some moment of their own stretch of time, to any
    /// node that is not shunned.
    pub fn trickle(&mut self, role: Role, count: usize, every: u64) {
        let now = clock::now();
        for number in 0..count {
            let url = self.node_after(number % self.targets.len());
            let index = self.add(role, true, url);
            let at = now + number as u64 * every + self.random.below(every);
            self.due.push(Reverse((at, index, Due::Open)));
        }
    }

    /// All who have said nothing yet say JOIN.
    pub fn join(&mut self) {
        self.progress_at = clock::now();
        for index in 0..self.visitors.len() {
            let visitor = &mut self.visitors[index];
            if visitor.stage == Stage::Open && !visitor.role.is_attacker() {
                visitor.joins = true;
                self.ask(index);
            }
        }
    }

    /// All who stay in line are watched.
    pub fn watch(&mut self) {
        self.told.clear();
        self.untold = 0;
        for visitor in &mut self.visitors {
            visitor.watched = UNKNOWN;
            if visitor.role == Role::Visitor && visitor.stage == Stage::Waiting {
                visitor.watched = visitor.count;
                self.untold += 1;
            }
        }
    }

    /// Notes are taken of what those who wait are told once they are at the front.
    pub fn look_at_front(&mut self) {
        self.front.clear();
        for visitor in &mut self.visitors {
            let waits = visitor.role.is_honest() && visitor.stage == Stage::Waiting;
            visitor.noted_from = if waits { visitor.count } else { UNKNOWN };
        }
    }

    /// Everyone in turn loses their socket, every other one politely.
    pub fn refresh(&mut self, every: u64) {
        let now = clock::now();
        for index in 0..self.visitors.len() {
            let due = Due::Refresh { politely: index % 2 == 0 };
            self.due.push(Reverse((now + index as u64 * every, index, due)));
        }
        self.progress_at = now;
    }

    /// Whether everyone has a socket that was upgraded.
    pub fn all_opened(&self) -> bool {
        self.unopened == 0
    }

    /// Whether everyone knows where they stand, and nothing is due.
    pub fn all_settled(&self) -> bool {
        self.is_quiet() && self.due.is_empty()
    }

    /// Whether everyone who has come knows where they stand.
    pub fn is_quiet(&self) -> bool {
        self.unsettled == 0
    }

    /// Whether nobody waits any more, in line or to be told where they stand.
    pub fn all_admitted(&self) -> bool {
        self.is_quiet() && self.in_line == 0
    }

    /// Whether somebody is on the node that is shunned.
    pub fn shunned_is_left(&self) -> bool {
        let on_it = |visitor: &Visitor| {
            Some(visitor.url) == self.shunned && visitor.stage == Stage::Waiting
        };
        !self.visitors.iter().any(on_it)
    }

    /// Those who have not come further have failed.
    pub fn give_up(&mut self, why: &str) {
        for index in 0..self.visitors.len() {
            let visitor = &self.visitors[index];
            if visitor.role.is_honest() && visitor.stage.is_unsettled() {
                let stage = visitor.stage;
                self.fail(index, || format!("{why} while {stage:?}"));
            }
        }
    }

    /// Where everyone stands who keeps to the protocol.
    pub fn census(&self) -> Census {
        let mut census = self.hostile_census();
        for visitor in self.visitors.iter().filter(|visitor| visitor.role.is_honest()) {
            if visitor.joined_at == 0 {
                continue;
            }
            census.joined += 1;
            match &visitor.connection_id {
                Some(id) => census.ids.push(hash(id)),
                None => census.unacknowledged += 1,
            }
            match visitor.stage {
                Stage::Waiting => census.places.push((visitor.count, visitor.waiting)),
                Stage::Admitted => census.admitted += 1,
                Stage::Ended => census.ended += 1,
                _ => {}
            }
        }
        census
    }

    fn add(&mut self, role: Role, joins: bool, url: usize) -> usize {
        self.visitors.push(Visitor::new(role, url, joins, self.random.next_u128()));
        if role.is_honest() {
            self.unopened += 1;
            self.unsettled += 1;
        }
        self.visitors.len() - 1
    }

    fn carry_out_due(&mut self) {
        let now = clock::now();
        while let Some(Reverse((at, index, due))) = self.due.peek().copied()
            && at <= now
        {
            self.due.pop();
            match due {
                Due::Open => self.queue.push_back(index),
                Due::Refresh { politely } => self.lose_on_purpose(index, politely),
                Due::Drip { generation } => self.drip(index, generation),
            }
        }
    }

    /// The only place where a stage changes, so that the sums are right.
    fn set(&mut self, index: usize, stage: Stage) {
        let visitor = &mut self.visitors[index];
        let before = std::mem::replace(&mut visitor.stage, stage);
        if visitor.role.is_attacker() {
            return;
        }
        self.opening += usize::from(stage.is_opening());
        self.opening -= usize::from(before.is_opening());
        if visitor.role.is_honest() {
            self.unopened += usize::from(stage.is_unopened());
            self.unopened -= usize::from(before.is_unopened());
            self.unsettled += usize::from(stage.is_unsettled());
            self.unsettled -= usize::from(before.is_unsettled());
            self.in_line += usize::from(stage == Stage::Waiting);
            self.in_line -= usize::from(before == Stage::Waiting);
            if before != stage {
                self.progress_at = clock::now();
            }
        }
    }

    fn fail(&mut self, index: usize, why: impl FnOnce() -> String) {
        let process = self.setup.process;
        self.tally.violations.add(|| format!("visitor {index} of process {process}: {}", why()));
        self.drop_socket(index);
        self.set(index, Stage::Failed);
    }

    fn drop_socket(&mut self, index: usize) {
        let visitor = &mut self.visitors[index];
        // Closed, it is gone from the epoll, too.
        visitor.socket = None;
        visitor.leftover = Vec::new();
        visitor.generation += 1;
    }

    fn node_after(&self, url: usize) -> usize {
        let nodes = self.targets.len();
        let next = (url + 1) % nodes;
        if Some(next) == self.shunned { (next + 1) % nodes } else { next }
    }
}

fn hash(id: &str) -> u64 {
    // With fixed keys: the same in every process.
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}
