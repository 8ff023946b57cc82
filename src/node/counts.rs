//! What a node counts. It says them with its heartbeat, and the operator listener shows those of all
//! nodes.

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

use crate::http::door::{Door, Refused};

/// Bounds of the histogram of pushes, in seconds: from one frame of the feed to what is too late.
pub(super) const BUCKETS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

const REFUSED: &str = "anteroom_refused_total";
const ENDED: &str = "anteroom_sockets_ended_total";

/// Says what each count is.
pub(super) fn describe() {
    describe_gauge!("anteroom_sockets", "Visitors' sockets that are open.");
    describe_gauge!("anteroom_connections", "Connections of any kind that are open.");
    describe_gauge!("anteroom_handshakes_under_way", "Connections that are not understood yet.");
    describe_gauge!("anteroom_slots", "Sockets that pushers have.");
    describe_counter!("anteroom_handshakes_total", "Upgrades to a socket that were granted.");
    describe_counter!(REFUSED, "Visitors who were turned away at the door, by reason.");
    describe_counter!(ENDED, "Sockets that ended after their visitor was in line, by reason.");
    describe_counter!("anteroom_pushes_total", "Numbers that were told.");
    describe_counter!(
        "anteroom_pushes_dropped_total",
        "Numbers that were not told because their socket took nothing; newer ones follow."
    );
    describe_histogram!(
        "anteroom_push_latency_seconds",
        Unit::Seconds,
        "From news at the node until visitors were told who are told at once: one for each step of \
         at most 256 of them."
    );
}

/// Notes how many are here now.
pub(super) fn note(door: &Door) {
    let number = |number: usize| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
    gauge!("anteroom_sockets").set(number(door.sockets()));
    gauge!("anteroom_connections").set(number(door.connections()));
    counter!(REFUSED, "reason" => Refused::Address.reason()).absolute(door.refused());
    gauge!("anteroom_handshakes_under_way").set(number(door.handshakes()));
}

/// An upgrade was granted.
pub(super) fn handshake() {
    counter!("anteroom_handshakes_total").increment(1);
}

/// Somebody was turned away at the door.
pub(super) fn refused(reason: &'static str) {
    counter!(REFUSED, "reason" => reason).increment(1);
}

/// The socket of one who was in line has ended.
pub(super) fn ended(reason: &'static str) {
    counter!(ENDED, "reason" => reason).increment(1);
}

/// What pushers count, at hand.
pub(super) struct Pushes {
    /// Numbers that were told.
    pub(super) told: Counter,
    /// Numbers that were not.
    pub(super) dropped: Counter,
    /// Seconds from news to telling.
    pub(super) latency: Histogram,
    /// Sockets that pushers have.
    pub(super) slots: Gauge,
}

impl Pushes {
    pub(super) fn new() -> Self {
        Self {
            told: counter!("anteroom_pushes_total"),
            dropped: counter!("anteroom_pushes_dropped_total"),
            latency: histogram!("anteroom_push_latency_seconds"),
            slots: gauge!("anteroom_slots"),
        }
    }
}
