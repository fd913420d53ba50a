//! Applies `infra/migrations`, in order, each once, all in one transaction under a lock.

#[cfg(feature = "migrate")]
use super::{
    DbError,
    connect::{open, reason},
};
#[cfg(feature = "migrate")]
use crate::secrets::Secrets;
#[cfg(feature = "migrate")]
use tokio_postgres::{IsolationLevel, Row, Transaction, types::Type};

/// The least version of PostgreSQL, as `server_version_num` has it: views with their caller's rights need it.
const LEAST_VERSION: i32 = 150_000;

/// Why a server of that `server_version_num`, or a database of that `server_encoding`, is not one for Punchcard.
pub(crate) fn unfit(version: i32, encoding: &str) -> Option<String> {
    if version < LEAST_VERSION {
        let (major, minor, least) = (version / 10_000, version % 10_000, LEAST_VERSION / 10_000);
        return Some(format!(
            "the server is PostgreSQL {major}.{minor}: Punchcard needs version {least} or newer"
        ));
    }
    (encoding != "UTF8").then(|| {
        format!(
            "the database's encoding is {encoding}: Punchcard needs UTF8 \
             (CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0)"
        )
    })
}

macro_rules! migrations {
    ($($name:literal),+ $(,)?) => {
        /// The migrations' names, oldest first.
        pub const MIGRATIONS: &[&str] = &[$($name),+];
        /// What is in them, in the same order. An applied file is never edited once a release is tagged.
        #[cfg(feature = "migrate")]
        const SQL: &[&str] = &[$(include_str!(concat!("../../../infra/migrations/", $name, ".sql"))),+];
    };
}

migrations![
    "0001_credits",
    "0002_jobs",
    "0003_engine",
    "0004_life",
    "0005_webhooks",
    "0006_audit",
    "0007_credit_source",
    "0008_supabase",
    "0009_access",
];

#[cfg(feature = "migrate")]
const HISTORY: &str = "CREATE TABLE IF NOT EXISTS punchcard.migrations (
    name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now());";

#[cfg(feature = "migrate")]
const SCHEMA: &str = "CREATE SCHEMA IF NOT EXISTS punchcard";

/// What the migrations are applied under until the end of their transaction, whatever the database or the role says.
#[cfg(feature = "migrate")]
const SETTINGS: &str = "SELECT set_config('search_path', 'pg_catalog, pg_temp', true),
       set_config('row_security', 'on', true), set_config('standard_conforming_strings', 'on', true),
       set_config('default_table_access_method', 'heap', true)";

/// As [`unfit`], for whoever applies them by another tool.
#[cfg(feature = "migrate")]
const REFUSE_OLD: &str = "DO $$ BEGIN
    IF current_setting('server_version_num')::integer < 150000 THEN
        RAISE EXCEPTION 'Punchcard needs PostgreSQL 15 or newer';
    END IF;
END $$";

/// Where the migrations are to go, and what is there already: whose it is, and whether it is complete.
#[cfg(feature = "migrate")]
const PLACE: &str =
    "SELECT current_setting('server_version_num')::integer, current_setting('server_encoding'),
       pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', current_user::text,
       (SELECT min(pg_get_userbyid(c.relowner)::text) FROM pg_catalog.pg_class c
        WHERE c.relnamespace = to_regnamespace('punchcard') AND c.relkind = 'r'
          AND pg_get_userbyid(c.relowner) <> current_user),
       EXISTS (SELECT FROM pg_catalog.pg_class c
               WHERE c.relnamespace = to_regnamespace('punchcard') AND c.relname = 'hidden')
           AND EXISTS (SELECT FROM pg_catalog.pg_proc p
                       WHERE p.pronamespace = to_regnamespace('punchcard') AND p.proname = 'grant_access'),
       to_regnamespace('punchcard') IS NULL";

/// Whether a restore left the grants out, or made another role the owner, from whom row security now hides the rows.
#[cfg(feature = "migrate")]
const ACCESS_LOST: &str = "SELECT EXISTS (SELECT FROM punchcard.hidden h
               WHERE h.is_owner OR h.hidden_from = 'punchcard_app')
    OR EXISTS (SELECT FROM pg_catalog.pg_proc p
               WHERE p.pronamespace = to_regnamespace('punchcard') AND p.proacl IS NULL)";

/// Why nothing was migrated.
#[cfg(feature = "migrate")]
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
#[cfg(feature = "migrate")]
#[derive(Debug)]
pub struct Migrated {
    /// The names of the migrations that were missing, oldest first.
    pub applied: Vec<String>,
    /// Whether grants or policies had been lost, and were made anew.
    pub renewed: bool,
}

/// The migrations after the one of that name (or all) as one file of `supabase/migrations`, which notes in the same
/// table what was applied, so that [`apply`] can go on from there.
///
/// # Errors
/// The names there are, if this is none of them.
#[cfg(feature = "migrate")]
pub fn as_one_file(after: Option<&str>) -> Result<String, String> {
    let first = match after {
        None => 0,
        Some(after) => {
            let at = MIGRATIONS.iter().position(|name| *name == after);
            at.ok_or_else(|| format!("there is no migration {after}: {}", MIGRATIONS.join(", ")))? + 1
        }
    };
    let mut file = format!(
        "-- Punchcard {}, by `punchcard migrate --print-supabase`.\n\n{REFUSE_OLD};\n{SETTINGS};\n{SCHEMA};\n{HISTORY}\n",
        env!("CARGO_PKG_VERSION")
    );
    for (name, sql) in MIGRATIONS.iter().zip(SQL).skip(first) {
        file +=
            &format!("\n-- {name}\n\n{sql}\nINSERT INTO punchcard.migrations (name) VALUES ('{name}');\n");
    }
    Ok(file)
}

/// Applies what is missing and answers the names of what it applied. Connect directly, not through a pooler.
///
/// # Errors
/// [`MigrateError`] names the migration that failed; then nothing was applied.
#[cfg(feature = "migrate")]
pub async fn apply(url: &str) -> Result<Vec<String>, MigrateError> {
    let secrets = Secrets { database_url: url.to_owned(), ..Secrets::default() };
    apply_as(&secrets).await.map(|migrated| migrated.applied)
}

/// The same, with a password beside the URL and certification authorities of one's own. Grants and policies that a
/// restore has lost are made anew.
///
/// # Errors
/// As [`apply`].
#[cfg(feature = "migrate")]
pub async fn apply_as(secrets: &Secrets) -> Result<Migrated, MigrateError> {
    let (mut client, _socket) = open(secrets).await?;
    // By its name: under another that a database may have as its default, what a lock waited for would stay unseen.
    let transaction = client.build_transaction().isolation_level(IsolationLevel::ReadCommitted);
    let transaction = transaction.start().await.map_err(broken)?;
    let place = row(&transaction, PLACE).await?;
    if let Some(why) = refuse(&place) {
        return Err(MigrateError::Unfit(why));
    }
    let lock = format!("{SETTINGS}; SELECT pg_advisory_xact_lock(7046029254386353131)");
    transaction.batch_execute(&lock).await.map_err(broken)?;
    // Even where it is there already, it takes a right that its owner may not have.
    if place.get(7) {
        transaction.batch_execute(SCHEMA).await.map_err(broken)?;
    }
    transaction.batch_execute(HISTORY).await.map_err(broken)?;
    // Before anything is read: it may be hidden.
    let renewed = place.get(6) && row(&transaction, ACCESS_LOST).await?.get(0);
    if renewed {
        transaction.batch_execute("SELECT punchcard.grant_access()").await.map_err(broken)?;
        if row(&transaction, ACCESS_LOST).await?.get(0) {
            let why = "policies that are not Punchcard's hide rows from their owner, or from punchcard_app: drop those";
            return Err(MigrateError::Unfit(format!("{why} (SELECT * FROM punchcard.hidden)")));
        }
    }
    let rows = transaction.query_typed("SELECT name FROM punchcard.migrations", &[]).await.map_err(broken)?;
    let known: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let mut applied = Vec::new();
    let missing = MIGRATIONS.iter().zip(SQL).filter(|(name, _)| !known.iter().any(|known| known == *name));
    for (name, sql) in missing {
        transaction
            .batch_execute(sql)
            .await
            .map_err(|error| DbError::Broken(format!("migration {name}: {}", reason(&error))))?;
        transaction
            .execute_typed("INSERT INTO punchcard.migrations (name) VALUES ($1)", &[(name, Type::TEXT)])
            .await
            .map_err(broken)?;
        applied.push((*name).to_owned());
    }
    transaction.commit().await.map_err(broken)?;
    Ok(Migrated { applied, renewed })
}

#[cfg(feature = "migrate")]
fn broken(error: tokio_postgres::Error) -> DbError {
    DbError::Broken(reason(&error))
}

#[cfg(feature = "migrate")]
async fn row(transaction: &Transaction<'_>, sql: &str) -> Result<Row, DbError> {
    let mut rows = transaction.query_typed(sql, &[]).await.map_err(broken)?;
    rows.pop().ok_or_else(|| DbError::Broken("no row".into()))
}

/// Why nothing can be migrated there: told before the database fails at it in words that do not say what to do.
#[cfg(feature = "migrate")]
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
    use super::*;

    #[test]
    fn what_is_too_old_or_not_unicode_is_told_in_one_line() {
        assert_eq!(unfit(150_018, "UTF8"), None);
        assert_eq!(unfit(180_000, "UTF8"), None);
        let old = unfit(140_009, "UTF8").unwrap_or_default();
        assert_eq!(old, "the server is PostgreSQL 14.9: Punchcard needs version 15 or newer");
        let encoding = unfit(150_018, "SQL_ASCII").unwrap_or_default();
        assert!(encoding.contains("SQL_ASCII") && encoding.contains("UTF8"), "{encoding}");
    }
}
