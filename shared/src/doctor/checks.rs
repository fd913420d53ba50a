//! What is asked of a database once it has let us in.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::time::timeout;
use tokio_postgres::{Client, Row, SimpleQueryMessage, types::Type};

use super::{
    BUDGET, Deployment, open,
    report::{Failed, Report, said, seen},
};
use crate::{
    db::{
        diagnosis::{Stage, Symptom, diagnose},
        pinned,
        schema::{MIGRATIONS, unfit},
    },
    secrets::Secrets,
};

/// How often a pooler is asked which of its connections it gave.
const LOOKS: usize = 3;
/// A clock further off than this, in seconds, is worth a word.
const CLOCK_OFF: f64 = 5.0;
/// What is kept free of a pooler's clients, so that a deployment beside the old one fits: a fifth.
const HEADROOM: f64 = 1.2;

const SESSION: &str = include_str!("session.sql");
const SCHEMA: &str = include_str!("schema.sql");
const UNLISTED: &str = include_str!("unlisted.sql");
const PRIVILEGES: &str = include_str!("privileges.sql");
const UNCLAIMED: &str = include_str!("unclaimed.sql");
const TEAM_TRIGGERS: &str = include_str!("team_triggers.sql");
const OLD_SNAPSHOTS: &str = include_str!("old_snapshots.sql");
const UPKEEP: &str = include_str!("upkeep.sql");
const NO_SPARE: &str = include_str!("no_spare.sql");
const SOURCE: &str = include_str!("source.sql");
const CREDIT_FUNCTIONS: &str = include_str!("credit_functions.sql");
const GRANTS: &str = include_str!("grants.sql");
const NAMED: &str = include_str!("named.sql");
const SET_LOCAL: &str = include_str!("set_local.sql");
const BUSY: &str = include_str!("busy.sql");
const SETTINGS: &str = include_str!("settings.sql");
const UNSAFE_STORAGE: &str = include_str!("unsafe_storage.sql");
const HIDDEN: &str = include_str!("hidden.sql");
const TEMPORARY: &str = include_str!("temporary.sql");

async fn within<T>(
    stage: Stage,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Failed> {
    match timeout(BUDGET, work).await {
        Ok(answer) => answer.map_err(|error| said(stage, &error)),
        Err(_) => Err(seen(stage, "no answer in time")),
    }
}

/// As the session is set up; what is asked so names all that it needs of PostgreSQL's.
async fn rows(stage: Stage, client: &Client, sql: &str) -> Result<Vec<Row>, Failed> {
    within(stage, client.query_typed(sql, &[])).await
}

/// The first column.
async fn texts(stage: Stage, client: &Client, sql: &str) -> Result<Vec<String>, Failed> {
    Ok(within(stage, pinned::query(client, sql, &[])).await?.iter().map(|row| row.get(0)).collect())
}

/// Whether a statement may come to another connection of the database than the one before it: while `other` keeps one
/// busy, a transaction pooler gives another.
pub(super) async fn pool(report: &mut Report, client: &Client, other: &Client) -> Result<bool, Failed> {
    let (mut pids, mut times) = (Vec::new(), Vec::new());
    for _ in 0..LOOKS {
        let look = async {
            let begin = Instant::now();
            (rows(Stage::Pool, client, SESSION).await, begin.elapsed())
        };
        let (answer, took) = while_busy(other, look).await;
        pids.extend(answer?.first().map(|row| row.get::<_, i32>(1)));
        times.push(took);
        pids.extend(rows(Stage::Pool, client, SESSION).await?.first().map(|row| row.get::<_, i32>(1)));
    }
    times.sort();
    pids.dedup();
    let pooled = pids.len() > 1 || report.endpoint.contains("transaction mode");
    let what = if pooled { "a transaction pooler" } else { "the same database connection each time" };
    let found = format!("{what}; a statement takes {:.1} ms", times[LOOKS / 2].as_secs_f64() * 1_000.0);
    match report.endpoint.contains("session mode") {
        true => report.warn(Stage::Pool, format!("session mode: {found}")),
        false => report.pass(Stage::Pool, found),
    }
    Ok(pooled)
}

/// Does something while another client keeps a connection of the database.
async fn while_busy<T>(other: &Client, work: impl Future<Output = T>) -> T {
    let work = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        work.await
    };
    // A paused pooler gives it none either, and no answer.
    tokio::join!(timeout(BUDGET, other.query_typed(BUSY, &[])), work).1
}

/// What is in force; answers how many connections the database has for such as us.
pub(super) async fn session(report: &mut Report, client: &Client) -> Result<i32, Failed> {
    let before = SystemTime::now();
    let answer = rows(Stage::Session, client, SESSION).await?;
    let row = answer.first().ok_or_else(|| seen(Stage::Session, "no row"))?;
    let text = |column: usize| row.get::<_, String>(column);
    let here = before.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let offset = row.get::<_, f64>(2) - here;
    let version = text(0).split(" on ").next().unwrap_or_default().to_owned();
    if let Some(why) = unfit(row.get(12), &text(13)) {
        return Err(seen(Stage::Session, why));
    }
    let of_replica = row.get::<_, bool>(7).then_some("it is a replica");
    let of_setting = row.get::<_, bool>(8).then_some("default_transaction_read_only is on");
    if let Some(why) = of_replica.or(of_setting) {
        let symptom = Symptom::Server { code: "25006", message: "" };
        return Err((Stage::Session, format!("the database takes no writes: {why}"), diagnose(symptom)));
    }
    let (role, limits) = (text(3), [text(4), text(5), text(6)]);
    report.pass(
        Stage::Session,
        format!(
            "{version}; as {role}; statement_timeout {}, lock_timeout {}, idle_in_transaction_session_timeout {}",
            limits[0], limits[1], limits[2]
        ),
    );
    let named = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"];
    for (name, _) in named.iter().zip(&limits).filter(|(_, limit)| *limit == "0") {
        report.warn(Stage::Session, format!("no {name} is in force"));
    }
    let drift = if offset.abs() > CLOCK_OFF { ": the database's counts" } else { "" };
    report.pass(Stage::Session, format!("the clocks are {:.1} s apart{drift}", offset.abs()));
    if row.get::<_, Option<bool>>(9) == Some(true) || row.get::<_, Option<bool>>(10) == Some(true) {
        report.warn(Stage::Session, format!("{role} is a superuser, or passes by row security"));
    }
    for found in texts(Stage::Session, client, SETTINGS).await? {
        report.fail(seen(Stage::Session, found));
    }
    for found in texts(Stage::Session, client, UNSAFE_STORAGE).await? {
        report.warn(Stage::Session, found);
    }
    Ok(row.get(11))
}

/// On a connection that is thrown away: whether statements with a name survive, of which Punchcard sends none, and
/// whether a setting of one transaction is honoured.
pub(super) async fn statements(
    report: &mut Report,
    secrets: &Secrets,
    other: &Client,
    pooled: bool,
) -> Result<(), Failed> {
    let client = open(secrets).await?;
    let set = within(Stage::Session, client.simple_query(SET_LOCAL)).await?;
    let honoured = set.iter().any(
        |message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0).is_some_and(|it| it == "1234ms")),
    );
    match honoured {
        true => report.pass(Stage::Session, "SET LOCAL is honoured"),
        false => report.warn(Stage::Session, "SET LOCAL is not honoured"),
    }
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

/// What the functions need, and the migrations.
pub(super) async fn schema(report: &mut Report, client: &Client) -> Result<(), Failed> {
    let mut denied = texts(Stage::Schema, client, UNLISTED).await?;
    if denied.is_empty() {
        denied = texts(Stage::Schema, client, PRIVILEGES).await?;
    }
    if !denied.is_empty() {
        let symptom = Symptom::Server { code: "42501", message: "" };
        let found = format!("the role lacks a grant: {}", denied.join(", "));
        return Err((Stage::Schema, found, diagnose(symptom)));
    }
    let hidden = texts(Stage::Schema, client, HIDDEN).await?;
    if !hidden.is_empty() {
        return Err(seen(Stage::Schema, hidden.join("; ")));
    }
    let applied = texts(Stage::Schema, client, SCHEMA).await?;
    let missing: Vec<&str> =
        MIGRATIONS.iter().copied().filter(|name| !applied.iter().any(|it| it == name)).collect();
    if !missing.is_empty() {
        let symptom = Symptom::Server { code: "42P01", message: "" };
        let found = format!("missing migrations: {}", missing.join(", "));
        return Err((Stage::Schema, found, diagnose(symptom)));
    }
    report.pass(
        Stage::Schema,
        format!("{} migrations applied; the role may do what the functions do", applied.len()),
    );
    Ok(())
}

/// Kinds of which jobs have been due for long, and none is running; triggers of the team's, which may be why; who keeps a
/// snapshot open, which makes all slow; what upkeep has not done; and where a purchase has no place.
pub(super) async fn operations(report: &mut Report, client: &Client) -> Result<(), Failed> {
    for found in texts(Stage::Schema, client, NO_SPARE).await? {
        report.fail(seen(Stage::Schema, found));
    }
    for sql in [UNCLAIMED, TEAM_TRIGGERS, OLD_SNAPSHOTS, UPKEEP] {
        for found in texts(Stage::Schema, client, sql).await? {
            report.warn(Stage::Schema, found);
        }
    }
    Ok(())
}

/// The credit source, if there is one; and functions and tables of the team's that move credits, in shapes that are known
/// to break.
pub(super) async fn credits(report: &mut Report, client: &Client) -> Result<(), Failed> {
    for row in rows(Stage::Credits, client, SOURCE).await? {
        match (row.get(0), row.get::<_, String>(1)) {
            (true, found) => report.pass(Stage::Credits, found),
            (false, found) => report.fail(seen(Stage::Credits, found)),
        }
    }
    for found in texts(Stage::Credits, client, CREDIT_FUNCTIONS).await? {
        report.warn(Stage::Credits, found);
    }
    Ok(())
}

/// Whether anybody reaches what is not theirs: nothing may be found.
pub(super) async fn grants(report: &mut Report, client: &Client) -> Result<(), Failed> {
    let found = texts(Stage::Grants, client, GRANTS).await?;
    if found.is_empty() {
        report.pass(Stage::Grants, "nobody has more than is meant");
    }
    for found in found {
        report.fail(seen(Stage::Grants, found));
    }
    for found in texts(Stage::Grants, client, TEMPORARY).await? {
        report.warn(Stage::Grants, found);
    }
    Ok(())
}

/// Whether what is deployed fits: each function's environment is a client of the pooler.
pub(super) fn deployment(report: &mut Report, deployment: &Deployment, pooled: bool, of_database: i32) {
    if let Some(pinned) = deployment.pinned.filter(|pinned| *pinned > 0) {
        report.fail(seen(Stage::Session, format!("{pinned} connections of RDS Proxy are pinned")));
    } else if report.endpoint == "RDS Proxy" && deployment.pinned.is_none() {
        let metric = "DatabaseConnectionsCurrentlySessionPinned";
        report.pass(Stage::Session, format!("not known from here: the metric {metric}; --pinned tells it"));
    }
    let Some(clients) = deployment.clients else { return };
    if clients == u32::MAX {
        report.warn(Stage::Pool, "too many, perhaps: a function has no reserved concurrency");
        return;
    }
    let limit = match (deployment.max_clients, pooled) {
        (Some(limit), true) => limit,
        (None, true) => {
            report
                .pass(Stage::Pool, "how many clients the pooler takes is not known: --max-clients tells it");
            return;
        }
        // Each is a connection of the database, whatever the pooler before it takes.
        (limit, false) => limit.unwrap_or(u32::MAX).min(of_database.unsigned_abs()),
    };
    let found = format!("{clients} connections at once, of at most {limit}");
    match f64::from(clients) * HEADROOM > f64::from(limit) {
        true => report.fail(seen(Stage::Pool, format!("too many: {found}"))),
        false => report.pass(Stage::Pool, found),
    }
}
