//! Two admission workers: which of them decides, and what the log says of when it was decided.

use std::time::Duration;

use jiff::Timestamp;
use rustix::process::Signal;

use crate::checker::Entry;
use crate::system::{System, get, is_running, signal, wait_until};

/// Ordinary admissions between two faults.
pub const CALM: Duration = Duration::from_secs(2);
/// Nobody is let in for no longer than this while one goes on for another: silence for 3 s, and what
/// it takes to notice.
pub const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Where nobody is let in for so long, it is a pause: many times what lies between two at the rates
/// of these rows.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// What one that died had sent is stored within this, and is no decision of another.
const SENT_MAX: Duration = Duration::from_millis(250);

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Worker {
    /// The one that `up` starts again.
    First,
    Second,
}

impl Worker {
    pub const BOTH: [Self; 2] = [Self::First, Self::Second];

    pub fn other(self) -> Self {
        if self == Self::First { Self::Second } else { Self::First }
    }

    /// As the system numbers its operator listeners.
    pub fn number(self) -> usize {
        usize::from(self == Self::Second)
    }

    pub fn pid(self, system: &System) -> i32 {
        match self {
            Self::First => system.pid("admission"),
            Self::Second => system.pid_beside("admission"),
        }
    }

    /// Kills it at once, and comes back when it is dead.
    pub fn kill(self, system: &mut System) {
        let pid = self.pid(system);
        signal(pid, Signal::KILL);
        match self {
            Self::First => wait_until("the worker is dead", || !is_running(pid)),
            Self::Second => drop(system.ended_beside("admission")),
        }
    }

    /// Whether it says that it decides.
    pub fn is_active(self, system: &System) -> bool {
        get(&format!("{}/readyz", system.operator(self.number()))).1["active"] == true
    }

    fn is_ready(self, system: &System) -> bool {
        get(&format!("{}/readyz", system.operator(self.number()))).0 == 200
    }

    /// How many of its decisions were void because another came before them.
    pub fn fences_lost(self, system: &System) -> usize {
        let metrics = system.metrics_at(self.number());
        let mut lines = metrics.lines();
        let line = lines.find(|line| line.starts_with("anteroom_fences_lost_total"));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }
}

/// Waits until both are ready and exactly one decides: which.
pub fn who_decides(system: &System) -> Worker {
    let mut active = Vec::new();
    wait_until("both workers are ready, and one decides", || {
        active = Worker::BOTH.into_iter().filter(|worker| worker.is_active(system)).collect();
        active.len() == 1 && Worker::BOTH.iter().all(|worker| worker.is_ready(system))
    });
    active[0]
}

/// Waits until this worker decides, where the other does after it has hung: how often one went on
/// for the other.
pub async fn until_decides(system: &System, worker: Worker) -> usize {
    if who_decides(system) == worker {
        return 0;
    }
    let pid = worker.other().pid(system);
    signal(pid, Signal::STOP);
    wait_until("the other goes on", || worker.is_active(system));
    tokio::time::sleep(CALM).await;
    signal(pid, Signal::CONT);
    assert_eq!(who_decides(system), worker, "who came back took over");
    1
}

/// When each visitor was let in, by the times of the log.
pub fn admitted_at(entries: &[Entry]) -> Vec<Timestamp> {
    let admitted = entries.iter().filter(|entry| entry.kind == "admitted");
    let times = admitted.flat_map(|entry| {
        let facts = entry.body["facts"].as_array().unwrap();
        facts.iter().map(|_| entry.time.parse().unwrap())
    });
    times.collect()
}

/// How long after each fault somebody was let in by another worker.
pub fn resumed_after(admitted: &[Timestamp], faults: &[Timestamp]) -> Vec<Duration> {
    let after = faults.iter().map(|fault| {
        let mut later = admitted.iter().filter(|at| between(*fault, **at) > SENT_MAX);
        between(*fault, *later.next().expect("somebody was let in after each fault"))
    });
    after.collect()
}

/// The stretches in which nobody was let in.
pub fn pauses(admitted: &[Timestamp]) -> Vec<Duration> {
    let gaps = admitted.windows(2).map(|pair| between(pair[0], pair[1]));
    gaps.filter(|gap| *gap >= PAUSE_MIN).collect()
}

/// From one time to a later one; nothing where it is not later.
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

pub fn median(durations: &[Duration]) -> Duration {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

pub fn worst(durations: &[Duration]) -> Duration {
    durations.iter().copied().max().unwrap_or_default()
}
