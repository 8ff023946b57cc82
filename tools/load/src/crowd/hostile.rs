//! Those who do what they must not: they cost the node something, and are to be thrown out.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::SocketAddrV4;

use rustix::event::epoll::{self, EventData, EventFlags};

use super::opening::Register;
use super::{Crowd, Due};
use crate::checks::Census;
use crate::clock::{self, MILLI};
use crate::socket;
use crate::visitor::{Role, Stage};

/// How slowly a request is said, a byte each time.
const DRIP_EVERY: u64 = 500 * MILLI;
/// One who was thrown out comes back after this: at once, but not in a tight loop.
const REOPEN_PAUSE: u64 = 100 * MILLI;

impl Crowd {
    /// Connects and says nothing, or says a byte now and then.
    pub(super) fn be_slow(&mut self, index: usize) {
        self.visitors[index].hostile_since = clock::now();
        self.visitors[index].sent = 0;
        self.register(
            index,
            |epoll, socket, key, wanted| epoll::add(epoll, socket, key, wanted),
            EventFlags::IN | EventFlags::RDHUP,
        );
        self.set(index, Stage::Open);
        if self.visitors[index].role == Role::Drip {
            let generation = self.visitors[index].generation;
            self.due.push(Reverse((clock::now() + DRIP_EVERY, index, Due::Drip { generation })));
        }
    }

    /// Is upgraded, and says nothing from now on.
    pub(super) fn be_silent(&mut self, index: usize) {
        self.visitors[index].hostile_since = clock::now();
        self.set(index, Stage::Open);
    }

    /// Reads nothing from now on.
    pub(super) fn get_stuck(&mut self, index: usize) {
        self.visitors[index].hostile_since = clock::now();
        self.register(
            index,
            |epoll, socket, key, wanted| epoll::modify(epoll, socket, key, wanted),
            EventFlags::RDHUP,
        );
    }

    /// Says one more byte of the request, but never the last one.
    pub(super) fn drip(&mut self, index: usize, generation: u32) {
        let visitor = &mut self.visitors[index];
        if visitor.generation != generation {
            return;
        }
        let Some(socket) = &visitor.socket else { return };
        let request = &self.targets[visitor.url].request;
        let Some(byte) = request[..request.len() - 1].get(visitor.sent..=visitor.sent) else {
            return;
        };
        visitor.sent += 1;
        if socket::write(socket, byte).is_err() {
            return self.was_thrown_out(index);
        }
        self.due.push(Reverse((clock::now() + DRIP_EVERY, index, Due::Drip { generation })));
    }

    /// Something happened to the socket of one who is hostile: most likely its end.
    pub(super) fn notice_hostile(&mut self, index: usize, flags: EventFlags) {
        let mut scratch = [0; 1024];
        let ended = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        let Some(socket) = &self.visitors[index].socket else { return };
        // What is said to them does not matter to them.
        let is_over = flags.intersects(ended)
            || matches!(socket::read(socket, &mut scratch), Ok(Some(0)) | Err(_));
        if is_over {
            self.was_thrown_out(index);
        }
    }

    /// Those who are stuck on a socket that the server has closed.
    pub fn throw_out(&mut self, sources: &BTreeSet<SocketAddrV4>) {
        for index in 0..self.visitors.len() {
            let visitor = &self.visitors[index];
            if visitor.role == Role::Stuck
                && visitor.hostile_since != 0
                && let Some(socket) = &visitor.socket
                && socket::source(socket).is_some_and(|source| sources.contains(&source))
            {
                self.was_thrown_out(index);
            }
        }
    }

    /// Comes back, and is as hostile again.
    pub(super) fn was_thrown_out(&mut self, index: usize) {
        let now = clock::now();
        let visitor = &mut self.visitors[index];
        let since = std::mem::take(&mut visitor.hostile_since);
        self.tally.hostile_closed.push((visitor.role, now - since));
        self.drop_socket(index);
        self.go_away(index);
        self.due.push(Reverse((now + REOPEN_PAUSE, index, Due::Open)));
    }

    /// Those who are not honest: who has a place, and whose socket is open for how long.
    pub(super) fn hostile_census(&self) -> Census {
        let now = clock::now();
        let mut census = Census::default();
        for visitor in self.visitors.iter().filter(|visitor| !visitor.role.is_honest()) {
            census.unread += usize::from(visitor.connection_id.is_some());
            if visitor.hostile_since != 0 {
                census.hostile_open.push((visitor.role, now - visitor.hostile_since));
            }
        }
        census
    }

    fn register(&mut self, index: usize, how: Register, wanted: EventFlags) {
        let visitor = &self.visitors[index];
        let Some(socket) = &visitor.socket else { return };
        let key = EventData::new_u64(u64::from(visitor.generation) << 32 | index as u64);
        if let Err(error) = how(&self.epoll, socket, key, wanted) {
            self.fail(index, || format!("epoll: {error}"));
        }
    }
}
