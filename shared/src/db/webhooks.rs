//! One function per statement on webhooks: where accounts are told of their jobs, and the outbox of what is to be said.

use std::time::Duration;

use serde::Serialize;
use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use super::{Again, Db, DbError, jobs::Job};
use crate::domain::{Deadline, Timestamp};

pub(crate) const CLAIM_DELIVERIES: &str = include_str!("webhooks/claim_deliveries.sql");
pub(crate) const SETTLE_DELIVERIES: &str = include_str!("webhooks/settle_deliveries.sql");
pub(crate) const WEBHOOK: &str = include_str!("webhooks/webhook.sql");
pub(crate) const SET_WEBHOOK: &str = include_str!("webhooks/set_webhook.sql");
pub(crate) const ROTATE_WEBHOOK_SECRET: &str = include_str!("webhooks/rotate_webhook_secret.sql");
pub(crate) const DELIVERIES: &str = include_str!("webhooks/deliveries.sql");
pub(crate) const UNDELIVERED: &str = include_str!("webhooks/undelivered.sql");
pub(crate) const RESEND: &str = include_str!("webhooks/resend.sql");

/// Where an account is told of its jobs.
#[derive(Debug, Clone)]
pub struct AccountWebhook {
    /// `None`: nowhere.
    pub url: Option<String>,
    /// Of what.
    pub events: Vec<String>,
    /// Which derivation of the account's secret signs.
    pub secret_version: u32,
    /// When that was last changed.
    pub rotated_at: Option<Timestamp>,
    /// While a rotation lasts: until when the version before signs, too.
    pub previous_until: Option<Timestamp>,
    /// When it answered 410 (Gone): it is told nothing since.
    pub disabled_at: Option<Timestamp>,
}

/// What a message is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A job of the account's: `job.succeeded` and the like.
    Job(String),
    /// For the kind's `cancel_url`: whoever is at work on the job may stop.
    Cancel,
}

/// A message to send.
#[derive(Debug)]
pub struct Delivery {
    /// The message's id, the same each time it is sent.
    pub id: Uuid,
    /// What it is about.
    pub event: Event,
    /// Where to; `None` if the account's webhook is gone meanwhile.
    pub url: Option<String>,
    /// How often it was taken to be sent, from 1; what became of it is recorded once each time.
    pub attempt: i16,
    /// How often of these it was not sent, for no fault of its receiver's.
    pub put_back: i16,
    /// When what it says happened.
    pub created_at: Timestamp,
    /// The versions of the account's secret that sign, the newest first.
    pub secret_versions: Vec<u32>,
    /// The version of the kind's secret.
    pub kind_secret_version: u32,
    /// The job as it is now.
    pub job: Job,
}

/// Which messages a worker takes.
#[derive(Debug, Clone, Default)]
pub struct Round {
    /// Up to so many.
    pub limit: usize,
    /// To be sent within this time: then another worker may.
    pub lease: Duration,
    /// Whether as many are left over as each account has a right to.
    pub spare: bool,
    /// Accounts that get no more than so many each; the others get an even share.
    pub rooms: Vec<(Uuid, usize)>,
    /// Where accounts must be visited one by one, those behind this one.
    pub after: Uuid,
}

impl Round {
    /// Up to so many within this time, of whomever.
    #[must_use]
    pub fn of(limit: usize, lease: Duration) -> Self {
        Self { limit, lease, ..Self::default() }
    }
}

/// What a worker has taken.
#[derive(Debug, Default)]
pub struct Taken {
    /// To be sent.
    pub deliveries: Vec<Delivery>,
    /// Whether more may be due.
    pub more: bool,
    /// The account behind which they were not looked for.
    pub walked: Option<Uuid>,
}

/// What became of a message that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// Heard.
    Delivered,
    /// Not heard; again after a while.
    Retry {
        /// By the database's clock.
        delay: Duration,
        /// What went wrong.
        error: String,
    },
    /// Not sent, for no fault of its receiver's; after a while, by the database's clock.
    PutBack(Duration),
    /// Not heard, and not tried again.
    GiveUp(String),
    /// Whoever is there wants no more of it.
    Gone(String),
}

/// What a statement recorded of messages that were sent.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Of how many it is recorded what became of them, by this statement or by the same before it.
    pub count: usize,
    /// Those that somebody else holds: nothing of them was recorded.
    pub out_of_reach: Vec<Uuid>,
}

/// A message as its account sees it.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeliveryShown {
    /// Its `webhook-id`.
    pub id: Uuid,
    /// The event that it is about.
    pub event: String,
    /// Where to, if its job says so; `None`: the account's webhook, as it is when it is sent.
    pub url: Option<String>,
    /// How often it was sent so far.
    pub attempt: i16,
    /// When it is sent next.
    pub next_attempt_at: Option<Timestamp>,
    /// When what it says happened.
    pub created_at: Timestamp,
    /// When it was delivered.
    pub delivered_at: Option<Timestamp>,
    /// Why the last sending failed.
    pub error: Option<String>,
}

impl DeliveryShown {
    /// From `id, event, url, attempt, next_at, created_at, delivered_at, error`, in this order.
    pub(super) fn from_row(row: &Row) -> Self {
        Self {
            id: row.get(0),
            event: row.get(1),
            url: row.get(2),
            attempt: row.get(3),
            next_attempt_at: row.get::<_, Option<_>>(4).map(Timestamp),
            created_at: Timestamp(row.get(5)),
            delivered_at: row.get::<_, Option<_>>(6).map(Timestamp),
            error: row.get(7),
        }
    }
}

/// A message that was not heard, as the operator sees it.
#[derive(Debug, Serialize)]
pub struct Undelivered {
    /// Its `webhook-id`.
    pub id: Uuid,
    /// The account.
    pub account_id: Uuid,
    /// Of which job.
    pub job_id: Uuid,
    /// What it says; `cancel` is for the kind's `cancel_url`.
    pub event: String,
    /// Where to, as far as it is no secret.
    pub url: Option<String>,
    /// How often it was sent so far.
    pub attempt: i16,
    /// When it is sent next; never, if it was given up.
    pub next_attempt_at: Option<Timestamp>,
    /// When what it says happened.
    pub created_at: Timestamp,
    /// Why it was not heard, the last time.
    pub error: String,
}

impl Delivery {
    fn from_row(id: Uuid, row: &Row) -> Result<Self, DbError> {
        let event = match row.get(30) {
            "cancel" => Event::Cancel,
            job => Event::Job(job.to_owned()),
        };
        let version = |version: i32| version.unsigned_abs();
        let old: Option<i32> = row.get(35);
        Ok(Self {
            job: Job::from_row(row)?,
            id,
            event,
            url: row.get(31),
            attempt: row.get(32),
            put_back: row.get(37),
            created_at: Timestamp(row.get(33)),
            secret_versions: [Some(row.get(34)), old].into_iter().flatten().map(version).collect(),
            kind_secret_version: version(row.get(36)),
        })
    }

    /// Which sending of it this is, from 1.
    #[must_use]
    pub fn sending(&self) -> i16 {
        self.attempt.saturating_sub(self.put_back)
    }
}

impl AccountWebhook {
    fn from_row(row: &Row) -> Self {
        Self {
            url: row.get(0),
            events: row.get(1),
            secret_version: row.get::<_, i32>(2).unsigned_abs(),
            rotated_at: row.get::<_, Option<_>>(3).map(Timestamp),
            disabled_at: row.get::<_, Option<_>>(4).map(Timestamp),
            previous_until: row.get::<_, Option<_>>(5).map(Timestamp),
        }
    }
}

impl Db {
    /// Takes messages to send, fairly by account.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer. What an unanswered claim took comes back when its lease is over.
    pub async fn claim_deliveries(&self, round: &Round, deadline: Deadline) -> Result<Taken, DbError> {
        let whole = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        let (limit, lease) = (whole(round.limit), round.lease.as_secs_f64());
        let (accounts, rooms): (Vec<Uuid>, Vec<i32>) =
            round.rooms.iter().map(|(account, room)| (*account, whole(*room))).unzip();
        let params = [
            (&limit as _, Type::INT4),
            (&lease as _, Type::FLOAT8),
            (&round.spare as _, Type::BOOL),
            (&accounts as _, Type::UUID_ARRAY),
            (&rooms as _, Type::INT4_ARRAY),
            (&round.after as _, Type::UUID),
        ];
        let rows = self.rows(CLAIM_DELIVERIES, &params, Again::Unsafe, deadline).await?;
        let mut taken = Taken::default();
        for row in &rows {
            (taken.more, taken.walked) = (row.get(38), row.get(39));
            // A row without a message says only this.
            if let Some(id) = row.get(29) {
                // One that cannot be read keeps no other from being sent.
                match Delivery::from_row(id, row) {
                    Ok(delivery) => taken.deliveries.push(delivery),
                    Err(error) => tracing::error!(webhook.id = %id, error = %error, "unreadable message"),
                }
            }
        }
        Ok(taken)
    }

    /// Records what became of messages, of each attempt once. Those that it neither recorded nor found out of reach had been
    /// taken by another worker meanwhile.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer. Recording the same again is safe.
    pub async fn settle_deliveries(
        &self,
        sent: &[(Delivery, Sent)],
        deadline: Deadline,
    ) -> Result<Recorded, DbError> {
        let ids: Vec<Uuid> = sent.iter().map(|(delivery, _)| delivery.id).collect();
        let job_ids: Vec<Uuid> = sent.iter().map(|(delivery, _)| delivery.job.id).collect();
        let attempts: Vec<i16> = sent.iter().map(|(delivery, _)| delivery.attempt).collect();
        let urls: Vec<Option<&str>> = sent.iter().map(|(delivery, _)| delivery.url.as_deref()).collect();
        let mut words = Vec::with_capacity(sent.len());
        let mut delays = Vec::with_capacity(sent.len());
        let mut errors = Vec::with_capacity(sent.len());
        for (_, sent) in sent {
            let (word, delay, error) = match sent {
                Sent::Delivered => ("delivered", Duration::ZERO, None),
                Sent::Retry { delay, error } => ("retry", *delay, Some(error)),
                Sent::PutBack(delay) => ("put_back", *delay, None),
                Sent::GiveUp(error) => ("give_up", Duration::ZERO, Some(error)),
                Sent::Gone(error) => ("gone", Duration::ZERO, Some(error)),
            };
            words.push(word);
            delays.push(delay.as_secs_f64());
            errors.push(error);
        }
        let params = [
            (&job_ids as _, Type::UUID_ARRAY),
            (&ids as _, Type::UUID_ARRAY),
            (&attempts as _, Type::INT2_ARRAY),
            (&words as _, Type::TEXT_ARRAY),
            (&delays as _, Type::FLOAT8_ARRAY),
            (&errors as _, Type::TEXT_ARRAY),
            (&urls as _, Type::TEXT_ARRAY),
        ];
        let mut recorded = Recorded::default();
        for row in self.rows(SETTLE_DELIVERIES, &params, Again::Safe, deadline).await? {
            match row.get(1) {
                true => recorded.out_of_reach.push(row.get(0)),
                false => recorded.count += 1,
            }
        }
        Ok(recorded)
    }

    /// Where an account is told of its jobs; `None` if it never said.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn webhook(
        &self,
        account_id: Uuid,
        deadline: Deadline,
    ) -> Result<Option<AccountWebhook>, DbError> {
        let rows = self.rows(WEBHOOK, &[(&account_id, Type::UUID)], Again::Safe, deadline).await?;
        Ok(rows.first().map(AccountWebhook::from_row))
    }

    /// Sets where an account is told of its jobs, and of what, or, with no URL, that it is not. A disabled webhook works again.
    ///
    /// # Errors
    /// [`DbError::Refused`] with `invalid_webhook` (422).
    pub async fn set_webhook(
        &self,
        account_id: Uuid,
        url: Option<&str>,
        events: Option<&[String]>,
        deadline: Deadline,
    ) -> Result<AccountWebhook, DbError> {
        let params =
            [(&account_id as _, Type::UUID), (&url as _, Type::TEXT), (&events as _, Type::TEXT_ARRAY)];
        let rows = self.rows(SET_WEBHOOK, &params, Again::Safe, deadline).await?;
        one(&rows)
    }

    /// Gives an account's webhooks a new secret; the last one signs, too, for a day.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer; it may have been done.
    pub async fn rotate_webhook_secret(
        &self,
        account_id: Uuid,
        deadline: Deadline,
    ) -> Result<AccountWebhook, DbError> {
        let params = [(&account_id as _, Type::UUID)];
        let rows = self.rows(ROTATE_WEBHOOK_SECRET, &params, Again::Unsafe, deadline).await?;
        one(&rows)
    }

    /// What is or was to be said of a job, of `account_id` or, if `None`, of anybody's, oldest first: up to `limit`, after the one
    /// of the id `after`.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn deliveries(
        &self,
        job_id: Uuid,
        account_id: Option<Uuid>,
        after: Option<Uuid>,
        limit: i64,
        deadline: Deadline,
    ) -> Result<Vec<DeliveryShown>, DbError> {
        let params = [
            (&job_id as _, Type::UUID),
            (&account_id as _, Type::UUID),
            (&after as _, Type::UUID),
            (&limit as _, Type::INT8),
        ];
        let rows = self.rows(DELIVERIES, &params, Again::Safe, deadline).await?;
        Ok(rows.iter().map(DeliveryShown::from_row).collect())
    }

    /// Messages that were given up, or whose last sending failed, newest first: up to `limit`, older than the one of the id `before`;
    /// 10,000 are looked at. And the `before` of the next page; `None` after the last.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn undelivered(
        &self,
        account_id: Option<Uuid>,
        limit: i64,
        before: Option<Uuid>,
        deadline: Deadline,
    ) -> Result<(Vec<Undelivered>, Option<Uuid>), DbError> {
        let params = [(&account_id as _, Type::UUID), (&limit as _, Type::INT8), (&before as _, Type::UUID)];
        let rows = self.rows(UNDELIVERED, &params, Again::Safe, deadline).await?;
        let looked = rows.first().and_then(|row| row.get(9));
        let there = rows.iter().filter(|row| row.get::<_, Option<Uuid>>(0).is_some());
        let undelivered = there.map(|row| Undelivered {
            id: row.get(0),
            account_id: row.get(1),
            job_id: row.get(2),
            event: row.get(3),
            url: row.get(4),
            attempt: row.get(5),
            next_attempt_at: row.get::<_, Option<_>>(6).map(Timestamp),
            created_at: Timestamp(row.get(7)),
            error: row.get(8),
        });
        let undelivered: Vec<_> = undelivered.collect();
        let full = undelivered.last().filter(|_| i64::try_from(undelivered.len()) == Ok(limit));
        let next = full.map(|message| message.id).or(looked);
        Ok((undelivered, next))
    }

    /// Makes a message due again now, whatever became of it; `false`: there is no such message.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn resend(&self, id: Uuid, deadline: Deadline) -> Result<bool, DbError> {
        // Once more if there is none: it may just have been recorded, and moved, while this waited for it.
        for _ in 0..2 {
            if !self.rows(RESEND, &[(&id, Type::UUID)], Again::Safe, deadline).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn one(rows: &[Row]) -> Result<AccountWebhook, DbError> {
    let row = rows.first().ok_or_else(|| DbError::Broken("a webhook answered no row".into()))?;
    Ok(AccountWebhook::from_row(row))
}
