//! The Lambda `api`: one HTTP request for each event of the API Gateway (HTTP API, payload 2.0).

use api::App;
use lambda_http::{
    Error,
    lambda_runtime::{LambdaEvent, run},
    service_fn,
};
use serde_json::Value;
use shared::{config::Config, telemetry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let config = Config::from_env()?;
    telemetry::init(&config.log);
    let app = &App::new(config);
    run(service_fn(|event: LambdaEvent<Value>| app.handle(event))).await
}
