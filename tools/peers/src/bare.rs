//! The limit: what a push costs when nothing is done but to send. Threads share the sockets, each
//! with an epoll of its own; when somebody leaves, each sends the same bytes to all of its sockets.

use std::convert::Infallible;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, bail, ensure};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, accept_with, bind, getsockname,
    listen, recv, send, socket_with, sockopt,
};

use crate::frames::{self, Frame};
use crate::protocol;
use crate::{BACKLOG, say_ready};

/// Keys of an epoll besides the sockets, whose key is their descriptor.
const LISTENER: u64 = u64::MAX;
const MOVED: u64 = u64::MAX - 1;
/// Events taken at once: enough to make the call cheap, few enough for a small buffer.
const EVENTS_MAX: usize = 256;
/// The most that is read at once. A request for an upgrade has some 200 bytes.
const READ_BYTES_MAX: usize = 2_048;
const NORMAL_CLOSE: u16 = 1_000;

pub fn serve(threads: usize, send_buffer: usize) -> anyhow::Result<()> {
    ensure!(threads > 0, "somebody must serve the sockets");
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listener = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    // What is accepted has these as the listener has them.
    sockopt::set_socket_send_buffer_size(&listener, send_buffer)?;
    sockopt::set_tcp_nodelay(&listener, true)?;
    bind(&listener, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
    listen(&listener, BACKLOG)?;
    let address = SocketAddr::try_from(getsockname(&listener)?)?;

    let shares = (0..threads).map(|_| Share::new()).collect::<anyhow::Result<Vec<_>>>()?;
    let first = shares.first().context("no thread")?;
    epoll::add(&first.epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    // Of the usual length; whom it reaches does not matter here.
    let update = frames::text(&protocol::write(&protocol::update(1_243, 51_234))?)?;
    let server = Server { listener, shares, tickets: AtomicU64::new(0), update };
    say_ready(address)?;
    std::thread::scope(|scope| {
        for share in &server.shares {
            scope.spawn(|| {
                let Err(error) = server.run(share);
                // The others would wait for ever.
                eprintln!("{error:#}");
                std::process::exit(1);
            });
        }
    });
    Ok(())
}

struct Server {
    listener: OwnedFd,
    shares: Vec<Share>,
    tickets: AtomicU64,
    /// The frame that everyone is sent.
    update: Vec<u8>,
}

/// The sockets of one thread.
struct Share {
    epoll: OwnedFd,
    /// Tells the thread of a move.
    moved: OwnedFd,
    /// By descriptor. The lock is for what is accepted by the first thread.
    sockets: Mutex<Vec<Option<Socket>>>,
}

struct Socket {
    fd: OwnedFd,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Accepted,
    Upgraded,
    Seated,
    /// Was told so, and is only waited for to close.
    Left,
}

impl Share {
    fn new() -> anyhow::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let moved = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &moved, EventData::new_u64(MOVED), EventFlags::IN)?;
        Ok(Self { epoll, moved, sockets: Mutex::default() })
    }

    fn sockets(&self) -> MutexGuard<'_, Vec<Option<Socket>>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    fn run(&self, share: &Share) -> anyhow::Result<Infallible> {
        let mut events = [MaybeUninit::uninit(); EVENTS_MAX];
        loop {
            let events = match epoll::wait(&share.epoll, &mut events, None) {
                Ok((events, _)) => events,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for event in events {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    MOVED => {
                        let mut moves = [0; 8];
                        rustix::io::read(&share.moved, &mut moves)?;
                        for _ in 0..u64::from_ne_bytes(moves) {
                            self.push(share);
                        }
                    }
                    fd => self.hear(share, usize::try_from(fd)?)?,
                }
            }
        }
    }

    /// Accepts whoever waits, and gives each to the thread whose turn it is.
    fn accept(&self) -> anyhow::Result<()> {
        loop {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let fd = match accept_with(&self.listener, flags) {
                Ok(fd) => fd,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                Err(error) => return Err(error).context("accept"),
            };
            let key = usize::try_from(fd.as_raw_fd())?;
            // Descriptors are the lowest that are free, so they come evenly.
            let share = self.shares.get(key % self.shares.len()).context("no share")?;
            let mut sockets = share.sockets();
            if sockets.len() <= key {
                sockets.resize_with(key + 1, || None);
            }
            epoll::add(&share.epoll, &fd, EventData::new_u64(key.try_into()?), EventFlags::IN)?;
            sockets[key] = Some(Socket { fd, stage: Stage::Accepted });
        }
    }

    /// Reads what a socket says, and lets it go if it makes no sense or is gone.
    fn hear(&self, share: &Share, key: usize) -> anyhow::Result<()> {
        let mut sockets = share.sockets();
        let Some(Some(socket)) = sockets.get_mut(key) else { return Ok(()) };
        let stage_before = socket.stage;
        let heard = self.respond(socket);
        let has_left = socket.stage == Stage::Left && stage_before != Stage::Left;
        if heard.is_err() {
            sockets[key] = None;
        }
        drop(sockets);
        if has_left {
            for share in &self.shares {
                rustix::io::write(&share.moved, &1_u64.to_ne_bytes())?;
            }
        }
        Ok(())
    }

    fn respond(&self, socket: &mut Socket) -> anyhow::Result<()> {
        let mut bytes = [0; READ_BYTES_MAX];
        let mut rest = match recv(&socket.fd, &mut bytes[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => bail!("gone"),
            Ok((length, _)) => &mut bytes[..length],
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if socket.stage == Stage::Accepted {
            socket.stage = Stage::Upgraded;
            return socket.send(frames::answer(rest)?.as_bytes());
        }
        while !rest.is_empty() {
            let frame;
            (frame, rest) = frames::split_first(rest)?;
            match (frame, socket.stage) {
                (Frame::Text(text), Stage::Upgraded) if says(text, "JOIN") => {
                    let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
                    let mut told = frames::text(&protocol::write(&protocol::joined(ticket))?)?;
                    let update = protocol::update(ticket, ticket + 1);
                    told.extend(frames::text(&protocol::write(&update)?)?);
                    socket.send(&told)?;
                    socket.stage = Stage::Seated;
                }
                (Frame::Text(text), Stage::Seated) if says(text, "LEAVE") => {
                    let mut told = frames::text(&protocol::write(&protocol::ended())?)?;
                    told.extend(frames::close(NORMAL_CLOSE)?);
                    socket.send(&told)?;
                    socket.stage = Stage::Left;
                }
                (Frame::Text(_), _) => bail!("out of order"),
                (Frame::Ping(payload), _) => socket.send(&frames::pong(payload)?)?,
                (Frame::Pong, _) => {}
                (Frame::Close, Stage::Left) => bail!("closed"),
                (Frame::Close, _) => {
                    socket.send(&frames::close(NORMAL_CLOSE)?)?;
                    bail!("closed");
                }
            }
        }
        Ok(())
    }

    /// The loop that is measured.
    fn push(&self, share: &Share) {
        for slot in share.sockets().iter_mut() {
            if let Some(socket) = slot
                && socket.stage == Stage::Seated
                && socket.send(&self.update).is_err()
            {
                *slot = None;
            }
        }
    }
}

impl Socket {
    /// One who has not taken the last few kilobytes yet is let go.
    fn send(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let sent = send(&self.fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
        ensure!(sent == bytes.len(), "a full buffer");
        Ok(())
    }
}

fn says(text: &[u8], word: &str) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.contains(word))
}
