//! One function per statement on `accounts` and `ledger`.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use super::{Again, Db, DbError};
use crate::domain::{Deadline, Timestamp};

pub(crate) const FIND: &str = include_str!("credits/find.sql");
pub(crate) const ENTRIES: &str = include_str!("credits/entries.sql");
pub(crate) const STATEMENT: &str = include_str!("credits/statement.sql");
pub(crate) const GRANT: &str = include_str!("credits/grant.sql");
pub(crate) const HIDDEN: &str = include_str!("credits/hidden.sql");
pub(crate) const SPREAD: &str = include_str!("credits/spread.sql");
pub(crate) const USE_SOURCE: &str = include_str!("credits/use_source.sql");
pub(crate) const SOURCE: &str = include_str!("credits/source.sql");
pub(crate) const RETURN: &str = include_str!("credits/return.sql");
pub(crate) const DROP_SOURCE: &str = include_str!("credits/drop_source.sql");

/// What an account has, and what of it lapses.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Credits {
    /// Free to spend.
    pub available: i64,
    /// Set aside for unfinished jobs.
    pub held: i64,
    /// What is left of grants with a date, free or held, soonest first: it is spent in this order, and before what never lapses.
    pub expiring: Vec<Expiring>,
}

/// What is left of a grant with a date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Expiring {
    /// How many credits.
    pub amount: i64,
    /// When they lapse.
    pub expires_at: Timestamp,
}

/// What an account has.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Balance {
    /// Free to spend.
    pub available: i64,
    /// Set aside for unfinished jobs.
    pub held: i64,
}

/// One movement of the ledger.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Entry {
    /// Its number: an account's entries (of a spread account, a share's) count up without a gap, with those of free jobs, which are
    /// not listed. What was captured and what was released at a job's end have the same.
    pub id: i64,
    /// `grant`, `hold`, `capture`, `release`, `adjust` or `expire`; or `carried`: the sum of entries that are kept no more, whose `id` is the
    /// last one's number.
    pub kind: String,
    /// By how much it changed `available`.
    pub available_delta: i64,
    /// By how much it changed `held`.
    pub held_delta: i64,
    /// `available` once it was in; in the ledger of a spread account, of its share.
    pub available_after: i64,
    /// `held` once it was in, likewise.
    pub held_after: i64,
    /// The share, of a spread account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<i16>,
    /// The job it belongs to.
    pub job_id: Option<Uuid>,
    /// The key of a grant or adjustment.
    pub idempotency_key: Option<String>,
    /// The reason that came with it.
    pub reason: Option<String>,
    /// When.
    pub created_at: Timestamp,
}

/// A page of an account's ledger.
#[derive(Debug)]
pub struct EntryPage {
    /// Newest first. There may be fewer than were asked for, even none, although the ledger goes on.
    pub entries: Vec<Entry>,
    /// Before which entry the next page begins; `None` after the last.
    pub next: Option<Place>,
}

/// An entry's place in its account's ledger, which is in the order of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// In microseconds since 1970.
    pub at: i64,
    /// Of those at the same time: by this.
    pub key: Uuid,
    /// Of one job's end: 1 is what was captured, 2 what was released.
    pub part: i16,
}

/// An entry of a statement: each has a number, those of free jobs and of shifts too.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StatementEntry {
    /// The share of the account, 0 unless it is spread.
    pub share: i16,
    /// Its number there: they have no gap.
    pub entry: i64,
    /// `grant`, `hold`, `end` (what a hold came to), `adjust`, `expire` or `shift` (between shares).
    pub kind: String,
    /// By how much it changed `available`.
    pub available_delta: i64,
    /// By how much it changed `held`.
    pub held_delta: i64,
    /// The share's `available` once it was in.
    pub available_after: i64,
    /// The share's `held` once it was in.
    pub held_after: i64,
    /// The job it belongs to.
    pub job_id: Option<Uuid>,
    /// The key of a grant or adjustment.
    pub idempotency_key: Option<String>,
    /// The reason that came with it.
    pub reason: Option<String>,
    /// When.
    pub created_at: Timestamp,
}

/// Where a share stood before a month, and after it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StatementShare {
    /// Which.
    pub share: i16,
    /// The number of its first entry of the month.
    pub first: i64,
    /// The number after its last entry of the month; `first`, if it has none.
    pub behind: i64,
    /// What it had before.
    pub opening: Balance,
    /// What it has behind the last one.
    pub closing: Balance,
}

/// A page of a statement.
#[derive(Debug)]
pub struct StatementPage {
    /// Every share of the account.
    pub shares: Vec<StatementShare>,
    /// Whether no entry of that month can come any more.
    pub is_final: bool,
    /// In the order of their numbers; of one share.
    pub entries: Vec<StatementEntry>,
}

/// Where a page of a statement begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatementPlace {
    /// In which share.
    pub share: i16,
    /// With which number.
    pub entry: i64,
    /// A time near it, in microseconds since 1970; `None`: the month's begin.
    pub near: Option<i64>,
}

/// The team's own credits, where Punchcard draws from them (ADR 10).
#[derive(Debug, Serialize)]
pub struct CreditSource {
    /// The table of balances.
    pub table: String,
    /// Its column of accounts.
    pub account_column: String,
    /// Its column of balances.
    pub balance_column: String,
    /// The function that moves them; none: the table is updated.
    pub function: Option<String>,
}

impl Entry {
    fn from_row(row: &Row) -> Self {
        Self {
            id: row.get("id"),
            kind: row.get("kind"),
            available_delta: row.get("available_delta"),
            held_delta: row.get("held_delta"),
            available_after: row.get("available_after"),
            held_after: row.get("held_after"),
            job_id: row.get("job_id"),
            idempotency_key: row.get("idempotency_key"),
            reason: row.get("reason"),
            created_at: Timestamp(row.get("created_at")),
            share: None,
        }
    }
}

impl Db {
    /// An account's balance; zero for one that was never granted anything.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn balance(&self, account_id: Uuid, deadline: Deadline) -> Result<Credits, DbError> {
        let rows = self.rows(FIND, &[(&account_id, Type::UUID)], Again::Safe, deadline).await?;
        let Some(row) = rows.first() else { return Ok(Credits::default()) };
        let (amounts, times): (Vec<i64>, Vec<OffsetDateTime>) = (row.get(2), row.get(3));
        let expiring = amounts.into_iter().zip(times);
        let expiring = expiring.map(|(amount, at)| Expiring { amount, expires_at: Timestamp(at) });
        Ok(Credits { available: row.get(0), held: row.get(1), expiring: expiring.collect() })
    }

    /// At most `limit` entries of an account's ledger, newest first, before that place.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn ledger(
        &self,
        account_id: Uuid,
        before: Option<Place>,
        limit: i64,
        deadline: Deadline,
    ) -> Result<EntryPage, DbError> {
        let (at, key, part) =
            (before.map(|place| place.at), before.map(|place| place.key), before.map(|place| place.part));
        let params = [
            (&account_id as _, Type::UUID),
            (&at as _, Type::INT8),
            (&key as _, Type::UUID),
            (&part as _, Type::INT2),
            (&limit as _, Type::INT8),
        ];
        let rows = self.rows(ENTRIES, &params, Again::Safe, deadline).await?;
        let entries = rows.iter().filter(|row| row.get::<_, Option<i64>>("id").is_some()).map(|row| {
            let share = Some(row.get("share")).filter(|share| *share > 0);
            Entry { share, ..Entry::from_row(row) }
        });
        let next = rows.first().and_then(|row| {
            let at = row.get::<_, Option<i64>>("next_at")?;
            Some(Place { at, key: row.get("next_key"), part: row.get("next_part") })
        });
        Ok(EntryPage { entries: entries.collect(), next })
    }

    /// At most `limit` entries of an account's statement of the month that begins at that time (RFC 3339), from that place on, or
    /// from the first.
    ///
    /// # Errors
    /// [`DbError::Refused`] with `not_found` (404), if there is no such account, or with `gone` (410), if some of its entries are
    /// carried; another when there is no answer.
    pub async fn statement(
        &self,
        account_id: Uuid,
        month: &str,
        from: Option<StatementPlace>,
        limit: i64,
        deadline: Deadline,
    ) -> Result<StatementPage, DbError> {
        let (share, entry, near) =
            (from.map(|place| place.share), from.map(|place| place.entry), from.and_then(|place| place.near));
        let params = [
            (&account_id as _, Type::UUID),
            (&month as _, Type::TEXT),
            (&share as _, Type::INT2),
            (&entry as _, Type::INT8),
            (&near as _, Type::INT8),
            (&limit as _, Type::INT8),
        ];
        let rows = self.rows(STATEMENT, &params, Again::Safe, deadline).await?;
        let first = rows.first().ok_or_else(|| DbError::Broken("a statement without a row".into()))?;
        let shares: Vec<StatementShare> =
            serde_json::from_str(first.get(0)).map_err(|error| DbError::Broken(error.to_string()))?;
        let entries = rows.iter().filter_map(|row| {
            Some(StatementEntry {
                entry: row.get::<_, Option<i64>>(3)?,
                share: row.get(2),
                kind: row.get(4),
                available_delta: row.get(5),
                held_delta: row.get(6),
                available_after: row.get(7),
                held_after: row.get(8),
                job_id: row.get(9),
                idempotency_key: row.get(10),
                reason: row.get(11),
                created_at: Timestamp(row.get(12)),
            })
        });
        Ok(StatementPage { shares, is_final: first.get(1), entries: entries.collect() })
    }

    /// Grants credits once for each key; answers the entry and whether the key had made it before.
    ///
    /// # Errors
    /// [`DbError::Refused`] with `invalid_amount` or `idempotency_mismatch` (422).
    pub async fn grant(
        &self,
        account_id: Uuid,
        amount: i64,
        key: &str,
        reason: Option<&str>,
        expires_at: Option<&str>,
        deadline: Deadline,
    ) -> Result<(Entry, bool), DbError> {
        let params = [
            (&account_id as _, Type::UUID),
            (&amount as _, Type::INT8),
            (&key as _, Type::TEXT),
            (&reason as _, Type::TEXT),
            (&expires_at as _, Type::TEXT),
        ];
        let rows = self.rows(GRANT, &params, Again::Safe, deadline).await?;
        let row = rows.first().ok_or_else(|| DbError::Broken("grant answered no row".into()))?;
        Ok((Entry::from_row(row), row.get("replayed")))
    }

    /// Spreads an account's credits over `shares` shares (1 to 64), so that as many buyers go at once.
    ///
    /// # Errors
    /// [`DbError::Refused`] with `unknown_account` or `invalid_shares` (422).
    pub async fn spread_account(
        &self,
        account_id: Uuid,
        shares: i32,
        deadline: Deadline,
    ) -> Result<(), DbError> {
        let params = [(&account_id as _, Type::UUID), (&shares as _, Type::INT4)];
        self.rows(SPREAD, &params, Again::Safe, deadline).await.map(drop)
    }

    /// From whom row security hides rows, if that is this role or the owner, as whom the functions run: to them
    /// what is there looks as if it were not.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn hidden(&self, deadline: Deadline) -> Result<Option<String>, DbError> {
        let rows = self.rows(HIDDEN, &[], Again::Safe, deadline).await?;
        Ok(rows.first().map(|row| row.get(0)))
    }

    /// Takes the team's credits as the source of all, after a trial that is rolled back; `constants` are a JSON object of
    /// further arguments of the function. Refused while Punchcard's own accounts have credits, unless by `force`. Answers what
    /// is worth a warning.
    ///
    /// # Errors
    /// [`DbError::Refused`] with `invalid_credit_source` (422) says what does not do as it must.
    pub async fn use_credit_source(
        &self,
        source: &CreditSource,
        constants: &str,
        force: bool,
        deadline: Deadline,
    ) -> Result<Vec<String>, DbError> {
        let params = [
            (&source.table as _, Type::TEXT),
            (&source.account_column as _, Type::TEXT),
            (&source.balance_column as _, Type::TEXT),
            (&source.function as _, Type::TEXT),
            (&constants as _, Type::TEXT),
            (&force as _, Type::BOOL),
        ];
        let rows = self.rows(USE_SOURCE, &params, Again::Safe, deadline).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Returns what is available to the credit source; answers of how many accounts.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer: then some may have been returned, none twice.
    pub async fn return_credits(&self, deadline: Deadline) -> Result<i64, DbError> {
        let rows = self.rows(RETURN, &[], Again::Safe, deadline).await?;
        Ok(rows.first().map_or(0, |row| row.get(0)))
    }

    /// Where credits come from, if not from grants; how many wait to be returned there, and how many are held.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn credit_source(
        &self,
        deadline: Deadline,
    ) -> Result<Option<(CreditSource, i64, i64)>, DbError> {
        let rows = self.rows(SOURCE, &[], Again::Safe, deadline).await?;
        Ok(rows.first().map(|row| {
            let source = CreditSource {
                table: row.get(0),
                account_column: row.get(1),
                balance_column: row.get(2),
                function: row.get(3),
            };
            (source, row.get(4), row.get(5))
        }))
    }

    /// From now on credits come from grants alone; what is held stays held. While credits are in Punchcard's
    /// accounts, only by `force`: they would not return any more. Answers whether that is so; `None` if there
    /// is no source.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn drop_credit_source(&self, force: bool, deadline: Deadline) -> Result<Option<bool>, DbError> {
        let rows = self.rows(DROP_SOURCE, &[(&force, Type::BOOL)], Again::Safe, deadline).await?;
        Ok(rows.first().map(|row| row.get(0)))
    }
}
