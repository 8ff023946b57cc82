//! A real nats-server for one test: the repository's `nats.conf` filled in, a store of its own
//! that outlives the process, and a port that stays the same when it is started again.
//!
//! ```ignore
//! let mut nats = Nats::start_new();
//! let log = Log::connect(&nats.url("node"), "a test").await?;
//! nats.kill(); // -9
//! nats.start(); // the same port, the same store
//! ```
//!
//! The program is the one that `ANTEROOM_NATS_SERVER` names, or the `nats-server` on PATH. Without
//! one a test fails: what it would show can't be shown otherwise.

#![allow(dead_code, reason = "no test target uses all of it")]
#![expect(clippy::unwrap_used, reason = "a server that can't be started fails its test")]

use std::fs::File;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anteroom::clock;

/// Who may connect: each has an account of its own, except the operator, who is in the log's.
const IDENTITIES: [&str; 5] = ["operator", "node", "projector", "admission", "auditor"];

/// A server that does not answer within this has failed to start.
pub(crate) const START_WAIT_MAX: Duration = Duration::from_secs(20);

/// One nats-server. Dropped, it is killed and its folder is gone.
pub(crate) struct Nats {
    dir: PathBuf,
    address: SocketAddr,
    process: Option<Child>,
}

impl Nats {
    /// Starts a server with an empty store.
    pub(crate) fn start_new() -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, crate::ports::free_port()));
        let name = format!("anteroom-nats-{}-{}", std::process::id(), address.port());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        let mut nats = Self { dir, address, process: None };
        let configuration = configuration("anteroom-test", address, &nats.store());
        std::fs::write(nats.dir.join("nats.conf"), configuration).unwrap();
        nats.start();
        nats
    }

    /// Starts the server on the store that it had, and comes back when it answers.
    pub(crate) fn start(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(self.dir.join("log")).unwrap();
        let program = program();
        let started = Command::new(&program)
            .arg("--config")
            .arg(self.dir.join("nats.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        let process = started.unwrap_or_else(|error| {
            panic!(
                "this test needs a nats-server, and {} can't be started ({error}): \
                 `tools/nats` installs it; ANTEROOM_NATS_SERVER may name one elsewhere",
                program.display()
            )
        });
        self.process = Some(process);
        let until = clock::monotonic() + START_WAIT_MAX;
        while !answers(self.address) {
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            if ended.is_some() || clock::monotonic() > until {
                let said = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                panic!("nats-server does not start:\n{said}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends the server as `kill -9` does: it can finish nothing.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Where it keeps its streams.
    pub(crate) fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of one identity: `operator`, `node`, `projector`, `admission` or `auditor`.
    pub(crate) fn url(&self, identity: &str) -> String {
        Self::url_at(identity, self.address)
    }

    /// The same at another address, for one who stands in between.
    pub(crate) fn url_at(identity: &str, address: SocketAddr) -> String {
        format!("nats://{identity}:{}@{address}", password(identity))
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
        // What is left of a folder harms nobody, and a panic here would hide the test's own.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The repository's `nats.conf`, filled in.
pub(crate) fn configuration(name: &str, address: SocketAddr, store: &Path) -> String {
    let mut text = include_str!("../../nats.conf")
        .replace("{{SERVER_NAME}}", name)
        .replace("{{LISTEN_HOST}}:{{LISTEN_PORT}}", &address.to_string())
        .replace("{{STORE_DIR}}", store.to_str().unwrap());
    for identity in IDENTITIES {
        let name = format!("{{{{{}_PASSWORD}}}}", identity.to_uppercase());
        text = text.replace(&name, &password(identity));
    }
    text
}

/// Whether a server there greets a client. It does so only once it has read its store.
pub(crate) fn answers(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let mut greeting = [0; 5];
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    stream.read_exact(&mut greeting).is_ok() && greeting == *b"INFO "
}

/// The program.
#[expect(clippy::disallowed_methods, reason = "a test has no configuration file")]
pub(crate) fn program() -> PathBuf {
    std::env::var("ANTEROOM_NATS_SERVER").unwrap_or_else(|_| "nats-server".to_owned()).into()
}

pub(crate) fn password(identity: &str) -> String {
    format!("{identity}-of-a-test")
}
