//! The poller and the SQS worker as they are deployed, with two kinds more: `bench.noop`, which does nothing and answers
//! 200 bytes, and `bench.stamp`, which answers when it was started, in milliseconds since 1970.

use std::time::{SystemTime, UNIX_EPOCH};

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};
use shared::{
    config::Config,
    domain::{ErrorCode, JobError, Outcome},
    telemetry,
};
use worker::{
    Worker,
    jobs::{self, Handler, Performing, Run},
};

struct Bench {
    kind: &'static str,
    answer: fn() -> serde_json::Result<Box<RawValue>>,
}

impl Handler for Bench {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn perform<'a>(&'a self, _: &'a Run) -> Performing<'a> {
        Box::pin(async {
            match (self.answer)() {
                Ok(output) => Outcome::done(output),
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
    handlers.push(Box::new(Bench { kind: "bench.noop", answer: || to_raw_value(&"x".repeat(198)) }));
    let millis = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        to_raw_value(&(now.as_secs_f64() * 1_000.0))
    };
    handlers.push(Box::new(Bench { kind: "bench.stamp", answer: millis }));
    let worker = &Worker::new(config, handlers);
    run(service_fn(|event: LambdaEvent<Value>| async move {
        let deadline = event.context.deadline();
        match event.payload.get("Records") {
            Some(_) => Ok::<_, Error>(serde_json::to_value(worker.wake(event.payload, deadline).await?)?),
            None => Ok(serde_json::to_value(worker.tick(deadline).await?)?),
        }
    }))
    .await
}
