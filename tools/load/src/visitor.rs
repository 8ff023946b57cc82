//! One visitor: where they are in the protocol, and what a message means there. No input or output.

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use crate::message::Message;

/// What a visitor is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Stays in line.
    Visitor,
    /// Stands at the front, and leaves when told to.
    Leaver,
    /// Comes while something else goes on.
    Other,
    /// Reads nothing after the first position.
    Stuck,
    /// Connects, and says nothing.
    Idle,
    /// Says a byte of the request now and then.
    Drip,
    /// Is upgraded, and says nothing.
    Silent,
}

impl Role {
    /// Whether it keeps to the protocol, so that it is owed a place.
    pub fn is_honest(self) -> bool {
        match self {
            Self::Visitor | Self::Leaver | Self::Other => true,
            Self::Stuck | Self::Idle | Self::Drip | Self::Silent => false,
        }
    }

    /// Whether it never gets as far as a JOIN, so that no place is asked for.
    pub fn is_attacker(self) -> bool {
        match self {
            Self::Idle | Self::Drip | Self::Silent => true,
            Self::Visitor | Self::Leaver | Self::Other | Self::Stuck => false,
        }
    }
}

/// How far a visitor has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Has no socket, and will get one.
    Away,
    /// The socket is connecting.
    Connecting,
    /// The upgrade was asked for.
    Upgrading,
    /// Nothing was said yet.
    Open,
    /// JOIN or RECONNECT was said.
    Asked,
    /// JOINED came, no position yet.
    Joined,
    /// Has a position.
    Waiting,
    /// It is their turn.
    Admitted,
    /// The place is gone, as the server said.
    Ended,
    /// Something went wrong, which is reported.
    Failed,
}

impl Stage {
    /// Whether a handshake is under way.
    pub fn is_opening(self) -> bool {
        matches!(self, Self::Connecting | Self::Upgrading)
    }

    /// Whether there is no open WebSocket, but is to be one.
    pub fn is_unopened(self) -> bool {
        self == Self::Away || self.is_opening()
    }

    /// Whether the visitor still waits to be told where they stand.
    pub fn is_unsettled(self) -> bool {
        self.is_unopened() || matches!(self, Self::Open | Self::Asked | Self::Joined)
    }
}

/// A visitor of whom no number is known.
pub const UNKNOWN: u32 = u32::MAX;

/// One visitor.
pub struct Visitor {
    /// What they are there for.
    pub role: Role,
    /// How far they have come. Changed by the crowd, which counts stages.
    pub stage: Stage,
    /// The node that they are on, or go to next.
    pub url: usize,
    /// Whether they say JOIN as soon as they can.
    pub joins: bool,
    /// Counts their sockets, so that an event of an old one is known as such.
    pub generation: u32,
    /// The socket.
    pub socket: Option<OwnedFd>,
    /// What came of a frame that is not complete.
    pub leftover: Vec<u8>,
    /// Random bits: the same place whenever JOIN is said.
    pub join_key: u128,
    /// What resumes the place.
    pub connection_id: Option<Box<str>>,
    /// When this socket began to connect.
    pub began_at: u64,
    /// When JOIN was said first; 0 before that.
    pub joined_at: u64,
    /// Since when they have been without a place on a socket; 0 if they have one.
    pub away_since: u64,
    /// Since when they do what they must not, if they are hostile; 0 as long as they don't.
    pub hostile_since: u64,
    /// Places ahead, as they were told last.
    pub count: u32,
    /// Waiting in all, as they were told last.
    pub waiting: u32,
    /// They are watched until they are told fewer than this; [`UNKNOWN`] if they are not.
    pub watched: u32,
    /// How many were ahead when notes were begun to be taken; [`UNKNOWN`] if none are.
    pub noted_from: u32,
    /// Attempts to come back since the last success.
    pub tries: u32,
    /// Whether they said LEAVE.
    pub has_left: bool,
    /// Bytes of the request that were sent, if they are sent one by one.
    pub sent: usize,
}

/// What a message changes.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// They are where they were.
    Stay,
    /// They have come further.
    To(Stage),
    /// The message is an error, by its code: what follows is said by the close behind it.
    Refused(String),
}

/// A message breaks what is promised.
#[derive(Debug, PartialEq, Eq)]
pub enum Wrong {
    /// More people are ahead than before.
    Rise(u32, u32),
    /// Another id than the one that the place had.
    Doubled,
    /// It does not belong here.
    OutOfOrder(String),
}

impl Visitor {
    /// One who is still to come.
    pub fn new(role: Role, url: usize, joins: bool, join_key: u128) -> Self {
        Self {
            role,
            stage: Stage::Away,
            url,
            joins,
            generation: 0,
            socket: None,
            leftover: Vec::new(),
            join_key,
            connection_id: None,
            began_at: 0,
            joined_at: 0,
            away_since: 0,
            hostile_since: 0,
            count: UNKNOWN,
            waiting: UNKNOWN,
            watched: UNKNOWN,
            noted_from: UNKNOWN,
            tries: 0,
            has_left: false,
            sent: 0,
        }
    }

    /// Takes note of what the server said.
    pub fn hear(&mut self, message: Message) -> Result<Step, Wrong> {
        match (message, self.stage) {
            (Message::Update { count, waiting }, Stage::Joined | Stage::Waiting) => {
                let before = std::mem::replace(&mut self.count, count);
                self.waiting = waiting;
                if count > before {
                    return Err(Wrong::Rise(before, count));
                }
                let is_first = self.stage == Stage::Joined;
                Ok(if is_first { Step::To(Stage::Waiting) } else { Step::Stay })
            }
            (Message::Joined(id), Stage::Asked) => {
                let id = id.into_boxed_str();
                match self.connection_id.replace(id.clone()) {
                    Some(before) if before != id => Err(Wrong::Doubled),
                    _ => Ok(Step::To(Stage::Joined)),
                }
            }
            (Message::Admitted, Stage::Joined | Stage::Waiting) => Ok(Step::To(Stage::Admitted)),
            // A place may have ended before it was asked for again, and after a grant.
            (
                Message::Ended(_),
                Stage::Asked | Stage::Joined | Stage::Waiting | Stage::Admitted,
            ) => Ok(Step::To(Stage::Ended)),
            (Message::Error(code), _) => Ok(Step::Refused(code)),
            (message, stage) => Err(Wrong::OutOfOrder(format!("{message:?} while {stage:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visitor(stage: Stage) -> Visitor {
        let mut visitor = Visitor::new(Role::Visitor, 0, true, 1);
        visitor.stage = stage;
        visitor
    }

    fn update(count: u32) -> Message {
        Message::Update { count, waiting: 10 }
    }

    #[test]
    fn a_place_is_taken_in_order() {
        let mut visitor = visitor(Stage::Asked);
        let joined = || Message::Joined("a".to_owned());
        assert_eq!(visitor.hear(joined()), Ok(Step::To(Stage::Joined)));
        visitor.stage = Stage::Joined;
        assert_eq!(visitor.hear(update(5)), Ok(Step::To(Stage::Waiting)));
        visitor.stage = Stage::Waiting;
        assert_eq!(visitor.hear(update(5)), Ok(Step::Stay));
        assert_eq!(visitor.hear(update(0)), Ok(Step::Stay));
        assert_eq!(visitor.hear(Message::Admitted), Ok(Step::To(Stage::Admitted)));
    }

    #[test]
    fn a_rise_is_seen_even_over_a_reconnect() {
        let mut visitor = visitor(Stage::Waiting);
        assert_eq!(visitor.hear(update(5)), Ok(Step::Stay));
        visitor.stage = Stage::Joined;
        assert_eq!(visitor.hear(update(6)), Err(Wrong::Rise(5, 6)));
    }

    #[test]
    fn a_position_before_the_place_is_seen() {
        let told = visitor(Stage::Asked).hear(update(5));
        assert!(matches!(told, Err(Wrong::OutOfOrder(_))), "{told:?}");
    }

    #[test]
    fn another_id_for_the_same_place_is_seen() {
        let mut visitor = visitor(Stage::Asked);
        visitor.connection_id = Some("a".into());
        assert_eq!(visitor.hear(Message::Joined("b".to_owned())), Err(Wrong::Doubled));
    }
}
