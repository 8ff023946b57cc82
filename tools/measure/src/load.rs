//! A day of a site whose load the rate follows, as the rules' tests have it: its constants, what came
//! of it, and the time series.

use serde_json::{Value, json};

use crate::site::{DAY_END, HALF, SILENCE, STEP, Second, Site, day, figures, run};

/// Every how many seconds there is a point of the series.
const POINT_EVERY: usize = 5;

pub(crate) fn load(seed: u64) -> Value {
    let site = Site::drawn(seed);
    let seconds = run(&site, seed, DAY_END, day);
    let figures = figures(&site, seed, &seconds);
    let points = |of: fn(&Second) -> f64| -> Vec<f64> {
        let points = seconds.chunks(POINT_EVERY).filter_map(<[_]>::first);
        points.map(|second| (of(second) * 1_000.0).round() / 1_000.0).collect()
    };
    json!({
        "seed": seed,
        "site": {
            "cap": site.cap,
            "sustainable": site.sustainable,
            "session_seconds": site.session,
            "session_stages": site.stages,
            "coming_seconds": site.coming,
            "smoothing_seconds": site.smoothing,
            "report_every_seconds": site.report_every,
            "noise": site.noise,
        },
        "figures": {
            "peak": figures.peak,
            "start_minutes": figures.start_minutes,
            "used": figures.steady.used,
            "swing": figures.steady.swing,
            "changes": figures.steady.changes,
            "turns": figures.steady.turns,
            "step_peak": figures.step_peak,
            "half_beyond_seconds": figures.half_over - figures.half_least,
            "half_least_seconds": figures.half_least,
            "half_minutes": figures.half_minutes,
            "floor_seconds": figures.floor_seconds,
            "silent_changes": figures.silent_changes,
            "silence_minutes": figures.silence_minutes,
            "gap_seconds": figures.gap,
            "facts": figures.facts,
        },
        "begins": { "step": STEP, "half": HALF, "silence": SILENCE },
        "point_every_seconds": POINT_EVERY,
        "load": points(|second| second.load),
        "per_minute": points(|second| f64::from(second.per_minute)),
    })
}
