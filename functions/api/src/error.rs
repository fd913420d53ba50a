//! Errors of the API: a code, a status, and what the caller may know, as `application/problem+json` (RFC 9457).
//! The only place in the project that knows error statuses.

use serde_json::{Map, Value, json};
use shared::db::DbError;

use crate::event::Response;

/// What the caller did wrong, or what we could not do.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: u16,
    code: String,
    detail: String,
    more: Map<String, Value>,
    allow: Option<String>,
}

impl ApiError {
    fn new(status: u16, code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { status, code: code.into(), detail: detail.into(), more: Map::new(), allow: None }
    }

    fn with(self, more: Map<String, Value>) -> Self {
        Self { more, ..self }
    }

    /// 400: the request cannot be read.
    pub(crate) fn bad(code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(400, code, detail)
    }

    /// 401: who is calling is not known.
    pub(crate) fn unauthorized(detail: &'static str) -> Self {
        Self::new(401, "unauthorized", detail)
    }

    /// 403: the caller is known and may not.
    pub(crate) fn forbidden(detail: &'static str) -> Self {
        Self::new(403, "forbidden", detail)
    }

    /// 404: it is not there, or not the caller's.
    pub(crate) fn not_found() -> Self {
        Self::new(404, "not_found", "There is nothing here.")
    }

    /// 405: the path is there, the method is not; `Allow` says which are (RFC 9110 §15.5.6).
    pub(crate) fn method_not_allowed(allow: String) -> Self {
        let refused = Self::new(405, "method_not_allowed", "This path has no such method.");
        Self { allow: Some(allow), ..refused }
    }

    /// 413: more than is taken.
    pub(crate) fn too_large(detail: &'static str) -> Self {
        Self::new(413, "too_large", detail)
    }

    /// 415: not JSON.
    pub(crate) fn unsupported_media_type() -> Self {
        Self::new(415, "unsupported_media_type", "Send application/json.")
    }

    /// 422: it can be read, and makes no sense.
    pub(crate) fn invalid(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(422, code, detail)
    }

    /// 500: an answer that cannot be written as JSON.
    pub(crate) fn unencodable(error: serde_json::Error) -> Self {
        tracing::error!(error = %error, "an answer cannot be encoded");
        Self::internal()
    }

    fn internal() -> Self {
        Self::new(500, "internal", "Something is wrong on our side.")
    }

    /// The same, said of one job of a batch.
    pub(crate) fn of_job(mut self, number: usize) -> Self {
        self.detail = format!("Job {number} of the batch: {}", self.detail);
        self
    }

    /// 503: who is calling cannot be found out now.
    pub(crate) fn auth_unavailable() -> Self {
        Self::new(503, "unavailable", "Try again later.")
    }

    pub(crate) fn into_response(self, request_id: &str) -> Response {
        let mut body = json!({
            "type": format!("urn:punchcard:problem:{}", self.code),
            "title": self.code.replace('_', " "),
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "request_id": request_id,
        });
        let mut headers = vec![("content-type", "application/problem+json".to_owned())];
        if let Some(seconds) = self.more.get("retry_after").and_then(Value::as_u64) {
            headers.push(("retry-after", seconds.to_string()));
        }
        if let Some(body) = body.as_object_mut() {
            body.extend(self.more);
        }
        headers.extend(self.allow.map(|methods| ("allow", methods)));
        match self.status {
            401 => headers.push(("www-authenticate", "Bearer".into())),
            503 => headers.push(("retry-after", "5".into())),
            _ => {}
        }
        Response { status: self.status, headers, body: body.to_string() }
    }
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Refused { status, code, detail } => {
                // Figures come as a JSON object, perhaps with a text, and go out as members beside it.
                match serde_json::from_str::<Map<String, Value>>(&detail) {
                    Ok(mut more) => {
                        let text = more.remove("detail");
                        let text = text.as_ref().and_then(Value::as_str).unwrap_or("Not enough credits.");
                        Self::new(status, code, text).with(more)
                    }
                    Err(_) => Self::new(status, code, detail),
                }
            }
            DbError::Busy(why) => {
                tracing::warn!(error = why, "the database is busy with others");
                Self::new(503, "unavailable", "Somebody else is at work on this. Try again soon.")
            }
            DbError::Unavailable(why) | DbError::Unfit(why) | DbError::Denied(why) => {
                tracing::error!(error = why, "database unavailable");
                Self::new(503, "unavailable", "Try again later.")
            }
            DbError::Unknown(why) => {
                tracing::error!(error = why, "outcome unknown");
                let detail = "It is not known whether this was done. With the same Idempotency-Key it is safe to \
                              try again; without one, look first.";
                Self::new(503, "outcome_unknown", detail)
            }
            DbError::Broken(why) => {
                tracing::error!(error = why, "statement failed");
                Self::internal()
            }
        }
    }
}
