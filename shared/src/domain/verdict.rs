//! How a run ended (`Outcome`) and what is recorded of it (`Verdict`).

use std::time::Duration;

use serde_json::value::RawValue;

use super::{
    ErrorCode, JobError, Lease,
    job::{MAX_OUTPUT_BYTES, MAX_OUTPUT_DEPTH},
    json,
};

/// How a run ended, said by the handler as a value.
#[derive(Debug)]
pub enum Outcome {
    /// It is done.
    Done {
        /// The job's output: JSON.
        output: Box<RawValue>,
        /// The credits that it used, of a metered kind; all that are held, if it does not say.
        used: Option<i64>,
    },
    /// It did not work this time; another attempt may. `retry_after` overrides the backoff.
    Err {
        /// What went wrong.
        error: JobError,
        /// The earliest next attempt, if the handler knows.
        retry_after: Option<Duration>,
    },
    /// What it relies on is busy or away: later, and no attempt is spent. `retry_after` overrides the backoff.
    Unavailable {
        /// What was away.
        error: JobError,
        /// When it may be back, if the handler knows.
        retry_after: Option<Duration>,
    },
    /// Nothing is wrong, but there is nothing to do yet: later, at the earliest in a second, and no attempt is spent.
    Snooze(Duration),
    /// Its time is nearly up: what it saved is where the next run, as soon as may be, goes on. No attempt is spent.
    Yield,
    /// Somebody outside does it, and calls back within so long (`POST /api/callbacks/{token}`): no worker is busy with it.
    Wait {
        /// After that the job fails.
        within: Duration,
    },
    /// It can never work: no further attempt. [`ErrorCode::InvalidInput`] blames the input.
    Final(JobError),
    /// It took too long and was dropped.
    TimedOut(JobError),
    /// It was dropped because it was canceled.
    Canceled,
    /// It was never started, so it does not count.
    NotStarted,
}

impl Outcome {
    /// Done, and worth its whole price.
    #[must_use]
    pub fn done(output: Box<RawValue>) -> Self {
        Self::Done { output, used: None }
    }
}

/// What to record of a run.
#[derive(Debug)]
pub enum Verdict {
    /// Succeeded; what was used is captured, the rest released.
    Complete {
        /// The job's output.
        output: Box<RawValue>,
        /// The credits used, of a metered kind; `None`: all.
        used: Option<i64>,
    },
    /// Queued again, due after the delay.
    Retry {
        /// From now, by the database's clock.
        delay: Duration,
        /// Of this attempt.
        error: JobError,
    },
    /// Queued again, due after the delay, the attempt not counted.
    Snooze {
        /// From now, by the database's clock.
        delay: Duration,
        /// What was away, if anything was.
        error: Option<JobError>,
    },
    /// Queued again at once, the attempt not counted.
    Yield,
    /// Running without a lease until somebody calls back.
    Wait {
        /// From now, by the database's clock: after that it fails.
        within: Duration,
    },
    /// Queued again, due after the delay, a crash counted instead of the attempt; failed if that was the last.
    Crash {
        /// From now, by the database's clock.
        delay: Duration,
        /// Of this run.
        error: JobError,
    },
    /// Failed, the hold released.
    Fail(JobError),
    /// Failed, and the input is to blame: released or captured, as the kind's `on_input_error` says.
    Reject(JobError),
    /// Canceled as was asked for: released or captured, as the kind's `on_cancel` says.
    Cancel,
    /// Queued as it was.
    Return,
}

/// Whether an output can be kept: neither too large nor nested too deep.
///
/// # Errors
/// [`ErrorCode::InvalidOutput`], with what the job then failed for.
pub fn check_output(output: &RawValue) -> Result<(), JobError> {
    let (bytes, text) = (output.get().len(), output.get());
    let why = if bytes > MAX_OUTPUT_BYTES {
        format!("the output has {bytes} bytes, at most {MAX_OUTPUT_BYTES} are kept")
    } else if json::depth(text) > MAX_OUTPUT_DEPTH {
        format!("the output nests more than {MAX_OUTPUT_DEPTH} levels deep")
    } else {
        return Ok(());
    };
    Err(JobError::new(ErrorCode::InvalidOutput, why))
}

impl Lease {
    /// Decides what an outcome means for the job. `chance` in `0.0..=1.0` spreads the retries.
    #[must_use]
    pub fn settle(&self, outcome: Outcome, chance: f64) -> Verdict {
        let delay = |retry_after: Option<Duration>, nth, least| {
            let delay = retry_after.unwrap_or_else(|| self.backoff.delay(nth, chance));
            delay.clamp(least, MAX_RETRY_AFTER)
        };
        match outcome {
            Outcome::Done { output, used } => match check_output(&output) {
                Ok(()) => Verdict::Complete { output, used },
                Err(error) => Verdict::Fail(error),
            },
            Outcome::Err { error, .. } if self.attempt >= self.max_attempts => Verdict::Fail(error),
            Outcome::Err { error, retry_after } => {
                Verdict::Retry { delay: delay(retry_after, self.attempt, Duration::ZERO), error }
            }
            // It costs no attempt, so each start makes it wait longer, and none comes at once.
            Outcome::Unavailable { error, retry_after } => {
                let starts = u32::try_from(self.lease_token).unwrap_or(u32::MAX);
                Verdict::Snooze { delay: delay(retry_after, starts, LEAST_SNOOZE), error: Some(error) }
            }
            Outcome::Snooze(delay) => {
                Verdict::Snooze { delay: delay.clamp(LEAST_SNOOZE, LONGEST_SNOOZE), error: None }
            }
            Outcome::Yield => Verdict::Yield,
            Outcome::Wait { within } => Verdict::Wait { within: within.min(LONGEST_SNOOZE) },
            Outcome::TimedOut(error) => {
                Verdict::Crash { delay: delay(None, self.attempt, Duration::ZERO), error }
            }
            Outcome::Final(error) if error.code == ErrorCode::InvalidInput => Verdict::Reject(error),
            Outcome::Final(error) => Verdict::Fail(error),
            Outcome::Canceled => Verdict::Cancel,
            Outcome::NotStarted => Verdict::Return,
        }
    }
}

/// What is not a job's fault is not tried again sooner, whatever `Retry-After` says.
const LEAST_SNOOZE: Duration = Duration::from_secs(1);
/// No job lives longer than 30 days after it is due.
const LONGEST_SNOOZE: Duration = Duration::from_secs(30 * 86_400);
/// The longest `Retry-After` that is obeyed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::{Backoff, Target};

    fn lease(attempt: u32) -> Lease {
        Lease {
            job_id: Uuid::nil(),
            lease_token: 1,
            account_id: Uuid::nil(),
            kind: "echo".into(),
            price: 10,
            metered: false,
            attempt,
            max_attempts: 3,
            input: "{}".into(),
            target: Target::Rust,
            timeout: Duration::from_secs(30),
            lasts: Duration::from_secs(60),
            backoff: Backoff::exponential(Duration::from_secs(10), Duration::from_secs(60)),
            callback_within: Duration::from_secs(3_600),
            checkpoint: None,
        }
    }

    fn error() -> JobError {
        JobError::new(ErrorCode::HandlerError, "no")
    }

    #[test]
    fn an_error_is_retried_until_the_attempts_are_used_up() {
        let err = || Outcome::Err { error: error(), retry_after: None };
        assert!(matches!(lease(1).settle(err(), 1.0), Verdict::Retry { delay, .. } if delay.as_secs() == 10));
        assert!(matches!(lease(2).settle(err(), 1.0), Verdict::Retry { delay, .. } if delay.as_secs() == 20));
        assert!(matches!(lease(3).settle(err(), 1.0), Verdict::Fail(_)));
    }

    #[test]
    fn a_final_error_fails_at_once_and_one_of_the_input_says_so() {
        assert!(matches!(lease(1).settle(Outcome::Final(error()), 1.0), Verdict::Fail(_)));
        let input = JobError::new(ErrorCode::InvalidInput, "no");
        assert!(matches!(lease(1).settle(Outcome::Final(input), 1.0), Verdict::Reject(_)));
    }

    #[test]
    fn what_is_not_the_jobs_fault_spends_no_attempt_and_waits_longer_each_time() {
        let away = |secs: Option<u64>| Outcome::Unavailable {
            error: error(),
            retry_after: secs.map(Duration::from_secs),
        };
        let snoozed = |lease: Lease, secs| match lease.settle(away(secs), 1.0) {
            Verdict::Snooze { delay, .. } => delay.as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!(snoozed(lease(3), None), 10, "also in the last attempt");
        assert_eq!(snoozed(Lease { lease_token: 3, ..lease(1) }, None), 40);
        assert_eq!(snoozed(Lease { lease_token: i64::MAX, ..lease(1) }, None), 60);
        assert_eq!((snoozed(lease(1), Some(7)), snoozed(lease(1), Some(0))), (7, 1));
    }

    #[test]
    fn a_time_out_is_a_crash_whatever_the_attempt() {
        let crash = lease(3).settle(Outcome::TimedOut(error()), 1.0);
        assert!(matches!(crash, Verdict::Crash { delay, .. } if delay.as_secs() == 40), "{crash:?}");
    }

    #[test]
    fn retry_after_overrides_the_backoff_within_a_day() {
        let wish = |secs| Outcome::Err { error: error(), retry_after: Some(Duration::from_secs(secs)) };
        assert!(
            matches!(lease(1).settle(wish(7), 1.0), Verdict::Retry { delay, .. } if delay.as_secs() == 7)
        );
        assert!(
            matches!(lease(1).settle(wish(u64::MAX), 1.0), Verdict::Retry { delay, .. } if delay.as_secs() == 86_400)
        );
    }

    #[test]
    fn an_output_over_the_limit_fails_rather_than_loops() {
        let big = serde_json::value::to_raw_value(&"x".repeat(MAX_OUTPUT_BYTES)).expect("a string is JSON");
        assert!(
            matches!(lease(1).settle(Outcome::done(big), 1.0), Verdict::Fail(e) if e.code == ErrorCode::InvalidOutput)
        );
    }

    #[test]
    fn an_output_too_deep_for_a_reader_fails() {
        let deep = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let done = |levels| RawValue::from_string(deep(levels)).map(Outcome::done).expect("JSON");
        assert!(
            matches!(lease(1).settle(done(101), 1.0), Verdict::Fail(e) if e.code == ErrorCode::InvalidOutput)
        );
        assert!(matches!(lease(1).settle(done(100), 1.0), Verdict::Complete { .. }));
    }
}
