//! The OpenAPI 3.1 document of this API, generated from its types and from what its endpoints say of themselves. Only with
//! the feature `openapi`: a deployed function has the finished document, and nothing of this.

pub(crate) mod params;
pub(crate) mod problems;
mod webhooks;

use serde_json::{Value, json};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        ArrayBuilder, ObjectBuilder, RefOr, Schema,
        schema::{SchemaType, Type},
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
};

pub use problems::PROBLEMS;

use crate::router::Operations;
use problems::Problem;

/// What is said of the API as a whole; its operations come from the router.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Punchcard",
        description = "A credit-metered job queue: a job's price is held when it is queued, captured when it succeeds, and \
                       released when it fails or is canceled. Whole numbers are written without fraction or exponent.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    servers((url = "/")),
    tags(
        (name = "jobs", description = "Buying jobs, showing them, and what else is done to them."),
        (name = "credits", description = "What an account has, and every movement of it."),
        (name = "accounts", description = "An account as a whole: erased, or written out."),
        (name = "webhooks", description = "Who is told of jobs, and what became of each message."),
        (name = "operation", description = "For those who run Punchcard."),
    ),
    components(schemas(Problem, crate::error::Flaw)),
    security(("bearer" = [])),
    modifiers(&Bearer),
)]
struct Api;

/// Who may call.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let mut bearer = Http::new(HttpAuthScheme::Bearer);
        bearer.description = Some(
            "The JWT of a signed-in user, who acts on their own account; or the token of one of the team's services, with the \
             scopes `enqueue`, `grant` or `operate`."
                .into(),
        );
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    }
}

/// What is sent and may have members that are not known: a provider's own.
const SENT: &[&str] = &["CalledBack", "CallBackError", "CallBackProgress"];
/// What an answer may leave out; all else in it is always there, perhaps as `null`.
const LEFT_OUT: &[(&str, &str)] = &[
    ("Health", "upkeep_waits"),
    ("Flaw", "pointer"),
    ("Flaw", "parameter"),
    ("Flaw", "header"),
    ("Flaw", "allowed"),
    ("Entry", "share"),
    ("JobError", "attempt"),
    ("Job", "input"),
    ("Job", "output"),
];

/// The document, as it is kept and served.
#[must_use]
pub fn document() -> String {
    let mut document = Api::openapi();
    document.merge(Operations::openapi());
    let mut document = serde_json::to_value(document).expect("a document is JSON");
    let schemas = document["components"]["schemas"].as_object_mut().into_iter().flatten();
    for (name, schema) in schemas {
        // What is sent may leave out what it will; it refuses what it does not know.
        if schema["additionalProperties"] != json!(false)
            && name != "Problem"
            && !SENT.contains(&name.as_str())
        {
            require_all(name, schema);
        }
        if let Some(entry) = name.strip_prefix("Page_") {
            schema["properties"]["data"]["items"] =
                json!({ "$ref": format!("#/components/schemas/{entry}") });
        }
    }
    webhooks::add(&mut document);
    name_requests(&mut document);
    share_problems(&mut document);
    let mut text = String::new();
    write(&document, 0, &mut text);
    text.push('\n');
    text
}

fn responses(document: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    let operations = paths.flat_map(|(_, path)| path.as_object_mut().into_iter().flatten());
    operations.flat_map(|(_, operation)| operation["responses"].as_object_mut().into_iter().flatten())
}

/// Every answer says what the logs know its request by.
fn name_requests(document: &mut Value) {
    for (_, response) in responses(document) {
        response["headers"]["request-id"] = json!({ "$ref": "#/components/headers/RequestId" });
    }
    document["components"]["headers"]["RequestId"] = json!({
        "description": "What the access log and the function's log know this request by; in a problem, its `request_id`.",
        "schema": { "type": "string" },
    });
}

/// The problems of a status are one response of all operations, whose `code` is open: which codes an operation answers, its
/// own description of that response says, and its `x-problems`.
fn share_problems(document: &mut Value) {
    let mut shared = serde_json::Map::new();
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (_, operation) in paths.flat_map(|(_, path)| path.as_object_mut().into_iter().flatten()) {
        let mut problems = serde_json::Map::new();
        for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
            let Some(content) = response.pointer_mut("/content/application~1problem+json") else { continue };
            problems.insert(status.clone(), content["schema"]["x-codes"].take());
            *content = json!({ "schema": { "$ref": "#/components/schemas/Problem" } });
            let (name, said) = (reason(status), response["description"].take());
            response["description"] = json!(in_words(status));
            shared.insert(name.to_owned(), response.clone());
            *response = json!({ "$ref": format!("#/components/responses/{name}"), "description": said });
        }
        operation["x-problems"] = problems.into();
    }
    document["components"]["responses"] = shared.into();
}

/// A status in words (RFC 9110 §15), as a name.
fn reason(status: &str) -> &'static str {
    match status {
        "400" => "BadRequest",
        "401" => "Unauthorized",
        "402" => "PaymentRequired",
        "403" => "Forbidden",
        "404" => "NotFound",
        "409" => "Conflict",
        "410" => "Gone",
        "413" => "ContentTooLarge",
        "415" => "UnsupportedMediaType",
        "422" => "UnprocessableContent",
        "429" => "TooManyRequests",
        "500" => "InternalServerError",
        "503" => "ServiceUnavailable",
        _ => "Problem",
    }
}

/// The same, for a person.
fn in_words(status: &str) -> String {
    let words = reason(status).chars().flat_map(|letter| {
        let space = letter.is_ascii_uppercase().then_some(' ');
        space.into_iter().chain([letter.to_ascii_lowercase()])
    });
    format!("{status}:{}.", words.collect::<String>())
}

/// A line for each operation and each schema: short enough to be served, and a change can be read.
fn write(value: &Value, depth: usize, text: &mut String) {
    let Some(members) = value.as_object().filter(|_| depth < 3) else {
        return text.push_str(&value.to_string());
    };
    text.push('{');
    for (number, (name, member)) in members.iter().enumerate() {
        text.push_str(if number == 0 { "\n" } else { ",\n" });
        text.push_str(&format!("{}{}: ", " ".repeat(depth + 1), json!(name)));
        write(member, depth + 1, text);
    }
    text.push_str(&format!("\n{}}}", " ".repeat(depth)));
}

fn require_all(name: &str, schema: &mut Value) {
    let Some(properties) = schema["properties"].as_object() else { return };
    let there = |property: &&String| !LEFT_OUT.contains(&(name, property.as_str()));
    let required: Vec<&String> = properties.keys().filter(there).collect();
    schema["required"] = json!(required);
}

/// The metadata of a job to buy.
pub(crate) fn metadata() -> RefOr<Schema> {
    let name = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[A-Za-z0-9_.-]{1,64}$"));
    let value = ObjectBuilder::new().schema_type(Type::String).max_length(Some(512));
    let object = ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
        .property_names(Some(name))
        .additional_properties(Some(Schema::from(value)))
        .max_properties(Some(16))
        .description(Some("The caller's own, to find the job by."));
    Schema::from(object).into()
}

/// The tags of a job to buy.
pub(crate) fn tags() -> RefOr<Schema> {
    let tag = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[A-Za-z0-9_.:/@+-]{1,64}$"));
    let array = ArrayBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Array, Type::Null]))
        .items(tag)
        .max_items(Some(10))
        .description(Some("The caller's own, to find the job by."));
    Schema::from(array).into()
}

/// Of what somebody is told.
pub(crate) fn webhook_events() -> RefOr<Schema> {
    let words = ["job.running", "job.succeeded", "job.failed", "job.canceled"];
    let event = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words));
    let array = ArrayBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Array, Type::Null]))
        .items(event)
        .min_items(Some(1))
        .description(Some("Of what; of every end of a job if it is left out."));
    Schema::from(array).into()
}
