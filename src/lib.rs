//! map
pub mod queue;
pub mod wire;
