//! What a worker process counts. The operator listener shows it with what nodes count.

use metrics::{counter, describe_counter, describe_gauge, gauge};

const ACTIVE: &str = "anteroom_admission_active";
const FENCES_LOST: &str = "anteroom_fences_lost_total";
const GRANTS: &str = "anteroom_grants_total";

/// Says what each count is.
pub(super) fn describe() {
    describe_gauge!(ACTIVE, "Whether it is this process that decides: 1, or 0 while it stands by.");
    describe_counter!(FENCES_LOST, "Decisions that were void because another came before them.");
    describe_counter!(GRANTS, "Visitors whom this process has let in.");
}

/// Whether it is our turn to decide.
pub(super) fn active(is_active: bool) {
    gauge!(ACTIVE).set(f64::from(u8::from(is_active)));
}

/// A decision was void because another came before it.
pub(super) fn fence_lost() {
    counter!(FENCES_LOST).increment(1);
}

/// So many were let in by us.
pub(super) fn granted(people: usize) {
    counter!(GRANTS).increment(people as u64);
}
