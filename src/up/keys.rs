//! The file of signing keys, changed from outside while admission runs.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};

use crate::admission::signer;
use crate::up::folder;

/// The ids of the keys, the one to sign with first.
pub fn list(file: &Path) -> anyhow::Result<Vec<String>> {
    read(file)?.into_iter().map(|(kid, _)| Ok(kid)).collect()
}

/// Puts a new key in front: its id.
pub fn rotate(file: &Path) -> anyhow::Result<String> {
    let _alone = alone(file)?;
    let mut keys = read(file)?;
    ensure!(
        keys.len() < signer::HELD_MAX,
        "{} holds {} keys already, as many as it may: take one out first",
        file.display(),
        keys.len()
    );
    let block = signer::generate()?;
    let kid = signer::kid(&block)?;
    keys.insert(0, (kid.clone(), block.trim().to_owned()));
    write(file, &keys)?;
    Ok(kid)
}

/// Takes a key out: whether it was there. One that was not may still be known to queues.
pub fn remove(file: &Path, kid: &str) -> anyhow::Result<bool> {
    let _alone = alone(file)?;
    let mut keys = read(file)?;
    let before = keys.len();
    keys.retain(|(its, _)| its != kid);
    if keys.is_empty() {
        bail!("{kid} is the only key: `anteroom key rotate` makes another");
    }
    let was_there = keys.len() < before;
    if was_there {
        write(file, &keys)?;
    }
    Ok(was_there)
}

/// Holds the folder of the file against another command that changes it: of two that read the same keys
/// the second would lose what the first has put in.
fn alone(file: &Path) -> anyhow::Result<File> {
    let held =
        std::fs::metadata(file).with_context(|| format!("{} can't be read", file.display()))?;
    ensure!(
        held.uid() == rustix::process::geteuid().as_raw(),
        "{} is another user's: run this as its owner, or admission can't read it afterwards",
        file.display()
    );
    let folder = match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        Some(_) | None => Path::new("."),
    };
    let lock =
        File::open(folder).with_context(|| format!("{} can't be opened", folder.display()))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
    Ok(lock)
}

/// Each key's id and PEM block.
fn read(file: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(file);
    let text = text.with_context(|| format!("{} can't be read", file.display()))?;
    let blocks = signer::blocks(&text);
    blocks.into_iter().map(|block| Ok((signer::kid(block)?, block.to_owned()))).collect()
}

fn write(file: &Path, keys: &[(String, String)]) -> anyhow::Result<()> {
    let text: String = keys.iter().flat_map(|(_, block)| [block.as_str(), "\n"]).collect();
    folder::write(file, &text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A file with one key, in a folder of its own.
    fn with_key(name: &str, test: impl FnOnce(&Path)) {
        let dir = std::env::temp_dir().join(format!("anteroom-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("signing.pem");
        std::fs::write(&file, signer::generate().unwrap()).unwrap();
        test(&file);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_new_key_is_put_in_front_until_there_are_as_many_as_may_be() {
        with_key("rotate", |file| {
            let mut kids = list(file).unwrap();
            while kids.len() < signer::HELD_MAX {
                kids.insert(0, rotate(file).unwrap());
                assert_eq!(list(file).unwrap(), kids);
            }
            let refused = rotate(file).unwrap_err().to_string();
            assert!(refused.contains("holds 8 keys already"), "{refused}");
            let mode = std::fs::metadata(file).unwrap().permissions().mode();
            assert_eq!((list(file).unwrap(), mode & 0o777), (kids, 0o600));
        });
    }

    #[test]
    fn a_key_is_taken_out_but_never_the_last() {
        with_key("remove", |file| {
            let old = list(file).unwrap().remove(0);
            assert!(!remove(file, "none").unwrap());
            assert!(remove(file, &old).unwrap_err().to_string().contains("is the only key"));
            let new = rotate(file).unwrap();
            assert!(remove(file, &old).unwrap());
            assert_eq!(list(file).unwrap(), [new]);
        });
    }

    #[test]
    fn of_those_who_rotate_at_the_same_time_none_loses_the_key_of_another() {
        with_key("together", |file| {
            let mut kids = list(file).unwrap();
            std::thread::scope(|scope| {
                let made: Vec<_> = (0..4).map(|_| scope.spawn(|| rotate(file).unwrap())).collect();
                kids.extend(made.into_iter().map(|one| one.join().unwrap()));
            });
            let mut left = list(file).unwrap();
            left.sort();
            kids.sort();
            assert_eq!(left, kids);
        });
    }
}
