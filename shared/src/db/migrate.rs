//! Applies `infra/migrations`, in order, each once, all in one transaction under a lock.

#[cfg(feature = "migrate")]
use super::{
    DbError,
    connect::{open, reason},
};
#[cfg(feature = "migrate")]
use crate::secrets::Secrets;

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
const HISTORY: &str = "CREATE SCHEMA IF NOT EXISTS punchcard;
CREATE TABLE IF NOT EXISTS punchcard.migrations (
    name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now());";

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
        "-- Punchcard {}, by `punchcard migrate --print-supabase`.\n\n{HISTORY}\n",
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
/// [`DbError`] names the migration that failed; then nothing was applied.
#[cfg(feature = "migrate")]
pub async fn apply(url: &str) -> Result<Vec<String>, DbError> {
    apply_as(&Secrets { database_url: url.to_owned(), ..Secrets::default() }).await
}

/// The same, with a password beside the URL and certification authorities of one's own.
///
/// # Errors
/// As [`apply`].
#[cfg(feature = "migrate")]
pub async fn apply_as(secrets: &Secrets) -> Result<Vec<String>, DbError> {
    let (mut client, _socket) = open(secrets).await?;
    let broken = |error: tokio_postgres::Error| DbError::Broken(reason(&error));
    let transaction = client.transaction().await.map_err(broken)?;
    transaction
        .batch_execute(&format!("SELECT pg_advisory_xact_lock(7046029254386353131); {HISTORY}"))
        .await
        .map_err(broken)?;
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
            .execute_typed(
                "INSERT INTO punchcard.migrations (name) VALUES ($1)",
                &[(name, tokio_postgres::types::Type::TEXT)],
            )
            .await
            .map_err(broken)?;
        applied.push((*name).to_owned());
    }
    transaction.commit().await.map_err(broken)?;
    Ok(applied)
}
