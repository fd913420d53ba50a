//! The OpenAPI document: it is what the code says, describes each route, and leaves out no problem.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::support::{Bench, documented::DOCUMENT, event};

/// Refusals of statements that no route calls, and of what a route has vetted before.
const NOT_OF_THE_API: [(u16, &str); 17] = [
    // of nobody: what `validate_batch` undoes its purchase by
    (200, "validated"),
    // of a worker
    (422, "unknown_verdict"),
    (422, "unknown_task"),
    // of the operator's command
    (422, "invalid_shares"),
    (422, "unknown_account"),
    (409, "already_adjusted"),
    (409, "nothing_captured"),
    (409, "already_refunded"),
    (422, "invalid_credit_source"),
    (422, "no_realtime"),
    // vetted before
    (422, "idempotency_key_required"),
    (422, "invalid_idempotency_key"),
    (422, "input_too_large"),
    (422, "invalid_options"),
    (422, "invalid_request"),
    // of events that API Gateway would not send
    (400, "unsupported_event"),
    (400, "invalid_body"),
];

#[tokio::test(flavor = "multi_thread")]
async fn it_is_served_to_anybody_and_may_be_kept() {
    let bench = Bench::new().await;
    let answer = bench.request(event("GET", "/api/openapi.json", &[], None)).await;
    assert_eq!((answer.status, &answer.body), (200, &*DOCUMENT));
    assert_eq!(answer.headers["cache-control"], "public, max-age=300");
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(bench.request(event("POST", "/api/openapi.json", &[], None)).await.status, 405);
}

#[test]
fn it_is_what_the_code_says() {
    let kept = include_str!("../../functions/api/openapi.json");
    assert!(kept == api::openapi::document(), "functions/api/openapi.json is old: run `cargo xtask openapi`");
    assert!(DOCUMENT["openapi"].as_str().unwrap().starts_with("3.1."));
}

#[test]
fn whoever_calls_back_need_say_no_more_than_how_it_went() {
    let schemas = &DOCUMENT["components"]["schemas"];
    assert_eq!(schemas["CalledBack"]["required"], json!(["status"]));
    assert!(schemas["CallBackProgress"]["required"].is_null());
}

#[test]
fn it_describes_each_route_and_nothing_else() {
    let mut described = HashSet::new();
    for (path, operations) in DOCUMENT["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            described.insert((method.to_uppercase(), path.clone()));
            assert!(
                operation["summary"].is_string() && operation["operationId"].is_string(),
                "{method} {path}"
            );
        }
    }
    let routes: HashSet<_> =
        api::ROUTES.iter().map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
    assert_eq!(described, routes);
    assert_eq!(DOCUMENT["paths"]["/api/health"]["get"]["security"], json!([{}]));
}

#[test]
fn the_client_of_the_example_knows_every_operation_and_schema() {
    let client = include_str!("../../docs/examples/typescript/schema.d.ts");
    let again = "run `npm run generate` in docs/examples/typescript";
    for (path, operations) in DOCUMENT["paths"].as_object().unwrap() {
        let paths = client.split("export interface paths {").nth(1).unwrap();
        assert!(paths.contains(&format!("\n    \"{path}\": {{")), "{path}: {again}");
        for operation in operations.as_object().unwrap().values() {
            let id = operation["operationId"].as_str().unwrap();
            let known =
                client.split(&format!("\n    {id}: {{")).nth(1).unwrap_or_else(|| panic!("{id}: {again}"));
            let known = known.split("\n    };").next().unwrap();
            for status in operation["responses"].as_object().unwrap().keys() {
                assert!(known.contains(&format!("            {status}: ")), "{id} {status}: {again}");
            }
        }
    }
    for (name, schema) in DOCUMENT["components"]["schemas"].as_object().unwrap() {
        let known =
            client.split(&format!("\n        {name}: ")).nth(1).unwrap_or_else(|| panic!("{name}: {again}"));
        let known = known.split("\n        };").next().unwrap();
        for property in schema["properties"].as_object().into_iter().flatten().map(|(property, _)| property) {
            let there =
                [format!(" {property}: "), format!(" {property}?: ")].iter().any(|it| known.contains(it));
            assert!(there, "{name}.{property}: {again}");
        }
    }
}

#[test]
fn it_leaves_out_no_problem_and_makes_none_up() {
    let mut said = BTreeSet::new();
    for source in files("functions/api/src", "rs") {
        if !source.contains("macro_rules! problems") {
            said.extend(said_in_rust(&source));
        }
    }
    for function in files("infra/functions", "sql") {
        said.extend(said_in_sql(&function));
    }
    let listed: BTreeSet<(u16, String)> = api::openapi::PROBLEMS
        .iter()
        .flat_map(|set| *set)
        .flat_map(|codes| *codes)
        .map(|(status, code)| (*status, (*code).to_owned()))
        .collect();
    for (status, code) in &said {
        let known = listed.contains(&(*status, code.clone())) || NOT_OF_THE_API.contains(&(*status, code));
        assert!(known, "{status} {code} is not in functions/api/src/openapi/problems.rs");
    }
    for problem in &listed {
        assert!(said.contains(problem), "{problem:?} is listed, and nobody says it");
    }
    let somewhere = DOCUMENT["paths"].to_string();
    for (status, code) in &listed {
        assert!(somewhere.contains(&format!("\"{code}\"")), "{status} {code} is of no operation");
    }
}

#[test]
fn the_page_of_errors_has_each_code_and_no_other() {
    let page = include_str!("../../docs/ERRORS.md");
    let listed: BTreeSet<&str> = api::openapi::PROBLEMS
        .iter()
        .flat_map(|set| *set)
        .flat_map(|codes| *codes)
        .map(|(_, code)| *code)
        .collect();
    let first = |row: &&str| row.starts_with("| `");
    let rows = page.lines().filter(first).map(|row| row.split('|').nth(1).unwrap());
    let named: BTreeSet<&str> = rows.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    // Of a method that a path does not have there is no operation.
    let of_none = BTreeSet::from(["method_not_allowed"]);
    assert_eq!(named.symmetric_difference(&listed).copied().collect::<BTreeSet<_>>(), of_none);
}

/// The texts of the files below a folder.
fn files(folder: &str, extension: &str) -> Vec<String> {
    fn walk(folder: &Path, extension: &str, texts: &mut Vec<String>) {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                walk(&path, extension, texts);
            } else if path.extension().is_some_and(|it| it == extension) {
                texts.push(fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut texts = Vec::new();
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    walk(&root.join(folder), extension, &mut texts);
    assert!(!texts.is_empty(), "{folder}");
    texts
}

/// The first string literal of a text.
fn literal(text: &str) -> Option<&str> {
    text.split('"').nth(1)
}

fn said_in_rust(source: &str) -> Vec<(u16, String)> {
    let mut said = Vec::new();
    for (call, status) in [("ApiError::bad(", 400), ("ApiError::invalid(", 422)] {
        let codes = source.split(call).skip(1).filter(|rest| rest.trim_start().starts_with('"'));
        said.extend(codes.filter_map(literal).map(|code| (status, code.to_owned())));
    }
    // `timestamp("run_at", …)` refuses as `invalid_run_at`; a body's fields as the last part of `let code = …` says.
    let times = source.split("timestamp(\"").skip(1).filter_map(|rest| rest.split('"').next());
    said.extend(times.map(|field| (400, format!("invalid_{field}"))));
    let times = source.split("query_time(request, \"").skip(1).filter_map(|rest| rest.split('"').next());
    said.extend(times.map(|field| (400, format!("invalid_{field}"))));
    for fields in source.split("let code = if").skip(1) {
        let words = fields.split(';').next().unwrap_or_default().split('"').skip(1).step_by(2);
        said.extend(words.filter(|word| word.contains('_')).map(|word| (400, word.to_owned())));
    }
    for made in source.split("Self::new(").skip(1) {
        let (status, rest) = made.split_once(',').unwrap_or_default();
        if let (Ok(status), true) = (status.parse(), rest.trim_start().starts_with('"')) {
            said.extend(literal(rest).map(|code| (status, code.to_owned())));
        }
    }
    // Of no operation.
    said.retain(|(status, _)| *status != 405);
    said
}

fn said_in_sql(migration: &str) -> Vec<(u16, String)> {
    let mut said = Vec::new();
    for raised in migration.split("RAISE EXCEPTION '").skip(1) {
        let raised = raised.split(';').next().unwrap_or_default();
        let Some((code, rest)) = raised.split_once('\'') else { continue };
        let status = rest.split("'PT").nth(1).and_then(|status| status.get(..3)?.parse().ok());
        let Some(status) = status else { continue };
        if code == "%" {
            let words = migration.split("refused := '").skip(1).filter_map(|rest| rest.split('\'').next());
            said.extend(words.map(|word| (status, word.to_owned())));
        } else {
            said.push((status, code.to_owned()));
        }
    }
    said
}
