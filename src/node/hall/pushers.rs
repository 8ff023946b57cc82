//! The pushers of a node, as others see them: sockets are handed over to them, and notices are put
//! in. A visitor's pusher follows from their ticket, so what is said of one visitor stays in order.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::mpsc;

use crate::http::door::Place;
use crate::node::Queue;
use crate::node::hall::pusher::Pusher;
use crate::node::hall::sitting::{Notice, Sitting};
use crate::queue::event::Ticket;
use crate::shutdown::Shutdown;
use crate::wire::frame::Inbound;

/// The pushers of a node.
pub(in crate::node) struct Pushers {
    inboxes: Vec<Arc<Inbox>>,
}

/// A visitor's socket after JOINED.
pub(in crate::node) struct Handed {
    pub(in crate::node) socket: OwnedFd,
    pub(in crate::node) queue: Arc<Queue>,
    pub(in crate::node) sitting: Sitting,
    /// What came of it and is not understood yet.
    pub(in crate::node) inbound: Inbound,
    /// What is to be sent before anything else.
    pub(in crate::node) unsent: Vec<u8>,
    /// What was said of it before it was handed over.
    pub(in crate::node) notices: mpsc::Receiver<Notice>,
    /// Its place among the connections of the node.
    pub(in crate::node) place: Option<Place>,
}

/// What a pusher is told.
pub(super) enum Mail {
    /// Here is a socket.
    Take(Box<Handed>),
    /// Something happened to the visitor of this queue, if they still have this sitting.
    Tell(u32, Sitting, Notice),
}

/// Where a pusher gets its mail. It holds what came since the pusher last looked: sockets, which
/// are bounded by the connections of the node, and few notices for each.
pub(super) struct Inbox {
    /// None once the pusher has ended.
    mail: Mutex<Option<Vec<Mail>>>,
    waker: OwnedFd,
    is_woken: AtomicBool,
}

impl Pushers {
    /// Starts so many pushers, with room for so many sockets in all. They end when the node does, after their visitors were sent away.
    pub(in crate::node) fn start(
        count: usize,
        sockets: usize,
        shutdown: &Shutdown,
    ) -> io::Result<Self> {
        let mut inboxes = Vec::new();
        for number in 0..count {
            let inbox = Arc::new(Inbox::new()?);
            let pusher =
                Pusher::new(Arc::clone(&inbox), sockets.div_ceil(count), shutdown.clone())?;
            shutdown.thread(&format!("pusher-{number}"), move || pusher.run())?;
            inboxes.push(inbox);
        }
        let (to_wake, stopping) = (inboxes.clone(), shutdown.clone());
        shutdown.spawn(async move {
            stopping.stopped().await;
            to_wake.iter().for_each(|inbox| inbox.wake());
        });
        Ok(Self { inboxes })
    }

    /// Hands a socket over; it comes back when there is no pusher for it.
    pub(super) fn give(&self, handed: Handed) -> Result<(), Box<Handed>> {
        let handed = Box::new(handed);
        let Some(inbox) = self.inbox(handed.sitting.ticket) else { return Err(handed) };
        match inbox.put(Mail::Take(handed)) {
            Err(Mail::Take(handed)) => Err(handed),
            Ok(()) | Err(Mail::Tell(..)) => Ok(()),
        }
    }

    /// Tells a visitor something.
    pub(super) fn tell(&self, row: u32, sitting: Sitting, notice: Notice) {
        if let Some(inbox) = self.inbox(sitting.ticket) {
            // A pusher that has ended has sent everybody away.
            let _ = inbox.put(Mail::Tell(row, sitting, notice));
        }
    }

    /// Something moved.
    pub(in crate::node) fn wake(&self) {
        self.inboxes.iter().for_each(|inbox| inbox.wake());
    }

    fn inbox(&self, ticket: Ticket) -> Option<&Arc<Inbox>> {
        let which = usize::try_from(ticket.0).ok()?.checked_rem(self.inboxes.len())?;
        self.inboxes.get(which)
    }
}

impl Inbox {
    fn new() -> io::Result<Self> {
        let waker = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { mail: Mutex::new(Some(Vec::new())), waker, is_woken: AtomicBool::new(false) })
    }

    /// What becomes readable when the pusher is to look.
    pub(super) fn waker(&self) -> &OwnedFd {
        &self.waker
    }

    fn wake(&self) {
        if !self.is_woken.swap(true, Ordering::AcqRel) {
            // It fails only where it was woken 2^64 times in vain.
            let _ = rustix::io::write(&self.waker, &1_u64.to_ne_bytes());
        }
    }

    /// What came since the last time. Before that, the next mail wakes the pusher again.
    pub(super) fn empty(&self) -> Vec<Mail> {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.waker, &mut count);
        // Whoever found it woken has done so before this, and what they have put is seen from here on.
        self.is_woken.swap(false, Ordering::AcqRel);
        self.lock().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// No mail is taken any more; what came since the last time.
    pub(super) fn close(&self) -> Vec<Mail> {
        self.lock().take().unwrap_or_default()
    }

    fn put(&self, mail: Mail) -> Result<(), Mail> {
        match self.lock().as_mut() {
            Some(all) => all.push(mail),
            None => return Err(mail),
        }
        self.wake();
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Vec<Mail>>> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
