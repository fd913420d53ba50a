//! JSON logs, one line each, to standard output: CloudWatch's own format for Lambda.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

/// Starts logging. `directives` is a filter such as `info` or `worker=debug`; what it says is limited for the
/// database driver, which would log bind parameters (callers' data) at debug level.
pub fn init(directives: &str) {
    // `Targets` rather than `EnvFilter`, whose regular expressions weigh 0.4 MB in each function.
    let filter: Targets = directives.to_ascii_lowercase().parse().unwrap_or_default();
    let wished = filter.default_level().unwrap_or(LevelFilter::INFO);
    let filter = filter.with_default(wished).with_target("tokio_postgres", wished.min(LevelFilter::INFO));
    // A second call (tests in one process) finds a subscriber in place and leaves it.
    let lines = tracing_subscriber::fmt::layer().json().flatten_event(true);
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    // A panic is caught where it matters; here it becomes one line like any other, without what it says, which may
    // be a caller's data.
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        tracing::error!(location, "panicked");
    }));
}
