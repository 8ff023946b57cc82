//! What those who wait take of this process' memory, by what the system says.

use anteroom::queue::event::Ticket;
use anteroom::queue::places::Places;
use anyhow::Context as _;
use serde_json::{Value, json};

use crate::crowd::{Act, Crowd};

/// Sets that are held at once, so that one of 130 KB is seen among what else a process does.
const COPIES: u32 = 100;
/// Facts in one entry.
const PER_ENTRY: usize = 100;

/// So many people wait: the set that ranks are asked of, and a whole line as a projector has it.
pub(crate) fn memory(people: u32) -> anyhow::Result<Value> {
    let before = resident_kib()?;
    let sets: Vec<Places> = (0..COPIES).map(|_| waiting(people)).collect();
    let places = (resident_kib()? - before) / f64::from(COPIES);
    drop(sets);
    let before = resident_kib()?;
    let mut crowd = Crowd::default();
    for _ in 0..people as usize / PER_ENTRY {
        crowd.act(Act::Join, PER_ENTRY);
    }
    let line = resident_kib()? - before;
    let counted = crowd.line().waiting().len();
    Ok(json!({ "people": counted, "places_kib": places, "line_mb": line * 1024.0 / 1e6 }))
}

/// A set of so many people, filled one by one, as the fold does it.
pub(crate) fn waiting(people: u32) -> Places {
    let mut places = Places::default();
    for ticket in 0..people {
        places.insert(Ticket(ticket));
    }
    places
}

fn resident_kib() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    Ok(resident.context("no VmRSS")?.trim_end_matches("kB").trim().parse()?)
}
