//! The fold by itself, with nothing around it.

use std::hint::black_box;
use std::time::Instant;

use anteroom::queue::event::{At, Entry, Seq, Ticket};
use anteroom::queue::line::Line;
use serde_json::{Value, json};

use crate::crowd::{Act, Crowd};

/// Facts in one entry.
const PER_ENTRY: usize = 100;
/// For so many who wait, one more joins, one leaves, and one is let in.
const SHARE: usize = 10;

/// What one round took, in nanoseconds a fact.
struct Round {
    first_joins: f64,
    rank: f64,
    join: f64,
    leave: f64,
    admit: f64,
}

/// So many people join. Then all are asked for their rank, further ones join, some leave, and the
/// first are let in.
pub(crate) fn fold(people: u32, rounds: usize) -> Value {
    let mut crowd = Crowd::default();
    let mut make = |act, facts: usize| -> Vec<Entry> {
        (0..facts / PER_ENTRY).map(|_| crowd.act(act, PER_ENTRY)).collect()
    };
    let facts = people as usize;
    let first_joins = make(Act::Join, facts);
    let joins = make(Act::Join, facts / SHARE);
    let leaves = make(Act::Leave, facts / SHARE);
    let admissions = make(Act::Admit, facts / SHARE);
    let rounds: Vec<Round> = (0..rounds)
        .map(|_| {
            let mut line = Line::default();
            Round {
                first_joins: apply(&mut line, &first_joins),
                rank: rank(&line, people),
                join: apply(&mut line, &joins),
                leave: apply(&mut line, &leaves),
                admit: apply(&mut line, &admissions),
            }
        })
        .collect();
    let median = |of: fn(&Round) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    json!({
        "people": people,
        "rounds": rounds.len(),
        "first_joins_ns": median(|round| round.first_joins),
        "join_ns": median(|round| round.join),
        "leave_ns": median(|round| round.leave),
        "admit_ns": median(|round| round.admit),
        "rank_ns": median(|round| round.rank),
    })
}

/// Nanoseconds a rank, of everyone in the order of their tickets.
fn rank(line: &Line, people: u32) -> f64 {
    let begun = Instant::now();
    let ranks = (0..people).map(|ticket| u64::from(line.waiting().rank(Ticket(ticket))));
    black_box(ranks.sum::<u64>());
    begun.elapsed().as_nanos() as f64 / f64::from(people)
}

/// Nanoseconds a fact.
fn apply(line: &mut Line, entries: &[Entry]) -> f64 {
    let begun = Instant::now();
    for entry in entries {
        let seq = Seq(line.seq().0 + 1);
        black_box(line.apply(seq, At(1_000_000 * seq.0 as i64), entry));
    }
    begun.elapsed().as_nanos() as f64 / (entries.len() * PER_ENTRY) as f64
}
