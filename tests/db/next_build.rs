//! A schema goes before the functions that need it: while both are deployed, this build runs on the next one's schema.

use serde_json::json;
use shared::db::migrate::apply;

use crate::support::{Bench, OWNER, as_role};

/// What a next release may do while this one still runs: columns with a default, and, since the signature of `claim` changes, a new
/// function beside it.
async fn expand(bench: &Bench) {
    let claim: String = bench.rows("SELECT pg_get_functiondef('punchcard.claim'::regproc)").await[0].get(0);
    let (head, rest) = claim.split_once("p_woken boolean DEFAULT false").expect("its last argument");
    let head = head.replace("punchcard.claim(", "punchcard.claim_2(");
    bench
        .sql(&format!(
            "ALTER TABLE punchcard.queue ADD COLUMN region text DEFAULT 'here';
             ALTER TABLE punchcard.jobs ADD COLUMN region text DEFAULT 'here';
             ALTER TABLE punchcard.outcomes ADD COLUMN region text;
             {head}p_woken boolean DEFAULT false, p_region text DEFAULT 'here'{rest};
             INSERT INTO punchcard.migrations (name) VALUES ('0005_regions');
             INSERT INTO punchcard.functions (name, sha256, version) VALUES ('claim_2', 'next', '999.0.0');
             UPDATE punchcard.functions SET sha256 = 'next' WHERE name = 'settle'"
        ))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn this_build_runs_on_the_next_ones_schema_and_does_not_undo_it() {
    let bench = Bench::new().await;
    expand(&bench).await;
    let account = bench.account(20).await;
    let job = json!({ "kind": "qr.svg", "input": { "text": "t" }, "tags": ["a"] });
    for key in ["a", "b", "b"] {
        let bought = bench.post(account, job.clone(), Some(key)).await;
        assert!(bought.status == 202 || bought.status == 200, "{}", bought.body);
    }
    bench.poller().invoke(&json!({})).await.expect("a tick");
    let listed = bench.get(account, "/api/jobs?label=a&status=succeeded").await;
    assert_eq!(listed.body["data"].as_array().unwrap().len(), 2, "{}", listed.body);
    assert_eq!(bench.get(account, "/api/credits/ledger").await.status, 200);
    bench.assert_audit_is_clean().await;

    let refused = apply(&as_role(&bench.direct_url, OWNER)).await.expect_err("it is older").to_string();
    assert!(refused.contains("newer than this program") && refused.contains("0005_regions"), "{refused}");
    let next = "SELECT count(*) FROM punchcard.functions WHERE sha256 = 'next'";
    assert_eq!(bench.count(next).await, 2, "nothing was put back");

    // One that changed functions alone is as new.
    bench.sql("DELETE FROM punchcard.migrations WHERE name = '0005_regions'").await;
    let refused = apply(&as_role(&bench.direct_url, OWNER)).await.expect_err("it is older").to_string();
    assert!(refused.contains("claim_2 of version 999.0.0"), "{refused}");
    let printed = shared::db::migrate::as_one_file(Some("0004_roles")).unwrap();
    let refused = bench.admin.batch_execute(&printed).await.expect_err("it is older");
    assert!(refused.as_db_error().unwrap().message().contains("newer than this file"), "{refused:?}");
    bench.sql("ROLLBACK").await;
    assert_eq!(bench.count(next).await, 2, "nothing was put back");

    // Had it changed the signature in its place, what is deployed would stand still.
    bench.sql("DROP FUNCTION punchcard.claim").await;
    bench.enqueue(account, "qr.svg", 1).await;
    let claimed = async || bench.poller().invoke(&json!({})).await.expect("a tick")["claimed"].clone();
    assert_eq!(claimed().await, 0, "it is told in the log");
}
