//! The nats-server beside us: which program it is, and its configuration.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::up::folder::{self, Folder, IDENTITIES};

/// The oldest version that has all that is used.
const OLDEST: (u32, u32, u32) = (2, 14, 3);

const TEMPLATE: &str = include_str!("../../nats.conf");

/// The nats-server to start: the named one, or the one on PATH.
pub(super) fn find(named: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let program = named.unwrap_or_else(|| PathBuf::from("nats-server"));
    let how = "nats-server is needed, 2.14.3 or newer: `tools/up` installs it";
    let output = Command::new(&program).arg("--version").output();
    let output =
        output.with_context(|| format!("{} can't be started; {how}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let version = said.trim().rsplit('v').next().and_then(parse_version);
    match version {
        Some(version) if version >= OLDEST => Ok(program),
        _ => bail!("{} is {}; {how}", program.display(), said.trim()),
    }
}

fn parse_version(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.split(['.', '-', '+']).map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next()??))
}

/// Fills in the template, and writes each role's address beside it.
pub(super) fn configure(folder: &Folder, listen: SocketAddr) -> anyhow::Result<()> {
    let mut text = TEMPLATE
        .replace("{{SERVER_NAME}}", "anteroom")
        .replace("{{LISTEN_HOST}}:{{LISTEN_PORT}}", &listen.to_string())
        .replace("{{STORE_DIR}}", &quoted(&folder.nats_store())?);
    for identity in IDENTITIES {
        let password = folder.nats_password_text(identity)?;
        let name = format!("{{{{{}_PASSWORD}}}}", identity.to_uppercase());
        text = text.replace(&name, &password);
        let address = format!("nats://{identity}:{password}@{listen}");
        folder::write(&folder.nats_address(identity), &address)?;
    }
    folder::write(&folder.nats_conf(), &text)
}

/// A path as it can stand between quotes in the configuration.
fn quoted(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().filter(|text| !text.contains(['"', '\\', '\n']));
    text.map(str::to_owned).with_context(|| {
        format!("{}: the folder's path must be text without quotes", path.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared_as_numbers() {
        assert_eq!(parse_version("2.15.1"), Some((2, 15, 1)));
        assert_eq!(parse_version("2.14.3-RC.1"), Some((2, 14, 3)));
        assert_eq!(parse_version("nonsense"), None);
        assert!((2, 9, 25) < OLDEST && (2, 100, 0) > OLDEST);
    }
}
