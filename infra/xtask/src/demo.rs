//! `cargo xtask demo`: the main job end to end. Ten jobs of two users go in by HTTP, scheduler events run them, and
//! every credit is accounted for: PostgreSQL and `cargo lambda watch` around the functions as they are deployed.

use std::collections::HashMap;
use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, Request, Response};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use local::Result;
use local::postgres::{Options, Postgres};
use local::scripted::{self, ScriptedServer};
use local::tools;
use resvg::{tiny_skia, usvg};
use serde_json::{Value, json};
use shared::domain::Deadline;
use shared::http_client::{self, Allow};
use tokio::time::sleep;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use crate::{cargo, run, step, stub_roles};

const ISSUER: &str = "https://demo.punchcard.invalid";
const SCHEDULED: &str = r#"{"source":"aws.scheduler"}"#;
const MOST_TICKS: usize = 20;
/// The first call builds and starts its function.
const FIRST_CALL: Duration = Duration::from_secs(180);
const EXPECTED: &str = "demo: 9 succeeded, 1 failed and refunded, 1 refused, audit clean";
/// What a developer's shell may carry and the functions would obey.
const FOREIGN: [&str; 7] = [
    "JWKS_URL",
    "JWT_AUDIENCE",
    "ACCOUNT_CLAIM",
    "SECRET_ARN",
    "SECRETS_ENDPOINT",
    "CONCURRENCY",
    "LINGER_MS",
];

/// Everything from building to the last line, which is printed once nothing runs any more.
pub async fn demo() -> Result<()> {
    let mut build = cargo(&["build", "-p", "api", "-p", "worker", "--bins"]);
    crate::forget_xtask(&mut build);
    run(build)?;
    let cargo_lambda = step("cargo-lambda", tools::cargo_lambda)?;
    let postgres = step("PostgreSQL", || Postgres::start(Options::default()))?;
    // A database of its own, so that a server that is not ours is left as it was.
    let server = connect(&postgres.url("postgres")).await?;
    let database = format!("demo_{}", Uuid::new_v4().simple());
    server.batch_execute(&format!("CREATE DATABASE {database}")).await?;
    let url = postgres.url(&database);
    let shown = tokio::select! {
        shown = show(&cargo_lambda, &url) => shown,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    };
    let dropped = server.batch_execute(&format!("DROP DATABASE {database} WITH (FORCE)")).await;
    drop(postgres);
    let last_line = shown?;
    dropped?;
    if last_line != EXPECTED {
        return Err(format!("{last_line}\nexpected {EXPECTED}").into());
    }
    println!("\n{last_line}");
    Ok(())
}

async fn show(cargo_lambda: &Path, url: &str) -> Result<String> {
    let folder = tools::target_dir().join("demo");
    fs::create_dir_all(&folder)?;
    let database = connect(url).await?;
    let target = team_target().await?;
    prepare(&database, url, &target).await?;
    let users = users(&database).await?;
    let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let watch = Watch::start(cargo_lambda, url, &secret, &folder)?;
    watch.listens().await?;
    let api = Api { base: format!("http://127.0.0.1:{}", watch.port), secret };

    heading("HTTP in: ten jobs of two users (the first call starts the function)");
    let mut orders = post_orders(&api, &users).await?;
    heading("One more that cannot be paid, and one sent twice");
    let refused = post_refused(&api, &users[1]).await?;
    post_again(&api, &orders[0]).await?;
    heading("EventBridge event in: ticks until no job is unfinished");
    tick_until_done(&api, &mut orders).await?;
    heading("What became of them");
    let succeeded = show_outcomes(&orders, &folder)?;
    retried_twice(&orders, &target)?;
    let mut refunded = 0;
    for user in &users {
        refunded += show_ledger(&api, user, &orders).await?;
    }
    heading("select count(*) from punchcard.audit");
    let findings: i64 = database
        .query_typed("SELECT count(*) FROM punchcard.audit", &[])
        .await?
        .first()
        .map_or(-1, |it| it.get(0));
    println!("  {findings}");
    let audit = if findings == 0 { "clean".to_owned() } else { format!("has {findings} findings") };
    drop(watch);
    Ok(format!(
        "demo: {succeeded} succeeded, {refunded} failed and refunded, {refused} refused, audit {audit}"
    ))
}

async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// A team's own HTTP service: one path that works, one that works the third time, one that never will.
async fn team_target() -> Result<ScriptedServer> {
    let calls = AtomicU32::new(0);
    let answer = move |request: scripted::Request| match request.path.as_str() {
        "/ok" => scripted::Response::json(200, json!({ "greeting": "hello from the team's own service" })),
        "/flaky" if calls.fetch_add(1, Ordering::Relaxed) < 2 => {
            scripted::Response::json(500, json!({ "error": "not yet" }))
        }
        "/flaky" => scripted::Response::json(200, json!({ "greeting": "third time lucky" })),
        _ => scripted::Response::json(422, json!({ "error": "never" })),
    };
    Ok(ScriptedServer::start(answer).await?)
}

async fn prepare(database: &Client, url: &str, target: &ScriptedServer) -> Result<()> {
    stub_roles(url).await?;
    for name in shared::db::migrate::apply(url).await? {
        println!("applied {name}");
    }
    let kinds = format!(
        "INSERT INTO punchcard.kinds (name, price, backoff_seconds, url) VALUES
         ('qr.svg', 1, 10, NULL), ('demo.http', 2, 10, '{ok}'), ('demo.flaky', 2, 1, '{flaky}'),
         ('demo.broken', 5, 10, '{broken}'), ('demo.dear', 100, 10, '{ok}')",
        ok = target.url("/ok"),
        flaky = target.url("/flaky"),
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

/// `cargo lambda watch` and the functions it starts: one process group, ended on drop.
struct Watch {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Watch {
    fn start(cargo_lambda: &Path, url: &str, jwt_secret: &str, folder: &Path) -> Result<Self> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let log = folder.join("watch.log");
        let output = File::create(&log)?;
        let mut command = Command::new(cargo_lambda);
        command.args(["lambda", "watch", "-A", "127.0.0.1", "-P", &port.to_string(), "--ignore-changes"]);
        for name in FOREIGN {
            command.env_remove(name);
        }
        crate::forget_xtask(&mut command);
        command
            .env("DATABASE_URL", url)
            .env("JWT_SECRET", jwt_secret)
            .env("JWT_ISSUER", ISSUER)
            .env("SIGNING_SECRET", Uuid::new_v4().to_string())
            .env("ALLOW_PRIVATE_TARGETS", "true")
            .env("LOG_LEVEL", "warn");
        command.current_dir(tools::workspace()).process_group(0);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        die_with_parent(&mut command);
        let child = command.spawn().map_err(|error| format!("cannot start cargo lambda watch: {error}"))?;
        Ok(Self { child, port, log })
    }

    /// Probed by connecting alone: an HTTP probe that is given up counts against the emulator.
    async fn listens(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if Instant::now() > deadline {
                return Err(format!("cargo lambda watch does not listen: see {}", self.log.display()).into());
            }
            sleep(Duration::from_millis(100)).await;
        }
        println!("cargo lambda watch listens on {} (log: {})", self.port, self.log.display());
        Ok(())
    }

    #[allow(unsafe_code)] // kill(2) has no safe wrapper in std; the group is that of our own unreaped child.
    fn signal(&self, signal: libc::c_int) {
        unsafe { libc::kill(-(self.child.id() as libc::pid_t), signal) };
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.signal(libc::SIGINT);
        let deadline = Instant::now() + Duration::from_secs(10);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.signal(libc::SIGKILL);
        let _ = self.child.wait();
    }
}

/// SIGINT to the child when we die, however we die, so that nothing is left running.
#[allow(unsafe_code)] // pre_exec is unsafe by nature; prctl is async-signal-safe and touches no memory.
fn die_with_parent(command: &mut Command) {
    #[cfg(target_os = "linux")]
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGINT);
            Ok(())
        });
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}

/// The two ways in: HTTP as a user, and the scheduler's event.
struct Api {
    base: String,
    secret: String,
}

impl Api {
    async fn get(&self, user: Uuid, path: &str) -> Result<Value> {
        let response = self.call(Method::GET, user, path, None, Bytes::new()).await?;
        match response.status().as_u16() {
            200 => Ok(serde_json::from_slice(response.body())?),
            _ => Err(unexpected(path, &response)),
        }
    }

    async fn post_job(
        &self,
        user: Uuid,
        kind: &str,
        input: &Value,
        key: Option<&str>,
    ) -> Result<Response<Bytes>> {
        let body = json!({ "kind": kind, "input": input }).to_string();
        self.call(Method::POST, user, "/api/jobs", key, body.into()).await
    }

    async fn call(
        &self,
        method: Method,
        user: Uuid,
        path: &str,
        key: Option<&str>,
        body: Bytes,
    ) -> Result<Response<Bytes>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {}", self.token(user)?))
            .header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        send(request.body(body)?).await
    }

    /// What a sign-in by Supabase gives, signed by the demo's own secret.
    fn token(&self, user: Uuid) -> Result<String> {
        let exp = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 3_600;
        let claims = json!({
            "sub": user, "iss": ISSUER, "aud": "authenticated", "role": "authenticated", "exp": exp,
        });
        let key = EncodingKey::from_secret(self.secret.as_bytes());
        Ok(encode(&Header::new(Algorithm::HS256), &claims, &key)?)
    }

    async fn tick(&self) -> Result<String> {
        let path = "/2015-03-31/functions/poller/invocations";
        let request =
            Request::post(format!("{}{path}", self.base)).header("content-type", "application/json");
        let response = send(request.body(Bytes::from(SCHEDULED))?).await?;
        let answer = String::from_utf8_lossy(response.body()).into_owned();
        match response.status().is_success() && !answer.contains("errorMessage") {
            true => Ok(answer),
            false => Err(unexpected("the tick", &response)),
        }
    }
}

async fn send(request: Request<Bytes>) -> Result<Response<Bytes>> {
    let said = format!("{} {}", request.method(), request.uri());
    http_client::send(request, Allow::Anything, 1 << 20, Deadline::after(FIRST_CALL))
        .await
        .map_err(|error| format!("{said}: {error} (see demo/watch.log in the target folder)").into())
}

fn unexpected(what: &str, response: &Response<Bytes>) -> local::Error {
    format!("{what}: answered {}: {}", response.status(), String::from_utf8_lossy(response.body())).into()
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
        (0, "demo.http", json!({ "name": "Ada" })),
        (0, "demo.broken", json!({ "name": "Ada" })),
        (1, "qr.svg", text("0123456789")),
        (1, "qr.svg", text("PUNCHCARD")),
        (1, "qr.svg", text("tel:+15550100")),
        (1, "demo.flaky", json!({ "name": "Ben" })),
    ]
}

async fn post_orders<'a>(api: &Api, users: &'a [User; 2]) -> Result<Vec<Order<'a>>> {
    let mut orders = Vec::new();
    for (number, (user, kind, input)) in wishes().into_iter().enumerate() {
        let (user, key) = (&users[user], format!("order-{}", number + 1));
        let response = api.post_job(user.id, kind, &input, Some(&key)).await?;
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
async fn post_refused(api: &Api, user: &User) -> Result<usize> {
    let response = api.post_job(user.id, "demo.dear", &json!({}), None).await?;
    if response.status() != 402 {
        return Err(unexpected("a job that cannot be paid", &response));
    }
    println!("  402  {}  demo.dear  {}", user.name, String::from_utf8_lossy(response.body()));
    Ok(1)
}

async fn post_again(api: &Api, order: &Order<'_>) -> Result<()> {
    let response = api.post_job(order.user.id, order.kind, &order.input, Some(&order.key)).await?;
    let replayed = response.headers().get("idempotent-replayed").is_some_and(|it| it == "true");
    let job: Value = serde_json::from_slice(response.body())?;
    if response.status() != 200 || !replayed || job["id"] != order.id.as_str() {
        return Err(unexpected("a replay", &response));
    }
    println!("  200  {}  {}  Idempotent-Replayed: true (key {})", order.user.name, order.id, order.key);
    Ok(())
}

async fn tick_until_done(api: &Api, orders: &mut [Order<'_>]) -> Result<()> {
    for number in 1..=MOST_TICKS {
        let answer = api.tick().await?;
        let mut unfinished = 0;
        for order in orders.iter_mut().filter(|order| order.is_unfinished()) {
            order.job = api.get(order.user.id, &format!("/api/jobs/{}", order.id)).await?;
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

/// Answers how many succeeded; a QR code counts once its file reads back as its text.
fn show_outcomes(orders: &[Order<'_>], folder: &Path) -> Result<usize> {
    let (mut succeeded, mut codes) = (0, 0);
    for Order { user, kind, input, job, .. } in orders {
        let status = job["status"].as_str().unwrap_or_default();
        let shown = match (status, *kind) {
            ("succeeded", "qr.svg") => {
                codes += 1;
                let file = folder.join(format!("qr-{codes}.svg"));
                fs::write(&file, job["output"]["svg"].as_str().ok_or("a QR code without its svg")?)?;
                let text = read_qr(&fs::read_to_string(&file)?)?;
                if input["text"] != text.as_str() {
                    return Err(format!("{} says {text:?} instead of {input}", file.display()).into());
                }
                format!("{} reads {text:?}", file.display())
            }
            ("succeeded", _) => job["output"].to_string(),
            _ => job["error"].to_string(),
        };
        succeeded += usize::from(status == "succeeded");
        println!("  {}  {kind:<12} {status:<10} attempt {}  {shown}", user.name, job["attempt"]);
    }
    Ok(succeeded)
}

/// Draws the SVG and reads the QR code off the picture.
fn read_qr(svg: &str) -> Result<String> {
    let tree = usvg::Tree::from_str(svg, &usvg::Options::default())?;
    let size = tree.size().to_int_size();
    let mut picture = tiny_skia::Pixmap::new(size.width(), size.height()).ok_or("an empty picture")?;
    picture.fill(tiny_skia::Color::WHITE);
    resvg::render(&tree, tiny_skia::Transform::identity(), &mut picture.as_mut());
    let (width, height) = (size.width() as usize, size.height() as usize);
    let grey = |x: usize, y: usize| picture.pixels()[y * width + x].green();
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, grey);
    let (_, text) = image.detect_grids().first().ok_or("no QR code in the picture")?.decode()?;
    Ok(text)
}

/// The job that fails twice and then succeeds did exactly that, as its target saw it.
fn retried_twice(orders: &[Order<'_>], target: &ScriptedServer) -> Result<()> {
    let calls = target.requests().iter().filter(|request| request.path == "/flaky").count();
    let flaky = orders.iter().find(|order| order.kind == "demo.flaky").ok_or("no demo.flaky")?;
    match calls == 3 && flaky.status() == "succeeded" && flaky.job["attempt"] == 3 {
        true => Ok(()),
        false => Err(format!("demo.flaky was called {calls} times: {}", flaky.job).into()),
    }
}

/// Prints the user's ledger, oldest first, and answers how many failed jobs got their whole price back.
async fn show_ledger(api: &Api, user: &User, orders: &[Order<'_>]) -> Result<usize> {
    let ledger = api.get(user.id, "/api/credits/ledger?limit=100").await?;
    let entries = ledger["data"].as_array().ok_or("a ledger without data")?;
    let jobs: HashMap<&str, &Order<'_>> = orders.iter().map(|order| (order.id.as_str(), order)).collect();
    heading(&format!("{}'s ledger", user.name));
    println!("  {:<8} {:<13} {:>9} {:>6}   {:>9} {:>6}", "entry", "for", "available", "held", "then", "held");
    let mut refunded = 0;
    for entry in entries.iter().rev() {
        let number = |field: &str| entry[field].as_i64().unwrap_or_default();
        let (kind, order) = (
            entry["kind"].as_str().unwrap_or_default(),
            entry["job_id"].as_str().and_then(|id| jobs.get(id)),
        );
        let paid_for = order.map_or_else(|| entry["reason"].as_str().unwrap_or_default(), |order| order.kind);
        let (available, held) = (number("available_delta"), number("held_delta"));
        let (available_after, held_after) = (number("available_after"), number("held_after"));
        println!(
            "  {kind:<8} {paid_for:<13} {available:>+9} {held:>+6}   {available_after:>9} {held_after:>6}"
        );
        let whole =
            |order: &Order<'_>| order.status() == "failed" && order.job["credits"]["price"] == available;
        refunded += usize::from(kind == "release" && order.is_some_and(|order| whole(order)));
    }
    Ok(refunded)
}

fn heading(text: &str) {
    println!("\n== {text} ==");
}
