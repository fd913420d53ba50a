//! A poller with two kinds of the team's own, each done by a provider outside: what docs/PROVIDERS.md shows.

mod prediction;
mod provider;
mod queue;

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::{Value, json};
use shared::{config::Config, http_client::Allow, telemetry};
use worker::Worker;

use provider::Provider;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let config = Config::from_env()?;
    telemetry::init(&config.log);
    // In a worker of your own: in `config.rs`, and the key in the secret.
    let url = std::env::var("PROVIDER_URL")?;
    let key = std::env::var("PROVIDER_KEY")?;
    let allow = if config.worker.allow_private_targets { Allow::Anything } else { Allow::PublicHttps };
    let provider = Provider { url, key, allow };
    let worker = &Worker::new(
        config,
        vec![
            Box::new(prediction::Prediction { provider: provider.clone() }),
            Box::new(queue::Queue { provider }),
        ],
    );
    run(service_fn(|event: LambdaEvent<Value>| async move {
        Ok::<_, Error>(json!(worker.tick(event.context.deadline()).await?))
    }))
    .await
}
