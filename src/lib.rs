//! map
pub mod queue;
pub mod wire;
pub mod clock;
pub mod ids;
pub mod shutdown;
pub mod telemetry;
pub mod log;
pub mod projection;
pub mod http;
pub mod admission;
pub mod node;
pub mod audit;
pub mod config;
pub mod up;
pub mod cli;
