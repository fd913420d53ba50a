//! An account as a whole: erased, or written out (ADR 21); one function per statement, but for a page of an export.

use std::{fmt, str::FromStr};

use serde::Serialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use super::{
    Again, Db, DbError,
    credits::Place,
    jobs::JobFilter,
    life::{Limits, Run},
    webhooks::DeliveryShown,
};
use crate::domain::{Deadline, Timestamp};

pub(crate) const ERASE: &str = include_str!("accounts/erase.sql");
pub(crate) const ERASURE: &str = include_str!("accounts/erasure.sql");
pub(crate) const ERASE_PAYLOADS: &str = include_str!("accounts/erase_payloads.sql");
pub(crate) const ACCOUNT: &str = include_str!("accounts/account.sql");
pub(crate) const JOBS_OF: &str = include_str!("accounts/jobs_of.sql");
pub(crate) const RUNS_OF: &str = include_str!("accounts/runs_of.sql");
pub(crate) const MESSAGES_OF: &str = include_str!("accounts/messages_of.sql");
pub(crate) const CHECKPOINTS_OF: &str = include_str!("accounts/checkpoints_of.sql");
pub(crate) const DATED_OF: &str = include_str!("accounts/dated_of.sql");
pub(crate) const KEYS_OF: &str = include_str!("accounts/keys_of.sql");

/// As many jobs a page of an export has at most,
const JOBS: i64 = 100;
/// and so many bytes of JSON, but for its first job: together with their runs, messages and checkpoints (16 kB each at most), all
/// of it escaped, they are an answer of Lambda's.
const JOB_BYTES: i64 = 900_000;
/// And so many bytes their runs have, but for those of the first.
const RUN_BYTES: i64 = 300_000;
/// As many grants with a date a page has, as many keys, and as many entries.
const DATED: i64 = 5_000;
const KEYS: i64 = 5_000;
const ENTRIES: i64 = 1_000;

/// How far the erasure of an account is. It is closed from the moment that it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Erasure {
    /// The account that is erased.
    pub account_id: Uuid,
    /// Since when the account is closed.
    pub asked_at: Timestamp,
    /// When nothing of its payloads was left; null while there may be some.
    pub done_at: Option<Timestamp>,
    /// How many jobs have lost their input, output, metadata, tags, webhook and error texts so far.
    pub jobs: i64,
    /// How many idempotency keys are deleted so far.
    pub keys: i64,
    /// How many messages were deleted that had not been delivered.
    pub messages: i64,
    /// A job that was still running, or cannot be canceled, when it was looked at: its payload is cleared once it is final.
    pub waits_for: Option<Uuid>,
    /// What it waits for, or why the last step failed.
    pub error: Option<String>,
}

impl Erasure {
    fn from_row(row: &Row) -> Self {
        Self {
            account_id: row.get(0),
            asked_at: Timestamp(row.get(1)),
            done_at: row.get::<_, Option<OffsetDateTime>>(2).map(Timestamp),
            jobs: row.get(3),
            keys: row.get(4),
            messages: row.get(5),
            waits_for: row.get(6),
            error: row.get(7),
        }
    }
}

/// What there is of an account beside its jobs and entries.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Account {
    /// The account.
    pub account_id: Uuid,
    /// When it was first granted credits, or bought something.
    pub created_at: Timestamp,
    /// What is free to spend.
    pub available: i64,
    /// What is held for unfinished jobs.
    pub held: i64,
    /// How many jobs are unfinished.
    pub unfinished_jobs: i64,
    /// Over how many rows it is spread, 1 to 64; 0: it is closed.
    pub shares: i16,
    /// Since when it is closed, and erased.
    pub erased_at: Option<Timestamp>,
    /// What bounds it, if it has bounds of its own.
    pub limits: Option<Limits>,
    /// Where it is told of its jobs.
    pub webhook_url: Option<String>,
    /// Of what it is told there.
    pub webhook_events: Vec<String>,
}

/// Where a page of an export begins. As text it is a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExportPlace {
    /// With the account.
    #[default]
    Account,
    /// With the grants with a date behind the one of this number.
    Dated(i64),
    /// With the jobs that are older than this one; with the newest without one.
    Jobs(Option<Uuid>),
    /// With the idempotency keys behind this digest.
    Keys(Uuid),
    /// With the entries before this one; with the newest without one.
    Entries(Option<Place>),
}

impl fmt::Display for ExportPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account => f.write_str("account"),
            Self::Dated(entry) => write!(f, "dated.{entry}"),
            Self::Jobs(None) => f.write_str("jobs"),
            Self::Jobs(Some(id)) => write!(f, "jobs.{id}"),
            Self::Keys(digest) => write!(f, "keys.{digest}"),
            Self::Entries(None) => f.write_str("entries"),
            Self::Entries(Some(place)) => write!(f, "entries.{}.{}.{}", place.key, place.at, place.part),
        }
    }
}

/// A text that is no cursor of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoPlace;

impl FromStr for ExportPlace {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        if let Some(entry) = text.strip_prefix("dated.") {
            return entry.parse().map(Self::Dated).map_err(|_| NoPlace);
        }
        let mut words = text.split('.');
        let part = words.next();
        let id = words.next().map(Uuid::parse_str).transpose().map_err(|_| NoPlace)?;
        let rest: Vec<&str> = words.collect();
        match (part, id, rest.as_slice()) {
            (Some("account"), None, []) => Ok(Self::Account),
            (Some("jobs"), id, []) => Ok(Self::Jobs(id)),
            (Some("keys"), Some(digest), []) => Ok(Self::Keys(digest)),
            (Some("entries"), None, []) => Ok(Self::Entries(None)),
            (Some("entries"), Some(key), [at, part]) => Ok(Self::Entries(Some(Place {
                key,
                at: at.parse().map_err(|_| NoPlace)?,
                part: part.parse().map_err(|_| NoPlace)?,
            }))),
            _ => Err(NoPlace),
        }
    }
}

/// A page of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportPage {
    /// A JSON object each, whose `type` says of what: `account`, `dated_grant`, `job`, `run`, `message`, `checkpoint`, `key` or
    /// `entry`.
    pub lines: Vec<String>,
    /// Where the next page begins; none after the last.
    pub next: Option<ExportPlace>,
}

impl ExportPage {
    /// The page as it is written out: its lines, and one that says where to go on, or that this is all.
    #[must_use]
    pub fn text(&self, cursor: impl FnOnce(ExportPlace) -> String) -> String {
        let last = match self.next {
            Some(place) => serde_json::json!({ "type": "cursor", "next_cursor": cursor(place) }),
            None => serde_json::json!({ "type": "end" }),
        };
        let mut text = self.lines.join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        text + &last.to_string() + "\n"
    }
}

/// A record as a line.
fn line(of: &str, job: Option<Uuid>, record: &impl Serialize) -> Result<String, DbError> {
    let record = serde_json::to_string(record).map_err(|error| DbError::Broken(error.to_string()))?;
    let members = record.strip_prefix('{').unwrap_or(&record);
    Ok(match job {
        Some(id) => format!(r#"{{"type":"{of}","job_id":"{id}",{members}"#),
        None => format!(r#"{{"type":"{of}",{members}"#),
    })
}

/// An idempotency key, as far as it is kept.
#[derive(Serialize)]
struct Key {
    /// A digest of the key.
    digest: Uuid,
    /// What it bought: a job, or the first of a batch.
    job_id: Uuid,
    /// The last of a batch.
    last_job_id: Option<Uuid>,
}

/// A grant with a date.
#[derive(Serialize)]
struct DatedGrant {
    /// The number of its entry.
    id: i64,
    /// When what is left lapses.
    expires_at: Timestamp,
    /// What was left of it when the account was last looked at.
    left_over: i64,
}

/// What an unfinished job has saved for its next run.
#[derive(Serialize)]
struct Checkpoint {
    checkpoint: Box<RawValue>,
}

impl Db {
    /// Closes an account for good, and has its payloads cleared by the next ticks; or says how far that is.
    ///
    /// # Errors
    /// [`DbError::Refused`] with `not_found` (404) if there is no such account; another when there is no answer.
    pub async fn erase_account(&self, account_id: Uuid, deadline: Deadline) -> Result<Erasure, DbError> {
        let rows = self.rows(ERASE, &[(&account_id, Type::UUID)], Again::Safe, deadline).await?;
        rows.first()
            .map(Erasure::from_row)
            .ok_or_else(|| DbError::Broken("an erasure answered no row".into()))
    }

    /// How far the erasure of an account is, if it was asked for.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn erasure(&self, account_id: Uuid, deadline: Deadline) -> Result<Option<Erasure>, DbError> {
        let rows = self.rows(ERASURE, &[(&account_id, Type::UUID)], Again::Safe, deadline).await?;
        Ok(rows.first().map(Erasure::from_row))
    }

    /// Takes the next step of an account's erasure; answers whether there is another to take now.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer: the step may have been taken.
    pub async fn erase_payloads(&self, account_id: Uuid, deadline: Deadline) -> Result<bool, DbError> {
        let rows = self.rows(ERASE_PAYLOADS, &[(&account_id, Type::UUID)], Again::Safe, deadline).await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }

    /// How many jobs of an account are kept.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn count_jobs(&self, account_id: Uuid, deadline: Deadline) -> Result<i64, DbError> {
        let rows = self.rows(JOBS_OF, &[(&account_id, Type::UUID)], Again::Safe, deadline).await?;
        Ok(rows.first().map_or(0, |row| row.get(0)))
    }

    /// What there is of an account beside its jobs and entries, if it is there.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn account(&self, account_id: Uuid, deadline: Deadline) -> Result<Option<Account>, DbError> {
        let rows = self.rows(ACCOUNT, &[(&account_id, Type::UUID)], Again::Safe, deadline).await?;
        Ok(rows.first().map(|row| {
            let limits = Limits {
                unfinished_jobs: row.get(3),
                unfinished_bytes: row.get(4),
                enqueues_per_minute: row.get(5),
            };
            Account {
                account_id,
                created_at: Timestamp(row.get(0)),
                available: row.get::<_, Option<i64>>(1).unwrap_or_default(),
                held: row.get::<_, Option<i64>>(2).unwrap_or_default(),
                unfinished_jobs: row.get(8),
                shares: row.get(9),
                erased_at: row.get::<_, Option<OffsetDateTime>>(10).map(Timestamp),
                limits: Some(limits).filter(|limits| limits.bounds_something()),
                webhook_url: row.get(6),
                webhook_events: row.get::<_, Option<Vec<String>>>(7).unwrap_or_default(),
            }
        }))
    }

    /// A page of everything that there is of an account: itself, its jobs, newest first, each with its runs and messages, its
    /// idempotency keys, and its entries, newest first. Of one that is erased, itself and its entries.
    ///
    /// # Errors
    /// [`DbError::Refused`] with `not_found` (404) if there is no such account; another when there is no answer.
    pub async fn export(
        &self,
        account_id: Uuid,
        place: ExportPlace,
        deadline: Deadline,
    ) -> Result<ExportPage, DbError> {
        match place {
            ExportPlace::Account => {
                let account = self.account(account_id, deadline).await?.ok_or_else(|| DbError::Refused {
                    status: 404,
                    code: "not_found".into(),
                    detail: "There is no such account.".into(),
                })?;
                Ok(ExportPage {
                    lines: vec![line("account", None, &account)?],
                    next: Some(ExportPlace::Dated(0)),
                })
            }
            ExportPlace::Dated(after) => self.export_dated(account_id, after, deadline).await,
            ExportPlace::Jobs(before) => self.export_jobs(account_id, before, deadline).await,
            ExportPlace::Keys(after) => self.export_keys(account_id, after, deadline).await,
            ExportPlace::Entries(before) => {
                let page = self.ledger(account_id, before, ENTRIES, deadline).await?;
                let lines = page.entries.iter().map(|entry| line("entry", None, entry));
                Ok(ExportPage {
                    lines: lines.collect::<Result<_, _>>()?,
                    next: page.next.map(|place| ExportPlace::Entries(Some(place))),
                })
            }
        }
    }

    /// Jobs, and behind each its runs, its messages and what it has saved. Four statements: of a job that ends between them, its last run and message
    /// may be there although it is shown as unfinished.
    async fn export_jobs(
        &self,
        account_id: Uuid,
        before: Option<Uuid>,
        deadline: Deadline,
    ) -> Result<ExportPage, DbError> {
        let filter = JobFilter { before, input: true, output: true, ..JobFilter::default() };
        let page = self.list_jobs_of(account_id, &filter, JOBS, JOB_BYTES, deadline).await?;
        let ids: Vec<Uuid> = page.jobs.iter().map(|job| job.id).collect();
        let (mut lines, mut next) = (Vec::new(), page.next);
        if !ids.is_empty() {
            let of = (&account_id as _, Type::UUID);
            let params = [(&ids as _, Type::UUID_ARRAY), (&RUN_BYTES as _, Type::INT8), of.clone()];
            let runs = self.rows(RUNS_OF, &params, Again::Safe, deadline).await?;
            let params = [(&ids as _, Type::UUID_ARRAY), of];
            let messages = self.rows(MESSAGES_OF, &params, Again::Safe, deadline).await?;
            let saved = self.rows(CHECKPOINTS_OF, &params, Again::Safe, deadline).await?;
            let cut = runs.last().filter(|row| i64::try_from(runs.len()) != Ok(row.get("there")));
            let cut: Option<(Uuid, i64)> = cut.map(|row| (row.get("job_id"), row.get("of_job")));
            let mut shown = None;
            for job in &page.jobs {
                let its = |row: &&Row| row.get::<_, Uuid>("job_id") == job.id;
                let runs: Vec<&Row> = runs.iter().filter(its).collect();
                // A job whose runs did not fit begins the next page.
                if cut.is_some_and(|(id, there)| {
                    job.id < id || (job.id == id && i64::try_from(runs.len()) != Ok(there))
                }) {
                    next = shown;
                    break;
                }
                shown = Some(job.id);
                lines.push(line("job", None, job)?);
                for row in runs {
                    lines.push(line("run", Some(job.id), &Run::from_row(row)?)?);
                }
                for row in messages.iter().filter(its) {
                    lines.push(line("message", Some(job.id), &DeliveryShown::from_row(row))?);
                }
                for row in saved.iter().filter(its) {
                    let checkpoint = RawValue::from_string(row.get("checkpoint"));
                    let checkpoint = checkpoint.map_err(|error| DbError::Broken(error.to_string()))?;
                    lines.push(line("checkpoint", Some(job.id), &Checkpoint { checkpoint })?);
                }
            }
        }
        let next = next.map_or(ExportPlace::Keys(Uuid::nil()), |id| ExportPlace::Jobs(Some(id)));
        Ok(ExportPage { lines, next: Some(next) })
    }

    async fn export_dated(
        &self,
        account_id: Uuid,
        after: i64,
        deadline: Deadline,
    ) -> Result<ExportPage, DbError> {
        let params = [(&account_id as _, Type::UUID), (&after as _, Type::INT8), (&DATED as _, Type::INT8)];
        let rows = self.rows(DATED_OF, &params, Again::Safe, deadline).await?;
        let lines = rows.iter().map(|row| {
            let (id, expires_at, left_over) = (row.get(0), Timestamp(row.get(1)), row.get(2));
            line("dated_grant", None, &DatedGrant { id, expires_at, left_over })
        });
        let full = i64::try_from(rows.len()) == Ok(DATED);
        let next = rows.last().filter(|_| full).map(|row| ExportPlace::Dated(row.get(0)));
        Ok(ExportPage {
            lines: lines.collect::<Result<_, _>>()?,
            next: Some(next.unwrap_or(ExportPlace::Jobs(None))),
        })
    }

    async fn export_keys(
        &self,
        account_id: Uuid,
        after: Uuid,
        deadline: Deadline,
    ) -> Result<ExportPage, DbError> {
        let params = [(&account_id as _, Type::UUID), (&after as _, Type::UUID), (&KEYS as _, Type::INT8)];
        let rows = self.rows(KEYS_OF, &params, Again::Safe, deadline).await?;
        let lines = rows.iter().map(|row| {
            line("key", None, &Key { digest: row.get(0), job_id: row.get(1), last_job_id: row.get(2) })
        });
        let full = i64::try_from(rows.len()) == Ok(KEYS);
        let next = rows.last().filter(|_| full).map(|row| ExportPlace::Keys(row.get(0)));
        Ok(ExportPage {
            lines: lines.collect::<Result<_, _>>()?,
            next: Some(next.unwrap_or(ExportPlace::Entries(None))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        let id = Uuid::from_u128(0x0193_0000_0000_7000_8000_0000_0000_0001);
        for place in [
            ExportPlace::Account,
            ExportPlace::Jobs(None),
            ExportPlace::Dated(7),
            ExportPlace::Jobs(Some(id)),
            ExportPlace::Keys(Uuid::nil()),
            ExportPlace::Entries(None),
            ExportPlace::Entries(Some(Place { at: -5, key: id, part: 2 })),
        ] {
            assert_eq!(place.to_string().parse(), Ok(place));
        }
        for other in ["", "jobs.", "jobs.1", "keys", "account.", "entries.1.2.3", "jobs.x.y", "ends"] {
            assert_eq!(other.parse::<ExportPlace>(), Err(NoPlace), "{other}");
        }
    }

    #[test]
    fn a_page_says_where_to_go_on() {
        let page = ExportPage { lines: vec!["{}".into()], next: Some(ExportPlace::Jobs(None)) };
        assert_eq!(
            page.text(|place| place.to_string()),
            "{}\n{\"next_cursor\":\"jobs\",\"type\":\"cursor\"}\n"
        );
        let page = ExportPage { lines: Vec::new(), next: None };
        assert_eq!(page.text(|place| place.to_string()), "{\"type\":\"end\"}\n");
    }
}
