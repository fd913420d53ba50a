//! Claim and rescue read their own index, however long the history, the backlog and the wait; and a claim walks past
//! no dead row of an earlier one, even while a transaction elsewhere keeps vacuum from removing them.

use serde_json::Value;
use shared::db::STATEMENTS;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::support::{Bench, connect};

const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

impl Bench {
    /// Jobs due or delayed, without a price, inserted as `enqueue_batch` would.
    async fn fill(&self, count: usize, priorities: &str, run_at: &str) {
        self.sql(&format!(
            "WITH job AS MATERIALIZED (
                 SELECT punchcard.uuid_v7() AS id, {priorities} AS priority, {run_at} AS run_at, n, k.terms_id
                 FROM generate_series(1, {count}) AS n, punchcard.kinds k WHERE k.name = 'qr.svg'
             ), bought AS (
                 INSERT INTO punchcard.jobs (account_id, id, price, entry, available_after, held_after, share, terms_id, kind,
                                             priority, max_attempts, scheduled_at, expires_at, input)
                 SELECT '{NOBODY}', id, 0, n, 0, 0, 0, terms_id, 'qr.svg', priority, 3, run_at, now() + interval '40 days',
                        '{{}}'
                 FROM job
             )
             INSERT INTO punchcard.queue (job_id, account_id, share, kind, price, terms_id, priority, max_attempts, run_at,
                                          expires_at)
             SELECT id, '{NOBODY}', 0, 'qr.svg', 0, terms_id, priority, 3, run_at, now() + interval '40 days' FROM job"
        ))
        .await;
    }

    /// Finished jobs.
    async fn fill_history(&self, count: usize) {
        self.sql(&format!(
            "INSERT INTO punchcard.outcomes (job_id, account_id, share, entry, available_after, held_after, captured, status,
                                             attempt, finished_at, output)
             SELECT gen_random_uuid(), '{NOBODY}', 0, n, 0, 0, 0, 'succeeded', 1, now(), '{{}}' FROM generate_series(1, {count}) AS n"
        ))
        .await;
    }

    async fn vacuum(&self) {
        self.sql("VACUUM ANALYZE punchcard.queue").await;
        self.sql("VACUUM ANALYZE punchcard.jobs").await;
    }

    /// How many buffers a claim of 100 reads, from where `after` stands.
    async fn claim_buffers(&self, after: &str) -> i64 {
        let sql = format!(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM punchcard.claim(100, '{{qr.svg}}', true, 60, 60{after})"
        );
        let plan: Value = self.rows(&sql).await[0].get(0);
        let plan = &plan[0]["Plan"];
        assert_eq!(plan["Actual Rows"].as_f64(), Some(100.0), "{plan}");
        plan["Shared Hit Blocks"].as_i64().unwrap() + plan["Shared Read Blocks"].as_i64().unwrap()
    }

    /// The buffers that a statement reads, the second time, once `before` is done; all of it is undone.
    pub(super) async fn buffers_of(&self, before: &str, what: &str) -> i64 {
        // The first also reads the catalogues.
        let once = format!("BEGIN; {before}; EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {what}; ROLLBACK;");
        let messages = self.admin.simple_query(&format!("{once} {once}")).await.expect(what);
        let mut plans = messages.iter().filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        let plan: Value = serde_json::from_str(plans.next_back().unwrap()).unwrap();
        let plan = &plan[0]["Plan"];
        plan["Shared Hit Blocks"].as_i64().unwrap() + plan["Shared Read Blocks"].as_i64().unwrap()
    }

    /// What the planner makes of a query inside a function, under the function's own settings.
    async fn plan_inside(&self, function: &str, arguments: &[(&str, &str)]) -> String {
        let sql = format!(
            "SELECT prosrc, proconfig FROM pg_proc WHERE proname = '{function}' AND pronamespace = 'punchcard'::regnamespace"
        );
        let row = self.rows(&sql).await.remove(0);
        let (source, settings): (String, Vec<String>) = (row.get(0), row.get(1));
        // One statement, or the one that a procedure answers with.
        let query = source.split_once("RETURN QUERY").map_or(source.as_str(), |(_, query)| query);
        let mut query = query.split(';').next().unwrap().to_owned();
        for (name, value) in arguments {
            query = query.replace(name, value);
        }
        let settings: Vec<_> =
            settings.iter().map(|setting| format!("SET LOCAL {}", setting.replace("\"\"", "''"))).collect();
        self.explain(&settings.join("; "), &query).await
    }

    async fn explain(&self, settings: &str, query: &str) -> String {
        let messages =
            self.admin.simple_query(&format!("BEGIN; {settings}; EXPLAIN {query}; ROLLBACK")).await;
        let lines = messages.expect(query).into_iter().filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rescue_uses_its_index_beside_100_000_final_rows() {
    let bench = Bench::new().await;
    bench.fill_history(100_000).await;
    bench.fill(1_000, "0", "now()").await;
    bench.vacuum().await;
    let rescue = bench.plan_inside("lapsed", &[("p_limit", "1000"), ("p_busy", "'{}'::uuid[]")]).await;
    assert!(rescue.contains("queue_lapse") && !rescue.contains("Seq Scan on queue"), "{rescue}");
}

/// Nobody serves it here, or no longer: the worker has not the time that one of them may take.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_reads_none_of_a_backlog_that_it_does_not_serve() {
    let bench = Bench::new().await;
    bench.fill(200_000, "0", "now() - interval '1 hour'").await;
    bench.sql("INSERT INTO punchcard.kinds (name, price, timeout_seconds) VALUES ('long', 0, 600)").await;
    let account = bench.account(0).await;
    bench.sql(&format!("SELECT punchcard.enqueue('{account}', 'free')")).await;
    bench.vacuum().await;
    for (claim, due) in [
        ("punchcard.claim(100, '{free,unserved,long}', true, 60, 60)", 1.0),
        ("punchcard.claim(100, '{free,unserved,long}', true, 60, 60)", 0.0),
        ("punchcard.claim_singly(100, '{free,unserved,long}', true, 60, 60, false)", 0.0),
    ] {
        let sql = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM {claim}");
        let read = async || {
            let plan: Value = bench.rows(&sql).await[0].get(0);
            let plan = &plan[0]["Plan"];
            let buffers =
                plan["Shared Hit Blocks"].as_i64().unwrap() + plan["Shared Read Blocks"].as_i64().unwrap();
            (plan["Actual Rows"].as_f64().unwrap(), buffers)
        };
        let (rows, _) = read().await; // the first call of a backend also reads the catalogues
        assert_eq!(rows, due, "{claim}");
        let (_, buffers) = read().await;
        assert!(buffers <= 400, "{claim}: {buffers} buffers");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_costs_the_same_with_a_backlog_delayed_jobs_priorities_and_a_history() {
    let bench = Bench::new().await;
    // As many as give the indexes the height that they keep up to some ten million.
    bench.fill(100_000, "0", "now()").await;
    bench.vacuum().await;
    bench.claim_buffers("").await; // the first call of a backend also reads the catalogues
    let alone = bench.claim_buffers("").await;
    bench.fill(200_000, "0", "now()").await;
    bench.fill(50_000, "n % 10 - 5", "now() + n * interval '10 seconds' + interval '1 hour'").await;
    bench.fill_history(100_000).await;
    bench.vacuum().await;
    bench.claim_buffers("").await;
    let beside = bench.claim_buffers("").await;
    assert!(beside * 10 <= alone * 12, "{alone} buffers alone, {beside} beside the others");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_walks_past_no_dead_row_of_earlier_ones() {
    let bench = Bench::new().await;
    bench.fill(10_100, "0", "now() - interval '1 hour' + n * interval '1 microsecond'").await;
    bench.vacuum().await;
    // Keeps every row version that is dead from here on.
    let reader = connect(&bench.direct_url).await;
    reader
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM punchcard.kinds")
        .await
        .unwrap();
    let after = async || {
        let last = "SELECT (extract(epoch FROM run_at) * 1000000)::bigint::text || ''',''' || job_id
            FROM punchcard.queue WHERE lease_expires_at IS NOT NULL ORDER BY run_at DESC, job_id DESC LIMIT 1";
        let last: String = bench.rows(last).await[0].get(0);
        let (run_at, id) = last.split_once("','").unwrap();
        format!(", '{{qr.svg}}', '{{0}}', '{{{run_at}}}', '{{{id}}}'")
    };
    bench.claim_buffers("").await;
    let first = bench.claim_buffers(&after().await).await;
    for _ in 0..97 {
        bench.claim_buffers(&after().await).await;
    }
    let last = bench.claim_buffers(&after().await).await;
    assert!(last * 10 <= first * 12, "{first} buffers for the second claim, {last} for the hundredth");
    let from_the_start =
        bench.count("SELECT count(*) FROM punchcard.queue WHERE lease_expires_at IS NOT NULL").await;
    assert_eq!(from_the_start, 10_000);
}

/// As after each drain: the planner takes a table for empty that a vacuum found so, whatever has come since.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_reads_its_own_jobs_though_the_queue_was_vacuumed_while_it_was_empty() {
    let bench = Bench::new().await;
    bench.fill(2_000, "0", "now()").await;
    bench
        .sql("ALTER TABLE punchcard.queue SET (autovacuum_enabled = off); DELETE FROM punchcard.queue")
        .await;
    bench.sql("VACUUM ANALYZE punchcard.queue").await;
    bench.fill(20_000, "0", "now()").await;
    let all = "(SELECT array_agg(job_id) AS ids, array_agg(lease_token) AS tokens, array_agg(NULL::smallint) AS nothing,
                       array_agg(0::float8) AS zeros, array_agg('{}'::text) AS json, array_agg('retry'::text) AS retries,
                       array_agg('complete'::text) AS completes FROM leases) a";
    let read = "SELECT (seq_tup_read + idx_tup_fetch)::bigint FROM pg_stat_xact_user_tables
                WHERE relid = 'punchcard.queue'::regclass";
    for call in [
        "punchcard.check_in(a.ids, a.tokens, a.nothing, a.json, a.json)",
        "punchcard.settle(a.ids, a.tokens, a.retries, a.zeros, a.json, a.json)",
        "punchcard.settle(a.ids, a.tokens, a.completes, a.zeros, a.json, a.json, p_patience => 100)",
    ] {
        // In one transaction, before these counts go elsewhere.
        let messages = bench
            .admin
            .simple_query(&format!(
                "BEGIN; {read}; CREATE TEMPORARY TABLE leases ON COMMIT DROP AS
                     SELECT job_id, lease_token FROM punchcard.claim(100, '{{qr.svg}}', true, 60, 60);
                 {read}; SELECT count(*) FROM {all}, {call}; {read}; ROLLBACK"
            ))
            .await
            .expect(call);
        let counts: Vec<i64> = messages
            .iter()
            .filter_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
                _ => None,
            })
            .collect();
        let [before, claimed, done, all] = counts[..] else { panic!("{counts:?}") };
        assert_eq!(done, 100, "{call}");
        assert!(claimed - before <= 1_000, "a claim of 100 reads {} rows", claimed - before);
        assert!(all - claimed <= 1_000, "{call} of 100 jobs reads {} rows", all - claimed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_serves_nothing_reads_nothing() {
    let bench = Bench::new().await;
    bench.fill(20_000, "0", "now()").await;
    bench.vacuum().await;
    let sql =
        "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM punchcard.claim(100, '{qr.svg}', true, 0, 60)";
    bench.rows(sql).await; // the function's plans are made
    let plan: Value = bench.rows(sql).await[0].get(0);
    let plan = &plan[0]["Plan"];
    assert_eq!(plan["Actual Rows"].as_f64(), Some(0.0));
    let buffers = plan["Shared Hit Blocks"].as_i64().unwrap() + plan["Shared Read Blocks"].as_i64().unwrap();
    assert!(buffers < 50, "{buffers} buffers beside 20,000 due jobs that take longer than is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_of_one_job_reads_its_own_rows() {
    let bench = Bench::new().await;
    let account = bench.account(1).await;
    bench.fill(1_000, "0", "now()").await;
    bench.fill_history(100_000).await;
    bench.sql("VACUUM ANALYZE punchcard.outcomes").await;
    bench.vacuum().await;
    bench.enqueue(account, "qr.svg", 1).await;
    let job: Uuid =
        bench.rows(&format!("SELECT id FROM punchcard.jobs WHERE account_id = '{account}'")).await[0].get(0);
    let nobody: Option<Uuid> = None;
    // Of an account, and of any.
    for (name, rows, most) in
        [("jobs/is_final", 1.0, 10), ("jobs/find", 1.0, 40), ("life/runs", 0.0, 20), ("life/events", 1.0, 40)]
    {
        let (_, sql) = STATEMENTS.iter().find(|(its, _)| *its == name).unwrap();
        let sql = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}");
        for owner in [Some(account), nobody] {
            let mut params = vec![(&job as _, Type::UUID), (&owner as _, Type::UUID)];
            if matches!(name, "life/events" | "life/runs") {
                params.extend([(&0_i64 as _, Type::INT8), (&100_i64 as _, Type::INT8)]);
            }
            if name == "life/runs" {
                params.push((&100_i64 as _, Type::INT8));
            }
            let plan: Value = bench.admin.query_typed(&sql, &params).await.unwrap()[0].get(0);
            let plan = &plan[0]["Plan"];
            assert_eq!(plan["Actual Rows"].as_f64(), Some(rows), "{name}: {plan}");
            let buffers =
                plan["Shared Hit Blocks"].as_i64().unwrap() + plan["Shared Read Blocks"].as_i64().unwrap();
            assert!(buffers <= most, "{name}: {buffers} buffers: {plan:#}");
        }
    }
}

/// Signed-in users through PostgREST: row security is the barrier, and their view is planned with what is asked of it; what it
/// would look for in all that they have, their function finds.
#[tokio::test(flavor = "multi_thread")]
async fn a_users_page_of_their_view_reads_no_more_than_the_page() {
    let bench = Bench::new().await;
    bench.fill(20_000, "0", "now()").await;
    bench.fill_history(20_000).await;
    bench.vacuum().await;
    bench.sql("VACUUM ANALYZE punchcard.outcomes").await;
    let user = format!(
        "SET LOCAL request.jwt.claims = '{{\"sub\":\"{NOBODY}\",\"role\":\"authenticated\"}}';
         SET LOCAL ROLE authenticated"
    );
    // As one that was looked at while it was empty.
    let empty = "UPDATE pg_class SET reltuples = 0 WHERE oid = 'punchcard.queue'::regclass";
    for (what, most) in [
        ("SELECT * FROM punchcard_api.jobs ORDER BY id DESC LIMIT 20", 300),
        ("SELECT * FROM punchcard_api.credits", 20),
        ("SELECT punchcard_api.find_jobs()", 600),
        ("SELECT punchcard_api.find_jobs('queued')", 600),
        ("SELECT punchcard_api.find_jobs('failed')", 600),
        ("SELECT punchcard_api.find_jobs('canceled')", 600),
        ("SELECT punchcard_api.find_jobs(p_kind => 'unserved')", 1_500),
        ("SELECT punchcard_api.find_jobs(p_labels => '{none,at_all}')", 1_500),
        ("SELECT punchcard_api.find_jobs('running')", 55_000),
        ("SELECT punchcard_api.find_jobs('succeeded')", 55_000),
    ] {
        let befores = [user.clone(), format!("{empty}; {user}")];
        // The view is planned by what the statistics say.
        for before in befores.iter().take(if what.contains("find_jobs") { 2 } else { 1 }) {
            let buffers = bench.buffers_of(before, what).await;
            assert!(buffers <= most, "{what}: {buffers} buffers after {before}");
        }
    }
}
