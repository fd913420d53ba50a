//! Every setting, read once. No other file of the functions reads the environment.

use std::{env, fmt, time::Duration};

use crate::{
    doctor::{self, Deployment},
    secrets::{AwsCredentials, SecretSource},
    wake,
};

/// Statements go through a connection one after the other, each a few milliseconds: more than a few only burden the pooler.
const MOST_CONNECTIONS: usize = 4;

/// The longest wait for a job, in seconds: API Gateway gives up after 30 s.
pub const LONGEST_WAIT: u64 = 25;

/// A setting that is missing or makes no sense: one line that says which and what to do.
#[derive(thiserror::Error)]
#[error("{name}: {problem}")]
pub struct ConfigError {
    name: &'static str,
    problem: String,
}

/// As `main` prints what it returns.
impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What both functions need: where the database is, and where secrets come from.
#[derive(Debug, Clone)]
pub struct Config {
    /// `DATABASE_URL`, or the secret `SECRET_ARN` that holds it.
    pub secrets: SecretSource,
    /// `LOG_LEVEL`: a filter such as `info`.
    pub log: String,
    /// Who may call the API.
    pub auth: AuthConfig,
    /// How the worker runs jobs.
    pub worker: WorkerConfig,
    /// `LONGEST_WAIT`: how many seconds a caller of the API may wait for a job, 0 to 25: each keeps an environment busy meanwhile.
    pub longest_wait: Duration,
    /// Connections of this environment at once: 1, but on Lambda Managed Instances, which say by
    /// `AWS_LAMBDA_MAX_CONCURRENCY` how many requests come at once, as many as those, up to 4.
    pub connections: usize,
    /// Whether the poller may be asked for a diagnosis, and what it then says of the deployment.
    pub doctor: Option<Deployment>,
    /// `WAKE_QUEUE_URL`: the SQS queue of wake-ups; needs a build with the feature `sqs`.
    pub wake_queue_url: Option<String>,
}

/// Who may call the API.
#[derive(Debug, Clone)]
pub struct AuthConfig {
    /// `JWT_ISSUER`: the exact `iss`; for Supabase `https://<ref>.supabase.co/auth/v1`.
    pub issuer: Option<String>,
    /// `JWT_AUDIENCE`: must be in `aud`; default `authenticated`.
    pub audience: String,
    /// `JWKS_URL`: the issuer's keys; default `<issuer>/.well-known/jwks.json` unless an HS256 secret is set.
    pub jwks_url: Option<String>,
    /// `ACCOUNT_CLAIM`: the claim of `app_metadata` that names the account, instead of `sub`.
    pub account_claim: Option<String>,
    /// `REFUSE_ANONYMOUS`: whether Supabase's anonymous users are refused; default false.
    pub refuse_anonymous: bool,
}

/// How the worker runs jobs.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// `CONCURRENCY`: jobs in flight at once; default 50.
    pub concurrency: usize,
    /// `LINGER_MS`: how long after the last due job the tick keeps looking; default 0.
    pub linger: Duration,
    /// `MOST_HELPERS`: how many workers a poller calls by SQS at most; default 20.
    pub most_helpers: usize,
    /// `ALLOW_PRIVATE_TARGETS`: plain HTTP and private addresses as targets and for webhooks, for local use only.
    pub allow_private_targets: bool,
    /// `PUBLIC_URL`: where the API is reached from outside, with the path that stands before `/api/` there, without a slash at its
    /// end; without it nobody can call back.
    pub public_url: Option<String>,
}

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// [`ConfigError`] names the first setting that is missing or malformed.
    pub fn from_env() -> Result<Self, ConfigError> {
        let secrets = SecretSource {
            database_url: text("DATABASE_URL"),
            pg_password: text("PGPASSWORD"),
            pg_ca_pem: text("PG_CA_PEM"),
            jwt_secret: text("JWT_SECRET"),
            signing_secret: text("SIGNING_SECRET"),
            arn: text("SECRET_ARN"),
            endpoint: text("SECRETS_ENDPOINT"),
            region: text("AWS_REGION"),
            credentials: match (text("AWS_ACCESS_KEY_ID"), text("AWS_SECRET_ACCESS_KEY")) {
                (Some(id), Some(secret)) => {
                    Some(AwsCredentials { id, secret, token: text("AWS_SESSION_TOKEN") })
                }
                _ => None,
            },
        };
        if secrets.database_url.is_none() && secrets.arn.is_none() {
            let problem = "set DATABASE_URL, or SECRET_ARN to a secret that holds it".into();
            return Err(ConfigError { name: "DATABASE_URL", problem });
        }
        let wake_queue_url = text("WAKE_QUEUE_URL");
        if wake_queue_url.is_some() && !wake::BUILT_IN {
            let problem =
                "this build sends no wake-ups: build with the feature `sqs`, or leave it unset".into();
            return Err(ConfigError { name: "WAKE_QUEUE_URL", problem });
        }
        Ok(Self {
            secrets,
            log: text("LOG_LEVEL").or_else(|| text("AWS_LAMBDA_LOG_LEVEL")).unwrap_or_else(|| "info".into()),
            auth: AuthConfig {
                issuer: text("JWT_ISSUER"),
                audience: text("JWT_AUDIENCE").unwrap_or_else(|| "authenticated".into()),
                jwks_url: text("JWKS_URL"),
                account_claim: text("ACCOUNT_CLAIM"),
                refuse_anonymous: switch("REFUSE_ANONYMOUS")?,
            },
            worker: WorkerConfig {
                concurrency: number("CONCURRENCY", 50, 1..=1000)?,
                linger: Duration::from_millis(number("LINGER_MS", 0, 0..=600_000)? as u64),
                most_helpers: number("MOST_HELPERS", 20, 0..=1000)?,
                allow_private_targets: switch("ALLOW_PRIVATE_TARGETS")?,
                public_url: url("PUBLIC_URL")?,
            },
            longest_wait: Duration::from_secs(number(
                "LONGEST_WAIT",
                LONGEST_WAIT as usize,
                0..=LONGEST_WAIT as usize,
            )? as u64),
            connections: number("AWS_LAMBDA_MAX_CONCURRENCY", 1, 1..=10_000)?.min(MOST_CONNECTIONS),
            doctor: doctor()?,
            wake_queue_url,
        })
    }
}

/// `ALLOW_DOCTOR`: whether the event `{"doctor":true}` is answered; default false. `CONNECTIONS`: the functions' reserved
/// concurrency, the poller's twice, added up; `POOLER_MAX_CLIENTS`: what the pooler takes.
fn doctor() -> Result<Option<Deployment>, ConfigError> {
    if !switch("ALLOW_DOCTOR")? {
        return Ok(None);
    }
    let sum = |name| {
        let sum = text(name).map(|value| doctor::sum(&value)).transpose();
        sum.map_err(|problem| ConfigError { name, problem })
    };
    Ok(Some(Deployment {
        clients: sum("CONNECTIONS")?,
        max_clients: sum("POOLER_MAX_CLIENTS")?,
        pinned: None,
    }))
}

fn text(name: &'static str) -> Option<String> {
    env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn url(name: &'static str) -> Result<Option<String>, ConfigError> {
    match text(name) {
        Some(url) if !url.starts_with("https://") && !url.starts_with("http://") => {
            Err(ConfigError { name, problem: "must be a URL such as https://jobs.example.com".into() })
        }
        url => Ok(url.map(|url| url.trim_end_matches('/').to_owned())),
    }
}

fn switch(name: &'static str) -> Result<bool, ConfigError> {
    match text(name).as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(ConfigError { name, problem: "must be true or false".into() }),
    }
}

fn number(
    name: &'static str,
    default: usize,
    range: std::ops::RangeInclusive<usize>,
) -> Result<usize, ConfigError> {
    let Some(value) = text(name) else { return Ok(default) };
    match value.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => {
            let problem = format!("must be a whole number from {} to {}", range.start(), range.end());
            Err(ConfigError { name, problem })
        }
    }
}
