//! What a process holds: memory and descriptors, as the kernel counts them.

use std::fmt;

/// What a node holds at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Burden {
    /// Memory of its own (RssAnon).
    pub kibibytes: usize,
    pub descriptors: usize,
}

impl Burden {
    pub fn of(pid: i32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        let kibibytes = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
        Self { kibibytes, descriptors: descriptors(pid) }
    }
}

impl fmt::Display for Burden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = self.kibibytes as f64 / 1024.0;
        write!(f, "{mebibytes:.1} MiB and {} descriptors", self.descriptors)
    }
}

pub fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}
