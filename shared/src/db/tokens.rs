//! One function per statement on `service_tokens`.

use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio_postgres::types::Type;

use super::{Again, Db, DbError};
use crate::domain::{Deadline, Timestamp};

pub(crate) const VALID: &str = include_str!("tokens/valid.sql");
pub(crate) const CREATE: &str = include_str!("tokens/create.sql");
pub(crate) const LIST: &str = include_str!("tokens/list.sql");
pub(crate) const REVOKE: &str = include_str!("tokens/revoke.sql");

/// How every service token begins, so that it is told from a JWT and found by secret scanners.
pub const TOKEN_PREFIX: &str = "pcs_";

/// What is kept of a service token.
#[derive(Debug, Clone)]
pub struct ServiceToken {
    /// Whose it is.
    pub name: String,
    /// What it may do: `enqueue`, `grant`, `operate`.
    pub scopes: Vec<String>,
    /// The SHA-256 of the token.
    pub sha256: Vec<u8>,
}

/// A service token as the operator sees it.
#[derive(Debug, Serialize)]
pub struct TokenRow {
    /// Whose it is.
    pub name: String,
    /// 1 or 2: two are valid at a time.
    pub slot: i16,
    /// What it may do.
    pub scopes: Vec<String>,
    /// Since when.
    pub created_at: Timestamp,
}

/// What is kept of a token: its SHA-256.
#[must_use]
pub fn token_hash(token: &str) -> Vec<u8> {
    Sha256::digest(token.as_bytes()).to_vec()
}

impl Db {
    /// Every service token that is accepted now.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn valid_tokens(&self, deadline: Deadline) -> Result<Vec<ServiceToken>, DbError> {
        let rows = self.rows(VALID, &[], Again::Safe, deadline).await?;
        Ok(rows
            .iter()
            .map(|row| ServiceToken { name: row.get(0), scopes: row.get(1), sha256: row.get(2) })
            .collect())
    }

    /// Accepts a token from now on; answers its slot, or `None` when two of that name are valid already.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer or the name or a scope is malformed.
    pub async fn create_token(
        &self,
        name: &str,
        scopes: &[String],
        sha256: &[u8],
        deadline: Deadline,
    ) -> Result<Option<i16>, DbError> {
        let params =
            [(&name as _, Type::TEXT), (&scopes as _, Type::TEXT_ARRAY), (&sha256 as _, Type::BYTEA)];
        Ok(self.rows(CREATE, &params, Again::Unsafe, deadline).await?.first().map(|row| row.get(0)))
    }

    /// Names and scopes of all service tokens.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn list_tokens(&self, deadline: Deadline) -> Result<Vec<TokenRow>, DbError> {
        let rows = self.rows(LIST, &[], Again::Safe, deadline).await?;
        Ok(rows
            .iter()
            .map(|row| TokenRow {
                name: row.get(0),
                slot: row.get(1),
                scopes: row.get(2),
                created_at: Timestamp(row.get(3)),
            })
            .collect())
    }

    /// Stops accepting the token of a name: the one in a slot, its only one or, if so said, `all`. Answers
    /// their slots: none where there is no such token, or there are two and neither was meant.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn revoke_token(
        &self,
        name: &str,
        slot: Option<i16>,
        all: bool,
        deadline: Deadline,
    ) -> Result<Vec<i16>, DbError> {
        let params = [(&name as _, Type::TEXT), (&slot as _, Type::INT2), (&all as _, Type::BOOL)];
        // Sent again, it might find the other one alone.
        let rows = self.rows(REVOKE, &params, Again::Unsafe, deadline).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}
