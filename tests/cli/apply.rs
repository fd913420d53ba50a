//! `punchcard apply`: it says what it does before it does it, takes nothing away unasked, and its dry run refuses all that the
//! real run would.

use std::{fs, path::PathBuf, time::Duration};

use serde_json::{Value, json};
use shared::{
    db::kinds::{BOUNDS, Bound},
    signing::kind_secret,
};
use time::OffsetDateTime;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use super::{at, punchcard, refused, said};
use crate::support::{Bench, SIGNING_SECRET};

/// A file of kinds, removed with it.
struct File(PathBuf);

impl File {
    fn new(text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kinds-{}.toml", Uuid::new_v4()));
        fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Every kind with all that is said of it.
async fn kinds(bench: &Bench) -> Vec<String> {
    let rows = bench.rows("SELECT k::text FROM punchcard.kinds k ORDER BY k.name").await;
    rows.iter().map(|row| row.get(0)).collect()
}

const FILE: &str = "[kinds.\"qr.svg\"]\nprice = 2\ncancel_url = \"https://example.com/stop\"\n
[kinds.new]\nprice = 1\ntimeout_seconds = 300\nurl = \"https://example.com/\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_is_said_field_by_field_by_the_dry_run_and_by_the_real_one() {
    let bench = Bench::new().await;
    let file = File::new(FILE);
    let before = kinds(&bench).await;
    let plan = said(&punchcard(&bench, &["apply", file.path(), "--dry-run"]));
    assert_eq!(kinds(&bench).await, before, "a dry run changes nothing");
    let done = said(&punchcard(&bench, &["apply", file.path()]));
    for text in [&plan, &done] {
        for line in [
            "changed: qr.svg: price: 1 -> 2\n",
            "changed: qr.svg: cancel_url: none -> \"https://example.com/stop\"\n",
            "changed: qr.svg: backoff_seconds: 1 -> 10\n",
            "new: new: https://example.com/\n",
            "  price = 1\n",
            "  timeout_seconds = 300\n",
            "it may take 300 s: deploy with PollerTimeout=310",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("life_seconds: ") && !text.contains("jitter = "), "only what differs: {text}");
    }
    assert!(plan.contains("dry run: 2 kinds would change"), "{plan}");
    assert!(done.contains("2 kinds changed"), "{done}");
    let priced = "SELECT sum(price)::bigint FROM punchcard.kinds WHERE name IN ('qr.svg', 'new')";
    assert_eq!(bench.count(priced).await, 3);
    for args in [&["apply", file.path(), "--dry-run"][..], &["apply", file.path()]] {
        assert!(said(&punchcard(&bench, args)).contains("nothing to change"));
    }
    let secret = said(&punchcard(&bench, &["kinds", "secret", "new"]));
    assert_eq!(secret.trim(), kind_secret(SIGNING_SECRET, "new", 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_that_the_file_does_not_name_stay_until_they_are_pruned_and_what_that_costs_is_said() {
    let bench = Bench::new().await;
    let account = bench.account(50).await;
    bench.enqueue(account, "unserved", 3).await;
    let file = File::new(
        "[kinds.\"qr.svg\"]\nprice = 1\nmax_priority = 10\nmax_attempts = 3\nbackoff_seconds = 1\n",
    );
    let sold = async || {
        let answer = bench.post(account, json!({ "kind": "unserved" }), None).await;
        answer.status
    };
    let figures = "3 unfinished jobs, 0 of them running, 15 credits held";
    for args in [&["apply", file.path()][..], &["apply", file.path(), "--dry-run"]] {
        let text = said(&punchcard(&bench, args));
        let warning = format!("warning: unserved is not in the file, and stays as it is: {figures}");
        assert!(text.contains(&warning) && text.contains("--prune"), "{text}");
        assert!(
            text.contains("warning: free is not in the file") && text.contains("nothing to change"),
            "{text}"
        );
    }
    let plan = said(&punchcard(&bench, &["apply", file.path(), "--prune", "--dry-run"]));
    assert!(plan.contains(&format!("would be retired: unserved: {figures}")), "{plan}");
    assert_eq!(sold().await, 202, "not retired yet");

    let done = said(&punchcard(&bench, &["apply", file.path(), "--prune"]));
    assert!(
        done.contains("retired: unserved: 4 unfinished jobs, 0 of them running, 20 credits held"),
        "{done}"
    );
    assert!(done.contains("3 kinds changed"), "{done}");
    assert_eq!(sold().await, 422, "retired");
    bench.drain().await;
    assert_eq!(bench.balance(account).await, (50, 0), "what was queued failed, and was released");
    bench.assert_audit_is_clean().await;

    let again = said(&punchcard(&bench, &["apply", file.path(), "--prune"]));
    assert!(again.contains("nothing to change") && !again.contains("unserved"), "{again}");
    let back = File::new("[kinds.unserved]\nprice = 5\nmax_attempts = 3\nbackoff_seconds = 1\n");
    let text = said(&punchcard(&bench, &["apply", back.path()]));
    assert!(text.contains("changed: unserved: offered again") && text.contains("1 kinds changed"), "{text}");
    assert_eq!(sold().await, 202);
}

/// A value within the bound at its edge, and one just outside; as TOML.
fn edges(bound: Bound) -> Vec<(Value, Value)> {
    let long = |length: usize| format!("https://example.com/{}", "x".repeat(length - 20));
    match bound {
        Bound::Whole(from, to) => vec![(json!(from), json!(from - 1)), (json!(to), json!(to + 1))],
        Bound::Wholes(most, from, to) => vec![
            (json!([from]), json!([from - 1])),
            (json!([to]), json!([to + 1])),
            (json!(vec![1; most]), json!(vec![1; most + 1])),
        ],
        Bound::Part => vec![(json!(0.0), json!(-0.01)), (json!(1.0), json!(1.01))],
        Bound::Switch => vec![(json!(true), json!("yes"))],
        Bound::Word(words) => words.iter().map(|word| (json!(word), json!(word.to_uppercase()))).collect(),
        Bound::Url => {
            vec![(json!(long(2_000)), json!(long(2_001))), (json!(long(30)), json!("ftp://example.com/"))]
        }
        Bound::Name => vec![(json!("a".repeat(64)), json!("a".repeat(65))), (json!("a_.-9"), json!("A"))],
    }
}

/// A kind with one field as given, and what else that field needs.
fn with_field(kind: &str, field: &str, value: &Value) -> String {
    let fixed = match field {
        "backoff_delays" => "backoff = \"fixed\"\n",
        "backoff" if value == "fixed" => "backoff_delays = [1]\n",
        _ => "",
    };
    let price = if field == "price" { "" } else { "price = 1\n" };
    match field {
        "name" => format!("[kinds.{value}]\nprice = 1\n"),
        _ => format!("[kinds.{kind}]\n{price}{fixed}{field} = {value}\n"),
    }
}

/// A test of the list as much as of the command: what the one refuses the database refuses too, and what passes passes there.
#[tokio::test(flavor = "multi_thread")]
async fn each_bound_is_said_before_anybody_connects_and_is_the_databases_own() {
    let bench = Bench::new().await;
    let nowhere = "postgres://nobody:nothing@127.0.0.1:9/nowhere";
    let mut all_within = String::new();
    for (field, bound) in BOUNDS {
        for (within, outside) in edges(*bound) {
            all_within += &with_field(&format!("edge-{}", all_within.len()), field, &within);
            let file = File::new(&with_field("edge", field, &outside));
            for args in [&["apply", file.path(), "--dry-run"][..], &["apply", file.path()]] {
                let why = refused(&at(nowhere, args));
                let kind = if *field == "name" { outside.as_str().unwrap() } else { "edge" };
                assert!(
                    why.contains(kind) && why.contains(field) && why.contains(&bound.to_string()),
                    "{why}"
                );
            }
            // A word that is none is no value of the column's type; of all else the table has a CHECK.
            if !matches!(bound, Bound::Switch) && *field != "on_cancel" {
                let literal = match &outside {
                    Value::Array(entries) => format!(
                        "'{{{}}}'",
                        entries.iter().map(Value::to_string).collect::<Vec<_>>().join(",")
                    ),
                    Value::String(text) => format!("'{text}'"),
                    number => number.to_string(),
                };
                let delays = if *field == "backoff_delays" { ", backoff = 'fixed'" } else { "" };
                let update =
                    format!("UPDATE punchcard.kinds SET {field} = {literal}{delays} WHERE name = 'free'");
                let error = bench.admin.batch_execute(&update).await.expect_err(&update);
                let known = [SqlState::CHECK_VIOLATION, SqlState::INVALID_TEXT_REPRESENTATION];
                assert!(error.code().is_some_and(|code| known.contains(code)), "{update}: {error:?}");
            }
        }
    }
    let file = File::new(&all_within);
    let kinds = all_within.matches("[kinds.").count();
    assert!(said(&punchcard(&bench, &["apply", file.path()])).contains(&format!("{kinds} kinds changed")));
    // And the table has no CHECK that the list does not know.
    let checks = "SELECT conname::text FROM pg_constraint WHERE conrelid = 'punchcard.kinds'::regclass AND contype = 'c'";
    for check in bench.rows(checks).await {
        let check: String = check.get(0);
        assert_ne!(shared::db::kinds::field_of(&check), check, "a bound of the table that BOUNDS lacks");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_kind_is_named_with_its_kind_and_nothing_changes() {
    let bench = Bench::new().await;
    let before = kinds(&bench).await;
    for (text, words) in [
        ("[kinds.a]\nprice = 1\ntimeout_seconds = 841\n", &["a: timeout_seconds = 841", "from 1 to 840"][..]),
        (
            "[kinds.a]\nprice = 1\ntimeout_seconds = 3000000000\n",
            &["a: timeout_seconds = 3000000000", "from 1 to 840"],
        ),
        (
            "[kinds.a]\nprice = 1\non_input_error = \"refuse\"\n",
            &["a: on_input_error = \"refuse\"", "one of release, capture"],
        ),
        ("[kinds.a]\nprice = 1\njitter = nan\n", &["a: jitter", "a number from 0 to 1"]),
        ("[kinds.a]\nprice = 1\ncost = 2\n", &["a: unknown field `cost`"]),
        ("[kinds.a]\nmetered = true\n", &["a: missing field `price`"]),
        ("[kinds.a]\nprice = 1\nname = \"b\"\n", &["a: name: the name of its table is the kind's"]),
        (
            "[kinds.a]\nprice = 1\nbackoff = \"fixed\"\n",
            &["a: backoff = \"fixed\" and backoff_delays go together"],
        ),
        (
            "[kinds.a]\nprice = 1\nbackoff_delays = [1]\n",
            &["a: backoff = \"fixed\" and backoff_delays go together"],
        ),
        (
            "[kinds.a]\nprice = -1\n[kinds.b]\nprice = 1\nurl = \"http://10.0.0.1/\"\n",
            &["a: price = -1", "b: http://10.0.0.1/"],
        ),
        ("[kinds.a]\nprice = 1\nprice = 2\n", &["line 3", "duplicate key"]),
        ("[kind.a]\nprice = 1\n", &["unknown field `kind`"]),
        ("", &["missing field `kinds`"]),
    ] {
        let file = File::new(text);
        for args in [
            &["apply", file.path(), "--dry-run"][..],
            &["apply", file.path()],
            &["apply", file.path(), "--prune"],
        ] {
            let why = refused(&punchcard(&bench, args));
            assert!(words.iter().all(|word| why.contains(word)), "{text}: {why}");
        }
    }
    assert_eq!(kinds(&bench).await, before);
}

/// The safety net below the list: the table's own CHECKs are asked by the dry run too.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_only_the_database_knows_is_named_by_the_dry_run_and_changes_nothing() {
    let bench = Bench::new().await;
    bench
        .sql(
            "ALTER TABLE punchcard.kinds DROP CONSTRAINT kinds_timeout_seconds_check,
                 ADD CONSTRAINT kinds_timeout_seconds_check CHECK (timeout_seconds <= 100),
                 ADD CONSTRAINT ours_are_cheap CHECK (price < 1000)",
        )
        .await;
    let before = kinds(&bench).await;
    for (text, field) in [
        ("[kinds.slow]\nprice = 1\ntimeout_seconds = 101\n", "slow: timeout_seconds:"),
        ("[kinds.dear]\nprice = 1000\n", "dear: ours_are_cheap:"),
    ] {
        let file = File::new(text);
        for args in [&["apply", file.path(), "--dry-run"][..], &["apply", file.path(), "--prune"]] {
            let why = refused(&punchcard(&bench, args));
            assert!(
                why.contains(field) && why.contains("nothing has changed") && !why.contains("CHECK"),
                "{why}"
            );
        }
    }
    assert_eq!(kinds(&bench).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_nobody_serves_is_warned_of_and_the_doctor_names_it_once_its_jobs_wait() {
    let bench = Bench::new().await;
    let file = File::new(
        "[kinds.\"qr.svgg\"]\nprice = 1\n[kinds.\"qr.svg\"]\nprice = 1\n[kinds.far]\nprice = 1\nurl = \"https://example.com/\"\n",
    );
    let text = said(&punchcard(&bench, &["apply", file.path()]));
    assert!(text.contains("warning: qr.svgg: there is no url, and functions/worker has no Rust code of that name (it has qr.svg)"), "{text}");
    assert_eq!(text.matches("there is no url").count(), 1, "{text}");
    // Each time, not only when it changes.
    assert!(said(&punchcard(&bench, &["apply", file.path()])).contains("warning: qr.svgg: there is no url"));

    let account = bench.account(10).await;
    bench.enqueue(account, "qr.svgg", 2).await;
    bench.enqueue(account, "qr.svg", 1).await;
    assert!(!said(&punchcard(&bench, &["doctor"])).contains("nobody claims"), "they may be claimed yet");
    assert!(!said(&punchcard(&bench, &["doctor"])).contains("a snapshot"), "nobody keeps one");
    bench.wait(700).await;
    bench.poller().invoke(&json!({})).await.unwrap();
    let text = said(&punchcard(&bench, &["doctor"]));
    assert!(
        text.contains("nobody claims the kind qr.svgg: 2 jobs") && text.contains("unclaimed_jobs"),
        "{text}"
    );
    assert!(!text.contains("the kind qr.svg:"), "{text}");
}

/// A retention that gets shorter deletes, and is a slip like any other.
#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_retention_says_what_it_deletes_and_waits_to_be_told() {
    let bench = Bench::new().await;
    let began = (OffsetDateTime::now_utc() - Duration::from_secs(300 * 86_400)).date();
    bench.begin_at(&began.to_string()).await;
    bench.set_clock("now").await;
    bench.sql("DO $$ BEGIN WHILE punchcard.make_periods() LOOP END LOOP; END $$").await;
    let account = bench.account(10).await;
    bench.post(account, json!({ "kind": "qr.svg", "input": { "text": "t" } }), Some("key")).await;
    let kept = async || {
        let row = &bench
            .rows("SELECT r.payload_days, r.key_days, r.money_days FROM punchcard.retention r")
            .await[0];
        (row.get::<_, Option<i32>>(0), row.get::<_, Option<i32>>(1), row.get::<_, Option<i32>>(2))
    };
    let of = |retention: &str| File::new(&format!("[kinds.\"qr.svg\"]\nprice = 1\n[retention]\n{retention}"));
    said(&punchcard(&bench, &["apply", of("").path()]));
    assert_eq!(kept().await, (Some(400), Some(400), None), "the defaults");
    // Longer is taken; as it is is nothing to change.
    let longer = of("payload_days = 500\nkey_days = \"forever\"");
    let plan = said(&punchcard(&bench, &["apply", longer.path(), "--dry-run"]));
    assert!(plan.contains("changed: retention: payload_days: 400 -> 500\n"), "{plan}");
    assert!(plan.contains("changed: retention: key_days: 400 -> \"forever\"\n"), "{plan}");
    assert_eq!(kept().await, (Some(400), Some(400), None), "a dry run changes nothing");
    said(&punchcard(&bench, &["apply", longer.path()]));
    assert_eq!(kept().await, (Some(500), None, None));
    let same = said(&punchcard(&bench, &["apply", longer.path()]));
    assert!(same.contains("nothing to change"), "{same}");
    // Shorter waits to be told. What is as old as that is counted.
    let shorter = of("payload_days = 90\nkey_days = 90\nmoney_days = 90");
    let told = said(&punchcard(&bench, &["apply", shorter.path()]));
    assert!(told.contains("nothing is that old yet\n") && told.contains("--prune changes it"), "{told}");
    assert_eq!(kept().await, (Some(500), None, None));
    bench
        .sql(&format!(
            "SET session_replication_role = replica;
             INSERT INTO punchcard.jobs (account_id, id, price, entry, available_after, held_after, expires_at, created_at,
                                         terms_id, share, priority, max_attempts, kind, input)
             VALUES ('{account}', punchcard.uuid_v7(now() - interval '200 days'), 4, 9, 0, 0, now(),
                     now() - interval '200 days', 1, 0, 0, 3, 'qr.svg', '1');
             INSERT INTO punchcard.idempotency_keys
             SELECT j.account_id, punchcard.key_digest('old'), j.id, j.id FROM punchcard.jobs j WHERE j.entry = 9;
             RESET session_replication_role"
        ))
        .await;
    let told = said(&punchcard(&bench, &["apply", shorter.path(), "--dry-run"]));
    assert!(told.contains("deletes: 1 jobs, 4 credits, of 20"), "{told}");
    assert!(told.contains("deletes: 1 idempotency keys, of 20"), "{told}");
    assert!(told.contains("deletes: 1 entries, "), "{told}");
    // An end goes with its job, however late it was.
    bench
        .sql(
            "SET session_replication_role = replica;
             INSERT INTO punchcard.outcomes (job_id, account_id, share, entry, available_after, held_after, captured, status,
                                             attempt, crashes, lease_token, finished_at, output)
             SELECT j.id, j.account_id, 0, 10, 0, 0, 4, 'succeeded', 1, 0, 1, now(), '1' FROM punchcard.jobs j WHERE j.entry = 9;
             RESET session_replication_role",
        )
        .await;
    let told = said(&punchcard(&bench, &["apply", shorter.path(), "--dry-run"]));
    assert!(told.contains("deletes: 2 entries, "), "{told}");
    // A key of a batch is kept until the last of its jobs is as old.
    bench.sql("UPDATE punchcard.idempotency_keys SET last_job_id = punchcard.uuid_v7() WHERE job_id = last_job_id OR last_job_id IS NULL").await;
    let told = said(&punchcard(&bench, &["apply", shorter.path(), "--dry-run"]));
    assert!(!told.contains("idempotency keys"), "{told}");
    bench.sql("UPDATE punchcard.idempotency_keys SET last_job_id = NULL").await;
    said(&punchcard(&bench, &["apply", shorter.path(), "--prune"]));
    assert_eq!(kept().await, (Some(90), Some(90), Some(90)));
    // A file that does not speak of it leaves it as it is.
    said(&punchcard(&bench, &["apply", File::new("[kinds.\"qr.svg\"]\nprice = 2\n").path()]));
    assert_eq!(kept().await, (Some(90), Some(90), Some(90)));
    for (bad, why) in [
        ("payload_days = 89", "it is a whole number of days from 90 to 36500, or \"forever\""),
        (
            "payload_days = 400\nkey_days = 90",
            "retention: key_days: keys are kept for as long as payloads, at least",
        ),
        ("money_days = 100", "retention: money_days: money is kept for as long as payloads, at least"),
        ("days = 100", "unknown field `days`"),
    ] {
        let error = refused(&punchcard(&bench, &["apply", of(bad).path()]));
        assert!(error.contains(why), "{bad}: {error}");
    }
    assert_eq!(kept().await, (Some(90), Some(90), Some(90)));
}
