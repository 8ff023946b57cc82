//! Anteroom, sites behind gateways, and the visitors who come to them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::ports::free_port;
use crate::raw::{Answer, send};
use crate::system::{System, wait_until};
use crate::visitor::{Visitor, connection_id, key, name};

const DOCUMENTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/gateways");
pub const QUEUE: &str = "concert";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    Caddy,
}

/// What the gateway does while no node answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Away {
    FailClosed,
    FailOpen,
}

pub struct Street {
    // Dropped first, so that a gateway that asks finds nobody, and not the other way round.
    pub houses: Vec<House>,
    pub system: System,
}

/// A gateway with the site behind it.
pub struct House {
    pub kind: Kind,
    pub away: Away,
    pub port: u16,
    pub site: Site,
    gateway: Child,
    dir: PathBuf,
}

pub struct Site {
    pub port: u16,
    /// The concert; a site that always says the same is none.
    child: Option<Child>,
    lines: Arc<Mutex<Vec<Value>>>,
}

impl Street {
    /// Anteroom with the queue of the concert, and a house of each kind.
    pub fn open(name: &str) -> Self {
        Self::build(name, &[(Kind::Nginx, Away::FailClosed), (Kind::Caddy, Away::FailClosed)], &[])
    }

    /// The same with houses of these kinds, whose sites are started with these options.
    pub fn build(name: &str, houses: &[(Kind, Away)], options: &[&str]) -> Self {
        let mut system = System::prepare(&format!("gateways-{name}"));
        system.settings = vec!["--public-url".to_owned(), system.node(0)];
        system.up();
        let mut street = Self { houses: Vec::new(), system };
        for (kind, away) in houses {
            let site = Site::start(&street.system.node(0), options);
            street.houses.push(street.house(*kind, *away, site));
        }
        let origins: Vec<String> = street.houses.iter().map(House::origin).collect();
        let policy = json!({
            "rate_per_minute": 6000, "token_seconds": 600, "allowed_origins": origins,
        });
        street.system.queue(QUEUE, &policy);
        street
    }

    /// A gateway in front of a site.
    pub fn house(&self, kind: Kind, away: Away, site: Site) -> House {
        let dir = self.system.dir.with_extension(format!("house-{}", site.port));
        House::build(kind, away, dir, site, &self.system.node(0))
    }

    /// Someone whose turn it is: their name and their token.
    pub async fn admitted(&self, queue: &str) -> (String, String) {
        let mut visitor = Visitor::join(&self.system.socket(0, queue), &key()).await;
        let joined = visitor.until("JOINED").await;
        let admitted = visitor.until("ADMITTED").await;
        let token = admitted["payload"]["token"].as_str().unwrap().to_owned();
        (name(&connection_id(&joined)), token)
    }

    /// Someone who is inside: their name and their pass.
    pub async fn inside(&self, queue: &str) -> (String, String) {
        let (visitor, token) = self.admitted(queue).await;
        let redeem = format!("{}/api/tokens/redeem", self.system.node(0));
        let (status, answer) = crate::system::post(&redeem, &json!({ "token": token }));
        assert_eq!(status, 200, "{answer}");
        (visitor, answer["pass"].as_str().unwrap().to_owned())
    }
}

impl House {
    fn build(kind: Kind, away: Away, dir: PathBuf, site: Site, node: &str) -> Self {
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let port = free_port();
        let node = node.trim_start_matches("http://");
        let gateway = match kind {
            Kind::Nginx => nginx(&dir, away, port, node, &site),
            Kind::Caddy => caddy(&dir, away, port, node, &site),
        };
        let house = Self { kind, away, port, site, gateway, dir };
        wait_until("the gateway listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        house
    }

    pub fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A call through the gateway.
    pub fn call(&self, line: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let host = self.host();
        let headers = [&[("Host", host.as_str())], headers].concat();
        send(self.port, format!("{line} HTTP/1.1").as_bytes(), &headers, body)
    }

    /// Enters with a token, as the site's page of entry does.
    pub fn enter(&self, token: &str) -> Answer {
        let body = json!({ "token": token }).to_string();
        let headers = [("Content-Type", "application/json"), ("Origin", &self.origin())];
        self.call("POST /anteroom/enter", &headers, &body)
    }
}

/// nginx with the documented file, where only addresses are others.
fn nginx(dir: &Path, away: Away, port: u16, node: &str, site: &Site) -> Child {
    let mut text = documented("nginx.conf");
    replace(&mut text, "listen 8000;", &format!("listen 127.0.0.1:{port};"));
    replace(&mut text, "server 127.0.0.1:8080;", &format!("server {node};"));
    replace(&mut text, "server 127.0.0.1:9000;", &format!("server 127.0.0.1:{};", site.port));
    if away == Away::FailOpen {
        replace(&mut text, "    error_page 500 = $anteroom_closed;\n", "");
        replace(
            &mut text,
            "# error_page 500 = $anteroom_open;",
            "error_page 500 = $anteroom_open;",
        );
    }
    std::fs::write(dir.join("site.conf"), text).unwrap();
    // One process, so that it is gone when it is killed.
    let whole = "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log error.log;\nevents {}\n\
        http {\naccess_log off;\nclient_body_temp_path body;\nproxy_temp_path proxy;\n\
        fastcgi_temp_path fastcgi;\nuwsgi_temp_path uwsgi;\nscgi_temp_path scgi;\n\
        include site.conf;\n}\n";
    std::fs::write(dir.join("nginx.conf"), whole).unwrap();
    let mut command = Command::new("nginx");
    command.args(["-p", dir.to_str().unwrap(), "-c", "nginx.conf", "-e", "error.log"]);
    begin(command, dir)
}

/// Caddy with the documented file, which takes addresses from the environment.
fn caddy(dir: &Path, away: Away, port: u16, node: &str, site: &Site) -> Child {
    let mut text = documented("Caddyfile");
    // Several run here at once, and none is asked for anything but the site.
    replace(&mut text, "\n{\n", "\n{\n\tadmin off\n\tdefault_bind 127.0.0.1\n");
    let file = dir.join("Caddyfile");
    std::fs::write(&file, text).unwrap();
    let when_away = if away == Away::FailOpen { "fail-open" } else { "fail-closed" };
    let mut command = Command::new("caddy");
    command
        .args(["run", "--config", file.to_str().unwrap(), "--adapter", "caddyfile"])
        .env("LISTEN", format!(":{port}"))
        .env("ANTEROOM", node)
        .env("SITE", format!("127.0.0.1:{}", site.port))
        .env("WHEN_AWAY", when_away)
        .env("HOME", dir)
        .env("XDG_DATA_HOME", dir)
        .env("XDG_CONFIG_HOME", dir);
    begin(command, dir)
}

fn begin(mut command: Command, dir: &Path) -> Child {
    let log = std::fs::File::create(dir.join("said.log")).unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

fn documented(file: &str) -> String {
    std::fs::read_to_string(Path::new(DOCUMENTED).join(file)).unwrap()
}

fn replace(text: &mut String, from: &str, to: &str) {
    assert_eq!(text.matches(from).count(), 1, "{from:?} is there once");
    *text = text.replace(from, to);
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = self.gateway.kill();
        let _ = self.gateway.wait();
        if std::thread::panicking() {
            for log in ["error.log", "said.log"] {
                let text = std::fs::read_to_string(self.dir.join(log)).unwrap_or_default();
                eprintln!("{:?}, {log}:\n{text}", self.kind);
            }
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Site {
    pub fn start(node: &str, options: &[&str]) -> Self {
        let mut child = Command::new("node")
            .args([&format!("{DOCUMENTED}/concert/server.mjs"), "--port", "0"])
            .args(["--anteroom", node, "--queue", QUEUE])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        said.read_line(&mut first).unwrap();
        let ready: Value = serde_json::from_str(&first).unwrap();
        let port = ready["ready"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        std::thread::spawn(move || keep(said, &kept));
        Self { port, child: Some(child), lines }
    }

    /// A site that says the same to everyone, until the test is over.
    pub fn that_says(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for mut socket in listener.incoming().map_while(Result::ok) {
                let _ = socket.read(&mut [0; 4096]);
                let _ = socket.write_all(answer.as_bytes());
            }
        });
        Self { port, child: None, lines: Arc::default() }
    }

    /// What reached the site since the last time.
    pub fn reached(&self) -> Vec<Value> {
        // A request that surely comes last says that the others are there.
        let mark = format!("/mark?{}", key());
        send(self.port, format!("GET {mark} HTTP/1.1").as_bytes(), &[("Host", "x")], "");
        let is_mark = |line: &Value| line["url"] == mark.as_str();
        wait_until("the site has noted the mark", || {
            self.lines.lock().unwrap().iter().any(is_mark)
        });
        let mut lines = std::mem::take(&mut *self.lines.lock().unwrap());
        lines.retain(|line| !is_mark(line));
        lines
    }
}

fn keep(said: BufReader<ChildStdout>, lines: &Mutex<Vec<Value>>) {
    for line in said.lines().map_while(Result::ok) {
        lines.lock().unwrap().push(serde_json::from_str(&line).unwrap());
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
