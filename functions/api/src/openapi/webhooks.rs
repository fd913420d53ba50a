//! What is sent to others: messages to webhooks, and jobs to the HTTP targets of kinds. The worker's types decide
//! (`message.rs`, `http_target.rs`); tests hold the schemas here equal to what was really sent.

use serde_json::{Value, json};

/// The events that a webhook is told of, and when.
const EVENTS: [(&str, &str); 4] = [
    ("job.running", "A run of a job has begun: of a job that is tried again, each."),
    ("job.succeeded", "A job has succeeded, and what it costs is captured."),
    ("job.failed", "A job has failed, and its price is released, or what its kind's terms keep is captured."),
    ("job.canceled", "A job was canceled."),
];

/// Adds what is sent, and its schemas.
pub(super) fn add(document: &mut Value) {
    for (event, when) in EVENTS {
        let said = format!(
            "{when} Answer 2xx within 15 s: else it is sent again, for three days, with the same `webhook-id`. Their order is not \
             promised. 410 ends it."
        );
        let answers = json!({
            "2XX": { "description": "It was delivered." },
            "410": { "description": "Nothing more is wanted: the webhook is disabled." },
        });
        document["webhooks"][event] =
            post(&event.replace('.', "_"), event, &said, "WebhookMessage", &answers);
    }
    let said = "For a kind with a `url`: what its HTTP target receives for each run of a job. It is signed with the kind's secret, and \
                `webhook-id` is the job's id and the run.";
    let answers = json!({
        "200": { "description": "The job has succeeded, and this is its output.",
                 "content": { "application/json": { "schema": {} } } },
        "202": { "description": "It is at work, and calls `callback_url`." },
        "4XX": { "description": "The job fails for good; 400 and 422 blame its input; 408, 425 and 429 are tried again." },
        "5XX": { "description": "The job is tried again, while attempts are left." },
    });
    document["webhooks"]["run"] = post("run", "Run a job.", said, "TargetRequest", &answers);
    let schemas = [("WebhookMessage", message()), ("WebhookJob", job()), ("TargetRequest", target_request())];
    for (name, schema) in schemas {
        document["components"]["schemas"][name] = schema;
    }
}

fn post(id: &str, summary: &str, description: &str, schema: &str, answers: &Value) -> Value {
    let header = |name: &str, description: &str| json!({ "name": name, "in": "header", "required": true, "description": description, "schema": { "type": "string" } });
    json!({ "post": {
        "operationId": format!("on_{id}"), "summary": summary, "description": description, "tags": ["webhooks"], "security": [{}],
        "parameters": [
            header("webhook-id", "The same each time that this is sent (Standard Webhooks)."),
            header("webhook-timestamp", "When it was sent, in seconds since 1970."),
            header("webhook-signature", "`v1,` and the signature; two of them, while a secret is rotated."),
        ],
        "requestBody": { "required": true, "content": { "application/json": {
            "schema": { "$ref": format!("#/components/schemas/{schema}") } } } },
        "responses": answers,
    } })
}

fn object(description: &str, properties: Value, left_out: &[&str]) -> Value {
    let names = properties.as_object().into_iter().flatten().map(|(name, _)| name.clone());
    let required: Vec<String> = names.filter(|name| !left_out.contains(&name.as_str())).collect();
    json!({ "type": "object", "description": description, "properties": properties, "required": required })
}

fn time(description: &str, nullable: bool) -> Value {
    let kind = if nullable { json!(["string", "null"]) } else { json!("string") };
    json!({ "type": kind, "format": "date-time", "description": description })
}

fn message() -> Value {
    let properties = json!({
        "type": { "type": "string", "description": "The event; there may be more of them one day." },
        "timestamp": time("When it happened.", false),
        "data": { "$ref": "#/components/schemas/WebhookJob" },
    });
    object("A message to a webhook, as Standard Webhooks has it.", properties, &[])
}

fn job() -> Value {
    let error = json!({ "oneOf": [{ "$ref": "#/components/schemas/JobError" }, { "type": "null" }] });
    let properties = json!({
        "id": { "type": "string", "format": "uuid", "description": "UUIDv7." },
        "kind": { "type": "string", "description": "The kind of the job." },
        "account_id": { "type": "string", "format": "uuid", "description": "The account that pays." },
        "status": { "$ref": "#/components/schemas/Status" },
        "attempt": { "type": "integer", "format": "int32", "description": "How many runs have counted as attempts so far." },
        "output": { "description": "The output; null while there is none, and where it is left out." },
        "output_omitted": { "type": "boolean", "description": "Whether the output has more than 10,000 bytes and is left out: get the job." },
        "error": error,
        "created_at": time("When it was queued.", false),
        "started_at": time("When it was first claimed.", true),
        "finished_at": time("When it became final.", true),
        "metadata": { "type": "object", "additionalProperties": { "type": "string" }, "description": "The caller's own." },
        "tags": { "type": "array", "items": { "type": "string" }, "description": "The caller's own." },
        "credits": { "$ref": "#/components/schemas/JobCredits" },
    });
    object("A job as it is when the message is sent, without its input.", properties, &[])
}

fn target_request() -> Value {
    let properties = json!({
        "id": { "type": "string", "format": "uuid", "description": "The job." },
        "kind": { "type": "string", "description": "The kind of the job." },
        "account_id": { "type": "string", "format": "uuid", "description": "The account that pays." },
        "attempt": { "type": "integer", "format": "int32", "description": "Which attempt this is." },
        "max_attempts": { "type": "integer", "format": "int32", "description": "How many there may be." },
        "credits": { "type": "integer", "format": "int64", "description": "What is held: the most that a metered job may use." },
        "input": { "description": "The input, as it was sent." },
        "callback_url": { "type": "string", "format": "uri", "description": "Where a target that answers 202 calls back; left out where nobody can." },
    });
    object("A job, as its kind's HTTP target receives it.", properties, &["callback_url"])
}
