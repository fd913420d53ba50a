//! Somebody holds an account, or a job, in a transaction that stays open: nobody else's jobs wait for it, and what its own
//! jobs came to is recorded once it ends.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::{Bench, OWNER, as_role, connect};

/// The schema's owner, with a transaction open that has done this.
async fn holder(bench: &Bench, sql: &str) -> Client {
    let client = connect(&as_role(&bench.direct_url, OWNER)).await;
    client.batch_execute(&format!("BEGIN; {sql}")).await.expect(sql);
    client
}

async fn status(bench: &Bench, id: &str) -> String {
    bench.rows(&format!("SELECT status FROM punchcard.jobs_now WHERE id = '{id}'")).await[0].get(0)
}

async fn succeeded(bench: &Bench, account: Uuid) -> i64 {
    let sql = "SELECT count(*) FROM punchcard.jobs_now WHERE status = 'succeeded' AND account_id =";
    bench.count(&format!("{sql} '{account}'")).await
}

/// Waits for half a minute at most until the account has so many jobs that succeeded.
async fn until_succeeded(bench: &Bench, account: Uuid, jobs: i64) {
    for _ in 0..600 {
        if succeeded(bench, account).await == jobs {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} of {jobs} after half a minute", succeeded(bench, account).await);
}

fn steps() -> Value {
    json!([{ "do": "done", "seconds": 0.5 }])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_somebody_holds_keeps_no_other_result_waiting_and_loses_none() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let (held, free) = (bench.account(100).await, bench.account(1_000).await);
    let waits = bench.script(held, steps()).await;
    for _ in 0..40 {
        bench.script(free, steps()).await;
    }
    let holder = holder(&bench, &format!("SELECT punchcard.enqueue('{held}', 'unserved')")).await;
    let worker = bench.scripted_worker();
    let tick = tokio::spawn(async move { worker.invoke(&json!({})).await.expect("a tick") });
    until_succeeded(&bench, free, 40).await;
    until_succeeded(&bench, held, 1).await;
    assert_eq!(status(&bench, &waits).await, "succeeded", "though its account is not free yet");
    bench.assert_audit_is_clean_meanwhile().await;
    let summary = tick.await.unwrap();
    assert_eq!((&summary["succeeded"], &summary["lost"]), (&json!(41), &json!(0)), "{summary}");
    // What becomes due meanwhile runs, too.
    bench.script(free, steps()).await;
    let summary = bench.scripted_worker().invoke(&json!({})).await.expect("a tick");
    assert_eq!((&summary["succeeded"], &summary["lost"]), (&json!(1), &json!(0)), "{summary}");

    holder.batch_execute("COMMIT").await.unwrap();
    let job = bench.job(held, &waits).await;
    assert_eq!((&job["status"], &job["output"]), (&json!("succeeded"), &json!({ "run": 1 })), "run once");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_somebody_holds_keeps_no_other_result_or_progress_waiting() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(1_000).await;
    let waits = bench.script(account, json!([{ "do": "done", "seconds": 4 }])).await;
    let chatters = bench.script(account, json!([{ "do": "progress", "percent": 40, "seconds": 30 }])).await;
    let worker = bench.scripted_worker();
    let tick = tokio::spawn(async move { worker.invoke(&json!({})).await.expect("a tick") });
    super::help::until_running(&bench, account, &waits).await;
    // A running job of another account is held: canceled, in a transaction that stays open.
    let other = bench.account(1_000).await;
    let canceled = bench.script(other, json!([{ "do": "done", "seconds": 1 }])).await;
    super::help::until_running(&bench, other, &canceled).await;
    let holder = holder(&bench, &format!("SELECT punchcard.cancel('{canceled}')")).await;
    until_succeeded(&bench, account, 1).await;
    for tries in 0.. {
        let job = bench.job(account, &chatters).await;
        if job["progress"]["percent"] == 40 {
            break;
        }
        assert!(tries < 200, "no progress was noted: {job}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(status(&bench, &canceled).await, "running");
    holder.batch_execute("ROLLBACK").await.unwrap();
    let summary = tick.await.unwrap();
    assert_eq!((&summary["succeeded"], &summary["lost"]), (&json!(3), &json!(0)), "{summary}");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lapsed_job_of_a_held_account_keeps_no_claim_and_no_other_lapsed_job_waiting() {
    let bench = Bench::new().await;
    bench.scripted_kind("max_crashes = 1").await;
    let (held, free) = (bench.account(100).await, bench.account(100).await);
    let lapsed = [bench.script(held, steps()).await, bench.script(free, steps()).await];
    let worker = bench.scripted_worker();
    let tick = worker.start_invoke(&json!({}));
    tick.pid().await;
    super::help::until_running(&bench, free, &lapsed[1]).await;
    super::help::until_running(&bench, held, &lapsed[0]).await;
    let holder = holder(&bench, &format!("SELECT punchcard.enqueue('{held}', 'unserved')")).await;
    assert!(tick.kill());
    tick.wait().await.unwrap_err();
    bench.wait(3_600).await;

    let due = bench.script(free, steps()).await;
    let summary = bench.scripted_worker().invoke(&json!({})).await.expect("a tick");
    assert_eq!(
        (&summary["lapsed"], &summary["succeeded"]),
        (&json!(2), &json!(1)),
        "both lapsed jobs ended, and what was due ran: {summary}"
    );
    for lapsed in &lapsed {
        assert_eq!(status(&bench, lapsed).await, "failed");
    }
    let price = bench.count(&format!("SELECT price FROM punchcard.jobs WHERE id = '{}'", lapsed[0])).await;
    assert_eq!(bench.balance(held).await, (100, 0), "what was released of {price} is there at once");
    bench.assert_audit_is_clean_meanwhile().await;
    assert_eq!(status(&bench, &due).await, "succeeded");
    holder.batch_execute("COMMIT").await.unwrap();
    let waiting = "SELECT count(*) FROM punchcard.deferred_entries WHERE entry IS NULL";
    assert_eq!(bench.count(waiting).await, 1);
    bench.scripted_worker().invoke(&json!({})).await.expect("a tick");
    assert_eq!(bench.count(waiting).await, 0, "it is entered once its account is free");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_result_takes_no_other_with_it() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(1_000).await;
    let mut jobs = Vec::new();
    for _ in 0..30 {
        jobs.push(bench.script(account, json!([{ "do": "done" }])).await);
    }
    // A rule of the team's own that no success of this job passes.
    let poison = &jobs[17];
    bench
        .sql(&format!(
            "CREATE FUNCTION public.refuse_one() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'not this one'; END $$;
             CREATE TRIGGER refuse_one BEFORE INSERT ON punchcard.outcomes FOR EACH ROW
             WHEN (NEW.job_id = '{poison}' AND NEW.status = 'succeeded') EXECUTE FUNCTION public.refuse_one()"
        ))
        .await;
    let summary = super::help::tick(&bench).await;
    assert_eq!((&summary["succeeded"], &summary["failed"]), (&json!(29), &json!(1)), "{summary}");
    let refused = bench.job(account, poison).await;
    assert_eq!((&refused["status"], &refused["error"]["code"]), (&json!("failed"), &json!("invalid_output")));
    assert_eq!(bench.balance(account).await, (1_000 - 290, 0), "it was released");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_cannot_be_recorded_now_takes_no_other_with_it_whatever_the_error() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let mut states = Vec::new();
    // A class of errors each, but those that no retry mends (see `shared::db::sqlstate`).
    for state in ["42501", "53100", "55000", "55P03", "57014", "XX000"] {
        let account = bench.account(1_000).await;
        let mut jobs = Vec::new();
        for _ in 0..30 {
            jobs.push(bench.script(account, json!([{ "do": "done" }])).await);
        }
        states.push((state, account, jobs));
    }
    bench.sql("CREATE TABLE public.poison (job_id uuid, state text)").await;
    bench
        .sql(
            "CREATE FUNCTION public.refuse_some() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
             DECLARE poison public.poison;
             BEGIN
                 SELECT * INTO poison FROM public.poison p WHERE p.job_id = NEW.job_id;
                 IF FOUND THEN RAISE EXCEPTION 'not now' USING ERRCODE = poison.state; END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER refuse_some BEFORE INSERT ON punchcard.outcomes
             FOR EACH ROW EXECUTE FUNCTION public.refuse_some()",
        )
        .await;
    for (nth, (state, _, jobs)) in states.iter().enumerate() {
        bench.sql(&format!("INSERT INTO public.poison VALUES ('{}', '{state}')", jobs[5 * nth])).await;
    }
    let worker = bench.scripted_worker();
    let tick = tokio::spawn(async move { worker.invoke(&json!({})).await.expect("a tick") });
    for (_, account, _) in &states {
        until_succeeded(&bench, *account, 29).await;
    }
    // What was in the way is mended, and so is what it kept.
    bench.sql("DELETE FROM public.poison").await;
    let summary = tick.await.unwrap();
    assert_eq!((&summary["succeeded"], &summary["lost"]), (&json!(180), &json!(0)), "{summary}");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_the_teams_that_a_trigger_waits_for_keeps_one_result_alone() {
    let bench = Bench::new().await;
    bench.scripted_kind("").await;
    let account = bench.account(1_000).await;
    let mut jobs = Vec::new();
    for _ in 0..30 {
        jobs.push(bench.script(account, json!([{ "do": "done" }])).await);
    }
    bench
        .sql(&format!("CREATE TABLE public.orders AS SELECT '{}'::uuid AS job_id, false AS done", jobs[11]))
        .await;
    bench
        .sql(
            "CREATE FUNCTION public.note_order() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
             BEGIN UPDATE public.orders o SET done = true WHERE o.job_id = NEW.job_id; RETURN NULL; END $$;
             CREATE TRIGGER note_order AFTER INSERT ON punchcard.outcomes
             FOR EACH ROW EXECUTE FUNCTION public.note_order()",
        )
        .await;
    bench.admin.batch_execute("BEGIN; UPDATE public.orders SET done = false").await.unwrap();
    let worker = bench.scripted_worker();
    let tick = tokio::spawn(async move { worker.invoke(&json!({})).await.expect("a tick") });
    // Through the connection that holds the row, which sees what others commit.
    until_succeeded(&bench, account, 29).await;
    bench.admin.batch_execute("ROLLBACK").await.unwrap();
    let summary = tick.await.unwrap();
    assert_eq!((&summary["succeeded"], &summary["lost"]), (&json!(30), &json!(0)), "{summary}");
    assert_eq!(bench.count("SELECT count(*) FROM public.orders WHERE done").await, 1);
    bench.assert_audit_is_clean().await;
}
