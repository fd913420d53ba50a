//! Every sample in `events/` is what its function accepts.

use std::{fs, path::PathBuf};

use serde_json::Value;

use crate::support::{Bench, claims, sign};

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_gets_its_answer() {
    let bench = Bench::new().await;
    let token = sign(&claims(bench.account(10).await));
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../events");
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap().replace("__TOKEN__", &token);
        let event: Value = serde_json::from_str(&text).unwrap();
        if name.starts_with("poller-") {
            assert!(bench.poller().invoke(&event).await.unwrap()["claimed"].is_u64(), "{name}");
        } else {
            let status = bench.request(event).await.status;
            let expected = match name.as_str() {
                "api-create-job" => 202,
                "api-get-job" => 404, // nobody has that job here
                "api-health" => 200,
                other => panic!("say what {other} is answered"),
            };
            assert_eq!(status, expected, "{name}");
        }
        names.push(name);
    }
    assert!(names.len() >= 4, "{names:?}");
}
