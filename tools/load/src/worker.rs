//! A process that holds sockets, and does with them what its parent orders. It ends when the parent
//! does.

use std::io::Write as _;

use anyhow::Context as _;

use crate::clock::{self, MILLI, SECOND};
use crate::crowd::Crowd;
use crate::orders::{Answer, Order, Setup};
use crate::visitor::Role;

/// When nobody has come any further for so long, those who have not are lost. It is longer than the
/// longest pause before an attempt to come back.
const STALL_MAX: u64 = 60 * SECOND;
/// A LEAVE is answered within this, or the place was not given up.
const LEAVE_WAIT_MAX: u64 = 30 * SECOND;
/// If the node does not go within this, it will not.
const STORM_WAIT_MAX: u64 = 600 * SECOND;
/// How often it is looked whether everyone has left a node, which asks each.
const STORM_LOOK_EVERY: u64 = 20 * MILLI;
/// The longest order names as many sockets as a process holds.
const ORDER_BYTES_MAX: usize = 1024 * 1024;

/// What an order waits for.
enum Goal {
    /// Everyone's socket is open.
    Opened,
    /// Everyone knows where they stand.
    Settled,
    /// A time.
    Until(u64),
    /// A leaver's place has ended, or it is this late.
    Left(u64),
    /// All who are watched were told, or it is this late.
    Told(u64),
    /// Nobody waits any more, or it is this late.
    Admitted(u64),
    /// Everyone is settled on another node, or it is this late and nothing has begun; others come
    /// when it does.
    Moved { look_at: u64, until: u64, others: usize, others_over: u64 },
}

/// Obeys until the input ends.
pub fn run() -> anyhow::Result<()> {
    let stdin = std::io::stdin();
    let mut lines = Lines::default();
    let setup: Setup = loop {
        if let Some(line) = lines.next() {
            break serde_json::from_slice(&line)?;
        }
        if !lines.read(&stdin)? {
            return Ok(());
        }
    };
    let mut crowd = Crowd::new(setup, &stdin)?;
    let mut working: Option<(Answer, Goal)> = None;
    loop {
        if working.is_none()
            && let Some(line) = lines.next()
        {
            let order = serde_json::from_slice(&line).context("an order")?;
            let mut answer = Answer { begun_at: clock::now(), ..Answer::default() };
            let goal = begin(&mut crowd, &mut answer, order);
            working = Some((answer, goal));
        }
        if let Some((_, goal)) = &mut working
            && is_reached(&mut crowd, goal)
            && let Some((answer, _)) = working.take()
        {
            say(&mut crowd, answer)?;
            continue;
        }
        let until = working.as_ref().map_or(u64::MAX, |(_, goal)| goal.look_at());
        if crowd.turn(until)? && !lines.read(&stdin)? {
            return Ok(());
        }
    }
}

fn begin(crowd: &mut Crowd, answer: &mut Answer, order: Order) -> Goal {
    let now = answer.begun_at;
    match order {
        Order::Arrive { role, count, joins, url } => {
            crowd.arrive(role, count, joins, url);
            if joins { Goal::Settled } else { Goal::Opened }
        }
        Order::Join => {
            crowd.join();
            Goal::Settled
        }
        Order::Serve { millis } => Goal::Until(now + millis * MILLI),
        Order::Watch => {
            crowd.watch();
            Goal::Until(now)
        }
        Order::Leave => {
            crowd.leave();
            Goal::Left(now + LEAVE_WAIT_MAX)
        }
        Order::Told { millis_max } => Goal::Told(now + millis_max * MILLI),
        Order::Admitted { millis_max } => Goal::Admitted(now + millis_max * MILLI),
        Order::Census => {
            answer.census = Some(crowd.census());
            Goal::Until(now)
        }
        Order::ThrownOut { sources } => {
            crowd.throw_out(&sources.into_iter().collect());
            Goal::Until(now)
        }
        Order::Refresh { every_nanos } => {
            crowd.refresh(every_nanos);
            Goal::Settled
        }
        Order::Trickle { count, every_nanos } => {
            crowd.trickle(Role::Other, count, every_nanos);
            Goal::Until(now)
        }
        Order::Settle => Goal::Settled,
        Order::LookAtFront => {
            crowd.look_at_front();
            Goal::Until(now)
        }
        Order::Front => {
            answer.front = std::mem::take(&mut crowd.front);
            Goal::Until(now)
        }
        Order::Storm { others, others_over } => {
            crowd.shunned = Some(0);
            crowd.progress_at = now;
            Goal::Moved { look_at: now, until: now + STORM_WAIT_MAX, others, others_over }
        }
    }
}

fn is_reached(crowd: &mut Crowd, goal: &mut Goal) -> bool {
    let now = clock::now();
    match goal {
        Goal::Until(at) => *at <= now,
        Goal::Left(until) => crowd.left.is_none_or(|(_, ended)| ended.is_some()) || *until <= now,
        Goal::Told(until) => crowd.untold == 0 || *until <= now,
        Goal::Admitted(until) => crowd.all_admitted() || *until <= now,
        Goal::Opened => crowd.all_opened() || is_stalled(crowd, now),
        Goal::Settled => crowd.all_settled() || is_stalled(crowd, now),
        Goal::Moved { look_at, until, others, others_over } => {
            if now < *look_at {
                return false;
            }
            *look_at = now + STORM_LOOK_EVERY;
            if crowd.is_quiet() {
                *until <= now || (crowd.all_settled() && crowd.shunned_is_left())
            } else {
                let count = std::mem::take(others);
                crowd.trickle(Role::Other, count, *others_over / count.max(1) as u64);
                is_stalled(crowd, now)
            }
        }
    }
}

fn is_stalled(crowd: &mut Crowd, now: u64) -> bool {
    let stalled = now.saturating_sub(crowd.progress_at) > STALL_MAX;
    if stalled {
        crowd.give_up("nothing came any more");
    }
    stalled
}

fn say(crowd: &mut Crowd, mut answer: Answer) -> anyhow::Result<()> {
    answer.done_at = clock::now();
    answer.tally = std::mem::take(&mut crowd.tally);
    answer.left = crowd.left.take().and_then(|(said, ended)| Some((said, ended?)));
    answer.told = std::mem::take(&mut crowd.told);
    answer.untold = crowd.untold;
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&line)?;
    Ok(stdout.flush()?)
}

impl Goal {
    /// When it is worth looking again, though nothing has come.
    fn look_at(&self) -> u64 {
        match self {
            Self::Opened | Self::Settled => u64::MAX,
            Self::Until(at) | Self::Left(at) | Self::Told(at) | Self::Admitted(at) => *at,
            Self::Moved { look_at, .. } => *look_at,
        }
    }
}

/// Lines of the input, which is only read when it is known that something is there.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
}

impl Lines {
    fn next(&mut self) -> Option<Vec<u8>> {
        let end = self.bytes.iter().position(|byte| *byte == b'\n')?;
        Some(self.bytes.drain(..=end).collect())
    }

    /// Whether there is more to come.
    fn read(&mut self, from: &std::io::Stdin) -> anyhow::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        let length = rustix::io::read(from, &mut buffer)?;
        self.bytes.extend_from_slice(&buffer[..length]);
        anyhow::ensure!(self.bytes.len() < ORDER_BYTES_MAX, "an order without an end");
        Ok(length > 0)
    }
}
