//! The kind `image.predict`: a prediction API with webhooks (Replicate's kind). The prediction is created with our URL to call
//! back at, and the run is over: nothing is billed while it is made, and the provider's own webhook ends the job.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json, value::to_raw_value};
use shared::domain::{ErrorCode, JobError, Outcome};
use worker::jobs::{Handler, Performing, Run};

use crate::provider::{Provider, text};

/// How long a prediction may take.
const LONGEST: Duration = Duration::from_secs(1_800);
/// How often one that nobody calls back for is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

pub(crate) struct Prediction {
    pub(crate) provider: Provider,
}

impl Handler for Prediction {
    fn kind(&self) -> &'static str {
        "image.predict"
    }

    fn perform<'a>(&'a self, run: &'a Run) -> Performing<'a> {
        Box::pin(async move {
            let performed = match &run.lease.checkpoint {
                None => self.create(run).await,
                // An earlier run created it, and was killed before it was recorded that it waits. It is paid for: not again.
                Some(id) => self.look(run, id.get().trim_matches('"')).await,
            };
            performed.unwrap_or_else(|outcome| outcome)
        })
    }
}

impl Prediction {
    async fn create(&self, run: &Run) -> Result<Outcome, Outcome> {
        let failed = |why: String| Outcome::Final(JobError::new(ErrorCode::HandlerError, why));
        let webhook = run.callback_url().ok_or_else(|| failed("the worker has no PUBLIC_URL".into()))?;
        let input: Value =
            serde_json::from_str(&run.lease.input).map_err(|error| failed(error.to_string()))?;
        let body = json!({
            "version": "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa",
            "input": input, "webhook": webhook, "webhook_events_filter": ["completed"],
        });
        let url = format!("{}/v1/predictions", self.provider.url);
        let prediction = self.provider.call(Method::POST, &url, Some(&body), run.time_left()).await?;
        run.save_now(&text(&prediction, "id")?).await.map_err(|error| failed(error.to_string()))?;
        Ok(Outcome::Wait { within: LONGEST })
    }

    async fn look(&self, run: &Run, id: &str) -> Result<Outcome, Outcome> {
        let url = format!("{}/v1/predictions/{id}", self.provider.url);
        let prediction = self.provider.call(Method::GET, &url, None, run.time_left()).await?;
        Ok(match text(&prediction, "status")? {
            "succeeded" => Outcome::done(to_raw_value(&prediction["output"]).expect("JSON is JSON")),
            status @ ("failed" | "canceled" | "aborted") => {
                let why = prediction["error"].as_str().unwrap_or(status);
                Outcome::Final(JobError::new(ErrorCode::HandlerError, why))
            }
            _ => Outcome::Snooze(LOOK_EVERY),
        })
    }
}
