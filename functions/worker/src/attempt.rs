//! One run of a job, from its start to its outcome: within its time limit and its lease, until it is canceled.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use shared::domain::{ErrorCode, JobError, Outcome, Target};
use tokio::time::{Instant, timeout, timeout_at};

use crate::jobs::{Kinds, Run};

/// How long a Rust handler may tidy up once its job is canceled; an HTTP call is dropped at once.
const CANCEL_GRACE: Duration = Duration::from_secs(5);

/// Runs a job once, within its time limit and its lease, until it is canceled. A panic is an error like any other.
pub(crate) async fn attempt(kinds: &Kinds, run: &Run) -> Outcome {
    let limit = run.lease.timeout.min(run.lease.lasts);
    let until = Instant::now() + run.time_left();
    let work = AssertUnwindSafe(timeout(limit, kinds.perform(run))).catch_unwind();
    tokio::select! {
        biased;
        ended = work => match ended {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => {
                let why = format!("not done within {} s", limit.as_secs());
                Outcome::TimedOut(JobError::new(ErrorCode::TimedOut, why))
            }
            Err(_) => {
                let error = JobError::new(ErrorCode::HandlerPanicked, "the handler panicked");
                Outcome::Err { error, retry_after: None }
            }
        },
        () = dropped(run) => {
            // As far as its time goes: the invocation is not to be outlived for it.
            let _ = timeout_at(until, kinds.tell_canceled(run)).await;
            Outcome::Canceled
        }
    }
}

/// Waits until the job is canceled, and its handler has had time to tidy up.
async fn dropped(run: &Run) {
    run.canceled().await;
    if run.lease.target == Target::Rust {
        tokio::time::sleep(CANCEL_GRACE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shared::{
        config::WorkerConfig,
        domain::{Backoff, Lease},
        secrets::Secrets,
    };

    use super::*;
    use crate::jobs::{Handler, Performing};

    struct Bad(&'static str);

    impl Handler for Bad {
        fn kind(&self) -> &'static str {
            self.0
        }

        fn perform<'a>(&'a self, _: &'a Run) -> Performing<'a> {
            Box::pin(async move {
                assert_ne!(self.0, "panics", "on purpose");
                std::future::pending().await
            })
        }
    }

    fn run(kind: &str) -> Run {
        let lease = Lease {
            job_id: uuid::Uuid::nil(),
            lease_token: 1,
            account_id: uuid::Uuid::nil(),
            kind: kind.into(),
            price: 1,
            metered: false,
            attempt: 1,
            max_attempts: 3,
            input: "{}".into(),
            target: Target::Rust,
            timeout: Duration::from_secs(30),
            lasts: Duration::from_secs(20),
            backoff: Backoff::exponential(Duration::from_secs(10), Duration::from_secs(60)),
            callback_within: Duration::from_secs(60),
            checkpoint: None,
        };
        Run::new(lease, None)
    }

    fn kinds<const N: usize>(handlers: [Box<dyn Handler>; N]) -> Kinds {
        let config = WorkerConfig {
            concurrency: 1,
            linger: Duration::ZERO,
            most_helpers: 0,
            allow_private_targets: false,
            public_url: None,
        };
        Kinds::new(Arc::new(handlers), &Secrets::default(), &config)
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_and_a_hang_are_errors_to_be_tried_again() {
        let handlers: [Box<dyn Handler>; 2] = [Box::new(Bad("panics")), Box::new(Bad("hangs"))];
        let kinds = kinds(handlers);
        let panicked = attempt(&kinds, &run("panics")).await;
        assert!(matches!(panicked, Outcome::Err { error, .. } if error.code == ErrorCode::HandlerPanicked));
        let Outcome::TimedOut(hung) = attempt(&kinds, &run("hangs")).await else { panic!("not out of time") };
        assert_eq!((hung.code, hung.message.as_str()), (ErrorCode::TimedOut, "not done within 20 s"));
        assert!(matches!(attempt(&kinds, &run("unknown")).await, Outcome::NotStarted));
    }

    #[tokio::test(start_paused = true)]
    async fn a_canceled_run_is_dropped_after_its_grace() {
        let handlers: [Box<dyn Handler>; 1] = [Box::new(Bad("hangs"))];
        let kinds = kinds(handlers);
        let (run, began) = (run("hangs"), Instant::now());
        run.cancel();
        assert!(matches!(attempt(&kinds, &run).await, Outcome::Canceled));
        assert_eq!(began.elapsed(), CANCEL_GRACE);
    }
}
