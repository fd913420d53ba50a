//! Any kind served over HTTP: the job is POSTed to the kind's URL, signed by Standard Webhooks, and the answer
//! decides (docs/ARCHITECTURE.md, "HTTP targets").

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use serde::{Serialize, Serializer};
use serde_json::{Value, value::RawValue};
use shared::{
    domain::{Deadline, ErrorCode, JobError, Outcome, job::MAX_OUTPUT_BYTES},
    http_client::{self, Allow, HttpError},
    signing::{kind_secret, signed_post},
};
use uuid::Uuid;

use super::Run;

/// The answer's header that says how many credits a metered job used.
const CREDITS_USED: &str = "punchcard-credits-used";
/// The longest reason of a target, in characters.
const MAX_REASON_CHARS: usize = 500;
/// How long a target is told that a job was canceled.
const TELL_BUDGET: Duration = Duration::from_secs(5);

/// Calls HTTP targets.
pub struct HttpTarget {
    master: Option<String>,
    pub(crate) allow: Allow,
}

impl HttpTarget {
    /// Targets signed with secrets derived from `master`; private addresses only where that is allowed.
    #[must_use]
    pub fn new(master: Option<String>, allow_private: bool) -> Self {
        Self { master, allow: if allow_private { Allow::Anything } else { Allow::PublicHttps } }
    }

    /// Whether there is a secret to sign with.
    #[must_use]
    pub fn can_sign(&self) -> bool {
        self.master.is_some()
    }

    /// POSTs the job and reads the outcome off the answer.
    pub async fn perform(&self, run: &Run, url: &str, secret_version: u32) -> Outcome {
        let lease = &run.lease;
        let request = match self.request(&Post::of_run(run), url, secret_version) {
            Ok(request) => request,
            Err(error) => return Outcome::Final(error),
        };
        let deadline = Deadline::after(run.time_left());
        match http_client::send_and_hear_why(request, self.allow, MAX_OUTPUT_BYTES, deadline).await {
            // It calls back.
            Ok(response) if response.status() == StatusCode::ACCEPTED && run.callback_url().is_some() => {
                Outcome::Wait { within: lease.callback_within }
            }
            Ok(response) => judge(&response, lease.metered),
            Err(error) => {
                let message = error.to_string();
                match error {
                    HttpError::Forbidden(_) => {
                        Outcome::Final(JobError::new(ErrorCode::TargetForbidden, message))
                    }
                    HttpError::TooLarge(_) => {
                        Outcome::Final(JobError::new(ErrorCode::InvalidOutput, message))
                    }
                    HttpError::Unreachable(_) => again(ErrorCode::TargetUnreachable, message, None),
                    HttpError::TimedOut => Outcome::TimedOut(JobError::new(ErrorCode::TimedOut, message)),
                }
            }
        }
    }

    /// POSTs the job to the kind's `cancel_url`, signed as it was; nothing depends on the answer.
    pub async fn tell_canceled(&self, run: &Run, url: &str, secret_version: u32) {
        let lease = &run.lease;
        let told = match self.cancel_request(&Post::of_run(run), url, secret_version) {
            Ok(request) => {
                let deadline = Deadline::after(TELL_BUDGET.min(lease.timeout));
                http_client::send(request, self.allow, MAX_OUTPUT_BYTES, deadline)
                    .await
                    .map_err(|error| error.to_string())
            }
            Err(error) => Err(error.message),
        };
        match told {
            Ok(response) => {
                tracing::info!(job.id = %lease.job_id, status = response.status().as_u16(), "target told of the cancel");
            }
            Err(error) => tracing::warn!(job.id = %lease.job_id, error, "target not told of the cancel"),
        }
    }

    /// The job as a signed POST.
    ///
    /// # Errors
    /// [`ErrorCode::TargetForbidden`] when there is no secret, or the URL is malformed; [`ErrorCode::InvalidInput`].
    fn request(&self, post: &Post<'_>, url: &str, version: u32) -> Result<Request<Bytes>, JobError> {
        self.signed(&post.id.to_string(), post, url, version)
    }

    /// The same, to say that it is canceled: a message of its own, or a target that drops what it has seen would drop it.
    ///
    /// # Errors
    /// The same.
    pub(crate) fn cancel_request(
        &self,
        post: &Post<'_>,
        url: &str,
        version: u32,
    ) -> Result<Request<Bytes>, JobError> {
        self.signed(&format!("{}.cancel", post.id), post, url, version)
    }

    fn signed(&self, id: &str, post: &Post<'_>, url: &str, version: u32) -> Result<Request<Bytes>, JobError> {
        let forbidden = |why: &str| JobError::new(ErrorCode::TargetForbidden, why);
        let master = self.master.as_deref().ok_or_else(|| forbidden("the worker has no SIGNING_SECRET"))?;
        let body = serde_json::to_vec(post).map_err(|error| {
            JobError::new(ErrorCode::InvalidInput, format!("the input is not JSON: {error}"))
        })?;
        let secret = kind_secret(master, post.kind, version);
        let mut request = signed_post(id, url, &[secret], body).map_err(|why| forbidden(&why))?;
        request.headers_mut().insert("punchcard-attempt", post.attempt.into());
        Ok(request)
    }
}

/// What a target is told of a job.
#[derive(Serialize)]
pub(crate) struct Post<'a> {
    pub(crate) id: Uuid,
    pub(crate) kind: &'a str,
    pub(crate) account_id: Uuid,
    pub(crate) attempt: u32,
    pub(crate) max_attempts: u32,
    /// What is held: the most that a metered job may use.
    pub(crate) credits: i64,
    #[serde(serialize_with = "as_it_was_sent")]
    pub(crate) input: &'a str,
    /// Where a target that answers 202 calls back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) callback_url: Option<&'a str>,
}

impl<'a> Post<'a> {
    fn of_run(run: &'a Run) -> Self {
        let lease = &run.lease;
        Self {
            id: lease.job_id,
            kind: &lease.kind,
            account_id: lease.account_id,
            attempt: lease.attempt,
            max_attempts: lease.max_attempts,
            credits: lease.price,
            input: &lease.input,
            callback_url: run.callback_url(),
        }
    }
}

fn as_it_was_sent<S: Serializer>(json: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serde_json::from_str::<&RawValue>(json).map_err(serde::ser::Error::custom)?.serialize(serializer)
}

fn again(code: ErrorCode, message: impl AsRef<str>, retry_after: Option<Duration>) -> Outcome {
    Outcome::Err { error: JobError::new(code, message), retry_after }
}

/// The answer decides: 200, 201 and 204 are done; 202 was dealt with, where call backs are taken; 429, and 503 with `Retry-After`, are not the job's fault and mean later;
/// 408, 425, 503 and other 5xx, again; 400 and 422 blame the input; the rest, never.
fn judge(response: &Response<Bytes>, metered: bool) -> Outcome {
    let status = response.status();
    let said = format!("the target answered {}", status.as_u16());
    let retry_after = retry_after(response.headers());
    match status.as_u16() {
        200 | 201 | 204 => match done(response, metered) {
            Ok((output, used)) => Outcome::Done { output, used },
            Err(why) => Outcome::Final(JobError::new(ErrorCode::InvalidOutput, why)),
        },
        202 => Outcome::Final(JobError::new(
            ErrorCode::TargetError,
            "the target answered 202, but the worker has no PUBLIC_URL to be called back at",
        )),
        429 => Outcome::Unavailable { error: JobError::new(ErrorCode::Unavailable, said), retry_after },
        503 if retry_after.is_some() => {
            Outcome::Unavailable { error: JobError::new(ErrorCode::Unavailable, said), retry_after }
        }
        408 | 425 => again(ErrorCode::TargetError, said, retry_after),
        500..=599 => again(ErrorCode::TargetError, said, None),
        _ if status == StatusCode::CONTINUE => again(ErrorCode::TargetError, said, None),
        400 | 422 => {
            let why = reason(response).map_or(said.clone(), |reason| format!("{said}: {reason}"));
            Outcome::Final(JobError::new(ErrorCode::InvalidInput, why))
        }
        _ => Outcome::Final(JobError::new(ErrorCode::TargetError, said)),
    }
}

/// Why a target refuses the input, in its own words, for the buyer to read: a member of a JSON object, or the
/// first of them, that is a text; a JSON text; or plain text. At most 500 characters, none of them a control
/// character; nothing of an HTML page.
fn reason(response: &Response<Bytes>) -> Option<String> {
    let media = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media = media.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if response.headers().get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return None;
    }
    let text = match media.as_str() {
        "text/plain" => beginning(response.body()).to_owned(),
        "" | "application/json" => json_reason(response.body())?,
        other if other.ends_with("+json") => json_reason(response.body())?,
        _ => return None,
    };
    let text: String = text.chars().map(|c| if is_unprintable(c) { ' ' } else { c }).collect();
    let text = text.trim();
    // A page under another name.
    (!text.is_empty() && !text.starts_with('<')).then(|| text.chars().take(MAX_REASON_CHARS).collect())
}

fn json_reason(body: &[u8]) -> Option<String> {
    match serde_json::from_slice(body).ok()? {
        Value::String(text) => Some(text),
        Value::Object(members) => {
            // As a problem (RFC 9457) has it, and as many others do.
            let said = |name: &str| match members.get(name)? {
                Value::String(text) if !text.trim().is_empty() => Some(text.clone()),
                _ => None,
            };
            ["detail", "title", "message", "error"].into_iter().find_map(said)
        }
        _ => None,
    }
}

/// As much of it as is UTF-8.
fn beginning(body: &[u8]) -> &str {
    match std::str::from_utf8(body) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&body[..error.valid_up_to()]).unwrap_or_default(),
    }
}

/// Whether a character would break a line, or turn the direction of what stands around it.
fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The output of a job that is done, and what it used.
fn done(response: &Response<Bytes>, metered: bool) -> Result<(Box<RawValue>, Option<i64>), &'static str> {
    let mut said = response.headers().get_all(CREDITS_USED).iter().filter(|_| metered);
    let used = match (said.next(), said.next()) {
        (None, _) => None,
        (Some(value), None) => {
            let used = value.to_str().ok().and_then(|value| value.trim().parse().ok());
            // A guess would charge somebody for it.
            Some(used.filter(|used| *used >= 0).ok_or("punchcard-credits-used is no whole number from 0")?)
        }
        (Some(_), Some(_)) => return Err("there is more than one punchcard-credits-used"),
    };
    // 204 has no body, whatever follows it.
    if response.body().is_empty() || response.status() == StatusCode::NO_CONTENT {
        return Ok((RawValue::NULL.to_owned(), used));
    }
    match serde_json::from_slice::<Box<RawValue>>(response.body()) {
        Ok(output) => Ok((output, used)),
        Err(_) => Err("the target's answer is not JSON"),
    }
}

/// `Retry-After`: seconds, or a date that may have passed (RFC 9110 §10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, header: (&str, &str), body: &'static str) -> Outcome {
        let response = Response::builder().status(status).header(header.0, header.1).body(Bytes::from(body));
        judge(&response.expect("a valid response"), true)
    }

    #[test]
    fn the_answer_decides() {
        let later = ("retry-after", "7");
        let seven = Some(Duration::from_secs(7));
        let plain = |status, body| answer(status, ("x-any", "1"), body);
        assert!(
            matches!(plain(200, r#"{"a":1}"#), Outcome::Done { output, used: None } if output.get() == r#"{"a":1}"#)
        );
        assert!(matches!(plain(201, ""), Outcome::Done { output, .. } if output.get() == "null"));
        assert!(matches!(plain(204, ""), Outcome::Done { .. }));
        assert!(matches!(plain(200, "oops"), Outcome::Final(e) if e.code == ErrorCode::InvalidOutput));
        for status in [408, 425] {
            assert!(
                matches!(answer(status, later, ""), Outcome::Err { retry_after, .. } if retry_after == seven)
            );
        }
        for status in [429, 503] {
            assert!(
                matches!(answer(status, later, ""), Outcome::Unavailable { retry_after, .. } if retry_after == seven)
            );
        }
        assert!(matches!(plain(429, ""), Outcome::Unavailable { retry_after: None, .. }));
        for status in [500, 502, 503, 504] {
            assert!(matches!(plain(status, ""), Outcome::Err { retry_after: None, .. }), "{status}");
        }
        for status in [400, 422] {
            assert!(matches!(plain(status, ""), Outcome::Final(e) if e.code == ErrorCode::InvalidInput));
        }
        for status in [202, 301, 302, 404, 410] {
            assert!(matches!(plain(status, ""), Outcome::Final(e) if e.code == ErrorCode::TargetError));
        }
    }

    #[test]
    fn a_reason_is_the_targets_own_words_bounded_and_in_one_line() {
        let said = |status, media: &'static str, body: String| {
            let response = Response::builder().status(status).header("content-type", media);
            match judge(&response.body(Bytes::from(body)).expect("a response"), false) {
                Outcome::Final(error) => error.message,
                other => panic!("{other:?}"),
            }
        };
        let json = |body: &str| said(422, "application/json; charset=utf-8", body.to_owned());
        let none = "the target answered 422";
        for (body, why) in [
            (r#"{"title":"Bad","detail":"no face in the picture"}"#, "no face in the picture"),
            (r#"{"detail":[{"msg":"x"}],"title":"Bad"}"#, "Bad"),
            (r#"{"detail":" ","message":"too dark"}"#, "too dark"),
            (r#"{"error":"too dark","message":7}"#, "too dark"),
            (r#""too dark""#, "too dark"),
            (r#"{"detail":"a\u0000b\nc\u202ed\u0085e\u2028f"}"#, "a b c d e f"),
        ] {
            assert_eq!(json(body), format!("{none}: {why}"), "{body}");
        }
        for body in [
            "",
            "null",
            "7",
            "[\"x\"]",
            "{}",
            r#"{"detail":""}"#,
            r#"{"detail":"<html>"}"#,
            "{\"detail\":\"x",
        ] {
            assert_eq!(json(body), none, "{body}");
        }
        assert_eq!(
            said(400, "application/problem+json", r#"{"detail":"x"}"#.into()),
            "the target answered 400: x"
        );
        assert_eq!(said(422, "text/plain", " no\r\nface ".into()), format!("{none}: no  face"));
        assert_eq!(said(422, "", r#"{"detail":"x"}"#.into()), format!("{none}: x"));
        for (media, body) in [
            ("text/html", "<p>no"),
            ("text/plain", "  <!doctype html>"),
            ("image/png", "x"),
            ("application/xml", "x"),
            ("", "x"),
        ] {
            assert_eq!(said(422, media, body.into()), none, "{media}");
        }
        let long = said(422, "text/plain", "ü".repeat(5_000));
        assert_eq!(long, format!("{none}: {}", "ü".repeat(500)));
        // No other status is asked for its reason.
        assert_eq!(said(404, "text/plain", "secret".into()), "the target answered 404");
        let zipped =
            Response::builder().status(422).header("content-encoding", "gzip").body(Bytes::from("\"x\""));
        assert_eq!(reason(&zipped.expect("a response")), None);
    }

    #[test]
    fn a_metered_answer_says_what_it_used_or_is_refused() {
        let used = |value| answer(200, (CREDITS_USED, value), "1");
        for (value, credits) in [("0", 0), (" 7 ", 7), ("9223372036854775807", i64::MAX)] {
            assert!(
                matches!(used(value), Outcome::Done { used: Some(used), .. } if used == credits),
                "{value}"
            );
        }
        for value in ["", "-1", "1.5", "seven", "9223372036854775808"] {
            assert!(
                matches!(used(value), Outcome::Final(e) if e.code == ErrorCode::InvalidOutput),
                "{value}"
            );
        }
        let twice = Response::builder().status(200).header(CREDITS_USED, "1").header(CREDITS_USED, "9");
        let twice = judge(&twice.body(Bytes::from("1")).expect("a response"), true);
        assert!(matches!(twice, Outcome::Final(e) if e.code == ErrorCode::InvalidOutput));
        let priced = Response::builder().status(200).header(CREDITS_USED, "x").body(Bytes::new());
        assert!(matches!(judge(&priced.expect("a response"), false), Outcome::Done { used: None, .. }));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let asked = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, value.parse().expect("a header"));
            retry_after(&headers).map(|delay| delay.as_secs())
        };
        assert_eq!(asked("120"), Some(120));
        let in_an_hour = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(3_600));
        assert!(matches!(asked(&in_an_hour), Some(3_590..=3_600)));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT"), Some(0));
        for nonsense in ["", "-1", "soon", "1.5"] {
            assert_eq!(asked(nonsense), None, "{nonsense}");
        }
    }
}
