//! One function per statement on `queue`: what workers do with unfinished jobs.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use serde_json::value::RawValue;
use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use super::{
    Again, Db, DbError,
    jobs::{json, status},
};
use crate::domain::{Backoff, Deadline, Growth, Lease, Status, Target, Verdict};

pub(crate) const CLAIM: &str = include_str!("queue/claim.sql");
pub(crate) const SETTLE: &str = include_str!("queue/settle.sql");
pub(crate) const CLAIM_SINGLY: &str = include_str!("queue/claim_singly.sql");
pub(crate) const ENDED_RUNS: &str = include_str!("queue/ended_runs.sql");
pub(crate) const CHECK_IN: &str = include_str!("queue/check_in.sql");
pub(crate) const RESCUE: &str = include_str!("queue/rescue.sql");
pub(crate) const HEALTH: &str = include_str!("queue/health.sql");
pub(crate) const BACKLOG: &str = include_str!("queue/backlog.sql");

/// What a worker can take on.
#[derive(Debug, Clone, Copy)]
pub struct Capacity<'a> {
    /// How many jobs.
    pub limit: usize,
    /// Jobs that it was woken for, before all others.
    pub named: &'a [Uuid],
    /// The Rust kinds that it serves.
    pub rust_kinds: &'a [&'a str],
    /// Whether it calls HTTP targets.
    pub http: bool,
    /// Whether it was woken, and leaves kinds to the poller that SQS does not dispatch.
    pub woken: bool,
    /// The longest time limit of a job.
    pub budget: Duration,
    /// How long a lease must last.
    pub lease: Duration,
}

/// Where a worker's claims have come to: for each kind and priority, `run_at` (microseconds since 1970) and id of the last
/// job.
#[derive(Debug, Default)]
pub struct Cursor(HashMap<(String, i16), (i64, Uuid)>);

impl Cursor {
    fn advance(&mut self, kind: &str, priority: i16, position: (i64, Uuid)) {
        let last = self.0.entry((kind.to_owned(), priority)).or_insert(position);
        *last = position.max(*last);
    }
}

/// What is due, and what is being done, of kinds that SQS dispatches.
#[derive(Debug, Clone, Copy)]
pub struct Backlog {
    /// Jobs that are due, as far as they were counted.
    pub due: u64,
    /// Jobs under a lease.
    pub running: u64,
}

/// What a worker says of a job that it is running.
#[derive(Debug, Clone)]
pub struct Report {
    /// The job.
    pub job_id: Uuid,
    /// Of its lease.
    pub lease_token: i64,
    /// How far it is, 0 to 100, if that is new.
    pub percent: Option<i16>,
    /// What it is doing, if that is new.
    pub message: Option<String>,
    /// What it saved for the next run, if that is new.
    pub checkpoint: Option<Box<RawValue>>,
}

/// Jobs that a worker has now.
#[derive(Debug)]
pub struct Claimed {
    /// The right to run each.
    pub leases: Vec<Lease>,
    /// Whether somebody is to be told.
    pub told: bool,
    /// Whether they could only be claimed one by one: then others may be due that there was no time for.
    pub singly: bool,
}

/// What became of verdicts.
#[derive(Debug, Default)]
pub struct Settled {
    /// The jobs that they settled, and how these stand now.
    pub jobs: Vec<(Uuid, Status)>,
    /// The jobs that somebody else holds, or whose account somebody holds: to be sent again.
    pub out_of_reach: Vec<Uuid>,
    /// Whether somebody is to be told.
    pub told: bool,
}

/// What became of a lapsed job.
#[derive(Debug)]
pub struct Rescued {
    /// The job.
    pub job_id: Uuid,
    /// Whose it is.
    pub account_id: Uuid,
    /// `Queued` again, or `Failed` or `Canceled` and released; `None`: it cannot be taken back now.
    pub status: Option<Status>,
}

/// What became of reports.
#[derive(Debug, Default)]
pub struct CheckedIn {
    /// The jobs whose reports were noted. One without news is not, nor is one that has lost its lease or that somebody else holds.
    pub noted: Vec<Uuid>,
    /// The jobs that are to be canceled.
    pub to_cancel: Vec<Uuid>,
}

/// What else a rescue found to do.
#[derive(Debug, Clone, Default)]
pub struct Chores {
    /// Credits come from a source of the team's own, to which refunds are to be returned.
    pub returns: bool,
    /// Messages are due to be sent.
    pub deliveries: bool,
    /// The tasks of upkeep that are due.
    pub upkeep: Vec<String>,
}

impl Db {
    /// Claims due jobs that this worker serves, by priority, then age, from where `cursor` stands; moves it on.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer. What an unanswered claim took comes back when its leases expire.
    pub async fn claim(
        &self,
        capacity: Capacity<'_>,
        cursor: &mut Cursor,
        deadline: Deadline,
    ) -> Result<Claimed, DbError> {
        let limit = i64::try_from(capacity.limit).unwrap_or(i64::MAX);
        let budget = i32::try_from(capacity.budget.as_secs()).unwrap_or(i32::MAX);
        let (levels, positions): (Vec<_>, Vec<(i64, Uuid)>) = cursor.0.iter().unzip();
        let (kinds, priorities): (Vec<&str>, Vec<i16>) =
            levels.into_iter().map(|(kind, priority)| (kind.as_str(), *priority)).unzip();
        let (run_ats, ids): (Vec<i64>, Vec<Uuid>) = positions.into_iter().unzip();
        let params = [
            (&limit as _, Type::INT8),
            (&capacity.rust_kinds as _, Type::TEXT_ARRAY),
            (&capacity.http as _, Type::BOOL),
            (&budget as _, Type::INT4),
            (&capacity.lease.as_secs_f64() as _, Type::FLOAT8),
            (&kinds as _, Type::TEXT_ARRAY),
            (&priorities as _, Type::INT2_ARRAY),
            (&run_ats as _, Type::INT8_ARRAY),
            (&ids as _, Type::UUID_ARRAY),
            (&capacity.named as _, Type::UUID_ARRAY),
            (&capacity.woken as _, Type::BOOL),
        ];
        let rows = self.rows(CLAIM, &params, Again::Unsafe, deadline).await;
        let mut singly = false;
        let rows = match rows {
            Err(error) if error.may_be_about_one() => {
                singly = true;
                tracing::error!(error = %error, "jobs cannot be claimed together: one by one");
                let ([limit, kinds, http, budget, lease], [.., woken]) = (&params[..5], &params[10..]) else {
                    return Err(error);
                };
                let params = [limit, kinds, http, budget, lease, woken].map(Clone::clone);
                self.rows(CLAIM_SINGLY, &params, Again::Unsafe, deadline).await?
            }
            rows => rows?,
        };
        // A named job is not where a claim has come to, nor is one of those that come in any order: older ones may be due.
        for row in rows.iter().filter(|row| !singly && !capacity.named.contains(&row.get(0))) {
            cursor.advance(row.get(3), row.get(14), (row.get(15), row.get(0)));
        }
        let told = rows.iter().any(|row| row.get(25));
        // One that cannot be read keeps no other from being run; it crashes until it fails.
        let readable = |row: &Row| {
            let lease = lease_from_row(row);
            lease.inspect_err(|error| tracing::error!(job.id = %row.get::<_, Uuid>(0), error = %error, "unreadable job")).ok()
        };
        Ok(Claimed { leases: rows.iter().filter_map(readable).collect(), told, singly })
    }

    /// Records the verdicts, each fenced by its lease, and answers the jobs it settled, and how they stand now: whoever is
    /// missing had lost its lease, and nothing of it was written.
    ///
    /// # Errors
    /// [`DbError::Busy`] when somebody held one of the jobs, or its account, for 200 ms: nothing was recorded.
    /// [`DbError::Unknown`] when there is no answer: sending the same verdicts again is safe, and does not say which of them
    /// were recorded the first time: [`Db::ended_runs`] does.
    pub async fn settle(
        &self,
        verdicts: &[(Lease, Verdict)],
        deadline: Deadline,
    ) -> Result<Settled, DbError> {
        self.settle_with(verdicts, None, deadline).await
    }

    /// The same, without those that somebody else holds, or whose accounts, for longer than `patience` in all.
    ///
    /// # Errors
    /// As [`Db::settle`], but that only a collision is [`DbError::Busy`].
    pub async fn settle_within_reach(
        &self,
        verdicts: &[(Lease, Verdict)],
        patience: Duration,
        deadline: Deadline,
    ) -> Result<Settled, DbError> {
        let millis = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
        self.settle_with(verdicts, Some(millis), deadline).await
    }

    async fn settle_with(
        &self,
        verdicts: &[(Lease, Verdict)],
        patience: Option<i32>,
        deadline: Deadline,
    ) -> Result<Settled, DbError> {
        let mut columns = Columns::default();
        for (lease, verdict) in verdicts {
            columns.push(lease, verdict);
        }
        let params = [
            (&columns.job_ids as _, Type::UUID_ARRAY),
            (&columns.lease_tokens as _, Type::INT8_ARRAY),
            (&columns.words as _, Type::TEXT_ARRAY),
            (&columns.delays as _, Type::FLOAT8_ARRAY),
            (&columns.outputs as _, Type::TEXT_ARRAY),
            (&columns.errors as _, Type::TEXT_ARRAY),
            (&columns.used as _, Type::INT8_ARRAY),
            (&patience as _, Type::INT4),
        ];
        // Sent again by the caller, who has to know that it was.
        let rows = self.rows(SETTLE, &params, Again::Unsafe, deadline).await?;
        let mut settled = Settled { told: rows.iter().any(|row| row.get(2)), ..Settled::default() };
        for row in &rows {
            match row.get::<_, Option<&str>>(1) {
                Some(word) => settled.jobs.push((row.get(0), status(word)?)),
                None => settled.out_of_reach.push(row.get(0)),
            }
        }
        Ok(settled)
    }

    /// Which of these runs have ended, as far as that is recorded of them.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn ended_runs(
        &self,
        runs: &[(Uuid, i64)],
        deadline: Deadline,
    ) -> Result<HashSet<(Uuid, i64)>, DbError> {
        let (ids, tokens): (Vec<Uuid>, Vec<i64>) = runs.iter().copied().unzip();
        let params = [(&ids as _, Type::UUID_ARRAY), (&tokens as _, Type::INT8_ARRAY)];
        let rows = self.rows(ENDED_RUNS, &params, Again::Safe, deadline).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Notes the progress of jobs that are running and what they save, and answers which of it was noted, and those that are
    /// to be canceled. A job that somebody else holds keeps no other waiting.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer. Checking in twice is safe.
    pub async fn check_in(&self, reports: &[Report], deadline: Deadline) -> Result<CheckedIn, DbError> {
        let ids: Vec<Uuid> = reports.iter().map(|report| report.job_id).collect();
        let tokens: Vec<i64> = reports.iter().map(|report| report.lease_token).collect();
        let percents: Vec<Option<i16>> = reports.iter().map(|report| report.percent).collect();
        let messages: Vec<Option<&str>> = reports.iter().map(|report| report.message.as_deref()).collect();
        let checkpoints: Vec<Option<&str>> =
            reports.iter().map(|report| report.checkpoint.as_deref().map(RawValue::get)).collect();
        let params = [
            (&ids as _, Type::UUID_ARRAY),
            (&tokens as _, Type::INT8_ARRAY),
            (&percents as _, Type::INT2_ARRAY),
            (&messages as _, Type::TEXT_ARRAY),
            (&checkpoints as _, Type::TEXT_ARRAY),
        ];
        let rows = self.rows(CHECK_IN, &params, Again::Safe, deadline).await?;
        let with = |column| rows.iter().filter(move |row| row.get(column)).map(|row| row.get(0)).collect();
        Ok(CheckedIn { noted: with(1), to_cancel: with(2) })
    }

    /// Takes back at most `limit` lapsed jobs: their lease, their wait or their life has expired; none of the accounts `busy`.
    /// Also answers what else there is to do.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer. Rescuing twice is safe.
    pub async fn rescue(
        &self,
        limit: i64,
        busy: &[Uuid],
        deadline: Deadline,
    ) -> Result<(Vec<Rescued>, Chores), DbError> {
        let params = [(&limit as _, Type::INT8), (&busy as _, Type::UUID_ARRAY)];
        let rows = self.rows(RESCUE, &params, Again::Safe, deadline).await?;
        let mut chores = Chores::default();
        let mut rescued = Vec::with_capacity(rows.len());
        for row in &rows {
            match row.get::<_, Option<Uuid>>(0) {
                Some(job_id) => {
                    chores.deliveries |= row.get::<_, bool>(2);
                    let status = row.get::<_, Option<&str>>(1).map(status).transpose()?;
                    rescued.push(Rescued { job_id, account_id: row.get(3), status });
                }
                None => match row.get(1) {
                    "deliveries" => chores.deliveries = true,
                    "returns" => chores.returns = true,
                    task => chores.upkeep.push(task.to_owned()),
                },
            }
        }
        Ok((rescued, chores))
    }

    /// How much there is to do for workers that SQS wakes, of kinds whose time limit fits into `budget`; counts `limit` due
    /// jobs at most.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn backlog(
        &self,
        limit: u64,
        budget: Duration,
        deadline: Deadline,
    ) -> Result<Backlog, DbError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let budget = i32::try_from(budget.as_secs()).unwrap_or(i32::MAX);
        let params = [(&limit as _, Type::INT8), (&budget as _, Type::INT4)];
        let rows = self.rows(BACKLOG, &params, Again::Safe, deadline).await?;
        let count = |column| rows.first().map_or(0, |row| row.get::<_, i64>(column).unsigned_abs());
        Ok(Backlog { due: count(0), running: count(1) })
    }

    /// How long the oldest due job has been waiting, if one is; also whether the database answers at all.
    ///
    /// # Errors
    /// [`DbError`] when it does not.
    pub async fn oldest_due(&self, deadline: Deadline) -> Result<Option<Duration>, DbError> {
        self.health(deadline).await.map(|(oldest, _)| oldest)
    }

    /// The same, and which tasks of upkeep have to wait: the doctor, and the row of each, say why.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn health(&self, deadline: Deadline) -> Result<(Option<Duration>, Vec<String>), DbError> {
        let rows = self.rows(HEALTH, &[], Again::Safe, deadline).await?;
        let row = rows.first().ok_or_else(|| DbError::Broken("health answered no row".into()))?;
        let oldest = row.get::<_, Option<f64>>(0).map(|seconds| Duration::from_secs_f64(seconds.max(0.0)));
        Ok((oldest, row.get(1)))
    }
}

fn lease_from_row(row: &Row) -> Result<Lease, DbError> {
    let seconds = |column: usize| Duration::from_secs(row.get::<_, i32>(column).unsigned_abs().into());
    let count = |column: usize| row.get::<_, i16>(column).unsigned_abs().into();
    let url: Option<String> = row.get(7);
    let target = match url {
        _ if row.get(9) => Target::Retired,
        Some(url) => {
            Target::Http { url, secret_version: row.get::<_, i32>(8).unsigned_abs(), cancel_url: row.get(22) }
        }
        None => Target::Rust,
    };
    Ok(Lease {
        job_id: row.get(0),
        lease_token: row.get(1),
        account_id: row.get(2),
        kind: row.get(3),
        attempt: count(4),
        max_attempts: count(5),
        input: row.get(6),
        target,
        timeout: seconds(10),
        lasts: Duration::from_secs_f64(row.get::<_, f64>(13).max(0.0)),
        price: row.get(16),
        metered: row.get(17),
        backoff: backoff_from_row(row, [18, 11, 12, 19, 20, 21])?,
        callback_within: seconds(23),
        checkpoint: row.get::<_, Option<String>>(24).map(json).transpose()?,
    })
}

/// A kind's policy, and what a job wants otherwise: growth, base, cap, delays, jitter and overrides, from these columns.
pub(super) fn backoff_from_row(row: &Row, columns: [usize; 6]) -> Result<Backoff, DbError> {
    let [growth, base, cap, delays, jitter, overrides] = columns;
    let seconds = |seconds: i32| Duration::from_secs(seconds.unsigned_abs().into());
    let broken = |what: &dyn std::fmt::Display| DbError::Broken(format!("a policy cannot be read: {what}"));
    let backoff = Backoff {
        growth: Growth::parse(row.get(growth)).ok_or_else(|| broken(&row.get::<_, String>(growth)))?,
        base: seconds(row.get(base)),
        cap: seconds(row.get(cap)),
        delays: row.get::<_, Vec<i32>>(delays).into_iter().map(seconds).collect(),
        jitter: row.get(jitter),
    };
    match row.get::<_, Option<&str>>(overrides) {
        Some(json) => Ok(backoff.overridden_by(serde_json::from_str(json).map_err(|error| broken(&error))?)),
        None => Ok(backoff),
    }
}

/// Verdicts as the parallel arrays of `settle.sql`.
#[derive(Default)]
struct Columns<'a> {
    job_ids: Vec<Uuid>,
    lease_tokens: Vec<i64>,
    words: Vec<&'static str>,
    delays: Vec<f64>,
    outputs: Vec<Option<&'a str>>,
    errors: Vec<Option<String>>,
    used: Vec<Option<i64>>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, lease: &'a Lease, verdict: &'a Verdict) {
        let (word, delay, error) = match verdict {
            Verdict::Complete { .. } => ("complete", None, None),
            Verdict::Retry { delay, error } => ("retry", Some(delay), Some(error)),
            Verdict::Snooze { delay, error } => ("snooze", Some(delay), error.as_ref()),
            Verdict::Yield => ("yield", None, None),
            Verdict::Wait { within } => ("wait", Some(within), None),
            Verdict::Crash { delay, error } => ("crash", Some(delay), Some(error)),
            Verdict::Fail(error) => ("fail", None, Some(error)),
            Verdict::Reject(error) => ("reject", None, Some(error)),
            Verdict::Cancel => ("cancel", None, None),
            Verdict::Return => ("return", None, None),
        };
        let (output, used) = match verdict {
            Verdict::Complete { output, used } => (Some(output.get()), *used),
            // What was saved goes on with the job, if it goes on.
            _ => (lease.checkpoint.as_deref().map(RawValue::get), None),
        };
        let error = error.map(|error| {
            serde_json::json!({ "code": error.code, "message": error.message, "attempt": lease.attempt })
                .to_string()
        });
        self.job_ids.push(lease.job_id);
        self.lease_tokens.push(lease.lease_token);
        self.words.push(word);
        self.delays.push(delay.map_or(0.0, Duration::as_secs_f64));
        self.outputs.push(output);
        self.errors.push(error);
        self.used.push(used);
    }
}
