//! Applies `infra/migrations`, in order, each once, and `infra/functions` whenever they have changed: each migration in a
//! transaction of its own under a lock, all functions and their grants in one. Then it makes the months to come of what is kept
//! by month (ADR 19), a table at a time; who is in the way of these keeps no release waiting: ticks come back to them.

use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio_postgres::{Client, IsolationLevel, Row, Transaction, error::SqlState, types::Type};

use super::{
    DbError,
    connect::{open, reason},
    schema::{FUNCTIONS, MIGRATION_SOURCES, MIGRATIONS, unfit},
};
use crate::secrets::Secrets;

const HISTORY: &str = "CREATE TABLE IF NOT EXISTS punchcard.migrations (
    name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE IF NOT EXISTS punchcard.functions (
    name text PRIMARY KEY, sha256 text NOT NULL, version text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now());";

const SCHEMA: &str = "CREATE SCHEMA IF NOT EXISTS punchcard";

/// What each transaction goes under, whatever the database or the role says. Who waits for a table's lock holds up all who
/// come after: it gives up, and is tried again. Functions call each other, in any order.
const SETTINGS: &str = "SELECT set_config('search_path', 'pg_catalog, pg_temp', true),
       set_config('row_security', 'on', true), set_config('standard_conforming_strings', 'on', true),
       set_config('default_table_access_method', 'heap', true), set_config('lock_timeout', '2s', true),
       set_config('check_function_bodies', 'off', true)";

/// So often a transaction that could not get a lock is tried, with a second's pause, then two, three, …
const TRIES: u32 = 6;

/// As [`unfit`], for whoever applies them by another tool.
const REFUSE_OLD: &str = "DO $$ BEGIN
    IF current_setting('server_version_num')::integer < 150000 THEN
        RAISE EXCEPTION 'Punchcard needs PostgreSQL 15 or newer';
    END IF;
END $$";

/// Where the migrations are to go, and what is there already: whose it is, and whether it is complete.
const PLACE: &str =
    "SELECT current_setting('server_version_num')::integer, current_setting('server_encoding'),
       pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', current_user::text,
       (SELECT min(pg_get_userbyid(c.relowner)::text) FROM pg_catalog.pg_class c
        WHERE c.relnamespace = to_regnamespace('punchcard') AND c.relkind IN ('r', 'p')
          AND pg_get_userbyid(c.relowner) <> current_user),
       EXISTS (SELECT FROM pg_catalog.pg_class c
               WHERE c.relnamespace = to_regnamespace('punchcard') AND c.relname = 'hidden')
           AND EXISTS (SELECT FROM pg_catalog.pg_proc p
                       WHERE p.pronamespace = to_regnamespace('punchcard') AND p.proname = 'grant_access'),
       to_regnamespace('punchcard') IS NULL,
       EXISTS (SELECT FROM pg_catalog.pg_class c
               WHERE c.relnamespace = to_regnamespace('punchcard') AND c.relname = 'migrations')";

/// The first edition, before any release, whose tables were others.
const FIRST_EDITION: &str = "SELECT EXISTS (SELECT FROM punchcard.migrations WHERE name = '0001_credits')";

/// Whether there is a place for whatever is bought, however late.
const KEPT: &str = "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_class c
    WHERE c.relnamespace = 'punchcard'::regnamespace AND c.relkind = 'p'
      AND NOT EXISTS (SELECT FROM punchcard.periods p WHERE p.of_table = c.relname AND p.is_spare))";

/// A migration that this build does not know: the next one has applied it.
const UNKNOWN: &str = "SELECT format('its migration %s', m.name) FROM punchcard.migrations m WHERE m.name <> ALL ($1)
    UNION ALL
    SELECT format('%s of version %s', f.name, f.version) FROM punchcard.functions f
    WHERE string_to_array(split_part(f.version, '-', 1), '.')::integer[] > string_to_array(split_part($2, '-', 1), '.')::integer[]
    LIMIT 1";

/// Who has been at work on our tables for longest: most likely whom a lock was waited for.
const BLOCKER: &str = "SELECT format('process %s, %s for %s s: %s', a.pid, a.state,
           round(extract(epoch FROM now() - a.xact_start)), left(a.query, 100))
    FROM pg_catalog.pg_stat_activity a
    WHERE a.pid <> pg_backend_pid() AND EXISTS (
        SELECT FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
        WHERE l.pid = a.pid AND l.granted AND l.database = (
                SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())
          AND c.relnamespace = to_regnamespace('punchcard'))
    ORDER BY a.xact_start LIMIT 1";

/// Whether a restore left the grants out, or made another role the owner, from whom row security now hides the rows.
const ACCESS_LOST: &str = "SELECT EXISTS (SELECT FROM punchcard.hidden h
               WHERE h.is_owner OR h.hidden_from = 'punchcard_app')
    OR EXISTS (SELECT FROM pg_catalog.pg_proc p
               WHERE p.pronamespace = to_regnamespace('punchcard') AND p.proacl IS NULL)";

/// Why nothing was migrated.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The server or the database is not one for Punchcard, or the schema is somebody else's: one line that says what
    /// to do.
    #[error("{0}")]
    Unfit(String),
    /// There is no connection, or a migration failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// What was done.
#[derive(Debug)]
pub struct Migrated {
    /// The names of the migrations that were missing, oldest first.
    pub applied: Vec<String>,
    /// How many functions were new, or have changed, and were applied.
    pub functions: usize,
    /// Whether grants or policies had been lost, and were made anew.
    pub renewed: bool,
    /// Why some tables' months to come have to wait, if they do: ticks come back to them, and what is bought has a place
    /// meanwhile.
    pub months_wait: Option<String>,
}

/// The migrations after the one of that name (or all) and all functions, as one file of `supabase/migrations`, which notes
/// in the same tables what was applied, so that [`apply`] can go on from there. Of the months it makes a new table's first
/// ones alone, all in one transaction: those of a table that is in use are for ticks, each in a short one.
///
/// # Errors
/// The names there are, if this is none of them.
pub fn as_one_file(after: Option<&str>) -> Result<String, String> {
    let first = match after {
        None => 0,
        Some(after) => {
            let at = MIGRATIONS.iter().position(|name| *name == after);
            at.ok_or_else(|| format!("there is no migration {after}: {}", MIGRATIONS.join(", ")))? + 1
        }
    };
    let mut file = format!(
        "-- Punchcard {VERSION}, by `punchcard migrate --print-supabase`.\n\n{REFUSE_OLD};\n{SETTINGS};\n{SCHEMA};\n{HISTORY}\n"
    );
    let known = format!("ARRAY['{}']", MIGRATIONS.join("', '"));
    let unknown = UNKNOWN.replace("$1", &known).replace("$2", &format!("'{VERSION}'"));
    file += &format!(
        "DO $$ BEGIN\n    IF EXISTS ({unknown}) THEN\n        RAISE EXCEPTION 'the schema is newer than this file';\n    END IF;\nEND $$;\n"
    );
    for (name, sql) in MIGRATIONS.iter().zip(MIGRATION_SOURCES).skip(first) {
        file += &format!(
            "\n-- {name}\n\n{sql}\n{}INSERT INTO punchcard.migrations (name) VALUES ('{name}');\n",
            comments(sql)
        );
    }
    for (_, source) in FUNCTIONS {
        file += &format!("\n{source}{}", comments(source));
    }
    let applied: Vec<String> = FUNCTIONS
        .iter()
        .map(|(name, source)| format!("('{name}', '{}', '{VERSION}')", hash(source)))
        .collect();
    file += &format!(
        "\nINSERT INTO punchcard.functions (name, sha256, version) VALUES\n{}\n{NOTED};\n",
        applied.join(",\n")
    );
    file += "\nSELECT punchcard.grant_access();\n";
    file += &format!(
        "\nDO $$ BEGIN LOOP EXIT WHEN ({KEPT}); PERFORM punchcard.make_periods(); END LOOP; END $$;\n"
    );
    Ok(file)
}

/// What becomes of a function that was there before.
const NOTED: &str = "ON CONFLICT (name) DO UPDATE SET sha256 = excluded.sha256, version = excluded.version,
    applied_at = now()";

/// Of this build: an older one's functions do not take the place of a newer one's.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a file of functions, tables and views says of them, as the comments that a DBA finds in the catalog: what stands before one,
/// and of a column what stands behind it, and below it until the next.
fn comments(source: &str) -> String {
    let mut found = String::new();
    let (mut before, mut table, mut column) = (Vec::new(), None, None::<(String, Vec<&str>)>);
    let comment = |what: &str, text: &[&str]| match text {
        [] => String::new(),
        text => format!("COMMENT ON {what} IS '{}';\n", text.join(" ").replace('\'', "''")),
    };
    for line in source.lines() {
        if let Some(name) = table {
            let said = line.split_once("-- ").map(|(_, said)| said.trim());
            let ends = line.starts_with(')');
            if ends || (line.starts_with("    ") && !line.starts_with("     ")) {
                if let Some((column, said)) = column.take() {
                    found += &comment(&format!("COLUMN {name}.{column}"), &said);
                }
                let word = line.split_whitespace().next().unwrap_or_default();
                let is_column = word.starts_with(|first: char| first.is_ascii_lowercase());
                column = is_column.then(|| (word.to_owned(), Vec::new()));
            }
            if let (Some((_, text)), Some(said)) = (&mut column, said) {
                text.push(said);
            }
            if ends {
                table = None;
            }
        } else if let Some(said) = line.strip_prefix("--") {
            before.push(said.trim());
        } else {
            let mut words = line.split([' ', '(']).filter(|word| !["OR", "REPLACE", "UNIQUE"].contains(word));
            if let (
                Some("CREATE"),
                Some(what @ ("TABLE" | "VIEW" | "TYPE" | "FUNCTION" | "INDEX")),
                Some(name),
            ) = (words.next(), words.next(), words.next())
            {
                let schema = if what == "INDEX" { "punchcard." } else { "" };
                found += &comment(&format!("{what} {schema}{name}"), &before);
                table = (what == "TABLE").then_some(name);
            }
            before.clear();
        }
    }
    found
}

fn hash(source: &str) -> String {
    Sha256::digest(source).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Applies what is missing and answers the names of the migrations that it applied. Connect directly, not through a pooler.
///
/// # Errors
/// [`MigrateError`] names the migration that failed; those before it are applied.
pub async fn apply(url: &str) -> Result<Vec<String>, MigrateError> {
    let secrets = Secrets { database_url: url.to_owned(), ..Secrets::default() };
    apply_as(&secrets).await.map(|migrated| migrated.applied)
}

/// The same, with a password beside the URL and certification authorities of one's own. Grants and policies that a
/// restore has lost are made anew.
///
/// # Errors
/// As [`apply`].
pub async fn apply_as(secrets: &Secrets) -> Result<Migrated, MigrateError> {
    let (mut client, _socket) = open(secrets).await?;
    let mut migrated = Migrated { applied: Vec::new(), functions: 0, renewed: false, months_wait: None };
    migrated.renewed = patiently(&mut client, Step::Prepare).await? > 0;
    for (name, sql) in MIGRATIONS.iter().zip(MIGRATION_SOURCES) {
        if patiently(&mut client, Step::Migration(name, sql)).await? > 0 {
            migrated.applied.push((*name).to_owned());
        }
    }
    migrated.functions = patiently(&mut client, Step::Functions(!migrated.applied.is_empty())).await?;
    loop {
        match patiently(&mut client, Step::Periods).await {
            Ok(0) => break,
            Ok(_) => {}
            Err(why) => {
                if !is_kept(&client).await? {
                    return Err(why);
                }
                // Whoever reads for long does not keep a release waiting.
                migrated.months_wait = Some(why.to_string());
                break;
            }
        }
    }
    Ok(migrated)
}

/// What one transaction does.
#[derive(Clone, Copy)]
enum Step {
    /// Vets the place, and makes what notes the rest; renews what a restore has lost.
    Prepare,
    /// A migration's name and source.
    Migration(&'static str, &'static str),
    /// Those that have changed; and the grants, if any has, or if this is true.
    Functions(bool),
    /// One step of making the months to come.
    Periods,
}

/// Takes a step, again where it waited for a lock in vain, and answers how much there was to do.
async fn patiently(client: &mut Client, step: Step) -> Result<usize, MigrateError> {
    for tried in 1.. {
        match take(client, step).await {
            Err(Failed::Locked(what)) if tried >= TRIES => {
                let blocker = client.query_typed(BLOCKER, &[]).await.map_err(broken)?;
                let by: Option<String> = blocker.first().map(|row| row.get("format"));
                let by = by.unwrap_or_else(|| "somebody who is done now".into());
                let by = by.split_whitespace().collect::<Vec<_>>().join(" ");
                return Err(MigrateError::Unfit(format!(
                    "{what} waited for others {TRIES} times, the last for {by}"
                )));
            }
            Err(Failed::Locked(_)) => tokio::time::sleep(Duration::from_secs(u64::from(tried))).await,
            Err(Failed::For(why)) => return Err(why),
            Ok(done) => return Ok(done),
        }
    }
    Ok(0)
}

/// Why a step was not taken.
enum Failed {
    /// Somebody else held a lock for longer than a migration may hold others up.
    Locked(String),
    For(MigrateError),
}

impl<E: Into<MigrateError>> From<E> for Failed {
    fn from(error: E) -> Failed {
        Failed::For(error.into())
    }
}

async fn take(client: &mut Client, step: Step) -> Result<usize, Failed> {
    // By its name: under another that a database may have as its default, what a lock waited for would stay unseen.
    let transaction = client.build_transaction().isolation_level(IsolationLevel::ReadCommitted);
    let transaction = transaction.start().await.map_err(broken)?;
    let done = match step {
        Step::Prepare => usize::from(prepare(&transaction).await?),
        Step::Migration(name, sql) => usize::from(migrate(&transaction, name, sql).await?),
        Step::Functions(grant) => replace_functions(&transaction, grant).await?,
        Step::Periods => usize::from(make_periods(&transaction).await?),
    };
    transaction.commit().await.map_err(broken)?;
    Ok(done)
}

async fn lock(transaction: &Transaction<'_>) -> Result<(), DbError> {
    // One migrates at a time; whoever comes second waits, and finds it done.
    let lock = format!(
        "SELECT set_config('lock_timeout', '0', true), pg_advisory_xact_lock(7046029254386353131); {SETTINGS}"
    );
    transaction.batch_execute(&lock).await.map_err(broken)
}

/// Whether grants and policies were renewed.
async fn prepare(transaction: &Transaction<'_>) -> Result<bool, Failed> {
    let place = row(transaction, PLACE).await?;
    if let Some(why) = refuse(&place) {
        return Err(MigrateError::Unfit(why).into());
    }
    lock(transaction).await?;
    if place.get(8) && row(transaction, FIRST_EDITION).await?.get(0) {
        let why = "the schema punchcard is of the first edition, before any release, and its tables are others: give \
                   Punchcard another database, or rename that schema (ALTER SCHEMA punchcard RENAME TO …) first";
        return Err(MigrateError::Unfit(why.into()).into());
    }
    // Even where it is there already, it takes a right that its owner may not have.
    if place.get(7) {
        execute(transaction, "schema", SCHEMA).await?;
    }
    execute(transaction, "tables of migrations", HISTORY).await?;
    // Before anything is read: it may be hidden.
    let renewed = place.get(6) && row(transaction, ACCESS_LOST).await?.get(0);
    if renewed {
        execute(transaction, "grants", "SELECT punchcard.grant_access()").await?;
        if row(transaction, ACCESS_LOST).await?.get(0) {
            let why = "policies that are not Punchcard's hide rows from their owner, or from punchcard_app: drop those";
            let why = format!("{why} (SELECT * FROM punchcard.hidden)");
            return Err(MigrateError::Unfit(why).into());
        }
    }
    let known: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
        [(&MIGRATIONS, Type::TEXT_ARRAY), (&VERSION, Type::TEXT)];
    let unknown = transaction.query_typed(UNKNOWN, &known).await.map_err(broken)?;
    if let Some(name) = unknown.first().and_then(|row| row.get::<_, Option<String>>(0)) {
        // Its functions would be put back to what they were.
        let why = format!(
            "the schema is newer than this program, which does not know {name}: run the `punchcard migrate` of that \
             release; what is deployed of this one goes on as it is"
        );
        return Err(MigrateError::Unfit(why).into());
    }
    Ok(renewed)
}

/// Whether it was missing.
async fn migrate(transaction: &Transaction<'_>, name: &str, sql: &str) -> Result<bool, Failed> {
    lock(transaction).await?;
    let note = "INSERT INTO punchcard.migrations (name) VALUES ($1) ON CONFLICT DO NOTHING";
    let missing = transaction.execute_typed(note, &[(&name, Type::TEXT)]).await.map_err(broken)? > 0;
    if missing {
        execute(transaction, &format!("migration {name}"), &format!("{sql}\n{}", comments(sql))).await?;
    }
    Ok(missing)
}

/// How many functions were not there as this build has them.
async fn replace_functions(transaction: &Transaction<'_>, grant: bool) -> Result<usize, Failed> {
    lock(transaction).await?;
    let note = format!(
        "INSERT INTO punchcard.functions (name, sha256, version) VALUES ($1, $2, $3) {NOTED} WHERE functions.sha256 <> excluded.sha256"
    );
    let mut replaced = 0;
    for (name, source) in FUNCTIONS {
        let noted: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] =
            [(name, Type::TEXT), (&hash(source), Type::TEXT), (&VERSION, Type::TEXT)];
        if transaction.execute_typed(&note, &noted).await.map_err(broken)? > 0 {
            let sql = format!("{source}\n{}", comments(source));
            execute(transaction, &format!("function {name}"), &sql).await?;
            replaced += 1;
        }
    }
    if grant || replaced > 0 {
        execute(transaction, "grants", "SELECT punchcard.grant_access()").await?;
    }
    Ok(replaced)
}

async fn is_kept(client: &Client) -> Result<bool, DbError> {
    let rows = client.query_typed(KEPT, &[]).await.map_err(broken)?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// Whether there is another step.
async fn make_periods(transaction: &Transaction<'_>) -> Result<bool, Failed> {
    lock(transaction).await?;
    match transaction.query_typed("SELECT punchcard.make_periods()", &[]).await {
        Ok(rows) => Ok(rows.first().is_some_and(|row| row.get(0))),
        Err(error) => Err(failed("months to come", &error)),
    }
}

async fn execute(transaction: &Transaction<'_>, what: &str, sql: &str) -> Result<(), Failed> {
    transaction.batch_execute(sql).await.map_err(|error| failed(what, &error))
}

fn failed(what: &str, error: &tokio_postgres::Error) -> Failed {
    if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) {
        Failed::Locked(what.to_owned())
    } else {
        DbError::Broken(format!("{what}: {}", reason(error))).into()
    }
}

fn broken(error: tokio_postgres::Error) -> DbError {
    DbError::Broken(reason(&error))
}

async fn row(transaction: &Transaction<'_>, sql: &str) -> Result<Row, DbError> {
    let mut rows = transaction.query_typed(sql, &[]).await.map_err(broken)?;
    rows.pop().ok_or_else(|| DbError::Broken("no row".into()))
}

/// Why nothing can be migrated there: told before the database fails at it in words that do not say what to do.
fn refuse(place: &Row) -> Option<String> {
    let (user, owner) = (place.get::<_, String>(4), place.get::<_, Option<String>>(5));
    unfit(place.get(0), place.get(1)).or_else(|| match (place.get(2), place.get(3), owner) {
        (true, ..) => Some("the database takes no writes: it is a replica; connect to the primary".into()),
        (_, true, _) => Some(
            "the database takes no writes: default_transaction_read_only is on (ALTER DATABASE … RESET, or the role's)"
                .into(),
        ),
        (.., Some(owner)) => Some(format!(
            "the schema punchcard belongs to {owner}: migrate as {owner}, not as {user}; or give all of it away first \
             (REASSIGN OWNED BY {owner} TO {user})"
        )),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::comments;

    #[test]
    fn what_is_said_of_a_table_a_column_and_a_function_is_its_comment() {
        let source = "-- The tables.\n\n-- Who pays:\n-- one row each.\nCREATE TABLE punchcard.a (\n    id   uuid NOT NULL,  -- whose\n    \
                      b    text           -- it's\n                        CHECK (b <> ''),  -- more\n    PRIMARY KEY (id) -- none\n);\n\
                      -- For x.\nCREATE UNIQUE INDEX a_b ON punchcard.a (b);\n\n-- Adds.\nCREATE OR REPLACE FUNCTION punchcard.f(\n";
        let meant = "COMMENT ON TABLE punchcard.a IS 'Who pays: one row each.';\n\
                     COMMENT ON COLUMN punchcard.a.id IS 'whose';\n\
                     COMMENT ON COLUMN punchcard.a.b IS 'it''s more';\n\
                     COMMENT ON INDEX punchcard.a_b IS 'For x.';\n\
                     COMMENT ON FUNCTION punchcard.f IS 'Adds.';\n";
        assert_eq!(comments(source), meant);
    }
}
