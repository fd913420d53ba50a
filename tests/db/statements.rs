//! Every statement compiles against the migrated schema, says what it is, and is few.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use local::lambda::Function;
use serde_json::json;
use shared::db::STATEMENTS;

use crate::support::{Bench, bearer, binary, environment, event, wire::Wire};

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_prepares_and_has_its_header() {
    let bench = Bench::new().await;
    for (name, sql) in STATEMENTS {
        let verb = name.rsplit('/').next().unwrap();
        assert!(sql.starts_with(&format!("-- {verb}: ")), "{name} must begin with `-- {verb}: `");
        bench.sql(&format!("PREPARE statement AS {sql}; DEALLOCATE statement")).await;
    }
}

#[test]
fn the_list_has_every_statement_that_there_is() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/src/db");
    let mut files = BTreeSet::new();
    for group in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir())
    {
        for file in fs::read_dir(&group).unwrap().map(|entry| entry.unwrap().path()) {
            let name = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
            files.insert(format!("{}/{}", name(&group), name(&file)));
        }
    }
    let listed: BTreeSet<String> = STATEMENTS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(listed, files);
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_are_few_and_never_named() {
    let bench = Bench::new().await;
    let account = bench.account(1_000).await;
    let wire = Wire::to(&bench.url).await;
    let api = Function::new(binary("api"), environment(&wire.url));
    let (token, body) = (bearer(account), r#"{"kind":"qr.svg","input":{"text":"t"}}"#);
    let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
    let post = event("POST", "/api/jobs", &headers, Some(body));
    assert_eq!(api.invoke(&post).await.unwrap()["statusCode"], 202);
    assert_eq!(wire.executed(), 1, "an enqueue is one statement, also the first");

    let poller = Function::new(binary("poller"), environment(&wire.url)).timeout(Duration::from_secs(60));
    assert_eq!(poller.invoke(&json!({})).await.unwrap()["succeeded"], 1);
    wire.executed();
    wire.rows();
    poller.invoke(&json!({})).await.unwrap();
    assert_eq!((wire.executed(), wire.rows()), (2, 0), "an empty tick is two statements that answer nothing");

    let waits = "INSERT INTO punchcard.outbox (id, account_id, job_id, event, next_at)
                 VALUES (gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'job.failed', now() + interval '1 hour')";
    bench.sql(waits).await;
    poller.invoke(&json!({})).await.unwrap();
    assert_eq!((wire.executed(), wire.rows()), (2, 0), "so it is while a message waits to be sent again");

    bench.enqueue(account, "qr.svg", 100).await;
    assert_eq!(poller.invoke(&json!({})).await.unwrap()["succeeded"], 100);
    let full = wire.executed();
    assert!((4..=10).contains(&full), "a tick over 100 jobs is at most ten statements, not {full}");
    assert_eq!(wire.named(), 0, "no statement has a name");
}
