//! A pusher: one thread that tells the visitors whose sockets it has where they stand.
//!
//! It waits in epoll for its sockets and its mail, hears them, and walks its rows in steps. Nothing in
//! here waits for anything else: what a visitor wants of the log is handed to a task.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::runtime::Handle;

use crate::clock;
use crate::node::counts::Pushes;
use crate::node::ending::End;
use crate::node::hall::cadence::Numbers;
use crate::node::hall::pushers::{Handed, Inbox, Mail};
use crate::node::hall::row::{Act, Row, TOLD_MAX};
use crate::node::hall::sitting::{Notice, Sitting};
use crate::node::hall::slots::{Key, Lost, Slot, Slots, Stage};
use crate::node::session::{Bad, CLOSE_WAIT_MAX, Came, has_closed, next_of, write_message};
use crate::node::waiting;
use crate::shutdown::Shutdown;
use crate::wire::frame::{self, CloseCode, FRAME_BYTES_MAX, Inbound};
use crate::wire::socket::{ClientMessage, ErrorCode};

/// Sockets that are heard before the rows are walked on.
const EVENTS_MAX: usize = 256;
/// The mail's key; no slot has it.
const MAIL: u64 = u64::MAX;

/// One pusher. Instants are milliseconds since it began.
pub(super) struct Pusher {
    inbox: Arc<Inbox>,
    shutdown: Shutdown,
    runtime: Handle,
    epoll: OwnedFd,
    begun: Instant,
    now: u32,
    slots: Slots,
    rows: BTreeMap<u32, Row>,
    /// Sockets whose last words are said, and until when their answer is waited for.
    closing: VecDeque<(u32, Key)>,
    is_going: bool,
    /// What a socket's bytes are put into while they are understood at once.
    spare: Option<Box<Inbound>>,
    read: Vec<u8>,
    out: Vec<u8>,
    /// Numbers that were told and are not counted yet.
    told: u64,
    pushes: Pushes,
}

impl Pusher {
    pub(super) fn new(inbox: Arc<Inbox>, sockets: usize, shutdown: Shutdown) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, inbox.waker(), EventData::new_u64(MAIL), EventFlags::IN)?;
        Ok(Self {
            inbox,
            shutdown,
            runtime: Handle::current(),
            epoll,
            begun: clock::monotonic(),
            now: 0,
            slots: Slots::new(sockets),
            rows: BTreeMap::new(),
            closing: VecDeque::new(),
            is_going: false,
            spare: None,
            read: vec![0; FRAME_BYTES_MAX],
            out: Vec::new(),
            told: 0,
            pushes: Pushes::new(),
        })
    }

    /// Runs until the node goes and everyone was sent away.
    pub(super) fn run(mut self) {
        let runtime = self.runtime.clone();
        // For the tasks that visitors need when they leave.
        let _entered = runtime.enter();
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let mut acts = Vec::with_capacity(TOLD_MAX);
        loop {
            self.wait(&mut events);
            for event in events.drain(..) {
                self.hear(event);
            }
            if self.shutdown.is_stopping() && !self.is_going {
                self.go();
            }
            self.walk(&mut acts);
            self.let_go();
            if self.is_going && self.slots.len() == 0 {
                let late = self.inbox.close();
                if late.is_empty() {
                    return;
                }
                late.into_iter().for_each(|mail| self.open(mail));
            }
        }
    }

    fn wait(&mut self, events: &mut Vec<Event>) {
        let millis = self.rows.values().map(|row| row.wait(self.now)).min();
        let closing = self.closing.front().map(|(until, _)| left_until(*until, self.now));
        let millis = millis.into_iter().chain(closing).min();
        let wait = millis.map(|millis| Timespec {
            tv_sec: i64::from(millis / 1_000),
            tv_nsec: i64::from(millis % 1_000) * 1_000_000,
        });
        if let Err(error) = epoll::wait(&self.epoll, spare_capacity(events), wait.as_ref())
            && error != Errno::INTR
        {
            tracing::error!(%error, "sockets can't be waited for");
        }
        self.tick();
    }

    fn tick(&mut self) {
        let passed = clock::monotonic().duration_since(self.begun).as_millis();
        // In 49 days it begins again; differences are taken with that in mind.
        self.now = u32::try_from(passed & u128::from(u32::MAX)).unwrap_or(0);
    }

    fn hear(&mut self, event: Event) {
        let key = event.data.u64();
        if key == MAIL {
            self.inbox.empty().into_iter().for_each(|mail| self.open(mail));
            return;
        }
        let Some(number) = self.slots.find(Key::from_u64(key)) else { return };
        let flags = event.flags;
        if flags.contains(EventFlags::OUT) {
            self.flush(number);
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            self.read(number);
        }
    }

    fn open(&mut self, mail: Mail) {
        match mail {
            Mail::Take(handed) => self.take(*handed),
            Mail::Tell(row, sitting, notice) => self.notice(row, sitting, notice),
        }
    }

    /// Takes a socket. Whatever was read of it or said of it before is not lost.
    fn take(&mut self, handed: Handed) {
        let Handed { socket, queue, sitting, inbound, mut unsent, mut notices, place } = handed;
        let (number, now) = (queue.hall.row(), self.now);
        let row = self.rows.entry(number).or_insert_with(|| Row::new(queue, now));
        let slot = Slot::new(socket, number, sitting, now, place);
        // Tasks hand over when they come to it, and an older socket may be handed over after a newer one.
        let there = row.slot(sitting.ticket).and_then(|there| self.slots.get(there));
        let is_late = there.is_some_and(|there| there.sitting.is_after(sitting));
        let key = self.slots.insert(slot);
        self.pushes.slots.increment(1);
        let before = if is_late { None } else { row.insert(sitting.ticket, key.slot) };
        if let Some(before) = before {
            self.end(before, End::Replaced(0));
        }
        let Some(slot) = self.slots.get(key.slot) else { return };
        let Some(row) = self.rows.get_mut(&number) else { return };
        let data = EventData::new_u64(key.to_u64());
        if let Err(error) = epoll::add(&self.epoll, &slot.socket, data, EventFlags::IN) {
            tracing::error!(%error, "a socket can't be waited for");
            return self.end(key.slot, End::Unavailable(ErrorCode::Unavailable));
        }
        if is_late {
            return self.end(key.slot, End::Replaced(0));
        }
        // JOINED may be among what is unsent: the first numbers go out with it.
        let numbers = row.numbers(sitting.ticket, None);
        if let Some(numbers) = numbers {
            let update = waiting::update(&numbers.point, row.words(), row.prospect(), None);
            write_message(&mut unsent, &update);
            slot.note_told(Some(numbers), now);
            self.told += 1;
        }
        if !unsent.is_empty() && self.send(key.slot, &unsent).is_err() {
            return self.lose(key.slot);
        }
        if self.is_going {
            return self.end(key.slot, End::going(u64::from(sitting.ticket.0)));
        }
        while let Ok(notice) = notices.try_recv() {
            self.notice(number, sitting, notice);
        }
        if !inbound.is_empty()
            && let Some(slot) = self.slots.get(key.slot)
        {
            slot.inbound = Some(Box::new(inbound));
            self.understand(key.slot, 0);
        }
    }

    /// Something happened to a visitor.
    fn notice(&mut self, row: u32, sitting: Sitting, notice: Notice) {
        let Some(row) = self.rows.get(&row) else { return };
        let Some(number) = row.slot(sitting.ticket) else { return };
        if self.slots.get(number).is_none_or(|slot| slot.sitting != sitting) {
            return;
        }
        match notice {
            Notice::Admitted(minted) => {
                let message = waiting::admitted(&row.queue, minted);
                let mut bytes = Vec::new();
                write_message(&mut bytes, &message);
                if self.send(number, &bytes).is_err() {
                    self.lose(number);
                }
            }
            Notice::Ended(reason) => self.end(number, End::Ended(reason)),
            Notice::Replaced => self.end(number, End::Replaced(0)),
            Notice::Unavailable(code) => self.end(number, End::Unavailable(code)),
        }
    }

    fn read(&mut self, number: u32) {
        let Some(slot) = self.slots.get(number) else { return };
        match recv(&slot.socket, &mut *self.read, RecvFlags::DONTWAIT) {
            Ok((0, _)) => self.lose(number),
            Ok((read, _)) => self.understand(number, read),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.lose(number),
        }
    }

    /// Understands so many bytes that were just read of a socket, and what was left before them.
    fn understand(&mut self, number: u32, read: usize) {
        let Some(slot) = self.slots.get(number) else { return };
        let kept = slot.inbound.take().or_else(|| self.spare.take());
        let mut inbound = kept.unwrap_or_default();
        inbound.put(self.read.get(..read).unwrap_or_default());
        while let Some(slot) = self.slots.get(number) {
            if slot.stage == Stage::Closing {
                if has_closed(&mut inbound) {
                    self.free(number);
                }
                break;
            }
            let Some(came) = next_of(&mut inbound, &mut slot.allowance, self.now) else { break };
            slot.heard_at = self.now;
            self.came(number, came);
        }
        match self.slots.get(number) {
            Some(slot) if !inbound.is_empty() => slot.inbound = Some(inbound),
            Some(_) | None => {
                inbound.clear();
                self.spare = Some(inbound);
            }
        }
    }

    fn came(&mut self, number: u32, came: Came) {
        match came {
            Came::Pong => {}
            Came::Ping(payload) => {
                let mut pong = Vec::new();
                frame::write_pong(&mut pong, &payload);
                if self.send(number, &pong).is_err() {
                    self.lose(number);
                }
            }
            Came::Message(ClientMessage::Leave {}) => self.leave(number),
            Came::Message(ClientMessage::Join { .. } | ClientMessage::Reconnect { .. }) => {
                let bad = Bad::out_of_order("this socket has a place already");
                self.end(number, End::Refused(bad));
            }
            Came::Bad(bad) => self.end(number, End::Refused(bad)),
            Came::Close(code) => {
                let mut close = Vec::new();
                frame::write_close(&mut close, code.unwrap_or(CloseCode::Normal), "");
                // One who has gone needs no answer.
                let _ = self.send(number, &close);
                self.lose(number);
            }
        }
    }

    /// The visitor gives their place up: they are told once the log has it.
    fn leave(&mut self, number: u32) {
        let Some(slot) = self.slots.get(number).filter(|slot| slot.stage == Stage::Here) else {
            return;
        };
        slot.stage = Stage::Leaving;
        let sitting = slot.sitting;
        let Some(row) = self.rows.get(&slot.row) else { return };
        let queue = Arc::clone(&row.queue);
        crate::shutdown::detached(async move {
            if let End::Unavailable(code) = waiting::leave(&queue, sitting.ticket).await {
                queue.hall.tell_sitting(sitting, Notice::Unavailable(code));
            }
        });
    }

    /// Walks the rows, each one step.
    fn walk(&mut self, acts: &mut Vec<(u32, Act)>) {
        let numbers: Vec<u32> = self.rows.keys().copied().collect();
        for number in numbers {
            let Some(row) = self.rows.get_mut(&number) else { continue };
            row.look(self.now);
            let news_since = row.step(&mut self.slots, self.now, acts);
            for (slot, act) in acts.drain(..) {
                match act {
                    Act::Tell(numbers) => self.tell(slot, Some(numbers), false),
                    Act::KeepAlive(numbers) => self.tell(slot, numbers, true),
                    Act::Silent => self.end(slot, End::Silent),
                    Act::Blocked => self.end(slot, End::NotReading),
                }
            }
            self.tick();
            // Once a step: pushers share their counts, and taking turns at them costs more than a push.
            let told = std::mem::take(&mut self.told);
            self.pushes.told.increment(told);
            if let Some(since) = news_since.filter(|_| told > 0) {
                self.pushes.latency.record(clock::monotonic().duration_since(since));
            }
        }
    }

    /// Tells a visitor their numbers, if they wait, and asks for a sign of life if wanted.
    fn tell(&mut self, number: u32, numbers: Option<Numbers>, with_ping: bool) {
        let Some(slot) = self.slots.get(number) else { return };
        let Some(row) = self.rows.get(&slot.row) else { return };
        self.out.clear();
        if with_ping {
            frame::write_ping(&mut self.out);
            slot.pinged_at = self.now;
        }
        if let Some(numbers) = numbers {
            let (words, prospect, before) = (row.words(), row.prospect(), slot.told_turn());
            let update = waiting::update(&numbers.point, words, prospect, before);
            write_message(&mut self.out, &update);
        }
        match slot.offer(&self.out, self.now) {
            Ok(taken) => {
                if taken && numbers.is_some() {
                    slot.note_told(numbers, self.now);
                    self.told += 1;
                } else if !taken {
                    self.pushes.dropped.increment(1);
                }
                if slot.blocked_since().is_some() {
                    self.watch(number, EventFlags::IN | EventFlags::OUT);
                }
            }
            Err(Lost) => self.lose(number),
        }
    }

    /// Tells a visitor the newest, if it is not what they know.
    fn tell_newest(&mut self, number: u32) {
        let Some(slot) = self.slots.get(number).filter(|slot| slot.stage == Stage::Here) else {
            return;
        };
        let Some(row) = self.rows.get_mut(&slot.row) else { return };
        let numbers = row.numbers(slot.sitting.ticket, slot.told_turn());
        if numbers.is_some() && numbers != slot.told {
            self.tell(number, numbers, false);
        }
    }

    /// Sends what must arrive.
    fn send(&mut self, number: u32, bytes: &[u8]) -> Result<(), Lost> {
        let Some(slot) = self.slots.get(number) else { return Ok(()) };
        let was_blocked = slot.blocked_since().is_some();
        slot.send(bytes, self.now)?;
        if slot.blocked_since().is_some() && !was_blocked {
            self.watch(number, EventFlags::IN | EventFlags::OUT);
        }
        Ok(())
    }

    /// The socket takes something again.
    fn flush(&mut self, number: u32) {
        let Some(slot) = self.slots.get(number) else { return };
        match slot.flush() {
            Ok(true) => {
                self.watch(number, EventFlags::IN);
                self.tell_newest(number);
            }
            Ok(false) => {}
            Err(Lost) => self.lose(number),
        }
    }

    fn watch(&mut self, number: u32, flags: EventFlags) {
        let Some((key, slot)) = self.slots.entry(number) else { return };
        let data = EventData::new_u64(key.to_u64());
        if let Err(error) = epoll::modify(&self.epoll, &slot.socket, data, flags) {
            tracing::error!(%error, "a socket can't be waited for");
        }
    }

    /// The other side is gone, or is given up.
    fn lose(&mut self, number: u32) {
        self.end(number, End::Gone);
    }

    fn free(&mut self, number: u32) {
        let Some(slot) = self.slots.remove(number) else { return };
        self.pushes.slots.decrement(1);
        if slot.blocked_since().is_some() {
            // Nobody takes what is left in the kernel; it is thrown away now, and not tried for minutes.
            let at_once = Some(Duration::ZERO);
            if let Err(error) = rustix::net::sockopt::set_socket_linger(&slot.socket, at_once) {
                tracing::debug!(%error, "a socket closes in its own time");
            }
        }
    }

    /// Ends a socket: takes it out of its row and says the last words, if somebody hears them.
    fn end(&mut self, number: u32, end: End) {
        let Some((key, slot)) = self.slots.entry(number) else { return };
        let (stage, sitting) = (slot.stage, slot.sitting);
        slot.stage = Stage::Closing;
        if let Some(row) = self.rows.get_mut(&slot.row) {
            row.remove(sitting.ticket, number);
            if stage != Stage::Closing {
                waiting::rise(&row.queue, sitting, &end);
            }
        }
        let mut last_words = Vec::new();
        let is_heard = stage != Stage::Closing && end.write(&mut last_words);
        if is_heard && self.send(number, &last_words).is_ok() {
            let wait = u32::try_from(CLOSE_WAIT_MAX.as_millis()).unwrap_or(u32::MAX);
            self.closing.push_back((self.now.wrapping_add(wait), key));
        } else {
            self.free(number);
        }
    }

    /// Lets those go whose answer to a close was waited for in vain.
    fn let_go(&mut self) {
        while let Some((until, key)) = self.closing.front().copied() {
            if left_until(until, self.now) > 0 {
                return;
            }
            self.closing.pop_front();
            if let Some(number) = self.slots.find(key) {
                self.free(number);
            }
        }
    }

    /// The node is going: everyone is told when to come back.
    fn go(&mut self) {
        self.is_going = true;
        let all: Vec<u32> = self.rows.values().flat_map(Row::slots).collect();
        for number in all {
            let Some(slot) = self.slots.get(number) else { continue };
            let ticket = slot.sitting.ticket;
            self.end(number, End::going(u64::from(ticket.0)));
        }
    }
}

/// Milliseconds until an instant that is near: 0 when it has passed. Instants begin anew in 49 days.
fn left_until(until: u32, now: u32) -> u32 {
    let left = until.wrapping_sub(now);
    if left > u32::MAX / 2 { 0 } else { left }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_comes_also_where_instants_begin_anew() {
        assert_eq!(left_until(1_500, 1_000), 500);
        assert_eq!(left_until(1_000, 1_000), 0);
        assert_eq!(left_until(1_000, 1_001), 0);
        assert_eq!(left_until(400, u32::MAX - 99), 500);
        assert_eq!(left_until(u32::MAX - 99, 400), 0);
    }
}
