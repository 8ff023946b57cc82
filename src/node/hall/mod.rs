//! The hall: who sits on this node, and the pushers that tell each of them where they stand.
//!
//! A seat ([`seats`]) is a visitor's hold on a place; it is what the log knows. The socket on it
//! ([`sitting`]) is one slot ([`slots`]) of a pusher ([`pusher`]), which costs no task and no buffer while nothing
//! happens. How often somebody is told is in [`cadence`].

pub(super) mod seats;
mod index;
pub(super) mod sitting;
pub(super) mod pushers;
mod pusher;
mod row;
mod slots;
mod room;
mod cadence;
