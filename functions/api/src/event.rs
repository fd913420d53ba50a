//! API Gateway's event, payload format 2.0, to a request and back. No input may panic here: the body is decoded by
//! ourselves, since `lambda_http` panics on bad base64.

use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use lambda_http::{Error, aws_lambda_events::apigw::ApiGatewayV2httpRequest};
use serde_json::{Value, json};

use crate::error::ApiError;

/// A request as the routes see it.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: HashMap<String, String>,
    headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Request {
    /// The one value of a header: `None` if it is absent, an error if it is there twice or not text.
    pub(crate) fn header(&self, name: &'static str) -> Result<Option<&str>, ApiError> {
        let mut values = self.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => value
                .to_str()
                .map(|text| Some(text.trim()))
                .map_err(|_| ApiError::bad("invalid_header", name)),
            (Some(_), Some(_)) => Err(ApiError::bad("duplicate_header", name)),
        }
    }

    /// All values of a header that is a list, as one (RFC 9110 §5.3); what is not text is left out.
    pub(crate) fn list(&self, name: &'static str) -> String {
        let values = self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.collect::<Vec<_>>().join(",")
    }
}

/// A response as the routes give it.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

/// Decodes an event: an outer error if it is not an HTTP request at all, an inner one if the request is bad.
pub(crate) fn decode(event: Value) -> Result<Result<Request, ApiError>, Error> {
    if event.get("version").and_then(Value::as_str) != Some("2.0") {
        // API Gateway with payload 1.0 still is an HTTP caller, who gets an answer.
        if event.get("httpMethod").is_some() {
            return Ok(Err(ApiError::bad("unsupported_event", "the API must use payload format 2.0")));
        }
        return Err("not an event of an API Gateway HTTP API with payload format 2.0".into());
    }
    // As they came: the type below takes each comma for the gap between two parameters of the same name.
    let query = event.get("queryStringParameters").and_then(Value::as_object).into_iter().flatten();
    let query = query.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect();
    let event: ApiGatewayV2httpRequest = serde_json::from_value(event)?;
    let body = event.body.unwrap_or_default();
    let body = if event.is_base64_encoded {
        match STANDARD.decode(&body) {
            Ok(bytes) => Bytes::from(bytes),
            Err(_) => return Ok(Err(ApiError::bad("invalid_body", "the body is not valid base64"))),
        }
    } else {
        Bytes::from(body)
    };
    let path = event.raw_path.unwrap_or_default();
    let method = event.request_context.http.method.to_string();
    Ok(Ok(Request { method, path, query, headers: event.headers, body }))
}

/// Encodes a response.
pub(crate) fn encode(response: Response) -> Value {
    let mut headers: HashMap<&str, String> = response.headers.into_iter().collect();
    headers.entry("content-type").or_insert_with(|| "application/json".into());
    headers.entry("cache-control").or_insert_with(|| "no-store".into());
    headers.entry("x-content-type-options").or_insert_with(|| "nosniff".into());
    json!({
        "statusCode": response.status, "headers": headers, "body": response.body, "isBase64Encoded": false,
        "cookies": [],
    })
}
