//! Somebody at the front leaves, and everyone behind is told.

use std::thread::sleep;
use std::time::Duration;

use anyhow::bail;

use crate::fleet::Fleet;
use crate::orders::Order;
use crate::report::{Before, Figures};

/// By then everyone was told of a move, or it failed.
const TOLD_WAIT_MAX_MILLIS: u64 = 30_000;
/// What the server does after it has told the last one is counted for so long.
const AFTERMATH: Duration = Duration::from_millis(50);

/// What came of a move.
pub struct Move {
    /// When LEAVE was said.
    pub said_at: u64,
    /// When ENDED came.
    pub ended_at: u64,
    /// When each was told that they have come further.
    pub told_at: Vec<u64>,
    /// How many were not.
    pub untold: usize,
    /// Positions that came from just before LEAVE until the CPU time was looked at.
    pub pushes: u64,
    /// The CPU time that it took both sides.
    pub cpu: Figures,
}

/// The first leaver that is left leaves; until everyone was told.
pub fn make(fleet: &mut Fleet) -> anyhow::Result<Move> {
    fleet.all(|_| Order::Watch)?;
    let updates_before = fleet.tally.updates;
    let before = Before::now(fleet);
    let leaver = fleet.first(&Order::Leave)?;
    let others = fleet.all(|_| Order::Told { millis_max: TOLD_WAIT_MAX_MILLIS })?;
    sleep(AFTERMATH);
    let cpu = Before::now(fleet).cpu_since(&before);
    // What came since the last order is counted with this one.
    fleet.all(|_| Order::Serve { millis: 0 })?;
    let Some((said_at, ended_at)) = leaver.left else {
        bail!("LEAVE had no answer: {}", fleet.tally.violations.words.join("; "))
    };
    let untold: usize = others.iter().map(|answer| answer.untold).sum();
    if untold > 0 {
        fleet.tally.violations.add(|| format!("a move was not told to {untold}"));
    }
    // Some may have been told before the leaver was.
    let told_at = leaver.told.into_iter().chain(others.into_iter().flat_map(|one| one.told));
    let told_at = told_at.map(|at| at.max(said_at)).collect();
    let pushes = fleet.tally.updates - updates_before;
    Ok(Move { said_at, ended_at, told_at, untold, pushes, cpu })
}
