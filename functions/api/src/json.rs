//! JSON in: an object, no deeper than 32, with nothing in it that no later reader can take.

use serde::de::DeserializeOwned;
use serde_json::{Value, value::RawValue};
use shared::domain::{job::MAX_OUTPUT_DEPTH, json::depth};

use crate::{error::ApiError, event::Request};

/// The largest input of a job, in bytes of JSON.
pub(crate) const MAX_INPUT_BYTES: usize = 65_536;
/// The largest body: an input and room for what is around it.
const MAX_BODY_BYTES: usize = MAX_INPUT_BYTES + 4_096;
/// How deep arrays and objects may nest.
const MAX_DEPTH: usize = 32;

/// The largest body of a batch.
const MAX_BATCH_BYTES: usize = 4 * 1024 * 1024;
/// And of a call back.
const MAX_CALLBACK_BYTES: usize = 1024 * 1024;

/// Reads the body as `T`; each kind of bad body has a code of its own.
pub(crate) fn body<T: DeserializeOwned>(request: &Request) -> Result<T, ApiError> {
    read(request, MAX_BODY_BYTES, MAX_DEPTH, "A body has at most 68 KiB.")
}

/// Reads the body of a batch.
pub(crate) fn large_body<T: DeserializeOwned>(request: &Request) -> Result<T, ApiError> {
    read(request, MAX_BATCH_BYTES, MAX_DEPTH, "A body has at most 4 MiB.")
}

/// Reads the body of a call back: an output and what a provider sends beside it.
pub(crate) fn callback_body<T: DeserializeOwned>(request: &Request) -> Result<T, ApiError> {
    read(request, MAX_CALLBACK_BYTES, MAX_OUTPUT_DEPTH + 1, "A body has at most 1 MiB.")
}

fn read<T: DeserializeOwned>(
    request: &Request,
    limit: usize,
    most_depth: usize,
    over: &'static str,
) -> Result<T, ApiError> {
    let media = request.header("content-type")?.unwrap_or_default();
    if !media.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        return Err(ApiError::unsupported_media_type());
    }
    if request.body.is_empty() {
        return Err(ApiError::bad("body_required", "Send a JSON object."));
    }
    if request.body.len() > limit {
        return Err(ApiError::too_large(over));
    }
    let text = std::str::from_utf8(&request.body).map_err(|_| ApiError::bad("invalid_json", "Not UTF-8."))?;
    if depth(text) > most_depth {
        let why = format!("At most {most_depth} levels of arrays and objects.");
        return Err(ApiError::bad("too_deep", why));
    }
    // Read once as any JSON: numbers that overflow, trailing garbage and NULs are found wherever they stand.
    let any: Value =
        serde_json::from_str(text).map_err(|error| ApiError::bad("invalid_json", position(&error)))?;
    if !any.is_object() {
        return Err(ApiError::bad("not_an_object", "Send a JSON object."));
    }
    if has_nul(&any) {
        return Err(ApiError::invalid("nul_character", "Text cannot contain \\u0000."));
    }
    drop(any);
    fields(text)
}

/// Reads an object within a body that was read before.
pub(crate) fn member<T: DeserializeOwned>(object: &RawValue) -> Result<T, ApiError> {
    fields(object.get())
}

fn fields<T: DeserializeOwned>(text: &str) -> Result<T, ApiError> {
    serde_json::from_str(text).map_err(|error| {
        let said = error.to_string();
        let code = if said.starts_with("unknown field") {
            "unknown_field"
        } else if said.starts_with("duplicate field") {
            "duplicate_field"
        } else {
            "invalid_field"
        };
        ApiError::bad(code, said)
    })
}

fn position(error: &serde_json::Error) -> String {
    format!("Not valid JSON at line {}, column {}.", error.line(), error.column())
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(members) => members.iter().any(|(key, value)| key.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
