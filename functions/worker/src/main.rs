//! The Lambda `poller`: one tick for each scheduled event.

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::Value;
use shared::{config::Config, telemetry};
use worker::{Worker, jobs};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let config = Config::from_env()?;
    telemetry::init(&config.log);
    let worker = &Worker::new(config, jobs::handlers());
    let tick = |event: LambdaEvent<Value>| async move {
        Ok::<_, Error>(worker.tick(event.context.deadline()).await?)
    };
    run(service_fn(tick)).await
}
