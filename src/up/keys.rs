//! The file of signing keys, changed from outside while admission runs.

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

/// Takes a key out.
pub fn remove(file: &Path, kid: &str) -> anyhow::Result<()> {
    let mut keys = read(file)?;
    let before = keys.len();
    keys.retain(|(its, _)| its != kid);
    if keys.is_empty() {
        bail!("{kid} is the only key: `anteroom key rotate` makes another");
    }
    // One that was taken out before may still be known to queues.
    if keys.len() < before { write(file, &keys) } else { Ok(()) }
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
