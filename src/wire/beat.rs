//! What a worker of admission says with its heartbeat, to the others of its kind. JSON, for a moment's
//! use; what can't be read says only that somebody is there.

use serde::{Deserialize, Serialize};

/// One beat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Beat {
    /// Whether it is this one that decides.
    pub active: bool,
    /// What sites reported to it since its last beat.
    pub loads: Vec<Reported>,
}

/// The load of a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    /// The queue in front of it.
    pub queue: String,
    /// In thousandths of what it can bear.
    pub milli: u16,
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
