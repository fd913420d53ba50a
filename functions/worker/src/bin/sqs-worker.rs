//! The Lambda `sqs-worker`: one batch of wake-ups for each event of the queue's event source mapping.

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::Value;
use shared::{config::Config, telemetry};
use worker::{Worker, jobs};

#[cfg_attr(feature = "concurrency-tokio", tokio::main)]
#[cfg_attr(not(feature = "concurrency-tokio"), tokio::main(flavor = "current_thread"))]
async fn main() -> Result<(), Error> {
    let config = Config::from_env()?;
    telemetry::init(&config.log);
    let worker: &'static Worker = Box::leak(Box::new(Worker::one_of_many(config, jobs::handlers())));
    worker::run(service_fn(move |event: LambdaEvent<Value>| async move {
        Ok::<_, Error>(worker.wake(event.payload, event.context.deadline()).await?)
    }))
    .await
}
