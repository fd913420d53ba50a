//! API Gateway's HTTP API, as far as the function `api` sees of it: an HTTP request becomes an event of payload format 2.0,
//! and the function's answer an HTTP response.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::lambda::{Function, InvokeError};
use crate::scripted::{Request, Response, Server};

/// The largest body that API Gateway takes.
const MAX_BODY_BYTES: usize = 10 * 1024 * 1024;

/// What came in, and what was answered.
#[derive(Debug)]
pub struct Call {
    /// The HTTP method.
    pub method: String,
    /// The path, without its query.
    pub path: String,
    /// The status that was answered.
    pub status: u16,
    /// Why the function gave no answer, if it gave none.
    pub failure: Option<String>,
}

/// A running gateway; dropping it closes its port.
#[derive(Debug)]
pub struct Gateway {
    server: Server,
}

impl Gateway {
    /// Listens on a free port of 127.0.0.1 and invokes the function for each request; `seen` hears of every call.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(
        function: Arc<Function>,
        seen: impl Fn(Call) + Send + Sync + 'static,
    ) -> std::io::Result<Gateway> {
        let seen = Arc::new(seen);
        let server = Server::start(move |request: Request| {
            let (function, seen) = (Arc::clone(&function), Arc::clone(&seen));
            async move {
                let (answered, failure) = answer(&function, &request).await;
                let path = request.path.split('?').next().unwrap_or_default().to_owned();
                seen(Call {
                    method: request.method.to_string(),
                    path,
                    status: answered.status.as_u16(),
                    failure,
                });
                answered
            }
        })
        .await?;
        Ok(Gateway { server })
    }

    /// `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address)
    }
}

/// The answer, and why the function gave none, if it gave none.
async fn answer(function: &Function, request: &Request) -> (Response, Option<String>) {
    if request.body.len() > MAX_BODY_BYTES {
        return (said(413, "Request Entity Too Large"), None);
    }
    let failure = match function.invoke(&event(request)).await {
        Ok(answer) => match respond(&answer) {
            Some(response) => return (response, None),
            None => format!("not an answer: {answer}"),
        },
        Err(InvokeError::TooLarge(_)) => return (said(413, "Request Too Long"), None),
        Err(error) => error.to_string(),
    };
    (said(500, "Internal Server Error"), Some(failure))
}

/// What API Gateway answers by itself.
fn said(status: u16, message: &str) -> Response {
    Response::json(status, json!({ "message": message }))
}

/// The event: repeated headers and parameters are joined by commas, and what is no text comes as base64.
fn event(request: &Request) -> Value {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let mut headers = BTreeMap::<&str, Vec<String>>::new();
    for (name, value) in &request.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.entry(name.as_str()).or_default().push(value);
    }
    let mut parameters = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        parameters.entry(name.into_owned()).or_default().push(value.into_owned());
    }
    let agent = headers.get("user-agent").map(|agent| agent.join(","));
    let mut event = json!({
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": query,
        "headers": joined(headers), "isBase64Encoded": false,
        "requestContext": {
            "accountId": "000000000000", "apiId": "local", "domainName": "localhost", "domainPrefix": "local",
            "requestId": "local", "routeKey": "$default", "stage": "$default",
            "time": "01/Jan/2026:00:00:00 +0000", "timeEpoch": 1_767_225_600_000_i64,
            "http": {
                "method": request.method.as_str(), "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1",
                "userAgent": agent,
            }
        }
    });
    if !parameters.is_empty() {
        event["queryStringParameters"] = joined(parameters);
    }
    match std::str::from_utf8(&request.body) {
        Ok("") => {}
        Ok(text) => event["body"] = json!(text),
        Err(_) => {
            event["body"] = json!(STANDARD.encode(&request.body));
            event["isBase64Encoded"] = json!(true);
        }
    }
    event
}

fn joined<K: Into<String>>(values: BTreeMap<K, Vec<String>>) -> Value {
    let pairs = values.into_iter().map(|(name, values)| (name.into(), Value::from(values.join(","))));
    Value::Object(pairs.collect::<Map<_, _>>())
}

/// The response; `None` if the answer is none.
fn respond(answer: &Value) -> Option<Response> {
    let status = u16::try_from(answer["statusCode"].as_u64()?).ok()?;
    let body = answer["body"].as_str().unwrap_or_default();
    let body = match answer["isBase64Encoded"] == true {
        true => STANDARD.decode(body).ok()?,
        false => body.as_bytes().to_vec(),
    };
    let mut response = Response::bytes(status, body);
    for (name, value) in answer["headers"].as_object().into_iter().flatten() {
        response = response.header(name, value.as_str()?);
    }
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str, body: &[u8]) -> Request {
        let mut headers = http::HeaderMap::new();
        headers.append("x-two", http::HeaderValue::from_static("a"));
        headers.append("x-two", http::HeaderValue::from_static("b"));
        Request { method: http::Method::POST, path: path.into(), headers, body: body.to_vec().into() }
    }

    #[test]
    fn what_is_repeated_is_joined_and_a_query_is_decoded() {
        let event = event(&request("/api/jobs/%37?tag=a&tag=b%2Cc+d&x", b"{}"));
        assert_eq!(event["headers"]["x-two"], "a,b");
        assert_eq!(event["queryStringParameters"], json!({ "tag": "a,b,c d", "x": "" }));
        assert_eq!((&event["rawPath"], &event["body"]), (&json!("/api/jobs/%37"), &json!("{}")));
        assert_eq!(event["isBase64Encoded"], false);
    }

    #[test]
    fn a_body_that_is_no_text_comes_as_base64() {
        let event = event(&request("/", &[0xff, 0x00]));
        assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!("/wA="), &json!(true)));
        assert!(event["queryStringParameters"].is_null());
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_for_an_event_is_413_and_nothing_is_invoked() {
        let function = Function::new("/nowhere".into(), Vec::new());
        for bytes in [7, 11] {
            let (answered, failure) = answer(&function, &request("/", &vec![b'x'; bytes << 20])).await;
            assert_eq!((answered.status.as_u16(), failure), (413, None), "{bytes} MiB");
        }
        let (answered, failure) = answer(&function, &request("/", b"x")).await;
        assert!(answered.status == 500 && failure.is_some_and(|why| why.contains("started")));
    }

    #[test]
    fn an_answer_without_a_status_is_none() {
        assert!(respond(&json!({ "body": "" })).is_none());
        let response = respond(&json!({ "statusCode": 202, "headers": { "a": "b" }, "body": "{}" })).unwrap();
        assert!(response.status == 202 && response.headers["a"] == "b");
    }
}
