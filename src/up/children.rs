//! The supervised processes: started, started again with growing pauses, and stopped.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::FutureExt as _;
use futures_util::future::select_all;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use crate::clock;
use crate::config::Settings;
use crate::up::folder;
use crate::up::lifeline::SUPERVISOR;

/// The first pause before a child that ended is started again, and the longest.
const RESTART_WAIT_MIN: Duration = Duration::from_millis(100);
const RESTART_WAIT_MAX: Duration = Duration::from_secs(5);
/// A child that ran for this long had no trouble starting.
const STEADY_AFTER: Duration = Duration::from_secs(10);
/// A child that does not stop within this is killed; roles drain in less.
const STOP_WAIT_MAX: Duration = Duration::from_secs(25);

/// What is run.
pub(super) struct Program {
    /// Names its pid file and its log lines.
    pub(super) name: &'static str,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    /// Where it writes, if not to our standard error.
    pub(super) log: Option<PathBuf>,
}

/// One supervised process.
pub(super) struct Child {
    program: Program,
    running: Option<tokio::process::Child>,
    started: Instant,
    due: Instant,
    wait: Duration,
}

impl Child {
    pub(super) fn new(program: Program) -> Self {
        let now = clock::monotonic();
        Self { program, running: None, started: now, due: now, wait: RESTART_WAIT_MIN }
    }

    /// Starts the child, if it does not run and its pause is over.
    pub(super) fn start_if_due(&mut self, run: &Path) -> anyhow::Result<()> {
        if self.running.is_some() || clock::monotonic() < self.due {
            return Ok(());
        }
        let name = self.program.name;
        let mut command = Command::new(&self.program.program);
        for variable in Settings::ENVIRONMENT {
            command.env_remove(variable);
        }
        command
            .args(&self.program.arguments)
            .env(SUPERVISOR, std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(self.output()?)
            .stderr(self.output()?)
            // Ctrl-C is for us: we stop the children in their order.
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("{name} can't be started"))?;
        let pid = child.id().map(|pid| pid.to_string()).unwrap_or_default();
        if let Err(error) = folder::write(&run.join(format!("{name}.pid")), &pid) {
            // A full disk, for one: no reason to stop what runs.
            tracing::warn!(name, pid, %error, "the pid file can't be written");
        }
        tracing::info!(name, pid, "started");
        self.running = Some(child);
        self.started = clock::monotonic();
        Ok(())
    }

    /// Asks the child to stop and waits for it; one that does not stop is killed.
    pub(super) async fn stop(&mut self, run: &Path) {
        let name = self.program.name;
        if let Some(mut child) = self.running.take() {
            let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
            if let Some(pid) = pid
                && let Err(error) = kill_process(pid, Signal::TERM)
            {
                tracing::debug!(name, %error, "could not be asked to stop");
            }
            if tokio::time::timeout(STOP_WAIT_MAX, child.wait()).await.is_err() {
                tracing::warn!(name, "does not stop; killing it");
                if let Err(error) = child.kill().await {
                    tracing::warn!(name, %error, "could not be killed");
                }
            }
        }
        // What names no process any more must not stay.
        if let Err(error) = std::fs::remove_file(run.join(format!("{name}.pid"))) {
            tracing::debug!(name, %error, "no pid file to remove");
        }
    }

    fn output(&self) -> anyhow::Result<Stdio> {
        let Some(log) = &self.program.log else { return Ok(Stdio::from(std::io::stderr())) };
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(log);
        Ok(file.with_context(|| format!("{} can't be written", log.display()))?.into())
    }

    /// Comes back when the child ended, or when it is due to be started.
    async fn changed(&mut self) {
        let Some(child) = &mut self.running else {
            let pause = self.due.saturating_duration_since(clock::monotonic());
            return tokio::time::sleep(pause).await;
        };
        let status = child.wait().await;
        let steady = clock::monotonic().duration_since(self.started) > STEADY_AFTER;
        self.wait = if steady { RESTART_WAIT_MIN } else { (2 * self.wait).min(RESTART_WAIT_MAX) };
        self.due = clock::monotonic() + self.wait;
        self.running = None;
        let status = status.map(|status| status.to_string()).unwrap_or_default();
        tracing::warn!(name = self.program.name, status, wait = ?self.wait, "ended; starting it again");
    }
}

/// Comes back when a child ended or is due to be started. Safe to cancel.
pub(super) async fn any_ended(children: &mut [Child]) {
    select_all(children.iter_mut().map(|child| child.changed().boxed_local())).await;
}
