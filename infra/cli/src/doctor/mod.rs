//! `punchcard doctor`: walks the way of a connection, step by step, each within its own budget, and says where it ends,
//! why, and what to do. The password is sent once before it is known to be right.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use shared::{
    db::{
        connect::{self, ConnectError},
        connection_string::ConnectionString,
        diagnosis::{Class, Diagnosis, Stage, Symptom, diagnose},
        migrate::MIGRATIONS,
    },
    secrets::Secrets,
};
use tokio::time::timeout;
use tokio_postgres::{Client, types::Type};

/// What one step may take.
const BUDGET: Duration = Duration::from_secs(5);
/// How often a pooler is asked which of its connections it gave.
const LOOKS: usize = 3;
/// A clock further off than this is worth a word.
const CLOCK_OFF: f64 = 5.0;

/// What a step found.
#[derive(Debug, Serialize)]
pub(crate) struct Step {
    stage: Stage,
    ok: bool,
    found: String,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    diagnosis: Option<Diagnosis>,
}

/// The steps that were taken; the first that failed is the last.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    endpoint: &'static str,
    steps: Vec<Step>,
}

impl Report {
    /// 0, or 10 and more: which stage failed.
    pub(crate) fn exit_code(&self) -> u8 {
        let failed = self.steps.iter().find(|step| !step.ok);
        failed.map_or(0, |step| 10 + step.stage as u8)
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("endpoint: {}", self.endpoint)];
        for step in &self.steps {
            let stage = format!("{:?}", step.stage).to_lowercase();
            lines.push(format!("{} {stage:<8} {}", if step.ok { "ok  " } else { "FAIL" }, step.found));
            if let Some(Diagnosis { code, cause, fix, class, .. }) = step.diagnosis {
                let again = match class {
                    Class::Permanent => "trying again does not help",
                    Class::Transient => "trying again may help",
                    Class::Ambiguous => "connect again; what was under way may have been done",
                };
                lines.push(format!("       why: {cause} ({code}; {again})"));
                lines.push(format!("       fix: {fix}"));
            }
        }
        lines
    }
}

/// Why a step failed: what was seen, and what it means.
type Failed = (Stage, String, Option<Diagnosis>);

fn seen(stage: Stage, text: impl Into<String>) -> Failed {
    let text = text.into();
    let diagnosis = diagnose(Symptom::Seen(stage, &text));
    (diagnosis.map_or(stage, |it| it.stage), text, diagnosis)
}

fn said(stage: Stage, error: &tokio_postgres::Error) -> Failed {
    match error.as_db_error() {
        Some(db) => {
            let text = format!("{} {}: {}", db.severity(), db.code().code(), db.message());
            let diagnosis = diagnose(Symptom::Server { code: db.code().code(), message: db.message() });
            (diagnosis.map_or(stage, |it| it.stage), text, diagnosis)
        }
        None => {
            let text = connect::reason(error);
            seen(if text.contains("TLS") { Stage::Tls } else { stage }, text)
        }
    }
}

/// Walks as far as the way goes.
pub(crate) async fn examine(url: &str, password: Option<String>, ca: Option<String>) -> Report {
    let mut report = Report { endpoint: "unknown", steps: Vec::new() };
    if let Err((stage, found, diagnosis)) = walk(&mut report, url, password, ca).await {
        report.steps.push(Step { stage, ok: false, found, diagnosis });
    }
    report
}

async fn walk(
    report: &mut Report,
    url: &str,
    password: Option<String>,
    ca: Option<String>,
) -> Result<(), Failed> {
    let string = ConnectionString::parse(url, password.as_deref());
    let string = string.map_err(|error| seen(Stage::Url, error.to_string()))?;
    report.endpoint = endpoint(&string.host(), string.port());
    report.pass(Stage::Url, describe(&string));

    if !string.host().starts_with('/') {
        let addresses = resolve(&string).await?;
        report
            .pass(Stage::Dns, addresses.iter().map(|it| it.ip().to_string()).collect::<Vec<_>>().join(", "));
        let (address, took) = reach(&addresses).await?;
        report.pass(Stage::Tcp, format!("{address} answers after {} ms", took.as_millis()));
    }

    let secrets =
        Secrets { database_url: url.to_owned(), pg_password: password, pg_ca_pem: ca, ..Secrets::default() };
    let begin = Instant::now();
    let client = open(&secrets).await?;
    let encryption =
        if string.is_encrypted() { "encrypted and verified" } else { "not encrypted: on the loopback" };
    report.pass(Stage::Tls, encryption);
    report.pass(Stage::Auth, format!("connected after {} ms", begin.elapsed().as_millis()));

    let other = open(&secrets).await?;
    let pooled = pool(report, &client, &other).await?;
    session(report, &client).await?;
    named_statements(report, &secrets, &other, pooled).await?;
    schema(report, &client).await
}

impl Report {
    fn pass(&mut self, stage: Stage, found: impl Into<String>) {
        self.steps.push(Step { stage, ok: true, found: found.into(), diagnosis: None });
    }

    /// Something that works, with a word of warning.
    fn warn(&mut self, stage: Stage, found: impl Into<String>, symptom: Symptom<'_>) {
        self.steps.push(Step { stage, ok: true, found: found.into(), diagnosis: diagnose(symptom) });
    }
}

/// What kind of endpoint a host and a port are.
fn endpoint(host: &str, port: u16) -> &'static str {
    let ends = |suffix| host.ends_with(suffix);
    match port {
        6543 if ends(".pooler.supabase.com") => "Supabase's shared pooler, transaction mode",
        _ if ends(".pooler.supabase.com") => "Supabase's shared pooler, session mode",
        6543 if ends(".supabase.co") => "Supabase's dedicated pooler, transaction mode",
        _ if ends(".supabase.co") => "Supabase, direct",
        _ if ends(".neon.tech") && host.contains("-pooler") => "Neon's pooler, transaction mode",
        _ if ends(".neon.tech") => "Neon, direct",
        _ if ends(".rds.amazonaws.com") && host.contains(".proxy-") => "RDS Proxy",
        _ if ends(".rds.amazonaws.com") => "RDS, direct",
        _ => "PostgreSQL, or a pooler of your own",
    }
}

/// Never the password.
fn describe(string: &ConnectionString) -> String {
    let config = &string.config;
    let mut text = format!(
        "user {}, database {}, at {}:{}",
        config.get_user().unwrap_or_default(),
        config.get_dbname().or(config.get_user()).unwrap_or_default(),
        string.host(),
        string.port()
    );
    if !string.ignored.is_empty() {
        text += &format!("; without meaning here: {}", string.ignored.join(", "));
    }
    text
}

async fn resolve(string: &ConnectionString) -> Result<Vec<SocketAddr>, Failed> {
    let (host, port) = (string.host(), string.port());
    let looked = timeout(BUDGET, tokio::net::lookup_host((host.as_str(), port))).await;
    let addresses: Vec<_> = looked
        .map_err(|_| seen(Stage::Dns, format!("{host}: no answer in time")))?
        .map_err(|error| seen(Stage::Dns, format!("{host}: {error}")))?
        .collect();
    match addresses.is_empty() {
        true => Err(seen(Stage::Dns, format!("{host} has no address"))),
        false => Ok(addresses),
    }
}

async fn reach(addresses: &[SocketAddr]) -> Result<(SocketAddr, Duration), Failed> {
    let mut last = String::new();
    for address in addresses {
        let begin = Instant::now();
        match timeout(BUDGET, tokio::net::TcpStream::connect(address)).await {
            Ok(Ok(_)) => return Ok((*address, begin.elapsed())),
            Ok(Err(error)) => last = format!("{address}: {error}"),
            Err(_) => last = format!("{address}: no answer in time"),
        }
    }
    let only_ipv6 =
        addresses.iter().all(|address| matches!(address.ip(), IpAddr::V6(ip) if !ip.is_loopback()));
    Err(seen(Stage::Tcp, if only_ipv6 { format!("{last} (unreachable; it has IPv6 only)") } else { last }))
}

async fn open(secrets: &Secrets) -> Result<Client, Failed> {
    match timeout(BUDGET, connect::client(secrets)).await {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(ConnectError::Unusable(why))) => Err(seen(Stage::Url, why)),
        Ok(Err(ConnectError::Driver(error))) => Err(said(Stage::Startup, &error)),
        Err(_) => Err(seen(Stage::Startup, "no answer in time")),
    }
}

async fn within<T>(
    stage: Stage,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Failed> {
    match timeout(BUDGET, work).await {
        Ok(answer) => answer.map_err(|error| said(stage, &error)),
        Err(_) => Err(seen(stage, "no answer in time")),
    }
}

const SESSION: &str = include_str!("session.sql");
const SCHEMA: &str = include_str!("schema.sql");
const NAMED: &str = include_str!("named.sql");
const BUSY: &str = include_str!("busy.sql");

/// Whether a statement may come to another connection of the database than the one before it: while `other` keeps one
/// busy, a transaction pooler gives another.
async fn pool(report: &mut Report, client: &Client, other: &Client) -> Result<bool, Failed> {
    let (mut pids, mut times) = (Vec::new(), Vec::new());
    for _ in 0..LOOKS {
        let look = async {
            let begin = Instant::now();
            (within(Stage::Pool, client.query_typed(SESSION, &[])).await, begin.elapsed())
        };
        let (rows, took) = while_busy(other, look).await;
        pids.extend(rows?.first().map(|row| row.get::<_, i32>(1)));
        times.push(took);
        pids.extend(
            within(Stage::Pool, client.query_typed(SESSION, &[]))
                .await?
                .first()
                .map(|row| row.get::<_, i32>(1)),
        );
    }
    times.sort();
    pids.dedup();
    let pooled = pids.len() > 1 || report.endpoint.contains("transaction mode");
    let what = if pooled { "a transaction pooler" } else { "the same database connection each time" };
    let found = format!("{what}; a statement takes {:.1} ms", times[LOOKS / 2].as_secs_f64() * 1_000.0);
    if report.endpoint.contains("session mode") {
        let symptom = Symptom::Server { code: "XX000", message: "(EMAXCONNSESSION)" };
        report.warn(Stage::Pool, found, symptom);
    } else {
        report.pass(Stage::Pool, found);
    }
    Ok(pooled)
}

/// Does something while another client keeps a connection of the database.
async fn while_busy<T>(other: &Client, work: impl Future<Output = T>) -> T {
    let work = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        work.await
    };
    tokio::join!(other.query_typed(BUSY, &[]), work).1
}

async fn session(report: &mut Report, client: &Client) -> Result<(), Failed> {
    let before = SystemTime::now();
    let rows = within(Stage::Session, client.query_typed(SESSION, &[])).await?;
    let row = rows.first().ok_or_else(|| seen(Stage::Session, "no row"))?;
    let text = |column: usize| row.get::<_, String>(column);
    let here = before.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let offset = row.get::<_, f64>(2) - here;
    let version = text(0).split(" on ").next().unwrap_or_default().to_owned();
    if row.get(7) || row.get(8) {
        let symptom = Symptom::Server { code: "25006", message: "" };
        let why = "the database takes no writes".to_owned();
        return Err((Stage::Session, why, diagnose(symptom)));
    }
    report.pass(
        Stage::Session,
        format!(
            "{version}; as {}; statement_timeout {}, lock_timeout {}, idle_in_transaction_session_timeout {}",
            text(3),
            text(4),
            text(5),
            text(6)
        ),
    );
    if offset.abs() > CLOCK_OFF {
        report.pass(Stage::Session, format!("the clocks are {offset:.0} s apart: the database's counts"));
    }
    if row.get::<_, Option<bool>>(9) == Some(true) || row.get::<_, Option<bool>>(10) == Some(true) {
        report.pass(
            Stage::Session,
            "the role is a superuser, or passes by row security: not for a deployed function",
        );
    }
    Ok(())
}

/// On a connection that is thrown away: whether statements with a name survive. Punchcard sends none.
async fn named_statements(
    report: &mut Report,
    secrets: &Secrets,
    other: &Client,
    pooled: bool,
) -> Result<(), Failed> {
    let client = open(secrets).await?;
    #[allow(clippy::disallowed_methods)] // to see what becomes of them is the purpose
    let survives = async {
        let statement = client.prepare_typed(NAMED, &[Type::INT4]).await?;
        for _ in 0..LOOKS {
            while_busy(other, client.query(&statement, &[&1_i32])).await?;
        }
        Ok::<_, tokio_postgres::Error>(())
    };
    let survives = timeout(BUDGET, survives).await.is_ok_and(|it| it.is_ok());
    let found = match (pooled, survives) {
        (true, true) => "statements with a name survive this pooler; Punchcard sends none",
        (true, false) => "statements with a name do not survive this pooler; Punchcard sends none",
        (false, true) => "statements with a name work",
        (false, false) => "statements with a name do not work; Punchcard sends none",
    };
    report.pass(Stage::Session, found);
    Ok(())
}

async fn schema(report: &mut Report, client: &Client) -> Result<(), Failed> {
    let rows = within(Stage::Schema, client.query_typed(SCHEMA, &[])).await?;
    let applied: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let missing: Vec<&str> = MIGRATIONS
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !applied.iter().any(|it| it == name))
        .collect();
    if !missing.is_empty() {
        let symptom = Symptom::Server { code: "42P01", message: "" };
        return Err((
            Stage::Schema,
            format!("missing migrations: {}", missing.join(", ")),
            diagnose(symptom),
        ));
    }
    report.pass(Stage::Schema, format!("{} migrations applied", applied.len()));
    Ok(())
}
