//! Three real nats-servers that keep each log together, two of them with a wall clock of their own.
//!
//! ```ignore
//! let cluster = Cluster::start().await;
//! let log = Log::connect(&cluster.url("node", 0), "a test").await?;
//! cluster.set_clocks([-180, 180]).await; // seconds; the first one's clock is the machine's
//! cluster.move_leader("demo", 1).await; // from now on entries are stored three minutes ago
//! ```
//!
//! nats-server is a static program that asks the kernel itself what time it is, where libfaketime
//! can't answer. So the two run under qemu's user mode, which translates the program and makes its
//! system calls by way of the C library, where libfaketime does. That costs a hundredth of a core at
//! rest. One by one, such a leader acknowledges some 450 appends a second, the plain one some 700.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions};
use serde_json::{Value, json};

use crate::faketime;
use crate::ports::free_port;
use crate::support::{START_WAIT_MAX, answers, configuration, password, program};
use crate::wires::Wires;

/// A leader that is asked to give way is followed within this, also where the other was behind.
const MOVE_WAIT_MAX: Duration = Duration::from_secs(20);
/// How often it is asked again.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// What the servers have of their own.
enum Surroundings {
    /// Nothing.
    Shared,
    /// The second and the third a wall clock.
    Clocks,
    /// Each a network namespace.
    Wires(Wires),
}

/// Three servers. Dropped, they are killed and their folder is gone.
pub(crate) struct Cluster {
    dir: PathBuf,
    addresses: [SocketAddr; 3],
    /// Of each, where it listens to the others and where it finds them.
    routes: [(SocketAddr, Vec<SocketAddr>); 3],
    surroundings: Surroundings,
    processes: Vec<Child>,
}

impl Cluster {
    /// Starts servers with empty stores and true clocks, and comes back when a stream on all three can be
    /// made.
    pub(crate) async fn start() -> Self {
        Self::on_this_machine(Surroundings::Clocks).await
    }

    /// The same three with the machine's clock alone, which are quicker.
    pub(crate) async fn start_plain() -> Self {
        Self::on_this_machine(Surroundings::Shared).await
    }

    /// The same, each at the end of wires that can be cut. The test must be in a network of its own.
    pub(crate) async fn start_on(wires: Wires) -> Self {
        let addresses = [0, 1, 2].map(|which| wires.address(which));
        let routes = [0, 1, 2].map(|which| wires.routes(which));
        Self::begin(addresses, routes, Surroundings::Wires(wires)).await
    }

    async fn on_this_machine(surroundings: Surroundings) -> Self {
        let [addresses, routes] = [(); 2].map(|()| [(); 3].map(|()| here()));
        let routes = routes.map(|own| (own, routes.to_vec()));
        Self::begin(addresses, routes, surroundings).await
    }

    async fn begin(
        addresses: [SocketAddr; 3],
        routes: [(SocketAddr, Vec<SocketAddr>); 3],
        surroundings: Surroundings,
    ) -> Self {
        let name = format!("anteroom-cluster-{}-{}", std::process::id(), addresses[0].port());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        let mut cluster = Self { dir, addresses, routes, surroundings, processes: Vec::new() };
        for which in 0..3 {
            let process = cluster.start_one(which);
            cluster.processes.push(process);
        }
        cluster.until_formed().await;
        cluster
    }

    fn start_one(&self, which: usize) -> Child {
        let (listen, routes) = &self.routes[which];
        let mut text =
            configuration(&name(which), self.addresses[which], &self.file(which, "store"));
        // Clients stay at the server whose address they were given.
        text += &format!(
            "cluster {{ name: anteroom-test, listen: \"{}\", no_advertise: true, routes: [{}] }}\n",
            listen,
            routes.iter().map(|it| format!("\"nats://{it}\"")).collect::<Vec<_>>().join(", ")
        );
        std::fs::write(self.file(which, "conf"), text).unwrap();
        let log = File::options().create(true).append(true).open(self.file(which, "log")).unwrap();
        let mut command = match &self.surroundings {
            Surroundings::Clocks if which > 0 => {
                let clock = self.file(which, "clock");
                std::fs::write(&clock, faketime::text(0)).unwrap();
                let mut command = Command::new(format!("qemu-{}", std::env::consts::ARCH));
                command.arg(on_path(&program())).envs(faketime::environment_by(&clock));
                command
            }
            Surroundings::Shared | Surroundings::Clocks => Command::new(program()),
            Surroundings::Wires(wires) => {
                let mut command = wires.by(which);
                command.arg(program());
                command
            }
        };
        command.arg("--config").arg(self.file(which, "conf")).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let started = command.spawn();
        started.expect("`tools/nats` and `tools/preflight qemu` name what is missing")
    }

    /// Waits until each has seen the others: before, they have no leader, or no place for three copies.
    async fn until_formed(&mut self) {
        let until = Instant::now() + START_WAIT_MAX;
        while !self.addresses.iter().all(|address| answers(*address)) {
            self.assert_before(until);
            tokio::time::sleep(ASK_EVERY).await;
        }
        let operator = self.operator().await;
        let probe = json!({"name": "PROBE", "subjects": ["probe"], "num_replicas": 3});
        loop {
            let made =
                operator.request("$JS.API.STREAM.CREATE.PROBE", probe.to_string().into()).await;
            if made.is_ok_and(|made| json(&made.payload)["error"].is_null()) {
                break;
            }
            self.assert_before(until);
            tokio::time::sleep(ASK_EVERY).await;
        }
        operator.request("$JS.API.STREAM.DELETE.PROBE", "".into()).await.unwrap();
    }

    fn assert_before(&mut self, until: Instant) {
        let ended = |process: &mut Child| process.try_wait().unwrap().is_some();
        if Instant::now() > until || self.processes.iter_mut().any(ended) {
            panic!("the servers do not come together:\n{}", self.logs());
        }
    }

    /// The address of one identity at one of the servers.
    pub(crate) fn url(&self, identity: &str, which: usize) -> String {
        format!("nats://{identity}:{}@{}", password(identity), self.addresses[which])
    }

    /// The addresses of one identity at these servers, in the order in which they are tried.
    pub(crate) fn urls(&self, identity: &str, which: &[usize]) -> String {
        let urls: Vec<String> = which.iter().map(|which| self.url(identity, *which)).collect();
        urls.join(",")
    }

    /// Kills a server at once.
    pub(crate) fn kill(&mut self, which: usize) {
        let process = &mut self.processes[which];
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Starts a server again that was killed, on what it had stored.
    pub(crate) fn start_again(&mut self, which: usize) {
        self.processes[which] = self.start_one(which);
    }

    /// The wires between them.
    pub(crate) fn wires(&self) -> &Wires {
        let Surroundings::Wires(wires) = &self.surroundings else { panic!("they have none") };
        wires
    }

    /// Stops a server where it is, or has it go on.
    pub(crate) fn signal(&self, which: usize, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.processes[which].id()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal)
            .unwrap();
    }

    /// Has the wall clocks of the second and the third server so many seconds off, and comes back when
    /// they are.
    pub(crate) async fn set_clocks(&self, clocks: [i64; 2]) {
        for (which, seconds) in (1..).zip(clocks) {
            // Moved into place whole: it is read at any moment.
            let whole = self.file(which, "new");
            std::fs::write(&whole, faketime::text(seconds)).unwrap();
            std::fs::rename(whole, self.file(which, "clock")).unwrap();
        }
        tokio::time::sleep(faketime::SET_WITHIN).await;
    }

    /// Has this server lead the log of a queue, and comes back when it does.
    pub(crate) async fn move_leader(&self, queue: &str, to: usize) {
        let (operator, began) = (self.operator().await, Instant::now());
        let stream = format!("ANTEROOM_{queue}");
        let wish = json!({"placement": {"preferred": name(to)}}).to_string();
        while leader(&operator, &stream).await.as_deref() != Some(name(to).as_str()) {
            assert!(began.elapsed() < MOVE_WAIT_MAX, "it does not lead:\n{}", self.logs());
            // Where the one that is wished for is behind, another is chosen; then it is asked again.
            let subject = format!("$JS.API.STREAM.LEADER.STEPDOWN.{stream}");
            let _ = operator.request(subject, wish.clone().into()).await;
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    async fn operator(&self) -> Client {
        let options =
            ConnectOptions::with_user_and_password("operator".into(), password("operator"));
        let options = options.request_timeout(Some(Duration::from_secs(2)));
        options.connect(self.addresses[0].to_string()).await.unwrap()
    }

    fn logs(&self) -> String {
        let read = |which| std::fs::read_to_string(self.file(which, "log")).unwrap_or_default();
        [0, 1, 2].map(read).join("\n")
    }

    fn file(&self, which: usize, kind: &str) -> PathBuf {
        self.dir.join(name(which)).with_extension(kind)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The server that leads a stream, unless there is none at the moment.
async fn leader(operator: &Client, stream: &str) -> Option<String> {
    let info = operator.request(format!("$JS.API.STREAM.INFO.{stream}"), "".into()).await.ok()?;
    Some(json(&info.payload)["cluster"]["leader"].as_str()?.to_owned())
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn name(which: usize) -> String {
    format!("log-{which}")
}

fn here() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

/// Where a program is: qemu looks for none.
fn on_path(program: &Path) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|it| it.exists());
    found.expect("`tools/nats` installs nats-server")
}
