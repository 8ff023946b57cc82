//! `anteroom up`: everything on this machine. It starts nats-server and each role as a child of its
//! own, starts again what ends, and takes everything down with it, whatever ends it itself.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::config::Config;
use crate::shutdown;

mod children;
mod folder;
mod full_disk;
pub mod keys;
pub mod lifeline;
mod nats;
mod readiness;

use children::{Child, Program};
use folder::Folder;
use full_disk::FullDisk;
use readiness::Asked;

/// After a kill the children of the `up` before this one may take a moment to be gone.
const PORT_WAIT_MAX: Duration = Duration::from_secs(2);
/// How often it is tried meanwhile.
const PORT_TRY_EVERY: Duration = Duration::from_millis(50);

/// What is handed on to the node as it was given.
const NODE_FLAGS: [&str; 4] =
    ["pushers", "sockets_max", "connections_per_address", "trusted_proxies"];
/// The same for admission.
const ADMISSION_FLAGS: [&str; 2] = ["pass_seconds", "key_rest"];

/// What `up` was told besides its configuration.
pub struct Told {
    /// Say that it is ready as one line of JSON.
    pub json: bool,
}

/// Addresses, as they are said when everything is ready.
struct Addresses {
    visitors: SocketAddr,
    operators: SocketAddr,
    nats: SocketAddr,
}

/// Starts everything, says so, and watches over it until asked to stop. Must run on the process'
/// main thread: children notice the death of the thread that started them.
pub fn run(config: &Config, told: &Told) -> anyhow::Result<()> {
    let folder = Folder::open(&config.dir())?;
    let nats_server = nats::find(config.nats_server())?;
    let addresses = Addresses {
        visitors: settle(config.listen()?, "listen")?,
        operators: settle(config.operator_listen()?, "operator_listen")?,
        nats: settle(config.nats_listen()?, "nats_listen")?,
    };
    config.limits()?;
    config.public_url()?;
    config.door()?;
    config.pushers()?;
    nats::configure(&folder, addresses.nats)?;
    let programs = programs(&folder, config, &nats_server, &addresses)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(supervise(&folder, &addresses, programs, told))
}

async fn supervise(
    folder: &Folder,
    addresses: &Addresses,
    programs: Vec<Program>,
    told: &Told,
) -> anyhow::Result<()> {
    let mut children: Vec<Child> = programs.into_iter().map(Child::new).collect();
    let stop = shutdown::asked_to_stop();
    tokio::pin!(stop);
    let mut ready = Box::pin(ready(folder, addresses));
    let mut announced = false;
    let mut disk = FullDisk::new(folder.nats_log(), folder.nats_store());
    let ended = loop {
        for child in &mut children {
            child.start_if_due(&folder.run())?;
        }
        tokio::select! {
            () = children::any_ended(&mut children) => {}
            stopped = &mut stop => break stopped.context("signals can't be listened to"),
            said = &mut ready, if !announced => {
                announced = true;
                match said {
                    Ok(ready) => announce(folder, &ready, told)?,
                    Err(error) => break Err(error),
                }
            }
            () = disk.has_room_again() => {
                tracing::warn!("the disk under nats-server was full and has room again; restarting it");
                if let Some(nats) = children.first_mut() {
                    nats.stop(&folder.run()).await;
                }
            }
        }
    };
    tracing::info!("stopping");
    // In the order of the way in: visitors are sent away before what serves them goes.
    for child in children.iter_mut().rev() {
        child.stop(&folder.run()).await;
    }
    ended
}

/// The children in the order of their start; nats-server is the first.
fn programs(
    folder: &Folder,
    config: &Config,
    nats_server: &Path,
    addresses: &Addresses,
) -> anyhow::Result<Vec<Program>> {
    let this = std::env::current_exe().context("this program can't be found")?;
    let path = |path: PathBuf| path.display().to_string();
    let role = |name: &'static str, mut arguments: Vec<String>| {
        let nats = folder.nats_address(name);
        arguments.splice(0..0, [name.to_owned(), "--nats-file".to_owned(), path(nats)]);
        if let Some(log) = config.log() {
            arguments.extend(["--log".to_owned(), log.to_owned()]);
        }
        Program { name, program: this.clone(), arguments, log: None }
    };
    let issuer = config.issuer();
    let limits = config.limits()?;
    let mut node = vec![
        "--listen".to_owned(),
        addresses.visitors.to_string(),
        "--mac-key-file".to_owned(),
        path(folder.mac_key()),
        "--installation-key-file".to_owned(),
        path(folder.installation_key()),
        "--issuer".to_owned(),
        issuer.clone(),
    ];
    if let Some(url) = config.public_url()? {
        node.extend(["--public-url".to_owned(), url]);
    }
    node.extend(config.as_flags(&NODE_FLAGS));
    let mut admission = vec![
        "--operator-listen".to_owned(),
        addresses.operators.to_string(),
        "--signing-key-file".to_owned(),
        path(folder.signing_key()),
        "--installation-key-file".to_owned(),
        path(folder.installation_key()),
        "--operator-token-file".to_owned(),
        path(folder.operator_token()),
        "--issuer".to_owned(),
        issuer,
        "--stream-max-bytes".to_owned(),
        limits.max_bytes.to_string(),
        "--replicas".to_owned(),
        limits.replicas.to_string(),
    ];
    admission.extend(config.as_flags(&ADMISSION_FLAGS));
    let nats = vec![
        "lifeline".to_owned(),
        path(nats_server.to_path_buf()),
        "-c".to_owned(),
        path(folder.nats_conf()),
    ];
    let projector = vec!["--dir".to_owned(), path(folder.projection())];
    Ok(vec![
        Program {
            name: "nats-server",
            program: this.clone(),
            arguments: nats,
            log: Some(folder.nats_log()),
        },
        role("projector", projector),
        role("admission", admission),
        role("node", node),
    ])
}

/// A port that is free now, where the system may choose: children that are started again must come
/// back to the same.
fn settle(address: SocketAddr, key: &str) -> anyhow::Result<SocketAddr> {
    let until = crate::clock::monotonic() + PORT_WAIT_MAX;
    let mut bound = TcpListener::bind(address);
    while bound.is_err() && crate::clock::monotonic() < until {
        std::thread::sleep(PORT_TRY_EVERY);
        bound = TcpListener::bind(address);
    }
    let bound = bound.with_context(|| format!("{key}: nothing can listen on {address}"))?;
    Ok(bound.local_addr()?)
}

/// Waits until visitors can be served.
async fn ready(folder: &Folder, addresses: &Addresses) -> anyhow::Result<Value> {
    let visitors = format!("http://{}", addresses.visitors);
    let operators = format!("http://{}", addresses.operators);
    let token = folder.operator_token_text()?;
    let auditor = folder.nats_address_text("auditor")?;
    let asked = Asked {
        node: visitors.clone(),
        operator: operators.clone(),
        token,
        is_new: !folder.was_ready(),
    };
    let (done, made) = tokio::sync::oneshot::channel();
    // A thread of its own: nobody waits for it when we are asked to stop before it is done.
    std::thread::Builder::new().name("ready".to_owned()).spawn(move || {
        // Then nobody listens either.
        let _ = done.send(readiness::wait_for(&asked));
    })?;
    let queue = made.await.context("the wait for readiness failed")?;
    Ok(json!({
        "queue": queue,
        "waiting": queue.map(|queue| format!("{visitors}/waiting/{queue}")),
        "api": visitors,
        "operator": operators,
        "operatorToken": folder.operator_token_text()?,
        "auditor": auditor,
    }))
}

#[expect(clippy::print_stdout, reason = "this is what the command prints")]
fn announce(folder: &Folder, ready: &Value, told: &Told) -> anyhow::Result<()> {
    folder.write_ready(ready)?;
    if told.json {
        println!("{ready}");
        return Ok(());
    }
    let text = |key: &str| ready.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    println!("Anteroom is ready.");
    let queue = text("queue");
    match queue.is_empty() {
        true => println!("  waiting page    none yet: `anteroom queue create NAME` makes a queue"),
        false => println!("  waiting page    {}", text("waiting")),
    }
    println!(
        "  operator API    {}  (token in {})",
        text("operator"),
        folder.operator_token().display()
    );
    let (program, dir) = (std::env::current_exe()?, folder.root().display());
    println!("  auditor         the address in {dir}/run/nats-auditor.url, for any NATS client");
    println!(
        "  audit           {} audit verify {} --dir {dir}",
        program.display(),
        if queue.is_empty() { "QUEUE" } else { &queue }
    );
    println!("Ctrl-C stops everything. Started again on the same folder, it goes on where it was.");
    Ok(())
}

/// The address of one identity at the NATS server of an `up`, as `auditor`.
pub fn nats_address(dir: &Path, identity: &str) -> anyhow::Result<String> {
    let file = folder::nats_address(dir, identity);
    let text = std::fs::read_to_string(&file);
    let text =
        text.with_context(|| format!("no `anteroom up` was ever run on {}", dir.display()))?;
    Ok(text.trim().to_owned())
}

/// Where the projector of an `up` keeps its stores.
pub fn projection_dir(dir: &Path) -> PathBuf {
    folder::projection(dir)
}

/// The file that admission signs with.
pub fn signing_key_file(dir: &Path) -> PathBuf {
    folder::signing_key(dir)
}

/// The address of the operator API of a running `up`.
pub fn operator_address(dir: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(folder::ready_file(dir));
    let text =
        text.with_context(|| format!("no `anteroom up` was ever ready on {}", dir.display()))?;
    let ready: Value = serde_json::from_str(&text)?;
    let operator = ready.get("operator").and_then(Value::as_str);
    Ok(operator.context("the operator's address is missing")?.to_owned())
}
