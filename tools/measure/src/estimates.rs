//! The back-test of estimates as a command.

use std::path::{Path, PathBuf};

use anteroom::audit::export::ExportReader;
use anteroom::log::subjects::QueueId;
use anteroom::queue::event::{At, Entry, Level};
use anyhow::{Context as _, anyhow};
use clap::Args;
use serde_json::{Value, json};

use crate::backtest::{self, Moment, Scenario, Scores};

/// What is tested.
#[derive(Args)]
pub(crate) struct What {
    /// Seeds, from the first to the last
    #[arg(long, default_value = "10-39", value_parser = seeds)]
    seeds: (u64, u64),
    /// A real log instead, as `anteroom audit export` writes it
    #[arg(long, requires = "queue")]
    export: Option<PathBuf>,
    /// The queue that it is of
    #[arg(long)]
    queue: Option<String>,
}

/// The figures, for each kind of history and over all.
pub(crate) fn estimates(what: &What) -> anyhow::Result<Value> {
    if let (Some(file), Some(queue)) = (&what.export, &what.queue) {
        let queue = QueueId::parse(queue).context("no queue's name")?;
        let scores = backtest::score(&history(file, &queue)?);
        return Ok(json!({ "histories": [figures("real log", &scores)] }));
    }
    let (first, last) = what.seeds;
    let mut all = Scores::default();
    let mut histories = Vec::new();
    for scenario in Scenario::ALL {
        let scores = backtest::scores(scenario, first..=last);
        histories.push(figures(scenario.name(), &scores));
        all.add(scores);
    }
    histories.push(figures("all", &all));
    Ok(json!({ "seeds": [first, last], "histories": histories }))
}

fn figures(name: &str, scores: &Scores) -> Value {
    let of = |is_cut: bool| {
        let moments: Vec<&Moment> =
            scores.moments.iter().filter(|moment| moment.is_cut == is_cut).collect();
        json!({
            "moments": moments.len(),
            "untold": moments.iter().filter(|moment| moment.told.is_none()).count(),
            "error": backtest::median_error(&moments, Moment::estimate),
            "naive_error": backtest::median_error(&moments, |moment| Some(moment.naive)),
            "within_range": backtest::within_range(&moments),
        })
    };
    json!({
        "name": name,
        "gone": 100.0 * scores.gone as f64 / (scores.gone + scores.admitted).max(1) as f64,
        "waits": scores.waits,
        "rises_per_wait": scores.rises as f64 / scores.waits.max(1) as f64,
        "foreseeable": of(false),
        "cut": of(true),
    })
}

fn history(file: &Path, queue: &QueueId) -> anyhow::Result<Vec<(At, Entry)>> {
    let mut export = ExportReader::open(file)?;
    let mut history = Vec::new();
    while let Some(record) = export.next(queue)? {
        let written = record.read(queue, Level::NEWEST).map_err(|halt| anyhow!("{halt}"))?;
        let (entry, _) = written.at_level(Level::FIRST);
        history.push((record.stored, entry.clone()));
    }
    Ok(history)
}

fn seeds(text: &str) -> Result<(u64, u64), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let seed = |text: &str| text.parse().map_err(|_| format!("{text:?} is no seed"));
    Ok((seed(first)?, seed(last)?))
}
