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
            Ok(response) => judge(&response),
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
                    HttpError::TimedOut => again(ErrorCode::TimedOut, message, None),
                }
            }
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
            input: &'a RawValue,
        }
        let body = serde_json::to_vec(&Body {
            id: lease.job_id,
            kind: &lease.kind,
            account_id: lease.account_id,
            attempt: lease.attempt,
            max_attempts: lease.max_attempts,
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

/// The answer decides: 200, 201 and 204 are done; 408, 425, 429 and 503 mean later; other 5xx, again; the rest, never.
fn judge(response: &Response<Bytes>) -> Outcome {
    let status = response.status();
    let said = format!("the target answered {}", status.as_u16());
    match status.as_u16() {
        204 => Outcome::Done(RawValue::NULL.to_owned()),
        200 | 201 => done(response.body()),
        202 => Outcome::Final(JobError::new(
            ErrorCode::TargetError,
            "the target answered 202: call-backs are not offered",
        )),
        408 | 425 | 429 | 503 => again(ErrorCode::TargetError, said, retry_after(response.headers())),
        500..=599 => again(ErrorCode::TargetError, said, None),
        _ if status == StatusCode::CONTINUE => again(ErrorCode::TargetError, said, None),
        _ => Outcome::Final(JobError::new(ErrorCode::TargetError, said)),
    }
}

fn done(body: &Bytes) -> Outcome {
    if body.is_empty() {
        return Outcome::Done(RawValue::NULL.to_owned());
    }
    match serde_json::from_slice::<Box<RawValue>>(body) {
        Ok(output) => Outcome::Done(output),
        Err(_) => Outcome::Final(JobError::new(ErrorCode::InvalidOutput, "the target's answer is not JSON")),
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

    fn answer(status: u16, body: &'static str) -> Outcome {
        let response = Response::builder().status(status).header("retry-after", "7").body(Bytes::from(body));
        judge(&response.expect("a valid response"))
    }

    #[test]
    fn the_answer_decides() {
        assert!(matches!(answer(200, r#"{"a":1}"#), Outcome::Done(o) if o.get() == r#"{"a":1}"#));
        assert!(matches!(answer(201, ""), Outcome::Done(o) if o.get() == "null"));
        assert!(matches!(answer(204, ""), Outcome::Done(_)));
        assert!(matches!(answer(200, "oops"), Outcome::Final(e) if e.code == ErrorCode::InvalidOutput));
        for status in [408, 425, 429, 503] {
            assert!(
                matches!(answer(status, ""), Outcome::Err { retry_after: Some(d), .. } if d.as_secs() == 7)
            );
        }
        for status in [500, 502, 504] {
            assert!(matches!(answer(status, ""), Outcome::Err { retry_after: None, .. }), "{status}");
        }
        for status in [202, 301, 302, 400, 404, 410, 422] {
            assert!(matches!(answer(status, ""), Outcome::Final(_)), "{status}");
        }
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
