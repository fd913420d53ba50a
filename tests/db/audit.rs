//! The audit names what is wrong with money: each wrong is planted with the guards switched off, and looked
//! for by its name.

use serde_json::{Value, json};
use tokio_postgres::SimpleQueryMessage;
use uuid::Uuid;

use crate::{
    cli::{punchcard, said},
    support::{Bench, OWNER, as_role, binary, connect},
};

/// What the audit finds once something has been planted; all of it is rolled back.
async fn findings(bench: &Bench, plant: &str) -> Vec<String> {
    let sql = format!(
        "BEGIN; SET LOCAL session_replication_role = replica; {plant};
         SELECT concat_ws(' ', invariant, subject, finding) FROM punchcard.audit; ROLLBACK"
    );
    let answer = bench.admin.simple_query(&sql).await.expect(&sql);
    let rows = answer.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    rows.collect()
}

/// Buys a job of this kind, claims it if there is a verdict, and settles it so; answers its id.
async fn job(bench: &Bench, account: Uuid, kind: &str, verdict: Option<&str>, code: &str) -> String {
    let id = bench.post(account, json!({ "kind": kind }), None).await.body["id"].as_str().unwrap().to_owned();
    if let Some(verdict) = verdict {
        let output = if verdict == "complete" { "'{}'" } else { "NULL" };
        let error = json!({ "code": code, "message": "m", "attempt": 1 });
        let error = if code.is_empty() { "NULL".into() } else { format!("'{error}'") };
        bench
            .sql(&format!(
                "SELECT punchcard.settle(array_agg(job_id), array_agg(lease_token), array_agg('{verdict}'::text),
                     array_agg(3600::float8), array_agg({output}::text), array_agg({error}::text))
                 FROM punchcard.claim(5, '{{{kind}}}', true, 60, 60)"
            ))
            .await;
    }
    id
}

async fn cancel(bench: &Bench, account: Uuid, id: &str) -> Value {
    let answer = bench.act(account, &format!("/api/jobs/{id}/cancel")).await;
    assert_eq!((answer.status, &answer.body["status"]), (200, &json!("canceled")), "{}", answer.body);
    answer.body["credits"]["captured"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_wrong_with_money_is_named() {
    let bench = Bench::new().await;
    bench
        .sql(
            "INSERT INTO punchcard.kinds (name, price, on_cancel, on_input_error) VALUES
                 ('captured', 10, 'capture', 'capture'), ('released', 10, 'release', 'release')",
        )
        .await;
    let (one, other) = (bench.account(100).await, bench.account(100).await);
    bench.sql(&format!("SELECT punchcard.spread_account('{other}', 2)")).await;
    let succeeded = job(&bench, one, "captured", Some("complete"), "").await;
    let others = job(&bench, other, "captured", Some("complete"), "").await;
    let rejected = job(&bench, one, "captured", Some("reject"), "invalid_input").await;
    let never_ran = job(&bench, one, "captured", None, "").await;
    assert_eq!(cancel(&bench, one, &never_ran).await, 0);
    let put_off = job(&bench, one, "captured", Some("snooze"), "unavailable").await;
    assert_eq!(cancel(&bench, one, &put_off).await, 0);
    let between = job(&bench, one, "captured", Some("retry"), "handler_error").await;
    assert_eq!(cancel(&bench, one, &between).await, 10);
    let let_off = job(&bench, one, "released", Some("retry"), "handler_error").await;
    assert_eq!(cancel(&bench, one, &let_off).await, 0);
    let queued = job(&bench, one, "captured", None, "").await;
    let free = job(&bench, one, "free", None, "").await;
    assert!(said(&punchcard(&bench, &["credits", "refund", &succeeded])).contains("refunded 10"));
    bench.sql(&format!("SELECT punchcard.increment_user_credits('{one}', -4, 'correction')")).await;
    bench.assert_audit_is_clean().await;
    assert_eq!(findings(&bench, "").await, Vec::<String>::new());

    let released = |job: &str| {
        format!(
            "UPDATE punchcard.outcomes SET captured = 0, available_after = available_after + 10 WHERE job_id = '{job}'"
        )
    };
    let captured = |job: &str| {
        format!(
            "UPDATE punchcard.outcomes SET captured = 10, available_after = available_after - 10 WHERE job_id = '{job}'"
        )
    };
    let adjustment = "WHERE kind = 'adjust' AND job_id IS NULL";
    let unchecked = "ALTER TABLE punchcard.movements DROP CONSTRAINT movements_name_jobs_to_give_back,
         DROP CONSTRAINT movements_are_of_no_job, DROP CONSTRAINT movements_have_keys";
    let dated = format!(
        "DO $$ BEGIN PERFORM punchcard.grant_credits('{one}', 5, 'dated', NULL, now() + interval '1 day'); END $$"
    );
    let cases = [
        // Adjustments.
        (
            format!("{unchecked}; UPDATE punchcard.movements SET job_id = '{others}' {adjustment}"),
            format!("I3 {others} adjust without its job"),
        ),
        (
            format!("{unchecked}; UPDATE punchcard.movements SET job_id = '{one}' {adjustment}"),
            format!("I3 {one} adjust without its job"),
        ),
        (
            format!("{unchecked}; UPDATE punchcard.movements SET job_id = '{queued}' {adjustment}"),
            format!("I3 {queued} adjust of -4 names a job: it is charged by its hold alone"),
        ),
        (
            format!("{unchecked}; UPDATE punchcard.movements SET job_id = '{queued}' WHERE kind = 'grant' AND account_id = '{one}'"),
            format!("I3 {queued} grant of 100 names a job: it is charged by its hold alone"),
        ),
        (
            format!(
                "DROP INDEX punchcard.movements_one_refund_per_job;
                 INSERT INTO punchcard.movements
                     (account_id, share, entry, kind, amount, available_after, held_after, job_id, idempotency_key)
                 SELECT account_id, share, entry + 1000, kind, amount, available_after, held_after, job_id, 'again'
                 FROM punchcard.movements WHERE job_id = '{succeeded}' AND kind = 'adjust'"
            ),
            format!("I3 {succeeded} 2 entries give back for it"),
        ),
        (
            format!(
                "DROP INDEX punchcard.movements_idempotency_key;
                 INSERT INTO punchcard.movements
                     (account_id, share, entry, kind, amount, available_after, held_after, idempotency_key)
                 VALUES ('{one}', 0, 1000, 'adjust', -4, 0, 0, 'correction')"
            ),
            format!("I2 {one} 2 movements have the key correction"),
        ),
        // Canceled jobs, charged otherwise than `on_cancel` says.
        (released(&between), format!("I4 {between} canceled but captured 0 and released 10")),
        (captured(&never_ran), format!("I4 {never_ran} canceled but captured 10 and released 0")),
        (captured(&put_off), format!("I4 {put_off} canceled but captured 10 and released 0")),
        (captured(&let_off), format!("I4 {let_off} canceled but captured 10 and released 0")),
        (
            "UPDATE punchcard.kind_terms SET on_cancel = 'refuse' WHERE kind = 'released'".to_owned(),
            format!("I4 {let_off} canceled but captured 0 and released 10"),
        ),
        (
            format!(
                "UPDATE punchcard.outcomes SET captured = 4, available_after = available_after + 6 WHERE job_id = '{between}'"
            ),
            format!("I4 {between} canceled but captured 4 and released 6"),
        ),
        // A failure that is not the input's.
        (
            format!("UPDATE punchcard.outcomes SET error = '{{\"code\":\"handler_error\"}}' WHERE job_id = '{rejected}'"),
            format!("I4 {rejected} failed but captured 10 and released 0"),
        ),
        (released(&succeeded), format!("I4 {succeeded} succeeded but captured 0 and released 10")),
        // What is queued is settled by these.
        (
            format!("UPDATE punchcard.queue SET price = 3 WHERE job_id = '{queued}'"),
            format!("I4 {queued} queued on other terms than it was bought on"),
        ),
        (
            format!("UPDATE punchcard.queue SET terms_id = terms_id + 1 WHERE job_id = '{queued}'"),
            format!("I4 {queued} queued on other terms than it was bought on"),
        ),
        (
            format!("UPDATE punchcard.queue SET max_attempts = 9 WHERE job_id = '{queued}'"),
            format!("I4 {queued} queued on other terms than it was bought on"),
        ),
        // Credits with a date that would take others along; an account that was opened again.
        (
            format!(
                "{dated}; UPDATE punchcard.dated_grants SET left_over = 9 WHERE account_id = '{one}'"
            ),
            format!("I5 {one} of grant "),
        ),
        (
            format!("{dated}; DELETE FROM punchcard.dated_accounts"),
            format!("I5 {one} has grants with a date, and nothing says"),
        ),
        (
            format!(
                "DO $$ BEGIN PERFORM punchcard.erase_account('{other}'); END $$; UPDATE punchcard.accounts SET spread = 1 WHERE id = '{other}' AND share = 1"
            ),
            format!("I5 {other} erased, and not closed"),
        ),
        // Credits from nowhere.
        (
            format!(
                "UPDATE punchcard.accounts SET available = available + 5 WHERE id = '{one}';
                 UPDATE punchcard.accounts SET available = available - 5 WHERE id = '{other}' AND share = 0"
            ),
            format!("I5 {one} in "),
        ),
        (
            format!(
                "INSERT INTO punchcard.movements (account_id, share, entry, kind, amount, available_after, held_after)
                 SELECT id, 0, entries + 1, 'shift', 5, available + 5, held FROM punchcard.accounts WHERE id = '{one}';
                 UPDATE punchcard.accounts SET available = available + 5, entries = entries + 1 WHERE id = '{one}'"
            ),
            format!("I5 {one} in "),
        ),
        (
            format!(
                "{unchecked}; INSERT INTO punchcard.movements
                     (account_id, share, entry, kind, amount, available_after, held_after)
                 SELECT id, 0, entries + 1, 'expire', -5, available, held FROM punchcard.accounts WHERE id = '{one}'"
            ),
            format!("I2 {one} entry "),
        ),
        // One that is gone without a trace in any balance: only its number is missing.
        (
            format!("DELETE FROM punchcard.queue WHERE job_id = '{free}'; DELETE FROM punchcard.jobs WHERE id = '{free}'"),
            format!("I2 {one} balance is not the sum of its "),
        ),
        // An end that waits to be entered, entered twice, or nowhere.
        (
            format!("UPDATE punchcard.outcomes SET entry = NULL WHERE job_id = '{succeeded}'"),
            format!("I1 {succeeded} what it moved is entered nowhere"),
        ),
        (
            format!(
                "INSERT INTO punchcard.deferred_entries (job_id, account_id, share, price, captured, bytes)
                 VALUES ('{succeeded}', '{one}', 0, 10, 10, 2)"
            ),
            format!("I1 {succeeded} what it moved is entered twice"),
        ),
    ];
    for (plant, finding) in cases {
        let found = findings(&bench, &plant).await;
        assert!(
            found.iter().any(|found| found.starts_with(&finding)),
            "{plant}: {finding}\nis not in {found:#?}"
        );
    }
    bench.assert_audit_is_clean().await;
}

/// The same with parts as small as can be as at once, through what is kept, archived and carried, and in rounds by ticks.
#[tokio::test(flavor = "multi_thread")]
async fn part_by_part_the_audit_finds_what_it_finds_at_once() {
    let bench = Bench::new().await;
    let mut accounts = Vec::new();
    for number in 0..12 {
        let account = bench.account(100).await;
        bench.enqueue(account, "qr.svg", number % 4).await;
        accounts.push(account);
    }
    bench.drain().await;
    for (number, account) in accounts.iter().enumerate() {
        bench.enqueue(*account, "unserved", number % 3).await;
    }
    accounts.sort();
    bench.assert_audit_is_clean().await;
    let parts = "CREATE TEMP TABLE found (invariant text, subject uuid, finding text);
        DO $$
        DECLARE behind uuid; part record; parts integer := 0;
        BEGIN
            LOOP
                FOR part IN SELECT * FROM punchcard.audit_accounts(behind, 1) LOOP
                    INSERT INTO found SELECT part.invariant, part.subject, part.finding WHERE part.finding IS NOT NULL;
                END LOOP;
                parts := parts + 1;
                behind := part.next_after;
                EXIT WHEN behind IS NULL;
            END LOOP;
            ASSERT parts = (SELECT count(DISTINCT id) FROM punchcard.accounts), 'an account each';
            LOOP
                FOR part IN SELECT * FROM punchcard.audit_rows(behind, 1) LOOP
                    INSERT INTO found SELECT part.invariant, part.subject, part.finding WHERE part.finding IS NOT NULL;
                END LOOP;
                behind := part.next_after;
                EXIT WHEN behind IS NULL;
            END LOOP;
        END $$;";
    let both = "SELECT coalesce((SELECT string_agg(concat_ws(' ', f.invariant, f.subject, f.finding), '; ' ORDER BY f.*) FROM found f), '')
        UNION ALL
        SELECT coalesce((SELECT string_agg(concat_ws(' ', a.invariant, a.subject, a.finding), '; ' ORDER BY a.*)
                         FROM punchcard.audit a WHERE a.invariant <> 'I0'), '')";
    let (first, last) = (accounts[0], accounts[11]);
    for (number, plant) in [
        "",
        &format!("UPDATE punchcard.accounts SET available = available + 1 WHERE id IN ('{first}', '{last}')"),
        "DELETE FROM punchcard.queue WHERE job_id IN (SELECT job_id FROM punchcard.queue ORDER BY job_id DESC LIMIT 3)",
        "DELETE FROM punchcard.jobs",
        "DELETE FROM punchcard.outcomes",
        "UPDATE punchcard.outcomes SET captured = 0, entry = entry + 1",
        "DELETE FROM punchcard.movements",
        "INSERT INTO punchcard.movements (account_id, share, entry, kind, amount, available_after, held_after, idempotency_key)
         VALUES ('ffffffff-ffff-ffff-ffff-fffffffffffe', 0, 1, 'grant', 5, 5, 0, 'x'),
                ('00000000-0000-0000-0000-000000000001', 0, 1, 'grant', 5, 5, 0, 'x')",
        "INSERT INTO punchcard.deliveries (id, account_id, job_id, created_at, event, attempt, put_back, gone)
         SELECT punchcard.uuid_v7(), j.account_id, j.id, now(), 'job.failed', 1, 0, false FROM punchcard.jobs j",
        "INSERT INTO punchcard.deferred_entries (job_id, account_id, price, captured, bytes, share)
         SELECT o.job_id, o.account_id, 1, 1, 5, 0 FROM punchcard.outcomes o",
        "UPDATE punchcard.queue SET expires_at = now() - interval '1 hour', has_run = true, price = price + 1",
    ]
    .iter()
    .enumerate()
    {
        let sql = format!(
            "BEGIN; SET LOCAL session_replication_role = replica; {plant}; {parts} {both}; ROLLBACK"
        );
        let answer = bench.admin.simple_query(&sql).await.expect(plant);
        let found: Vec<String> = answer
            .into_iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            })
            .collect();
        assert_eq!(found[0], found[1], "{plant}");
        assert_eq!(found[0].is_empty(), number == 0, "{plant}: {}", found[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ticks_audit_and_say_what_they_found_until_it_is_mended() {
    let bench = Bench::new().await;
    let account = bench.account(100).await;
    bench.enqueue(account, "qr.svg", 3).await;
    let due = "UPDATE punchcard.upkeep SET next_at = '-infinity' WHERE task = 'audit'";
    let waits = async || {
        bench.sql(due).await;
        bench.drain().await;
        bench.get(account, "/api/health").await.body["upkeep_waits"].clone()
    };
    assert_eq!(waits().await, Value::Null);
    assert_eq!(waits().await, Value::Null);
    let rounds = "SELECT count(*) FROM punchcard.audit_rounds WHERE done_at IS NOT NULL AND after_id IS NULL AND entries = 7";
    assert_eq!(bench.count(rounds).await, 1, "all entries");
    bench.sql("UPDATE punchcard.accounts SET available = available + 1").await;
    assert_eq!(waits().await, json!(["audit"]));
    let doctor = punchcard(&bench, &["doctor"]);
    let said_of_it = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(said_of_it.contains("the audit has 2 findings: stop granting"), "{said_of_it}");
    assert_eq!(waits().await, json!(["audit"]), "as long as it is so");
    bench.sql("UPDATE punchcard.accounts SET available = available - 1").await;
    assert_eq!(waits().await, Value::Null);
    assert_eq!(said(&punchcard(&bench, &["credits", "audit"])), "audit clean\n");
}

/// Whoever presses Ctrl-C does not leave the server at it.
#[tokio::test(flavor = "multi_thread")]
async fn an_audit_that_is_interrupted_is_stopped_at_the_server() {
    let bench = Bench::new().await;
    let holder = connect(&bench.direct_url).await;
    holder.batch_execute("BEGIN; LOCK TABLE punchcard.carried IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let mut audit = std::process::Command::new(binary("punchcard"))
        .args(["credits", "audit"])
        .env("DATABASE_URL", as_role(&bench.url, OWNER))
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    bench.until_waiting_for_locks(1).await;
    let interrupted =
        std::process::Command::new("kill").args(["-INT", &audit.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    assert!(!audit.wait().unwrap().success());
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    for _ in 0..200 {
        if bench.count(waits).await == 0 {
            holder.batch_execute("ROLLBACK").await.unwrap();
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("the server is still at it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_findings_stay_found_and_an_account_too_large_is_left_out() {
    let bench = Bench::new().await;
    bench.sql("DO $$ BEGIN FOR i IN 1..1100 LOOP PERFORM punchcard.grant_credits(gen_random_uuid(), 10, 'g'); END LOOP; END $$").await;
    bench.sql("SET session_replication_role = replica; UPDATE punchcard.accounts SET available = available + 1; RESET session_replication_role").await;
    let round = "DO $$ BEGIN UPDATE punchcard.upkeep SET next_at = now() WHERE task = 'audit'; WHILE punchcard.keep_up('audit', 3600) LOOP END LOOP; END $$";
    for number in 1..4 {
        bench.sql(round).await;
        let found = bench.count("SELECT count(*) FROM punchcard.audit_findings").await;
        let said: Option<String> =
            bench.rows("SELECT error FROM punchcard.upkeep WHERE task = 'audit'").await[0].get(0);
        assert!(
            found == 1_000 && said.is_some_and(|text| text.starts_with("1000 findings")),
            "round {number}: {found}"
        );
    }
    bench.sql("DO $$ BEGIN WHILE punchcard.audit_next(40000, 0) LOOP END LOOP; END $$").await;
    assert_eq!(bench.count("SELECT left_out FROM punchcard.audit_rounds").await, 1_100, "each");
}

/// A row of the archive is found by columns of its own: what does not fit them is found by neither ledger nor audit.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_the_archive_that_is_not_as_it_says_is_found() {
    let bench = Bench::new().await;
    bench.begin_at("2024-01-20").await;
    for _ in 0..3 {
        let account = bench.account(10).await;
        bench.enqueue(account, "qr.svg", 2).await;
    }
    bench
        .sql(
            "SELECT punchcard.cancel(q.job_id) FROM punchcard.queue q;
             UPDATE punchcard.retention SET payload_days = 100, key_days = 100;
             UPDATE clock.shift SET by = by + interval '200 days';
             DO $$ BEGIN WHILE punchcard.make_periods() LOOP END LOOP; PERFORM punchcard.apply_retention(); PERFORM punchcard.apply_retention(); END $$",
        )
        .await;
    bench.assert_audit_is_clean().await;
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.archive").await, 1);
    for change in [
        "last_account = first_account",
        "first_entry = first_entry + 1",
        "prices = prices[1:3]",
        "accounts = accounts || gen_random_uuid(), shares = shares || 0::smallint, entries = entries || 9::bigint, at = at || now(),
             job_ids = job_ids || gen_random_uuid(), prices = prices || 1::bigint, captured = captured || 1::bigint,
             available_after = available_after || 1::bigint, held_after = held_after || 1::bigint",
        "entries[2] = entries[3], entries[3] = entries[2]",
    ] {
        let found = findings(&bench, &format!("UPDATE punchcard.archive SET {change}")).await;
        assert!(found.iter().any(|finding| finding.contains("is not in order")), "{change}: {found:?}");
    }
}
