//! One function per statement on `kinds`, and what each field of a kind may be.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::{Transaction, types::Type};

use super::{Again, Db, DbError};
use crate::domain::{Deadline, Growth};

pub(crate) const LIST: &str = include_str!("kinds/list.sql");
pub(crate) const APPLY: &str = include_str!("kinds/apply.sql");
pub(crate) const UNFINISHED: &str = include_str!("kinds/unfinished.sql");

/// What each field of a kind may be, as the CHECKs of its table have it: so that a file is judged, field by
/// field, before anybody connects. A test holds the two against each other.
pub const BOUNDS: &[(&str, Bound)] = &[
    ("name", Bound::Name),
    ("price", Bound::Whole(0, 1_000_000_000_000)),
    ("max_priority", Bound::Whole(-10, 10)),
    ("metered", Bound::Switch),
    ("on_cancel", Bound::Word(&["release", "capture", "refuse"])),
    ("on_input_error", Bound::Word(&["release", "capture"])),
    ("max_attempts", Bound::Whole(1, 25)),
    ("max_crashes", Bound::Whole(1, 25)),
    ("backoff", Bound::Word(&["exponential", "linear", "fixed"])),
    ("backoff_seconds", Bound::Whole(1, 86_400)),
    ("backoff_max_seconds", Bound::Whole(1, 86_400)),
    ("backoff_delays", Bound::Wholes(25, 0, 86_400)),
    ("jitter", Bound::Part),
    ("timeout_seconds", Bound::Whole(1, 840)),
    ("life_seconds", Bound::Whole(60, 2_592_000)),
    ("dispatch", Bound::Word(&["poll", "sqs"])),
    ("url", Bound::Url),
    ("cancel_url", Bound::Url),
    ("callback_seconds", Bound::Whole(1, 2_592_000)),
    ("secret_version", Bound::Whole(1, 1_000_000)),
];

/// What a value must be.
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    /// 1 to 64 of `a-z`, `0-9`, `_`, `.` and `-`.
    Name,
    /// A whole number from the one to the other.
    Whole(i64, i64),
    /// Up to so many whole numbers, each from the one to the other.
    Wholes(usize, i64, i64),
    /// A number from 0 to 1.
    Part,
    /// `true` or `false`.
    Switch,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A URL by HTTP or HTTPS, of up to 2,000 characters.
    Url,
}

impl Bound {
    /// Whether it is such a value.
    #[must_use]
    pub fn holds(self, value: &Value) -> bool {
        let within = |value: &Value, from: i64, to: i64| {
            value.as_i64().is_some_and(|number| (from..=to).contains(&number))
        };
        match self {
            Self::Name => value.as_str().is_some_and(is_name),
            Self::Whole(from, to) => within(value, from, to),
            Self::Wholes(most, from, to) => value
                .as_array()
                .is_some_and(|list| list.len() <= most && list.iter().all(|entry| within(entry, from, to))),
            Self::Part => value.as_f64().is_some_and(|number| (0.0..=1.0).contains(&number)),
            Self::Switch => value.is_boolean(),
            Self::Word(words) => value.as_str().is_some_and(|word| words.contains(&word)),
            Self::Url => value.as_str().is_some_and(|url| {
                (url.starts_with("https://") || url.starts_with("http://")) && url.chars().count() <= 2_000
            }),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("1 to 64 of a-z, 0-9, _, . and -"),
            Self::Whole(from, to) => write!(f, "a whole number from {from} to {to}"),
            Self::Wholes(most, from, to) => {
                write!(f, "a list of up to {most} whole numbers from {from} to {to}")
            }
            Self::Part => f.write_str("a number from 0 to 1"),
            Self::Switch => f.write_str("true or false"),
            Self::Word(words) => write!(f, "one of {}", words.join(", ")),
            Self::Url => f.write_str("a URL such as https://worker.example.com/ of up to 2000 characters"),
        }
    }
}

/// Whether it can be the name of a kind, or of a service token.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let of_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(of_name)
}

/// Which field a CHECK of the table is about, by the constraint's name; the name itself if it is not known.
#[must_use]
pub fn field_of(constraint: &str) -> &str {
    match constraint {
        "kinds_fixed_has_delays" => "backoff_delays",
        _ => constraint
            .strip_prefix("kinds_")
            .and_then(|rest| rest.strip_suffix("_check"))
            .filter(|column| BOUNDS.iter().any(|(field, _)| field == column))
            .unwrap_or(constraint),
    }
}

/// A kind: its price and policy. The defaults are those of the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    /// Its name; in `kinds.toml`, the name of its table.
    #[serde(default)]
    pub name: String,
    /// Credits.
    pub price: i64,
    /// The highest priority that a caller may give its jobs, -10 to 10: 0 lets nobody go before others.
    #[serde(default)]
    pub max_priority: i16,
    /// Whether that is the most, and what was used is captured.
    #[serde(default)]
    pub metered: bool,
    /// What is kept of the price when a running job is canceled.
    #[serde(default)]
    pub on_cancel: Charge,
    /// What is kept of it when a job fails and its input is to blame: `release` or `capture`.
    #[serde(default)]
    pub on_input_error: Charge,
    /// Attempts there may be.
    #[serde(default = "three")]
    pub max_attempts: i32,
    /// Runs that may crash: out of time, or their worker killed.
    #[serde(default = "three")]
    pub max_crashes: i32,
    /// How the delays grow from attempt to attempt.
    #[serde(default)]
    pub backoff: Growth,
    /// The delay after the first attempt.
    #[serde(default = "ten")]
    pub backoff_seconds: i32,
    /// The longest delay.
    #[serde(default = "hour")]
    pub backoff_max_seconds: i32,
    /// The delays of the backoff `fixed`, and of no other.
    #[serde(default)]
    pub backoff_delays: Vec<i32>,
    /// The part of a delay that is left to chance, 0 to 1.
    #[serde(default = "half")]
    pub jitter: f64,
    /// How long one attempt may take.
    #[serde(default = "thirty")]
    pub timeout_seconds: i32,
    /// Unfinished after this long, a job fails.
    #[serde(default = "week")]
    pub life_seconds: i32,
    /// Who starts it: `sqs`, at once where that is on, or only ever the `poll`er.
    #[serde(default)]
    pub dispatch: Dispatch,
    /// The HTTP target; without one, Rust code of that name.
    #[serde(default)]
    pub url: Option<String>,
    /// Where the HTTP target is told of a job that was canceled while it was at work.
    #[serde(default)]
    pub cancel_url: Option<String>,
    /// Within what time a target that answered 202 calls back; then the job fails.
    #[serde(default = "hour")]
    pub callback_seconds: i32,
    /// Which derivation of the kind's secret signs.
    #[serde(default = "one")]
    pub secret_version: i32,
    /// Whether it is no longer offered.
    #[serde(default, skip)]
    pub retired: bool,
}

/// What is kept of a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Charge {
    /// Nothing.
    #[default]
    Release,
    /// All of it.
    Capture,
    /// The question does not arise: a running job cannot be canceled.
    Refuse,
}

impl Charge {
    fn parse(word: &str) -> Result<Self, DbError> {
        match word {
            "release" => Ok(Self::Release),
            "capture" => Ok(Self::Capture),
            "refuse" => Ok(Self::Refuse),
            other => Err(DbError::Broken(format!("unknown charge {other}"))),
        }
    }
}

/// What is unfinished of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// The kind.
    pub kind: String,
    /// Its jobs that are queued or running.
    pub jobs: i64,
    /// Those of them that are running.
    pub running: i64,
    /// Credits held for them.
    pub held: i64,
}

/// Who starts the jobs of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dispatch {
    /// The poller, each minute.
    Poll,
    /// A wake-up by SQS, at once; the poller where SQS is off.
    #[default]
    Sqs,
}

fn half() -> f64 {
    0.5
}
fn one() -> i32 {
    1
}
fn three() -> i32 {
    3
}
fn ten() -> i32 {
    10
}
fn thirty() -> i32 {
    30
}
fn hour() -> i32 {
    3_600
}
fn week() -> i32 {
    604_800
}

impl Db {
    /// Every kind.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn list_kinds(&self, deadline: Deadline) -> Result<Vec<Kind>, DbError> {
        let rows = self.rows(LIST, &[], Again::Safe, deadline).await?;
        let kinds = rows.iter().map(|row| {
            let growth = Growth::parse(row.get(15));
            Ok(Kind {
                name: row.get(0),
                price: row.get(1),
                max_attempts: row.get(2),
                backoff_seconds: row.get(3),
                backoff_max_seconds: row.get(4),
                timeout_seconds: row.get(5),
                life_seconds: row.get(6),
                url: row.get(7),
                secret_version: row.get(8),
                retired: row.get(9),
                dispatch: if row.get(10) { Dispatch::Sqs } else { Dispatch::Poll },
                metered: row.get(11),
                on_cancel: Charge::parse(row.get(12))?,
                on_input_error: Charge::parse(row.get(13))?,
                max_crashes: row.get(14),
                backoff: growth.ok_or_else(|| DbError::Broken("unknown backoff".into()))?,
                backoff_delays: row.get(16),
                jitter: row.get(17),
                cancel_url: row.get(18),
                callback_seconds: row.get(19),
                max_priority: row.get(20),
            })
        });
        kinds.collect()
    }

    /// What is unfinished of each of these kinds.
    ///
    /// # Errors
    /// [`DbError`] when there is no answer.
    pub async fn unfinished(&self, kinds: &[String], deadline: Deadline) -> Result<Vec<Unfinished>, DbError> {
        let rows = self.rows(UNFINISHED, &[(&kinds, Type::TEXT_ARRAY)], Again::Safe, deadline).await?;
        let unfinished = rows.iter().map(|row| Unfinished {
            kind: row.get(0),
            jobs: row.get(1),
            running: row.get(2),
            held: row.get(3),
        });
        Ok(unfinished.collect())
    }
}

/// Offers these kinds, and retires the `retired`: what is queued of them fails and is released. In the
/// caller's transaction, so that a dry run does all of it, and is rolled back.
///
/// # Errors
/// The driver's: of a value that the table does not take, with the name of its CHECK.
pub async fn apply(
    transaction: &Transaction<'_>,
    kinds: &[Kind],
    retired: &[String],
) -> Result<(), tokio_postgres::Error> {
    // Numbers, words and lists of them: there is nothing that cannot be written as JSON.
    let kinds = serde_json::to_string(kinds).unwrap_or_default();
    let params = [(&kinds as _, Type::TEXT), (&retired as _, Type::TEXT_ARRAY)];
    transaction.query_typed(APPLY, &params).await.map(drop)
}
