//! The kind `video.make`: a queue API (fal's kind). The request is submitted once and looked at now and then; between two looks
//! the job sleeps in our queue, and no attempt is spent.

use std::time::Duration;

use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::to_raw_value};
use shared::domain::{ErrorCode, JobError, Outcome};
use worker::jobs::{Handler, Performing, Run};

use crate::provider::{Provider, text};

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

pub(crate) struct Queue {
    pub(crate) provider: Provider,
}

/// What was submitted, and where its answers are: saved by one run for the next.
#[derive(Serialize, Deserialize)]
struct Ticket {
    status_url: String,
    response_url: String,
}

impl Handler for Queue {
    fn kind(&self) -> &'static str {
        "video.make"
    }

    fn perform<'a>(&'a self, run: &'a Run) -> Performing<'a> {
        Box::pin(async move {
            let performed = match &run.lease.checkpoint {
                None => self.submit(run).await,
                Some(saved) => match serde_json::from_str(saved.get()) {
                    Ok(ticket) => self.look(run, &ticket).await,
                    Err(error) => Err(failed(error.to_string())),
                },
            };
            performed.unwrap_or_else(|outcome| outcome)
        })
    }
}

impl Queue {
    async fn submit(&self, run: &Run) -> Result<Outcome, Outcome> {
        let input: Value =
            serde_json::from_str(&run.lease.input).map_err(|error| failed(error.to_string()))?;
        let url = format!("{}/fal-ai/fast-svd", self.provider.url);
        let submitted = self.provider.call(Method::POST, &url, Some(&input), run.time_left()).await?;
        let ticket = Ticket {
            status_url: text(&submitted, "status_url")?.to_owned(),
            response_url: text(&submitted, "response_url")?.to_owned(),
        };
        run.save_now(&ticket).await.map_err(|error| failed(error.to_string()))?;
        Ok(Outcome::Snooze(LOOK_EVERY))
    }

    async fn look(&self, run: &Run, ticket: &Ticket) -> Result<Outcome, Outcome> {
        let status = self.provider.call(Method::GET, &ticket.status_url, None, run.time_left()).await?;
        if text(&status, "status")? != "COMPLETED" {
            return Ok(Outcome::Snooze(LOOK_EVERY));
        }
        let output = self.provider.call(Method::GET, &ticket.response_url, None, run.time_left()).await?;
        Ok(Outcome::done(to_raw_value(&output).expect("JSON is JSON")))
    }
}

fn failed(why: String) -> Outcome {
    Outcome::Final(JobError::new(ErrorCode::HandlerError, why))
}
