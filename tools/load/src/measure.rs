//! CPU time and memory of processes, and the statistics of times.

use std::collections::BTreeMap;

use anyhow::Context as _;

/// CPU time and memory of some processes, as the kernel has it in /proc.
pub struct Meter {
    /// Of each process, the nanoseconds of each thread, those that have ended included.
    threads: BTreeMap<u32, BTreeMap<u32, u64>>,
}

impl Meter {
    /// Of these processes, which must be there.
    pub fn new(pids: Vec<u32>) -> anyhow::Result<Self> {
        let threads = pids.into_iter().map(|pid| (pid, BTreeMap::new())).collect();
        let mut meter = Self { threads };
        for pid in meter.threads.keys() {
            anon_kib(*pid).with_context(|| format!("no process {pid}"))?;
        }
        meter.cpu();
        Ok(meter)
    }

    /// Nanoseconds of CPU time since they began. What a thread used between the last look at it and
    /// its end is missing; a process that has ended keeps what it had.
    pub fn cpu(&mut self) -> u64 {
        for (pid, threads) in &mut self.threads {
            let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { continue };
            for task in tasks.flatten() {
                let path = task.path().join("schedstat");
                let name = task.file_name();
                let thread = name.to_str().and_then(|name| name.parse::<u32>().ok());
                let nanos = std::fs::read_to_string(path)
                    .ok()
                    .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
                if let (Some(thread), Some(nanos)) = (thread, nanos) {
                    threads.insert(thread, nanos);
                }
            }
        }
        self.threads.values().flat_map(BTreeMap::values).sum()
    }

    /// KiB of memory that are theirs alone; `None` if there are no processes.
    pub fn kib(&self) -> Option<u64> {
        if self.threads.is_empty() {
            return None;
        }
        Some(self.threads.keys().filter_map(|pid| anon_kib(*pid)).sum())
    }
}

fn anon_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Times in order, for exact percentiles.
pub struct Times(Vec<u64>);

impl Times {
    /// Puts them in order.
    pub fn new(mut nanos: Vec<u64>) -> Self {
        nanos.sort_unstable();
        Self(nanos)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The time in milliseconds that so many of a hundred do not exceed; `None` if there are none.
    pub fn millis(&self, of_hundred: usize) -> Option<f64> {
        let rank = (self.0.len() * of_hundred).div_ceil(100).max(1);
        self.0.get(rank - 1).map(|nanos| rounded(*nanos as f64 / 1e6))
    }
}

/// To three decimals: more is noise.
pub fn rounded(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

/// How much `y` grows with each `x`, by least squares; `None` if that can't be said.
pub fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let spread = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum::<f64>();
    let together = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>();
    (points.len() > 1 && spread > 0.0).then(|| together / spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_exact() {
        let times = Times::new((1..=200).rev().map(|milli| milli * 1_000_000).collect());
        assert_eq!(times.millis(50), Some(100.0));
        assert_eq!(times.millis(99), Some(198.0));
        assert_eq!(times.millis(100), Some(200.0));
        assert_eq!(Times::new(vec![5_000_000]).millis(0), Some(5.0));
        assert_eq!(Times::new(Vec::new()).millis(50), None);
    }

    #[test]
    fn a_slope_is_that_of_the_line_between() {
        let slope = slope(&[(0.0, 1.0), (1.0, 3.5), (2.0, 4.5), (3.0, 7.0)]).unwrap();
        assert!((slope - 1.9).abs() < 1e-9, "{slope}");
        assert_eq!(super::slope(&[(1.0, 1.0)]), None);
    }

    #[test]
    fn this_process_uses_memory_and_time() {
        let mut meter = Meter::new(vec![std::process::id()]).unwrap();
        assert!(meter.cpu() > 0);
        assert!(meter.kib().unwrap() > 0);
        assert!(Meter::new(vec![u32::MAX]).is_err());
    }
}
