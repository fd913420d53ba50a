//! A job: its status, its errors, and what a worker is given to run it (`Lease`).

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::Backoff;

/// The largest output of a job, in bytes of JSON.
pub const MAX_OUTPUT_BYTES: usize = 65_536;
/// The largest state that a run may save for the next one, in bytes of JSON.
pub const MAX_CHECKPOINT_BYTES: usize = 16_384;
/// How deep the arrays and objects of an output may nest: every JSON reader takes so much.
pub const MAX_OUTPUT_DEPTH: usize = 100;
/// The longest error message kept with a job, in characters.
const MAX_MESSAGE_CHARS: usize = 1_000;

/// Where a job stands: the same words in SQL, Rust and JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Waits for `run_at`, then for a worker.
    Queued,
    /// Under a lease.
    Running,
    /// Final: done and captured.
    Succeeded,
    /// Final: given up and released.
    Failed,
    /// Final: withdrawn and released.
    Canceled,
}

impl Status {
    /// Every status, in the order of a job's life.
    pub const ALL: [Self; 5] = [Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Canceled];

    /// The word on the wire and in SQL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// The status of that word, if it is one.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// Whether it never changes again.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Queued | Self::Running => false,
            Self::Succeeded | Self::Failed | Self::Canceled => true,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an attempt, or a job, did not succeed. The word is what callers see as `error.code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The handler reported an error.
    HandlerError,
    /// The handler panicked.
    HandlerPanicked,
    /// The handler took longer than its kind allows.
    TimedOut,
    /// What the handler relies on is busy or away: later, and not this job's fault.
    Unavailable,
    /// The input is not what the kind understands.
    InvalidInput,
    /// The kind is not offered any more.
    KindRetired,
    /// The output is over the size limit or not JSON.
    InvalidOutput,
    /// The HTTP target could not be reached.
    TargetUnreachable,
    /// The HTTP target's address is not allowed.
    TargetForbidden,
    /// The HTTP target answered, or whoever does the work outside called back, with an error.
    TargetError,
}

/// An error as it is kept with the job and shown to its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobError {
    /// What happened, in a word a program can act on.
    pub code: ErrorCode,
    /// What happened, for a person; cut at 1,000 characters.
    pub message: String,
}

/// What went wrong with a run of a job.
// A `JobError`, or what the database writes of a run that it takes back.
#[cfg(feature = "openapi")]
#[derive(Debug, utoipa::ToSchema)]
#[schema(as = JobError)]
pub struct ErrorShown {
    /// What happened, in a word that a program can act on, such as `timed_out`, `target_error` or `expired`.
    pub code: String,
    /// What happened, for a person.
    pub message: String,
    /// Which attempt it was.
    pub attempt: Option<i16>,
}

impl JobError {
    /// An error with its message, cut to what is kept; control characters that JSON readers stumble over go.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl AsRef<str>) -> Self {
        let message = message.as_ref().chars().filter(|c| *c != '\0').take(MAX_MESSAGE_CHARS).collect();
        Self { code, message }
    }
}

/// Who does the work of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Rust code in the worker, registered under the kind's name.
    Rust,
    /// An HTTP endpoint that the job is POSTed to, signed with the kind's secret of that version.
    Http {
        /// Where to.
        url: String,
        /// Which derivation of the kind's secret signs.
        secret_version: u32,
        /// Where it is told that a job was canceled while it was at work.
        cancel_url: Option<String>,
    },
    /// Nobody: the kind was retired after the job was queued.
    Retired,
}

/// The right to run a job until the lease expires, and all that is needed to run it.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The job; also the handler's idempotency key, the same over all attempts.
    pub job_id: Uuid,
    /// Fences every write of this attempt.
    pub lease_token: i64,
    /// The account that pays.
    pub account_id: Uuid,
    /// The kind of the job: what is to be done, and at which price.
    pub kind: String,
    /// What is held for it.
    pub price: i64,
    /// Whether that is the most, and what was used is captured.
    pub metered: bool,
    /// This attempt, from 1: crashes and what was not the job's fault do not count.
    pub attempt: u32,
    /// How many attempts there may be.
    pub max_attempts: u32,
    /// With what: JSON as it was sent.
    pub input: String,
    /// Who does it.
    pub target: Target,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How long the lease lasts, by the database's clock, from the moment of the claim.
    pub lasts: Duration,
    /// When to try again after an error.
    pub backoff: Backoff,
    /// Within what time whoever answers "later" calls back.
    pub callback_within: Duration,
    /// What an earlier run saved: JSON.
    pub checkpoint: Option<Box<RawValue>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_words_are_read_back() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.as_str()), Some(status));
        }
        assert_eq!(Status::parse("done"), None);
    }
}
