//! Logs: to standard error, one line an event. `ANTEROOM_LOG` takes a filter as `info,anteroom=debug`.
//!
//! Counts: each process writes its own as Prometheus text; those of several are merged into one.

use std::collections::BTreeMap;

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Libraries that write, below a warning, addresses with their passwords and whatever is sent and
/// received: tokens, passes and connection ids.
const CARELESS: [&str; 3] = ["async_nats", "ureq", "ureq_proto"];

/// Starts logging for this process, at `info` unless the filter says otherwise.
pub fn start(filter: Option<&str>) {
    let asked_for = EnvFilter::new(filter.unwrap_or("info"));
    let plain = !std::io::IsTerminal::is_terminal(&std::io::stderr());
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(!plain).with_target(false);
    // A filter of its own: within one filter, whoever names a library more exactly would overrule it.
    tracing_subscriber::registry().with(lines).with(asked_for).with(filter_fn(is_discreet)).init();
}

/// Whether this may be written at all, whatever is asked for.
fn is_discreet(line: &Metadata<'_>) -> bool {
    let library = line.target().split("::").next().unwrap_or_default();
    *line.level() <= Level::WARN || !CARELESS.contains(&library)
}

/// The counts of this process.
#[derive(Clone)]
pub struct Counts(PrometheusHandle);

impl Counts {
    /// Starts counting. Every count is labelled with what this process is; `buckets` are the bounds of
    /// its histograms, in seconds. A process counts once: a second start counts nothing.
    pub fn start(role: &'static str, id: &str, buckets: &[f64]) -> Result<Self, BuildError> {
        let builder = PrometheusBuilder::new().add_global_label(role, id).set_buckets(buckets)?;
        let recorder = builder.build_recorder();
        let counts = Self(recorder.handle());
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::debug!("counted by another already");
        }
        Ok(counts)
    }

    /// All of them, as text (Prometheus' exposition format 0.0.4).
    pub fn text(&self) -> String {
        self.0.render()
    }
}

/// One text of several: what is of one name stands together, as the format asks.
pub fn merge<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    #[derive(Default)]
    struct Family<'a> {
        about: Vec<&'a str>,
        samples: Vec<&'a str>,
    }
    let mut families: BTreeMap<&str, Family<'_>> = BTreeMap::new();
    for text in texts {
        let mut name = "";
        for line in text.lines().filter(|line| !line.is_empty()) {
            match line.strip_prefix("# ") {
                Some(about) => {
                    name = about.split(' ').nth(1).unwrap_or_default();
                    let family = families.entry(name).or_default();
                    if !family.about.contains(&line) {
                        family.about.push(line);
                    }
                }
                // A histogram's samples have longer names than their family.
                None => families.entry(name).or_default().samples.push(line),
            }
        }
    }
    let lines = families.into_values().flat_map(|family| [family.about, family.samples].concat());
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_one_name_stands_together() {
        let one = "# HELP b Some.\n# TYPE b counter\nb{node=\"1\"} 3\n\n# TYPE a histogram\na_sum{node=\"1\"} 2\n";
        let two = "# TYPE a histogram\na_sum{node=\"2\"} 4\n# HELP b Some.\n# TYPE b counter\nb{node=\"2\"} 5\n";
        assert_eq!(
            merge([one, two]),
            "# TYPE a histogram\na_sum{node=\"1\"} 2\na_sum{node=\"2\"} 4\n# HELP b Some.\n# TYPE b counter\nb{node=\"1\"} 3\nb{node=\"2\"} 5\n"
        );
        assert_eq!(merge([]), "");
    }
}
