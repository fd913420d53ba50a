//! A database per test, copied from a migrated template, and the functions around it.

mod clock;
pub mod documented;
pub mod sqs;
pub mod wire;

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use local::lambda::Function;
use serde_json::{Value, json};
use shared::{
    db::{
        Db,
        tokens::{TOKEN_PREFIX, token_hash},
    },
    secrets::{SecretSource, SecretStore},
};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls, Row, types::Type};
use uuid::Uuid;

pub const JWT_SECRET: &str = "a secret of the tests, long enough for HS256";
pub const ISSUER: &str = "https://issuer.test/auth/v1";
pub const SIGNING_SECRET: &str = "the master secret of the tests, long enough for HMAC";

/// The role that migrates, and owns what it makes: neither superuser nor past row security.
pub const OWNER: &str = "punchcard_migrator";
/// The role that the functions log in as.
pub const APP: &str = "punchcard_app";
/// Of both.
pub const PASSWORD: &str = "a-password-of-the-tests";

static TEMPLATE: OnceCell<String> = OnceCell::const_new();

fn server_url() -> String {
    std::env::var("PUNCHCARD_TEST_DATABASE_URL")
        .expect("PUNCHCARD_TEST_DATABASE_URL is not set: run `cargo xtask test`, which starts PostgreSQL")
}

/// The URL as another role.
pub fn as_role(url: &str, role: &str) -> String {
    format!("postgres://{role}:{PASSWORD}@{}", url.split_once('@').expect("a URL with a user").1)
}

/// The URL with another database.
fn with_database(url: &str, database: &str) -> String {
    format!("{}/{database}", url.rsplit_once('/').expect("a URL with a database").0)
}

pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("the test database answers");
    tokio::spawn(connection);
    client
}

pub fn binary(name: &str) -> PathBuf {
    let dir = std::env::var_os("PUNCHCARD_BIN_DIR").map(PathBuf::from).unwrap_or_else(|| {
        let test = std::env::current_exe().expect("a path");
        test.ancestors().nth(2).expect("target/debug").to_owned()
    });
    dir.join(name)
}

/// A database of one test, with its API and poller.
pub struct Bench {
    /// As the functions connect.
    pub url: String,
    pub database: String,
    /// The superuser's, past the pooler, if there is one.
    pub direct_url: String,
    pub admin: Client,
    pub api: Function,
    _dropped: Dropped,
}

/// Drops the database once its test is over, unless it failed.
struct Dropped(String);

impl Drop for Dropped {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let sql = format!("DROP DATABASE {} WITH (FORCE)", self.0);
        // Nobody waits for it, and nothing depends on it: it keeps the disk from filling up.
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async { drop(connect(&server_url()).await.batch_execute(&sql).await) });
        });
    }
}

pub struct Answer {
    pub status: u64,
    pub headers: Value,
    pub body: Value,
}

impl Bench {
    /// A migrated database with the kinds `echo.http` (price 10), `qr.svg` (price 1) and `unserved` (price 5).
    pub async fn new() -> Self {
        let template = TEMPLATE.get_or_init(make_template).await;
        let database = format!("t_{}", Uuid::new_v4().simple());
        let server = connect(&server_url()).await;
        server
            .batch_execute(&format!("CREATE DATABASE {database} TEMPLATE {template}"))
            .await
            .expect("a database");
        // As in a database of Punchcard's own; a copy of the template does not have its grants.
        let ours = format!(
            "REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC; GRANT TEMPORARY ON DATABASE {database} TO {OWNER}"
        );
        server.batch_execute(&ours).await.expect("grants");
        let direct_url = with_database(&server_url(), &database);
        let url = match std::env::var("PUNCHCARD_TEST_POOLER_URL") {
            Ok(pooler) => with_database(&pooler, &database),
            Err(_) => direct_url.clone(),
        };
        let url = as_role(&url, APP);
        Self::of(url, database, direct_url).await
    }

    /// A database that is there already, by the functions' URL and the superuser's; dropped as one of its own.
    pub async fn of(url: String, database: String, direct_url: String) -> Self {
        let admin = connect(&direct_url).await;
        let api = Function::new(binary("api"), environment(&url)).max_concurrency(12);
        let _dropped = Dropped(database.clone());
        Self { url, database, direct_url, admin, api, _dropped }
    }

    /// The statements, as the functions send them.
    pub fn db(&self) -> Db {
        let source = SecretSource { database_url: Some(self.url.clone()), ..SecretSource::default() };
        Db::new(Arc::new(SecretStore::new(source)))
    }

    /// The same as the operator sends them.
    pub fn operators_db(&self) -> Db {
        let source = SecretSource { database_url: Some(self.direct_url.clone()), ..SecretSource::default() };
        Db::new(Arc::new(SecretStore::new(source)))
    }

    pub fn poller(&self) -> Function {
        self.poller_with(&[])
    }

    pub fn poller_with(&self, more: &[(&str, &str)]) -> Function {
        let mut env = environment(&self.url);
        env.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Function::new(binary("poller"), env).timeout(Duration::from_secs(60))
    }

    /// The worker that does what a test wants (`tests/bin/scripted-worker.rs`), as a poller.
    pub fn scripted_worker(&self) -> Function {
        Function::new(binary("scripted-worker"), environment(&self.url)).timeout(Duration::from_secs(60))
    }

    /// The kind `test.scripted`, of price 10, tried again after a second; `terms` is more, as SQL assignments.
    pub async fn scripted_kind(&self, terms: &str) {
        self.sql(
            "INSERT INTO punchcard.kinds (name, price, max_priority, backoff_seconds, jitter)
             VALUES ('test.scripted', 10, 10, 1, 0)",
        )
        .await;
        if !terms.is_empty() {
            self.sql(&format!("UPDATE punchcard.kinds SET {terms} WHERE name = 'test.scripted'")).await;
        }
    }

    /// Buys a job of the kind `test.scripted` through the API; answers its id.
    pub async fn script(&self, account: Uuid, steps: Value) -> String {
        let answer =
            self.post(account, json!({ "kind": "test.scripted", "input": { "script": steps } }), None).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
        answer.body["id"].as_str().expect("an id").to_owned()
    }

    /// The job as the API shows it to its owner.
    pub async fn job(&self, account: Uuid, id: &str) -> Value {
        let answer = self.get(account, &format!("/api/jobs/{id}")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    /// Lets time pass for what is unfinished and unsaid: all that is due within so many seconds is due, and all that ends
    /// within them has ended.
    pub async fn wait(&self, seconds: u32) {
        self.sql(&format!(
            "UPDATE punchcard.queue SET run_at = run_at - interval '{seconds} seconds',
                 expires_at = expires_at - interval '{seconds} seconds',
                 lease_expires_at = lease_expires_at - interval '{seconds} seconds',
                 waiting_until = waiting_until - interval '{seconds} seconds';
             UPDATE punchcard.outbox SET next_at = next_at - interval '{seconds} seconds'"
        ))
        .await;
    }

    /// Lets a role create temporary objects, as every role may in a database that nobody has looked after.
    pub async fn allow_temporary(&self, role: &str) {
        self.sql(&format!("GRANT TEMPORARY ON DATABASE {} TO {role}", self.database)).await;
    }

    /// Waits until so many statements of this database wait for locks.
    pub async fn until_waiting_for_locks(&self, statements: i64) {
        let waiting = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        // A transaction sees who was waiting when it first looked: this test's may be open.
        let looker = connect(&self.direct_url).await;
        for _ in 0..6_000 {
            if looker.query_typed(waiting, &[]).await.expect(waiting)[0].get::<_, i64>(0) >= statements {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{statements} statements do not wait for locks after a minute");
    }

    /// Starts a new account with credits.
    pub async fn account(&self, credits: i64) -> Uuid {
        let id = Uuid::new_v4();
        if credits > 0 {
            self.sql(&format!("SELECT punchcard.grant_credits('{id}', {credits}, 'start')")).await;
        }
        id
    }

    /// A service token with these scopes.
    pub async fn service_token(&self, name: &str, scopes: &[&str]) -> String {
        let token = format!("{TOKEN_PREFIX}{}", Uuid::new_v4().simple());
        let insert =
            "INSERT INTO punchcard.service_tokens (name, slot, scopes, sha256) VALUES ($1, 1, $2, $3)";
        let hash = token_hash(&token);
        let params = [(&name as _, Type::TEXT), (&scopes as _, Type::TEXT_ARRAY), (&hash as _, Type::BYTEA)];
        self.admin.execute_typed(insert, &params).await.expect("a token");
        token
    }

    pub async fn sql(&self, sql: &str) {
        self.admin.batch_execute(sql).await.expect(sql);
    }

    pub async fn rows(&self, sql: &str) -> Vec<Row> {
        self.admin.query_typed(sql, &[]).await.expect(sql)
    }

    pub async fn count(&self, sql: &str) -> i64 {
        self.rows(sql).await[0].get(0)
    }

    pub async fn balance(&self, account: Uuid) -> (i64, i64) {
        let rows = self
            .rows(&format!("SELECT available, held FROM punchcard.balances WHERE account_id = '{account}'"))
            .await;
        rows.first().map_or((0, 0), |row| (row.get(0), row.get(1)))
    }

    /// The url of an HTTP kind, made on the spot.
    pub async fn http_kind(&self, name: &str, price: i64, url: &str) {
        self.sql(&format!(
            "INSERT INTO punchcard.kinds (name, price, max_priority, max_attempts, backoff_seconds, timeout_seconds, url)
             VALUES ('{name}', {price}, 10, 3, 1, 5, '{url}')"
        ))
        .await;
    }

    pub async fn enqueue(&self, account: Uuid, kind: &str, count: usize) {
        self.sql(&format!(
            "SELECT punchcard.enqueue('{account}', '{kind}', '{{\"text\":\"t\"}}') FROM generate_series(1, {count})"
        ))
        .await;
    }

    pub async fn request(&self, event: Value) -> Answer {
        let answer = self.api.invoke(&event).await.expect("an answer");
        documented::assert_documented(&event, &answer);
        let body = answer["body"].as_str().unwrap_or_default();
        Answer {
            status: answer["statusCode"].as_u64().expect("a status"),
            headers: answer["headers"].clone(),
            body: serde_json::from_str(body).unwrap_or(Value::Null),
        }
    }

    pub async fn get(&self, account: Uuid, path: &str) -> Answer {
        self.request(event("GET", path, &[("authorization", &bearer(account))], None)).await
    }

    pub async fn post(&self, account: Uuid, body: Value, key: Option<&str>) -> Answer {
        let token = bearer(account);
        let mut headers = vec![("authorization", token.as_str()), ("content-type", "application/json")];
        headers.extend(key.map(|key| ("idempotency-key", key)));
        self.request(event("POST", "/api/jobs", &headers, Some(&body.to_string()))).await
    }

    /// POST without a body, such as to `/api/jobs/{id}/cancel`.
    pub async fn act(&self, account: Uuid, path: &str) -> Answer {
        self.request(event("POST", path, &[("authorization", &bearer(account))], None)).await
    }

    /// Every invariant holds, and nothing is left idle in a transaction.
    pub async fn assert_audit_is_clean(&self) {
        self.assert_audit_is_clean_meanwhile().await;
        let idle = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'";
        assert_eq!(self.count(idle).await, 0, "a transaction was left open");
    }

    /// Every invariant holds, while somebody's transaction is open.
    pub async fn assert_audit_is_clean_meanwhile(&self) {
        let rows = self.rows("SELECT invariant || ' ' || coalesce(subject::text, '') || ' ' || finding FROM punchcard.audit").await;
        let findings: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert!(findings.is_empty(), "{findings:#?}");
    }

    /// Ticks until nothing is due any more.
    pub async fn drain(&self) {
        let poller = self.poller();
        for _ in 0..20 {
            poller.invoke(&json!({})).await.expect("a tick");
            if self.count("SELECT count(*) FROM punchcard.queue").await == 0 {
                return;
            }
            self.wait(1).await;
        }
        panic!("jobs are left after twenty ticks");
    }
}

async fn make_template() -> String {
    let name = format!("template_{}", Uuid::new_v4().simple());
    let server = connect(&server_url()).await;
    for role in [
        "anon NOLOGIN".to_owned(),
        "authenticated NOLOGIN".to_owned(),
        "service_role NOLOGIN BYPASSRLS".to_owned(),
        format!("{OWNER} LOGIN PASSWORD '{PASSWORD}' CREATEROLE"),
        format!("{APP} LOGIN PASSWORD '{PASSWORD}'"),
    ] {
        // Roles belong to the server; another run may have made them.
        let _ = server.batch_execute(&format!("CREATE ROLE {role}")).await;
    }
    server.batch_execute(&format!("CREATE DATABASE {name} OWNER {OWNER}")).await.expect("a template");
    let admin = connect(&with_database(&server_url(), &name)).await;
    admin.batch_execute(include_str!("supabase.sql")).await.expect("what Supabase has");
    admin.batch_execute(include_str!("../../infra/cli/src/roles/create.sql")).await.expect("time-outs");
    let url = as_role(&with_database(&server_url(), &name), OWNER);
    let client = connect(&url).await;
    // Supabase's default privileges are for one schema; ours are for all, and worse: what is created is everybody's.
    client
        .batch_execute(
            "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO anon, authenticated, service_role;
             ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO anon, authenticated, service_role;
             ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO anon, authenticated, service_role;",
        )
        .await
        .expect("default privileges");
    shared::db::migrate::apply(&url).await.expect("migrations apply");
    client
        .batch_execute(
            "INSERT INTO punchcard.kinds (name, price, max_priority, max_attempts, backoff_seconds, url) VALUES
                 ('echo.http', 10, 10, 3, 1, 'http://127.0.0.1:9/nobody'), ('qr.svg', 1, 10, 3, 1, NULL),
                 ('unserved', 5, 10, 3, 1, NULL), ('free', 0, 10, 3, 1, NULL)",
        )
        .await
        .expect("kinds");
    name
}

/// Where the API is said to be; a test that calls back takes the path alone.
pub const PUBLIC_URL: &str = "https://jobs.example.com";

pub fn environment(url: &str) -> Vec<(String, String)> {
    [
        ("DATABASE_URL", url),
        ("JWT_SECRET", JWT_SECRET),
        ("JWT_ISSUER", ISSUER),
        ("SIGNING_SECRET", SIGNING_SECRET),
        ("ALLOW_PRIVATE_TARGETS", "true"),
        ("PUBLIC_URL", PUBLIC_URL),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// A function whose secrets are at a scripted service.
pub fn secret_environment(arn: &str, endpoint: &str) -> Vec<(String, String)> {
    [
        ("SECRET_ARN", arn),
        ("SECRETS_ENDPOINT", endpoint),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_SESSION_TOKEN", "session"),
        ("JWT_ISSUER", ISSUER),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// The claims of a signed-in user.
pub fn claims(account: Uuid) -> Value {
    json!({ "sub": account, "iss": ISSUER, "aud": "authenticated", "role": "authenticated", "exp": now() + 600 })
}

pub fn sign(claims: &Value) -> String {
    encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(JWT_SECRET.as_bytes()))
        .expect("a token")
}

pub fn bearer(account: Uuid) -> String {
    format!("Bearer {}", sign(&claims(account)))
}

/// The routes that the events ask for.
pub fn routes_of<'a>(events: impl IntoIterator<Item = &'a Value>) -> HashSet<(&'static str, &'static str)> {
    let asked = |event: &Value| {
        let http = &event["requestContext"]["http"];
        let (method, path) = (http["method"].as_str()?, event["rawPath"].as_str()?);
        api::ROUTES
            .iter()
            .copied()
            .find(|(its, route)| *its == method && api::route_of(method, path) == Some(route))
    };
    events.into_iter().filter_map(asked).collect()
}

/// An event of API Gateway, payload 2.0.
pub fn event(method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Value {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let parameters: serde_json::Map<String, Value> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .collect();
    let headers: serde_json::Map<String, Value> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    json!({
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": query,
        "queryStringParameters": parameters, "headers": headers, "body": body, "isBase64Encoded": false,
        "requestContext": {
            "accountId": "1", "apiId": "a", "domainName": "d", "domainPrefix": "d", "requestId": "r",
            "routeKey": "$default", "stage": "$default", "time": "24/Nov/2026:00:00:00 +0000", "timeEpoch": 1,
            "http": { "method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1", "userAgent": "t" }
        }
    })
}
