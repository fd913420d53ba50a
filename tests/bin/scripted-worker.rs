//! The worker with kinds that do what a test wants, as its `sqs-worker`: `test.fine` is done, `test.error` errs,
//! `test.panic` panics.

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::{Value, value::RawValue};
use shared::{
    config::Config,
    domain::{ErrorCode, JobError, Outcome},
    telemetry,
};
use worker::{
    Worker,
    jobs::{Handler, Performing, Run},
};

struct Scripted(&'static str);

impl Handler for Scripted {
    fn kind(&self) -> &'static str {
        self.0
    }

    fn perform<'a>(&'a self, _: &'a Run) -> Performing<'a> {
        Box::pin(async move {
            match self.0 {
                "test.panic" => panic!("as the test wants it"),
                "test.error" => Outcome::Err {
                    error: JobError::new(ErrorCode::HandlerError, "as the test wants it"),
                    retry_after: None,
                },
                _ => Outcome::done(RawValue::NULL.to_owned()),
            }
        })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let config = Config::from_env()?;
    telemetry::init(&config.log);
    let handlers =
        ["test.fine", "test.error", "test.panic"].map(|kind| Box::new(Scripted(kind)) as Box<dyn Handler>);
    let worker = &Worker::new(config, handlers.into());
    run(service_fn(|event: LambdaEvent<Value>| async move {
        Ok::<_, Error>(worker.wake(event.payload, event.context.deadline()).await?)
    }))
    .await
}
