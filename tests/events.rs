//! Every sample in `events/` is what its function accepts, and gets the answer that `events/README.md` promises.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    path::PathBuf,
};

use serde_json::{Value, json};

use crate::support::{Bench, claims, routes_of, sign, sqs::Sqs};

const ANSWERS: [(&str, u64); 30] = [
    ("api-call-back", 404),
    ("api-cancel-job", 404),
    ("api-create-batch", 202),
    ("api-create-job", 202),
    ("api-create-job-base64", 202),
    ("api-create-job-for-account", 202),
    ("api-create-job-refused", 400),
    ("api-delete-webhook", 204),
    ("api-erase-account", 404),
    ("api-export-account", 404),
    ("api-get-credits", 200),
    ("api-get-erasure", 404),
    ("api-get-job", 404),
    ("api-get-webhook", 200),
    ("api-grant-credits", 201),
    ("api-health", 200),
    ("api-list-runs", 404),
    ("api-list-deliveries", 404),
    ("api-list-events", 404),
    ("api-list-jobs", 200),
    ("api-list-kinds", 200),
    ("api-list-ledger", 200),
    ("api-get-statement", 200),
    ("api-no-token", 401),
    ("api-openapi", 200),
    ("api-retry-jobs", 200),
    ("api-retry-job", 404),
    ("api-rotate-secret", 200),
    ("api-set-webhook", 200),
    ("api-validate-jobs", 200),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_gets_its_answer() {
    let bench = Bench::new().await;
    let token = sign(&claims(bench.account(10).await));
    let service = bench.service_token("backend", &["enqueue", "grant", "operate"]).await;
    bench.sql("SELECT punchcard.grant_credits('7a1f6a52-8f0e-4a55-9f0b-2f4a3a3d9c11', 1, 'first')").await;
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../events");
    let sample = |name: &str| -> Value {
        let text = fs::read_to_string(folder.join(format!("{name}.json"))).expect(name);
        let text = text.replace("__TOKEN__", &token).replace("__SERVICE_TOKEN__", &service);
        serde_json::from_str(&text).expect(name)
    };
    for (name, status) in ANSWERS {
        let answer = bench.request(sample(name)).await;
        assert_eq!(answer.status, status, "{name}: {}", answer.body);
    }
    for again in ["api-create-batch", "api-create-job", "api-grant-credits"] {
        assert_eq!(bench.request(sample(again)).await.status, 200, "{again}, a second time");
    }
    let given_back =
        json!({ "batchItemFailures": [{ "itemIdentifier": "c80e8021-a70a-42c7-a470-796e1186f753" }] });
    assert_eq!(Sqs::worker(&bench, &[]).invoke(&sample("sqs-worker-batch")).await.unwrap(), given_back);
    bench.enqueue(uuid::Uuid::parse_str("7a1f6a52-8f0e-4a55-9f0b-2f4a3a3d9c11").unwrap(), "qr.svg", 1).await;
    assert_eq!(bench.poller().invoke(&sample("poller-tick")).await.unwrap()["succeeded"], 1);

    let more = ["poller-tick", "sqs-worker-batch"];
    let tested: BTreeSet<_> = ANSWERS.iter().map(|(name, _)| *name).chain(more).collect();
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    for file in files.filter(|path| path.extension().is_some_and(|extension| extension == "json")) {
        let name = file.file_stem().unwrap().to_str().unwrap();
        assert!(tested.contains(name), "say what {name} is answered");
    }
    let samples: Vec<Value> = ANSWERS.iter().map(|(name, _)| sample(name)).collect();
    assert_eq!(
        routes_of(&samples),
        HashSet::from_iter(api::ROUTES.iter().copied()),
        "each route has a sample"
    );
}

/// What `events/README.md` says to type: each file is there, and what is put into it is all that it lacks.
#[test]
fn the_commands_of_the_readme_send_samples_that_are_there_and_whole() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../events");
    let readme = fs::read_to_string(folder.join("README.md")).unwrap();
    let commands = readme.split("```sh").nth(1).unwrap().split("```").next().unwrap();
    let sent = commands.lines().filter_map(|line| Some((line, line.split("events/").nth(1)?)));
    let mut functions = BTreeSet::new();
    for (line, rest) in sent {
        let file = rest.split_once(".json").unwrap().0;
        let mut text = fs::read_to_string(folder.join(format!("{file}.json"))).expect(line);
        if let Some(replaced) = line.strip_prefix("sed \"s/") {
            let placeholder = replaced.split('/').next().unwrap();
            assert!(text.contains(placeholder), "{line}");
            text = text.replace(placeholder, "");
        }
        assert!(!text.contains("__"), "{line}");
        let function =
            line.split("$API/2015-03-31/functions/").nth(1).unwrap().split_once("/invocations").unwrap().0;
        assert!(file.starts_with(function), "{line}");
        functions.insert(function.to_owned());
    }
    assert_eq!(functions.len(), 2, "{functions:?}");
}
