//! The rules of the line. Pure: the same facts give the same line, on every machine and for good.
//!
//! Nothing in here waits, reads a clock, draws a random number, or knows how a fact is written
//! down. Time comes in as the store time of a fact, as what a decision states, or as `now` where a decision is asked for.

pub mod event;
pub mod places;
pub mod policy;
pub mod door;
pub mod rate;
pub mod presence;
pub mod place;
pub mod change;
mod index;
mod grants;
pub mod time;
pub mod line;
mod attendance;
mod decisions;
pub mod seat;
pub mod checkpoint;
pub mod digest;
pub mod admit;
pub mod load;
pub mod pace;
pub mod estimate;
