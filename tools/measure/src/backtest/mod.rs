//! How far estimates can be believed: histories from seeds, and the logs of real ones, with what
//! visitors would have been told beside what then came. `tools/bench estimates` prints it as a table.

#![expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers that this file drew itself; a mistake ends the program"
)]

mod chance;
mod scenario;
mod score;
mod simulate;

use anteroom::queue::event::{At, Entry};

pub(crate) use scenario::Scenario;
pub(crate) use score::{Moment, Scores, median_error, score, within_range};

/// The scores of one kind of history, over seeds.
pub(crate) fn scores(scenario: Scenario, seeds: impl Iterator<Item = u64>) -> Scores {
    let mut all = Scores::default();
    seeds.for_each(|seed| all.add(score(&history(scenario, seed))));
    all
}

/// The log of one kind of history and a seed.
pub(crate) fn history(scenario: Scenario, seed: u64) -> Vec<(At, Entry)> {
    simulate::simulate(&scenario::plan(scenario, seed), seed)
}
