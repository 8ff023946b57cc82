//! Requests as bytes. A client that knows HTTP would tidy an address up before it sends it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// What is answered is answered within this: a gateway waits for 15 s for a node that hangs.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(40);

pub struct Answer {
    /// 0 when the connection was closed without an answer.
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// All values of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let named = fields.filter(|(other, _)| other.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.trim()).collect()
    }

    /// The one value of a header, or none.
    pub fn header(&self, name: &str) -> &str {
        match self.all(name).as_slice() {
            [] => "",
            [value] => value,
            values => panic!("{name} more than once: {values:?}"),
        }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {}\n\n{}", self.head, self.body))
    }

    /// The code of an answer that is a problem.
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.head);
        let body = self.json();
        assert_eq!(body["status"], self.status);
        body["code"].as_str().unwrap().to_owned()
    }
}

/// Sends a request line and headers as they are, and reads the answer to the end.
pub fn send(port: u16, line: &[u8], headers: &[(&str, &str)], body: &str) -> Answer {
    let mut head = line.to_vec();
    head.extend_from_slice(b"\r\n");
    for (name, value) in headers {
        head.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if !body.is_empty() {
        head.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    head.extend_from_slice(b"Connection: close\r\n\r\n");
    head.extend_from_slice(body.as_bytes());
    bytes(port, &head)
}

/// Sends bytes, whatever they mean.
pub fn bytes(port: u16, sent: &[u8]) -> Answer {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(ANSWER_WAIT_MAX)).unwrap();
    // Whoever has read enough may close before all is sent; what was answered tells.
    let _ = socket.write_all(sent);
    let mut read = Vec::new();
    let _ = socket.read_to_end(&mut read);
    let text = String::from_utf8_lossy(&read);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}
