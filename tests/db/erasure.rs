//! An account that is erased is closed at once, loses its payloads whatever dies meanwhile, and keeps its books.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use shared::db::accounts::ExportPlace;
use uuid::Uuid;

use crate::{
    cli::{punchcard, refused, said},
    support::{APP, Bench, as_role, connect, event},
};

/// What is in each payload, and nowhere else.
const MARK: &str = "a-mark-of-theirs";

fn soon() -> shared::domain::Deadline {
    shared::domain::Deadline::after(std::time::Duration::from_secs(60))
}

/// An account with everything that may hold something of its users: finished jobs of each end, unfinished ones in each state,
/// runs, messages heard and not, labels, keys, a webhook. Answers the account and its jobs.
async fn full(bench: &Bench, jobs: usize) -> (Uuid, Vec<String>) {
    let account = bench.account(100_000).await;
    let url = format!("https://example.com/{MARK}");
    bench.sql(&format!("SELECT punchcard.set_webhook('{account}', '{url}')")).await;
    let mut ids = Vec::new();
    for number in 0..jobs {
        let job = json!({
            "kind": "unserved", "input": { "text": MARK, "number": number }, "metadata": { "name": MARK }, "tags": [MARK],
            "webhook": if number % 3 == 0 { json!({ "url": url }) } else { Value::Null },
        });
        let answer = bench.post(account, job, (number % 2 == 0).then_some(&format!("{MARK} {number}"))).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
        ids.push(answer.body["id"].as_str().unwrap().to_owned());
    }
    // Of ten: two succeed, one fails at once, one after a run that erred, one waits outside, one runs, one will not be canceled;
    // the rest is queued.
    bench
        .sql(&format!(
            "DO $$
             DECLARE error text := '{{\"code\":\"{MARK}\",\"message\":\"{MARK}\",\"attempt\":1}}';
             BEGIN
                 CREATE TEMP TABLE mine AS SELECT c.job_id, c.lease_token, row_number() OVER (ORDER BY c.job_id) % 10 AS n
                 FROM punchcard.claim(10000, '{{unserved}}', true, 600, 600) c;
                 PERFORM punchcard.settle(ARRAY[m.job_id], ARRAY[m.lease_token],
                     ARRAY[(ARRAY['complete', 'complete', CASE m.lease_token % 2 WHEN 0 THEN 'fail' ELSE 'reject' END, 'retry', 'wait', 'return', 'return', 'return', 'return'])[m.n]],
                     ARRAY[CASE m.n WHEN 5 THEN 3600 ELSE 0 END::float8],
                     ARRAY[CASE WHEN m.n < 3 THEN '{{\"text\":\"{MARK}\"}}' END], ARRAY[CASE m.n WHEN 3 THEN replace(error, 'code\":\"{MARK}', 'code\":\"invalid_input')
                                         WHEN 4 THEN error END])
                 FROM mine m WHERE m.n > 0;
                 PERFORM punchcard.settle(array_agg(c.job_id), array_agg(c.lease_token), array_agg('fail'::text), array_agg(0::float8),
                     array_agg(NULL::text), array_agg(error))
                 FROM punchcard.claim(10000, '{{unserved}}', true, 600, 600) c JOIN mine m ON m.job_id = c.job_id WHERE m.n = 4;
                 UPDATE punchcard.queue q SET lease_expires_at = NULL, attempt = 0, has_run = false
                 FROM mine m WHERE m.job_id = q.job_id AND m.n > 5 AND q.lease_expires_at IS NOT NULL;
                 -- Some messages were heard, some given up.
                 INSERT INTO punchcard.deliveries (id, account_id, job_id, created_at, delivered_at, event, attempt, put_back, gone, url, error)
                 SELECT b.id, b.account_id, b.job_id, b.created_at, CASE WHEN b.job_id::text < '8' THEN now() END, b.event, 1, 0, false,
                        b.url, 'answered 500: {MARK}'
                 FROM punchcard.outbox b WHERE hashtext(b.id::text) % 2 = 0;
                 DELETE FROM punchcard.outbox b WHERE hashtext(b.id::text) % 2 = 0;
                 DROP TABLE mine;
             END $$"
        ))
        .await;
    (account, ids)
}

/// In which tables there is still something of theirs, searched for by content.
async fn left(bench: &Bench) -> BTreeSet<String> {
    let tables = bench
        .rows("SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = 'punchcard'::regnamespace AND c.relkind = 'r'")
        .await;
    let mut left = BTreeSet::new();
    for table in tables.iter().map(|row| row.get::<_, String>(0)) {
        if bench
            .count(&format!("SELECT count(*) FROM punchcard.{table} t WHERE t::text LIKE '%{MARK}%'"))
            .await
            > 0
        {
            left.insert(table.trim_end_matches(|last: char| last.is_ascii_digit() || last == '_').to_owned());
        }
    }
    left
}

async fn books(bench: &Bench, account: Uuid) -> Vec<String> {
    let rows = bench
        .rows(&format!(
            "SELECT e::text FROM punchcard.entries e WHERE e.account_id = '{account}' ORDER BY e.share, e.id, e.kind"
        ))
        .await;
    rows.iter().map(|row| row.get(0)).collect()
}

/// All steps that can be taken now; each is tried, and dies, before it is taken.
async fn erased(bench: &Bench, account: Uuid) -> usize {
    let functions = connect(&as_role(&bench.url, APP)).await;
    let state = "SELECT e::text FROM punchcard.erasures e";
    for step in 1..10_000 {
        let before: String = bench.rows(state).await[0].get(0);
        functions.batch_execute("BEGIN").await.unwrap();
        let tried = functions
            .query_typed(&format!("SELECT punchcard.erase_payloads('{account}')"), &[])
            .await
            .expect("a step")[0]
            .get::<_, bool>(0);
        functions.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(bench.rows(state).await[0].get::<_, String>(0), before);
        let more = bench.db().erase_payloads(account, soon()).await.unwrap();
        assert_eq!(more, tried, "the same step");
        bench.assert_audit_is_clean().await;
        if !more {
            return step;
        }
    }
    panic!("it never ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_closed_at_once_and_nobody_reads_its_payloads() {
    let bench = Bench::new().await;
    let (account, ids) = full(&bench, 20).await;
    let operator = bench.service_token("operator", &["enqueue", "grant", "operate"]).await;
    let own = bench.service_token("backend", &["enqueue", "grant"]).await;
    let as_service = |token: &str, method: &str, path: &str, body: Option<Value>| {
        let body = body.map(|body| body.to_string());
        let bearer = format!("Bearer {token}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
            ("idempotency-key", "another"),
        ];
        event(method, path, &headers, body.as_deref())
    };
    let erase = format!("/api/accounts/{account}/erase");
    assert_eq!(bench.request(as_service(&own, "POST", &erase, None)).await.status, 403);
    assert_eq!(bench.act(account, &erase).await.status, 403, "not by themselves");
    let nobody = format!("/api/accounts/{}/erase", Uuid::new_v4());
    assert_eq!(bench.request(as_service(&operator, "POST", &nobody, None)).await.status, 404);

    let erasure = bench.request(as_service(&operator, "POST", &erase, None)).await;
    assert_eq!((erasure.status, &erasure.body["done_at"]), (202, &Value::Null), "{}", erasure.body);
    assert!(left(&bench).await.len() > 5, "nothing is cleared yet");

    let mut answers = Vec::new();
    for id in &ids {
        for end in ["", "/runs", "/events", "/deliveries"] {
            let path = format!("/api/jobs/{id}{end}");
            answers.push(bench.get(account, &path).await);
            answers.push(bench.request(as_service(&operator, "GET", &path, None)).await);
            assert_eq!(
                [answers[answers.len() - 2].status, answers[answers.len() - 1].status],
                [404; 2],
                "{path}"
            );
        }
        for end in ["/cancel", "/retry"] {
            answers.push(bench.act(account, &format!("/api/jobs/{id}{end}")).await);
        }
    }
    for query in ["", "&status=failed", "&status=queued", "&kind=unserved", &format!("&label={MARK}")] {
        answers.push(bench.get(account, &format!("/api/jobs?limit=100{query}")).await);
    }
    for number in [0, 2] {
        // A replay, which would show what was bought.
        let job = json!({
            "kind": "unserved", "input": { "text": MARK, "number": number }, "metadata": { "name": MARK }, "tags": [MARK],
            "webhook": if number == 0 { json!({ "url": format!("https://example.com/{MARK}") }) } else { Value::Null },
        });
        answers.push(bench.post(account, job, Some(&format!("{MARK} {number}"))).await);
    }
    answers.push(bench.get(account, "/api/webhook").await);
    let retry = format!("/api/jobs:retry?account_id={account}");
    answers.push(bench.request(as_service(&operator, "POST", &retry, Some(json!({})))).await);
    let export = format!("/api/accounts/{account}/export");
    answers.push(bench.request(as_service(&operator, "GET", &export, None)).await);
    for answer in &answers {
        assert!(!answer.body.to_string().contains(MARK), "{}", answer.body);
        assert!(answer.status < 500, "{}", answer.body);
    }
    let text = format!(
        "{}{}{}",
        said(&punchcard(&bench, &["jobs", "list", &account.to_string()])),
        said(&punchcard(&bench, &["jobs", "failed"])),
        said(&punchcard(&bench, &["webhooks", "failed"])),
    );
    assert!(!text.contains(MARK), "{text}");

    for (path, body) in [
        ("/api/jobs", json!({ "kind": "qr.svg" })),
        ("/api/jobs", json!({ "kind": "free" })),
        ("/api/jobs", json!({ "kind": "qr.svg", "input": { "text": "x".repeat(20_000) } })),
        ("/api/jobs:batch", json!({ "jobs": [{ "kind": "qr.svg" }] })),
        ("/api/credits/grants", json!({ "amount": 5 })),
    ] {
        let path = &format!("{path}?account_id={account}");
        let answer = bench.request(as_service(&own, "POST", path, Some(body))).await;
        assert_eq!(
            (answer.status, &answer.body["code"]),
            (403, &json!("account_closed")),
            "{path}: {}",
            answer.body
        );
    }
    let hook = json!({ "url": "https://example.com/" }).to_string();
    let headers =
        [("authorization", &*crate::support::bearer(account)), ("content-type", "application/json")];
    assert_eq!(bench.request(event("PUT", "/api/webhook", &headers, Some(&hook))).await.status, 403);
    let spread = punchcard(&bench, &["credits", "spread", &account.to_string(), "--shares", "4"]);
    assert!(refused(&spread).contains("account_closed"));
    assert_eq!(
        bench.count(&format!("SELECT count(*) FROM punchcard.jobs WHERE account_id = '{account}'")).await,
        20
    );
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dies_half_way_is_gone_on_with_until_nothing_is_left_and_the_books_stay() {
    let bench = Bench::new().await;
    // Of some the input is to blame, which cost them their price.
    bench.sql("UPDATE punchcard.kinds SET on_input_error = 'capture' WHERE name = 'unserved'").await;
    let (account, ids) = full(&bench, 620).await;
    bench.sql("UPDATE punchcard.kinds SET on_cancel = 'refuse' WHERE name = 'unserved'").await;
    let other = bench.account(1_000).await;
    let kept = bench
        .post(other, json!({ "kind": "unserved", "input": { "text": "of another" } }), Some("a key"))
        .await;
    assert_eq!(kept.status, 202);
    let before = books(&bench, account).await;

    bench.db().erase_account(account, soon()).await.unwrap();
    let steps = erased(&bench, account).await;
    assert!(steps > 4, "{steps} steps");
    let erasure = bench.db().erasure(account, soon()).await.unwrap().unwrap();
    assert_eq!((erasure.done_at, erasure.waits_for.is_some()), (None, true), "62 of them run: {erasure:?}");
    bench.assert_audit_is_clean().await;

    // A worker goes on with what it has; others learn that they are to stop.
    let running = bench
        .rows("SELECT q.job_id, q.lease_token, q.cancel_requested_at IS NOT NULL FROM punchcard.queue q WHERE q.lease_expires_at IS NOT NULL")
        .await;
    assert!(running.len() > 50 && running.iter().all(|row| row.get(2)), "each is asked to stop");
    bench
        .sql(&format!(
            "SELECT punchcard.settle(array_agg(q.job_id), array_agg(q.lease_token),
                 array_agg(CASE WHEN hashtext(q.job_id::text) % 2 = 0 THEN 'complete' ELSE 'cancel' END), array_agg(0::float8),
                 array_agg('{{\"text\":\"{MARK}\"}}'::text), array_agg(NULL::text))
             FROM punchcard.queue q WHERE q.lease_expires_at IS NOT NULL"
        ))
        .await;
    erased(&bench, account).await;
    let erasure = bench.db().erasure(account, soon()).await.unwrap().unwrap();
    assert!(erasure.done_at.is_some(), "{erasure:?}");
    assert_eq!((erasure.jobs, erasure.keys, erasure.waits_for), (ids.len() as i64, 310, None), "{erasure:?}");
    assert_eq!(left(&bench).await, BTreeSet::new());
    let of_others = "SELECT count(*) FROM punchcard.jobs WHERE input::text LIKE '%of another%'";
    assert_eq!(bench.count(of_others).await, 1);

    let after = books(&bench, account).await;
    assert!(before.iter().all(|entry| after.contains(entry)), "no entry has changed");
    assert_eq!(
        bench.count(&format!("SELECT count(*) FROM punchcard.ends WHERE account_id = '{account}'")).await,
        620
    );
    assert_eq!(bench.balance(account).await.1, 0, "nothing is held");
    bench.assert_audit_is_clean().await;

    for change in [
        format!("UPDATE punchcard.jobs SET input = '1' WHERE account_id = '{account}'"),
        "DELETE FROM punchcard.erasures".to_owned(),
        "TRUNCATE punchcard.erasures".to_owned(),
        format!(
            "UPDATE punchcard.jobs SET input = '{{}}', metadata = NULL, tags = NULL, webhook = NULL WHERE account_id = '{other}'"
        ),
    ] {
        assert!(bench.admin.batch_execute(&change).await.is_err(), "{change}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_an_account_is_erased_its_payloads_may_go_and_nothing_else_of_it() {
    let bench = Bench::new().await;
    let (account, _) = full(&bench, 20).await;
    bench.db().erase_account(account, soon()).await.unwrap();
    for change in [
        "UPDATE punchcard.jobs SET input = '{}', metadata = NULL, tags = NULL, webhook = NULL, price = 0",
        "UPDATE punchcard.jobs SET input = '[]', metadata = NULL, tags = NULL, webhook = NULL",
        "UPDATE punchcard.jobs SET input = '{}'",
        "DELETE FROM punchcard.jobs",
        "UPDATE punchcard.outcomes SET captured = 0, output = 'null', error = NULL",
        "UPDATE punchcard.outcomes SET output = '1' WHERE status = 'succeeded'",
        "DELETE FROM punchcard.outcomes",
        "UPDATE punchcard.attempts SET error = NULL",
        "UPDATE punchcard.attempts SET error = '{\"code\":\"erased\"}', attempt = 9",
        "DELETE FROM punchcard.attempts",
        "UPDATE punchcard.labels SET label = 'x'",
        "DELETE FROM punchcard.accounts",
    ] {
        let error = bench.admin.batch_execute(change).await.expect_err(change);
        assert_eq!(error.code().map(|code| code.code()), Some("23001"), "{change}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_buys_while_an_account_is_closed_bought_before_or_is_refused() {
    let bench = Bench::new().await;
    for shares in [1, 5] {
        let account = bench.account(100_000).await;
        bench.sql(&format!("SELECT punchcard.spread_account('{account}', {shares})")).await;
        let mut buyers = Vec::new();
        for buyer in 0..8 {
            let client = connect(&as_role(&bench.url, APP)).await;
            buyers.push(tokio::spawn(async move {
                let mut bought = 0;
                for number in 0..100_000 {
                    let buy = match number % 3 {
                        0 => format!("SELECT count(*) FROM punchcard.enqueue_batch('{account}', '[{{\"kind\":\"qr.svg\",\"input\":\"{MARK}\"}}]')"),
                        1 => format!("SELECT punchcard.set_webhook('{account}', 'https://example.com/{MARK}')::text"),
                        _ => format!("SELECT punchcard.enqueue('{account}', 'qr.svg', '\"{MARK}\"', '{MARK} {buyer} {number}')::text"),
                    };
                    match client.query_typed(&buy, &[]).await {
                        Ok(_) => bought += 1,
                        Err(error) => {
                            assert_eq!(error.code().map(|code| code.code()), Some("PT403"), "{error:?}");
                            return bought;
                        }
                    }
                }
                bought
            }));
        }
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let db = bench.db();
        db.erase_account(account, soon()).await.unwrap();
        while db.erase_payloads(account, soon()).await.unwrap() {}
        let mut bought = 0;
        for buyer in buyers {
            bought += buyer.await.unwrap();
        }
        assert!(bought > 8, "they did buy: {bought}");
        let erasure = db.erasure(account, soon()).await.unwrap().unwrap();
        assert!(erasure.done_at.is_some() && erasure.jobs > 4, "{erasure:?}");
        assert_eq!(left(&bench).await, BTreeSet::new());
        assert_eq!(bench.balance(account).await, (100_000, 0), "all were canceled");
        bench.assert_audit_is_clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ticks_erase_what_operators_ask_for() {
    let bench = Bench::new().await;
    let (account, _) = full(&bench, 30).await;
    let id = account.to_string();
    let asked = punchcard(&bench, &["accounts", "erase", &id]);
    assert!(refused(&asked).contains("--yes"));
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.erasures").await, 0);
    assert!(
        refused(&punchcard(&bench, &["accounts", "erase", &Uuid::new_v4().to_string()]))
            .contains("no such account")
    );
    let closed = refused(&punchcard(&bench, &["accounts", "erase", &id, "--yes"]));
    assert!(
        closed.contains("closed, but not erased yet: job ") && closed.contains("is unfinished"),
        "{closed}"
    );
    bench
        .sql("UPDATE punchcard.erasures SET error = 'not today', asked_at = now() - interval '2 hours'")
        .await;
    let health = bench.get(Uuid::new_v4(), "/api/health").await.body;
    assert_eq!(health["upkeep_waits"], json!(["erasures"]), "{health}");
    bench.sql("UPDATE punchcard.queue SET lease_expires_at = now() - interval '1 second' WHERE lease_expires_at IS NOT NULL").await;
    bench.sql("SELECT * FROM punchcard.rescue(100)").await;
    bench.sql("UPDATE punchcard.upkeep SET next_at = '-infinity'; UPDATE punchcard.erasures SET look_at = now()").await;
    bench.drain().await;
    let done = said(&punchcard(&bench, &["accounts", "erase", &id, "--yes"]));
    assert!(done.contains("erased: 30 jobs"), "{done}");
    assert_eq!(left(&bench).await, BTreeSet::new());
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_has_all_of_it_once_also_if_it_was_cut_off() {
    let bench = Bench::new().await;
    let (account, ids) = full(&bench, 230).await;
    bench
        .sql(&format!(
            "SELECT punchcard.grant_credits('{account}', 7, 'dated', NULL, now() + interval '1 day')"
        ))
        .await;
    bench
        .sql("UPDATE punchcard.queue SET checkpoint = '{\"page\":7}' WHERE job_id = (SELECT min(job_id::text)::uuid FROM punchcard.queue)")
        .await;
    let id = account.to_string();
    let path = std::env::temp_dir().join(format!("export-{}.jsonl", Uuid::new_v4()));
    let file = path.to_str().unwrap();
    let export = ["accounts", "export", &id, "--out", file];
    said(&punchcard(&bench, &export));
    let whole = std::fs::read_to_string(&path).unwrap();
    assert!(refused(&punchcard(&bench, &export)).contains("is whole already"));

    let lines: Vec<Value> = whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |what: &str| lines.iter().filter(|line| line["type"] == what).collect::<Vec<_>>();
    assert_eq!((of("account").len(), of("key").len(), of("end").len()), (1, 115, 1));
    assert_eq!(of("account")[0]["webhook_url"], format!("https://example.com/{MARK}"));
    assert_eq!(of("account")[0]["shares"], 1);
    assert_eq!((of("dated_grant").len(), &of("dated_grant")[0]["left_over"]), (1, &json!(7)));
    assert_eq!((of("checkpoint").len(), &of("checkpoint")[0]["checkpoint"]), (1, &json!({ "page": 7 })));
    let jobs: Vec<&str> = of("job").iter().map(|job| job["id"].as_str().unwrap()).collect();
    assert_eq!(jobs, ids.iter().rev().map(String::as_str).collect::<Vec<_>>(), "newest first, each once");
    assert!(of("job").iter().all(|job| job["input"]["text"] == MARK && job["metadata"]["name"] == MARK));
    let runs = bench
        .count(&format!("SELECT count(*) FROM punchcard.runs r JOIN punchcard.jobs j ON j.id = r.job_id WHERE j.account_id = '{account}'"))
        .await;
    let told = bench
        .count(&format!(
            "SELECT count(*) FROM punchcard.messages WHERE account_id = '{account}' AND event <> 'cancel'"
        ))
        .await;
    let entries = bench
        .count(&format!(
            "SELECT count(*) FROM punchcard.entries WHERE account_id = '{account}' AND kind <> 'shift'"
        ))
        .await;
    assert_eq!(
        (of("run").len() as i64, of("message").len() as i64, of("entry").len() as i64),
        (runs, told, entries)
    );

    // Cut off anywhere, it is gone on with to the same end.
    for cut in
        [whole.find("\"type\":\"cursor\"").unwrap() + 30, whole.len() / 2, whole.len() - 30, whole.len() - 1]
    {
        std::fs::write(&path, &whole[..cut]).unwrap();
        said(&punchcard(&bench, &export));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole, "cut at {cut}");
    }
    let other = bench.account(1).await.to_string();
    let of_other = ["accounts", "export", &other, "--out", file];
    assert!(refused(&punchcard(&bench, &of_other)).contains("is an export of"));
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(
        refused(&punchcard(&bench, &["accounts", "export", &other, "--out", file]))
            .contains("is an export of")
    );
    std::fs::write(&path, "a letter\n").unwrap();
    assert!(refused(&punchcard(&bench, &export)).contains("is no export"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "a letter\n", "it is left as it was");
    std::fs::remove_file(&path).unwrap();

    // The same by the API.
    let operator = bench.service_token("operator", &["operate"]).await;
    let (mut text, mut query) = (Vec::new(), String::new());
    loop {
        let bearer = format!("Bearer {operator}");
        let path = format!("/api/accounts/{account}/export{query}");
        let answer =
            bench.api.invoke(&event("GET", &path, &[("authorization", &bearer)], None)).await.unwrap();
        assert_eq!(answer["headers"]["content-type"], "application/jsonl", "{answer}");
        let page: Vec<Value> = answer["body"]
            .as_str()
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let next = page.last().unwrap()["next_cursor"].as_str().map(|cursor| format!("?cursor={cursor}"));
        text.extend(page);
        match next {
            Some(next) => query = next,
            None => break,
        }
    }
    let records =
        |lines: &[Value]| lines.iter().filter(|line| line["type"] != "cursor").cloned().collect::<Vec<_>>();
    assert_eq!(records(&text), records(&lines));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_an_export_is_bounded_also_where_jobs_ran_often() {
    let bench = Bench::new().await;
    let account = bench.account(1_000).await;
    bench.enqueue(account, "qr.svg", 40).await;
    bench.drain().await;
    bench
        .sql(&format!(
            "INSERT INTO punchcard.attempts (job_id, number, attempt, ended, started_at, ended_at, error)
             SELECT j.id, 1000 + n, 1, 'retry', now(), now(), json_build_object('code', 'x', 'message', repeat('m', 1000), 'attempt', 1)
             FROM punchcard.jobs j, generate_series(1, CASE WHEN hashtext(j.id::text) % 7 = 0 THEN 0 ELSE 60 END) n
             WHERE j.account_id = '{account}'"
        ))
        .await;
    let (db, mut place, mut seen, mut pages) = (bench.db(), Some(ExportPlace::default()), Vec::new(), 0);
    while let Some(from) = place {
        let page = db.export(account, from, soon()).await.unwrap();
        assert!(page.lines.iter().map(String::len).sum::<usize>() < 1_900_000);
        seen.extend(page.lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        (place, pages) = (page.next, pages + 1);
    }
    let of = |what: &str| seen.iter().filter(|line| line["type"] == what).collect::<Vec<_>>();
    assert!(pages > 6, "{pages}");
    assert_eq!(of("job").len(), 40);
    let there = bench.count("SELECT count(*) FROM punchcard.runs").await;
    let runs: BTreeSet<String> =
        of("run").iter().map(|run| format!("{} {}", run["job_id"], run["number"])).collect();
    assert_eq!((runs.len() as i64, of("run").len() as i64), (there, there), "each once");
}

/// As each statement of an endpoint's or a worker's that shows one does.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_sent_what_is_said_of_a_closed_account() {
    let bench = Bench::new().await;
    let account = bench.account(100).await;
    bench
        .sql("UPDATE punchcard.kinds SET cancel_url = 'https://example.com/stop' WHERE name = 'unserved'")
        .await;
    let webhook = format!(
        "{{\"webhook\":{{\"url\":\"https://example.com/{MARK}\",\"events\":[\"job.failed\",\"job.canceled\"]}}}}"
    );
    let settle = |job: Uuid, verdict: &str| {
        format!(
            "SELECT punchcard.settle(ARRAY[c.job_id], ARRAY[c.lease_token], '{{{verdict}}}', '{{3600}}', '{{NULL}}',
                 ARRAY['{{\"code\":\"x\",\"message\":\"{MARK}\",\"attempt\":\"{MARK}\"}}'])
             FROM punchcard.claim(5, '{{unserved}}', true, 60, 60) c WHERE c.job_id = '{job}'"
        )
    };
    let mut jobs = Vec::new();
    for verdict in ["fail", "wait"] {
        let buy = format!(
            "SELECT job_id FROM punchcard.enqueue('{account}', 'unserved', '\"{MARK}\"', NULL, 0, NULL, '{webhook}')"
        );
        let job: Uuid = bench.rows(&buy).await[0].get(0);
        bench.sql(&settle(job, verdict)).await;
        jobs.push(job);
    }
    bench.sql(&format!("SELECT punchcard.cancel('{}')", jobs[1])).await;
    let db = bench.db();
    db.erase_account(account, soon()).await.unwrap();
    let taken = bench
        .rows("SELECT c.id, c.event, c.url, c.attempt FROM punchcard.claim_deliveries(10, 60) c WHERE c.id IS NOT NULL")
        .await;
    let of = |event: &str| -> Vec<Option<String>> {
        taken.iter().filter(|row| row.get::<_, String>(1) == event).map(|row| row.get(2)).collect()
    };
    assert_eq!((of("job.failed"), of("job.canceled")), (vec![None], vec![None]), "nowhere");
    assert_eq!(of("cancel"), [Some("https://example.com/stop".to_owned())], "who works for it stops");
    // One result is recorded before it is cleared, one after.
    let settle = |row: &tokio_postgres::Row, verdict: &str| {
        format!(
            "SELECT punchcard.settle_deliveries(ARRAY[b.job_id], ARRAY[b.id], ARRAY[b.attempt], '{{{verdict}}}', '{{3600}}', '{{{MARK}}}',
                 '{{NULL}}') FROM punchcard.outbox b WHERE b.id = '{}'",
            row.get::<_, Uuid>(0)
        )
    };
    for row in &taken {
        bench.sql(&settle(row, if row.get::<_, &str>(1) == "cancel" { "retry" } else { "give_up" })).await;
    }
    erased(&bench, account).await;
    assert!(db.erasure(account, soon()).await.unwrap().unwrap().done_at.is_some());
    let cancel = taken.iter().find(|row| row.get::<_, &str>(1) == "cancel").unwrap();
    bench.sql("UPDATE punchcard.outbox SET next_at = now()").await;
    bench.sql("SELECT FROM punchcard.claim_deliveries(10, 60)").await;
    bench.sql(&settle(cancel, "give_up")).await;
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.outbox").await, 0);
    assert_eq!(left(&bench).await, BTreeSet::new());
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sets_a_webhook_while_their_account_is_closed_is_refused() {
    let bench = Bench::new().await;
    let account = Uuid::new_v4();
    let set = format!("SELECT punchcard.set_webhook('{account}', 'https://example.com/{MARK}')::text");
    bench.sql(&set).await; // it has nothing else
    let (closing, setting) = (connect(&bench.direct_url).await, connect(&bench.direct_url).await);
    closing.batch_execute(&format!("BEGIN; SELECT punchcard.erase_account('{account}')")).await.unwrap();
    let late = tokio::spawn(async move { setting.query_typed(&set, &[]).await });
    bench.until_waiting_for_locks(1).await;
    closing.batch_execute("COMMIT").await.unwrap();
    let refused = late.await.unwrap().expect_err("it is closed");
    assert_eq!(refused.code().map(|code| code.code()), Some("PT403"), "{refused:?}");
    erased(&bench, account).await;
    assert_eq!(left(&bench).await, BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_on_its_way_out_is_cleared_or_waited_for_and_keeps_no_other_waiting() {
    let bench = Bench::new().await;
    bench.begin_at("2024-01-20").await;
    let (account, other) = (bench.account(100).await, bench.account(100).await);
    bench
        .sql(&format!(
            "UPDATE punchcard.retention SET payload_days = 100, key_days = 100;
             SELECT punchcard.enqueue(id, 'unserved', '\"{MARK}\"', NULL, 0, NULL, '{{\"tags\":[\"{MARK}\"]}}')
             FROM (VALUES ('{account}'::uuid), ('{other}')) a (id);
             SELECT punchcard.settle(array_agg(c.job_id), array_agg(c.lease_token), array_agg('complete'::text), array_agg(0::float8),
                 array_agg('\"{MARK}\"'::text), array_agg(NULL::text))
             FROM punchcard.claim(10, '{{unserved}}', true, 60, 60) c"
        ))
        .await;
    bench.set_clock("2024-07-20").await;
    bench.sql("DO $$ BEGIN WHILE punchcard.make_periods() LOOP END LOOP; END $$").await;
    // The month is closed and archived, and its tables are there for an hour.
    bench.sql("SELECT punchcard.apply_retention(); SELECT punchcard.apply_retention()").await;
    assert_eq!(
        bench.count("SELECT count(*) FROM punchcard.archived_months WHERE archived_at IS NOT NULL").await,
        1
    );
    let insert =
        format!("INSERT INTO punchcard.labels SELECT '{other}', 'late', j.id FROM punchcard.jobs j LIMIT 1");
    let refused = bench.admin.batch_execute(&insert).await.unwrap_err();
    assert!(format!("{refused:?}").contains("past_its_retention"), "{refused:?}");
    let db = bench.db();
    db.erase_account(account, soon()).await.unwrap();
    while db.erase_payloads(account, soon()).await.unwrap() {}
    let erasure = db.erasure(account, soon()).await.unwrap().unwrap();
    assert_eq!((erasure.jobs, erasure.done_at), (1, None), "{erasure:?}");
    assert!(
        erasure.error.as_deref().is_some_and(|why| why.contains("a month is on its way out")),
        "{erasure:?}"
    );
    let of = |id: Uuid| {
        format!(
            "SELECT count(*) FROM punchcard.jobs WHERE account_id = '{id}' AND input::text LIKE '%{MARK}%'"
        )
    };
    assert_eq!((bench.count(&of(account)).await, bench.count(&of(other)).await), (0, 1));

    // Of the other, its jobs have left their place before anything of it could be cleared.
    bench.set_clock("2024-07-20 02:00Z").await;
    while bench.count("SELECT count(*) FROM punchcard.periods WHERE name = 'jobs_before_2024_02'").await == 0
    {
        bench.sql("SELECT punchcard.apply_retention()").await;
    }
    db.erase_account(other, soon()).await.unwrap();
    while db.erase_payloads(other, soon()).await.unwrap() {}
    assert!(!left(&bench).await.is_empty());
    assert_eq!(db.erasure(other, soon()).await.unwrap().unwrap().done_at, None, "what is left is waited for");
    for _ in 0..10 {
        bench.sql("DO $$ BEGIN WHILE punchcard.apply_retention() LOOP END LOOP; END $$").await;
        bench.sql("UPDATE punchcard.archived_months SET archived_at = archived_at - interval '1 hour' WHERE gone_at IS NULL").await;
    }
    bench.sql("UPDATE punchcard.erasures SET look_at = clock.now()").await;
    bench.sql("DO $$ BEGIN WHILE punchcard.erase_payloads() LOOP END LOOP; END $$").await;
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.erasures WHERE done_at IS NOT NULL").await, 2);
    assert_eq!(left(&bench).await, BTreeSet::new());

    // One that fails is put off, and said to be.
    let (broken, sound) = (bench.account(100).await, bench.account(100).await);
    for id in [broken, sound] {
        bench
            .sql(&format!(
                "SELECT punchcard.enqueue('{id}', 'unserved'); SELECT punchcard.erase_account('{id}')"
            ))
            .await;
    }
    bench
        .sql(&format!(
            "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''not today''; END';
             CREATE TRIGGER broken BEFORE DELETE ON punchcard.queue FOR EACH ROW WHEN (OLD.account_id = '{broken}')
             EXECUTE FUNCTION public.refuse()"
        ))
        .await;
    bench.sql("DO $$ BEGIN WHILE punchcard.erase_payloads() LOOP END LOOP; END $$").await;
    let state = async |id: Uuid| db.erasure(id, soon()).await.unwrap().unwrap();
    assert_eq!(state(broken).await.error.as_deref(), Some("not today"));
    assert!(state(sound).await.done_at.is_some(), "it keeps no other waiting");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_result_is_just_being_recorded_is_waited_for() {
    let bench = Bench::new().await;
    let account = bench.account(100).await;
    bench
        .sql(&format!(
            "SELECT punchcard.enqueue('{account}', 'unserved', '1', NULL, 0, NULL,
                 '{{\"webhook\":{{\"url\":\"https://example.com/{MARK}\",\"events\":[\"job.failed\"]}}}}');
             SELECT punchcard.settle(array_agg(c.job_id), array_agg(c.lease_token), '{{fail}}', '{{0}}', '{{NULL}}',
                 '{{\"{{\\\"code\\\":\\\"x\\\",\\\"message\\\":\\\"m\\\",\\\"attempt\\\":1}}\"}}')
             FROM punchcard.claim(5, '{{unserved}}', true, 60, 60) c"
        ))
        .await;
    let sender = connect(&bench.direct_url).await;
    sender
        .batch_execute(&format!(
            "SELECT FROM punchcard.claim_deliveries(10, 60);
             BEGIN;
             SELECT punchcard.settle_deliveries(array_agg(b.job_id), array_agg(b.id), array_agg(b.attempt), '{{give_up}}', '{{0}}',
                 '{{{MARK}}}', '{{NULL}}') FROM punchcard.outbox b"
        ))
        .await
        .unwrap();
    let db = bench.db();
    db.erase_account(account, soon()).await.unwrap();
    while db.erase_payloads(account, soon()).await.unwrap() {}
    let erasure = db.erasure(account, soon()).await.unwrap().unwrap();
    assert!(erasure.done_at.is_none() && erasure.error.is_some(), "{erasure:?}");
    sender.batch_execute("COMMIT").await.unwrap();
    assert!(!left(&bench).await.is_empty(), "in the deliveries, for one");
    while db.erase_payloads(account, soon()).await.unwrap() {}
    let erasure = db.erasure(account, soon()).await.unwrap().unwrap();
    assert!(erasure.done_at.is_some() && erasure.error.is_none(), "{erasure:?}");
    assert_eq!(left(&bench).await, BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_the_account_while_it_is_closed_is_refused_once_it_is() {
    let bench = Bench::new().await;
    for (shares, buy) in [
        (1, "SELECT job_id FROM punchcard.enqueue('{account}', 'qr.svg')"),
        (1, "SELECT id FROM punchcard.enqueue_batch('{account}', '[{\"kind\":\"qr.svg\"}]')"),
        (4, "SELECT job_id FROM punchcard.enqueue('{account}', 'qr.svg')"),
    ] {
        let account = bench.account(100).await;
        bench.sql(&format!("SELECT punchcard.spread_account('{account}', {shares})")).await;
        let (closing, buying) = (connect(&bench.direct_url).await, connect(&bench.direct_url).await);
        closing.batch_execute(&format!("BEGIN; SELECT punchcard.erase_account('{account}')")).await.unwrap();
        let buy = buy.replace("{account}", &account.to_string());
        let late = tokio::spawn(async move { buying.query_typed(&buy, &[]).await });
        bench.until_waiting_for_locks(1).await;
        closing.batch_execute("COMMIT").await.unwrap();
        let refused = late.await.unwrap().expect_err("it is closed");
        assert_eq!(refused.code().map(|code| code.code()), Some("PT403"), "{shares}: {refused:?}");
        assert_eq!(bench.balance(account).await, (100, 0));
    }
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_is_at_while_an_account_is_erased_is_canceled_once_they_are_done() {
    let bench = Bench::new().await;
    let account = bench.account(1_000).await;
    let mut ids = Vec::new();
    for number in 0..3 {
        let key = format!("job {number}");
        let job = json!({ "kind": "unserved", "input": { "text": MARK } });
        let answer = bench.post(account, job, Some(&key)).await;
        ids.push(answer.body["id"].as_str().unwrap().to_owned());
    }
    let worker = connect(&bench.direct_url).await;
    worker
        .batch_execute(&format!(
            "BEGIN; SELECT FROM punchcard.queue WHERE job_id = '{}' FOR NO KEY UPDATE",
            ids[1]
        ))
        .await
        .unwrap();
    let db = bench.db();
    db.erase_account(account, soon()).await.unwrap();
    while db.erase_payloads(account, soon()).await.unwrap() {}
    let erasure = db.erasure(account, soon()).await.unwrap().unwrap();
    assert_eq!(erasure.error, Some(format!("somebody was at job {}", ids[1])));
    assert_eq!((erasure.done_at, bench.count("SELECT count(*) FROM punchcard.queue").await), (None, 1));
    worker.batch_execute("COMMIT").await.unwrap();
    while db.erase_payloads(account, soon()).await.unwrap() {}
    let erasure = db.erasure(account, soon()).await.unwrap().unwrap();
    assert!(erasure.done_at.is_some() && erasure.error.is_none(), "{erasure:?}");
    assert_eq!((erasure.jobs, bench.count("SELECT count(*) FROM punchcard.queue").await), (3, 0));
    assert_eq!(left(&bench).await, BTreeSet::new());
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_was_cut_off_does_not_go_on_behind_the_erasure() {
    let bench = Bench::new().await;
    let (account, _) = full(&bench, 120).await;
    let id = account.to_string();
    let path = std::env::temp_dir().join(format!("export-{}.jsonl", Uuid::new_v4()));
    let file = path.to_str().unwrap();
    let export = ["accounts", "export", &id, "--out", file];
    said(&punchcard(&bench, &export));
    let whole = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    bench.db().erase_account(account, soon()).await.unwrap();
    assert!(refused(&punchcard(&bench, &export)).contains("ends where the account was erased"));
    std::fs::remove_file(&path).unwrap();
    said(&punchcard(&bench, &export));
    let first: Value =
        serde_json::from_str(std::fs::read_to_string(&path).unwrap().lines().next().unwrap()).unwrap();
    assert!(first["erased_at"].is_string() && first["shares"] == 0, "{first}");
    std::fs::remove_file(&path).unwrap();
    let nobody = Uuid::new_v4().to_string();
    assert!(
        refused(&punchcard(&bench, &["accounts", "export", &nobody, "--out", file]))
            .contains("no such account")
    );
    assert!(!path.exists());
}
