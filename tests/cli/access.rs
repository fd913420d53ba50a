//! `punchcard doctor` and who may what: the list that is granted is the list that is looked for.

use serde_json::Value;

use super::{at, said};
use crate::support::{APP, Bench, as_role};

fn doctor(bench: &Bench) -> (Option<i32>, String) {
    let output = at(&as_role(&bench.direct_url, APP), &["doctor"]);
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_grant_that_is_taken_away_is_missed_by_name_and_comes_back_with_grant_access() {
    let bench = Bench::new().await;
    // By what the role may, not by the list: what the list forgot would be granted to nobody, and fail in every other test.
    let may = "SELECT 'EXECUTE ON FUNCTION ' || p.oid::regprocedure, format('%I.%I', n.nspname, p.proname)
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = 'punchcard' AND has_function_privilege('punchcard_app', p.oid, 'EXECUTE')
        UNION ALL
        SELECT 'SELECT ON ' || c.oid::regclass, c.oid::regclass::text FROM pg_class c
        WHERE c.relnamespace = 'punchcard'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND has_table_privilege('punchcard_app', c.oid, 'SELECT')";
    let grants: Vec<(String, String)> =
        bench.rows(may).await.iter().map(|row| (row.get(0), row.get(1))).collect();
    let count = grants.iter().filter(|(grant, _)| grant.starts_with("EXECUTE")).count();
    assert!(count >= 18 && grants.len() - count >= 18, "{grants:?}");
    let missed = |text: &str, object: &str| {
        assert!(text.contains("permission_denied") && text.contains(object), "{object}: {text}");
    };
    let (functions, tables): (Vec<_>, Vec<_>) =
        grants.iter().partition(|(grant, _)| grant.starts_with("EXECUTE"));
    for (grant, object) in functions {
        bench.sql(&format!("REVOKE {grant} FROM punchcard_app")).await;
        let (exit, text) = doctor(&bench);
        assert_ne!(exit, Some(0), "{grant}");
        missed(&text, &format!("the role lacks a grant: {object}"));
        bench.sql(&format!("GRANT {grant} TO punchcard_app")).await;
    }
    for (grant, _) in &tables {
        bench.sql(&format!("REVOKE {grant} FROM punchcard_app")).await;
    }
    let (exit, text) = doctor(&bench);
    assert_ne!(exit, Some(0));
    tables.iter().for_each(|(_, object)| missed(&text, object));
    for (grant, _) in &tables {
        bench.sql(&format!("GRANT {grant} TO punchcard_app")).await;
    }
    bench.sql("REVOKE USAGE ON SCHEMA punchcard FROM punchcard_app").await;
    assert!(doctor(&bench).1.contains("permission_denied"));
    bench.sql("GRANT USAGE ON SCHEMA punchcard TO punchcard_app").await;

    // All of it gone, and one call brings all of it back.
    bench.sql("SELECT punchcard.revoke_defaults()").await;
    assert_ne!(doctor(&bench).0, Some(0));
    bench.sql("SELECT punchcard.grant_access()").await;
    assert_eq!(doctor(&bench).0, Some(0));
    let back: Vec<(String, String)> =
        bench.rows(may).await.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(back.len(), grants.len());
    assert!(said(&at(&as_role(&bench.direct_url, APP), &["doctor", "--grants"])).contains("nobody has more"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_too_many_is_found() {
    let bench = Bench::new().await;
    bench.sql("GRANT SELECT (batch_id) ON punchcard.jobs TO authenticated").await;
    let output = at(&as_role(&bench.direct_url, APP), &["doctor", "--grants"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("punchcard.jobs.batch_id: authenticated may SELECT"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_not_there_is_missed_like_a_grant() {
    let bench = Bench::new().await;
    bench.sql("ALTER FUNCTION punchcard.call_back RENAME TO call_back_of_old").await;
    let (exit, text) = doctor(&bench);
    assert!(exit != Some(0) && text.contains("punchcard.call_back() (it is missing)"), "{text}");
    let json = at(&as_role(&bench.direct_url, APP), &["doctor", "--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["steps"].as_array().unwrap().last().unwrap()["stage"], "schema");
}
