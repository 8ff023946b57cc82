//! What a process says with its heartbeat. JSON, for a moment's use; what can't be read says only that
//! somebody is there.

use serde::{Deserialize, Serialize};

use crate::queue::event::Level;

/// One beat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Beat {
    /// The highest level of a log that this program knows; 0 where it does not say.
    pub level: u16,
    /// Of a worker: whether it is this one that decides.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub active: bool,
    /// Of a worker: what sites reported to it since its last beat.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub loads: Vec<Reported>,
    /// Of a node: what it counts, as Prometheus text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub counts: String,
}

/// The load of a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    /// The queue in front of it.
    pub queue: String,
    /// In thousandths of what it can bear.
    pub milli: u16,
}

impl Beat {
    /// The beat of a program that knows levels of a log up to this one.
    pub fn of(level: Level) -> Self {
        Self { level: level.0, ..Self::default() }
    }
}

/// Reads a beat.
pub fn read(payload: &[u8]) -> Beat {
    serde_json::from_slice(payload).unwrap_or_default()
}

/// Writes a beat.
pub fn write(beat: &Beat) -> Vec<u8> {
    // Plain data into memory: writing it can't fail.
    serde_json::to_vec(beat).unwrap_or_default()
}
