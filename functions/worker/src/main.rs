//! The Lambda `poller`: one tick for each scheduled event; a diagnosis for `{"doctor":true}`.

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::Value;
use shared::{config::Config, telemetry};
use worker::{Worker, jobs};

#[cfg_attr(feature = "concurrency-tokio", tokio::main)]
#[cfg_attr(not(feature = "concurrency-tokio"), tokio::main(flavor = "current_thread"))]
async fn main() -> Result<(), Error> {
    let config = Config::from_env()?;
    telemetry::init(&config.log);
    let worker: &'static Worker = Box::leak(Box::new(Worker::new(config, jobs::handlers())));
    worker::run(service_fn(move |event: LambdaEvent<Value>| async move {
        let deadline = event.context.deadline();
        let answer = match event.payload["doctor"].as_bool() {
            Some(true) => serde_json::to_value(worker.examine(deadline).await?),
            _ => serde_json::to_value(worker.tick(deadline).await?),
        };
        Ok::<_, Error>(answer?)
    }))
    .await
}
