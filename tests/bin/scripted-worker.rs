//! The worker with kinds that do what a test wants, as its poller and its `sqs-worker`: `test.fine` is done, `test.error`
//! errs, `test.panic` panics; `test.scripted` does what its input says: `{"script": [step, …]}`, a step for each run, the
//! last one going on.

use std::time::Duration;

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::{Value, json, value::RawValue};
use shared::{
    config::Config,
    domain::{ErrorCode, JobError, Outcome},
    telemetry,
};
use worker::{
    Worker,
    jobs::{Handler, Performing, Run},
};

struct Scripted(&'static str);

impl Handler for Scripted {
    fn kind(&self) -> &'static str {
        self.0
    }

    fn perform<'a>(&'a self, run: &'a Run) -> Performing<'a> {
        Box::pin(async move {
            match self.0 {
                "test.panic" => panic!("as the test wants it"),
                "test.error" => erred(None),
                "test.scripted" => follow(run).await,
                _ => Outcome::done(RawValue::NULL.to_owned()),
            }
        })
    }
}

fn error(code: ErrorCode) -> JobError {
    JobError::new(code, "as the test wants it")
}

fn erred(retry_after: Option<Duration>) -> Outcome {
    Outcome::Err { error: error(ErrorCode::HandlerError), retry_after }
}

/// A step is `{"do": word}` with, as the word wants them, `seconds`, `retry_after`, `used`, `bytes`, `percent`, `message`; and
/// `save` or `save_now`, what it saves first.
async fn follow(run: &Run) -> Outcome {
    let input: Value = serde_json::from_str(&run.lease.input).expect("a script");
    let steps = input["script"].as_array().expect("steps");
    let nth = usize::try_from(run.lease.lease_token - 1).expect("a run");
    let step = steps.get(nth).or(steps.last()).expect("a step");
    let seconds = Duration::from_secs_f64(step["seconds"].as_f64().unwrap_or(0.0));
    let retry_after = step["retry_after"].as_f64().map(Duration::from_secs_f64);
    let mut output = json!({ "run": nth + 1 });
    if let Some(found) = &run.lease.checkpoint {
        output["found"] = serde_json::from_str(found.get()).expect("JSON");
    }
    let output = serde_json::value::to_raw_value(&output).expect("JSON");
    if let Some(state) = step.get("save")
        && let Err(error) = run.save(state)
    {
        return Outcome::Final(JobError::new(ErrorCode::HandlerError, error.to_string()));
    }
    if let Some(state) = step.get("save_now") {
        run.save_now(state).await.expect("small JSON");
    }
    match step["do"].as_str().expect("a word") {
        // After so many seconds.
        "done" => {
            tokio::time::sleep(seconds).await;
            Outcome::Done { output, used: step["used"].as_i64() }
        }
        "err" => {
            tokio::time::sleep(seconds).await;
            erred(retry_after)
        }
        "unavailable" => Outcome::Unavailable { error: error(ErrorCode::Unavailable), retry_after },
        "snooze" => Outcome::Snooze(seconds),
        // After so many seconds.
        "yield" => {
            tokio::time::sleep(seconds).await;
            Outcome::Yield
        }
        // As a handler does that has more to do than there is time for: works until a second before its time is up.
        "work" => {
            tokio::time::sleep(run.time_left().saturating_sub(Duration::from_secs(1))).await;
            Outcome::Yield
        }
        // Within so many seconds.
        "wait" => Outcome::Wait { within: seconds },
        "final" => Outcome::Final(error(ErrorCode::HandlerError)),
        "reject" => Outcome::Final(error(ErrorCode::InvalidInput)),
        "panic" => panic!("as the test wants it"),
        "abort" => std::process::abort(),
        "large" => {
            let text = "x".repeat(usize::try_from(step["bytes"].as_u64().expect("bytes")).expect("a size"));
            Outcome::done(serde_json::value::to_raw_value(&text).expect("JSON"))
        }
        // Says how far it is, and is done after so many seconds.
        "progress" => {
            let percent =
                u8::try_from(step["percent"].as_u64().expect("a percentage")).expect("a percentage");
            run.progress(percent, step["message"].as_str());
            tokio::time::sleep(seconds).await;
            Outcome::done(output)
        }
        // Says so all the time, counting up to the percentage.
        "chatter" => {
            let most = step["percent"].as_u64().expect("a percentage");
            for percent in 0..=most {
                run.progress(u8::try_from(percent).expect("a percentage"), step["message"].as_str());
                tokio::time::sleep(seconds.div_f64((most + 1) as f64)).await;
            }
            Outcome::done(output)
        }
        // What it does once it is told to stop.
        "stop_then_done" => {
            run.canceled().await;
            Outcome::Done { output, used: step["used"].as_i64() }
        }
        "stop_then_err" => {
            run.canceled().await;
            erred(None)
        }
        "stop_then_final" => {
            run.canceled().await;
            Outcome::Final(error(ErrorCode::HandlerError))
        }
        other => panic!("no such step: {other}"),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let config = Config::from_env()?;
    telemetry::init(&config.log);
    let handlers = ["test.fine", "test.error", "test.panic", "test.scripted"]
        .map(|kind| Box::new(Scripted(kind)) as Box<dyn Handler>);
    let worker = &Worker::new(config, handlers.into());
    run(service_fn(|event: LambdaEvent<Value>| async move {
        let deadline = event.context.deadline();
        if event.payload.get("Records").is_some() {
            return Ok::<_, Error>(json!(worker.wake(event.payload, deadline).await?));
        }
        Ok(json!(worker.tick(deadline).await?))
    }))
    .await
}
