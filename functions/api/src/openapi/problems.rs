//! What an answer's problem may be, status and code, in sets that the endpoints name. `error.rs` and the migrations
//! decide; a test holds these equal to what they say.

use std::{collections::BTreeMap, marker::PhantomData};

use utoipa::{
    IntoResponses, ToSchema,
    openapi::{
        ContentBuilder, Header, ObjectBuilder, RefOr, Response, ResponseBuilder, Schema,
        extensions::Extensions, schema::Type,
    },
};

use crate::error::Flaw;

/// What went wrong (RFC 9457).
#[derive(ToSchema)]
#[allow(dead_code)] // it stands here for what it says of itself: `error.rs` writes it
pub(crate) struct Problem {
    /// `urn:punchcard:problem:` and the code.
    r#type: String,
    /// The code, for a person.
    title: String,
    /// The status of the answer.
    status: u16,
    /// What went wrong, in a word that a program can act on. There may be more of them one day.
    code: String,
    /// What went wrong, for a person.
    detail: String,
    /// What the logs know this request by.
    request_id: String,
    /// What is wrong with the request, and where, if it is: up to ten things at once, the first as above.
    #[schema(nullable = false)]
    errors: Option<Vec<Flaw>>,
    /// Of `insufficient_credits`: the price.
    #[schema(nullable = false)]
    required: Option<i64>,
    /// Of `insufficient_credits`: what the account has.
    #[schema(nullable = false)]
    available: Option<i64>,
    /// Of `too_many_…`: what the account may have.
    #[schema(nullable = false)]
    limit: Option<i64>,
    /// Of `too_many_…`: seconds until it is worth trying again.
    #[schema(nullable = false)]
    retry_after: Option<i64>,
    /// Of `already_retried`: the job that it was retried as.
    #[schema(nullable = false)]
    retried_as: Option<uuid::Uuid>,
}

/// A set of problems.
pub(crate) trait Codes {
    /// Status and code of each.
    const CODES: &'static [&'static [(u16, &'static str)]];
}

macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident { $($status:literal: $($code:literal)+),+ $(,)? })+) => {
        $(
            $(#[$doc])*
            pub(crate) struct $name;

            impl Codes for $name {
                const CODES: &'static [&'static [(u16, &'static str)]] = &[$(&[$(($status, $code)),+]),+];
            }
        )+

        /// Every problem that an operation may answer, status and code; some more than once.
        pub const PROBLEMS: &[&[&[(u16, &str)]]] = &[$($name::CODES),+];
    };
}

problems! {
    /// The database is not there, or something is wrong on our side.
    Database { 500: "internal", 503: "unavailable" "outcome_unknown" }

    /// Who is calling is not known.
    Caller { 401: "unauthorized", 500: "internal", 503: "unavailable" "outcome_unknown" }

    /// The caller is known, and may not.
    Scoped { 403: "forbidden" }

    /// A service must name an account, and a user must not.
    Account { 400: "unknown_parameter" "account_required", 403: "forbidden", 422: "invalid_account" }

    /// It is not there, or not the caller's; or past its retention.
    Found { 404: "not_found", 410: "gone" }

    /// It is not there.
    There { 404: "not_found" }

    /// The account was erased.
    Open { 403: "account_closed" }

    /// The body cannot be read.
    Body {
        400: "body_required" "invalid_json" "too_deep" "not_an_object" "unknown_field" "duplicate_field" "invalid_field"
             "duplicate_header" "invalid_header",
        413: "too_large", 415: "unsupported_media_type", 422: "nul_character",
    }

    /// The key is none, or was used for something else; or what it bought is past its retention.
    Key { 400: "invalid_idempotency_key", 410: "gone", 422: "idempotency_mismatch" }

    /// A query has a parameter that is not known.
    Queried { 400: "unknown_parameter" }

    /// A body is sent, and none is taken.
    Bare { 400: "unknown_field" }

    /// A wait is too long, or none.
    Waited { 400: "invalid_wait" }

    /// The number of an event is none.
    Placed { 400: "invalid_after" }

    /// There is no secret to sign with.
    Offered { 422: "webhooks_not_offered" }

    /// A webhook cannot be there.
    Telling { 422: "invalid_webhook" "webhooks_not_offered" }

    /// Nobody waits for this call (any more), or what it says makes no sense.
    CallingBack {
        409: "callback_used" "callback_expired",
        422: "invalid_status" "invalid_credits_used" "invalid_progress",
    }

    /// A page cannot be told.
    Paged { 400: "unknown_parameter" "invalid_limit" "invalid_cursor" }

    /// A page does not follow another.
    Continued { 400: "invalid_cursor" }

    /// A statement is of a month, and is written in one of two ways.
    Stated { 400: "invalid_month" "invalid_format" }

    /// A filter makes no sense.
    Filtered {
        400: "invalid_status" "invalid_kind" "too_many_filters" "invalid_filter" "invalid_include" "invalid_created_after"
             "invalid_created_before",
    }

    /// The price cannot be held.
    Holding {
        402: "insufficient_credits", 403: "account_closed", 422: "unknown_kind" "over_limit",
        429: "too_many_jobs" "too_many_bytes" "too_many_enqueues", 503: "credit_source_failed",
    }

    /// The job cannot be bought.
    Buying {
        400: "invalid_run_at", 402: "insufficient_credits", 403: "account_closed", 413: "too_large",
        422: "unknown_kind" "over_limit" "invalid_priority" "invalid_run_at" "invalid_retry" "invalid_metadata" "invalid_tags"
             "invalid_webhook" "webhooks_not_offered",
        429: "too_many_jobs" "too_many_bytes" "too_many_enqueues", 503: "credit_source_failed",
    }

    /// A batch has none, or too many.
    Batched { 422: "invalid_batch" }

    /// It cannot be canceled (any more).
    Cancelable { 409: "not_cancelable" }

    /// It cannot be retried (again).
    Retryable { 409: "not_retryable" "already_retried" }

    /// It is neither to be validated nor to be done.
    Validating { 400: "invalid_validate_only" }

    /// What is to be retried makes no sense.
    Redrivable { 400: "account_required" "invalid_kind" "invalid_failed_after" "invalid_failed_before" "invalid_cursor",
                 422: "invalid_account" "invalid_redrive" }

    /// A grant makes no sense.
    Granting { 400: "idempotency_key_required" "invalid_expires_at", 403: "account_closed", 422: "invalid_amount" "reason_too_long" "invalid_expires_at" }
}

/// The answers of a set of problems, or of a tuple of sets.
pub(crate) struct Problems<T>(PhantomData<T>);

/// A tuple of sets.
pub(crate) trait Sets {
    /// The sets.
    fn sets() -> Vec<&'static [&'static [(u16, &'static str)]]>;
}

impl<A: Codes> Sets for A {
    fn sets() -> Vec<&'static [&'static [(u16, &'static str)]]> {
        vec![A::CODES]
    }
}

macro_rules! tuples {
    ($(($($set:ident)+))+) => {
        $(impl<$($set: Codes),+> Sets for ($($set,)+) {
            fn sets() -> Vec<&'static [&'static [(u16, &'static str)]]> {
                vec![$($set::CODES),+]
            }
        })+
    };
}

tuples! { (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) (A B C D E F G) (A B C D E F G H) }

impl<T: Sets> IntoResponses for Problems<T> {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut codes: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
        for (status, code) in T::sets().into_iter().flatten().flat_map(|set| set.iter()) {
            let of_status = codes.entry(*status).or_default();
            if !of_status.contains(code) {
                of_status.push(code);
            }
        }
        codes.into_iter().map(|(status, codes)| (status.to_string(), answer(status, &codes).into())).collect()
    }
}

fn answer(status: u16, codes: &[&str]) -> Response {
    let mut problem = ObjectBuilder::new().schema_type(Type::Object).build();
    problem.extensions = Some(Extensions::from_iter([("x-codes", serde_json::json!(codes))]));
    let content = ContentBuilder::new().schema(Some(Schema::from(problem))).build();
    let mut response = ResponseBuilder::new()
        .description(codes.iter().map(|code| format!("`{code}`")).collect::<Vec<_>>().join(", "))
        .content("application/problem+json", content);
    let header = |kind, description: &str| {
        let mut header = Header::new(ObjectBuilder::new().schema_type(kind));
        header.description = Some(description.into());
        header
    };
    match status {
        401 => response = response.header("www-authenticate", header(Type::String, "`Bearer`.")),
        429 | 503 => {
            let after = header(Type::Integer, "Seconds until it is worth trying again.");
            response = response.header("retry-after", after);
        }
        _ => {}
    }
    response.build()
}
