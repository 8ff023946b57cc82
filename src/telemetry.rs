//! Logs: to standard error, one line an event. `ANTEROOM_LOG` takes a filter as `info,anteroom=debug`.

use tracing_subscriber::EnvFilter;

/// Starts logging for this process, at `info` unless the filter says otherwise.
pub fn start(filter: Option<&str>) {
    // At `debug` these write addresses with their passwords, and requests.
    let filter = format!("{},async_nats=warn,ureq=warn,ureq_proto=warn", filter.unwrap_or("info"));
    let filter = EnvFilter::new(filter);
    let plain = !std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(!plain)
        .with_target(false)
        .init();
}
