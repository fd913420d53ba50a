//! API Gateway's event, payload format 2.0, to a request and back. No event may panic here, and none that an HTTP caller can
//! bring about fails: only the members that are used are read, each on its own, and what is in no other one matters.

use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use lambda_http::Error;
use serde_json::{Map, Value, json};

use crate::error::ApiError;

/// A request as the routes see it.
pub(crate) struct Request {
    pub(crate) method: String,
    /// From `/api/` on, as it was sent.
    pub(crate) path: String,
    /// What stood before it: of a stage, or of a domain of one's own.
    pub(crate) base: String,
    pub(crate) query: HashMap<String, String>,
    /// By their names in lower case, each value as it came; `None` if no header can have it.
    headers: HashMap<String, Vec<Option<String>>>,
    pub(crate) body: Bytes,
}

impl Request {
    /// The one value of a header: `None` if it is absent, an error if it is there twice or not text.
    pub(crate) fn header(&self, name: &'static str) -> Result<Option<&str>, ApiError> {
        match self.headers.get(name).map_or([].as_slice(), Vec::as_slice) {
            [] => Ok(None),
            [Some(text)] => Ok(Some(text.trim())),
            [None] => Err(ApiError::bad("invalid_header", name)),
            _ => Err(ApiError::bad("duplicate_header", name)),
        }
    }

    /// All values of a header that is a list, as one (RFC 9110 §5.3); what is not text is left out.
    pub(crate) fn list(&self, name: &'static str) -> String {
        let values = self.headers.get(name).into_iter().flatten().flatten();
        values.map(String::as_str).collect::<Vec<_>>().join(",")
    }
}

/// A response as the routes give it.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

impl Response {
    /// The same for a caller who reaches the API behind `base`: its `Location` leads there.
    pub(crate) fn behind(mut self, base: &str) -> Self {
        for (name, value) in &mut self.headers {
            if *name == "location" {
                value.insert_str(0, base);
            }
        }
        self
    }
}

/// Decodes an event: an outer error if it is not an HTTP request at all, an inner one if the request is bad. `base` is what
/// the API's own paths stand behind, on a domain of the operator's: such as `/v1`.
pub(crate) fn decode(mut event: Value, base: &str) -> Result<Result<Request, ApiError>, Error> {
    // Moved, not copied: it may have megabytes.
    let body = event.get_mut("body").map(Value::take).unwrap_or_default();
    let http = &event["requestContext"]["http"];
    if event["version"] != "2.0" {
        // Payload 1.0, a load balancer or a WebSocket still has an HTTP caller, who gets an answer.
        if ["requestContext", "httpMethod", "rawPath", "headers"].iter().any(|name| event.get(name).is_some())
        {
            return Ok(Err(ApiError::bad("unsupported_event", "the API must use payload format 2.0")));
        }
        return Err("not an event of an API Gateway HTTP API with payload format 2.0".into());
    }
    let path = event["rawPath"].as_str().or_else(|| http["path"].as_str());
    let (Some(method), Some(path)) = (http["method"].as_str(), path) else {
        return Ok(Err(ApiError::bad("unsupported_event", "the event has no method, or no path")));
    };
    let (base, path) = split(path, base, event["requestContext"]["stage"].as_str());
    let body = match (body, event["isBase64Encoded"] == true) {
        (Value::Null, _) => Some(Bytes::new()),
        (Value::String(body), false) => Some(Bytes::from(body)),
        (Value::String(body), true) => STANDARD.decode(body).map(Bytes::from).ok(),
        _ => None,
    };
    let Some(body) = body else {
        return Ok(Err(ApiError::bad("invalid_body", "the body is no text, or not valid base64")));
    };
    let query = members(&event["queryStringParameters"])
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    let query = query.collect();
    let headers = headers(&event["headers"]);
    let (method, base, path) = (method.to_owned(), base.to_owned(), path.to_owned());
    Ok(Ok(Request { method, path, base, query, headers, body }))
}

fn members(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object.as_object().into_iter().flat_map(Map::iter)
}

/// Where the API's own path begins. API Gateway leaves in front of it the name of a stage other than `$default`, and the path by
/// which a domain of one's own leads to it.
fn split<'a>(path: &'a str, base: &str, stage: Option<&str>) -> (&'a str, &'a str) {
    // Nothing is taken off a path that would not be the API's without it: a stage may be called `api`.
    let own =
        |path: &'a str, prefix: &str| path.strip_prefix(prefix).filter(|rest| rest.starts_with("/api/"));
    let stage = stage.filter(|stage| *stage != "$default").map(|stage| format!("/{stage}"));
    let rest = own(path, base).filter(|_| !base.is_empty()).or_else(|| own(path, &stage?)).unwrap_or(path);
    path.split_at(path.len() - rest.len())
}

/// A value that is a list is that many; one that no header can have (RFC 9110 §5.5) spoils this header alone.
fn headers(headers: &Value) -> HashMap<String, Vec<Option<String>>> {
    let mut read = HashMap::<String, Vec<Option<String>>>::new();
    for (name, value) in members(headers) {
        let values = match value {
            Value::Null => &[],
            Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        let text = |value: &Value| {
            let text =
                value.as_str().filter(|text| text.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')));
            text.map(str::to_owned)
        };
        read.entry(name.to_ascii_lowercase()).or_default().extend(values.iter().map(text));
    }
    read
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

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    /// The samples of the API's requests in `events/`.
    fn samples() -> Vec<(String, Value)> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../events");
        let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        let samples = files.filter(|file| {
            file.file_name()
                .unwrap()
                .to_str()
                .is_some_and(|name| name.starts_with("api-") && name.ends_with(".json"))
        });
        let samples = samples.map(|file| {
            let event = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
            (file.display().to_string(), event)
        });
        let samples: Vec<_> = samples.collect();
        assert!(samples.len() > 20);
        samples
    }

    /// The JSON pointer of each member of a value, however deep.
    fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
        for (name, member) in members(value) {
            let pointer = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
            pointers(member, &pointer, found);
            found.push(pointer);
        }
    }

    fn without(event: &Value, pointer: &str) -> Value {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let mut event = event.clone();
        let name = name.replace("~1", "/").replace("~0", "~");
        event.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(&name);
        event
    }

    fn replaced(event: &Value, pointer: &str, by: &Value) -> Value {
        let mut event = event.clone();
        *event.pointer_mut(pointer).unwrap() = by.clone();
        event
    }

    /// What is read of an event: whatever else is in it does not matter.
    const USED: [&str; 8] = [
        "/version",
        "/rawPath",
        "/requestContext",
        "/requestContext/http",
        "/requestContext/http/method",
        "/headers",
        "/body",
        "/isBase64Encoded",
    ];

    #[test]
    fn every_member_may_be_missing_or_something_else_and_there_is_an_answer() {
        let others = [
            json!(null),
            json!(7),
            json!(1.5),
            json!(true),
            json!("\u{1}x"),
            json!([]),
            json!([null, 1, "a", {}]),
            json!({}),
            json!({ "a": null, "b": [1], "c": { "d": 1e300 } }),
        ];
        for (name, event) in samples() {
            let sound = decode(event.clone(), "").expect(&name);
            let sound = sound.unwrap_or_else(|error| panic!("{name}: {error:?}"));
            let mut found = Vec::new();
            pointers(&event, "", &mut found);
            for pointer in found {
                let spoiled = others.iter().map(|other| replaced(&event, &pointer, other));
                for spoiled in spoiled.chain([without(&event, &pointer)]) {
                    let what = || format!("{name}: {pointer} is {:?}", spoiled.pointer(&pointer));
                    let request =
                        decode(spoiled.clone(), "").unwrap_or_else(|error| panic!("{}: {error}", what()));
                    let used = USED.contains(&pointer.as_str())
                        || ["/headers/", "/queryStringParameters"].iter().any(|its| pointer.starts_with(its));
                    if used {
                        continue;
                    }
                    let request = request.unwrap_or_else(|error| panic!("{}: {error:?}", what()));
                    assert_eq!(
                        (&request.method, &request.path, &request.body),
                        (&sound.method, &sound.path, &sound.body),
                        "{}",
                        what()
                    );
                    assert_eq!(
                        (&request.headers, &request.query),
                        (&sound.headers, &sound.query),
                        "{}",
                        what()
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_no_http_request_is_none_and_other_formats_have_a_caller() {
        for none in [
            json!({}),
            json!(null),
            json!([]),
            json!({ "Records": [] }),
            json!({ "version": "0", "detail-type": "Scheduled Event", "source": "aws.events", "detail": {} }),
        ] {
            assert!(decode(none.clone(), "").is_err(), "{none}");
        }
        for other in [
            json!({ "version": "1.0", "httpMethod": "GET", "path": "/api/jobs", "requestContext": {} }),
            json!({ "httpMethod": "GET", "path": "/api/jobs", "requestContext": { "elb": {} } }),
            json!({ "requestContext": { "eventType": "CONNECT", "connectionId": "a" } }),
            json!({ "version": "2.0" }),
            json!({ "version": "2.0", "rawPath": "/api/jobs", "requestContext": { "http": { "method": null } } }),
        ] {
            assert!(decode(other.clone(), "").unwrap().is_err(), "{other}");
        }
    }

    #[test]
    fn a_header_that_cannot_be_spoils_no_other_and_is_never_quoted() {
        let mut event = samples().remove(0).1;
        event["headers"] = json!({
            "Authorization": "Bearer \u{7}secret", "x-two": ["a", "b"], "X-Two": "c", "x-none": null, "x-number": 7,
            "accept": " text/html\t", "bad name": "x",
        });
        let request = decode(event, "").unwrap().unwrap();
        let error = format!("{:?}", request.header("authorization").unwrap_err());
        assert!(error.contains("invalid_header") && !error.contains("secret"), "{error}");
        assert_eq!(request.header("accept").unwrap(), Some("text/html"));
        assert!(format!("{:?}", request.header("x-two").unwrap_err()).contains("duplicate_header"));
        assert_eq!(request.list("x-two").split(',').count(), 3);
        assert_eq!((request.header("x-none").unwrap(), request.header("x-missing").unwrap()), (None, None));
        assert!(request.header("x-number").is_err());
    }

    #[test]
    fn a_stage_and_a_base_path_stand_before_the_path_and_nothing_else_is_taken_off() {
        for (path, base, stage, expected) in [
            ("/api/jobs", "", Some("$default"), ("", "/api/jobs")),
            ("/prod/api/jobs", "", Some("prod"), ("/prod", "/api/jobs")),
            ("/prod/api/jobs/", "", Some("prod"), ("/prod", "/api/jobs/")),
            ("/api/jobs", "", Some("prod"), ("", "/api/jobs")), // by a domain of one's own
            ("/api/jobs", "", Some("api"), ("", "/api/jobs")),
            ("/api/api/jobs", "", Some("api"), ("/api", "/api/jobs")),
            ("/v1/api/jobs", "/v1", Some("$default"), ("/v1", "/api/jobs")),
            ("/team/v1/api/jobs", "/team/v1", Some("prod"), ("/team/v1", "/api/jobs")),
            ("/prod/api/jobs", "/v1", Some("prod"), ("/prod", "/api/jobs")), // not by that domain
            ("/v1/api/jobs", "", Some("$default"), ("", "/v1/api/jobs")),
            ("/v1/api/jobs", "", None, ("", "/v1/api/jobs")),
            ("/v10/api/jobs", "/v1", Some("prod"), ("", "/v10/api/jobs")),
            ("/prodapi/jobs", "", Some("prod"), ("", "/prodapi/jobs")),
            ("/prod//api/jobs", "", Some("prod"), ("", "/prod//api/jobs")),
            ("/prod", "", Some("prod"), ("", "/prod")),
            ("", "/v1", Some("prod"), ("", "")),
            ("/é/api/jobs", "", Some("é"), ("/é", "/api/jobs")),
        ] {
            assert_eq!(split(path, base, stage), expected, "{path} {base} {stage:?}");
        }
    }
}
