//! What must be so whenever all that was under way has arrived.

use crate::log::Visitor;
use crate::world::{Seat, Stage, World};

impl World {
    /// What is wrong, in a world that is at rest.
    pub(crate) fn wrong_at_rest(&self) -> Option<&'static str> {
        let visitors = u8::try_from(self.nodes[0].seats.len()).unwrap_or(u8::MAX);
        (0..visitors).find_map(|visitor| self.wrong_with(visitor))
    }

    fn wrong_with(&self, visitor: Visitor) -> Option<&'static str> {
        let here = |index: &u8| {
            let socket = &self.sockets[usize::from(*index)];
            socket.visitor == visitor && socket.stage == Stage::Here
        };
        let mut sockets = (0..u8::try_from(self.sockets.len()).unwrap_or(u8::MAX)).filter(here);
        let (first, second) = (sockets.next(), sockets.next());
        let spot = self.log.spot(visitor, self.log.end());
        let Some(index) = first else {
            let is_present = spot.is_some_and(|spot| spot.is_present);
            return is_present.then_some("somebody without a socket is present");
        };
        if second.is_some() {
            return Some("a visitor has two sockets");
        }
        let socket = &self.sockets[usize::from(index)];
        let node = &self.nodes[usize::from(socket.node)];
        let has_seat = |seat: &&Seat| seat.is_taken && seat.sitting == index;
        let Some(seat) = node.seats[usize::from(visitor)].as_ref().filter(has_seat) else {
            return Some("a socket is without a seat");
        };
        let Some(spot) = spot else { return Some("a visitor with a socket has no place") };
        if !spot.is_present {
            return Some("somebody with a socket is absent");
        }
        let is_there = spot.last == seat.claim.socket() && spot.last.node == node.id(socket.node);
        if !is_there {
            return Some("somebody is elsewhere in the log than in fact");
        }
        if spot.hand != socket.hand {
            return Some("a socket has a place that was carried away");
        }
        None
    }
}
