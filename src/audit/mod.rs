//! What anyone can say of a queue who has its log and nothing else: by the stream, with an identity
//! that may only read, or by a file that was exported from it.
//!
//! `reading` retells the facts a second time, naively, and `judge` holds them against what is
//! promised; neither uses the live fold, so both would have to be wrong in the same way to agree.

mod reading;
mod times;
mod graces;
mod who;
mod decided;
mod judge;
mod fingerprint;
pub mod export;
pub mod source;
pub mod verify;
pub mod history;
