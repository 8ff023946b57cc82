//! The end of a process: who is asked to stop, and who is waited for.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// For how long a stopping role waits for its tasks before it goes anyway.
pub const DRAIN_MAX: Duration = Duration::from_secs(20);

/// Asks all tasks of a role to stop, and knows which of them still run.
#[derive(Clone, Default)]
pub struct Shutdown {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// Starts a task that [`Shutdown::drain`] waits for. It watches [`Shutdown::stopped`] itself.
    pub fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Starts a thread that [`Shutdown::drain`] waits for. It looks at [`Shutdown::is_stopping`] itself.
    pub fn thread(&self, name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let counted = self.tasks.token();
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(move || {
            run();
            drop(counted);
        })?;
        Ok(())
    }

    /// Asks everyone to stop.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Comes back once everyone is asked to stop.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Whether everyone is asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Waits for all tasks, but no longer than [`DRAIN_MAX`].
    pub async fn drain(&self) {
        self.tasks.close();
        if tokio::time::timeout(DRAIN_MAX, self.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "stopping without waiting for the last tasks");
        }
    }
}

/// Starts a short task that nobody waits for: one that is lost with the process without harm.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn detached(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

/// Comes back at the first SIGTERM, SIGINT or SIGHUP.
pub async fn asked_to_stop() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}
