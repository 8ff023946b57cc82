//! The only room that knows NATS. Facts go in by [`append`] (nodes, many in one entry) and
//! [`fence`] (admission, one decision at a time); everybody reads with [`tail`], one [`record`] after the other. What is not kept
//! (feed, questions, heartbeats) is in [`talk`].
//!
//! Nobody here uses a consumer: history is read by direct get, and what is new comes as the
//! stream's own republication, with sequence and store time. A reader therefore needs no right to
//! create anything, and leaves nothing behind in the server.

pub mod subjects;
pub mod connection;
mod codes;
pub mod stream;
pub mod publish;
pub mod append;
pub mod fence;
pub mod record;
pub mod tail;
pub mod talk;
