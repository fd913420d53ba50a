//! The OpenAPI 3.1 document of this API, generated from its types and from what its endpoints say of themselves. Only with
//! the feature `openapi`: a deployed function has the finished document, and nothing of this.

pub(crate) mod params;
pub(crate) mod problems;

use serde_json::{Value, json};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        ArrayBuilder, ObjectBuilder, RefOr, Required, Schema,
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
    components(schemas(Problem)),
    security(("user" = []), ("service" = [])),
    modifiers(&Bearers),
)]
struct Api;

/// Who may call: both send `Authorization: Bearer`.
struct Bearers;

impl Modify for Bearers {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let mut user = Http::new(HttpAuthScheme::Bearer);
        user.bearer_format = Some("JWT".into());
        user.description = Some("A signed-in user, who acts on their own account.".into());
        let mut service = Http::new(HttpAuthScheme::Bearer);
        service.description = Some(
            "One of the team's services, by a token with the scopes `enqueue`, `grant` or `operate`.".into(),
        );
        components.add_security_scheme("user", SecurityScheme::Http(user));
        components.add_security_scheme("service", SecurityScheme::Http(service));
    }
}

/// What is sent and may have members that are not known: a provider's own.
const SENT: &[&str] = &["CalledBack", "CallBackError", "CallBackProgress"];
/// What an answer may leave out; all else in it is always there, perhaps as `null`.
const LEFT_OUT: &[(&str, &str)] = &[("Health", "upkeep_waits"), ("Entry", "share"), ("JobError", "attempt")];

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
    let mut text = String::new();
    write(&document, 0, &mut text);
    text.push('\n');
    text
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

/// A query parameter for each pair of the metadata that a job must have.
fn metadata_wanted() -> utoipa::openapi::path::Parameter {
    use utoipa::openapi::path::{ParameterBuilder, ParameterIn, ParameterStyle};
    let name =
        ObjectBuilder::new().schema_type(Type::String).pattern(Some(r"^metadata\.[A-Za-z0-9_.-]{1,64}$"));
    let value = ObjectBuilder::new().schema_type(Type::String);
    let pairs = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property_names(Some(name))
        .additional_properties(Some(Schema::from(value)))
        .max_properties(Some(10));
    ParameterBuilder::new()
        .name("metadata")
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .style(Some(ParameterStyle::Form))
        .explode(Some(true))
        .description(Some("Only jobs with all of these: `metadata.order=7`, for each name of theirs."))
        .schema(Some(Schema::from(pairs)))
        .build()
}
