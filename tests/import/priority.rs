//! An old system's priorities bound by what a kind may have: who comes from it goes before nobody who buys.

use serde_json::json;
use uuid::Uuid;

use super::{lines_with, said};
use crate::support::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn a_priority_beyond_the_kinds_is_lowered_to_it_and_its_key_still_names_the_job() {
    let bench = Bench::new().await;
    let (account, buyer) = (Uuid::new_v4(), bench.account(1).await);
    bench
        .sql(&format!(
            "UPDATE punchcard.kinds SET max_priority = DEFAULT WHERE name = 'qr.svg';
             UPDATE punchcard.kinds SET max_priority = 5 WHERE name = 'free';
             CREATE TABLE public.jobs (
                 id bigserial PRIMARY KEY, user_id uuid DEFAULT '{account}', status text, type text,
                 payload jsonb DEFAULT '{{\"text\":\"t\"}}', urgency integer, \"key\" text);
             INSERT INTO public.jobs (status, type, urgency, \"key\") VALUES
                 ('queued', 'qr.svg', 10, 'ten'), ('queued', 'qr.svg', 99, NULL),
                 ('queued', 'qr.svg', 0, NULL), ('queued', 'qr.svg', -3, NULL),
                 ('queued', 'free', 7, NULL), ('queued', 'free', 5, NULL),
                 ('done', 'qr.svg', 9, NULL)"
        ))
        .await;
    let body = json!({ "kind": "qr.svg", "input": { "text": "t" } });
    let bought = bench.post(buyer, body, None).await;
    assert_eq!(bought.status, 202, "{}", bought.body);

    let import =
        ["--from", "public.jobs", "--price", "1", "--map", "priority=urgency,key=key", "--pause", "0"];
    let lowered = "priorities lowered to the max_priority of their kind: 3";
    lines_with(&said(&bench, &[&import[..], &["--dry-run"]].concat()).await, &[lowered]);
    let done = said(&bench, &import).await;
    lines_with(&done, &[lowered, "brought into -10 to 10: 1", "imported: 1 as history, 6 to be run"]);
    let priorities = format!(
        "SELECT string_agg(q.kind || ' ' || q.priority, ',' ORDER BY j.id)
         FROM punchcard.queue q JOIN punchcard.jobs j ON j.id = q.job_id AND j.priority = q.priority
         WHERE q.account_id = '{account}'"
    );
    let priorities: String = bench.rows(&priorities).await[0].get(0);
    assert_eq!(priorities, "qr.svg 0,qr.svg 0,qr.svg 0,qr.svg -3,free 5,free 5", "in both tables");

    // Whoever bought it sends what they sent before.
    let sent = json!({ "kind": "qr.svg", "input": { "text": "t" }, "priority": 10 });
    let same = bench.post(account, sent, Some("ten")).await;
    assert_eq!((same.status, &same.body["priority"]), (200, &json!(0)), "{}", same.body);
    // Nothing is left to be lowered.
    assert!(!said(&bench, &import).await.contains("lowered"));
    bench.assert_audit_is_clean().await;
}
