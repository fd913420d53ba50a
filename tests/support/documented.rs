//! Holds every answer that a test gets to the API's OpenAPI document: its status, its problem's code, its headers.

use std::{collections::BTreeSet, sync::LazyLock};

use serde_json::Value;

/// The document as it is served.
pub static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../functions/api/openapi.json")).expect("the document is JSON")
});

/// Headers of every answer.
const EVERYWHERE: [&str; 3] = ["content-type", "cache-control", "x-content-type-options"];
/// Headers that not every answer of an operation has that may have them.
const SOMETIMES: [(&str, &str); 4] = [
    ("POST /api/jobs", "idempotent-replayed"),
    ("POST /api/jobs", "preference-applied"),
    ("POST /api/jobs", "retry-after"),
    ("GET /api/jobs/{id}", "retry-after"),
];
/// What no HTTP caller can bring about, but only an event that API Gateway would not send.
const NOT_BY_HTTP: [&str; 2] = ["unsupported_event", "invalid_body"];

/// Fails if the answer to an event is not in the document; events that no route answers are not looked at.
pub fn assert_documented(event: &Value, answer: &Value) {
    let method = event["requestContext"]["http"]["method"].as_str().unwrap_or_default();
    let path = event["rawPath"].as_str().unwrap_or_default();
    let Some(route) = api::route_of(method, path) else { return };
    let operation = format!("{method} {route}");
    let body = answer["body"].as_str().unwrap_or_default();
    let code = serde_json::from_str::<Value>(body).ok().filter(|_| is_problem(answer));
    let code = code.as_ref().and_then(|problem| problem["code"].as_str());
    if code.is_some_and(|code| NOT_BY_HTTP.contains(&code)) {
        return;
    }
    let response = followed(
        &DOCUMENT["paths"][route][method.to_lowercase()]["responses"][answer["statusCode"].to_string()],
    );
    assert!(
        response.is_object(),
        "{operation} answers {} {code:?}: not in openapi.json",
        answer["statusCode"]
    );
    if let Some(code) = code {
        let known =
            &DOCUMENT["paths"][route][method.to_lowercase()]["x-problems"][answer["statusCode"].to_string()];
        let known = known.as_array().is_some_and(|known| known.iter().any(|known| known == code));
        assert!(known, "{operation} answers {} {code}: not in openapi.json", answer["statusCode"]);
    }
    for name in answer["headers"].as_object().expect("headers").keys() {
        let known = EVERYWHERE.contains(&name.as_str()) || response["headers"][name].is_object();
        assert!(known, "{operation}, {}: the header {name} is not in openapi.json", answer["statusCode"]);
    }
    for name in response["headers"].as_object().into_iter().flatten().map(|(name, _)| name) {
        let there = answer["headers"][name].is_string() || SOMETIMES.contains(&(&operation, name));
        assert!(there, "{operation}: {answer} has no header {name}");
    }
}

/// What stands there, or what it refers to.
fn followed(response: &Value) -> &Value {
    match response["$ref"].as_str() {
        Some(place) => DOCUMENT.pointer(place.trim_start_matches('#')).expect(place),
        None => response,
    }
}

fn is_problem(answer: &Value) -> bool {
    answer["headers"]["content-type"] == "application/problem+json"
}

/// Fails if what was sent has other members than its schema, some of which may be left out.
pub fn assert_schema(name: &str, sent: &Value, left_out: &[&str]) {
    let members = |value: &Value| -> BTreeSet<String> {
        value.as_object().unwrap_or_else(|| panic!("{name}: {value}")).keys().cloned().collect()
    };
    let mut described = members(&DOCUMENT["components"]["schemas"][name]["properties"]);
    for member in left_out.iter().filter(|member| sent.get(**member).is_none()) {
        described.remove(*member);
    }
    assert_eq!(members(sent), described, "{name}: {sent}");
}
