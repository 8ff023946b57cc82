//! A socket's hold on a seat, and what it hears of it.

use tokio::sync::mpsc;

use crate::queue::event::Ticket;
use crate::wire::ask::Minted;
use crate::wire::socket::{EndReason, ErrorCode};

/// A socket's hold on a seat, until another takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) struct Sitting {
    pub(in crate::node) ticket: Ticket,
    pub(super) number: u32,
}

impl Sitting {
    /// Whether this one took the seat after that other.
    pub(in crate::node) fn is_after(self, other: Self) -> bool {
        // They are counted, and the count may have come round.
        let ahead = self.number.wrapping_sub(other.number);
        (1..=u32::MAX / 2).contains(&ahead)
    }
}

/// A seat that was just taken, and what happens to it.
pub(in crate::node) type Taken = (Sitting, mpsc::Receiver<Notice>);

/// What happened to the visitor on a socket.
#[derive(Debug)]
pub(in crate::node) enum Notice {
    /// Their turn.
    Admitted(Minted),
    /// The place is gone.
    Ended(EndReason),
    /// A newer socket has the place.
    Replaced,
    /// The visitor wanted to leave, and the log did not take it.
    Unavailable(ErrorCode),
}
