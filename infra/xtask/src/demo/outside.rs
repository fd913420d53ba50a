//! What goes on outside: a service that answers later, by a call back, and an account that is told of its jobs by webhooks.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use local::Result;
use local::scripted::ScriptedServer;
use serde_json::{Value, json};
use shared::domain::Deadline;
use shared::http_client::{self, Allow};
use standardwebhooks::Webhook;
use tokio::time::sleep;

use super::{Order, User};
use crate::stack::{Functions, unexpected};

/// How long the service works on a job.
const WORK: Duration = Duration::from_secs(1);

/// Does a job that was posted, says how far it is, and calls back.
pub(super) async fn answer_later(posted: Bytes) -> Result<()> {
    let job: Value = serde_json::from_slice(&posted)?;
    let url = job["callback_url"].as_str().ok_or("a job without a callback_url")?;
    sleep(WORK).await;
    call_back(url, json!({ "status": "running", "progress": { "percent": 50, "message": "half way" } }))
        .await?;
    sleep(WORK).await;
    call_back(url, json!({ "status": "succeeded", "output": { "answer": "sorry to keep you waiting" } }))
        .await
}

async fn call_back(url: &str, said: Value) -> Result<()> {
    let request = Request::post(url).header("content-type", "application/json");
    let request = request.body(Bytes::from(said.to_string()))?;
    let response =
        http_client::send(request, Allow::Anything, 65_536, Deadline::after(Duration::from_secs(60))).await?;
    match response.status().as_u16() {
        200 => Ok(()),
        _ => Err(unexpected("a call back", &response)),
    }
}

/// Has the user told of their jobs at this URL; answers the secret that signs.
pub(super) async fn tell(functions: &Functions, user: &User, url: &str) -> Result<String> {
    let response = functions.put(user.id, "/api/webhook", &json!({ "url": url })).await?;
    let webhook: Value = serde_json::from_slice(response.body())?;
    let secret = webhook["secret"].as_str().ok_or_else(|| unexpected("PUT /api/webhook", &response))?;
    println!("  200  {}  is told of every end of a job at {url}", user.name);
    Ok(secret.to_owned())
}

/// The user was told of each of their jobs once, by a message that is what it says it is.
pub(super) async fn was_told(
    functions: &Functions,
    receiver: &ScriptedServer,
    path: &str,
    secret: &str,
    orders: &[&Order<'_>],
) -> Result<()> {
    let webhook = Webhook::new(secret)?;
    // The last of them may have failed: the next tick is the retry.
    for _ in 0..10 {
        let messages = receiver.requests().into_iter().filter(|request| request.path == path);
        let mut told = BTreeMap::new();
        for message in messages {
            webhook.verify(&message.body, &message.headers)?;
            let id = message.headers["webhook-id"].to_str()?.to_owned();
            let said: Value = serde_json::from_slice(&message.body)?;
            told.insert(id, said);
        }
        if told.len() == orders.len() {
            for order in orders {
                let of_it = told.values().filter(|said| said["data"]["id"] == order.id.as_str());
                let events: Vec<&Value> = of_it.map(|said| &said["type"]).collect();
                if events != [&json!(format!("job.{}", order.status()))] {
                    return Err(format!("of {} it was said {events:?}", order.job).into());
                }
                println!("  {}  {:<12} {} (signature verified)", order.id, order.kind, events[0]);
            }
            return Ok(());
        }
        functions.tick().await?;
        sleep(Duration::from_secs(1)).await;
    }
    Err(format!("not every message came: {:?}", receiver.requests()).into())
}
