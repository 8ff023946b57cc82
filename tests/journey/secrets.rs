//! A whole run with everything logged that can be logged: what anybody writes down, tells others or
//! counts has no secret in it, neither the visitors' nor the system's own.

use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::corpus;
use crate::forger::Forger;
use crate::leaks::Secrets;
use crate::system::{System, call, get, wait_until};
use crate::visitor::{Visitor, connection_id, key, name};

/// The queue whose visitors are let in, and the one whose visitors wait.
const OPEN: &str = "vault";
const SHUT: &str = "line";
/// All that can be logged, with those who would say most asked for by name.
const LOUD: &str = "trace,async_nats=trace,async_nats::connector=trace,async_nats::connection=trace,\
    async_nats[{}]=trace,ureq=trace,ureq_proto::client=trace";
/// After a kill, what was refused is done again within this.
const BACK_MAX: Duration = Duration::from_secs(60);

/// The files in which secrets are kept, besides those in keys/.
const KEPT: [&str; 8] = [
    "operator-token",
    "run/ready.json",
    "run/nats.conf",
    "run/nats-operator.url",
    "run/nats-node.url",
    "run/nats-projector.url",
    "run/nats-admission.url",
    "run/nats-auditor.url",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_written_but_where_it_is_kept() {
    let mut system = System::prepare("secrets");
    system.settings = ["--log", LOUD].map(str::to_owned).to_vec();
    system.environment = vec![("ANTEROOM_LOG", LOUD.to_owned())];
    system.up();
    system.second_node();
    system.second_admission();
    system.second_projector();
    system.queue(OPEN, &json!({"rate_per_minute": 6000, "token_seconds": 3600}));
    system.queue(SHUT, &json!({"rate_per_minute": 1}));
    let pause = format!("/admin/queues/{SHUT}/pause");
    assert_eq!(system.operate("POST", &pause, &json!({})).0, 200);
    let heard = listen(&system).await;
    let mut secrets = kept(&system);
    for queue in [OPEN, SHUT, "demo"] {
        secrets.add(&format!("secret of {queue}"), queue_secret(&system, queue).await);
    }
    let mut run = Run { system: &system, secrets, said: String::new() };

    run.wait_and_leave().await;
    let public = run.enter_in_every_way().await;
    run.be_refused().await;
    for victim in ["nats-server", "admission", "node", "projector"] {
        run.outage(victim).await;
    }
    run.operate(&public);
    let Run { secrets, said, .. } = run;

    let mut places = vec![("what commands say".to_owned(), said.into_bytes())];
    for which in 0..2 {
        places
            .push((format!("the counts of worker {which}"), system.metrics_at(which).into_bytes()));
    }
    for pid in pids(&system) {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        places.push((format!("the command line of {pid}"), line));
    }
    places.extend(heard.lock().unwrap().drain(..));
    for (queue, entry) in entries(&system).await {
        places.push((format!("the log of {queue}"), entry));
    }
    system.stop();
    places.extend(files(&system));
    assert_seen(&places, &public);

    let search = secrets.search();
    let (all, bytes) =
        (search.everything(), places.iter().map(|(_, text)| text.len()).sum::<usize>());
    assert_eq!(search.find(&all).len(), search.forms(), "what is there is not found");
    let mut leaks = Vec::new();
    for (place, text) in &places {
        leaks.extend(search.find(text).into_iter().map(|leak| format!("{place}: {leak}")));
    }
    assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
    println!(
        "{} secrets in {} forms are nowhere in {} places with {bytes} bytes",
        secrets.len(),
        search.forms(),
        places.len(),
    );
}

/// The system's own secrets. The files that keep them are for nobody else to read.
fn kept(system: &System) -> Secrets {
    let mut secrets = Secrets::default();
    let mut files: Vec<PathBuf> = KEPT.iter().map(|name| system.dir.join(name)).collect();
    for file in std::fs::read_dir(system.dir.join("keys")).unwrap() {
        files.push(file.unwrap().path());
    }
    for file in &files {
        let mode = std::fs::metadata(file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", file.display());
        let text = std::fs::read_to_string(file).unwrap();
        match file.strip_prefix(&system.dir).unwrap().to_str().unwrap() {
            "keys/signing.pem" => secrets.add_pem("signing key", &text),
            name if name.starts_with("keys/") || name == "operator-token" => {
                secrets.add_hex(name, text.trim());
            }
            _ => {}
        }
    }
    for folder in ["keys", "run"] {
        let mode = std::fs::metadata(system.dir.join(folder)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{folder}");
    }
    secrets
}

/// The secret of a queue, from its stream, unwrapped without the program's own code.
async fn queue_secret(system: &System, queue: &str) -> Vec<u8> {
    let info = format!("$JS.API.STREAM.INFO.ANTEROOM_{queue}");
    let info = client(system, "auditor").await.request(info, "".into()).await.unwrap();
    let info: Value = serde_json::from_slice(&info.payload).unwrap();
    let wrapped = info["config"]["metadata"]["anteroom-secret"].as_str().unwrap();
    let (id, sealed) = wrapped.split_once(':').unwrap();
    let id = uuid::Uuid::parse_str(id).unwrap();
    let mut sealed = URL_SAFE_NO_PAD.decode(sealed).unwrap();
    let mut ours = sealed.split_off(NONCE_LEN);

    let file = std::fs::read_to_string(system.dir.join("keys/installation")).unwrap();
    let installation: Vec<u8> =
        (0..64).step_by(2).map(|at| u8::from_str_radix(&file[at..at + 2], 16).unwrap()).collect();
    let mut key = [0; 32];
    let hkdf = hkdf::Hkdf::<sha2::Sha256>::new(None, &installation);
    hkdf.expand(b"anteroom installation 2", &mut key).unwrap();
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap());
    let nonce = Nonce::try_assume_unique_for_key(&sealed).unwrap();
    let bound = [b"anteroom queue secret 2\0", queue.as_bytes(), b"\0", id.as_bytes()].concat();
    key.open_in_place(nonce, Aad::from(bound), &mut ours).unwrap().to_vec()
}

/// One who was let in: their public name and their token.
struct Guest {
    name: String,
    token: String,
}

struct Run<'a> {
    system: &'a System,
    secrets: Secrets,
    /// What the program's commands printed.
    said: String,
}

impl Run<'_> {
    /// A key that nobody else may know.
    fn key(&mut self, what: &str) -> String {
        let key = key();
        self.secrets.add_uuid(what, &key);
        key
    }

    async fn join(&mut self, queue: &str, node: usize) -> (Visitor, String) {
        let key = self.key("join key");
        let mut visitor = Visitor::join(&self.system.socket(node, queue), &key).await;
        let id = connection_id(&visitor.until("JOINED").await);
        self.secrets.add_connection_id(&id);
        (visitor, id)
    }

    async fn guest(&mut self, node: usize) -> Guest {
        let (mut visitor, id) = self.join(OPEN, node).await;
        let admitted = visitor.until("ADMITTED").await;
        let token = admitted["payload"]["token"].as_str().unwrap().to_owned();
        self.secrets.add_jwt("token", &token);
        Guest { name: name(&id), token }
    }

    /// A call of a node; the pass that it gives is a secret from then on.
    fn call(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> (u16, Value) {
        let (status, answer) =
            call(method, &format!("{}{path}", self.system.node(0)), headers, body);
        for pass in [&answer["pass"], &answer["header x-anteroom-pass"]] {
            if let Some(pass) = pass.as_str() {
                self.secrets.add_jwt("pass", pass);
            }
        }
        (status, answer)
    }

    /// Waits in line on both nodes, says what can't be understood, and goes.
    async fn wait_and_leave(&mut self) {
        let (visitor, id) = self.join(SHUT, 0).await;
        drop(visitor);
        for node in [1, 0] {
            let mut back = Visitor::reconnect(&self.system.socket(node, SHUT), &id).await;
            back.until("QUEUE_UPDATE").await;
        }
        let join_key = self.key("join key");
        let (head, mac) = id.split_at(30);
        let forged = format!("{head}{}", mac.chars().rev().collect::<String>());
        for bad in [
            format!(r#"{{"type":"RECONNECT","connectionId":"{id}""#),
            format!(r#"{{"type":"RECONNECT","connectionid":"{id}"}}"#),
            format!(r#"{{"type":"RECONNECT","connectionId":"{forged}"}}"#),
            format!(r#"{{"type":"RECONNECT","connectionId":["{id}"]}}"#),
            format!(r#"{{"type":"{id}"}}"#),
            format!(r#"{{"type":"JOIN","joinKey":"{join_key}x"}}"#),
            format!(r#"{{"type":"JOIN","joinKey":{{"{join_key}":1}}}}"#),
            id.clone(),
        ] {
            for message in [Message::text(bad.clone()), Message::binary(bad.into_bytes())] {
                let mut visitor = Visitor::connect(&self.system.socket(0, SHUT)).await.unwrap();
                visitor.say_raw(message).await;
                visitor.until("ERROR").await;
                visitor.until_closed().await;
            }
        }
        let mut visitor = Visitor::reconnect(&self.system.socket(0, SHUT), &id).await;
        visitor.until("QUEUE_UPDATE").await;
        visitor.say(&json!({"type": "LEAVE"})).await;
        assert_eq!(visitor.until("ENDED").await["payload"]["reason"], "left");
    }

    /// Goes in by every way that there is: the public names of those who did.
    async fn enter_in_every_way(&mut self) -> Vec<String> {
        let (first, second, third) =
            (self.guest(0).await, self.guest(1).await, self.guest(0).await);
        let (request, other) = (self.key("idempotency key"), self.key("idempotency key"));
        let (request, other) = (request.as_str(), other.as_str());
        let keyed = |request| [("Idempotency-Key", request)];
        let body = json!({"token": first.token});
        let (status, answer) = self.call("POST", "/api/tokens/redeem", &keyed(request), &body);
        assert_eq!(status, 200, "{answer}");
        assert_eq!(self.call("POST", "/api/tokens/redeem", &keyed(request), &body).0, 200);
        assert_eq!(self.call("POST", "/api/tokens/redeem", &keyed(other), &body).0, 409);
        let body = json!({"token": second.token});
        assert_eq!(self.call("POST", "/anteroom/enter", &[], &body).0, 200);
        let authorize = format!("/api/authorize?queue={OPEN}");
        let bearer = format!("Bearer {}", third.token);
        let by_token = [("Authorization", bearer.as_str())];
        assert_eq!(self.call("GET", &authorize, &by_token, &Value::Null).0, 200);
        let pass = answer["pass"].as_str().unwrap();
        let (bearer, cookie) = (format!("Bearer {pass}"), format!("anteroom_pass={pass}"));
        for header in [("X-Waiting-Token", pass), ("Authorization", &bearer), ("Cookie", &cookie)] {
            assert_eq!(self.call("GET", &authorize, &[header], &Value::Null).0, 200);
            assert_eq!(self.call("POST", "/api/passes/renew", &[header], &Value::Null).0, 200);
        }
        [first, second, third].map(|guest| guest.name).to_vec()
    }

    /// Shows what is bad, and what is good where it may not be.
    async fn be_refused(&mut self) {
        let (good, another) = (self.guest(0).await, self.guest(0).await);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let forger = Forger::new(self.system, &good.token, &another.token, listener);
        let authorize = format!("/api/authorize?queue={OPEN}");
        for bad in corpus::all(&forger) {
            let text = bad.text().unwrap();
            if text.len() > another.token.len() / 2 {
                self.secrets.add("bad token", text);
            }
            let (status, answer) =
                self.call("POST", "/anteroom/enter", &[], &json!({ "token": text }));
            assert!([401, 413].contains(&status), "{}: {status} {answer}", bad.name);
            if text.bytes().all(|byte| byte.is_ascii_graphic()) && text.len() < 4_096 {
                let header = [("X-Waiting-Token", text)];
                assert_eq!(self.call("GET", &authorize, &header, &Value::Null).0, 403);
            }
        }
        // Nobody should, and some will: secrets in an address, and in a body that is none.
        let token = &good.token;
        let id = self.join(SHUT, 0).await.1;
        for path in [
            format!("{authorize}&token={token}"),
            format!("/waiting/{SHUT}?connectionId={id}"),
            format!("/api/queues/{token}"),
            format!("/ws/{SHUT}?connectionId={id}"),
            format!("/{token}"),
        ] {
            let (status, _) = self.call("GET", &path, &[], &Value::Null);
            assert!((200..500).contains(&status), "{status}");
        }
        let cut = json!({"token": token}).to_string();
        let url = format!("{}/api/tokens/redeem", self.system.node(0));
        assert_eq!(call("POST", &url, &[], &Value::String(cut)).0, 400);
        let long = format!("{token}{}", "x".repeat(200));
        let header = [("Idempotency-Key", long.as_str())];
        assert_eq!(
            self.call("POST", "/api/tokens/redeem", &header, &json!({"token": token})).0,
            400
        );

        let wrong = self.key("wrong operator token");
        let bearer = format!("Bearer {wrong}");
        for path in ["/admin/queues", "/metrics", "/admin/queues/vault/stats"] {
            let url = format!("{}{path}", self.system.operator(0));
            assert_eq!(call("GET", &url, &[("Authorization", &bearer)], &Value::Null).0, 401);
        }
    }

    /// A process is killed while somebody joins and somebody enters; both get there.
    async fn outage(&mut self, victim: &str) {
        let guest = self.guest(0).await;
        let (request, join_key) = (self.key("idempotency key"), self.key("join key"));
        let url = format!("{}/api/tokens/redeem", self.system.node(0));
        let body = json!({"token": guest.token});
        let present = || {
            let (url, body, request) = (url.clone(), body.clone(), request.clone());
            tokio::task::spawn_blocking(move || {
                call("POST", &url, &[("Idempotency-Key", &request)], &body)
            })
        };
        let asked = present();
        let joining = Visitor::join(&self.system.socket(0, SHUT), &join_key).await;
        self.system.kill(victim);
        drop((asked.await.unwrap(), joining));
        let until = std::time::Instant::now() + BACK_MAX;
        loop {
            let (status, answer) = present().await.unwrap();
            if status == 200 {
                self.secrets.add_jwt("pass", answer["pass"].as_str().unwrap());
                break;
            }
            assert!([0, 503].contains(&status), "{status} {answer}");
            assert!(std::time::Instant::now() < until, "not back after the death of {victim}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let ready = |node| get(&format!("{}/readyz", self.system.node(node))).0 == 200;
        wait_until("all is ready again", || ready(0) && ready(1));
        let mut visitor = Visitor::join(&self.system.socket(0, SHUT), &join_key).await;
        let id = connection_id(&visitor.until("JOINED").await);
        self.secrets.add_connection_id(&id);
    }

    /// What an operator and an auditor do.
    fn operate(&mut self, public: &[String]) {
        let system = self.system;
        let export = system.dir.join("export.jsonl");
        let export = export.to_str().unwrap();
        for arguments in [
            &["queue", "list"][..],
            &["queue", "set", OPEN, "--set", "title=The vault"],
            &["queue", "show", OPEN, "--json"],
            &["audit", "verify", OPEN, "--json"],
            &["audit", "history", OPEN, &public[0]],
            &["audit", "position", OPEN, &public[0]],
            &["audit", "export", OPEN, "--out", export],
            &["projection", "verify", OPEN],
        ] {
            let (code, text) = system.run(arguments);
            assert_eq!(code, 0, "{arguments:?}: {text}");
            self.said += &text;
        }
        for (method, path, body) in [
            ("POST", "release", json!({"visitor": public[0]})),
            ("POST", "load", json!({"load": 0.5})),
            ("POST", "close", json!({"reason": "that is all"})),
            ("GET", "stats", Value::Null),
        ] {
            let path = format!("/admin/queues/{OPEN}/{path}");
            let (status, answer) = system.operate(method, &path, &body);
            assert!((200..300).contains(&status), "{path}: {status} {answer}");
            self.said += &answer.to_string();
        }
    }
}

type Places = Vec<(String, Vec<u8>)>;

/// Hears from now on what the processes say to all: beats, the feed, and the log as it grows.
async fn listen(system: &System) -> Arc<Mutex<Places>> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    for (identity, subject) in [
        ("admission", "anteroom.beat.>"),
        ("node", "anteroom.feed.*"),
        ("auditor", "anteroom.stored.>"),
    ] {
        let client = client(system, identity).await;
        let mut messages = client.subscribe(subject).await.unwrap();
        client.flush().await.unwrap();
        let heard = Arc::clone(&heard);
        tokio::spawn(async move {
            // The client lives as long as what it hears.
            let _client = client;
            while let Some(message) = messages.next().await {
                let headers = format!("{:?}", message.headers).into_bytes();
                let text = [&headers, message.payload.as_ref()].concat();
                heard.lock().unwrap().push((message.subject.to_string(), text));
            }
        });
    }
    heard
}

async fn client(system: &System, identity: &str) -> async_nats::Client {
    let file = system.dir.join(format!("run/nats-{identity}.url"));
    let url: async_nats::ServerAddr =
        std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
    let options = async_nats::ConnectOptions::new()
        .user_and_password(url.username().unwrap().to_owned(), url.password().unwrap().to_owned());
    options.connect(url).await.unwrap()
}

/// All processes of the system.
fn pids(system: &System) -> Vec<i32> {
    let mut pids = vec![system.up_pid()];
    pids.extend(["nats-server", "projector", "admission", "node"].map(|name| system.pid(name)));
    pids.extend(["projector", "admission", "node"].map(|role| system.pid_beside(role)));
    pids
}

/// Every entry of every log.
async fn entries(system: &System) -> Places {
    let mut places = Vec::new();
    for queue in [OPEN, SHUT, "demo"] {
        for entry in crate::checker::read(system, queue).await {
            let text = format!("{} {}", entry.kind, entry.body);
            places.push((queue.to_owned(), text.into_bytes()));
        }
    }
    places
}

/// Every file that was written, but for those in which secrets are kept.
fn files(system: &System) -> Places {
    let mut places: Places = Vec::new();
    for file in system.log_files() {
        places.push((file.display().to_string(), std::fs::read(&file).unwrap()));
    }
    let kept = |file: &Path| {
        let name = file.strip_prefix(&system.dir).unwrap();
        name.starts_with("keys") || KEPT.iter().any(|kept| name == Path::new(kept))
    };
    let mut folders = vec![system.dir.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !kept(&path) {
                let mut text = Vec::new();
                std::fs::File::open(&path).unwrap().read_to_end(&mut text).unwrap();
                places.push((path.strip_prefix(&system.dir).unwrap().display().to_string(), text));
            }
        }
    }
    places
}

/// What is public is found in every kind of place, so that nobody looks where nothing is.
fn assert_seen(places: &Places, public: &[String]) {
    let visitor = public[0].as_bytes();
    let bytes = uuid::Uuid::parse_str(&public[0]).unwrap().into_bytes();
    for (kind, what) in [
        ("what commands say", visitor),
        ("the counts", b"anteroom_sockets".as_slice()),
        ("the command line", b"--nats-file"),
        ("anteroom.beat.node.", b"anteroom_sockets"),
        ("anteroom.beat.admission.", b"level"),
        ("anteroom.beat.projector.", b"level"),
        ("anteroom.feed.", b""),
        ("anteroom.stored.", visitor),
        ("the log of vault", visitor),
        ("export.jsonl", visitor),
        ("nats/", visitor),
        ("projection/", &bytes),
        ("second-projection/", &bytes),
        ("run/nats-server.log", b"Server is ready"),
        ("up.log", b"TRACE"),
        ("up.log", b"started name=\"admission\""),
        ("node.log", b"TRACE"),
        ("admission.log", b"admitting queue=vault"),
        ("projector.log", b"TRACE"),
    ] {
        let is_seen = |(place, text): &(String, Vec<u8>)| {
            let is_there = what.is_empty() || text.windows(what.len()).any(|part| part == what);
            (place.starts_with(kind) || place.ends_with(kind)) && is_there
        };
        assert!(places.iter().any(is_seen), "{} is not in {kind}", String::from_utf8_lossy(what));
    }
}
