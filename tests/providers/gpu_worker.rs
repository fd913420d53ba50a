//! docs/examples/gpu_worker.py, as it is, behind an HTTP target.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use local::{gateway::Gateway, lambda::Function};
use serde_json::{Value, json};
use shared::signing::kind_secret;
use uuid::Uuid;

use crate::support::{Bench, SIGNING_SECRET, binary, environment};

/// The worker's process, which does not outlive its test.
struct Gpu(Child, String);

impl Drop for Gpu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn gpu(kind: &str, more: &[(&str, &str)]) -> Gpu {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/gpu_worker.py");
    let mut command = Command::new("python3");
    command.arg(script).env("SECRET", kind_secret(SIGNING_SECRET, kind, 1)).env("PORT", "0");
    command.env("STEP_SECONDS", "0.5").envs(more.iter().copied()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("python3");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let port = line.trim().rsplit(' ').next().expect("a port").to_owned();
    Gpu(child, format!("http://127.0.0.1:{port}"))
}

/// A job of a kind that the GPU draws, whose worker has been told where the API is.
async fn drawn(bench: &Bench, gateway: &Gateway, gpu: &Gpu, steps: u32) -> (Uuid, String) {
    bench.http_kind("picture.draw", 10, &format!("{}/jobs", gpu.1)).await;
    let cancel =
        format!("UPDATE punchcard.kinds SET cancel_url = '{}/cancel' WHERE name = 'picture.draw'", gpu.1);
    bench.sql(&cancel).await;
    let account = bench.account(10).await;
    let body = json!({ "kind": "picture.draw", "input": { "steps": steps } });
    let id = bench.post(account, body, None).await.body["id"].as_str().unwrap().to_owned();
    let summary = tick(bench, gateway).await;
    assert_eq!(summary["waiting"], 1, "{summary}");
    (account, id)
}

async fn tick(bench: &Bench, gateway: &Gateway) -> Value {
    bench.poller_with(&[("PUBLIC_URL", &gateway.url())]).invoke(&json!({})).await.unwrap()
}

async fn gateway(bench: &Bench) -> Gateway {
    let api = Function::new(binary("api"), environment(&bench.url));
    Gateway::start(Arc::new(api), |_| {}).await.unwrap()
}

/// What is seen of the job until it is final, or `seconds` are over.
async fn watched(bench: &Bench, account: Uuid, id: &str, seconds: u64) -> Vec<Value> {
    let mut seen: Vec<Value> = Vec::new();
    for _ in 0..seconds * 10 {
        let job = bench.job(account, id).await;
        if seen.last() != Some(&job) {
            seen.push(job.clone());
        }
        if job["finished_at"].is_string() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_worker_draws_what_it_is_sent_and_says_how_far_it_is() {
    let bench = Bench::new().await;
    let (gateway, gpu) = (gateway(&bench).await, gpu("picture.draw", &[]));
    let (account, id) = drawn(&bench, &gateway, &gpu, 4).await;
    let seen = watched(&bench, account, &id, 60).await;
    let job = seen.last().unwrap();
    assert_eq!(job["status"], "succeeded", "{job}");
    assert_eq!(job["output"]["url"], format!("https://pictures.example.com/{id}.png"));
    assert!(seen.iter().any(|job| job["progress"]["percent"].as_i64() > Some(0)), "{seen:?}");
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_worker_that_is_told_to_stop_stops_and_a_forger_is_refused() {
    let bench = Bench::new().await;
    let (gateway, gpu) = (gateway(&bench).await, gpu("picture.draw", &[]));
    let (account, id) = drawn(&bench, &gateway, &gpu, 1_000).await;
    assert_eq!(bench.act(account, &format!("/api/jobs/{id}/cancel")).await.body["status"], "canceled");
    assert_eq!(bench.balance(account).await, (10, 0));
    let summary = tick(&bench, &gateway).await;
    assert_eq!(summary["webhooks"]["delivered"], 1, "it was told: {summary}");

    // It is free again for the next one.
    let account = bench.account(10).await;
    let body = json!({ "kind": "picture.draw", "input": { "steps": 1 } });
    let id = bench.post(account, body, None).await.body["id"].as_str().unwrap().to_owned();
    tick(&bench, &gateway).await;
    assert_eq!(watched(&bench, account, &id, 60).await.last().unwrap()["status"], "succeeded");

    // Signed by another kind's secret.
    bench.http_kind("picture.forge", 10, &format!("{}/jobs", gpu.1)).await;
    let account = bench.account(10).await;
    let id = bench.post(account, json!({ "kind": "picture.forge" }), None).await.body["id"]
        .as_str()
        .unwrap()
        .to_owned();
    tick(&bench, &gateway).await;
    let job = bench.job(account, &id).await;
    assert_eq!(
        (&job["status"], &job["error"]["message"]),
        (&json!("failed"), &json!("the target answered 401"))
    );
    bench.assert_audit_is_clean().await;
}
