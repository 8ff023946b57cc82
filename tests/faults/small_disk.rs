//! A disk that is small enough to be filled: a tmpfs in a mount namespace of its own. It is there only
//! for what is started by way of it, and gone when that has ended, however the test ends.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub struct SmallDisk {
    /// Holds the namespace for as long as its standard input is open.
    holder: Child,
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts one over this folder, which is made.
    pub fn mount(at: &Path, mebibytes: u32) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let mount = "mount -t tmpfs -o size=$1m tmpfs \"$2\" && echo mounted && exec cat";
        let is_root = rustix::process::getuid().is_root();
        let mut holder = Command::new("unshare")
            .args(if is_root { vec!["--mount"] } else { vec!["--mount", "--map-root-user"] })
            .args(["sh", "-c", mount, "sh", &mebibytes.to_string(), at.to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("this test needs `unshare` and `nsenter` of util-linux");
        let mut said = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
        if said.trim() != "mounted" {
            let mut why = String::new();
            holder.stderr.take().unwrap().read_to_string(&mut why).unwrap();
            let _ = holder.wait();
            panic!(
                "this test needs a small disk, and none can be mounted here ({}): \
                 run it as root, or where user namespaces are allowed",
                why.trim()
            );
        }
        Self { holder, at: at.to_owned() }
    }

    /// By way of what a program is started that is to see it.
    pub fn by(&self) -> Vec<String> {
        let holder = self.holder.id().to_string();
        let whose = if rustix::process::getuid().is_root() { "" } else { "--user" };
        let words =
            ["nsenter", "--mount", whose, "--preserve-credentials", "--target", &holder, "--"];
        words.into_iter().filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    /// Fills it to the last byte.
    pub fn fill(&self) {
        let mut ballast = File::options().create(true).append(true).open(self.ballast()).unwrap();
        let block = [0xAA; 4096];
        for part in [&block[..], &block[..1]] {
            let full = loop {
                if let Err(error) = ballast.write_all(part) {
                    break error;
                }
            };
            assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
        }
    }

    /// Takes what `fill` wrote away.
    pub fn make_room(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    /// The folder, as it is seen from outside.
    pub fn seen(&self) -> PathBuf {
        let path = self.at.strip_prefix("/").unwrap();
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(path)
    }

    fn ballast(&self) -> PathBuf {
        self.seen().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
