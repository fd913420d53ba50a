//! Runs jobs. `tick` is one scheduled run; `executor` keeps many jobs in flight and settles what they come to;
//! `jobs` holds the kinds.

mod executor;
pub mod jobs;
mod tick;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use shared::{
    config::{Config, WorkerConfig},
    db::{Db, DbError},
    domain::Deadline,
    secrets::SecretStore,
};

use jobs::Handler;
pub use tick::Summary;

/// Kept free at the end of an invocation, to record outcomes and answer in.
const MARGIN: Duration = Duration::from_millis(1_500);
/// The budget of an invocation whose deadline is unknown.
const UNKNOWN_DEADLINE: Duration = Duration::from_secs(50);

/// The worker of one execution environment: built once, used for every event.
pub struct Worker {
    db: Db,
    handlers: Arc<[Box<dyn Handler>]>,
    secrets: Arc<SecretStore>,
    config: WorkerConfig,
}

impl Worker {
    /// A worker of these Rust kinds, and of HTTP targets, that has not connected to anything yet.
    #[must_use]
    pub fn new(config: Config, handlers: Vec<Box<dyn Handler>>) -> Self {
        if config.worker.allow_private_targets {
            tracing::warn!("ALLOW_PRIVATE_TARGETS is on: jobs may call any address; for local use only");
        }
        let secrets = Arc::new(SecretStore::new(config.secrets));
        Self { db: Db::new(Arc::clone(&secrets)), handlers: handlers.into(), secrets, config: config.worker }
    }

    /// One scheduled run: takes back what has lapsed, then claims and runs due jobs while there are any and time is
    /// left. `deadline` is the invocation's; whatever the event says, it means "look now".
    ///
    /// # Errors
    /// [`DbError`] when the database cannot be reached: the next tick tries again.
    pub async fn tick(&self, deadline: SystemTime) -> Result<Summary, DbError> {
        let deadline = Deadline::of_invocation(deadline, MARGIN, UNKNOWN_DEADLINE);
        let result = tick::run(self, deadline).await;
        match &result {
            Ok(summary) => tracing::info!(?summary, "tick done"),
            Err(error) => tracing::error!(error = %error, "tick failed"),
        }
        result
    }
}
