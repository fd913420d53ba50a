//! An account's statement of a month: every entry, without a gap, and a hash of each and all before it, so that anybody can prove
//! that nothing is missing and nothing was changed since (`docs/examples/verify_statement.py`).

use serde::Serialize;
use sha2::{Digest, Sha256};
use shared::{
    db::{
        DbError,
        credits::{StatementEntry, StatementPage, StatementPlace, StatementShare},
    },
    domain::Deadline,
};
use uuid::Uuid;

use super::{
    account, bad_cursor, credits::LAST_MICROSECOND, cursor, known_query, ok, open_cursor, page_size,
};
#[cfg(feature = "openapi")]
use crate::openapi::{params::*, problems::*};
use crate::{
    App,
    auth::{Scope, caller},
    error::ApiError,
    event::{Request, Response},
};

/// As many entries a page has, unless it is told otherwise, and at most.
const PAGE: i64 = 1_000;

/// An entry, and a hash.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct HashedEntry {
    #[serde(flatten)]
    entry: StatementEntry,
    /// SHA-256, in lower-case hexadecimal, of the hash before, `\n`, and the values of share, entry, kind, available_delta,
    /// held_delta, available_after, held_after, job_id, idempotency_key, reason and created_at as they stand here, null as nothing,
    /// with a comma between each two, unquoted. Before the first it is that of `punchcard statement\nACCOUNT\nMONTH\n`.
    hash: String,
}

/// A page of a statement.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Statement {
    /// The account.
    account_id: Uuid,
    /// Of which month, in UTC: `2026-11`.
    month: String,
    /// Whether no entry of this month can come any more.
    is_final: bool,
    /// Where the account, or each share of one that is spread, stood before and after.
    shares: Vec<StatementShare>,
    /// The entries, share by share, in the order of their numbers.
    data: Vec<HashedEntry>,
    /// The `cursor` of the next page; null on the last one, whose last hash is that of the whole month.
    next_cursor: Option<String>,
    /// How many entries a page has at most.
    limit: i64,
}

/// Where a page begins, and the hash before it.
struct Start {
    place: Option<StatementPlace>,
    hash: [u8; 32],
}

/// Show the statement of a month.
///
/// Free jobs' entries and shifts between shares are among them; of a job's end what was captured and what was released is one
/// entry, `end`: its `held_delta` is what was held, of which `available_delta` came back. As CSV the first page begins with a line of
/// the kind `opening` for each share, and the last one ends with one of the kind `closing`: its number, or the next one, and its balances. The
/// next page's cursor is in the header `next-cursor`.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/api/credits/statement", tag = "credits", params(StatementWanted, OfAccount),
    responses(
        (status = 200, description = "A page of entries.", content(
            (Statement = "application/json"), (String = "text/csv"))),
        Problems<(Caller, Account, Found, Paged, Stated)>)
))]
pub(crate) async fn get_statement(
    app: &App,
    request: &Request,
    deadline: Deadline,
) -> Result<Response, ApiError> {
    let caller = caller(app, request, deadline).await?;
    known_query(request, &["month", "format", "limit", "cursor", "account_id"])?;
    let of = |name: &str| request.query.get(name).map(String::as_str);
    let account_id = account(&caller, request, &[Scope::Grant, Scope::Operate])?;
    let month = of("month").filter(|month| is_month(month));
    let month = month.ok_or_else(|| {
        ApiError::bad("invalid_month", "Send a month, such as month=2026-11.").of_parameter("month")
    })?;
    let as_csv = match of("format") {
        None | Some("json") => false,
        Some("csv") => true,
        Some(_) => {
            let error = ApiError::bad("invalid_format", "A format is json or csv.");
            return Err(error.of_parameter("format").allowed(["json", "csv"]));
        }
    };
    let limit = match of("limit") {
        None => PAGE,
        Some(_) => page_size(request, PAGE)?,
    };
    let start = match of("cursor") {
        None => Start { place: None, hash: first_hash(account_id, month) },
        Some(cursor) => {
            open_cursor(cursor, account_id).and_then(|bytes| opened(&bytes)).ok_or_else(bad_cursor)?
        }
    };
    let begin = format!("{month}-01T00:00:00Z");
    let page = app.db.statement(account_id, &begin, start.place, limit, deadline).await?;
    check(&page, start.place)?;
    let next = next(&page, start.place);
    let (mut hash, mut data) = (start.hash, Vec::with_capacity(page.entries.len()));
    for entry in page.entries {
        hash = next_hash(&hash, &entry);
        data.push(HashedEntry { hash: hex(&hash), entry });
    }
    let next_cursor = next.map(|StatementPlace { share, entry, near }| {
        let bytes = [&share.to_be_bytes()[..], &entry.to_be_bytes(), &near.unwrap_or(0).to_be_bytes(), &hash]
            .concat();
        cursor(&bytes, account_id)
    });
    if as_csv {
        let headers = [("content-type", "text/csv; charset=utf-8".to_owned())];
        let more = next_cursor.map(|cursor| ("next-cursor", cursor));
        let (first, last) = (start.place.is_none(), more.is_none());
        return Ok(Response {
            status: 200,
            headers: headers.into_iter().chain(more).collect(),
            body: csv(&data, first.then_some(&page.shares), last.then_some(&page.shares)),
        });
    }
    let (is_final, shares, month) = (page.is_final, page.shares, month.to_owned());
    ok(&Statement { account_id, month, is_final, shares, data, next_cursor, limit })
}

/// `2026-11`, from 1970 on.
fn is_month(text: &str) -> bool {
    let Some((year, month)) = text.split_once('-') else { return false };
    let number = |digits: &str, length: usize| {
        (digits.len() == length && digits.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| digits.parse::<u16>().ok())
            .flatten()
    };
    number(year, 4).is_some_and(|year| (1970..=2108).contains(&year))
        && number(month, 2).is_some_and(|month| (1..=12).contains(&month))
}

fn opened(bytes: &[u8]) -> Option<Start> {
    let (share, rest) = bytes.split_first_chunk()?;
    let (entry, rest) = rest.split_first_chunk()?;
    let (near, hash) = rest.split_first_chunk()?;
    let place = StatementPlace {
        share: i16::from_be_bytes(*share),
        entry: i64::from_be_bytes(*entry),
        near: Some(i64::from_be_bytes(*near)).filter(|near| (1..=LAST_MICROSECOND).contains(near)),
    };
    Some(Start { place: Some(place), hash: hash.try_into().ok()? })
}

/// Numbers have no gap: a page that had one would be no proof of anything.
fn check(page: &StatementPage, from: Option<StatementPlace>) -> Result<(), DbError> {
    let share = from.map_or(0, |place| place.share);
    let of_share = page.shares.iter().find(|its| its.share == share);
    let first = from.map(|place| place.entry).or(of_share.map(|its| its.first)).unwrap_or_default();
    let missing = (first..).zip(&page.entries).find(|(number, entry)| *number != entry.entry);
    let none = page.entries.is_empty() && of_share.is_some_and(|its| first < its.behind);
    match missing.map(|(number, _)| number).or(none.then_some(first)) {
        Some(number) => {
            Err(DbError::Broken(format!("entry {number} of share {share} is missing: audit the credits")))
        }
        None => Ok(()),
    }
}

/// Where the next page begins: behind the last entry, or with the next share that has any.
fn next(page: &StatementPage, from: Option<StatementPlace>) -> Option<StatementPlace> {
    let share = from.map_or(0, |place| place.share);
    if let Some(last) = page.entries.last()
        && page.shares.iter().any(|its| its.share == share && last.entry + 1 < its.behind)
    {
        let near = last.created_at.0.unix_timestamp_nanos() / 1_000;
        return Some(StatementPlace { share, entry: last.entry + 1, near: i64::try_from(near).ok() });
    }
    let behind = page.shares.iter().filter(|its| its.share > share && its.first < its.behind);
    behind.min_by_key(|its| its.share).map(|its| StatementPlace {
        share: its.share,
        entry: its.first,
        near: None,
    })
}

fn first_hash(account_id: Uuid, month: &str) -> [u8; 32] {
    Sha256::digest(format!("punchcard statement\n{account_id}\n{month}\n")).into()
}

fn next_hash(before: &[u8; 32], entry: &StatementEntry) -> [u8; 32] {
    let StatementEntry {
        share,
        entry: number,
        kind,
        available_delta,
        held_delta,
        available_after,
        held_after,
        ..
    } = entry;
    let job = entry.job_id.map(|id| id.to_string()).unwrap_or_default();
    let (key, reason) =
        (entry.idempotency_key.as_deref().unwrap_or_default(), entry.reason.as_deref().unwrap_or_default());
    let created_at = entry.created_at;
    let line = format!(
        "{}\n{share},{number},{kind},{available_delta},{held_delta},{available_after},{held_after},{job},{key},{reason},{created_at}",
        hex(before)
    );
    Sha256::digest(line).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As RFC 4180 has it, with a header; with where the shares stood before, and after.
fn csv(
    data: &[HashedEntry],
    opening: Option<&Vec<StatementShare>>,
    closing: Option<&Vec<StatementShare>>,
) -> String {
    let mut text = "share,entry,kind,available_delta,held_delta,available_after,held_after,job_id,idempotency_key,reason,\
                    created_at,hash\r\n"
        .to_owned();
    for StatementShare { share, first, opening: stood, .. } in opening.into_iter().flatten() {
        let (available, held) = (stood.available, stood.held);
        text.push_str(&format!("{share},{first},opening,,,{available},{held},,,,,\r\n"));
    }
    for HashedEntry { entry, hash } in data {
        let fields = [
            entry.share.to_string(),
            entry.entry.to_string(),
            entry.kind.clone(),
            entry.available_delta.to_string(),
            entry.held_delta.to_string(),
            entry.available_after.to_string(),
            entry.held_after.to_string(),
            entry.job_id.map(|id| id.to_string()).unwrap_or_default(),
            quoted(entry.idempotency_key.as_deref().unwrap_or_default()),
            quoted(entry.reason.as_deref().unwrap_or_default()),
            entry.created_at.to_string(),
            hash.clone(),
        ];
        text.push_str(&fields.join(","));
        text.push_str("\r\n");
    }
    for StatementShare { share, behind, closing: stands, .. } in closing.into_iter().flatten() {
        let (available, held) = (stands.available, stands.held);
        text.push_str(&format!("{share},{behind},closing,,,{available},{held},,,,,\r\n"));
    }
    text
}

fn quoted(field: &str) -> String {
    match field.contains([',', '"', '\r', '\n']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.to_owned(),
    }
}
