//! The disk under nats-server. A server that could not write because it was full takes nothing more for
//! that stream, even when there is room again, until it is started anew (2.15.1). It says so in its
//! log and nowhere else.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// As the system words it, in whatever line of the server's.
const NO_SPACE: &str = "no space left on device";
/// With less it would soon be full again: some of the largest entries.
const ROOM_BYTES_MIN: u64 = 8 * 1024 * 1024;

pub(super) struct FullDisk {
    log: PathBuf,
    store: PathBuf,
    /// How far the log was read.
    read: u64,
    was_full: bool,
}

impl FullDisk {
    /// Looks at what the server writes from now on.
    pub(super) fn new(log: PathBuf, store: PathBuf) -> Self {
        let read = std::fs::metadata(&log).map_or(0, |log| log.len());
        Self { log, store, read, was_full: false }
    }

    /// Comes back when the disk was full and there is room again. Safe to cancel.
    pub(super) async fn has_room_again(&mut self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if let Err(error) = self.read_on() {
                tracing::debug!(%error, "nats-server's log can't be read");
            }
            if self.was_full && self.has_room() {
                self.was_full = false;
                return;
            }
        }
    }

    fn read_on(&mut self) -> std::io::Result<()> {
        let log = File::open(&self.log)?;
        if log.metadata()?.len() < self.read {
            // It was cut off, to make room, or to begin anew.
            self.read = 0;
        }
        let mut log = BufReader::new(log);
        log.seek(SeekFrom::Start(self.read))?;
        let mut line = Vec::new();
        while log.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
            self.read += line.len() as u64;
            self.was_full |= String::from_utf8_lossy(&line).contains(NO_SPACE);
            line.clear();
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        rustix::fs::statvfs(&self.store).is_ok_and(|disk| {
            disk.f_bavail.saturating_mul(disk.f_frsize) >= ROOM_BYTES_MIN && disk.f_favail > 0
        })
    }
}
