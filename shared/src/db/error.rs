//! Why a statement has no answer, as its caller sees it. What PostgreSQL's codes mean stands in `sqlstate.rs`.

use tokio_postgres::error::{DbError as ServerError, Severity};

use super::{
    connect::reason,
    sqlstate::{self, Fault},
};
use crate::secrets::SecretError;

/// Why a statement has no answer. Each variant is a decision of its own.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The database refused by its rules (SQLSTATE `PTxyz`): the word, the HTTP-like status, and the detail.
    #[error("{code}: {detail}")]
    Refused {
        /// The `xyz` of the SQLSTATE.
        status: u16,
        /// The rule, in a word, such as `insufficient_credits`.
        code: String,
        /// What a caller may know: text, or JSON for the codes that carry figures.
        detail: String,
    },
    /// Others were in the statement's way, and it was rolled back (a lock, a deadlock, a time-out): soon it may pass.
    #[error("the database is busy with others: {0}")]
    Busy(String),
    /// Nothing was executed: try again later.
    #[error("the database cannot be reached: {0}")]
    Unavailable(String),
    /// The server, as it is now, cannot do it: it is short of something, or its schema or grants are not ours. Nothing was
    /// executed. Of many rows it may be one that it cannot do, by a trigger of somebody's.
    #[error("the database is not fit for the statement: {0}")]
    Unfit(String),
    /// The server refuses user or password, and would again: trying on can lock every client of this address out.
    #[error("the database refuses to let us in, not tried again for a minute: {0}")]
    Denied(String),
    /// The connection was lost, or time ran out, after the statement was sent: it may have been executed.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// The database answered with an error that no retry mends: it is about what was sent.
    #[error("the database refuses the statement: {0}")]
    Broken(String),
}

impl DbError {
    /// Of a statement about many rows: whether it may be one of them that it failed at.
    #[must_use]
    pub fn may_be_about_one(&self) -> bool {
        match self {
            Self::Busy(_) | Self::Unfit(_) | Self::Broken(_) | Self::Refused { .. } => true,
            Self::Unavailable(_) | Self::Denied(_) | Self::Unknown(_) => false,
        }
    }
}

impl From<SecretError> for DbError {
    fn from(error: SecretError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// A statement that has failed, and what may be done about it.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: DbError,
    /// Whether the connection may be used again.
    pub(super) sound: bool,
    /// Whether the statement may be sent again at once, on a sound connection.
    pub(super) at_once: bool,
}

impl Failed {
    pub(super) fn of(error: &tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(said) => Self::said(said, reason(error)),
            None => {
                let io = std::error::Error::source(error).is_some_and(|cause| cause.is::<std::io::Error>());
                let error = if error.is_closed() {
                    DbError::Unknown("the connection was closed".into())
                } else if io {
                    DbError::Unknown(reason(error))
                } else {
                    // What was to be sent, or was answered, does not fit the types.
                    DbError::Broken(reason(error))
                };
                Self { sound: matches!(error, DbError::Broken(_)), error, at_once: false }
            }
        }
    }

    fn said(said: &ServerError, why: String) -> Self {
        let code = said.code().code();
        if let Some(status) = code.strip_prefix("PT").and_then(|status| status.parse().ok()) {
            let detail = said.detail().unwrap_or_default().to_owned();
            let error = DbError::Refused { status, code: said.message().to_owned(), detail };
            return Self { error, sound: true, at_once: false };
        }
        // After these the server closes the connection, whatever the code.
        let fatal = matches!(said.parsed_severity(), Some(Severity::Fatal | Severity::Panic));
        let (error, sound) = match sqlstate::fault(code) {
            Fault::Statement => (DbError::Busy(why), true),
            Fault::Connection { perhaps_done: true } => (DbError::Unknown(why), false),
            Fault::Connection { perhaps_done: false } => (DbError::Unavailable(why), false),
            Fault::Server => (DbError::Unfit(why), true),
            Fault::Never => (DbError::Broken(why), true),
        };
        Self { error, sound: sound && !fatal, at_once: !fatal && sqlstate::passes_at_once(code) }
    }
}
