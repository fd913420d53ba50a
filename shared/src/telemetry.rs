//! JSON logs, one line each, to standard output: CloudWatch's own format for Lambda.

use tracing_subscriber::EnvFilter;

/// Starts logging. `directives` is a filter such as `info` or `worker=debug`; what it says is capped for the
/// database driver, which would log bind parameters (callers' data) at debug level.
pub fn init(directives: &str) {
    let filter = EnvFilter::try_new(format!("{directives},tokio_postgres=info"))
        .unwrap_or_else(|_| EnvFilter::new("info,tokio_postgres=info"));
    // A second call (tests in one process) finds a subscriber in place and leaves it.
    let _ = tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).try_init();
}
