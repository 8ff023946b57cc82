//! A projector as a process of its own, at a server with the queue `demo`, and what must be true of
//! what it says.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::Signal;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::support::Nats;
use crate::system::{signal, wait_until};
use crate::world::Stored;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_anteroom");

/// A folder of this test's own, gone when it is dropped.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("anteroom-fault-{name}-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running projector. Dropped, it is killed.
pub struct Projector {
    process: Child,
    auditor: String,
    log: PathBuf,
}

impl Projector {
    /// Starts one that keeps its stores in this folder, by way of the program that `by` begins with.
    pub fn start(nats: &Nats, dir: &Path, by: &[String]) -> Self {
        let log = dir.with_extension("log");
        let program = [by, &[PROGRAM.to_owned()]].concat();
        let process = Command::new(&program[0])
            .args(&program[1..])
            .args(["projector", "--nats", &nats.url("projector"), "--dir", dir.to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { process, auditor: nats.url("auditor"), log }
    }

    /// The first answer that it gives to the question for its fingerprints. It must live to give it.
    pub fn verify(&mut self) -> Value {
        let mut answer = Value::Null;
        wait_until("the projector answers", || {
            assert_eq!(self.process.try_wait().unwrap(), None, "it ended: {}", self.log());
            let (done, said) = run(&["projection", "verify", "demo", "--nats", &self.auditor]);
            answer = said;
            done
        });
        assert_eq!(answer["from"], "projector");
        answer.as_object_mut().unwrap().remove("from");
        answer
    }

    /// Whether it refuses to answer, as one that has halted.
    pub fn refuses(&mut self) -> bool {
        assert_eq!(self.process.try_wait().unwrap(), None, "it ended: {}", self.log());
        !run(&["projection", "verify", "demo", "--nats", &self.auditor]).0
    }

    /// What it has written to its log since it was started.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub fn said(&self, what: &str) -> bool {
        self.log().contains(what)
    }

    /// The checkpoint that it began with.
    pub fn began_with(&self) -> u64 {
        let log = self.log();
        let from = log.split(" from=").nth(1).unwrap_or_else(|| panic!("no checkpoint in: {log}"));
        from.split(' ').next().unwrap().parse().unwrap()
    }

    /// Ends it as `kill -9` does.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(mut self) {
        signal(i32::try_from(self.process.id()).unwrap(), Signal::TERM);
        assert!(self.process.wait().unwrap().success(), "{}", self.log());
    }
}

impl Drop for Projector {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
        let _ = std::fs::remove_file(&self.log);
    }
}

/// What a command that prints JSON says, and whether it says yes.
fn run(arguments: &[&str]) -> (bool, Value) {
    let output = Command::new(PROGRAM).args(arguments).arg("--json").output().unwrap();
    (output.status.success(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

/// What a projector of `demo` must answer: the digest as audited from the log, and the chain as it is
/// computed here from the raw stream.
pub fn truth(nats: &Nats, stored: &[Stored]) -> Value {
    let (in_order, audit) = run(&["audit", "verify", "demo", "--nats", &nats.url("auditor")]);
    assert!(in_order, "{audit}");
    let said = serde_json::json!({
        "ok": true, "sequence": stored.len(), "digest": audit["digest"], "chain": chain(stored),
    });
    assert_eq!((&audit["sequence"], &audit["chain"]), (&said["sequence"], &said["chain"]));
    said
}

/// SHA-256 over the previous chain, sequence, store time, subject, 0, payload; from 32 zero bytes.
fn chain(stored: &[Stored]) -> String {
    let mut chain = [0_u8; 32];
    for entry in stored {
        let time: jiff::Timestamp = entry.time.parse().unwrap();
        let nanos = i64::try_from(time.as_nanosecond()).unwrap();
        let mut hash = Sha256::new();
        hash.update(chain);
        hash.update(entry.seq.to_be_bytes());
        hash.update(nanos.to_be_bytes());
        hash.update(&entry.subject);
        hash.update([0]);
        hash.update(&entry.payload);
        chain.copy_from_slice(&hash.finalize());
    }
    chain.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}
