//! History goes by the month, and money stays: whatever dies meanwhile, and whoever reads.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::{
    cli::{punchcard, refused, said},
    support::{APP, Bench, as_role, connect},
};

/// Buys, runs, cancels, refuses, retries, grants, shifts and refunds, every other day from the one day to the other.
async fn live(bench: &Bench, accounts: &[Uuid], from: &str, days: u32) {
    let ids: Vec<_> = accounts.iter().map(|id| format!("'{id}'")).collect();
    let live = format!(
        "DO $$
         DECLARE
             day integer; account uuid; bought record; failed uuid;
             accounts uuid[] := ARRAY[{ids}]::uuid[];
         BEGIN
             FOR day IN 0..{days} BY 2 LOOP
                 UPDATE clock.shift SET by = timestamptz '{from}' + day * interval '1 day' - pg_catalog.now();
                 WHILE punchcard.make_periods() LOOP END LOOP;
                 PERFORM punchcard.enter_deferred(NULL, 200);
                 FOREACH account IN ARRAY accounts LOOP
                     PERFORM punchcard.grant_credits(account, 40 + day % 7, 'allowance ' || day);
                     FOR n IN 1..2 + day % 3 LOOP
                         SELECT * INTO bought FROM punchcard.enqueue(
                             account, CASE (day + n) % 5 WHEN 0 THEN 'free' WHEN 1 THEN 'metered' ELSE 'paid' END, '{{\"text\":\"t\"}}',
                             CASE WHEN n = 1 THEN 'key ' || day END);
                     END LOOP;
                     IF day % 3 = 0 THEN PERFORM punchcard.cancel(bought.job_id, account); END IF;
                     PERFORM punchcard.enqueue_batch(account, '[{{\"kind\":\"paid\",\"input\":1}},{{\"kind\":\"free\",\"input\":2}}]',
                                                     'batch ' || day);
                 END LOOP;
                 PERFORM punchcard.settle(
                     array_agg(c.job_id), array_agg(c.lease_token),
                     array_agg(CASE WHEN c.lease_token % 4 = 0 OR hashtext(c.job_id::text) % 4 = 0 THEN 'fail' ELSE 'complete' END),
                     array_agg(0::float8), array_agg('{{}}'::text),
                     array_agg('{{\"code\":\"x\",\"message\":\"m\",\"attempt\":1}}'::text),
                     array_agg(CASE WHEN c.kind = 'metered' THEN 4 END::bigint))
                 FROM punchcard.claim(500, '{{paid,free,metered}}', true, 60, 60) c WHERE hashtext(c.job_id::text) % 10 <> 1;
                 PERFORM punchcard.rescue(1000);
                 FOR failed IN
                     SELECT o.job_id FROM punchcard.outcomes o
                     WHERE o.status = 'failed' AND o.finished_at > clock.now() - interval '1 day' AND day % 4 = 0 LIMIT 2
                 LOOP
                     BEGIN PERFORM punchcard.retry(failed); EXCEPTION WHEN SQLSTATE 'PT409' OR SQLSTATE 'PT402' THEN NULL; END;
                 END LOOP;
                 FOR failed IN
                     SELECT o.job_id FROM punchcard.outcomes o
                     WHERE o.captured > 0 AND o.finished_at > clock.now() - interval '2 days' AND day % 6 = 0 LIMIT 1
                 LOOP
                     BEGIN PERFORM punchcard.refund(failed); EXCEPTION WHEN SQLSTATE 'PT409' THEN NULL; END;
                 END LOOP;
             END LOOP;
             -- And all of it ends.
             UPDATE clock.shift SET by = s.by + interval '9 days' FROM clock.shift s;
             WHILE EXISTS (SELECT FROM punchcard.rescue(1000)) LOOP END LOOP;
         END $$",
        ids = ids.join(", "),
    );
    bench.sql(&live).await;
}

const KINDS: &str =
    "INSERT INTO punchcard.kinds (name, price, metered) VALUES ('paid', 7, false), ('metered', 9, true)";

/// Whether a step was taken, and whether there is another.
async fn step(client: &Client) -> bool {
    client.query_typed("SELECT punchcard.keep_up('retention', 3600)", &[]).await.expect("a step")[0].get(0)
}

const DUE: &str = "UPDATE punchcard.upkeep SET next_at = '-infinity';
    UPDATE punchcard.archived_months SET archived_at = archived_at - interval '1 hour' WHERE gone_at IS NULL";

/// All steps there are, but at most so many; how many they were.
async fn steps(bench: &Bench, most: usize) -> usize {
    let mut taken = 0;
    loop {
        bench.sql(DUE).await;
        let mut more = false;
        while taken < most && step(&bench.admin).await {
            (more, taken) = (true, taken + 1);
        }
        if !more {
            return taken;
        }
    }
}

async fn error(bench: &Bench) -> String {
    bench.rows("SELECT coalesce(error, '') FROM punchcard.upkeep WHERE task = 'retention'").await[0].get(0)
}

/// The ledger of these accounts as its pages show it, entry by entry, and the balances.
async fn ledger(bench: &Bench, accounts: &[Uuid], page: usize) -> BTreeMap<Uuid, (Vec<String>, (i64, i64))> {
    let db = bench.db();
    let mut all = BTreeMap::new();
    for account in accounts {
        let (mut entries, mut before) = (Vec::new(), None);
        loop {
            let shown = db.ledger(*account, before, page as i64, soon()).await.unwrap();
            entries.extend(shown.entries.iter().map(|entry| serde_json::to_string(entry).unwrap()));
            before = shown.next;
            if before.is_none() {
                break;
            }
        }
        all.insert(*account, (entries, bench.balance(*account).await));
    }
    all
}

/// The pages of an account's statement of a month.
pub(super) async fn statement(bench: &Bench, account: Uuid, month: &str, limit: u32) -> Vec<Value> {
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/credits/statement?month={month}&limit={limit}{cursor}");
        let page = bench.get(account, &path).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let next = page.body["next_cursor"].as_str().map(|cursor| format!("&cursor={cursor}"));
        pages.push(page.body);
        match next {
            Some(next) => cursor = next,
            None => return pages,
        }
    }
}

/// What docs/examples/verify_statement.py says of these pages.
fn verify(pages: &[Value]) -> Result<String, String> {
    let folder = std::env::temp_dir().join(format!("statement-{}", Uuid::new_v4()));
    std::fs::create_dir(&folder).unwrap();
    let script =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/verify_statement.py");
    let mut command = std::process::Command::new("python3");
    command.arg(script);
    for (number, page) in pages.iter().enumerate() {
        let path = folder.join(format!("{number}.json"));
        std::fs::write(&path, page.to_string()).unwrap();
        command.arg(path);
    }
    let output = command.output().expect("python3");
    std::fs::remove_dir_all(folder).unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) }
}

/// The entries of all pages.
fn entries(pages: &[Value]) -> Vec<Value> {
    pages.iter().flat_map(|page| page["data"].as_array().unwrap().clone()).collect()
}

fn soon() -> shared::domain::Deadline {
    shared::domain::Deadline::after(std::time::Duration::from_secs(60))
}

async fn three_accounts(bench: &Bench) -> Vec<Uuid> {
    bench.sql(KINDS).await;
    let accounts = vec![Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3)];
    for account in &accounts {
        bench.sql(&format!("SELECT punchcard.grant_credits('{account}', 100, 'first')")).await;
    }
    bench.sql(&format!("SELECT punchcard.spread_account('{}', 3)", accounts[1])).await;
    accounts
}

#[tokio::test(flavor = "multi_thread")]
async fn months_go_step_by_step_and_the_ledger_stays_entry_by_entry() {
    let bench = Bench::new().await;
    bench.begin_at("2024-01-20").await;
    let accounts = three_accounts(&bench).await;
    live(&bench, &accounts, "2024-01-20", 70).await;
    bench.assert_audit_is_clean().await;
    let before = ledger(&bench, &accounts, 100).await;
    assert!(before.values().all(|(entries, _)| entries.len() > 200), "{before:?}");
    let jobs = bench.count("SELECT count(*) FROM punchcard.jobs").await;

    // What was bought in February goes with its last day.
    bench.sql("UPDATE punchcard.retention SET payload_days = 100, key_days = 200").await;
    bench.set_clock("2024-06-08").await;
    assert_eq!((steps(&bench, 10_000).await > 0, error(&bench).await), (true, String::new()));
    assert_eq!(
        bench.count("SELECT count(*) FROM punchcard.archived_months WHERE gone_at IS NOT NULL").await,
        1
    );
    assert_eq!(ledger(&bench, &accounts, 100).await, before);

    // Each step is first taken by somebody who dies of it.
    bench.set_clock("2024-08-15").await;
    let mut taken = 0;
    loop {
        bench.sql(DUE).await;
        let dying = connect(&as_role(&bench.direct_url, APP)).await;
        dying.batch_execute("BEGIN").await.unwrap();
        let more = step(&dying).await;
        let pid: i32 = dying.query_typed("SELECT pg_backend_pid()", &[]).await.unwrap()[0].get(0);
        bench.sql(&format!("SELECT pg_terminate_backend({pid})")).await;
        while bench.count(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}")).await > 0 {}
        bench.assert_audit_is_clean().await;
        assert_eq!(step(&bench.admin).await, more, "the same step");
        bench.assert_audit_is_clean().await;
        assert_eq!(
            ledger(&bench, &accounts, if taken % 5 == 0 { 2 + taken / 5 } else { 100 }).await,
            before,
            "{taken}"
        );
        if !more {
            break;
        }
        taken += 1;
    }
    assert!(taken > 20, "{taken} steps");
    let left = "SELECT count(*) FROM punchcard.jobs";
    let archived: i64 = bench.rows("SELECT sum(jobs)::bigint FROM punchcard.archived_months").await[0].get(0);
    assert_eq!((bench.count(left).await, archived), (0, jobs), "nothing was bought since March");
    for table in ["outcomes", "attempts", "labels", "deliveries"] {
        assert_eq!(bench.count(&format!("SELECT count(*) FROM punchcard.{table}")).await, 0, "{table}");
    }
    let tables = "SELECT count(*) FROM pg_class WHERE relnamespace = 'punchcard'::regnamespace AND relname LIKE '%gone'";
    assert_eq!(bench.count(tables).await, 0);
    // Nothing was let in meanwhile, and what is bought now has a place.
    let old = "INSERT INTO punchcard.labels VALUES (gen_random_uuid(), 'l', '018d0000-0000-7000-8000-000000000000')";
    let refused = bench.admin.batch_execute(old).await.unwrap_err();
    assert!(format!("{refused:?}").contains("past_its_retention"), "{refused:?}");
    let buy = format!("SELECT job_id FROM punchcard.enqueue('{}', 'paid')", accounts[0]);
    let bought: Uuid = bench.rows(&buy).await[0].get(0);
    bench.sql(&format!("SELECT punchcard.cancel('{bought}')")).await;
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_find_each_entry_once_while_months_go() {
    let bench = Bench::new().await;
    bench.begin_at("2024-01-20").await;
    let accounts = three_accounts(&bench).await;
    live(&bench, &accounts, "2024-01-20", 60).await;
    let before = ledger(&bench, &accounts, 100).await;
    let sums = "SELECT json_agg(l ORDER BY l.account_id)::text FROM (
        SELECT e.account_id, count(*), sum(e.available_delta) AS available, sum(e.held_delta) AS held
        FROM punchcard.entries e GROUP BY e.account_id) l";
    let sum: String = bench.rows(sums).await[0].get(0);
    bench.set_clock("2026-01-20").await;
    let (over, looks) = (AtomicBool::new(false), AtomicUsize::new(0));
    let reader = async |page: usize| {
        let client = connect(&bench.direct_url).await;
        while !over.load(Ordering::Relaxed) {
            assert_eq!(ledger(&bench, &accounts, page).await, before);
            let now: String = client.query_typed(sums, &[]).await.unwrap()[0].get(0);
            assert_eq!(now, sum);
            looks.fetch_add(1, Ordering::Relaxed);
        }
    };
    let keeper = async || {
        // Two at once.
        let both = async || {
            let client = connect(&as_role(&bench.direct_url, APP)).await;
            let mut idle = 0;
            while idle < 40 {
                bench.sql(DUE).await;
                idle = if step(&client).await { 0 } else { idle + 1 };
            }
        };
        tokio::join!(both(), both());
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(keeper(), reader(100), reader(11));
    assert_eq!(
        (bench.count("SELECT count(*) FROM punchcard.jobs").await, error(&bench).await),
        (0, String::new())
    );
    assert!(looks.load(Ordering::Relaxed) > 3);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_gone_is_said_to_be_and_is_refunded_once() {
    let bench = Bench::new().await;
    bench.begin_at("2024-01-20").await;
    let accounts = three_accounts(&bench).await;
    let account = accounts[0];
    live(&bench, &accounts, "2024-01-20", 30).await;
    let of = async |what: &str| -> Uuid {
        let find = format!(
            "SELECT min(o.job_id::text)::uuid FROM punchcard.outcomes o WHERE o.account_id = '{account}' AND {what}"
        );
        bench.rows(&find).await[0].get(0)
    };
    let refunded = of("EXISTS (SELECT FROM punchcard.movements m WHERE m.job_id = o.job_id)").await;
    let captured =
        of("o.captured = 7 AND NOT EXISTS (SELECT FROM punchcard.movements m WHERE m.job_id = o.job_id)")
            .await;
    let keyed = "SELECT job_id FROM punchcard.idempotency_keys WHERE key = punchcard.key_digest('key 6')";
    assert!(bench.count(&format!("SELECT count(*) FROM ({keyed}) k")).await >= 3);
    bench.set_clock("2025-04-20").await;
    steps(&bench, 10_000).await;
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.jobs").await, 0);

    // By its id, it was there, or could have been; another one is not there, and was not.
    let never = Uuid::parse_str("018d2000-0000-7abc-8abc-000000000000").unwrap();
    for (id, status, code) in [
        (captured, 410, "gone"),
        (never, 410, "gone"),
        (Uuid::new_v4(), 404, "not_found"),
        (Uuid::from_u128(7), 404, "not_found"),
    ] {
        for path in ["", "/events", "/runs", "/deliveries"] {
            let answer = bench.get(account, &format!("/api/jobs/{id}{path}")).await;
            assert_eq!(
                (answer.status, &answer.body["code"]),
                (status, &json!(code)),
                "{path} {}",
                answer.body
            );
        }
        for act in ["cancel", "retry"] {
            let answer = bench.act(account, &format!("/api/jobs/{id}/{act}")).await;
            assert_eq!(
                (answer.status, &answer.body["code"]),
                (status, &json!(code)),
                "{act} {}",
                answer.body
            );
        }
    }
    let answer = bench.get(account, &format!("/api/jobs/{captured}")).await;
    assert!(answer.body["detail"].as_str().unwrap().contains("before 2024-03-01"), "{}", answer.body);
    assert_eq!(bench.get(account, "/api/jobs").await.body["data"], json!([]));

    // Its key has bought, and buys no more; a key that is past its own retention does.
    let body = json!({ "kind": "paid", "input": { "text": "t" } });
    let replay = bench.post(account, body.clone(), Some("key 6")).await;
    assert_eq!((replay.status, &replay.body["code"]), (410, &json!("gone")), "{}", replay.body);
    let keys = bench.count("SELECT count(*) FROM punchcard.idempotency_keys").await;
    bench.set_clock("2025-03-01").await;
    let forget = "UPDATE punchcard.upkeep SET next_at = '-infinity'; SELECT punchcard.keep_up('keys', 86400)";
    bench.sql(forget).await;
    let left = bench.count("SELECT count(*) FROM punchcard.idempotency_keys").await;
    assert!(0 < left && left < keys, "{left} of {keys}: some are younger than 400 days");
    bench.set_clock("2025-04-20").await;
    bench.sql(forget).await;
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.idempotency_keys").await, 0);
    let bought = bench.post(account, body, Some("key 6")).await;
    assert_eq!(bought.status, 202, "{}", bought.body);

    // Money is given back for it all the same, once.
    bench.sql(&format!("SELECT punchcard.cancel('{}')", bought.body["id"].as_str().unwrap())).await;
    let (available, _) = bench.balance(account).await;
    let again = refused(&punchcard(&bench, &["credits", "refund", &refunded.to_string()]));
    assert!(again.contains("already_refunded"), "{again}");
    assert!(
        said(&punchcard(&bench, &["credits", "refund", &captured.to_string()])).contains("refunded 7 to")
    );
    let again = refused(&punchcard(&bench, &["credits", "refund", &captured.to_string()]));
    assert!(again.contains("already_refunded"), "{again}");
    let gone = refused(&punchcard(&bench, &["credits", "refund", &never.to_string()]));
    assert!(gone.contains("gone"), "{gone}");
    assert_eq!(bench.balance(account).await.0, available + 7);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unfinished_or_unsaid_keeps_its_month_and_says_so() {
    let bench = Bench::new().await;
    bench.begin_at("2024-01-20").await;
    let accounts = three_accounts(&bench).await;
    let account = accounts[0];
    live(&bench, &accounts, "2024-01-20", 6).await;
    let job = bench.rows(&format!("SELECT job_id FROM punchcard.enqueue('{account}', 'paid')")).await[0]
        .get::<_, Uuid>(0);
    bench.sql("UPDATE punchcard.retention SET payload_days = 90").await;
    bench.set_clock("2024-06-05").await;
    let waits = async |why: &str| {
        steps(&bench, 10_000).await;
        let error = error(&bench).await;
        assert!(
            error.contains(why) && error.contains("what was bought before 2024-03-01 is kept"),
            "{error}"
        );
        let health = bench.get(account, "/api/health").await.body;
        assert_eq!(health["upkeep_waits"], json!(["retention"]), "{health}");
        let told = bench.rows(include_str!("../../shared/src/doctor/upkeep.sql")).await;
        assert!(
            told.iter().any(|row| row.get::<_, &str>(0).starts_with("upkeep of retention has to wait: what"))
        );
    };
    waits(&format!("job {job} is unfinished")).await;
    bench.sql(&format!("SELECT punchcard.cancel('{job}')")).await;
    bench
        .sql(&format!(
            "INSERT INTO punchcard.outbox (id, account_id, job_id, event, next_at)
             VALUES (gen_random_uuid(), '{account}', '{job}', 'job.canceled', 'infinity')"
        ))
        .await;
    waits("is still to be sent").await;
    bench.sql("DELETE FROM punchcard.outbox").await;
    assert!(steps(&bench, 10_000).await > 0);
    // Somebody who reads for long is waited for, and holds nobody up.
    assert_eq!(
        (bench.count("SELECT count(*) FROM punchcard.jobs").await, error(&bench).await),
        (0, String::new())
    );
    let health = bench.get(account, "/api/health").await.body;
    assert_eq!(health.get("upkeep_waits"), None, "{health}");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn past_its_own_retention_money_is_carried_in_one_entry() {
    let bench = Bench::new().await;
    bench.begin_at("2024-01-20").await;
    let accounts = three_accounts(&bench).await;
    live(&bench, &accounts, "2024-01-20", 80).await;
    let before = ledger(&bench, &accounts, 100).await;
    bench.sql("UPDATE punchcard.retention SET payload_days = 100, key_days = 100, money_days = 120").await;
    bench.set_clock("2024-07-15").await;
    steps(&bench, 10_000).await;
    bench.assert_audit_is_clean().await;
    let after = ledger(&bench, &accounts, 13).await;
    let march: String = bench.rows("SELECT punchcard.first_id('2024-03-01Z')::text").await[0].get(0);
    for (account, (entries, balance)) in &after {
        let (old, was) = &before[account];
        assert_eq!(balance, was);
        // What is left is as it was; what is not is one entry for each share, the last.
        let kept = entries.iter().take_while(|entry| old.contains(entry)).count();
        assert!((50..old.len()).contains(&kept), "{kept} of {}", old.len());
        let carried: Vec<Value> =
            entries[kept..].iter().map(|entry| serde_json::from_str(entry).unwrap()).collect();
        assert!(carried.iter().all(|entry| entry["kind"] == "carried"), "{carried:?}");
        assert_eq!(carried.len(), if *account == accounts[1] { 3 } else { 1 });
        let sum = |entries: &[String]| -> (i64, i64) {
            let entries = entries.iter().map(|entry| serde_json::from_str::<Value>(entry).unwrap());
            entries.fold((0, 0), |(available, held), entry| {
                let of = |name: &str| entry[name].as_i64().unwrap();
                (available + of("available_delta"), held + of("held_delta"))
            })
        };
        // Shifts between shares are shown to nobody, and cancel out.
        assert_eq!(sum(entries), sum(old));
        assert_eq!(sum(entries), *balance);
        // Until the end of February; of jobs that were bought before, the ends too.
        for gone in old.iter().filter(|entry| !entries.contains(entry)) {
            let gone: Value = serde_json::from_str(gone).unwrap();
            let (at, job) = (gone["created_at"].as_str().unwrap(), gone["job_id"].as_str());
            assert!(at < "2024-03" || job.is_some_and(|job| job < march.as_str()), "{gone}");
        }
    }
    // Only what is carried goes.
    for table in ["movements", "archive", "carried"] {
        let refused = bench.admin.batch_execute(&format!("DELETE FROM punchcard.{table}")).await.unwrap_err();
        let why = refused.as_db_error().unwrap().message().to_owned();
        assert_eq!(why, format!("delete on punchcard.{table} is refused: the ledger is append-only"));
    }
    // And it goes on from there, month by month; and waits, and says so, while what was spent is not dealt to grants with a date.
    bench.set_clock("2024-12-03").await;
    bench
        .sql(&format!(
            "INSERT INTO punchcard.dated_accounts VALUES ('{0}', 0, 0, '2024-03-01', 'not today');
             INSERT INTO punchcard.dated_grants VALUES ('{0}', 1, '2024-02-20', '2024-02-20', 0)",
            accounts[0]
        ))
        .await;
    steps(&bench, 10_000).await;
    assert_eq!(
        error(&bench).await,
        format!(
            "entries before 2024-04-01 are kept: what account {} has spent is not dealt to its grants: not today",
            accounts[0]
        )
    );
    assert!(bench.count("SELECT count(*) FROM punchcard.archive").await > 0, "they are kept");
    bench.sql("DELETE FROM punchcard.dated_accounts").await;
    steps(&bench, 10_000).await;
    assert_eq!(error(&bench).await, "");
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.dated_grants").await, 0);
    for (account, (entries, balance)) in &ledger(&bench, &accounts, 100).await {
        assert_eq!(
            (entries.len(), balance),
            (if *account == accounts[1] { 3 } else { 1 }, &before[account].1)
        );
    }
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.archive").await, 0);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_proves_that_no_entry_is_missing_or_changed() {
    let bench = Bench::new().await;
    bench.begin_at("2024-01-20").await;
    let accounts = three_accounts(&bench).await;
    live(&bench, &accounts, "2024-01-20", 70).await;
    // An entry that waits for its account has a time of before.
    let months = ["2024-01", "2024-02", "2024-03", "2024-04"];
    let mut before = BTreeMap::new();
    for account in &accounts {
        let mut pages = Vec::new();
        for month in months {
            pages.extend(statement(&bench, *account, month, 1_000).await);
            let small = statement(&bench, *account, month, 23).await;
            assert_eq!(entries(&small), entries(&statement(&bench, *account, month, 1_000).await));
            assert!(verify(&small).is_ok(), "{:?}", verify(&small));
        }
        let all: i64 = bench
            .rows(&format!("SELECT sum(entries)::bigint FROM punchcard.accounts WHERE id = '{account}'"))
            .await[0]
            .get(0);
        let said = verify(&pages).unwrap();
        assert!(said.contains(&format!("\nproved: {all} entries, ")), "{said}, of {all}");
        let last = pages.last().unwrap();
        let closing: (i64, i64) = last["shares"].as_array().unwrap().iter().fold((0, 0), |sum, share| {
            let of = |name: &str| share["closing"][name].as_i64().unwrap();
            (sum.0 + of("available"), sum.1 + of("held"))
        });
        assert_eq!(closing, bench.balance(*account).await);
        before.insert(*account, pages);
    }
    let pages = &before[&accounts[0]];
    // Whatever is changed, left out, or put in, shows.
    let spoil = |change: &dyn Fn(&mut Vec<Value>)| {
        let mut pages = pages.clone();
        change(&mut pages);
        verify(&pages).expect_err("it was spoiled")
    };
    let said = spoil(&|pages| pages[1]["data"][5]["available_delta"] = json!(1));
    assert!(said.contains("does not continue the balance"), "{said}");
    let said = spoil(&|pages| {
        pages[1]["data"].as_array_mut().unwrap().remove(5);
    });
    assert!(said.contains("comes where"), "{said}");
    let said = spoil(&|pages| {
        pages[1]["data"].as_array_mut().unwrap().pop();
    });
    assert!(said.contains("does not end as it says"), "{said}");
    let said = spoil(&|pages| {
        let hold = |entry: &Value| entry["kind"] == "hold" && entry["held_delta"] == 7;
        let data = pages[1]["data"].as_array_mut().unwrap();
        let job = data.iter().find(|entry| hold(entry)).unwrap()["job_id"].clone();
        data.iter_mut().filter(|entry| hold(entry)).nth(1).unwrap()["job_id"] = job;
    });
    assert!(said.contains("holds a second time"), "{said}");
    let said = spoil(&|pages| pages[1]["data"][5]["created_at"] = json!("2024-02-01T00:00:01.000000Z"));
    assert!(said.contains("was changed"), "{said}");
    let said = spoil(&|pages| {
        pages.remove(1);
    });
    assert!(said.contains("does not go on"), "{said}");

    // The same when its jobs are gone.
    bench.set_clock("2025-08-20").await;
    steps(&bench, 10_000).await;
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.jobs").await, 0);
    for account in &accounts {
        let mut pages = Vec::new();
        for month in months {
            pages.extend(statement(&bench, *account, month, 200).await);
        }
        assert_eq!(entries(&pages), entries(&before[account]));
        assert!(pages.iter().all(|page| page["is_final"] == true));
        assert!(verify(&pages).is_ok(), "{:?}", verify(&pages));
    }
    // As a table; and what is none is refused.
    let wanted = crate::support::event(
        "GET",
        "/api/credits/statement?month=2024-02&format=csv",
        &[("authorization", &crate::support::bearer(accounts[0]))],
        None,
    );
    let csv = bench.api.invoke(&wanted).await.unwrap();
    assert_eq!(
        (&csv["statusCode"], &csv["headers"]["content-type"]),
        (&json!(200), &json!("text/csv; charset=utf-8"))
    );
    let pages = statement(&bench, accounts[0], "2024-02", 1_000).await;
    let cell = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let columns = csv["body"].as_str().unwrap().lines().next().unwrap();
    let table: Vec<String> =
        std::iter::once(columns.to_owned())
            .chain(entries(&pages).iter().map(|entry| {
                columns.split(',').map(|column| cell(&entry[column])).collect::<Vec<_>>().join(",")
            }))
            .collect();
    let lines: Vec<&str> = csv["body"].as_str().unwrap().lines().collect();
    let stood = |line: &&&str| line.contains(",opening,") || line.contains(",closing,");
    assert_eq!(lines.iter().filter(|line| !stood(line)).copied().collect::<Vec<_>>(), table, "as in JSON");
    let share = &pages[0]["shares"][0];
    let side = |number: &str, kind: &str| {
        let (number, stood) = (&share[number], &share[kind]);
        format!("0,{number},{kind},,,{},{},,,,,", stood["available"], stood["held"])
    };
    let sides: Vec<&str> = lines.iter().filter(stood).copied().collect();
    assert_eq!(sides, [side("first", "opening"), side("behind", "closing")]);
    assert!(lines[1] == sides[0] && lines.last() == sides.last(), "before, and after");
    for (query, code) in [
        ("", "invalid_month"),
        ("?month=2024-13", "invalid_month"),
        ("?month=2024-2", "invalid_month"),
        ("?month=2024-02&format=pdf", "invalid_format"),
        ("?month=2024-02&limit=0", "invalid_limit"),
        ("?month=2024-02&cursor=AAAA", "invalid_cursor"),
        ("?month=2024-02&day=1", "unknown_parameter"),
    ] {
        let answer = bench.get(accounts[0], &format!("/api/credits/statement{query}")).await;
        assert_eq!((answer.status, &answer.body["code"]), (400, &json!(code)), "{query} {}", answer.body);
    }
    let nobody = bench.get(Uuid::new_v4(), "/api/credits/statement?month=2024-02").await;
    assert_eq!((nobody.status, &nobody.body["code"]), (404, &json!("not_found")));
    let early = bench.get(accounts[0], "/api/credits/statement?month=2023-01").await;
    assert_eq!((early.status, &early.body["data"]), (200, &json!([])), "{}", early.body);
    // Carried, it proves nothing any more, and says so.
    bench.sql("UPDATE punchcard.retention SET money_days = 500").await;
    steps(&bench, 10_000).await;
    let gone = bench.get(accounts[0], "/api/credits/statement?month=2024-02").await;
    assert_eq!((gone.status, &gone.body["code"]), (410, &json!("gone")), "{}", gone.body);
}

/// Ids of old systems tell any time.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_an_old_system_is_kept_for_as_long_as_it_is_one() {
    let bench = Bench::new().await;
    bench.begin_at("2024-01-20").await;
    let accounts = three_accounts(&bench).await;
    let account = accounts[0];
    live(&bench, &accounts, "2024-01-20", 10).await;
    // As if it had been imported: one that tells no time, and one that tells a time long ago.
    let take = async |id: &str, at: &str| {
        bench
            .sql(&format!(
                "WITH bought AS (
                     UPDATE punchcard.accounts SET available = available - 7, held = held + 7, entries = entries + 1
                     WHERE id = '{account}' AND share = 0 RETURNING available, held, entries
                 ), ended AS (
                     INSERT INTO punchcard.jobs (account_id, id, price, entry, available_after, held_after, expires_at,
                                                 created_at, terms_id, share, priority, max_attempts, kind, input)
                     SELECT '{account}', '{id}', 7, b.entries, b.available, b.held, '{at}', '{at}', k.terms_id, 0, 0, 3,
                            'paid', '1'
                     FROM bought b, punchcard.kinds k WHERE k.name = 'paid'
                 )
                 INSERT INTO punchcard.outcomes (job_id, account_id, share, entry, available_after, held_after, captured,
                                                 finished_at, attempt, status, output)
                 SELECT '{id}', '{account}', 0, b.entries + 1, b.available, b.held - 7, 7, '{at}', 1, 'succeeded', '1'
                 FROM bought b;
                 UPDATE punchcard.accounts SET held = held - 7, entries = entries + 1 WHERE id = '{account}' AND share = 0"
            ))
            .await;
    };
    let timeless = "8f3a1c55-1b2c-4d3e-9f00-aabbccddeeff";
    take(timeless, "2024-02-20").await;
    assert!(said(&punchcard(&bench, &["credits", "refund", timeless])).contains("refunded 7"));
    bench.assert_audit_is_clean().await;
    live(&bench, &accounts, "2024-02-21", 20).await;
    let months = ["2024-01", "2024-02", "2024-03"];
    let all = |pages: &[Value]| entries(pages).len() as i64;
    let there: i64 =
        bench.rows(&format!("SELECT entries FROM punchcard.accounts WHERE id = '{account}'")).await[0].get(0);
    let mut pages = Vec::new();
    for month in months {
        pages.extend(statement(&bench, account, month, 1_000).await);
    }
    assert_eq!(all(&pages), there, "each is in one of them");

    // Of the other the month waits: it was done a moment ago.
    let long_ago = "00400000-1b2c-4d3e-9f00-aabbccddeeff";
    take(long_ago, "2024-12-20").await;
    bench.sql("UPDATE punchcard.retention SET payload_days = 100, key_days = 100, money_days = 150").await;
    bench.set_clock("2025-01-20").await;
    assert_eq!(steps(&bench, 10_000).await, 0);
    let error = error(&bench).await;
    assert!(error.contains(&format!("job {long_ago} of an old system has an id of that time")), "{error}");
    bench.set_clock("2025-06-20").await;
    assert!(steps(&bench, 10_000).await > 0);
    bench.assert_audit_is_clean().await;
    // And what was given back for a job that is kept is given back once.
    let again = refused(&punchcard(&bench, &["credits", "refund", timeless]));
    assert!(again.contains("already_refunded"), "{again}");
}

/// Whoever puts something into a month that is just being closed is waited for, and seen.
#[tokio::test(flavor = "multi_thread")]
async fn a_month_is_closed_behind_whoever_was_in_it() {
    let bench = Bench::new().await;
    bench.begin_at("2024-01-20").await;
    let accounts = three_accounts(&bench).await;
    live(&bench, &accounts, "2024-01-20", 6).await;
    bench.set_clock("2026-01-20").await;
    let late = connect(&bench.direct_url).await;
    late.batch_execute(&format!(
        "BEGIN; INSERT INTO punchcard.queue (job_id, account_id, price, run_at, expires_at, terms_id, share, priority,
                                             max_attempts, kind)
                SELECT '018d2000-0000-7abc-8abc-000000000000', '{}', 0, now(), now(), k.terms_id, 0, 0, 1, k.name
                FROM punchcard.kinds k WHERE k.name = 'paid';
         LOCK TABLE punchcard.jobs_2024_01 IN ROW EXCLUSIVE MODE",
        accounts[0]
    ))
    .await
    .unwrap();
    let over = async {
        bench.until_waiting_for_locks(1).await;
        late.batch_execute("COMMIT").await.unwrap();
    };
    bench.sql(DUE).await;
    let (more, ()) = tokio::join!(step(&bench.admin), over);
    assert!(!more && error(&bench).await.contains("is unfinished"), "{}", error(&bench).await);
    let closed = "SELECT count(*) FROM pg_trigger WHERE tgname = 'past_its_retention'";
    assert_eq!(
        (bench.count(closed).await, bench.count("SELECT count(*) FROM punchcard.archived_months").await),
        (0, 0)
    );
}

/// A page may end between what was captured and what was released, in whichever row of the archive.
#[tokio::test(flavor = "multi_thread")]
async fn pages_of_any_length_find_all_of_a_small_archive() {
    let bench = Bench::new().await;
    bench.begin_at("2024-01-20").await;
    let account = three_accounts(&bench).await[0];
    for month in ["2024-02-03", "2024-03-03", "2024-04-03", "2024-05-03"] {
        bench.set_clock(month).await;
        bench
            .sql(&format!(
                "DO $$ BEGIN WHILE punchcard.make_periods() LOOP END LOOP; END $$;
                 SELECT punchcard.enqueue('{account}', 'metered');
                 SELECT punchcard.settle(array_agg(c.job_id), array_agg(c.lease_token), '{{complete}}', '{{0}}', '{{1}}', NULL,
                                         '{{4}}')
                 FROM punchcard.claim(1, '{{metered}}', true, 60, 60) c"
            ))
            .await;
    }
    let before = ledger(&bench, &[account], 100).await;
    assert_eq!(before[&account].0.len(), 13);
    bench.set_clock("2026-01-20").await;
    steps(&bench, 10_000).await;
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.archive").await, 4);
    for page in 1..15 {
        assert_eq!(ledger(&bench, &[account], page).await, before, "{page} a page");
    }
}

/// All steps that are to be taken by then, with so many days for payloads, and for money.
async fn kept_for(bench: &Bench, at: &str, payload_days: u32, money_days: u32) {
    bench.set_clock(at).await;
    bench
        .sql(&format!("UPDATE punchcard.retention SET payload_days = {payload_days}, key_days = {payload_days}, money_days = {money_days}"))
        .await;
    steps(bench, 10_000).await;
    assert_eq!(error(bench).await, "");
}

const RUN: &str =
    "SELECT punchcard.settle(array_agg(c.job_id), array_agg(c.lease_token), array_agg('complete'::text),
        array_agg(0::float8), array_agg('1'::text), NULL)
    FROM punchcard.claim(5000, '{paid,late}', true, 60, 60) c";

#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_back_for_a_job_is_not_given_back_again_while_it_is_carried() {
    let bench = Bench::new().await;
    bench.begin_at("2025-01-10").await;
    bench.sql(KINDS).await;
    let account = Uuid::from_u128(1);
    bench
        .sql(&format!(
            "SELECT punchcard.grant_credits('{account}', 100, 'first');
             SELECT punchcard.enqueue('{account}', 'paid') FROM generate_series(1, 2);
             {RUN}; SELECT punchcard.refund(min(job_id::text)::uuid) FROM punchcard.outcomes"
        ))
        .await;
    // One that is given back for in another month than it was bought.
    bench.set_clock("2025-02-10").await;
    let bought: Vec<Uuid> = bench
        .rows("SELECT job_id FROM punchcard.outcomes ORDER BY job_id")
        .await
        .iter()
        .map(|row| row.get(0))
        .collect();
    bench.sql(&format!("SELECT punchcard.refund('{}')", bought[1])).await;
    // January is archived, and to be carried.
    bench.set_clock("2026-11-15").await;
    bench.sql("UPDATE punchcard.retention SET payload_days = 400").await;
    while bench.count("SELECT count(*) FROM punchcard.archived_months WHERE gone_at IS NOT NULL").await < 3 {
        steps(&bench, 1).await;
    }
    bench.sql("UPDATE punchcard.retention SET money_days = 640").await;
    let (holder, other) = (connect(&bench.direct_url).await, connect(&bench.direct_url).await);
    holder.batch_execute("BEGIN; SELECT FROM punchcard.accounts FOR NO KEY UPDATE").await.unwrap();
    let again =
        format!("SELECT punchcard.increment_user_credits('{account}', 2, 'another', '{}')", bought[0]);
    let again = tokio::spawn(async move { other.query_typed(&again, &[]).await });
    bench.until_waiting_for_locks(1).await;
    while bench.count("SELECT count(*) FROM punchcard.retention WHERE carried_before <> '00000000-0000-0000-0000-000000000000'").await == 0 {
        bench.sql(DUE).await;
        assert!(step(&bench.admin).await);
        bench.assert_audit_is_clean_meanwhile().await;
    }
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.carried").await, 1, "it is carried");
    holder.batch_execute("COMMIT").await.unwrap();
    let refused = again.await.unwrap().expect_err("it was given back");
    assert_eq!(refused.code().map(|code| code.code()), Some("PT410"), "{refused:?}");
    let again = bench.admin.batch_execute(&format!("SELECT punchcard.refund('{}')", bought[1])).await;
    assert_eq!(again.unwrap_err().code().map(|code| code.code()), Some("PT410"));
    assert_eq!(bench.balance(account).await, (100, 0));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_whole_or_gone_once_entries_were_carried() {
    let bench = Bench::new().await;
    bench.begin_at("2025-01-10").await;
    bench.sql(KINDS).await;
    bench.sql("INSERT INTO punchcard.kinds (name, price, life_seconds) VALUES ('late', 2, 2592000)").await;
    let (late, old, nobody) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::nil());
    for account in [late, old, nobody] {
        bench.sql(&format!("SELECT punchcard.grant_credits('{account}', 100, 'first')")).await;
    }
    // A job of January that ends in March, and nothing else: what is carried of it has no gap.
    bench.set_clock("2025-01-31").await;
    bench
        .sql(&format!(
            "SELECT punchcard.enqueue('{late}', 'late', '1', NULL, 0, clock.now() + interval '29 days')"
        ))
        .await;
    bench.set_clock("2025-03-20").await;
    bench.sql(RUN).await;
    // A job of June of an old system's, whose id says 1970.
    bench.set_clock("2025-06-10").await;
    bench
        .sql(&format!(
            "SELECT punchcard.grant_credits('{old}', 100, 'second');
             WITH bought AS (
                 UPDATE punchcard.accounts SET available = available - 7, held = held + 7, entries = entries + 1
                 WHERE id = '{old}' RETURNING available, held, entries
             ), job AS (
                 INSERT INTO punchcard.jobs (account_id, id, price, entry, available_after, held_after, expires_at, created_at, terms_id,
                                             share, priority, max_attempts, kind, input)
                 SELECT '{old}', '00400000-1b2c-4d3e-9f00-aabbccddeeff', 7, b.entries, b.available, b.held, clock.now(), clock.now(),
                        k.terms_id, 0, 0, 3, 'paid', '1'
                 FROM bought b, punchcard.kinds k WHERE k.name = 'paid'
             )
             INSERT INTO punchcard.outcomes (job_id, account_id, share, entry, available_after, held_after, captured, finished_at, attempt,
                                             status, output)
             SELECT '00400000-1b2c-4d3e-9f00-aabbccddeeff', '{old}', 0, b.entries + 1, b.available, b.held - 7, 7, clock.now(), 1,
                    'succeeded', '1'
             FROM bought b;
             UPDATE punchcard.accounts SET held = held - 7, entries = entries + 1 WHERE id = '{old}';
             SELECT punchcard.grant_credits('{old}', 100, 'third')"
        ))
        .await;
    let months = ["2025-01", "2025-02", "2025-03", "2025-04", "2025-05", "2025-06", "2025-07", "2025-08"];
    bench.set_clock("2026-11-01").await;
    let mut before = BTreeMap::new();
    for account in [late, old] {
        for month in months {
            before.insert((account, month), statement(&bench, account, month, 100).await);
        }
    }
    kept_for(&bench, "2026-11-15", 400, 640).await;
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.carried").await, 3, "nobody's, too");
    let mut whole = BTreeMap::new();
    for ((account, month), pages) in &before {
        let answer = bench.get(*account, &format!("/api/credits/statement?month={month}&limit=100")).await;
        if answer.status == 200 {
            assert_eq!(&vec![answer.body], pages, "{account} {month}");
            *whole.entry(*account).or_insert(0) += 1;
        } else {
            assert_eq!(
                (answer.status, &answer.body["code"]),
                (410, &json!("gone")),
                "{account} {month}: {}",
                answer.body
            );
        }
    }
    assert_eq!(whole, BTreeMap::from([(late, 5), (old, 2)]));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_month_begins_is_found_however_its_archive_was_written() {
    let bench = Bench::new().await;
    bench.begin_at("2025-01-10").await;
    bench.sql(KINDS).await;
    bench.sql("INSERT INTO punchcard.kinds (name, price, life_seconds) VALUES ('late', 3, 2592000), ('last', 4, 2592000)").await;
    bench.sql("UPDATE punchcard.kinds SET life_seconds = 2592000").await;
    let account = Uuid::from_u128(1);
    bench
        .sql(&format!(
            "SELECT punchcard.grant_credits('{account}', 100000, 'first');
             DO $$ BEGIN FOR i IN 1..1300 LOOP
                 PERFORM punchcard.enqueue('{account}', CASE WHEN i = 1300 THEN 'last' WHEN i % 5 = 0 THEN 'late' ELSE 'free' END);
             END LOOP; END $$"
        ))
        .await;
    for (at, kind) in [("2025-01-10", "free"), ("2025-02-02", "last"), ("2025-02-03", "late")] {
        bench.set_clock(at).await;
        let waiting = format!("SELECT count(*) FROM punchcard.queue WHERE kind = '{kind}'");
        while bench.count(&waiting).await > 0 {
            bench.sql(&RUN.replace("{paid,late}", &format!("{{{kind}}}"))).await;
        }
    }
    let months = ["2025-01", "2025-02", "2025-03"];
    bench.set_clock("2026-11-01").await;
    let mut before = Vec::new();
    for month in months {
        before.push(statement(&bench, account, month, 1000).await);
    }
    // As after more than a million jobs of one account.
    bench
        .sql("DO $$ BEGIN EXECUTE replace(pg_get_functiondef('punchcard.apply_retention'::regproc), '5000', '5'); END $$")
        .await;
    kept_for(&bench, "2026-11-15", 400, 700).await;
    let late = "SELECT count(*) FROM punchcard.archive WHERE last_at > '2025-02-01'";
    assert!(bench.count(late).await > 204);
    for (month, pages) in months.iter().zip(before) {
        assert!(statement(&bench, account, month, 1000).await == pages, "{month} has changed");
    }
}
