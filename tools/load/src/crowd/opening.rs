//! How sockets come, and how they go.

use std::cmp::Reverse;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

use super::{Crowd, Due, TRIES_MAX};
use crate::clock::{self, MILLI, SECOND};
use crate::frame;
use crate::message;
use crate::socket;
use crate::visitor::{Role, Stage};

/// The first pause before coming back; each further one may be twice as long.
const PAUSE_FIRST: u64 = 500 * MILLI;
const PAUSE_MAX: u64 = 20 * SECOND;
/// What somebody says who goes away for a moment, as a browser does on a reload.
const GOING_AWAY: u16 = 1001;
/// The node is going; the reason says for how many seconds to wait.
const NODE_GOING: u16 = 1012;
/// After these nothing is gained by coming back: the protocol was broken, or a limit.
const FINAL_CODES: [u16; 4] = [1002, 1007, 1008, 1009];

/// How the epoll comes to know what is wanted of a socket: by `add` or `modify`.
pub(super) type Register = fn(&OwnedFd, &OwnedFd, EventData, EventFlags) -> Result<(), Errno>;

/// One who reads nothing has room for this, which the kernel doubles: a handful of updates.
const STUCK_BUFFER_BYTES: usize = 1024;

/// Why a socket ended.
pub(super) enum Loss {
    /// It broke, in words.
    Broken(String),
    /// It was closed with this code and these seconds to wait.
    Closed(u16, Option<u64>),
}

impl Crowd {
    pub(super) fn open_queued(&mut self) {
        while self.opening < self.setup.joining_max
            && let Some(index) = self.queue.pop_front()
        {
            self.open(index);
        }
    }

    fn open(&mut self, index: usize) {
        let visitor = &mut self.visitors[index];
        if visitor.stage != Stage::Away {
            return;
        }
        visitor.began_at = clock::now();
        let buffer = (visitor.role == Role::Stuck).then_some(STUCK_BUFFER_BYTES);
        match socket::open(&self.targets[visitor.url], &mut self.sources, buffer) {
            Ok(socket) => visitor.socket = Some(socket),
            Err(error) => return self.lose(index, Loss::Broken(format!("connect: {error}"))),
        }
        self.set(index, Stage::Connecting);
        if matches!(self.visitors[index].role, Role::Idle | Role::Drip) {
            return self.be_slow(index);
        }
        // On this machine the connection is there by now, which saves a look at the epoll.
        self.upgrade(index, |epoll, socket, key, wanted| epoll::add(epoll, socket, key, wanted));
    }

    /// The socket may be connected, or have failed to: asks for the upgrade.
    pub(super) fn upgrade(&mut self, index: usize, register: Register) {
        let visitor = &mut self.visitors[index];
        let Some(socket) = &visitor.socket else { return };
        let request = &self.targets[visitor.url].request;
        // The first write says whether the connection came about.
        let (stage, wanted) = match socket::write(socket, request) {
            Ok(()) => (Stage::Upgrading, EventFlags::IN),
            Err(Errno::AGAIN) => (Stage::Connecting, EventFlags::OUT),
            Err(error) => return self.lose(index, Loss::Broken(format!("connect: {error}"))),
        };
        let key = EventData::new_u64(u64::from(visitor.generation) << 32 | index as u64);
        match register(&self.epoll, socket, key, wanted) {
            Ok(()) => self.set(index, stage),
            Err(error) => self.fail(index, || format!("epoll: {error}")),
        }
    }

    /// The socket speaks WebSocket from now on.
    pub(super) fn opened(&mut self, index: usize) {
        let now = clock::now();
        let visitor = &self.visitors[index];
        let took = now - visitor.began_at;
        match visitor.role {
            Role::Other => self.tally.other_handshakes.push(took),
            _ => self.tally.handshakes.push(took),
        }
        if visitor.role == Role::Silent {
            return self.be_silent(index);
        }
        self.tally.opened_at = now;
        let joins = visitor.joins;
        self.set(index, Stage::Open);
        if joins {
            self.ask(index);
        }
    }

    /// Says JOIN, or RECONNECT by those who have a place.
    pub(super) fn ask(&mut self, index: usize) {
        let visitor = &mut self.visitors[index];
        let said = match &visitor.connection_id {
            Some(id) => message::reconnect(id),
            None => message::join(visitor.join_key),
        };
        if visitor.joined_at == 0 {
            visitor.joined_at = clock::now();
        }
        self.set(index, Stage::Asked);
        self.say(index, &said);
    }

    /// The first of the leavers who are left says LEAVE.
    pub fn leave(&mut self) {
        let may = |role, stage| role == Role::Leaver && stage == Stage::Waiting;
        let first = self.visitors.iter().position(|one| may(one.role, one.stage) && !one.has_left);
        let Some(index) = first else {
            self.tally.violations.add(|| "no leaver is left in line".to_owned());
            return;
        };
        self.visitors[index].has_left = true;
        self.left = Some((clock::now(), None));
        self.say(index, message::LEAVE);
    }

    fn say(&mut self, index: usize, text: &str) {
        let bytes = frame::text(text.as_bytes(), self.random.mask());
        self.send(index, &bytes);
    }

    pub(super) fn send(&mut self, index: usize, bytes: &[u8]) {
        if let Some(socket) = &self.visitors[index].socket
            && let Err(error) = socket::write(socket, bytes)
        {
            self.lose(index, Loss::Broken(format!("send: {error}")));
        }
    }

    /// Gives a socket up as a browser does on a reload, or as a network does, and comes back.
    pub(super) fn lose_on_purpose(&mut self, index: usize, politely: bool) {
        if self.visitors[index].stage != Stage::Waiting {
            return;
        }
        if politely {
            let bytes = frame::close(GOING_AWAY, self.random.mask());
            self.send(index, &bytes);
        }
        // The send may have found out that it is lost already.
        if self.visitors[index].stage == Stage::Waiting {
            self.drop_socket(index);
            self.go_away(index);
            self.queue.push_back(index);
        }
    }

    /// A socket ended, or did not come about.
    pub(super) fn lose(&mut self, index: usize, loss: Loss) {
        let visitor = &mut self.visitors[index];
        let stage = visitor.stage;
        if visitor.hostile_since != 0 {
            return self.was_thrown_out(index);
        }
        visitor.tries += 1;
        self.drop_socket(index);
        if matches!(stage, Stage::Admitted | Stage::Ended | Stage::Failed) {
            return;
        }
        if stage.is_unopened() {
            self.tally.attempts_failed += 1;
        } else {
            self.tally.sockets_lost += 1;
        }
        let (why, is_final, pause) = match loss {
            Loss::Broken(why) => (why, false, None),
            Loss::Closed(code, seconds) => {
                let pause = seconds.filter(|_| code == NODE_GOING);
                *self.tally.closes.entry(code).or_default() += 1;
                if let Some(seconds) = pause {
                    *self.tally.waits.entry(seconds).or_default() += 1;
                }
                (format!("closed with {code}"), FINAL_CODES.contains(&code), pause)
            }
        };
        let (tries, is_honest) =
            (self.visitors[index].tries, self.visitors[index].role.is_honest());
        // A server that knows no RECONNECT is no place to come back to.
        if is_honest && (is_final || !self.setup.checked || tries > TRIES_MAX) {
            return self.fail(index, || format!("{why} while {stage:?}"));
        }
        self.go_away(index);
        let longest = PAUSE_FIRST.saturating_mul(1 << (tries - 1).min(8)).min(PAUSE_MAX);
        let pause = pause.map_or_else(|| self.random.below(longest), |seconds| seconds * SECOND);
        self.due.push(Reverse((clock::now() + pause, index, Due::Open)));
    }

    pub(super) fn go_away(&mut self, index: usize) {
        let url = self.node_after(self.visitors[index].url);
        let visitor = &mut self.visitors[index];
        visitor.url = url;
        if visitor.away_since == 0 && visitor.connection_id.is_some() {
            visitor.away_since = clock::now();
        }
        self.set(index, Stage::Away);
    }
}
