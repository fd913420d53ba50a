//! Applies `infra/migrations`, in order, each once, all in one transaction under a lock.

use super::{
    DbError,
    connect::{open, reason},
};
use crate::secrets::Secrets;

/// The migrations, oldest first. An applied file is never edited once a release is tagged.
pub const MIGRATIONS: &[(&str, &str)] = &[
    ("0001_credits", include_str!("../../../infra/migrations/0001_credits.sql")),
    ("0002_jobs", include_str!("../../../infra/migrations/0002_jobs.sql")),
    ("0003_engine", include_str!("../../../infra/migrations/0003_engine.sql")),
    ("0004_audit", include_str!("../../../infra/migrations/0004_audit.sql")),
    ("0005_access", include_str!("../../../infra/migrations/0005_access.sql")),
];

/// Applies what is missing and answers the names of what it applied. Connect directly, not through a pooler.
///
/// # Errors
/// [`DbError`] names the migration that failed; then nothing was applied.
pub async fn apply(url: &str) -> Result<Vec<String>, DbError> {
    let secrets = Secrets { database_url: url.to_owned(), ..Secrets::default() };
    let mut client = open(&secrets).await?;
    let broken = |error: tokio_postgres::Error| DbError::Broken(reason(&error));
    let transaction = client.transaction().await.map_err(broken)?;
    transaction
        .batch_execute(
            "SELECT pg_advisory_xact_lock(7046029254386353131);
             CREATE SCHEMA IF NOT EXISTS punchcard;
             CREATE TABLE IF NOT EXISTS punchcard.migrations (
                 name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now());",
        )
        .await
        .map_err(broken)?;
    let rows = transaction.query_typed("SELECT name FROM punchcard.migrations", &[]).await.map_err(broken)?;
    let known: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let mut applied = Vec::new();
    for (name, sql) in MIGRATIONS.iter().filter(|(name, _)| !known.iter().any(|known| known == name)) {
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
