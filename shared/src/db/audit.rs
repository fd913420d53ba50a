//! The audit: what must never be, looked for a part after the other, each within a second or two; only an account of very many
//! jobs is a part by itself, whatever that takes.

use serde::Serialize;
use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use super::{Again, Db, DbError};
use crate::domain::Deadline;

pub(crate) const SEEN: &str = include_str!("audit/seen.sql");
pub(crate) const ENTRIES: &str = include_str!("audit/entries.sql");
pub(crate) const ACCOUNTS: &str = include_str!("audit/accounts.sql");
pub(crate) const ROWS: &str = include_str!("audit/rows.sql");
pub(crate) const STOP: &str = include_str!("audit/stop.sql");

/// As many entries a part has, or rows of a table.
const PART: i64 = 40_000;

/// Something that the audit found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `I0` to `I6`.
    pub invariant: String,
    /// The job or account.
    pub subject: Option<Uuid>,
    /// What is wrong.
    pub finding: String,
}

/// Where a part of the audit begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuditPlace {
    /// With whether all rows are seen.
    #[default]
    Seen,
    /// With the accounts behind this one; with the first without one.
    Accounts(Option<Uuid>),
    /// With what names the jobs behind this one; with the first without one.
    Rows(Option<Uuid>),
}

/// What a part of the audit found.
#[derive(Debug)]
pub struct AuditPart {
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// How many entries were looked at.
    pub entries: i64,
    /// Where the next part begins; none after the last.
    pub next: Option<AuditPlace>,
}

/// How the statements of an audit begin.
fn first_line(name: Uuid) -> String {
    format!("-- audit {name}\n")
}

impl Db {
    /// Has the server stop at what part of an audit it is; answers how many it was at. The future of that part is to be dropped
    /// before.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn stop_audit(&self, name: Uuid, deadline: Deadline) -> Result<i64, DbError> {
        let rows = self.rows(STOP, &[(&first_line(name), Type::TEXT)], Again::Safe, deadline).await?;
        Ok(rows.first().map_or(0, |row| row.get(0)))
    }

    /// How many entries there are to be looked at.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn count_entries(&self, deadline: Deadline) -> Result<i64, DbError> {
        let rows = self.rows(ENTRIES, &[], Again::Safe, deadline).await?;
        Ok(rows.first().map_or(0, |row| row.get(0)))
    }

    /// Looks at a part of the money, as it is at this moment. The server knows the statement by the name of the audit.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn audit(
        &self,
        name: Uuid,
        place: AuditPlace,
        deadline: Deadline,
    ) -> Result<AuditPart, DbError> {
        let (sql, after) = match place {
            AuditPlace::Seen => {
                let rows = self.rows(SEEN, &[], Again::Safe, deadline).await?;
                let finding =
                    |row: &Row| Finding { invariant: "I0".into(), subject: None, finding: row.get(0) };
                return Ok(AuditPart {
                    findings: rows.iter().map(finding).collect(),
                    entries: 0,
                    next: Some(AuditPlace::Accounts(None)),
                });
            }
            AuditPlace::Accounts(after) => (ACCOUNTS, after),
            AuditPlace::Rows(after) => (ROWS, after),
        };
        let params = [(&after as _, Type::UUID), (&PART as _, Type::INT8)];
        let sql = format!("{}{sql}", first_line(name));
        let rows = self.rows(&sql, &params, Again::Safe, deadline).await?;
        let first = rows.first().ok_or_else(|| DbError::Broken("the audit answered no row".into()))?;
        let (next, entries): (Option<Uuid>, Option<i64>) = (first.get(3), first.get(4));
        let found = rows.iter().filter_map(|row| {
            Some(Finding {
                invariant: row.get::<_, Option<String>>(0)?,
                subject: row.get(1),
                finding: row.get::<_, Option<String>>(2)?,
            })
        });
        Ok(AuditPart {
            findings: found.collect(),
            entries: entries.unwrap_or_default(),
            next: match place {
                AuditPlace::Rows(_) => next.map(|id| AuditPlace::Rows(Some(id))),
                AuditPlace::Seen | AuditPlace::Accounts(_) => Some(match next {
                    Some(id) => AuditPlace::Accounts(Some(id)),
                    None => AuditPlace::Rows(None),
                }),
            },
        })
    }
}
