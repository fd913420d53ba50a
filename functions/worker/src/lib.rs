//! Runs jobs. `tick` is one scheduled run, `sqs` one batch of wake-ups; both `drain`, and `deliver` what is to be said.
//! `message` is what goes out, `receivers` knows to whom; `executor` keeps many jobs in flight, `settler` records what they come
//! to; `help` calls more workers; `upkeep` is what a tick does beside the jobs; `jobs` holds the kinds.

mod attempt;
mod deliver;
mod drain;
mod executor;
mod help;
pub mod jobs;
mod message;
mod receivers;
mod recording;
mod settler;
mod sqs;
mod tick;
mod upkeep;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::Serialize;
use serde_json::Value;
use shared::{
    config::{Config, WorkerConfig},
    db::{Db, DbError},
    doctor::{self, Deployment, Report},
    domain::Deadline,
    secrets::{SecretError, SecretStore},
    wake::Wake,
};

/// Serves events as Lambda sends them, one at a time.
#[cfg(not(feature = "concurrency-tokio"))]
pub use lambda_runtime::run;
/// Serves events as Lambda sends them: one at a time or, on Lambda Managed Instances, several at once.
#[cfg(feature = "concurrency-tokio")]
pub use lambda_runtime::run_concurrent as run;

pub use deliver::Delivered;
use jobs::Handler;
pub use settler::Tally;
pub use sqs::{Answer, NotABatch};

/// Kept free at the end of an invocation, to record outcomes and answer in.
const MARGIN: Duration = Duration::from_millis(1_500);
/// The budget of an invocation whose deadline is unknown.
const UNKNOWN_DEADLINE: Duration = Duration::from_secs(50);

/// The worker of one execution environment: built once, used for every event.
pub struct Worker {
    db: Db,
    handlers: Arc<[Box<dyn Handler>]>,
    secrets: Arc<SecretStore>,
    wake: Wake,
    config: WorkerConfig,
    doctor: Option<Deployment>,
}

/// A poller's. One statement is on its way on a connection at a time: while one records what was done, the other
/// claims what comes next (ADR 5). The second is opened by whoever finds the first busy.
const CONNECTIONS: usize = 2;

/// What an invocation did.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    /// Lapsed jobs queued again.
    pub rescued: usize,
    /// Lapsed jobs failed and released.
    pub lapsed: usize,
    /// Jobs claimed.
    pub claimed: usize,
    /// Workers called for help.
    pub called: usize,
    /// Accounts whose refunds were returned to the credit source.
    #[serde(skip_serializing_if = "is_zero")]
    pub credits_returned: i64,
    /// What became of the jobs.
    #[serde(flatten)]
    pub settled: Tally,
    /// What became of the messages that were sent.
    pub webhooks: Delivered,
}

/// Why there is no diagnosis.
#[derive(Debug, thiserror::Error)]
pub enum Unexamined {
    /// It would help an intruder: it must be asked for.
    #[error("the doctor is off: deploy with AllowDoctor=true (ALLOW_DOCTOR), ask, and turn it off again")]
    NotAllowed,
    /// The connection string is not known.
    #[error("{0}")]
    Secret(#[from] SecretError),
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's
fn is_zero(count: &i64) -> bool {
    *count == 0
}

impl Worker {
    /// A worker of these Rust kinds, and of HTTP targets, that has not connected to anything yet.
    #[must_use]
    pub fn new(config: Config, handlers: Vec<Box<dyn Handler>>) -> Self {
        Self::with_connections(config, handlers, CONNECTIONS)
    }

    /// The same for one of many at once, as SQS starts them: by one connection, since a pooler's are few.
    #[must_use]
    pub fn one_of_many(config: Config, handlers: Vec<Box<dyn Handler>>) -> Self {
        Self::with_connections(config, handlers, 1)
    }

    fn with_connections(config: Config, handlers: Vec<Box<dyn Handler>>, least: usize) -> Self {
        if config.worker.allow_private_targets {
            tracing::warn!("ALLOW_PRIVATE_TARGETS is on: jobs may call any address; for local use only");
        }
        let secrets = Arc::new(SecretStore::new(config.secrets));
        Self {
            db: Db::with_connections(Arc::clone(&secrets), config.connections.max(least)),
            handlers: handlers.into(),
            secrets,
            wake: Wake::new(config.wake_queue_url),
            config: config.worker,
            doctor: config.doctor,
        }
    }

    /// One scheduled run: takes back what has lapsed, then claims and runs due jobs while there are any and time is
    /// left. `deadline` is the invocation's; whatever the event says, it means "look now".
    ///
    /// # Errors
    /// [`DbError`] when the database cannot be reached: the next tick tries again.
    pub async fn tick(&self, deadline: SystemTime) -> Result<Summary, DbError> {
        let deadline = Deadline::of_invocation(deadline, MARGIN, UNKNOWN_DEADLINE);
        // On the heap: the type of what waits within is too deep for a caller's.
        let result = Box::pin(tick::run(self, deadline)).await;
        match &result {
            Ok(summary) => tracing::info!(?summary, "tick done"),
            Err(error) => tracing::error!(error = %error, "tick failed"),
        }
        result
    }

    /// Examines the connection from where the function stands, if that is allowed; the event is `{"doctor":true}`.
    ///
    /// # Errors
    /// [`Unexamined`] when it is not allowed, or the secret cannot be read.
    pub async fn examine(&self, deadline: SystemTime) -> Result<Report, Unexamined> {
        let deployment = self.doctor.as_ref().ok_or(Unexamined::NotAllowed)?;
        let deadline = Deadline::of_invocation(deadline, MARGIN, UNKNOWN_DEADLINE);
        let secrets = self.secrets.get(deadline).await?;
        let report = Box::pin(doctor::examine(&secrets, deployment, true, deadline)).await;
        tracing::info!(exit_code = report.exit_code(), "examined");
        Ok(report)
    }

    /// One batch of wake-ups, as SQS's event source mapping sends it: runs the jobs that it names and what else is due
    /// of kinds that SQS dispatches, and answers which messages are to be delivered again. Those that cannot be read
    /// are; a database out of reach is no reason, since the next tick finds the jobs.
    ///
    /// # Errors
    /// [`NotABatch`] when the event is something else.
    pub async fn wake(&self, event: Value, deadline: SystemTime) -> Result<Answer, NotABatch> {
        let deadline = Deadline::of_invocation(deadline, MARGIN, UNKNOWN_DEADLINE);
        Box::pin(sqs::run(self, event, deadline)).await
    }
}
