//! Anteroom: a virtual waiting room whose order anyone can replay.
//!
//! Facts go into one ordered log. One pure fold turns the log into a line of people. Everything
//! else is a thin shell that carries facts in, or carries out what the fold says. **The only way
//! back is a new fact in the log.**
//!
//! ```text
//!  visitor --> node/entry ---> log/append -->+-----------+
//!  operator -> admission ----> log/fence --->| JetStream |  the only truth: facts in one order
//!                  ^                         +-----+-----+
//!                  +---------- log/tail ----------+|
//!                                                  +-- log/tail --> projection --> sled
//!                                                                       |
//!  visitor <-- node/hall <----- node/places <-- node/feed <-- log/talk <+
//! ```
//!
//! # The rooms, in reading order
//!
//! | room | what may be in it |
//! |---|---|
//! | [`queue`] | the rules: facts, the fold, who is let in next. Pure |
//! | [`wire`] | bytes at the edges: the log's JSON, feed, questions, socket messages, tokens |
//! | [`log`] | the only room that knows NATS |
//! | [`projection`] | role: fold the log, tell all nodes what moved, answer where someone stands |
//! | [`node`] | role: sockets and the site's side of HTTP |
//! | [`admission`] | role: decide, sign, take back; the operator API |
//! | [`audit`] | replay a log and judge it |
//! | [`up`] | the supervisor: everything on one machine |
//! | [`cli`] | what can be said to the program |
//! | [`switchboard`] | the command that was given, and the role that it runs |
//! | [`config`] [`clock`] [`ids`] [`http`] [`scheduling`] [`shutdown`] [`telemetry`] | one door each to the outside |
//!
//! `queue` uses nothing; `wire` and the doors use `queue`; `log` uses those; the roles use all of
//! them and never one another. A test keeps these directions.
//!
//! # What always holds
//!
//! - Nothing is said to a visitor about their place before the log has it on disk.
//! - The line changes in [`queue::line::Line::apply`] and nowhere else, live and on replay alike.
//!   It never fails: a fact that may not count counts nowhere, and is named.
//! - `queue` never waits, never reads a clock, never draws a random number.
//! - A decision is fenced on the decision before it. Whether something is done is read from the
//!   fold, after the entry came back; never from the answer to an append.
//! - Nodes decide nothing and keep nothing. A projector writes nothing into the log.
//! - Decisions about people use the log's time only, never a machine's wall clock. Each says what time it
//!   is, so that it goes on evenly whichever server stamps the entry.
//! - A node's word about its own past is no news: it loses against what came after.
//! - What an entry meant when it was written it means for good: new rules need a new level.
//! - A frame of the feed does not grow with the number of people who wait.
//! - Tokens and connection ids are never in the log, in a line of it, or in an address.
//!
//! # Five walks through the code
//!
//! **Join.** `node/api` upgrades the request; `node/entry` reads JOIN and derives the visitor
//! ([`ids`]); [`log::append`] writes it with whoever else came meanwhile; when the log acknowledged,
//! JOINED is said; `node/feed` hears the delta that covers the entry, and the socket goes to its pusher
//! (`node/hall`), which tells the first numbers and all that follow.
//!
//! **Reconnect.** The connection id is verified without a look-up; a seat on this node is taken over
//! (`node/hall/seats`), otherwise a projector is asked (`node/lookups`) and `reconnected` is written.
//! When it comes back, or does not, [`queue::seat`] says whether the seat is kept.
//!
//! **Admit.** Of several workers one decides (`admission/turn`), and the others stand by with a hot fold.
//! `admission/worker` folds the log; [`queue::admit::decide`] says who is due; the entry is
//! fenced; when it comes back, nodes hear it by the feed and ask for the tokens of those who sit
//! with them (`node/mint`); the token is signed from the grant (`admission/signer`).
//!
//! **Enter.** `node/passes` hands the token to admission and asks again where an answer may be lost;
//! `admission/command` writes `redeemed` with the request's key, and when it comes back the pass is signed
//! (`admission/signer`, with the key that `admission/keys` says). `node/authorize` verifies a pass by what
//! the feed brought: keys, and passes that were given back.
//!
//! **Recover.** A projector opens its store, believes it only after checking every value, and folds
//! on from there, or from the first entry. An admission worker folds from the first entry. A node
//! asks for a snapshot. Nothing else is kept anywhere.

pub mod queue;
pub mod wire;
pub mod log;
pub mod projection;
pub mod node;
pub mod admission;
pub mod audit;
pub mod up;
pub mod cli;
pub mod switchboard;
pub mod config;
pub mod clock;
pub mod ids;
pub mod http;
pub mod scheduling;
pub mod shutdown;
pub mod telemetry;
