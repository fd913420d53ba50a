//! Any kind served over HTTP: the job is POSTed to the kind's URL, signed by Standard Webhooks, and the answer
//! decides (docs/ARCHITECTURE.md, "HTTP targets").

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use hkdf::Hkdf;
use http::{HeaderMap, Request, Response, StatusCode, header};
use serde_json::value::RawValue;
use sha2::Sha256;
use shared::{
    domain::{Deadline, ErrorCode, JobError, Lease, Outcome, job::MAX_OUTPUT_BYTES},
    http_client::{self, Allow, HttpError},
};
use standardwebhooks::Webhook;

/// The answer's header that says how many credits a metered job used.
const CREDITS_USED: &str = "punchcard-credits-used";
/// How long a target is told that a job was canceled.
const TELL_BUDGET: Duration = Duration::from_secs(5);

/// Calls HTTP targets.
pub struct HttpTarget {
    master: Option<String>,
    allow: Allow,
}

/// The signing secret of a kind, as the target's owner is given it: `whsec_…`, derived from the master secret by
/// HKDF-SHA-256 (RFC 5869), so that none is stored and each can be rotated by its version.
#[must_use]
pub fn kind_secret(master: &str, kind: &str, version: u32) -> String {
    let mut key = [0_u8; 32];
    Hkdf::<Sha256>::new(Some(b"punchcard"), master.as_bytes())
        .expand(format!("kind:{kind}:v{version}").as_bytes(), &mut key)
        .expect("32 bytes are within what HKDF-SHA-256 can give");
    format!("whsec_{}", STANDARD.encode(key))
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
    pub async fn perform(&self, lease: &Lease, url: &str, secret_version: u32) -> Outcome {
        let request = match self.request(lease, url, secret_version) {
            Ok(request) => request,
            Err(error) => return Outcome::Final(error),
        };
        let deadline = Deadline::after(lease.timeout.min(lease.lasts));
        match http_client::send(request, self.allow, MAX_OUTPUT_BYTES, deadline).await {
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
    pub async fn tell_canceled(&self, lease: &Lease, url: &str, secret_version: u32) {
        let told = match self.request(lease, url, secret_version) {
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

    fn request(&self, lease: &Lease, url: &str, version: u32) -> Result<Request<Bytes>, JobError> {
        let forbidden = |why: &str| JobError::new(ErrorCode::TargetForbidden, why);
        let master = self.master.as_deref().ok_or_else(|| forbidden("the worker has no SIGNING_SECRET"))?;
        let input = serde_json::from_str::<&RawValue>(&lease.input).map_err(|error| {
            JobError::new(ErrorCode::InvalidInput, format!("the input is not JSON: {error}"))
        })?;
        #[derive(serde::Serialize)]
        struct Body<'a> {
            id: uuid::Uuid,
            kind: &'a str,
            account_id: uuid::Uuid,
            attempt: u32,
            max_attempts: u32,
            /// What is held: the most that a metered job may use.
            credits: i64,
            input: &'a RawValue,
        }
        let body = serde_json::to_vec(&Body {
            id: lease.job_id,
            kind: &lease.kind,
            account_id: lease.account_id,
            attempt: lease.attempt,
            max_attempts: lease.max_attempts,
            credits: lease.price,
            input,
        })
        .map_err(|error| JobError::new(ErrorCode::InvalidInput, error.to_string()))?;

        let id = lease.job_id.to_string();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let signature = Webhook::new(&kind_secret(master, &lease.kind, version))
            .and_then(|webhook| webhook.sign(&id, now.try_into().unwrap_or(i64::MAX), &body))
            .map_err(|error| forbidden(&format!("the job cannot be signed: {error}")))?;
        Request::post(url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "punchcard")
            .header("webhook-id", id)
            .header("webhook-timestamp", now)
            .header("webhook-signature", signature)
            .header("punchcard-attempt", lease.attempt)
            .body(Bytes::from(body))
            .map_err(|_| forbidden("the kind's URL is malformed"))
    }
}

fn again(code: ErrorCode, message: impl AsRef<str>, retry_after: Option<Duration>) -> Outcome {
    Outcome::Err { error: JobError::new(code, message), retry_after }
}

/// The answer decides: 200, 201 and 204 are done; 429, and 503 with `Retry-After`, are not the job's fault and mean later;
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
            "the target answered 202: call-backs are not offered",
        )),
        429 => Outcome::Unavailable { error: JobError::new(ErrorCode::Unavailable, said), retry_after },
        503 if retry_after.is_some() => {
            Outcome::Unavailable { error: JobError::new(ErrorCode::Unavailable, said), retry_after }
        }
        408 | 425 => again(ErrorCode::TargetError, said, retry_after),
        500..=599 => again(ErrorCode::TargetError, said, None),
        _ if status == StatusCode::CONTINUE => again(ErrorCode::TargetError, said, None),
        400 | 422 => Outcome::Final(JobError::new(ErrorCode::InvalidInput, said)),
        _ => Outcome::Final(JobError::new(ErrorCode::TargetError, said)),
    }
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
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
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

    #[test]
    fn every_kind_and_version_has_a_secret_of_its_own() {
        let secrets = [
            kind_secret("m", "a", 1),
            kind_secret("m", "a", 2),
            kind_secret("m", "b", 1),
            kind_secret("n", "a", 1),
        ];
        for (i, one) in secrets.iter().enumerate() {
            assert!(one.starts_with("whsec_"));
            assert!(secrets.iter().skip(i + 1).all(|other| other != one));
        }
        assert_eq!(kind_secret("m", "a", 1), secrets[0]);
    }
}
