//! What comes in on the sockets.

use rustix::event::epoll::{self, EventFlags};

use super::Crowd;
use super::opening::Loss;
use crate::clock;
use crate::frame::{self, Answer, Frame};
use crate::message::{self, Message};
use crate::orders::Told;
use crate::socket;
use crate::visitor::{Role, Stage, Step, UNKNOWN, Wrong};

/// Who has at most so many ahead is told every change at once.
const FRONT_PLACES: u32 = 100;
/// A close without a code.
const NO_CODE: u16 = 1005;
/// A newer socket has the place. Nobody here has two.
const REPLACED: &str = "replaced";
/// A close is answered with this where it has no code.
const NORMAL: u16 = 1000;

impl Crowd {
    /// Something happened to a socket.
    pub(super) fn notice(&mut self, index: usize, flags: EventFlags) {
        if self.visitors[index].stage == Stage::Connecting {
            return self.upgrade(index, |epoll, socket, key, wanted| {
                epoll::modify(epoll, socket, key, wanted)
            });
        }
        if self.visitors[index].hostile_since != 0 {
            return self.notice_hostile(index, flags);
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            let mut scratch = std::mem::take(&mut self.scratch);
            self.read(index, &mut scratch);
            self.scratch = scratch;
        }
    }

    fn read(&mut self, index: usize, scratch: &mut [u8]) {
        while let Some(socket) = &self.visitors[index].socket {
            match socket::read(socket, scratch) {
                Ok(None) => return,
                Ok(Some(0)) => {
                    return self.lose(index, Loss::Broken("the socket ended".to_owned()));
                }
                Ok(Some(length)) => {
                    self.take(index, &scratch[..length]);
                    if length < scratch.len() {
                        return;
                    }
                }
                Err(error) => return self.lose(index, Loss::Broken(format!("read: {error}"))),
            }
        }
    }

    /// Takes bytes in. Only what is not complete is kept.
    fn take(&mut self, index: usize, bytes: &[u8]) {
        let generation = self.visitors[index].generation;
        let mut leftover = std::mem::take(&mut self.visitors[index].leftover);
        if leftover.is_empty() {
            let used = self.take_whole(index, bytes);
            leftover.extend_from_slice(&bytes[used..]);
        } else {
            leftover.extend_from_slice(bytes);
            let used = self.take_whole(index, &leftover);
            leftover.drain(..used);
        }
        // What an old socket said is of no use on a new one.
        if !leftover.is_empty() && self.visitors[index].generation == generation {
            self.visitors[index].leftover = leftover;
        }
    }

    /// Takes what is complete in these bytes, and says how many that were.
    fn take_whole(&mut self, index: usize, bytes: &[u8]) -> usize {
        let generation = self.visitors[index].generation;
        let mut used = 0;
        if self.visitors[index].stage == Stage::Upgrading {
            match frame::answer(bytes) {
                Ok(None) => return 0,
                Ok(Some(Answer::Upgraded(length))) => {
                    used = length;
                    self.opened(index);
                }
                Ok(Some(Answer::Refused(status))) => {
                    self.lose(index, Loss::Broken(format!("refused with {status}")));
                }
                Err(broken) => self.fail(index, || broken.to_string()),
            }
        }
        while self.visitors[index].generation == generation {
            match frame::next(&bytes[used..]) {
                Ok(None) => break,
                Ok(Some((frame, length))) => {
                    self.take_frame(index, &frame);
                    used += length;
                }
                Err(broken) => self.fail(index, || broken.to_string()),
            }
        }
        used
    }

    fn take_frame(&mut self, index: usize, frame: &Frame<'_>) {
        match frame {
            Frame::Text(payload) => match message::read(payload) {
                Some(message) => self.hear(index, message),
                None => {
                    let said = String::from_utf8_lossy(payload).into_owned();
                    self.fail(index, || format!("not a message: {said}"));
                }
            },
            Frame::Ping(payload) => {
                let bytes = frame::pong(payload, self.random.mask());
                self.send(index, &bytes);
            }
            Frame::Pong => {}
            Frame::Close(code, reason) => {
                let bytes = frame::close(code.unwrap_or(NORMAL), self.random.mask());
                let generation = self.visitors[index].generation;
                self.send(index, &bytes);
                // The send may have found out that it is lost already.
                if self.visitors[index].generation == generation {
                    let seconds = str::from_utf8(reason).ok().and_then(|text| text.parse().ok());
                    self.lose(index, Loss::Closed(code.unwrap_or(NO_CODE), seconds));
                }
            }
        }
    }

    fn hear(&mut self, index: usize, message: Message) {
        let now = clock::now();
        if let Message::Update { count, .. } = message {
            self.tally.updates += 1;
            self.was_told(index, count, now);
            self.note_front(index, count, now);
        }
        if let Message::Ended(reason) = &message {
            self.note_end(index, reason, now);
        }
        match self.visitors[index].hear(message) {
            Ok(Step::Stay) => {}
            Ok(Step::To(stage)) => self.step(index, stage, now),
            Ok(Step::Refused(code)) => {
                if code == REPLACED {
                    self.fail(index, || "somebody else is on this place".to_owned());
                }
                *self.tally.errors.entry(code).or_default() += 1;
            }
            Err(Wrong::Rise(before, after)) => {
                if self.setup.checked {
                    self.tally.rises += 1;
                    let process = self.setup.process;
                    self.tally.violations.add(|| {
                        format!(
                            "visitor {index} of process {process}: {before} ahead, then {after}"
                        )
                    });
                }
                if self.visitors[index].stage == Stage::Joined {
                    self.step(index, Stage::Waiting, now);
                }
            }
            Err(Wrong::Doubled) => self.fail(index, || "has another place than before".to_owned()),
            Err(Wrong::OutOfOrder(what)) => self.fail(index, || what),
        }
    }

    /// Whether this is what a watched visitor waits for.
    fn was_told(&mut self, index: usize, count: u32, now: u64) {
        let visitor = &mut self.visitors[index];
        if visitor.watched != UNKNOWN && (count < visitor.watched || !self.setup.checked) {
            visitor.watched = UNKNOWN;
            self.told.push(now);
            self.untold -= 1;
        }
    }

    /// Takes a note of what somebody at the front is told.
    fn note_front(&mut self, index: usize, count: u32, now: u64) {
        let from = self.visitors[index].noted_from;
        if from != UNKNOWN && count < FRONT_PLACES {
            self.front.push(Told { from, count, at: now });
        }
    }

    fn note_end(&mut self, index: usize, reason: &str, now: u64) {
        match &mut self.left {
            Some((_, ended_at @ None)) if self.visitors[index].has_left => *ended_at = Some(now),
            _ => *self.tally.ended.entry(reason.to_owned()).or_default() += 1,
        }
    }

    fn step(&mut self, index: usize, stage: Stage, now: u64) {
        let visitor = &mut self.visitors[index];
        let before = visitor.stage;
        let since_join = now - visitor.joined_at;
        let came_back = visitor.away_since != 0;
        match (before, stage) {
            _ if !visitor.role.is_honest() => visitor.away_since = 0,
            (Stage::Asked, Stage::Joined) if !came_back => {
                self.tally.acked_at = now;
                match visitor.role {
                    Role::Other => self.tally.other_acks.push(since_join),
                    _ => self.tally.acks.push(since_join),
                }
            }
            (Stage::Joined, Stage::Waiting | Stage::Admitted) => {
                visitor.tries = 0;
                if came_back {
                    self.tally.returns.push((visitor.away_since, now));
                } else if visitor.role == Role::Other {
                    self.tally.other_shown.push(since_join);
                } else {
                    self.tally.shown.push(since_join);
                }
                visitor.away_since = 0;
            }
            _ => {}
        }
        if stage == Stage::Admitted && visitor.role.is_honest() {
            self.tally.admitted.push((visitor.joined_at, now));
        }
        // They are not told any more where they stand.
        if !matches!(stage, Stage::Joined | Stage::Waiting) && visitor.watched != UNKNOWN {
            visitor.watched = UNKNOWN;
            self.untold -= 1;
        }
        self.set(index, stage);
        if stage == Stage::Waiting && self.visitors[index].role == Role::Stuck {
            self.get_stuck(index);
        }
    }
}
