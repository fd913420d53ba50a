//! What the database refuses of one account, for whatever reason and however late, is that account's alone: others' jobs are
//! claimed, recorded, taken back and redriven, and their credits returned.

use serde_json::{Value, json};
use uuid::Uuid;

use super::help::tick;
use crate::{
    cli::{punchcard, said},
    support::{Bench, OWNER, as_role, connect},
};

/// What a trigger may do to a row of the account, and its function's last words.
const REFUSALS: [&str; 4] =
    ["RAISE EXCEPTION 'not this one'", "ASSERT false", "RAISE query_canceled", DEFERRED];
/// What is found out at the end of the transaction alone.
const DEFERRED: &str = "RAISE EXCEPTION 'not this one, at last'";

/// A trigger of the team's on a table: what is about to be written of this account is refused.
async fn refuse(bench: &Bench, (table, on): (&str, &str), account: Uuid, how: &str) {
    let trigger = match how {
        DEFERRED => format!(
            "CREATE CONSTRAINT TRIGGER team AFTER {on} ON punchcard.{table} DEFERRABLE INITIALLY DEFERRED"
        ),
        _ => format!("CREATE TRIGGER team BEFORE {on} ON punchcard.{table}"),
    };
    bench
        .sql(&format!(
            "CREATE OR REPLACE FUNCTION public.team() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN {how}; RETURN NEW; END $$;
             DROP TRIGGER IF EXISTS team ON punchcard.{table};
             {trigger} FOR EACH ROW WHEN (NEW.account_id = '{account}') EXECUTE FUNCTION public.team()"
        ))
        .await;
}

async fn statuses(bench: &Bench, account: Uuid) -> Vec<String> {
    let sql = format!(
        "SELECT status FROM punchcard.jobs_now WHERE account_id = '{account}' ORDER BY created_at, id"
    );
    bench.rows(&sql).await.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_cannot_be_claimed_stays_behind_alone() {
    let bench = Bench::new().await;
    let (bad, other) = (bench.account(100).await, bench.account(100).await);
    bench.enqueue(bad, "qr.svg", 2).await;
    for how in REFUSALS {
        refuse(&bench, ("queue", "UPDATE"), bad, how).await;
        bench.enqueue(other, "qr.svg", 2).await;
        let summary = bench.poller().invoke(&json!({})).await.expect("a tick");
        let (claimed, lost) = (&summary["claimed"], &summary["lost"]);
        assert_eq!((claimed, lost), (&json!(2), &json!(0)), "what was undone is not run: {how}: {summary}");
        assert_eq!(statuses(&bench, bad).await, ["queued", "queued"], "{how}");
        assert!(statuses(&bench, other).await.iter().all(|status| status == "succeeded"), "{how}");
    }
    let doctor = said(&punchcard(&bench, &["doctor"]));
    assert!(doctor.contains("the trigger team on punchcard.queue is not Punchcard's"), "{doctor}");
    bench.sql("DROP TRIGGER team ON punchcard.queue").await;
    // A row that was changed by hand.
    for set in ["max_attempts = 1, attempt = 1", "max_attempts = 3, attempt = 0, run_at = '-infinity'"] {
        bench.sql(&format!("UPDATE punchcard.queue SET {set} WHERE account_id = '{bad}'")).await;
        assert_eq!(bench.get(bad, "/api/jobs").await.status, 200, "{set}");
        assert_eq!(bench.get(bad, "/api/health").await.status, 200, "{set}");
        bench.enqueue(other, "qr.svg", 1).await;
        bench.poller().invoke(&json!({})).await.expect("a tick");
        assert!(statuses(&bench, other).await.iter().all(|status| status == "succeeded"), "{set}");
    }
    assert_eq!(statuses(&bench, bad).await, ["succeeded", "succeeded"], "once they can be");
    let health = bench.get(bad, "/api/health").await.body;
    assert_eq!(health["oldest_due_seconds"], 0, "nothing is due: {health}");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lapsed_job_that_cannot_be_taken_back_keeps_no_other_from_it() {
    let bench = Bench::new().await;
    let (bad, other) = (bench.account(0).await, bench.account(0).await);
    bench.enqueue(bad, "free", 1).await;
    for (nth, how) in REFUSALS.into_iter().enumerate() {
        refuse(&bench, ("outcomes", "INSERT"), bad, how).await;
        bench.enqueue(other, "free", 2).await;
        bench.sql("UPDATE punchcard.queue SET expires_at = now()").await;
        let summary = bench.poller().invoke(&json!({})).await.expect("a tick");
        assert_eq!(summary["lapsed"], 2, "{how}: {summary}");
        assert_eq!(statuses(&bench, bad).await, ["queued"], "{how}");
        assert_eq!(statuses(&bench, other).await, vec!["failed"; 2 * (nth + 1)], "{how}");
    }
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_of_what_cannot_be_retried_goes_on_with_the_others() {
    let bench = Bench::new().await;
    let (bad, other) = (bench.account(0).await, bench.account(0).await);
    for how in ["ASSERT false", DEFERRED] {
        for account in [bad, other] {
            bench.enqueue(account, "free", 1).await;
        }
        bench.sql("UPDATE punchcard.queue SET expires_at = now()").await;
        bench.poller().invoke(&json!({})).await.expect("a tick");
        refuse(&bench, ("jobs", "INSERT"), bad, how).await;
        let redriven = said(&punchcard(&bench, &["jobs", "redrive", "free"]));
        assert!(redriven.contains("refused_by_database"), "{how}: {redriven}");
        assert_eq!(statuses(&bench, bad).await.iter().filter(|it| *it == "queued").count(), 0, "{how}");
        assert_eq!(statuses(&bench, other).await.last().unwrap(), "queued", "{how}");
        bench.sql("DROP TRIGGER team ON punchcard.jobs").await;
        bench.sql("SELECT punchcard.cancel(id) FROM punchcard.jobs_now WHERE status = 'queued'").await;
    }
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_trigger_for_one_account_loses_no_others_results() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let (slow, other) = (bench.account(1_000).await, bench.account(1_000).await);
    for account in [slow, other, other, slow, other, slow, other, other, slow, other] {
        bench.script(account, json!([{ "do": "done" }])).await;
    }
    // Longer than a statement may take.
    bench
        .sql(&format!("ALTER ROLE punchcard_app IN DATABASE {} SET statement_timeout = '4s'", bench.database))
        .await;
    refuse(&bench, ("outcomes", "INSERT"), slow, "PERFORM pg_sleep(20)").await;
    let summary = tick(&bench).await;
    assert_eq!(statuses(&bench, other).await, vec!["succeeded"; 6], "{summary}");
    assert_eq!((&summary["succeeded"], &summary["lost"]), (&json!(6), &json!(4)), "{summary}");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credits_that_cannot_be_returned_keep_no_other_accounts_waiting() {
    let bench = Bench::new().await;
    let (bad, other) = (Uuid::new_v4(), Uuid::new_v4());
    bench
        .sql(&format!(
            "CREATE TABLE public.user_credits (user_id uuid PRIMARY KEY, credits integer NOT NULL);
             INSERT INTO public.user_credits VALUES ('{bad}', 100), ('{other}', 100);
             GRANT SELECT, UPDATE ON public.user_credits TO {OWNER}"
        ))
        .await;
    let owner = connect(&as_role(&bench.direct_url, OWNER)).await;
    let take = "SELECT punchcard.use_credit_source('public.user_credits', 'user_id', 'credits')";
    owner.batch_execute(take).await.expect("a source");
    for (how, kind) in [("ASSERT false", "BEFORE"), (DEFERRED, "AFTER")] {
        for account in [bad, other] {
            let bought = bench.post(account, json!({ "kind": "qr.svg" }), None).await;
            assert_eq!(bought.status, 202, "{}", bought.body);
        }
        bench.sql("SELECT punchcard.cancel(id) FROM punchcard.jobs_now WHERE status = 'queued'").await;
        let constraint = if how == DEFERRED { "CONSTRAINT" } else { "" };
        let deferred = if how == DEFERRED { "DEFERRABLE INITIALLY DEFERRED" } else { "" };
        bench
            .sql(&format!(
                "CREATE OR REPLACE FUNCTION public.team() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN {how}; RETURN NEW; END $$;
                 CREATE {constraint} TRIGGER team {kind} UPDATE ON public.user_credits {deferred}
                 FOR EACH ROW WHEN (NEW.user_id = '{bad}') EXECUTE FUNCTION public.team()"
            ))
            .await;
        bench.poller().invoke(&json!({})).await.expect("a tick");
        let there = |account: Uuid| {
            format!("SELECT credits::bigint FROM public.user_credits WHERE user_id = '{account}'")
        };
        assert_eq!(bench.count(&there(other)).await, 100, "{how}");
        assert!(bench.count(&there(bad)).await < 100, "{how}");
        if how != DEFERRED {
            let bought = bench.post(bad, json!({ "kind": "qr.svg", "input": {} }), None).await;
            let jobs = json!({ "jobs": vec![json!({ "kind": "qr.svg" }); 40] });
            assert_eq!(bought.status, 202, "what waits to be returned is its own: {}", bought.body);
            let token = crate::support::bearer(bad);
            let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
            let batch = crate::support::event("POST", "/api/jobs:batch", &headers, Some(&jobs.to_string()));
            let answer = bench.request(batch).await;
            assert!(matches!(answer.status, 402 | 503), "{}", answer.body);
        }
        bench.sql("DROP TRIGGER team ON public.user_credits").await;
        bench.poller().invoke(&json!({})).await.expect("a tick");
    }
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_an_attempt_left_is_not_queued_again() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    bench.enqueue(account, "qr.svg", 1).await;
    for _ in 0..3 {
        bench.sql("UPDATE punchcard.queue SET run_at = now()").await;
        bench
            .sql(
                "SELECT punchcard.settle(ARRAY[c.job_id], ARRAY[c.lease_token], ARRAY['retry'], ARRAY[0], ARRAY[NULL],
                        ARRAY['{\"code\":\"x\"}'])
                 FROM punchcard.claim(1, ARRAY['qr.svg'], true, 600, 600) c",
            )
            .await;
    }
    assert_eq!(statuses(&bench, account).await, ["failed"]);
    let job: Value = bench.get(account, "/api/jobs").await.body["data"][0].clone();
    assert_eq!(job["error"]["code"], "x");
    assert_eq!(bench.balance(account).await, (10, 0));
    bench.assert_audit_is_clean().await;
}
