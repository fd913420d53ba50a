//! API Gateway's event, payload format 2.0, to a request and back. No event may panic here, none that an HTTP caller can bring
//! about fails, and none may need much more memory than it has bytes: only the members that are used are read, each on its own,
//! and all else is passed over as it comes.

use std::{collections::HashMap, fmt, marker::PhantomData};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use lambda_http::Error;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::error::ApiError;

/// The headers that are read.
const READ: [&str; 5] = ["authorization", "content-type", "idempotency-key", "if-none-match", "prefer"];
/// API Gateway passes on as many bytes of a request's line and headers; of a longer value this much is looked at.
const LONGEST_HEADER: usize = 10_240;
/// More parameters than any route knows: of a request with more, one that is not known is among those that are kept.
const MOST_PARAMETERS: usize = 64;

/// What is read of an event; all else in it may be anything.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub struct Event {
    version: Scalar,
    http_method: Option<IgnoredAny>,
    raw_path: Option<Scalar>,
    raw_query_string: Scalar,
    query_string_parameters: Parameters,
    headers: Option<Headers>,
    request_context: Option<RequestContext>,
    body: Scalar,
    is_base64_encoded: Scalar,
}

#[derive(Default)]
struct RequestContext {
    http: Http,
    stage: Scalar,
}

#[derive(Default)]
struct Http {
    method: Scalar,
    path: Scalar,
}

/// A request as the routes see it.
pub(crate) struct Request {
    pub(crate) method: String,
    /// From `/api/` on, as it was sent.
    pub(crate) path: String,
    /// What stood before it: of a stage, or of a domain of one's own.
    pub(crate) base: String,
    /// Each parameter once; of one that stands there several times, all values with commas between them.
    pub(crate) query: HashMap<String, String>,
    /// As it was sent.
    raw_query: String,
    headers: Headers,
    pub(crate) body: Bytes,
}

impl Request {
    /// The one value of a header: `None` if it is absent, an error if it is there twice or not text.
    pub(crate) fn header(&self, name: &'static str) -> Result<Option<&str>, ApiError> {
        let mut values = self.headers.all(name);
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(Some(text)), None) => Ok(Some(text.trim())),
            (Some(None), None) => Err(ApiError::bad("invalid_header", name).of_header(name)),
            (Some(_), Some(_)) => Err(ApiError::bad("duplicate_header", name).of_header(name)),
        }
    }

    /// The values of a parameter that may stand there several times: the first `most` of them.
    pub(crate) fn repeated(&self, name: &str, most: usize) -> Vec<String> {
        let pairs = form_urlencoded::parse(self.raw_query.as_bytes());
        pairs.filter(|(its, _)| its == name).take(most).map(|(_, value)| value.into_owned()).collect()
    }

    /// All values of a header that is a list, as one (RFC 9110 §5.3); what is not text is left out.
    pub(crate) fn list(&self, name: &'static str) -> String {
        self.headers.all(name).flatten().collect::<Vec<_>>().join(",")
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

/// A response as API Gateway takes it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    status_code: u16,
    headers: HashMap<&'static str, String>,
    body: String,
    is_base64_encoded: bool,
    cookies: [String; 0],
}

/// Decodes an event: an outer error if it is not an HTTP request at all, an inner one if the request is bad. `base` is what
/// the API's own paths stand behind, on a domain of the operator's: such as `/v1`.
pub(crate) fn decode(event: Event, base: &str) -> Result<Result<Request, ApiError>, Error> {
    let has_caller = event.request_context.is_some()
        || event.http_method.is_some()
        || event.raw_path.is_some()
        || event.headers.is_some();
    if event.version.text().as_deref() != Some("2.0") {
        // Payload 1.0, a load balancer or a WebSocket still has an HTTP caller, who gets an answer.
        if has_caller {
            return Ok(Err(ApiError::bad("unsupported_event", "the API must use payload format 2.0")));
        }
        return Err("not an event of an API Gateway HTTP API with payload format 2.0".into());
    }
    let context = event.request_context.unwrap_or_default();
    let path = event.raw_path.unwrap_or_default().text().or_else(|| context.http.path.text());
    let (Some(method), Some(path)) = (context.http.method.text(), path) else {
        return Ok(Err(ApiError::bad("unsupported_event", "the event has no method, or no path")));
    };
    let body = match (event.body, event.is_base64_encoded.is_true()) {
        (Scalar::Nothing, _) => Some(Bytes::new()),
        (Scalar::Text(body), false) => Some(Bytes::from(body)),
        (Scalar::Text(body), true) => STANDARD.decode(body).map(Bytes::from).ok(),
        (Scalar::Truth(_) | Scalar::Other, _) => None,
    };
    let Some(body) = body else {
        return Ok(Err(ApiError::bad("invalid_body", "the body is no text, or not valid base64")));
    };
    let stage = context.stage.text();
    let (base, path) = split(&path, base, stage.as_deref());
    let (base, path) = (base.to_owned(), path.to_owned());
    let (query, headers) = (event.query_string_parameters.0, event.headers.unwrap_or_default());
    let raw_query = event.raw_query_string.text().unwrap_or_default();
    Ok(Ok(Request { method, path, base, query, raw_query, headers, body }))
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

/// Encodes a response.
pub(crate) fn encode(response: Response) -> Answer {
    let mut headers: HashMap<&str, String> = response.headers.into_iter().collect();
    headers.entry("content-type").or_insert_with(|| "application/json".into());
    headers.entry("cache-control").or_insert_with(|| "no-store".into());
    headers.entry("x-content-type-options").or_insert_with(|| "nosniff".into());
    Answer {
        status_code: response.status,
        headers,
        body: response.body,
        is_base64_encoded: false,
        cookies: [],
    }
}

/// What is taken of a member, whatever stands in its place: what it is not read from leaves it as good as nothing.
trait Take<'de>: Default {
    fn text(_: &str) -> Self {
        Self::other()
    }
    fn truth(_: bool) -> Self {
        Self::other()
    }
    fn other() -> Self {
        Self::default()
    }
    fn list<A: SeqAccess<'de>>(items: A) -> Result<Self, A::Error> {
        IgnoredAny.visit_seq(items).map(|_| Self::other())
    }
    fn object<A: MapAccess<'de>>(members: A) -> Result<Self, A::Error> {
        IgnoredAny.visit_map(members).map(|_| Self::other())
    }
}

struct Taking<T>(PhantomData<T>);

impl<'de, T: Take<'de>> Visitor<'de> for Taking<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("anything")
    }

    fn visit_str<E>(self, text: &str) -> Result<T, E> {
        Ok(T::text(text))
    }

    fn visit_bool<E>(self, truth: bool) -> Result<T, E> {
        Ok(T::truth(truth))
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<T, E> {
        Ok(T::other())
    }

    fn visit_u64<E>(self, _: u64) -> Result<T, E> {
        Ok(T::other())
    }

    fn visit_f64<E>(self, _: f64) -> Result<T, E> {
        Ok(T::other())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<T, A::Error> {
        T::list(items)
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
        T::object(members)
    }
}

macro_rules! taken {
    ($($name:ty),+) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Taking(PhantomData))
            }
        }
    )+};
}

taken!(Scalar, RequestContext, Http, Headers, Parameters, Values);

/// A text or a truth value.
#[derive(Default)]
enum Scalar {
    Text(String),
    Truth(bool),
    #[default]
    Nothing,
    Other,
}

impl Scalar {
    fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Truth(_) | Self::Nothing | Self::Other => None,
        }
    }

    fn is_true(&self) -> bool {
        matches!(self, Self::Truth(true))
    }
}

impl Take<'_> for Scalar {
    fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
    fn truth(truth: bool) -> Self {
        Self::Truth(truth)
    }
    fn other() -> Self {
        Self::Other
    }
}

impl<'de> Take<'de> for RequestContext {
    fn object<A: MapAccess<'de>>(mut members: A) -> Result<Self, A::Error> {
        let mut context = Self::default();
        while let Some(name) = members.next_key::<String>()? {
            match name.as_str() {
                "http" => context.http = members.next_value()?,
                "stage" => context.stage = members.next_value()?,
                _ => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(context)
    }
}

impl<'de> Take<'de> for Http {
    fn object<A: MapAccess<'de>>(mut members: A) -> Result<Self, A::Error> {
        let mut http = Self::default();
        while let Some(name) = members.next_key::<String>()? {
            match name.as_str() {
                "method" => http.method = members.next_value()?,
                "path" => http.path = members.next_value()?,
                _ => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(http)
    }
}

/// The headers that are read, by their names in lower case; `None` is a value that no header can have (RFC 9110 §5.5).
#[derive(Debug, Default, PartialEq, Eq)]
struct Headers(Vec<(&'static str, Option<String>)>);

impl Headers {
    fn all(&self, name: &'static str) -> impl Iterator<Item = Option<&str>> {
        debug_assert!(READ.contains(&name), "{name} is kept of no event");
        self.0.iter().filter(move |(its, _)| *its == name).map(|(_, value)| value.as_deref())
    }
}

impl<'de> Take<'de> for Headers {
    fn object<A: MapAccess<'de>>(mut members: A) -> Result<Self, A::Error> {
        let mut headers = Self::default();
        while let Some(name) = members.next_key::<String>()? {
            let Some(known) = READ.into_iter().find(|known| name.eq_ignore_ascii_case(known)) else {
                members.next_value::<IgnoredAny>()?;
                continue;
            };
            let Values(values) = members.next_value()?;
            // A second one is an error, and so is a hundredth.
            let room = 2_usize.saturating_sub(headers.all(known).count());
            headers.0.extend(values.into_iter().take(room).map(|value| (known, value)));
        }
        Ok(headers)
    }
}

/// The values of a header: a list is that many, and null is none.
#[derive(Default)]
struct Values(Vec<Option<String>>);

impl<'de> Take<'de> for Values {
    fn text(text: &str) -> Self {
        let visible = text.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
        Self(vec![visible.then(|| text[..text.floor_char_boundary(LONGEST_HEADER + 1)].to_owned())])
    }
    fn other() -> Self {
        Self(vec![None])
    }
    fn list<A: SeqAccess<'de>>(mut items: A) -> Result<Self, A::Error> {
        let mut values = Vec::new();
        while let Some(item) = items.next_element::<Scalar>()? {
            if values.len() < 2 {
                values.extend(item.text().map_or(Self::other(), |text| Self::text(&text)).0);
            }
        }
        Ok(Self(values))
    }
}

/// The parameters of the query, as they came: a comma is no gap between two of the same name.
#[derive(Default)]
struct Parameters(HashMap<String, String>);

impl<'de> Take<'de> for Parameters {
    fn object<A: MapAccess<'de>>(mut members: A) -> Result<Self, A::Error> {
        let mut parameters = HashMap::new();
        while let Some((name, value)) = members.next_entry::<String, Scalar>()? {
            if let Scalar::Text(value) = value
                && (parameters.len() < MOST_PARAMETERS || parameters.contains_key(&name))
            {
                parameters.insert(name, value);
            }
        }
        Ok(Self(parameters))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use serde_json::{Map, Value, json};

    use super::{Event, MOST_PARAMETERS, split};

    /// As it comes from Lambda.
    fn decode(event: Value, base: &str) -> Result<Result<super::Request, super::ApiError>, super::Error> {
        super::decode(serde_json::from_str::<Event>(&event.to_string())?, base)
    }

    fn members(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
        object.as_object().into_iter().flat_map(Map::iter)
    }

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
            "Authorization": "Bearer \u{7}secret", "prefer": ["a", "b"], "Prefer": "c", "idempotency-key": null,
            "content-type": 7, "if-none-match": " text\t", "bad name": "x",
        });
        let request = decode(event, "").unwrap().unwrap();
        let error = format!("{:?}", request.header("authorization").unwrap_err());
        assert!(error.contains("invalid_header") && !error.contains("secret"), "{error}");
        assert_eq!(request.header("if-none-match").unwrap(), Some("text"));
        assert!(format!("{:?}", request.header("prefer").unwrap_err()).contains("duplicate_header"));
        assert_eq!(request.list("prefer").split(',').count(), 2);
        assert_eq!(request.header("idempotency-key").unwrap(), None);
        assert!(request.header("content-type").is_err());
    }

    #[test]
    fn members_that_are_not_read_take_no_room() {
        let many: Value = (0..10_000).map(|n| (format!("x-{n}"), json!("v"))).collect();
        let mut headers = many.clone();
        headers["Content-Type"] = json!("application/json");
        headers["prefer"] = json!("x".repeat(100_000));
        let request = decode(
            json!({
                "version": "2.0", "rawPath": "/api/jobs", "queryStringParameters": many, "headers": headers,
                "requestContext": { "http": { "method": "POST" } },
            }),
            "",
        );
        let request = request.unwrap().unwrap();
        assert_eq!(request.query.len(), MOST_PARAMETERS);
        assert_eq!((request.headers.0.len(), request.list("prefer").len()), (2, 10_241));
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
