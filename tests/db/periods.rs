//! Tables that are kept by month: months are made ahead while everybody goes on, whatever happened meanwhile.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use serde_json::json;
use shared::db::schema::FUNCTIONS;
use uuid::Uuid;

use crate::support::{APP, Bench, OWNER, as_role, connect};

const TABLES: &str = "SELECT of_table, count(*) FILTER (WHERE NOT is_spare) AS others,
        count(*) FILTER (WHERE is_spare) AS spare, bool_and(first_id IS NOT NULL) AS bounded
    FROM punchcard.periods GROUP BY of_table ORDER BY of_table";

/// The months of a database that was made so many days ago, and has seen no tick since.
async fn age(bench: &Bench, days: u32) {
    let (_, source) = FUNCTIONS.iter().find(|(name, _)| *name == "make_periods").unwrap();
    let aged = source.replace("now()", &format!("(now() - interval '{days} days')"));
    assert_ne!(&aged, source);
    let drop = "DO $$ DECLARE t text; BEGIN FOR t IN SELECT name FROM punchcard.periods LOOP
        EXECUTE format('DROP TABLE punchcard.%I', t); END LOOP; END $$";
    bench.sql(drop).await;
    for sql in [&aged, "DO $$ BEGIN WHILE punchcard.make_periods() LOOP END LOOP; END $$", *source] {
        bench.sql(sql).await;
    }
}

async fn buy(bench: &Bench, account: Uuid) -> Uuid {
    let buy = format!("SELECT job_id FROM punchcard.enqueue('{account}', 'qr.svg', '{{\"text\":\"t\"}}')");
    bench.rows(&buy).await[0].get(0)
}

/// The table that a job is in.
async fn table_of(bench: &Bench, job: Uuid) -> String {
    bench.rows(&format!("SELECT tableoid::regclass::text FROM punchcard.jobs WHERE id = '{job}'")).await[0]
        .get(0)
}

async fn tick(bench: &Bench) {
    bench.sql("UPDATE punchcard.upkeep SET next_at = now()").await;
    bench.poller().invoke(&json!({})).await.expect("a tick");
}

const DOCTOR: &str = include_str!("../../shared/src/doctor/upkeep.sql");

/// Of how many tables the months reach far ahead.
const FAR: &str = "SELECT count(*) FROM punchcard.periods
    WHERE is_spare AND first_id > punchcard.first_id(now() + interval '120 days')";

#[tokio::test(flavor = "multi_thread")]
async fn months_are_there_ahead_and_each_job_is_in_its_own() {
    let bench = Bench::new().await;
    let tables = bench.rows(TABLES).await;
    let names: Vec<String> = tables.iter().map(|row| row.get(0)).collect();
    assert_eq!(names, ["attempts", "deliveries", "jobs", "labels", "outcomes"]);
    for row in &tables {
        // Before, seven months, the spare, and what tells no time.
        assert_eq!((row.get::<_, i64>(1), row.get::<_, i64>(2), row.get::<_, bool>(3)), (9, 1, false));
    }
    assert_eq!(bench.count(FAR).await, 5);
    // Each may be read by whom its table lets alone, whoever may name it.
    let open = "SELECT count(*) FROM pg_class c WHERE c.relispartition AND c.relkind = 'r'
            AND c.relnamespace = 'punchcard'::regnamespace
            AND NOT (c.relrowsecurity AND c.relforcerowsecurity
                     AND NOT has_table_privilege('punchcard_app', c.oid, 'SELECT, INSERT, UPDATE, DELETE'))";
    assert_eq!(bench.count(open).await, 0);

    let account = bench.account(10).await;
    let job = buy(&bench, account).await;
    let month = "SELECT 'punchcard.jobs_' || to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM')";
    let month: String = bench.rows(month).await[0].get(0);
    assert_eq!(table_of(&bench, job).await, month);
    // And nothing of it changes, in whichever table it is.
    for table in ["punchcard.jobs", month.as_str()] {
        let change = format!("UPDATE {table} SET price = 0 WHERE id = '{job}'");
        let why = bench.admin.batch_execute(&change).await.unwrap_err();
        let why = why.as_db_error().unwrap().message().to_owned();
        assert_eq!(
            why,
            format!("update on {month} is refused: what was bought stays as it was; it is in the ledger")
        );
    }
    let empty = bench.admin.batch_execute(&format!("TRUNCATE {month}")).await.unwrap_err();
    let why = empty.as_db_error().unwrap().message().to_owned();
    assert_eq!(why, format!("truncate on {month} is refused: what was bought is in the ledger"));
    // Once a day, or ten times at once, there is nothing to do.
    let app = connect(&as_role(&bench.direct_url, APP)).await;
    bench.sql("UPDATE punchcard.upkeep SET next_at = now()").await;
    for _ in 0..2 {
        let more = app.query_typed("SELECT punchcard.keep_up('periods', 3600) AS more", &[]).await.unwrap();
        assert!(!more[0].get::<_, bool>("more"));
    }
    let done = "SELECT count(*) FROM punchcard.upkeep
        WHERE task = 'periods' AND error IS NULL AND done_at = now() - (now() - done_at)
          AND next_at BETWEEN now() + interval '50 minutes' AND now() + interval '60 minutes'";
    assert_eq!(bench.count(done).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_saw_no_tick_for_months_sells_and_catches_up() {
    // Within its months, behind them, and long behind them.
    for days in [125, 300, 800] {
        let bench = Bench::new().await;
        age(&bench, days).await;
        let account = bench.account(10).await;
        let bought = buy(&bench, account).await;
        let in_spare = table_of(&bench, bought).await.contains("_from_");
        assert_eq!(in_spare, days > 220, "{days} days");
        // What is of an old system tells any time, among them one of a month to come.
        bench
            .sql(&format!(
                "INSERT INTO punchcard.labels (account_id, label, job_id)
                 SELECT '{account}', 'old', id FROM unnest(ARRAY[
                     punchcard.uuid_v7(now() + interval '100 days'), punchcard.uuid_v7(now() + interval '20 years'),
                     'f47ac10b-58cc-4372-8567-0e02b2c3d479']) id"
            ))
            .await;
        let said = bench.rows(DOCTOR).await;
        assert_eq!(said.len(), 5, "{days} days: {said:?}");

        tick(&bench).await;
        let tables = bench.rows(TABLES).await;
        assert!(tables.len() == 5 && tables.iter().all(|row| row.get::<_, i64>(2) == 1));
        assert_eq!(bench.count(FAR).await, 5, "{days} days");
        assert_eq!(bench.rows(DOCTOR).await.len(), 0);
        // All is in its place, and in the spare table only what is of a time behind the months.
        let done =
            format!("SELECT count(*) FROM punchcard.jobs_now WHERE id = '{bought}' AND status = 'succeeded'");
        assert_eq!(bench.count(&done).await, 1);
        let labels = "SELECT string_agg(split_part(tableoid::regclass::text, '_', 2), ' ' ORDER BY job_id)
            FROM punchcard.labels";
        let labels: String = bench.rows(labels).await[0].get(0);
        assert!(labels.starts_with("20") && labels.ends_with(" from of"), "{days} days: {labels}");
        let next = buy(&bench, account).await;
        assert!(!table_of(&bench, next).await.contains("_from_"));
        bench.assert_audit_is_clean().await;
    }
}

/// Ten ticks at once take each step once, while others buy and finish jobs, and list them: nobody fails.
#[tokio::test(flavor = "multi_thread")]
async fn the_spare_table_is_swapped_under_traffic_by_ten_at_once() {
    let bench = Bench::new().await;
    age(&bench, 300).await;
    let account = bench.account(1_000_000).await;
    let (stop, bought) = (AtomicBool::new(false), AtomicU64::new(0));
    let url = as_role(&bench.direct_url, APP);
    let buyer = async {
        let client = connect(&url).await;
        while !stop.load(Ordering::Relaxed) {
            let buy = format!("SELECT job_id FROM punchcard.enqueue('{account}', 'qr.svg', '{{}}')");
            client.query_typed(&buy, &[]).await.expect("bought");
            bought.fetch_add(1, Ordering::Relaxed);
            let list = format!("SELECT count(*) FROM punchcard.jobs_now WHERE account_id = '{account}'");
            client.query_typed(&list, &[]).await.expect("read");
        }
    };
    let upkeep = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        bench.sql("UPDATE punchcard.upkeep SET next_at = now()").await;
        let step = async || {
            let client = connect(&url).await;
            let step = "SELECT punchcard.keep_up('periods', 3600) AS more";
            // Until it is done, or has to wait.
            while bench.count("SELECT count(*) FROM punchcard.upkeep WHERE next_at <= now()").await > 0 {
                client.query_typed(step, &[]).await.expect("a step, or nothing");
            }
        };
        futures_util::future::join_all((0..10).map(|_| step())).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(buyer, upkeep);
    if bench.count(FAR).await < 5 {
        // The buyer stood in the way each time: said, and done later.
        assert_eq!(bench.count("SELECT count(*) FROM punchcard.upkeep WHERE error IS NOT NULL").await, 1);
        bench.sql("DO $$ BEGIN WHILE punchcard.make_periods() LOOP END LOOP; END $$").await;
    }
    assert_eq!(bench.count(FAR).await, 5);
    let jobs = bench.count("SELECT count(*) FROM punchcard.jobs").await;
    assert_eq!(u64::try_from(jobs).unwrap(), bought.load(Ordering::Relaxed));
    bench.assert_audit_is_clean().await;
}

/// Somebody who reads for long stands in the way of the swap: nobody waits behind it for long, and it is said.
#[tokio::test(flavor = "multi_thread")]
async fn who_reads_for_long_keeps_nobody_waiting_but_the_months() {
    let bench = Bench::new().await;
    age(&bench, 300).await;
    let account = bench.account(10).await;
    let reader = connect(&as_role(&bench.direct_url, OWNER)).await;
    reader.batch_execute("BEGIN; SELECT count(*) FROM punchcard.attempts").await.unwrap();
    tick(&bench).await;
    let said = "SELECT error FROM punchcard.upkeep WHERE next_at < now() + interval '11 minutes'";
    let said: Option<String> = bench.rows(said).await[0].get(0);
    assert!(said.is_some_and(|error| error.contains("lock timeout")), "whom it waits for");
    let doctor: Vec<String> = bench.rows(DOCTOR).await.iter().map(|row| row.get(0)).collect();
    assert!(
        doctor[0].contains("upkeep of periods has to wait: canceling statement due to lock"),
        "{doctor:?}"
    );
    buy(&bench, account).await;
    // A time-out is told as well, and is not run into again at once.
    bench.sql("UPDATE punchcard.upkeep SET next_at = now(), error = NULL").await;
    let hasty = connect(&as_role(&bench.direct_url, APP)).await;
    hasty.batch_execute("SET statement_timeout = '100ms'").await.unwrap();
    hasty.query_typed("SELECT punchcard.keep_up('periods', 3600)", &[]).await.expect("it is noted");
    let said: Option<String> =
        bench.rows("SELECT error FROM punchcard.upkeep WHERE next_at > now()").await[0].get(0);
    assert!(said.is_some_and(|error| error.contains("statement timeout")), "{doctor:?}");
    // Nor does a release wait for it.
    let migrated =
        shared::db::migrate::apply(&as_role(&bench.direct_url, OWNER)).await.expect("all else is done");
    assert_eq!(migrated, Vec::<String>::new());
    reader.batch_execute("ROLLBACK").await.unwrap();
    tick(&bench).await;
    assert_eq!(bench.rows(DOCTOR).await.len(), 0);
    assert_eq!(bench.count(FAR).await, 5);
}
