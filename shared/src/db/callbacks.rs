//! One function per statement on runs that somebody outside is at work on.

use serde_json::value::RawValue;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{Again, Db, DbError, jobs::status, queue::backoff_from_row};
use crate::domain::{Deadline, ErrorCode, JobError, Status};

pub(crate) const CALL_BACK: &str = include_str!("callbacks/call_back.sql");
pub(crate) const BACKOFF: &str = include_str!("callbacks/backoff.sql");

/// What is said of a run by a call back.
#[derive(Debug)]
pub enum CallBack {
    /// It goes on.
    Progress {
        /// 0 to 100.
        percent: Option<i16>,
        /// For a person.
        message: Option<String>,
    },
    /// It is done.
    Done {
        /// The job's output: JSON.
        output: Box<RawValue>,
        /// The credits that it used, of a metered kind; all that are held, if that is not said.
        used: Option<i64>,
    },
    /// It did not work this time; another attempt may.
    Err(JobError),
    /// It never will. [`ErrorCode::InvalidInput`] blames the input.
    Final(JobError),
}

/// How a job stands after a call back.
#[derive(Debug, Clone, Copy)]
pub struct CalledBack {
    /// `Running` after progress.
    pub status: Status,
    /// Whether it is to be canceled: what is still done for it is done in vain.
    pub cancel_requested: bool,
}

impl Db {
    /// Records what was said of the run that has this lease token. An error that may be tried again takes a second statement,
    /// before: when that is, is the kind's policy.
    ///
    /// # Errors
    /// [`DbError::Refused`] with `not_found` (404), `callback_used` or `callback_expired` (409).
    pub async fn call_back(
        &self,
        job_id: Uuid,
        lease_token: i64,
        said: &CallBack,
        deadline: Deadline,
    ) -> Result<CalledBack, DbError> {
        let (mut word, mut delay, mut output, mut used, mut percent, mut message) =
            ("progress", 0.0, None, None, None, None);
        let mut code = None;
        match said {
            CallBack::Progress { percent: far, message: what } => {
                (percent, message) = (*far, what.as_deref());
            }
            CallBack::Done { output: json, used: credits } => {
                (word, output, used) = ("complete", Some(json.get()), *credits);
            }
            CallBack::Err(error) => {
                (word, message) = ("retry", Some(error.message.as_str()));
                delay = self.backoff_seconds(job_id, deadline).await?;
                code = Some(error.code);
            }
            CallBack::Final(error) => {
                word = if error.code == ErrorCode::InvalidInput { "reject" } else { "fail" };
                (message, code) = (Some(error.message.as_str()), Some(error.code));
            }
        }
        let code = code.and_then(|code| serde_json::to_value(code).ok());
        let code = code.as_ref().and_then(serde_json::Value::as_str);
        let params = [
            (&job_id as _, Type::UUID),
            (&lease_token as _, Type::INT8),
            (&word as _, Type::TEXT),
            (&delay as _, Type::FLOAT8),
            (&output as _, Type::TEXT),
            (&code as _, Type::TEXT),
            (&message as _, Type::TEXT),
            (&used as _, Type::INT8),
            (&percent as _, Type::INT2),
        ];
        let rows = self.rows(CALL_BACK, &params, Again::Unsafe, deadline).await?;
        let row = rows.first().ok_or_else(|| DbError::Broken("call_back answered no row".into()))?;
        Ok(CalledBack { status: status(row.get(0))?, cancel_requested: row.get(1) })
    }

    /// How long a job waits after an error now, by its kind's policy or its own; nothing, if there is no such job.
    async fn backoff_seconds(&self, job_id: Uuid, deadline: Deadline) -> Result<f64, DbError> {
        let rows = self.rows(BACKOFF, &[(&job_id, Type::UUID)], Again::Safe, deadline).await?;
        let Some(row) = rows.first() else { return Ok(0.0) };
        let attempt = row.get::<_, i16>(6).unsigned_abs().into();
        Ok(backoff_from_row(row, [0, 1, 2, 3, 4, 5])?.delay(attempt, row.get(7)).as_secs_f64())
    }
}
