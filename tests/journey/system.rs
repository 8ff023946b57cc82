//! One whole system on this machine: an `up` in a folder of its own, and further roles beside it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::ports::free_port;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_anteroom");
/// What `up` and those beside it write, by who does.
const LOGS: [&str; 4] = ["up", "node", "projector", "admission"];

pub struct System {
    pub dir: PathBuf,
    /// Programs by way of which `up` is started, with their arguments.
    pub by: Vec<String>,
    /// What `up` is told besides where it is.
    pub settings: Vec<String>,
    /// The program that runs beside `up`.
    pub program_beside: PathBuf,
    /// What the environment of those beside `up` has besides ours.
    pub environment: Vec<(&'static str, String)>,
    up: Option<Child>,
    /// Roles that were started beside `up`, by what they are.
    beside: BTreeMap<&'static str, Child>,
    ports: [u16; 5],
    pub ready: Value,
}

impl System {
    /// Starts everything and waits until it says that it is ready.
    pub fn start(name: &str) -> Self {
        let mut system = Self::prepare(name);
        system.up();
        system
    }

    /// Starts a node, a projector and a worker against a log elsewhere, each by its address there. There
    /// is no `up`, nor a first one of any role: they are the second ones of a folder like that of an `up`.
    pub fn start_at(name: &str, replicas: u8, address: impl Fn(&str) -> String) -> Self {
        let mut system = Self::prepare(name);
        system.environment.push(("ANTEROOM_REPLICAS", replicas.to_string()));
        let token = uuid::Uuid::new_v4().to_string();
        let hex = || [(); 2].map(|()| uuid::Uuid::new_v4().simple().to_string()).concat();
        for (file, text) in [
            ("keys/mac", hex()),
            ("keys/installation", hex()),
            ("keys/signing.pem", anteroom::admission::signer::generate().unwrap()),
            ("operator-token", token.clone()),
        ] {
            system.write(file, &text);
        }
        for role in ["node", "projector", "admission", "auditor"] {
            system.write(&format!("run/nats-{role}.url"), &address(role));
        }
        system.ready = json!({
            "operator": system.operator(1),
            "operatorToken": token,
            "auditor": address("auditor"),
        });
        system.second_projector();
        system.second_admission();
        system.second_node();
        system
    }

    /// Finds a folder and ports, and starts nothing yet.
    pub fn prepare(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir()
            .join(format!("anteroom-journey-{name}-{}-{count}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let ports = [free_port(), free_port(), free_port(), free_port(), free_port()];
        let (by, settings, environment) = (Vec::new(), Vec::new(), Vec::new());
        let (beside, ready) = (BTreeMap::new(), Value::Null);
        let program_beside = PROGRAM.into();
        Self { dir, by, settings, program_beside, environment, up: None, beside, ports, ready }
    }

    /// Starts `up` on the folder, for the first time or again.
    pub fn up(&mut self) {
        let [visitors, operators, nats, ..] = self.ports;
        let program = [self.by.as_slice(), &[PROGRAM.to_owned()]].concat();
        let mut up = Command::new(&program[0])
            .args(&program[1..])
            .args(["up", "--json", "--dir", self.dir.to_str().unwrap()])
            .args(["--listen", &format!("127.0.0.1:{visitors}")])
            .args(["--operator-listen", &format!("127.0.0.1:{operators}")])
            .args(["--nats-listen", &format!("127.0.0.1:{nats}")])
            .args(&self.settings)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(self.log("up"))
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(up.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "`up` ended before it was ready:\n{}", self.logs());
        self.ready = serde_json::from_str(&line).unwrap();
        self.up = Some(up);
    }

    /// Starts a second node, as a role of its own against the same log; again where it has ended.
    pub fn second_node(&mut self) {
        let listen = format!("127.0.0.1:{}", self.ports[3]);
        let [mac, installation] = ["keys/mac", "keys/installation"].map(|name| self.file(name));
        let arguments = [
            ["--listen", &listen],
            ["--mac-key-file", &mac],
            ["--installation-key-file", &installation],
        ];
        self.begin_beside("node", arguments.as_flattened());
        let address = self.node(1);
        wait_until("the second node is ready", || get(&format!("{address}/readyz")).0 == 200);
    }

    /// Starts a second projector with a folder of its own; again, on what is in there, where it has
    /// ended.
    pub fn second_projector(&mut self) {
        let dir = self.file("second-projection");
        self.begin_beside("projector", &["--dir", &dir]);
    }

    /// Starts a second admission worker, as a role of its own; again where it has ended.
    pub fn second_admission(&mut self) {
        let key = self.file("keys/signing.pem");
        self.second_admission_with(&key);
    }

    /// The same with a file of signing keys of its own.
    pub fn second_admission_with(&mut self, key: &str) {
        let listen = format!("127.0.0.1:{}", self.ports[4]);
        let (token, installation) = (self.token_file(), self.file("keys/installation"));
        let arguments = [
            ["--operator-listen", &listen],
            ["--installation-key-file", &installation],
            ["--signing-key-file", key],
            ["--operator-token-file", &token],
        ];
        self.begin_beside("admission", arguments.as_flattened());
        let ready = format!("{}/readyz", self.operator(1));
        wait_until("the second worker is ready", || get(&ready).0 == 200);
    }

    fn begin_beside(&mut self, role: &'static str, arguments: &[&str]) {
        let child = Command::new(&self.program_beside)
            .args([role, "--nats-file", &self.file(&format!("run/nats-{role}.url"))])
            .args(arguments)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.log(role))
            .spawn()
            .unwrap();
        let before = self.beside.insert(role, child);
        assert!(before.is_none(), "the {role} beside `up` runs already");
    }

    pub fn runs_beside(&self, role: &str) -> bool {
        self.beside.contains_key(role)
    }

    /// The pid of the second one of a role.
    pub fn pid_beside(&self, role: &str) -> i32 {
        i32::try_from(self.beside[role].id()).unwrap()
    }

    /// Waits until the second one of a role has ended: how.
    pub fn ended_beside(&mut self, role: &str) -> ExitStatus {
        self.beside.remove(role).unwrap().wait().unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        let file = self.dir.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).to_str().unwrap().to_owned()
    }

    /// The address of the first (0) or the second (1) node.
    pub fn node(&self, which: usize) -> String {
        format!("http://127.0.0.1:{}", [self.ports[0], self.ports[3]][which % 2])
    }

    /// The operator listener of the first (0) or the second (1) admission worker.
    pub fn operator(&self, which: usize) -> String {
        format!("http://127.0.0.1:{}", [self.ports[1], self.ports[4]][which % 2])
    }

    /// The file with what operators present.
    pub fn token_file(&self) -> String {
        self.file("operator-token")
    }

    /// The socket of a queue on a node.
    pub fn socket(&self, which: usize, queue: &str) -> String {
        format!("{}/ws/{queue}", self.node(which).replace("http://", "ws://"))
    }

    pub fn text(&self, key: &str) -> String {
        self.ready[key].as_str().unwrap().to_owned()
    }

    /// A call of the operator API.
    pub fn operate(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let bearer = format!("Bearer {}", self.text("operatorToken"));
        let url = format!("{}{path}", self.text("operator"));
        call(method, &url, &[("Authorization", &bearer)], body)
    }

    /// What the nodes count, as the operator listener shows it.
    pub fn metrics(&self) -> String {
        self.metrics_at(0)
    }

    /// What the nodes and one admission worker count.
    pub fn metrics_at(&self, which: usize) -> String {
        let url = format!("{}/metrics", self.operator(which));
        let bearer = format!("Bearer {}", self.text("operatorToken"));
        let mut answer = ureq::get(&url).header("Authorization", &bearer).call().unwrap();
        answer.body_mut().read_to_string().unwrap()
    }

    /// Makes a queue, and waits until both nodes serve it.
    pub fn queue(&self, name: &str, policy: &Value) {
        let (status, body) = self.operate("PUT", &format!("/admin/queues/{name}"), policy);
        assert_eq!(status, 201, "{body}");
    }

    /// The pid of a supervised process.
    pub fn pid(&self, name: &str) -> i32 {
        let text = std::fs::read_to_string(self.dir.join(format!("run/{name}.pid"))).unwrap();
        text.trim().parse().unwrap()
    }

    /// The pid of the supervisor.
    pub fn up_pid(&self) -> i32 {
        i32::try_from(self.up.as_ref().unwrap().id()).unwrap()
    }

    /// Kills a supervised process at once, and waits until another has taken its place.
    pub fn kill(&self, name: &str) {
        let pid = self.pid(name);
        signal(pid, rustix::process::Signal::KILL);
        wait_until("it is started again", || self.pid(name) != pid);
    }

    /// Kills the supervisor at once; everything that it started must end with it.
    pub fn kill_up(&mut self) {
        let names = ["nats-server", "projector", "admission", "node"];
        let pids = names.map(|name| self.pid(name));
        let mut up = self.up.take().unwrap();
        up.kill().unwrap();
        up.wait().unwrap();
        for (name, pid) in names.iter().zip(pids) {
            wait_until(&format!("{name} has ended"), || !is_running(pid));
        }
    }

    /// Asks the supervisor to stop, as Ctrl-C does.
    pub fn stop(&mut self) {
        if let Some(mut up) = self.up.take() {
            signal(i32::try_from(up.id()).unwrap(), rustix::process::Signal::TERM);
            assert!(up.wait().unwrap().success(), "`up` failed:\n{}", self.logs());
        }
    }

    /// Runs the program itself.
    pub fn run(&self, arguments: &[&str]) -> (i32, String) {
        self.run_program(Path::new(PROGRAM), arguments)
    }

    /// Runs another program on the folder.
    pub fn run_program(&self, program: &Path, arguments: &[&str]) -> (i32, String) {
        let output = Command::new(program)
            .args(arguments)
            .args(["--dir", self.dir.to_str().unwrap()])
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    }

    /// What a command with `--json` printed.
    pub fn run_json(&self, arguments: &[&str]) -> Value {
        let (_, text) = self.run(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{arguments:?} printed {text}"))
    }

    pub fn logs(&self) -> String {
        let read = |name| std::fs::read_to_string(self.log_file(name)).unwrap_or_default();
        LOGS.map(read).join("\n")
    }

    /// What `up` and those beside it have written.
    pub fn log_files(&self) -> Vec<PathBuf> {
        LOGS.map(|name| self.log_file(name)).to_vec()
    }

    fn log(&self, name: &str) -> Stdio {
        std::fs::create_dir_all(&self.dir).unwrap();
        let mut options = std::fs::OpenOptions::new();
        options.create(true).append(true).open(self.log_file(name)).unwrap().into()
    }

    fn log_file(&self, name: &str) -> PathBuf {
        Path::new(&self.dir).with_extension(format!("{name}.log"))
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let beside = std::mem::take(&mut self.beside).into_values();
        for mut child in beside.chain(self.up.take()) {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        let _ = std::fs::remove_dir_all(&self.dir);
        for name in LOGS {
            let _ = std::fs::remove_file(self.log_file(name));
        }
    }
}

pub fn signal(pid: i32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
}

pub fn is_running(pid: i32) -> bool {
    // A zombie has ended; its new parent has not noticed yet.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim().starts_with('Z'))
}

/// Waits for something that must come, with a bound that only a failure reaches.
pub fn wait_until(what: &str, mut come: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !come() {
        assert!(Instant::now() < until, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn get(url: &str) -> (u16, Value) {
    call("GET", url, &[], &Value::Null)
}

pub fn post(url: &str, body: &Value) -> (u16, Value) {
    call("POST", url, &[], body)
}

/// A call over HTTP: status and body; 0 when there was no answer.
pub fn call(method: &str, url: &str, headers: &[(&str, &str)], body: &Value) -> (u16, Value) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_global(Some(Duration::from_secs(20)))
        .build()
        .into();
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.header("content-type", "application/json");
    let text = if body.is_null() { String::new() } else { body.to_string() };
    match agent.run(request.body(text).unwrap()) {
        Ok(mut answer) => {
            let body = answer.body_mut().read_to_string().unwrap_or_default();
            let mut json = serde_json::from_str(&body).unwrap_or(Value::Null);
            if let Some(fields) = json.as_object_mut() {
                // Where the answer's headers are checked, they are found beside its body.
                for (name, value) in answer.headers() {
                    let value = value.to_str().unwrap_or_default();
                    fields.insert(format!("header {name}"), value.into());
                }
            } else if json.is_null() {
                json = answer
                    .headers()
                    .iter()
                    .map(|(name, value)| {
                        (format!("header {name}"), value.to_str().unwrap_or_default().into())
                    })
                    .collect::<serde_json::Map<_, _>>()
                    .into();
            }
            (answer.status().as_u16(), json)
        }
        Err(_) => (0, Value::Null),
    }
}
