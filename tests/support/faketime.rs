//! A wall clock of its own for one process, by libfaketime.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is written into a file of a clock counts within this.
pub(crate) const SET_WITHIN: Duration = Duration::from_secs(2);

/// What the environment of a process holds whose wall clock is so far off, and no other clock of it.
pub(crate) fn environment(seconds: i64) -> Vec<(&'static str, String)> {
    [common(), vec![("FAKETIME", format!("{seconds:+}"))]].concat()
}

/// The same where a file says how far, and may be written anew while the process runs.
pub(crate) fn environment_by(file: &Path) -> Vec<(&'static str, String)> {
    let file = file.to_str().unwrap().to_owned();
    let own = [("FAKETIME_TIMESTAMP_FILE", file), ("FAKETIME_CACHE_DURATION", "1".to_owned())];
    [common(), own.to_vec()].concat()
}

/// What such a file holds.
pub(crate) fn text(seconds: i64) -> String {
    format!("{seconds:+}\n")
}

fn common() -> Vec<(&'static str, String)> {
    let library = library().to_str().unwrap().to_owned();
    vec![("LD_PRELOAD", library), ("DONT_FAKE_MONOTONIC", "1".to_owned())]
}

/// Where systems have it: under the libraries, or under those of the machine's kind.
fn library() -> PathBuf {
    let list = |dir: &str| std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut dirs = vec![PathBuf::from("/usr/lib"), PathBuf::from("/usr/lib64")];
    dirs.extend(list("/usr/lib").map(|entry| entry.path()));
    let mut found = dirs.iter().map(|dir| dir.join("faketime/libfaketime.so.1"));
    found.find(|file| file.exists()).expect("`tools/preflight faketime` names what is missing")
}
