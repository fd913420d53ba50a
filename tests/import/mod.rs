//! `punchcard import`: the table of a hand-rolled queue moves over while its worker still runs.

mod hidden;
mod inputs;
mod languages;
mod marks;
mod price;
mod priority;
mod refused;
mod times;

use std::{
    collections::HashSet,
    process::{Output, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use uuid::Uuid;

use crate::support::{Bench, binary, connect};

/// The table of many a tutorial, and its rows: `queued`, of which every tenth fails, and as many of other statuses.
async fn old_table(bench: &Bench, accounts: &[Uuid], queued: usize) {
    bench
        .sql(
            "CREATE TABLE public.jobs (
                 id uuid PRIMARY KEY DEFAULT gen_random_uuid(), user_id uuid NOT NULL, type text NOT NULL,
                 status text NOT NULL DEFAULT 'queued', payload jsonb NOT NULL, result jsonb, error text,
                 created_at timestamptz NOT NULL DEFAULT now(), started_at timestamptz, completed_at timestamptz);
             CREATE INDEX ON public.jobs (status)",
        )
        .await;
    for account in accounts {
        bench
            .sql(&format!(
                "INSERT INTO public.jobs (user_id, type, status, payload, created_at)
                 SELECT '{account}', 'qr.svg', 'queued',
                        CASE WHEN n % 10 = 0 THEN '{{\"wrong\":1}}' ELSE '{{\"text\":\"t\"}}' END::jsonb,
                        now() - n * interval '1 minute'
                 FROM generate_series(1, {queued}) n;
                 INSERT INTO public.jobs (user_id, type, status, payload, result, error, created_at, started_at,
                                          completed_at)
                 SELECT '{account}', 'an old type', w, '{{\"n\":1}}', CASE WHEN n % 2 = 0 AND w = 'completed' THEN '[1]'::jsonb END,
                        CASE WHEN n % 2 = 0 AND w = 'failed' THEN 'it broke' END, now() - interval '2 days',
                        CASE WHEN w <> 'cancelled' THEN now() - interval '1 day' END,
                        CASE WHEN w <> 'processing' THEN now() - interval '1 hour' END
                 FROM generate_series(1, {queued} / 4) n, unnest(ARRAY['completed', 'failed', 'cancelled', 'processing']) w"
            ))
            .await;
    }
}

fn command(bench: &Bench, args: &[&str]) -> tokio::process::Command {
    command_at(&bench.direct_url, args)
}

fn command_at(url: &str, args: &[&str]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(binary("punchcard"));
    command.arg("import").args(args).env("DATABASE_URL", url).kill_on_drop(true);
    command
}

async fn run(bench: &Bench, args: &[&str]) -> Output {
    run_at(bench, &bench.direct_url, args).await
}

async fn run_at(bench: &Bench, url: &str, args: &[&str]) -> Output {
    let output = command_at(url, args).output().await.unwrap();
    // Its session, and the temporary objects with it, may outlive it for a moment; functions are the first of them.
    while bench.count("SELECT count(*) FROM pg_proc WHERE proname LIKE 'punchcard_%'").await > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    output
}

async fn said(bench: &Bench, args: &[&str]) -> String {
    let output = run(bench, args).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// One line on standard error, and nothing changed.
async fn refused(bench: &Bench, args: &[&str]) -> String {
    refused_at(bench, &bench.direct_url, args).await
}

async fn refused_at(bench: &Bench, url: &str, args: &[&str]) -> String {
    let before = content(bench).await;
    let output = run_at(bench, url, args).await;
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.trim().lines().count(), 1, "{text}");
    assert_eq!(content(bench).await, before, "nothing changed");
    text
}

/// Every row of every table, and the names of all that is there.
async fn content(bench: &Bench) -> Vec<String> {
    let tables = bench
        .rows("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('punchcard', 'public') ORDER BY 1")
        .await;
    let mut content = Vec::new();
    for table in &tables {
        let table: String = table.get(0);
        let hash = format!(
            "SELECT count(*) || ' ' || coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') FROM {table} t"
        );
        content.push(format!("{table} {}", bench.rows(&hash).await[0].get::<_, String>(0)));
    }
    let names = "SELECT count(*)::text || ' ' || (SELECT count(*) FROM pg_proc) FROM pg_class WHERE relpersistence <> 't'";
    content.push(bench.rows(names).await[0].get(0));
    content
}

fn lines_with(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word} is not in\n{text}");
    }
}

const FROM: &[&str] = &["--from", "public.jobs", "--price", "3"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [FROM, more].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_copied_and_what_is_queued_runs_and_is_paid_or_released_once() {
    let bench = Bench::new().await;
    let accounts = [Uuid::new_v4(), bench.account(7).await, bench.account(0).await];
    bench.sql(&format!("SELECT punchcard.spread_account('{}', 4)", accounts[1])).await;
    old_table(&bench, &accounts, 80).await;

    let before = content(&bench).await;
    let plan = said(&bench, &with(&["--dry-run"])).await;
    assert_eq!(content(&bench).await, before, "a dry run changes nothing");
    lines_with(
        &plan,
        &[
            "guessed: account=user_id,id=id,status=status,kind=type,input=payload,output=result,error=error,created=created_at,started=started_at,finished=completed_at",
            "queued (240) is queued",
            "cancelled (60) is canceled",
            "history to copy: 180: 60 succeeded, 60 failed, 60 canceled",
            "to take over: 240: 240 queued, 0 taken",
            "left to the old worker: 60 running",
            "dry run: nothing has changed",
        ],
    );

    let done = said(&bench, &with(&["--pause", "1", "--batch", "100"])).await;
    lines_with(&done, &["imported: 180 as history, 240 to be run", "60 were running: run this again"]);
    bench.assert_audit_is_clean().await;
    assert_eq!(bench.balance(accounts[0]).await, (0, 240));
    assert_eq!(bench.balance(accounts[1]).await, (7, 240));
    let kept =
        "SELECT count(*) FROM public.jobs o JOIN punchcard.jobs j ON j.id = o.id AND j.account_id = o.user_id
                AND j.created_at = o.created_at AND j.input::jsonb = o.payload";
    assert_eq!(bench.count(kept).await, 420, "ids, accounts, times and inputs are kept");

    bench.drain().await;
    bench.assert_audit_is_clean().await;
    for account in accounts {
        let start = i64::from(account == accounts[1]) * 7;
        assert_eq!(
            bench.balance(account).await,
            (start + 8 * 3, 0),
            "eight of eighty failed, and were released"
        );
    }
    let released = "SELECT count(*) FROM punchcard.ledger WHERE kind = 'release'";
    assert_eq!(bench.count(released).await, 24);

    let page = bench.get(accounts[0], "/api/jobs?status=failed&limit=100").await;
    let jobs = page.body["data"].as_array().unwrap().clone();
    let imported: Vec<&Value> = jobs.iter().filter(|job| job["kind"] == "an old type").collect();
    assert_eq!((jobs.len(), imported.len()), (28, 20));
    assert!(
        imported.iter().all(|job| job["error"]["code"] == "imported" && job["credits"]["held"] == 0),
        "{imported:?}"
    );
    assert_eq!(imported.iter().filter(|job| job["error"]["message"] == "it broke").count(), 10);

    let before = content(&bench).await;
    let again = said(&bench, &with(&["--pause", "60"])).await;
    lines_with(&again, &["imported: 0 as history, 0 to be run", "in Punchcard already: 420"]);
    assert_eq!(content(&bench).await, before, "a second run is a no-op, and waits for nothing");

    bench
        .sql("UPDATE public.jobs SET status = 'completed', completed_at = now() WHERE status = 'processing'")
        .await;
    lines_with(&said(&bench, FROM).await, &["imported: 60 as history, 0 to be run"]);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_killed_is_resumed_and_nothing_is_imported_twice() {
    let bench = Bench::new().await;
    let accounts = [Uuid::new_v4(), Uuid::new_v4()];
    old_table(&bench, &accounts, 120).await;
    // Wherever it is killed: while it marks, copies, waits, and takes over.
    for (last, times) in
        [("taken from", 3), ("copied", 4), ("waiting", 1), ("taken over", 5), ("taken over", 3)]
    {
        let mut import = command(&bench, &with(&["--pause", "1", "--batch", "10"]));
        let mut import = import.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(import.stdout.take().unwrap()).lines();
        let mut seen = 0;
        while seen < times {
            let line =
                lines.next_line().await.unwrap().unwrap_or_else(|| panic!("it ended before it {last}"));
            seen += usize::from(line.starts_with(last));
        }
        import.start_kill().unwrap();
        assert!(!import.wait().await.unwrap().success());
    }
    let marked = "SELECT count(*) FROM public.jobs WHERE status = 'punchcard'";
    let imported = "SELECT count(*) FROM punchcard.queue";
    assert!(bench.count(marked).await == 240 && (1..240).contains(&bench.count(imported).await));
    said(&bench, &with(&["--pause", "1", "--batch", "10"])).await;
    for (what, count) in [
        ("punchcard.queue", 240),
        ("punchcard.outcomes", 180),
        ("punchcard.jobs", 420),
        ("punchcard.ledger WHERE kind = 'grant'", 240),
        ("punchcard.ledger WHERE kind = 'hold'", 240),
    ] {
        assert_eq!(bench.count(&format!("SELECT count(*) FROM {what}")).await, count, "{what}");
    }
    bench.assert_audit_is_clean().await;
    bench.drain().await;
    bench.assert_audit_is_clean().await;
}

/// A worker as they are: reads what is queued, then writes without a look at what it writes over. Answers what it ran.
async fn unguarded_worker(url: String, stop: tokio::sync::watch::Receiver<bool>) -> Vec<Uuid> {
    let client = connect(&url).await;
    let mut ran = Vec::new();
    while !*stop.borrow() {
        let queued = "SELECT id FROM public.jobs WHERE status = 'queued' ORDER BY random() LIMIT 10";
        for row in client.query_typed(queued, &[]).await.unwrap() {
            let id: Uuid = row.get(0);
            tokio::time::sleep(Duration::from_millis(5)).await;
            let run = format!(
                "UPDATE public.jobs SET status = 'processing', started_at = now() WHERE id = '{id}';
                 UPDATE public.jobs SET status = 'completed', completed_at = now() WHERE id = '{id}'"
            );
            client.batch_execute(&run).await.unwrap();
            ran.push(id);
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    ran
}

#[tokio::test(flavor = "multi_thread")]
async fn no_job_is_run_by_both_though_the_old_worker_looks_before_it_writes() {
    let bench = Bench::new().await;
    let account = Uuid::new_v4();
    old_table(&bench, &[account], 600).await;
    bench.sql("DELETE FROM public.jobs WHERE status = 'processing'").await;
    let all = bench.count("SELECT count(*) FROM public.jobs WHERE status = 'queued'").await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let workers = [(); 2].map(|()| tokio::spawn(unguarded_worker(bench.direct_url.clone(), stopped.clone())));
    // And one that has ten in hand for a while, as if it had read them before they were marked.
    let slow = async {
        let client = connect(&bench.direct_url).await;
        let marked = "SELECT id FROM public.jobs WHERE status = 'punchcard' LIMIT 10";
        loop {
            let rows = client.query_typed(marked, &[]).await.unwrap();
            if rows.len() == 10 {
                tokio::time::sleep(Duration::from_millis(500)).await;
                for row in &rows {
                    let id: Uuid = row.get(0);
                    let run = format!(
                        "UPDATE public.jobs SET status = 'completed', completed_at = now() WHERE id = '{id}'"
                    );
                    client.batch_execute(&run).await.unwrap();
                }
                return rows.iter().map(|row| row.get(0)).collect::<Vec<Uuid>>();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    let args = with(&["--pause", "2", "--batch", "50"]);
    let (done, slow) = tokio::join!(said(&bench, &args), slow);
    assert!(done.contains("went to the old worker"), "{done}");
    stop.send(true).unwrap();
    let mut old: Vec<Uuid> = slow;
    for worker in workers {
        old.extend(worker.await.unwrap());
    }
    bench.drain().await;
    let ours = bench.rows("SELECT job_id FROM punchcard.ledger WHERE kind = 'hold'").await;
    let ours: HashSet<Uuid> = ours.iter().map(|row| row.get(0)).collect();
    let theirs: HashSet<Uuid> = old.into_iter().collect();
    assert!(theirs.len() > 10 && ours.len() > 10, "{} and {}", theirs.len(), ours.len());
    assert_eq!(ours.intersection(&theirs).count(), 0, "no job is run by both");
    assert_eq!(ours.len() + theirs.len(), usize::try_from(all).unwrap(), "and each by one");
    said(&bench, FROM).await;
    let missing = "SELECT count(*) FROM public.jobs o WHERE NOT EXISTS (SELECT FROM punchcard.outcomes f WHERE f.job_id = o.id)";
    assert_eq!(bench.count(missing).await, 0, "what the old worker ran is history");
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_are_numbers_become_the_same_uuids_each_time_in_their_order() {
    let bench = Bench::new().await;
    let account = Uuid::new_v4();
    bench
        .sql(&format!(
            "CREATE TABLE public.\"Task\" (id bigserial PRIMARY KEY, \"userId\" text NOT NULL, state varchar(20), data text,
                 cost integer, \"createdAt\" timestamp DEFAULT now(), urgency smallint, \"key\" text);
             INSERT INTO public.\"Task\" (\"userId\", state, data, cost, urgency, \"key\")
             SELECT '{account}', CASE WHEN n % 2 = 0 THEN 'PENDING' ELSE 'done' END, '{{\"text\":\"t\"}}', n % 3, n, 'key-' || n
             FROM generate_series(1, 40) n"
        ))
        .await;
    let args = [
        "--from",
        "public.\"Task\"",
        "--map",
        "price=cost,priority=urgency,key=key",
        "--kind",
        "qr.svg",
        "--time-zone",
        "UTC",
        "--pause",
        "0",
    ];
    let first = said(&bench, &args).await;
    lines_with(
        &first,
        &["imported: 20 as history, 20 to be run", "brought into -10 to 10: 30", "PENDING (20) is queued"],
    );
    let order = "SELECT string_agg(n::text, ',' ORDER BY k.job_id)
         FROM generate_series(1, 40) n JOIN punchcard.idempotency_keys k ON k.key = punchcard.key_digest('key-' || n)";
    let order: String = bench.rows(order).await[0].get(0);
    assert_eq!(order, (1..=40).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
    for n in [7, 8] {
        let sent = json!({ "kind": "qr.svg", "input": { "text": "t" }, "priority": n });
        let same = bench.post(account, sent, Some(&format!("key-{n}"))).await;
        assert_eq!(same.status, 200, "whoever sends a key again gets the job that it bought: {}", same.body);
    }
    let before = content(&bench).await;
    let again = said(&bench, &args).await;
    lines_with(&again, &["imported: 0 as history, 0 to be run", "in Punchcard already: 40"]);
    assert_eq!(content(&bench).await, before);
    bench.drain().await;
    bench.assert_audit_is_clean().await;
    assert_eq!(bench.balance(account).await, (0, 0), "what was paid is used up");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_imports_do_not_run_at_once() {
    let bench = Bench::new().await;
    old_table(&bench, &[Uuid::new_v4()], 4).await;
    bench.sql("SELECT pg_advisory_lock(hashtext('punchcard import'))").await;
    lines_with(&refused(&bench, FROM).await, &["another import is running"]);
}
