//! `cargo xtask demo`: the main job end to end. Ten jobs of two users go in by HTTP, one of them metered, one that is done
//! outside and called back for, and one more that is canceled; scheduler events run them, a webhook tells of them, and every
//! credit is accounted for: PostgreSQL and `cargo lambda watch` around the functions as they are deployed.

mod outcomes;
mod outside;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use local::Result;
use local::scripted::{self, ScriptedServer};
use local::tools;
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::interruption;
use crate::stack::{self, Database, Functions, unexpected};

const MOST_TICKS: usize = 20;
/// Where the team hears of its jobs.
const HOOKS: &str = "/hooks";
/// The most that a metered job may cost, and what it uses.
const METERED_PRICE: i64 = 8;
const METERED_USED: i64 = 3;
const EXPECTED: &str = "demo: 9 succeeded, 1 failed and refunded, 1 refused, audit clean";

/// Everything from building to the last line, which is printed once nothing runs any more.
pub(crate) async fn demo() -> Result<()> {
    let cargo_lambda = stack::build(None)?;
    let database = Database::create("demo").await?;
    let shown = tokio::select! {
        shown = show(&cargo_lambda, &database) => shown,
        () = interruption() => Err("interrupted".into()),
    };
    database.remove().await?;
    let last_line = shown?;
    if last_line != EXPECTED {
        return Err(format!("{last_line}\nexpected {EXPECTED}").into());
    }
    println!("\n{last_line}");
    Ok(())
}

async fn show(cargo_lambda: &Path, database: &Database) -> Result<String> {
    let folder = tools::target_dir().join("demo");
    fs::create_dir_all(&folder)?;
    let client = database.connect().await?;
    let target = team_target().await?;
    offer(&client, &target).await?;
    let users = users(&client).await?;
    let functions = Functions::start(cargo_lambda, &database.url(), None, &folder.join("watch.log"))?;

    heading("Ada is told of her jobs by a webhook (the first call starts the function)");
    let secret = outside::tell(&functions, &users[0], &target.url(HOOKS)).await?;
    heading("HTTP in: ten jobs of two users");
    let mut orders = post_orders(&functions, &users).await?;
    heading("One more that cannot be paid, and one sent twice");
    let refused = post_refused(&functions, &users[1]).await?;
    post_again(&functions, &orders[0]).await?;
    heading("And one that is canceled while it waits");
    orders.push(post_and_cancel(&functions, &users[1]).await?);
    heading("EventBridge event in: ticks until no job is unfinished");
    tick_until_done(&functions, &mut orders).await?;
    heading("What became of them");
    let succeeded = outcomes::show(&orders, &folder)?;
    outcomes::retried_twice(&orders, &target)?;
    outcomes::paid_what_was_used(&orders)?;
    heading("What Ada's webhook was told");
    let hers: Vec<&Order<'_>> = orders.iter().filter(|order| order.user.id == users[0].id).collect();
    outside::was_told(&functions, &target, HOOKS, &secret, &hers).await?;
    let mut refunded = 0;
    for user in &users {
        refunded += outcomes::show_ledger(&functions, user, &orders).await?;
    }
    heading("select count(*) from punchcard.audit");
    let findings = client.query_typed("SELECT count(*) FROM punchcard.audit", &[]).await?;
    let findings: i64 = findings.first().map_or(-1, |row| row.get(0));
    println!("  {findings}");
    let audit = if findings == 0 { "clean".to_owned() } else { format!("has {findings} findings") };
    Ok(format!(
        "demo: {succeeded} succeeded, {refunded} failed and refunded, {refused} refused, audit {audit}"
    ))
}

/// A team's own HTTP service: one path that works, one that works the third time, one that calls back, one that never will
/// work; and where it hears of its jobs.
async fn team_target() -> Result<ScriptedServer> {
    let calls = AtomicU32::new(0);
    let answer = move |request: scripted::Request| match request.path.as_str() {
        "/ok" => scripted::Response::json(200, json!({ "greeting": "hello from the team's own service" })),
        "/metered" => scripted::Response::json(200, json!({ "tokens": 2718 }))
            .header("punchcard-credits-used", &METERED_USED.to_string()),
        "/flaky" if calls.fetch_add(1, Ordering::Relaxed) < 2 => {
            scripted::Response::json(500, json!({ "error": "not yet" }))
        }
        // Taken on, and done later.
        "/later" => {
            tokio::spawn(async move {
                if let Err(error) = outside::answer_later(request.body).await {
                    println!("  the service that answers later: {error}");
                }
            });
            scripted::Response::json(202, json!({}))
        }
        HOOKS => scripted::Response::json(204, json!({})),
        "/flaky" => scripted::Response::json(200, json!({ "greeting": "third time lucky" })),
        _ => scripted::Response::json(422, json!({ "error": "never" })),
    };
    Ok(ScriptedServer::start(answer).await?)
}

async fn offer(database: &Client, target: &ScriptedServer) -> Result<()> {
    let kinds = format!(
        "INSERT INTO punchcard.kinds (name, price, backoff_seconds, url, metered) VALUES
         ('qr.svg', 1, 10, NULL, false), ('demo.http', 2, 10, '{ok}', false),
         ('demo.metered', {METERED_PRICE}, 10, '{metered}', true), ('demo.flaky', 2, 1, '{flaky}', false),
         ('demo.later', 1, 10, '{later}', false), ('demo.broken', 5, 10, '{broken}', false), ('demo.dear', 100, 10, '{ok}', false)",
        ok = target.url("/ok"),
        metered = target.url("/metered"),
        flaky = target.url("/flaky"),
        later = target.url("/later"),
        broken = target.url("/broken"),
    );
    Ok(database.batch_execute(&kinds).await?)
}

struct User {
    name: &'static str,
    id: Uuid,
}

async fn users(database: &Client) -> Result<[User; 2]> {
    let users =
        [("Ada", 20), ("Ben", 10)].map(|(name, credits)| (User { name, id: Uuid::new_v4() }, credits));
    for (User { name, id }, credits) in &users {
        let grant = format!("SELECT punchcard.grant_credits('{id}', {credits}, 'start', 'to begin with')");
        database.batch_execute(&grant).await?;
        println!("{name} ({id}) has {credits} credits");
    }
    Ok(users.map(|(user, _)| user))
}

/// A job that was posted, and how it stands now.
struct Order<'a> {
    user: &'a User,
    kind: &'static str,
    input: Value,
    key: String,
    id: String,
    job: Value,
}

impl Order<'_> {
    fn status(&self) -> &str {
        self.job["status"].as_str().unwrap_or_default()
    }

    fn is_unfinished(&self) -> bool {
        matches!(self.status(), "queued" | "running")
    }
}

/// Who orders what: 0 is Ada, 1 is Ben.
fn wishes() -> Vec<(usize, &'static str, Value)> {
    let text = |text: &str| json!({ "text": text });
    vec![
        (0, "qr.svg", text("https://example.com/tickets/1")),
        (0, "qr.svg", text("https://example.com/tickets/2?seat=12A")),
        (0, "qr.svg", text("WIFI:T:WPA;S:Analytical Engine;P:difference;;")),
        (0, "qr.svg", text("Grüße, 世界 ✓")),
        (0, "demo.metered", json!({ "prompt": "a poem about engines" })),
        (0, "demo.broken", json!({ "name": "Ada" })),
        (1, "qr.svg", text("0123456789")),
        (1, "qr.svg", text("PUNCHCARD")),
        (1, "demo.later", json!({ "prompt": "a hedgehog" })),
        (1, "demo.flaky", json!({ "name": "Ben" })),
    ]
}

async fn post_orders<'a>(functions: &Functions, users: &'a [User; 2]) -> Result<Vec<Order<'a>>> {
    let mut orders = Vec::new();
    for (number, (user, kind, input)) in wishes().into_iter().enumerate() {
        let (user, key) = (&users[user], format!("order-{}", number + 1));
        let response = functions.post_job(user.id, kind, &input, Some(&key)).await?;
        if response.status() != 202 {
            return Err(unexpected("POST /api/jobs", &response));
        }
        let job: Value = serde_json::from_slice(response.body())?;
        let id = job["id"].as_str().ok_or("a job without an id")?.to_owned();
        println!("  202  {}  {id}  {kind:<12} {input}", user.name);
        orders.push(Order { user, kind, input, key, id, job });
    }
    Ok(orders)
}

/// Answers how many were refused for want of credits.
async fn post_refused(functions: &Functions, user: &User) -> Result<usize> {
    let response = functions.post_job(user.id, "demo.dear", &json!({}), None).await?;
    if response.status() != 402 {
        return Err(unexpected("a job that cannot be paid", &response));
    }
    println!("  402  {}  demo.dear costs more than {} has", user.name, user.name);
    Ok(1)
}

async fn post_again(functions: &Functions, order: &Order<'_>) -> Result<()> {
    let response = functions.post_job(order.user.id, order.kind, &order.input, Some(&order.key)).await?;
    let replayed = response.headers().get("idempotent-replayed").is_some_and(|it| it == "true");
    let job: Value = serde_json::from_slice(response.body())?;
    if response.status() != 200 || !replayed || job["id"] != order.id.as_str() {
        return Err(unexpected("a replay", &response));
    }
    println!("  200  {}  {}  Idempotent-Replayed: true (key {})", order.user.name, order.id, order.key);
    Ok(())
}

/// Canceled before any worker has seen it: its price comes back in the same statement.
async fn post_and_cancel<'a>(functions: &Functions, user: &'a User) -> Result<Order<'a>> {
    let (kind, input, key) = ("demo.http", json!({ "name": user.name }), "order-11".to_owned());
    let response = functions.post_job(user.id, kind, &input, Some(&key)).await?;
    let job: Value = serde_json::from_slice(response.body())?;
    let id = job["id"].as_str().ok_or("a job without an id")?.to_owned();
    let response = functions.act(user.id, &format!("/api/jobs/{id}/cancel")).await?;
    let job: Value = serde_json::from_slice(response.body())?;
    let credits = &job["credits"];
    if response.status() != 200 || job["status"] != "canceled" || credits["released"] != credits["price"] {
        return Err(unexpected("a cancel", &response));
    }
    println!("  200  {}  {id}  {kind:<12} canceled, credits {credits}", user.name);
    Ok(Order { user, kind, input, key, id, job })
}

async fn tick_until_done(functions: &Functions, orders: &mut [Order<'_>]) -> Result<()> {
    for number in 1..=MOST_TICKS {
        let answer = functions.tick().await?;
        let mut unfinished = 0;
        for order in orders.iter_mut().filter(|order| order.is_unfinished()) {
            order.job = functions.get(order.user.id, &format!("/api/jobs/{}", order.id)).await?;
            unfinished += usize::from(order.is_unfinished());
        }
        println!("  tick {number}: {answer} ({unfinished} unfinished)");
        if unfinished == 0 {
            return Ok(());
        }
        sleep(Duration::from_secs(1)).await;
    }
    Err(format!("jobs are unfinished after {MOST_TICKS} ticks").into())
}

fn heading(text: &str) {
    println!("\n== {text} ==");
}
