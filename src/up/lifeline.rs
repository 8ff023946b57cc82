//! A child's line to the supervisor: when the supervisor is gone, so is the child, even if it was
//! killed and could tell nobody.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// The variable in which a child is told its supervisor.
pub(super) const SUPERVISOR: &str = "ANTEROOM_SUPERVISOR";

/// Ties this process to its supervisor, if it has one. Call it first, on the main thread.
pub fn hold() -> anyhow::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "said by a supervisor to its child, no setting")]
    let Ok(supervisor) = std::env::var(SUPERVISOR) else { return Ok(()) };
    set_parent_process_death_signal(Some(Signal::KILL)).context("no parent-death signal")?;
    // It may have died before the signal was set.
    if getppid().map(Pid::as_raw_pid).map(|pid| pid.to_string()) != Some(supervisor) {
        bail!("the supervisor is gone");
    }
    Ok(())
}

/// Ties this process to its supervisor and becomes another program, which stays tied.
pub fn exec(program: &OsString, arguments: &[OsString]) -> anyhow::Result<()> {
    hold()?;
    let error = std::process::Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("{} can't be started", program.display()))
}
