//! The poller as it is deployed, with one kind more: `bench.noop`, which does nothing and answers 200 bytes.

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::{Value, value::to_raw_value};
use shared::{
    config::Config,
    domain::{ErrorCode, JobError, Lease, Outcome},
    telemetry,
};
use worker::{
    Worker,
    jobs::{self, Handler, Performing},
};

struct Noop;

impl Handler for Noop {
    fn kind(&self) -> &'static str {
        "bench.noop"
    }

    fn perform<'a>(&'a self, _: &'a Lease) -> Performing<'a> {
        Box::pin(async {
            match to_raw_value(&"x".repeat(198)) {
                Ok(output) => Outcome::Done(output),
                Err(error) => Outcome::Final(JobError::new(ErrorCode::HandlerError, error.to_string())),
            }
        })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let config = Config::from_env()?;
    telemetry::init(&config.log);
    let mut handlers = jobs::handlers();
    handlers.push(Box::new(Noop));
    let worker = &Worker::new(config, handlers);
    let tick = |event: LambdaEvent<Value>| async move {
        Ok::<_, Error>(worker.tick(event.context.deadline()).await?)
    };
    run(service_fn(tick)).await
}
