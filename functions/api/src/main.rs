//! The Lambda `api`: one HTTP request for each event of the API Gateway (HTTP API, payload 2.0).

use api::{App, Event};
// One request at a time or, on Lambda Managed Instances, several at once.
#[cfg(not(feature = "concurrency-tokio"))]
use lambda_http::lambda_runtime::run;
#[cfg(feature = "concurrency-tokio")]
use lambda_http::lambda_runtime::run_concurrent as run;
use lambda_http::{Error, lambda_runtime::LambdaEvent, service_fn};
use shared::{config::Config, telemetry};

#[cfg_attr(feature = "concurrency-tokio", tokio::main)]
#[cfg_attr(not(feature = "concurrency-tokio"), tokio::main(flavor = "current_thread"))]
async fn main() -> Result<(), Error> {
    let config = Config::from_env()?;
    telemetry::init(&config.log);
    let app: &'static App = Box::leak(Box::new(App::new(config)));
    run(service_fn(move |event: LambdaEvent<Event>| app.handle(event))).await
}
