//! What a plain job's life costs, in counts that no noise touches, against the record in `infra/bench/baseline.json`: a capability
//! that a job does not use costs it nothing. Whoever makes one of them grow has to say so in the record, and why in an ADR.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};

use crate::support::Bench;

/// By how much a count may exceed the record: pages split here and there.
const MOST: f64 = 1.03;
const JOBS: usize = 2_000;

/// The WAL records and bytes that a query costs for each job. Page images after a checkpoint, which comes when it comes, count
/// apart. Buffers are no such count: a statement whose plan is made anew, since a table was analyzed meanwhile, reads the
/// catalogues, and more of them for each month that there is.
async fn cost(bench: &Bench, query: &str) -> BTreeMap<&'static str, f64> {
    let sql = format!("EXPLAIN (ANALYZE, WAL, FORMAT JSON) {query}");
    let plan: Value = bench.admin.query_typed(&sql, &[]).await.expect(query)[0].get(0);
    let plan = &plan[0]["Plan"];
    let each = |what: &str| plan[what].as_f64().expect(what) / JOBS as f64;
    [
        ("wal_records", each("WAL Records")),
        ("wal_bytes", each("WAL Bytes")),
        ("wal_page_images", each("WAL FPI")),
    ]
    .into()
}

/// A job of each of so many accounts: none is bought from twice in one transaction, in which no dead row can go.
const ENQUEUE: &str =
    "SELECT count(punchcard.enqueue(a.id, 'plain', to_json(repeat('x', 198)))) FROM payers a";

const BATCHES: &str = "SELECT count(b.id)
    FROM (SELECT a.id FROM payers a ORDER BY a.id LIMIT 2) a,
         (SELECT json_agg(json_build_object('kind', 'plain', 'input', repeat('x', 198))) AS jobs FROM generate_series(1, 1000)) j,
         LATERAL punchcard.enqueue_batch(a.id, j.jobs) b";

/// Four claims and four settles, as a worker sends them, one after the other.
const CLAIM: &str = "SELECT count(c.job_id) FROM generate_series(1, 4) n,
    LATERAL punchcard.claim(500, '{plain}', false, 60, 60 + n * 0) c";
const SETTLE: &str = "SELECT count(s.job_id) FROM (
        SELECT array_agg(q.job_id) AS ids, array_agg(q.lease_token) AS tokens, array_agg('complete'::text) AS verdicts,
               array_agg(0::float8) AS delays, array_agg(to_json(repeat('x', 198))::text) AS outputs,
               array_agg(NULL::text) AS errors
        FROM (SELECT q.job_id, q.lease_token, row_number() OVER (ORDER BY q.job_id) % 4 AS part
              FROM punchcard.queue q WHERE q.lease_expires_at IS NOT NULL) q GROUP BY q.part) c,
    punchcard.settle(c.ids, c.tokens, c.verdicts, c.delays, c.outputs, c.errors) s";

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_jobs_life_costs_what_is_on_record() {
    let bench = Bench::new().await;
    bench.sql("INSERT INTO punchcard.kinds (name, price) VALUES ('plain', 1)").await;
    // What runs in the background is no part of it: while it looks, no dead row can go, and an account's next version gets no
    // room beside the last.
    bench
        .sql(
            "DO $$ DECLARE t regclass; BEGIN
                 FOR t IN SELECT oid FROM pg_class WHERE relnamespace = 'punchcard'::regnamespace AND relkind = 'r' LOOP
                     EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off)', t);
                 END LOOP;
             END $$",
        )
        .await;
    let payers = format!(
        "CREATE TEMPORARY TABLE payers AS
             SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid AS id FROM generate_series(1, {JOBS}) n;
         SELECT count(punchcard.grant_credits(p.id, 1000000, 'start')) FROM payers p"
    );
    bench.sql(&payers).await;
    let steps = [("enqueue", ENQUEUE), ("claim", CLAIM), ("settle", SETTLE), ("enqueue_batch", BATCHES)];
    // The first round writes page images, reads the catalogues, and fills the tables: what the later ones cost stays as it is. Of
    // each count the least of them is its cost.
    let mut costs: BTreeMap<&str, BTreeMap<&str, f64>> = BTreeMap::new();
    for round in 0..4 {
        for (step, query) in &steps {
            let cost = cost(&bench, query).await;
            if round == 0 {
                continue;
            }
            let least = costs.entry(*step).or_default();
            for (what, count) in cost {
                let least = least.entry(what).or_insert(count);
                *least = least.min(count);
            }
        }
        bench.sql(CLAIM).await;
        bench.sql(SETTLE).await;
        bench.sql("VACUUM punchcard.queue, punchcard.accounts").await;
    }
    bench.assert_audit_is_clean().await;

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/bench/baseline.json");
    let rounded = |count: f64| (count * 100.0).round() / 100.0;
    let found: BTreeMap<&str, BTreeMap<&str, f64>> = costs
        .iter()
        .map(|(step, counts)| (*step, counts.iter().map(|(what, count)| (*what, rounded(*count))).collect()))
        .collect();
    println!("{}", serde_json::to_string_pretty(&json!(found)).unwrap());
    if std::env::var_os("PUNCHCARD_RECORD").is_some() {
        fs::write(&file, serde_json::to_string_pretty(&json!(found)).unwrap() + "\n").unwrap();
    }
    let record: BTreeMap<String, BTreeMap<String, f64>> =
        serde_json::from_str(&fs::read_to_string(&file).expect("the record")).expect("the record");
    for (step, counts) in &found {
        for (what, count) in counts {
            let recorded = record[*step][*what];
            assert!(
                *count <= recorded * MOST + 0.01,
                "{step}: {what} is {count} a job, and {recorded} on record (PUNCHCARD_RECORD=1 writes a new one)"
            );
        }
    }
}
