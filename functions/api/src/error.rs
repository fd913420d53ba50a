//! Errors of the API: a code, a status, and what the caller may know, as `application/problem+json` (RFC 9457).
//! The only place in the project that knows error statuses.

use serde::Serialize;
use serde_json::{Map, Value, json};
use shared::db::DbError;

use crate::event::Response;

/// As many flaws of a request are named at once.
pub(crate) const MOST_FLAWS: usize = 10;

/// What the caller did wrong, or what we could not do.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: u16,
    code: String,
    detail: String,
    /// Where in the request, and what else is wrong with it.
    errors: Vec<Flaw>,
    more: Map<String, Value>,
    allow: Option<Box<str>>,
}

/// One thing that is wrong with a request.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub(crate) struct Flaw {
    /// What is wrong, in a word that a program can act on.
    code: String,
    /// What is wrong, for a person.
    detail: String,
    /// Where in the body it is: a JSON Pointer (RFC 6901) behind `#`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<String>,
    /// Which parameter of the query it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<String>,
    /// Which header it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<&'static str>,
    /// What would be right, where that can be listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed: Option<Vec<String>>,
}

impl ApiError {
    fn new(status: u16, code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            status,
            code: code.into(),
            detail: detail.into(),
            errors: Vec::new(),
            more: Map::new(),
            allow: None,
        }
    }

    fn flawed(mut self, place: impl FnOnce(&mut Flaw)) -> Self {
        if self.errors.is_empty() {
            let (code, detail) = (self.code.clone(), self.detail.clone());
            let flaw = Flaw { code, detail, pointer: None, parameter: None, header: None, allowed: None };
            self.errors.push(flaw);
        }
        self.errors.first_mut().map(place);
        self
    }

    /// The same, of what stands there in the body: `/retry/backoff`, or nothing for all of it.
    pub(crate) fn at(self, pointer: &str) -> Self {
        self.flawed(|flaw| flaw.pointer = Some(format!("#{pointer}")))
    }

    /// The same, of a parameter of the query.
    pub(crate) fn of_parameter(self, name: &str) -> Self {
        self.flawed(|flaw| flaw.parameter = Some(name.to_owned()))
    }

    /// The same, of a header.
    pub(crate) fn of_header(self, name: &'static str) -> Self {
        self.flawed(|flaw| flaw.header = Some(name))
    }

    /// And these would be right.
    pub(crate) fn allowed(self, right: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.flawed(|flaw| flaw.allowed = Some(right.into_iter().map(Into::into).collect()))
    }

    /// All that is wrong, as one: the first, with the flaws of the others.
    pub(crate) fn all(errors: impl IntoIterator<Item = Self>) -> Option<Self> {
        errors.into_iter().reduce(|mut first, other| {
            first.errors.extend(other.errors);
            first.errors.truncate(MOST_FLAWS);
            first
        })
    }

    /// The same, where the database refused what stands in a body: the code says which member it was.
    pub(crate) fn in_body(self) -> Self {
        match self.member() {
            Some(member) => self.at(member),
            None => self.of_key(),
        }
    }

    /// The same of the body of a batch: the database says of which job, or not.
    pub(crate) fn in_batch(mut self) -> Self {
        let job = self.more.remove("job").and_then(|number| number.as_u64()?.checked_sub(1));
        match (self.member(), job) {
            (Some(member), Some(index)) => self.at(&format!("/jobs/{index}{member}")),
            (Some(_), None) => self.at("/jobs"),
            (None, _) => self.of_key(),
        }
    }

    fn of_key(self) -> Self {
        match self.code.as_str() {
            "idempotency_mismatch" | "invalid_idempotency_key" => self.of_header("Idempotency-Key"),
            _ => self,
        }
    }

    fn member(&self) -> Option<&'static str> {
        Some(match self.code.as_str() {
            "unknown_kind" => "/kind",
            "invalid_priority" => "/priority",
            "invalid_run_at" => "/run_at",
            "invalid_retry" => "/retry",
            "invalid_metadata" => "/metadata",
            "invalid_tags" => "/tags",
            "invalid_webhook" => "/webhook",
            "invalid_amount" => "/amount",
            "reason_too_long" => "/reason",
            "invalid_expires_at" => "/expires_at",
            _ => return None,
        })
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
        Self { allow: Some(allow.into_boxed_str()), ..refused }
    }

    /// 413: more than is taken.
    pub(crate) fn too_large(detail: &'static str) -> Self {
        Self::new(413, "too_large", detail)
    }

    /// 415: not JSON.
    pub(crate) fn unsupported_media_type() -> Self {
        Self::new(415, "unsupported_media_type", "Send application/json.").of_header("Content-Type")
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

    /// The same, said of one job of a batch, counted from 0.
    pub(crate) fn of_job(self, index: usize) -> Self {
        let mut error = if self.errors.is_empty() { self.at("") } else { self };
        error.detail = format!("Job {} of the batch: {}", index + 1, error.detail);
        for flaw in &mut error.errors {
            let place = flaw.pointer.as_deref().unwrap_or("#").trim_start_matches('#');
            flaw.pointer = Some(format!("#/jobs/{index}{place}"));
        }
        error
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
            if !self.errors.is_empty() {
                body.insert("errors".into(), json!(self.errors));
            }
        }
        headers.extend(self.allow.map(|methods| ("allow", methods.into_string())));
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
