//! The folder of an `up`: what is made at the first start, and where everything is.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::admission::signer;
use crate::ids;
use crate::queue::digest::hex;

/// Every identity in nats.conf.
pub(super) const IDENTITIES: [&str; 5] = ["operator", "node", "projector", "admission", "auditor"];

/// The version of the folder, which is that of the log in it.
const VERSION: &str = "2";

/// The folder, held by this process alone.
pub(super) struct Folder {
    root: PathBuf,
    _lock: File,
}

impl Folder {
    /// Opens the folder, makes what it lacks, and holds it against a second `up`.
    pub(super) fn open(root: &Path) -> anyhow::Result<Self> {
        make_dir(root)?;
        let root =
            root.canonicalize().with_context(|| format!("{} can't be used", root.display()))?;
        let lock = private().create(true).truncate(false).open(root.join("lock"))?;
        if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!("another `anteroom up` is running on {}", root.display());
        }
        let folder = Self { root, _lock: lock };
        folder.check_version()?;
        for dir in ["run", "keys", "nats", "projection"] {
            make_dir(&folder.root.join(dir))?;
        }
        make(&folder.installation_key(), || Ok(hex(&ids::secret::<32>()?)))?;
        make(&folder.mac_key(), || Ok(hex(&ids::secret::<32>()?)))?;
        make(&folder.signing_key(), || Ok(signer::generate()?))?;
        make(&folder.operator_token(), || Ok(hex(&ids::secret::<24>()?)))?;
        for identity in IDENTITIES {
            make(&folder.nats_password(identity), || Ok(hex(&ids::secret::<16>()?)))?;
        }
        Ok(folder)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    pub(super) fn installation_key(&self) -> PathBuf {
        self.root.join("keys/installation")
    }

    pub(super) fn mac_key(&self) -> PathBuf {
        self.root.join("keys/mac")
    }

    pub(super) fn signing_key(&self) -> PathBuf {
        signing_key(&self.root)
    }

    pub(super) fn operator_token(&self) -> PathBuf {
        self.root.join("operator-token")
    }

    pub(super) fn operator_token_text(&self) -> anyhow::Result<String> {
        read(&self.operator_token())
    }

    pub(super) fn projection(&self) -> PathBuf {
        projection(&self.root)
    }

    pub(super) fn nats_store(&self) -> PathBuf {
        self.root.join("nats")
    }

    pub(super) fn nats_conf(&self) -> PathBuf {
        self.run().join("nats.conf")
    }

    pub(super) fn nats_log(&self) -> PathBuf {
        self.run().join("nats-server.log")
    }

    pub(super) fn nats_password_text(&self, identity: &str) -> anyhow::Result<String> {
        read(&self.nats_password(identity))
    }

    /// The file with the address and the password of a role.
    pub(super) fn nats_address(&self, identity: &str) -> PathBuf {
        nats_address(&self.root, identity)
    }

    pub(super) fn nats_address_text(&self, identity: &str) -> anyhow::Result<String> {
        read(&self.nats_address(identity))
    }

    /// Writes what other commands find a running system by.
    pub(super) fn write_ready(&self, ready: &Value) -> anyhow::Result<()> {
        write(&ready_file(&self.root), &ready.to_string())
    }

    /// Whether a system was ever ready on this folder.
    pub(super) fn was_ready(&self) -> bool {
        ready_file(&self.root).exists()
    }

    /// Says in a new folder which version it is of, before there is anything else, and refuses one of
    /// another version before anything in it is touched.
    fn check_version(&self) -> anyhow::Result<()> {
        let file = self.root.join("version");
        let found = match std::fs::read_to_string(&file) {
            Ok(text) if text.trim() == VERSION => return Ok(()),
            Ok(text) => format!("version {}", text.trim().escape_debug()),
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("{} can't be read", file.display()));
            }
            // Version 1 had no such file.
            Err(_) if self.root.join("keys").exists() => {
                "version 1, from before the first release".to_owned()
            }
            Err(_) => return write(&file, VERSION),
        };
        bail!(
            "{} is of {found}, which this program does not read: start in another folder, or move it away",
            self.root.display()
        )
    }

    fn nats_password(&self, identity: &str) -> PathBuf {
        self.root.join("keys").join(format!("nats-{identity}"))
    }
}

/// The file with the address and the password of a role, in the folder of an `up`.
pub(super) fn nats_address(root: &Path, identity: &str) -> PathBuf {
    root.join("run").join(format!("nats-{identity}.url"))
}

/// The file of signing keys, in the folder of an `up`.
pub(super) fn signing_key(root: &Path) -> PathBuf {
    root.join("keys/signing.pem")
}

/// Where the projector of an `up` keeps its stores.
pub(super) fn projection(root: &Path) -> PathBuf {
    root.join("projection")
}

/// The file that says where a running `up` is reached.
pub(super) fn ready_file(root: &Path) -> PathBuf {
    root.join("run/ready.json")
}

/// Writes a file that only its owner may read, whole or not at all.
pub(super) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let written = || -> std::io::Result<()> {
        let beside = path.with_extension("new");
        let mut file = private().create(true).truncate(true).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    written().with_context(|| format!("{} can't be written", path.display()))
}

fn make(path: &Path, text: impl FnOnce() -> anyhow::Result<String>) -> anyhow::Result<()> {
    if path.exists() { Ok(()) } else { write(path, &text()?) }
}

fn read(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path);
    Ok(text.with_context(|| format!("{} can't be read", path.display()))?.trim().to_owned())
}

fn make_dir(path: &Path) -> anyhow::Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("the folder {} can't be made", path.display()))
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens a folder in which these files are, and says what is in it then, or why it is refused.
    fn open(name: &str, files: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let root = std::env::temp_dir().join(format!("anteroom-{name}-{}", std::process::id()));
        for (file, text) in files {
            let file = root.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        let before = listed(&root);
        let opened = Folder::open(&root).map(drop);
        let after = listed(&root);
        if let Err(error) = opened {
            // But for the lock nothing was made.
            assert_eq!(after.into_iter().filter(|name| name != "lock").collect::<Vec<_>>(), before);
            std::fs::remove_dir_all(&root).unwrap();
            return Err(error.to_string().replace(root.to_str().unwrap(), "FOLDER"));
        }
        assert_eq!(std::fs::read_to_string(root.join("version")).unwrap().trim(), VERSION);
        // It is taken up again, with the keys that it has.
        let mac = || std::fs::read_to_string(root.join("keys/mac")).unwrap();
        let first = mac();
        drop(Folder::open(&root).unwrap());
        assert_eq!(mac(), first);
        std::fs::remove_dir_all(&root).unwrap();
        Ok(after)
    }

    fn listed(folder: &Path) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_folder_says_its_version_and_one_of_another_is_refused() {
        let made = ["keys", "lock", "nats", "operator-token", "projection", "run", "version"];
        assert_eq!(open("new", &[]).unwrap(), made);
        // The first start was broken off after its first step.
        assert_eq!(open("begun", &[("version", "2")]).unwrap(), made);
        assert_eq!(
            open("old", &[("keys/mac", "00"), ("nats/meta", "")]).unwrap_err(),
            "FOLDER is of version 1, from before the first release, which this program does not read: \
             start in another folder, or move it away"
        );
        assert_eq!(
            open("newer", &[("version", "3\n"), ("keys/mac", "00")]).unwrap_err(),
            "FOLDER is of version 3, which this program does not read: \
             start in another folder, or move it away"
        );
    }
}
