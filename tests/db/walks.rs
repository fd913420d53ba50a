//! What is asked of a long history reads no more than a bounded part of it, and whoever goes on from page to page is told all.

use serde_json::{Value, json};
use shared::db::STATEMENTS;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use crate::{
    cli::{punchcard, said},
    support::{Bench, event},
};

/// Buffers that one look at a history may read: some four for each of the 10,000 jobs that it walks past.
const MOST_BUFFERS: i64 = 55_000;
const FEW_BUFFERS: i64 = 1_500;

impl Bench {
    /// So many thousands of jobs of `kind`, each job `options` as more members, bought and, unless `verdict` is empty, ended by it.
    async fn history(&self, account: Uuid, kind: &str, thousands: usize, options: &str, verdict: &str) {
        self.sql(&format!(
            "SELECT count(*) FROM generate_series(1, {thousands}) t (n), LATERAL punchcard.enqueue_batch('{account}', (
                 SELECT json_agg(jsonb_build_object('kind', '{kind}') || {options})
                 FROM generate_series(t.n, t.n + 999) n))"
        ))
        .await;
        for _ in 0..if verdict.is_empty() { 0 } else { thousands } {
            self.sql(&format!(
                "SELECT count(*) FROM (
                     SELECT array_agg(c.job_id) AS ids, array_agg(c.lease_token) AS tokens, array_agg('{verdict}'::text) AS verdicts,
                            array_agg(0::float8) AS delays, array_agg('1'::text) AS outputs,
                            array_agg('{{\"code\":\"target_error\"}}'::text) AS errors
                     FROM punchcard.claim(1000, '{{{kind}}}', true, 60, 60) c) v,
                     punchcard.settle(v.ids, v.tokens, v.verdicts, v.delays, v.outputs, v.errors) s"
            ))
            .await;
        }
    }

    async fn analyze(&self) {
        // As the autovacuum would have by then.
        self.sql("VACUUM ANALYZE").await;
    }

    /// The buffers that a statement reads.
    async fn buffers(&self, name: &str, params: &[(&(dyn ToSql + Sync), Type)]) -> i64 {
        let (_, sql) = STATEMENTS.iter().find(|(its, _)| *its == name).expect(name);
        let sql = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}");
        // Twice: the first also reads the catalogues.
        self.admin.query_typed(&sql, params).await.expect(name);
        let plan: Value = self.admin.query_typed(&sql, params).await.expect(name)[0].get(0);
        let plan = &plan[0]["Plan"];
        plan["Shared Hit Blocks"].as_i64().unwrap() + plan["Shared Read Blocks"].as_i64().unwrap()
    }

    async fn list_buffers(
        &self,
        account: Uuid,
        status: Option<&str>,
        kind: Option<&str>,
        labels: &[&str],
    ) -> i64 {
        let params = [
            (&account as &(dyn ToSql + Sync), Type::UUID),
            (&status, Type::TEXT),
            (&kind, Type::TEXT),
            (&None::<Uuid>, Type::UUID),
            (&labels, Type::TEXT_ARRAY),
            (&20_i64, Type::INT8),
            (&2_500_000_i64, Type::INT8),
            (&None::<&str>, Type::TEXT),
            (&None::<&str>, Type::TEXT),
            (&true, Type::BOOL),
            (&true, Type::BOOL),
        ];
        self.buffers("jobs/list", &params).await
    }

    /// The ids of a whole list, and in how many pages it comes.
    async fn pages(&self, account: Uuid, query: &str) -> (Vec<String>, usize) {
        let (mut ids, mut count, mut cursor) = (Vec::new(), 0, String::new());
        loop {
            let answer = self.get(account, &format!("/api/jobs?limit=20&{query}{cursor}")).await;
            assert_eq!(answer.status, 200, "{query}: {}", answer.body);
            let data = answer.body["data"].as_array().unwrap();
            ids.extend(data.iter().map(|job| job["id"].as_str().unwrap().to_owned()));
            count += 1;
            let Some(next) = answer.body["next_cursor"].as_str() else { return (ids, count) };
            cursor = format!("&cursor={next}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_walks_a_bounded_part_of_the_history_whatever_is_asked() {
    let bench = Bench::new().await;
    let (account, other) = (bench.account(20).await, bench.account(0).await);
    let buy = async |wanted: Value| {
        let answer = bench.post(account, wanted, None).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
        answer.body["id"].as_str().unwrap().to_owned()
    };
    // The oldest: one that was canceled, and one of another kind that waits on.
    let canceled = buy(json!({ "kind": "free", "tags": ["old", "even"] })).await;
    assert_eq!(bench.act(account, &format!("/api/jobs/{canceled}/cancel")).await.status, 200);
    let waits = buy(json!({ "kind": "unserved", "tags": ["old", "odd"] })).await;
    let tags = "jsonb_build_object('tags', jsonb_build_array('all', CASE WHEN n % 2 = 0 THEN 'even' ELSE 'odd' END))";
    bench.history(account, "free", 22, tags, "complete").await;
    bench.analyze().await;

    let none: &[&str] = &[];
    for (of, status, kind, labels, most) in [
        (account, None, None, none, FEW_BUFFERS),
        (account, Some("queued"), None, none, MOST_BUFFERS),
        (account, Some("running"), None, none, MOST_BUFFERS),
        (account, Some("failed"), None, none, FEW_BUFFERS),
        (account, Some("canceled"), None, none, FEW_BUFFERS),
        (account, None, Some("unserved"), none, MOST_BUFFERS),
        (account, Some("failed"), Some("qr.svg"), none, FEW_BUFFERS),
        (account, None, None, &["all"], FEW_BUFFERS),
        (account, None, None, &["even", "odd"], MOST_BUFFERS),
        (account, None, None, &["all", "odd", "even"], MOST_BUFFERS),
        (account, None, None, &["all", "old"], FEW_BUFFERS),
        (account, None, None, &["odd", "all", "old"], FEW_BUFFERS),
        (account, Some("canceled"), None, &["all"], MOST_BUFFERS),
        (account, Some("queued"), None, &["all"], MOST_BUFFERS),
        (account, None, Some("unserved"), &["all"], MOST_BUFFERS),
        (other, Some("queued"), None, none, FEW_BUFFERS),
        (other, Some("failed"), None, none, FEW_BUFFERS),
    ] {
        let buffers = bench.list_buffers(of, status, kind, labels).await;
        assert!(buffers <= most, "{status:?} {kind:?} {labels:?}: {buffers} buffers");
    }
    // Short pages, even empty ones, and nothing is left out.
    let (waits, canceled) = (vec![waits], vec![canceled]);
    for (query, ids, count) in [
        ("status=queued", &waits, 3),
        ("status=canceled", &canceled, 1),
        ("kind=unserved", &waits, 3),
        ("status=failed", &vec![], 1),
        ("label=even&label=odd", &vec![], 2),
        ("label=old", &[waits.clone(), canceled.clone()].concat(), 1),
        ("label=even&label=all&label=old", &vec![], 1),
        ("label=old&label=even", &canceled, 1),
        ("label=old&status=queued", &waits, 1),
        ("label=even&status=canceled", &canceled, 2),
    ] {
        assert_eq!(bench.pages(account, query).await, (ids.clone(), count), "{query}");
    }
    assert_eq!(bench.pages(other, "status=queued").await, (vec![], 1));

    // What is new is found at once; and where the account counts no more, nobody looks for more.
    let mut queued = waits.clone();
    for _ in 0..25 {
        queued.insert(0, buy(json!({ "kind": "free" })).await);
    }
    assert_eq!(bench.pages(account, "status=queued").await.0, queued);
    assert_eq!(bench.act(account, &format!("/api/jobs/{}/cancel", waits[0])).await.status, 200);
    queued.pop();
    assert_eq!(bench.pages(account, "status=queued").await, (queued.clone(), 2));
    assert_eq!(bench.pages(account, "status=queued&kind=free").await, (queued.clone(), 2));
    assert_eq!(bench.pages(account, "status=running").await, (vec![], 1));
    for status in ["queued", "running"] {
        let buffers = bench.list_buffers(account, Some(status), None, none).await;
        assert!(buffers <= FEW_BUFFERS, "{status}: {buffers} buffers");
    }
    let listed = said(&punchcard(&bench, &["jobs", "list", &account.to_string(), "--status", "canceled"]));
    assert_eq!(listed.lines().count(), 2, "the command looks on: {listed}");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_and_the_dead_letters_go_on_behind_ten_thousand_of_another_kind() {
    let bench = Bench::new().await;
    let (account, mine) = (bench.account(0).await, bench.account(10).await);
    let operator = bench.service_token("operator", &["operate"]).await;
    let fail = async || {
        let job = bench.post(mine, json!({ "kind": "qr.svg", "input": {} }), None).await;
        bench.poller().invoke(&json!({})).await.unwrap();
        job.body["id"].as_str().unwrap().to_owned()
    };
    let oldest = fail().await;
    bench.history(account, "free", 11, "'{}'", "fail").await;
    let newest = fail().await;
    bench.analyze().await;

    let ids = |listed: &str| -> Vec<String> {
        let id = |line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
        listed.lines().map(id).collect()
    };
    let run = |args: &[&str]| ids(&said(&punchcard(&bench, &[&["jobs"], args].concat())));
    assert_eq!(run(&["failed", "--kind", "qr.svg"]), [&*newest, &oldest]);
    assert_eq!(run(&["failed", "--kind", "qr.svg", "--limit", "1"]), [&*newest]);
    assert_eq!(run(&["redrive", "qr.svg", "--dry-run"]), [&*oldest, &newest]);
    assert_eq!(run(&["redrive", "qr.svg", "--dry-run", "--account", &account.to_string()]), [""; 0]);
    assert_eq!(run(&["failed", "--limit", "10500"]).len(), 10_500);

    let none = None::<&str>;
    let params: [(&(dyn ToSql + Sync), Type); 8] = [
        (&"unserved", Type::TEXT),
        (&none, Type::TEXT),
        (&none, Type::TEXT),
        (&none, Type::TEXT),
        (&none, Type::TEXT),
        (&50_i64, Type::INT8),
        (&none, Type::TEXT),
        (&None::<Uuid>, Type::UUID),
    ];
    let mut params = params.to_vec();
    params[2] = (&None::<Uuid>, Type::UUID);
    for name in ["life/failed", "life/redrivable"] {
        let buffers = bench.buffers(name, &params).await;
        assert!(buffers <= 90_000, "{name}: {buffers} buffers");
    }
    // A page that is full walks no further, and of whom nobody asks for the job is not looked up.
    params[0] = (&none, Type::TEXT);
    let nobody = Some(Uuid::nil());
    let (all, mut of_nobody, mut of_no_code) = (params.clone(), params.clone(), params.clone());
    of_nobody[2] = (&nobody, Type::UUID);
    of_no_code[1] = (&"no_such_code", Type::TEXT);
    for name in ["life/failed", "life/redrivable"] {
        for (asked, most) in [(&all, FEW_BUFFERS), (&of_nobody, 22_000), (&of_no_code, 22_000)] {
            let buffers = bench.buffers(name, asked).await;
            assert!(buffers <= most, "{name}: {buffers} buffers");
        }
    }
    for (call, most) in [
        ("'free', p_limit => 1", FEW_BUFFERS),
        ("'free', 'no_such_code'", 22_000),
        ("'free', p_account_id => '00000000-0000-0000-0000-000000000000'", 22_000),
        ("'unserved'", 90_000),
    ] {
        let buffers = bench.buffers_of("", &format!("SELECT * FROM punchcard.redrive({call})")).await;
        assert!(buffers <= most, "redrive({call}): {buffers} buffers");
    }

    let redrive = async |cursor: Value| {
        let token = format!("Bearer {operator}");
        let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
        let body = json!({ "kind": "qr.svg", "limit": 1000, "cursor": cursor }).to_string();
        let answer = bench.request(event("POST", "/api/jobs:retry", &headers, Some(&body))).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let told = answer.body["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|job| job["job_id"].as_str().unwrap().to_owned());
        (told.collect::<Vec<_>>(), answer.body["next_cursor"].clone())
    };
    let (first, cursor) = redrive(Value::Null).await;
    assert_eq!((first, cursor.is_string()), (vec![oldest], true), "and there may be more");
    assert_eq!(redrive(cursor).await, (vec![newest], Value::Null));
    // Those were retried; now a look that finds none goes on all the same.
    let (none, cursor) = redrive(Value::Null).await;
    assert_eq!((none.len(), cursor.is_string()), (0, true));
    assert_eq!(redrive(cursor).await, (vec![], Value::Null));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_bought_again_reads_its_own_rows_whatever_the_statistics_say() {
    let bench = Bench::new().await;
    let account = bench.account(0).await;
    bench.history(account, "free", 20, "'{}'", "").await;
    let again = format!(
        "SELECT * FROM punchcard.enqueue_batch('{account}', (
             SELECT json_agg(json_build_object('kind', 'free', 'input', n)) FROM generate_series(1, 1000) n), 'again')"
    );
    bench.sql(&again).await;
    bench.analyze().await;
    // And without statistics, but for a queue that was looked at while it was empty.
    let none = "DELETE FROM pg_statistic;
        UPDATE pg_class SET reltuples = 0 WHERE oid = 'punchcard.queue'::regclass";
    for before in ["", none] {
        let buffers = bench.buffers_of(before, &again).await;
        assert!(buffers <= 12_000, "{buffers} buffers after {before:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_messages_of_a_job_and_those_that_were_not_heard_are_found_by_an_index() {
    let bench = Bench::new().await;
    let account = bench.account(1).await;
    bench.enqueue(account, "qr.svg", 1).await;
    let job: Uuid = bench.rows("SELECT id FROM punchcard.jobs_now").await[0].get(0);
    // One that was given up, and then as many as a job has that is put off every minute for a fortnight.
    bench
        .sql(&format!(
            "INSERT INTO punchcard.deliveries (id, account_id, job_id, created_at, event, url, attempt, put_back, gone,
                                               delivered_at, error)
             SELECT punchcard.uuid_v7(), '{account}', '{job}', now(), 'job.running', 'https://example.com/', 1, 0, false,
                    CASE WHEN n > 0 THEN now() END, CASE WHEN n = 0 THEN 'the receiver answered 500' END
             FROM generate_series(0, 20000) n"
        ))
        .await;
    bench.analyze().await;
    let (owner, nobody) = (Some(account), None::<Uuid>);
    let page: [(&(dyn ToSql + Sync), Type); 4] =
        [(&job, Type::UUID), (&owner, Type::UUID), (&nobody, Type::UUID), (&100_i64, Type::INT8)];
    let buffers = bench.buffers("webhooks/deliveries", &page).await;
    assert!(buffers <= 150, "deliveries: {buffers} buffers");
    for of in [owner, nobody] {
        let unheard: [(&(dyn ToSql + Sync), Type); 3] =
            [(&of, Type::UUID), (&50_i64, Type::INT8), (&nobody, Type::UUID)];
        let buffers = bench.buffers("webhooks/undelivered", &unheard).await;
        assert!(buffers <= 60, "undelivered: {buffers} buffers");
    }
    let listed = said(&punchcard(&bench, &["webhooks", "failed", "--account", &account.to_string()]));
    assert!(listed.lines().count() == 1 && listed.contains("answered 500"), "{listed}");
    let first = bench.get(account, &format!("/api/jobs/{job}/deliveries?limit=100")).await;
    assert_eq!(first.body["data"].as_array().unwrap().len(), 100);
    assert!(first.body["next_cursor"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_reads_no_shift_and_all_else_in_it_is_found() {
    let bench = Bench::new().await;
    let account = bench.account(1_000).await;
    // Dealt over 64 shares, and back, time and again: 64 shifts each time.
    for _ in 0..20 {
        bench
            .sql(&format!(
                "SELECT count(punchcard.spread_account('{account}', CASE WHEN n % 2 = 0 THEN 1 ELSE 64 END))
                 FROM generate_series(1, 50) n"
            ))
            .await;
    }
    let shifts =
        format!("SELECT count(*) FROM punchcard.ledger WHERE account_id = '{account}' AND kind = 'shift'");
    assert_eq!(bench.count(&shifts).await, 64_000);
    bench.analyze().await;
    let page: [(&(dyn ToSql + Sync), Type); 5] = [
        (&account, Type::UUID),
        (&None::<i64>, Type::INT8),
        (&None::<Uuid>, Type::UUID),
        (&None::<i16>, Type::INT2),
        (&20_i64, Type::INT8),
    ];
    let buffers = bench.buffers("credits/entries", &page).await;
    // A look at each month is among them.
    assert!(buffers <= 150, "{buffers} buffers");

    let pages = async || {
        let (mut pages, mut cursor) = (Vec::new(), String::new());
        loop {
            let answer = bench.get(account, &format!("/api/credits/ledger?limit=20{cursor}")).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            let kinds = answer.body["data"].as_array().unwrap().iter().map(|entry| entry["kind"].clone());
            pages.push(kinds.collect::<Vec<_>>());
            let Some(next) = answer.body["next_cursor"].as_str() else { return pages };
            cursor = format!("&cursor={next}");
        }
    };
    assert_eq!(pages().await, [[json!("grant")]]);
    for _ in 0..2 {
        bench.enqueue(account, "qr.svg", 1).await;
    }
    assert_eq!(pages().await, [[json!("hold"), json!("hold"), json!("grant")]]);
    let buffers = bench
        .buffers(
            "credits/entries",
            &[page[0].clone(), page[1].clone(), page[2].clone(), page[3].clone(), (&2_i64, Type::INT8)],
        )
        .await;
    assert!(buffers <= 100, "a page that is full walks no further: {buffers} buffers");
    let shown = said(&punchcard(&bench, &["credits", "show", &account.to_string()]));
    assert!(
        shown.lines().count() == 4 && shown.contains(r#""kind":"grant""#),
        "the command looks on: {shown}"
    );
    bench.assert_audit_is_clean().await;
}
