//! Tables that are kept by month: months are made ahead while everybody goes on, whatever happened meanwhile.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::json;
use shared::{
    db::{
        migrate::{Migrated, apply_as},
        schema::FUNCTIONS,
    },
    secrets::Secrets,
};
use tokio_postgres::Client;
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
    for sql in [&aged, ALL, *source] {
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
    bench.sql("UPDATE punchcard.upkeep SET next_at = now() WHERE task = 'periods'").await;
    bench.poller().invoke(&json!({})).await.expect("a tick");
}

/// Whether there is another step.
async fn step(client: &Client) -> bool {
    let step = "SELECT punchcard.keep_up('periods', 3600) AS more";
    client.query_typed(step, &[]).await.expect("a step, or nothing")[0].get("more")
}

/// How many steps there are until it is done, or has to wait.
async fn steps(bench: &Bench) -> usize {
    bench.sql("UPDATE punchcard.upkeep SET next_at = now() WHERE task = 'periods'").await;
    let app = connect(&as_role(&bench.direct_url, APP)).await;
    let mut steps = 0;
    while step(&app).await {
        steps += 1;
    }
    steps
}

/// Why upkeep has to wait.
async fn error(bench: &Bench) -> String {
    let error = "SELECT coalesce(error, '') FROM punchcard.upkeep
        WHERE task = 'periods' AND next_at BETWEEN now() AND now() + interval '11 minutes'";
    bench.rows(error).await[0].get(0)
}

async fn migrate(bench: &Bench) -> Migrated {
    let secrets = Secrets { database_url: as_role(&bench.direct_url, OWNER), ..Secrets::default() };
    apply_as(&secrets).await.expect("all but the months is done")
}

const ALL: &str = "DO $$ BEGIN WHILE punchcard.make_periods() LOOP END LOOP; END $$";

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
    // However many ask at once, there is nothing to do, and it is due again in an hour.
    let before: String = bench.rows("SELECT clock_timestamp()::text").await[0].get(0);
    bench.sql("UPDATE punchcard.upkeep SET next_at = now() WHERE task = 'periods'").await;
    let url = as_role(&bench.direct_url, APP);
    let ask = async || step(&connect(&url).await).await;
    assert_eq!(join_all((0..10).map(|_| ask())).await, [false; 10]);
    let done = format!(
        "SELECT count(*) FROM punchcard.upkeep WHERE task = 'periods' AND error IS NULL
             AND done_at > '{before}' AND next_at = done_at + interval '1 hour'"
    );
    assert_eq!(bench.count(&done).await, 1);
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

/// Ten ticks at once take each step once, while others buy jobs and list them: nobody fails, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn the_spare_table_is_swapped_under_traffic_by_ten_at_once() {
    let bench = Bench::new().await;
    age(&bench, 300).await;
    let account = bench.account(1_000_000).await;
    // Of each month to come, and of those behind them.
    bench
        .sql(&format!(
            "INSERT INTO punchcard.labels (account_id, label, job_id)
             SELECT '{account}', 'old', punchcard.uuid_v7(now() + d * interval '1 day')
             FROM generate_series(-400, 400, 10) d"
        ))
        .await;
    let labels = "SELECT md5(string_agg(l::text, ' ' ORDER BY l.job_id)) FROM punchcard.labels l";
    let before: String = bench.rows(labels).await[0].get(0);
    let (stop, taken) = (AtomicBool::new(false), AtomicUsize::new(0));
    let url = as_role(&bench.direct_url, APP);
    let buyer = async {
        let client = connect(&url).await;
        let mut bought = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let buy = format!("SELECT job_id FROM punchcard.enqueue('{account}', 'qr.svg', '{{}}')");
            bought.push(client.query_typed(&buy, &[]).await.expect("bought")[0].get::<_, Uuid>(0));
            let list = format!("SELECT count(*) FROM punchcard.jobs_now WHERE account_id = '{account}'");
            client.query_typed(&list, &[]).await.expect("read");
        }
        bought
    };
    let upkeep = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        bench.sql("UPDATE punchcard.upkeep SET next_at = now() WHERE task = 'periods'").await;
        let ticks = async || {
            let client = connect(&url).await;
            // Until it is done, or has to wait.
            while bench
                .count("SELECT count(*) FROM punchcard.upkeep WHERE task = 'periods' AND next_at <= now()")
                .await
                > 0
            {
                taken.fetch_add(usize::from(step(&client).await), Ordering::Relaxed);
            }
        };
        join_all((0..10).map(|_| ticks())).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        stop.store(true, Ordering::Relaxed);
    };
    let (mut bought, ()) = tokio::join!(buyer, upkeep);
    if bench.count(FAR).await < 5 {
        // The buyer stood in the way of one: said, and done later.
        assert!(error(&bench).await.contains("lock timeout"));
        taken.fetch_add(steps(&bench).await, Ordering::Relaxed);
    }
    assert_eq!((bench.count(FAR).await, taken.load(Ordering::Relaxed)), (5, 5), "each table's step, once");
    for row in bench.rows(TABLES).await {
        // Before, seven months, those that nobody made, the six to come, and what tells no time; the spare.
        assert_eq!((row.get::<_, i64>(1), row.get::<_, i64>(2)), (16, 1));
    }
    let ids = bench.rows("SELECT id FROM punchcard.jobs ORDER BY id").await;
    bought.sort();
    assert_eq!(ids.iter().map(|row| row.get::<_, Uuid>(0)).collect::<Vec<_>>(), bought);
    assert_eq!(bench.rows(labels).await[0].get::<_, String>(0), before);
}

/// What a row's triggers tell others of it they tell once, wherever it moves.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_changes_its_table_is_news_to_nobody() {
    let bench = Bench::new().await;
    age(&bench, 300).await;
    bench
        .sql(
            "CREATE TABLE public.heard (of text);
             CREATE FUNCTION public.hear() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
             BEGIN INSERT INTO public.heard VALUES (TG_TABLE_NAME); RETURN NULL; END $$;
             CREATE TRIGGER team AFTER INSERT OR DELETE ON punchcard.jobs
                 FOR EACH ROW EXECUTE FUNCTION public.hear();
             CREATE CONSTRAINT TRIGGER team AFTER INSERT ON punchcard.outcomes DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION public.hear();
             CREATE FUNCTION public.sell(days integer) RETURNS void LANGUAGE sql AS $$
                 INSERT INTO punchcard.jobs (account_id, id, price, entry, available_after, held_after, expires_at,
                                             share, priority, max_attempts, kind, input)
                 VALUES (gen_random_uuid(), punchcard.uuid_v7(now() + days * interval '1 day'), 0, 0, 0, 0, now(),
                         0, 0, 1, 'qr.svg', '{}');
                 INSERT INTO punchcard.outcomes (job_id, account_id, finished_at, captured, share, attempt, status,
                                                 output)
                 SELECT j.id, j.account_id, now(), 0, 0, 1, 'succeeded', '{}' FROM punchcard.jobs j
                 ON CONFLICT DO NOTHING
             $$",
        )
        .await;
    let sell = "SELECT public.sell(days) FROM unnest(ARRAY[-400, -5, 40, 100, 7000]) days";
    bench.sql(sell).await;
    let heard = "SELECT count(*) FROM public.heard";
    let in_spare = "SELECT count(*) FROM punchcard.jobs JOIN punchcard.outcomes o ON o.job_id = id
        WHERE o.tableoid::regclass::text LIKE '%from%'";
    assert_eq!((bench.count(heard).await, bench.count(in_spare).await), (10, 4));
    assert_eq!(steps(&bench).await, 5);
    assert_eq!((bench.count(heard).await, bench.count(in_spare).await), (10, 1));
    let kept = "SELECT count(*) FROM punchcard.jobs JOIN punchcard.outcomes ON job_id = id";
    assert_eq!(bench.count(kept).await, 5);
    // All of them hear of what is new.
    bench.sql(sell).await;
    assert_eq!(bench.count(heard).await, 20);
}

/// Somebody who reads for long stands in the way of the swap: nobody waits behind it for long, the other tables get their
/// months, and it is said.
#[tokio::test(flavor = "multi_thread")]
async fn who_reads_for_long_keeps_nobody_waiting_but_the_months_of_one_table() {
    let bench = Bench::new().await;
    age(&bench, 300).await;
    let account = bench.account(10).await;
    let reader = connect(&as_role(&bench.direct_url, OWNER)).await;
    reader.batch_execute("BEGIN; SELECT count(*) FROM punchcard.attempts").await.unwrap();
    assert_eq!((steps(&bench).await, bench.count(FAR).await), (4, 4));
    let why = "the months of attempts: canceling statement due to lock timeout";
    assert_eq!(error(&bench).await, why);
    let doctor: Vec<String> = bench.rows(DOCTOR).await.iter().map(|row| row.get(0)).collect();
    assert_eq!((doctor.len(), &doctor[0]), (2, &format!("upkeep of periods has to wait: {why}")));
    assert!(doctor[1].contains("the months of punchcard.attempts end in 20"), "{doctor:?}");
    buy(&bench, account).await;
    // A time-out is told as well, and is not run into again at once.
    bench.sql("UPDATE punchcard.upkeep SET next_at = now(), error = NULL WHERE task = 'periods'").await;
    let hasty = connect(&as_role(&bench.direct_url, APP)).await;
    hasty.batch_execute("SET statement_timeout = '100ms'").await.unwrap();
    assert!(!step(&hasty).await, "it is noted");
    let said = error(&bench).await;
    assert!(said.contains("statement timeout"), "{said}");
    // Nor does a release wait for it: it says so.
    let migrated = migrate(&bench).await;
    assert_eq!(migrated.applied, Vec::<String>::new());
    let said = migrated.months_wait.expect("they wait");
    assert!(said.contains("months to come waited for others"), "{said}");
    reader.batch_execute("ROLLBACK").await.unwrap();
    tick(&bench).await;
    assert_eq!(bench.rows(DOCTOR).await.len(), 0);
    assert_eq!(bench.count(FAR).await, 5);
    assert_eq!(migrate(&bench).await.months_wait, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_a_name_that_is_needed_stops_one_table_alone() {
    let bench = Bench::new().await;
    age(&bench, 300).await;
    let name =
        "SELECT to_char(now() AT TIME ZONE 'UTC' + interval '1 month', '\"punchcard.deliveries_\"YYYY_MM')";
    let name: String = bench.rows(name).await[0].get(0);
    let owner = connect(&as_role(&bench.direct_url, OWNER)).await;
    owner.batch_execute(&format!("CREATE TABLE {name} ()")).await.unwrap();
    assert_eq!((steps(&bench).await, bench.count(FAR).await), (4, 4));
    let why =
        format!("the months of deliveries: relation \"{}\" already exists", name.replace("punchcard.", ""));
    assert_eq!(error(&bench).await, why);
    let said = migrate(&bench).await.months_wait.expect("they wait");
    assert!(said.contains(&why), "{said}");
    owner.batch_execute(&format!("DROP TABLE {name}")).await.unwrap();
    assert_eq!((steps(&bench).await, bench.count(FAR).await), (1, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_function_does_and_what_has_no_place_is_said() {
    let bench = Bench::new().await;
    let no_spare = include_str!("../../shared/src/doctor/no_spare.sql");
    assert_eq!((bench.rows(DOCTOR).await.len(), bench.rows(no_spare).await.len()), (0, 0));
    bench.sql("INSERT INTO punchcard.upkeep (task) VALUES ('spring_cleaning')").await;
    let app = connect(&as_role(&bench.direct_url, APP)).await;
    let more = app.query_typed("SELECT punchcard.keep_up('spring_cleaning', 3600)", &[]).await.unwrap();
    assert!(!more[0].get::<_, bool>(0));
    let said: String = bench.rows(DOCTOR).await[0].get(0);
    assert!(said.contains("upkeep of spring_cleaning has to wait: unknown_task"), "{said}");
    bench.sql("UPDATE punchcard.upkeep SET next_at = now() - interval '30 hours', error = NULL WHERE task = 'periods'").await;
    let said: String = bench.rows(DOCTOR).await[1].get(0);
    assert!(said.contains("does the schedule invoke the poller"), "{said}");

    let spare = "SELECT name FROM punchcard.periods WHERE of_table = 'labels' AND is_spare";
    let spare: String = bench.rows(spare).await[0].get(0);
    bench.sql(&format!("DROP TABLE punchcard.{spare}")).await;
    let said = bench.rows(no_spare).await;
    assert_eq!(said.len(), 1);
    assert!(said[0].get::<_, String>(0).contains("punchcard.labels has no table for what is bought"));
}
