//! How often a fault is injected, and the line of the table that tells of it.

/// Few repetitions in a test run, the stated number when `ANTEROOM_FAULTS` is `full`.
pub fn times(short: usize, full: usize) -> usize {
    let is_full = std::env::var("ANTEROOM_FAULTS").is_ok_and(|value| value == "full");
    if is_full { full } else { short }
}

/// Prints one line of the table. Only what was seen may stand in it.
pub fn row(fault: &str, repetitions: usize, result: &str) {
    println!("| {fault} | {repetitions} | {result} |");
}
