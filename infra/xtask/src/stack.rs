//! The whole system on this machine: PostgreSQL, a migrated database, and the functions under `cargo lambda watch`.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, Request, Response};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use local::postgres::{Options, Postgres};
use local::tools;
use local::watch::Watch;
use local::{Error, Result};
use serde_json::{Value, json};
use shared::domain::Deadline;
use shared::http_client::{self, Allow};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use crate::{cargo, run, step, stub_roles};

const ISSUER: &str = "https://local.punchcard.invalid";
/// What EventBridge Scheduler sends, as far as the poller cares.
const SCHEDULED: &str = r#"{"source":"aws.scheduler"}"#;
/// The first call starts its function, and cargo looks once more whether it is built.
const FIRST_CALL: Duration = Duration::from_secs(180);

/// A migrated database of its own, so that a server that is not ours is left as it was.
pub(crate) struct Database {
    postgres: Postgres,
    server: Client,
    name: String,
}

impl Database {
    pub(crate) async fn create(name: &str) -> Result<Self> {
        let postgres = step("PostgreSQL", || Postgres::start(Options::default()))?;
        stub_roles(&postgres.url("postgres")).await?;
        let server = connect(&postgres.url("postgres")).await?;
        let name = format!("{name}_{}", Uuid::new_v4().simple());
        server.batch_execute(&format!("CREATE DATABASE {name}")).await?;
        let database = Self { postgres, server, name };
        for migration in shared::db::migrate::apply(&database.url()).await? {
            println!("applied {migration}");
        }
        Ok(database)
    }

    pub(crate) fn url(&self) -> String {
        self.postgres.url(&self.name)
    }

    pub(crate) async fn connect(&self) -> Result<Client> {
        connect(&self.url()).await
    }

    /// Removes the database; the server goes with it if it is ours.
    pub(crate) async fn remove(self) -> Result<()> {
        Ok(self.server.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name)).await?)
    }
}

async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// What functions are built with that send wake-ups.
pub(crate) const WITH_SQS: &str = "api/sqs,worker/sqs";

/// Builds the functions, as `cargo lambda watch` will, which then finds them, and finds, or installs, cargo-lambda: what may take
/// minutes, before anything is started.
pub(crate) fn build(features: Option<&str>) -> Result<PathBuf> {
    let mut build = cargo(&["build", "-p", "api", "-p", "worker", "--bins"]);
    build.args(features.map(|features| format!("--features={features}")));
    run(build)?;
    step("cargo-lambda", tools::cargo_lambda)
}

/// The secrets of a run.
pub(crate) struct Keys {
    jwt_secret: String,
    signing_secret: String,
}

impl Keys {
    pub(crate) fn new() -> Self {
        Self { jwt_secret: secret(), signing_secret: secret() }
    }

    /// What the functions find in their environment.
    pub(crate) fn environment(&self, database_url: &str) -> Vec<(String, String)> {
        [
            ("DATABASE_URL", database_url),
            ("JWT_SECRET", &self.jwt_secret),
            ("JWT_ISSUER", ISSUER),
            ("SIGNING_SECRET", &self.signing_secret),
            ("ALLOW_PRIVATE_TARGETS", "true"),
            ("LOG_LEVEL", "warn"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// The master secret, which seals and signs.
    pub(crate) fn signing_secret(&self) -> &str {
        &self.signing_secret
    }

    /// What a sign-in by Supabase gives, signed by the secret of this run.
    pub(crate) fn token(&self, user: Uuid, life: Duration) -> Result<String> {
        let exp = (SystemTime::now().duration_since(UNIX_EPOCH)? + life).as_secs();
        let claims = json!({
            "sub": user, "iss": ISSUER, "aud": "authenticated", "role": "authenticated", "exp": exp,
        });
        let key = EncodingKey::from_secret(self.jwt_secret.as_bytes());
        Ok(encode(&Header::new(Algorithm::HS256), &claims, &key)?)
    }
}

/// The functions, called as a browser and as the scheduler call them.
pub(crate) struct Functions {
    watch: Watch,
    env: Vec<(String, String)>,
    keys: Keys,
}

impl Functions {
    /// With `sqs`, what finds the queue, if there is one.
    pub(crate) fn start(
        cargo_lambda: &Path,
        database_url: &str,
        sqs: Option<Vec<(String, String)>>,
        log: &Path,
    ) -> Result<Self> {
        let keys = Keys::new();
        let features = sqs.as_ref().map(|_| WITH_SQS);
        let mut env = keys.environment(database_url);
        env.extend(sqs.into_iter().flatten());
        let watch = Watch::start(cargo_lambda, features, &env, log)?;
        println!("cargo lambda watch serves {} (log: {})", watch.url(), log.display());
        Ok(Self { watch, env, keys })
    }

    /// What the functions find in their environment.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        self.env.clone()
    }

    /// Where `/api/…` is served.
    pub(crate) fn url(&self) -> String {
        self.watch.url()
    }

    /// Where a function takes an event of any trigger.
    pub(crate) fn invoke_url(&self, function: &str) -> String {
        self.watch.invoke_url(function)
    }

    /// The master secret of HTTP targets.
    pub(crate) fn signing_secret(&self) -> &str {
        &self.keys.signing_secret
    }

    /// A user's token.
    pub(crate) fn token(&self, user: Uuid, life: Duration) -> Result<String> {
        self.keys.token(user, life)
    }

    pub(crate) async fn get(&self, user: Uuid, path: &str) -> Result<Value> {
        let response = self.call(Method::GET, user, path, None, Bytes::new()).await?;
        match response.status().as_u16() {
            200 => Ok(serde_json::from_slice(response.body())?),
            _ => Err(unexpected(path, &response)),
        }
    }

    pub(crate) async fn post_job(
        &self,
        user: Uuid,
        kind: &str,
        input: &Value,
        key: Option<&str>,
    ) -> Result<Response<Bytes>> {
        let body = json!({ "kind": kind, "input": input }).to_string();
        self.call(Method::POST, user, "/api/jobs", key, body.into()).await
    }

    pub(crate) async fn put(&self, user: Uuid, path: &str, body: &Value) -> Result<Response<Bytes>> {
        self.call(Method::PUT, user, path, None, body.to_string().into()).await
    }

    /// POST without a body.
    pub(crate) async fn act(&self, user: Uuid, path: &str) -> Result<Response<Bytes>> {
        self.call(Method::POST, user, path, None, Bytes::new()).await
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
            .uri(format!("{}{path}", self.watch.url()))
            .header("authorization", format!("Bearer {}", self.token(user, Duration::from_secs(3_600))?))
            .header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.send(request.body(body)?).await
    }

    /// Sends the poller what the scheduler sends, and answers its summary.
    pub(crate) async fn tick(&self) -> Result<String> {
        let request =
            Request::post(self.watch.invoke_url("poller")).header("content-type", "application/json");
        let response = self.send(request.body(Bytes::from(SCHEDULED))?).await?;
        let answer = String::from_utf8_lossy(response.body()).into_owned();
        match response.status().is_success() && !answer.contains("errorMessage") {
            true => Ok(answer),
            false => Err(unexpected("the tick", &response)),
        }
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>> {
        let said = format!("{} {}", request.method(), request.uri());
        http_client::send(request, Allow::Anything, 1 << 20, Deadline::after(FIRST_CALL))
            .await
            .map_err(|error| format!("{said}: {error} (see {})", self.watch.log().display()).into())
    }
}

/// The answer that was not expected, as an error.
pub(crate) fn unexpected(what: &str, response: &Response<Bytes>) -> Error {
    format!("{what}: answered {}: {}", response.status(), String::from_utf8_lossy(response.body())).into()
}

fn secret() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}
