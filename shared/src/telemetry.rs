//! JSON logs, one line each, to standard output: CloudWatch's own format for Lambda.

use tracing_subscriber::EnvFilter;

/// Starts logging. `directives` is a filter such as `info` or `worker=debug`; what it says is capped for the
/// database driver, which would log bind parameters (callers' data) at debug level.
pub fn init(directives: &str) {
    let filter = EnvFilter::try_new(format!("{directives},tokio_postgres=info"))
        .unwrap_or_else(|_| EnvFilter::new("info,tokio_postgres=info"));
    // A second call (tests in one process) finds a subscriber in place and leaves it.
    let _ = tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).try_init();
    // A panic is caught where it matters; here it becomes one line like any other, without what it says, which may
    // be a caller's data.
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        tracing::error!(location, "panicked");
    }));
}
