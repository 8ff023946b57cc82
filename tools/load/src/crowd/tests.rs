//! A crowd against servers that say what a script has, right or wrong.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use super::Crowd;
use crate::clock::{self, SECOND};
use crate::orders::Setup;
use crate::visitor::Role;

const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
     Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// Longer than the first pause before an attempt to come back.
const WAIT_MAX: u64 = 5 * SECOND;

/// What a server does on one connection.
type Script = Vec<Vec<u8>>;

fn text(payload: &str) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    assert!(length < 126);
    [&[0x81, length], payload.as_bytes()].concat()
}

fn joined(id: &str) -> Vec<u8> {
    text(&format!(r#"{{"type":"JOINED","connectionId":"{id}","payload":{{}}}}"#))
}

fn update(count: u32) -> Vec<u8> {
    text(&format!(r#"{{"type":"QUEUE_UPDATE","payload":{{"count":{count},"waiting":1}}}}"#))
}

/// What was served: what each client said after the upgrade, and the last socket, still open.
type Served = (Vec<Vec<u8>>, Option<TcpStream>);

/// Serves one connection after the other, each until the next is due.
fn serve(scripts: Vec<Script>) -> (String, JoinHandle<Served>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/ws/demo", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let (mut said, mut last) = (Vec::new(), None);
        for script in scripts {
            drop(last.take());
            let mut socket = listener.accept().unwrap().0;
            said.push(converse(&mut socket, &script));
            last = Some(socket);
        }
        (said, last)
    });
    (url, thread)
}

fn converse(socket: &mut TcpStream, script: &Script) -> Vec<u8> {
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut request = [0; 1024];
    let length = socket.read(&mut request).unwrap();
    assert!(request[..length].ends_with(b"\r\n\r\n"));
    socket.write_all(ANSWER.as_bytes()).unwrap();
    let mut said = [0; 1024];
    let mut length = socket.read(&mut said).unwrap();
    for part in script {
        // A pause, so that each part comes by itself.
        std::thread::sleep(Duration::from_millis(5));
        socket.write_all(part).unwrap();
    }
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    length += socket.read(&mut said[length..]).unwrap_or(0);
    said[..length].to_vec()
}

/// One visitor, until they are settled and the server has nothing more to say.
fn visit(scripts: Vec<Script>) -> (Crowd, Vec<Vec<u8>>) {
    let (url, thread) = serve(scripts);
    let (_parent, orders) = UnixStream::pair().unwrap();
    let setup = Setup { process: 0, urls: vec![url], joining_max: 1, checked: true };
    let mut crowd = Crowd::new(setup, &orders).unwrap();
    crowd.arrive(Role::Visitor, 1, true, None);
    let until = clock::now() + WAIT_MAX;
    while !thread.is_finished() && clock::now() < until {
        crowd.turn(clock::now() + SECOND / 100).unwrap();
    }
    let (said, socket) = thread.join().unwrap();
    // What was written last is still to be read.
    let until = clock::now() + SECOND / 20;
    while clock::now() < until {
        crowd.turn(until).unwrap();
    }
    drop(socket);
    (crowd, said)
}

#[track_caller]
fn rejects(scripts: Vec<Script>, word: &str) {
    let (crowd, _) = visit(scripts);
    let violations = &crowd.tally.violations;
    assert!(violations.words.iter().any(|words| words.contains(word)), "{violations:?}");
}

#[test]
fn a_place_is_taken_though_the_frames_come_in_pieces() {
    let bytes = [joined("a"), update(0), b"\x89\x02hi".to_vec(), update(0)].concat();
    let (crowd, said) = visit(vec![bytes.chunks(7).map(<[u8]>::to_vec).collect()]);
    assert_eq!(crowd.tally.violations.count, 0, "{:?}", crowd.tally.violations);
    assert!(crowd.all_settled());
    assert_eq!((crowd.tally.updates, crowd.tally.acks.len(), crowd.tally.shown.len()), (2, 1, 1));
    assert_eq!(crowd.census().places, [(0, 1)]);
    // The last that was said is the answer to the ping: two bytes after header and mask.
    let pong = &said[0][said[0].len() - 8..];
    assert_eq!(pong[..2], [0x8a, 0x82]);
    assert_eq!([pong[6] ^ pong[2], pong[7] ^ pong[3]], *b"hi");
}

#[test]
fn whose_turn_it_is_waits_no_more_and_it_is_noted_when_that_was_told() {
    let (crowd, _) = visit(vec![vec![joined("a"), update(0)]]);
    assert!(crowd.all_settled() && !crowd.all_admitted());
    let admitted = text(r#"{"type":"ADMITTED","payload":{"token":"a.b.c","expiresIn":120}}"#);
    for script in [vec![joined("a"), update(0), admitted.clone()], vec![joined("a"), admitted]] {
        let (crowd, _) = visit(vec![script]);
        assert_eq!(crowd.tally.violations.count, 0, "{:?}", crowd.tally.violations);
        assert!(crowd.all_admitted());
        let [(said_at, told_at)] = crowd.tally.admitted[..] else { panic!("nobody was let in") };
        assert!(said_at < told_at);
    }
}

#[test]
fn a_lost_socket_is_no_lost_place() {
    let (crowd, _) = visit(vec![vec![joined("a"), update(3)], vec![joined("a"), update(2)]]);
    assert_eq!(crowd.tally.violations.count, 0, "{:?}", crowd.tally.violations);
    assert_eq!((crowd.tally.sockets_lost, crowd.tally.returns.len()), (1, 1));
    assert_eq!(crowd.census().places, [(2, 1)]);
}

#[test]
fn a_rise_is_rejected() {
    rejects(vec![vec![joined("a"), update(3), update(4)]], "3 ahead, then 4");
}

#[test]
fn a_worse_place_after_a_reconnect_is_rejected() {
    let scripts = vec![vec![joined("a"), update(3)], vec![joined("a"), update(4)]];
    rejects(scripts, "3 ahead, then 4");
}

#[test]
fn another_place_after_a_reconnect_is_rejected() {
    let scripts = vec![vec![joined("a"), update(3)], vec![joined("b"), update(3)]];
    rejects(scripts, "another place");
}

#[test]
fn a_position_before_the_place_is_rejected() {
    rejects(vec![vec![update(3), joined("a")]], "while Asked");
}

#[test]
fn a_close_for_good_is_rejected() {
    rejects(vec![vec![b"\x88\x02\x03\xf0".to_vec()]], "closed with 1008");
}
