//! What an import refuses, and what it leaves where it is.

use uuid::Uuid;

use super::{FROM, lines_with, old_table, refused, said, with};
use crate::support::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn a_status_column_that_does_not_take_our_word_is_left_as_it_is() {
    let bench = Bench::new().await;
    old_table(&bench, &[Uuid::new_v4()], 20).await;
    for (retype, accepted) in [
        ("ALTER TABLE public.jobs ADD CONSTRAINT known CHECK (status IN ('queued', 'completed', 'failed', 'cancelled', 'processing', 'moved'))", "moved"),
        ("ALTER TABLE public.jobs ALTER status TYPE varchar(10)", "moved"),
        ("ALTER TABLE public.jobs DROP CONSTRAINT known, ALTER status TYPE varchar(12);
          UPDATE public.jobs SET status = CASE status WHEN 'queued' THEN 'q' WHEN 'processing' THEN 'p' ELSE 'completed' END;
          ALTER TABLE public.jobs ALTER status TYPE varchar(5) USING left(status, 5)", "moved"),
        ("CREATE TYPE public.job_status AS ENUM ('q', 'p', 'compl', 'moved');
          ALTER TABLE public.jobs ALTER status DROP DEFAULT, ALTER status TYPE public.job_status USING status::public.job_status", "moved"),
    ] {
        bench.sql(retype).await;
        for more in [&["--dry-run"][..], &[]] {
            let args = with(&[&["--status", "q=queued,p=running,compl=succeeded"], more].concat());
            lines_with(&refused(&bench, &args).await, &["the column status does not take the word punchcard", "--taken-status"]);
        }
        let args = with(&["--status", "q=queued,p=running,compl=succeeded", "--taken-status", accepted, "--dry-run"]);
        lines_with(&said(&bench, &args).await, &["dry run"]);
    }
    let args =
        with(&["--status", "q=queued,p=running,compl=succeeded", "--taken-status", "moved", "--pause", "0"]);
    lines_with(&said(&bench, &args).await, &["imported: 15 as history, 20 to be run"]);
    lines_with(
        &refused(&bench, &with(&["--taken-status", "Queued"])).await,
        &["Queued means queued already"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_understood_is_refused_in_a_line() {
    let bench = Bench::new().await;
    lines_with(&refused(&bench, &["--from", "public.jobs"]).await, &["there is no table public.jobs"]);
    lines_with(&refused(&bench, &["--from", "a.b.c.d"]).await, &["is no name of a table"]);
    lines_with(&refused(&bench, &["--from", "punchcard.jobs"]).await, &["not a table of an old queue"]);
    old_table(&bench, &[Uuid::new_v4()], 20).await;
    for (args, why) in [
        (&["--map", "account=nobody"][..], "has no column nobody; it has id, user_id"),
        (&["--map", "owner=user_id"], "there is no field owner"),
        (&["--map", "created=type"], "a date or a timestamp is needed"),
        (&["--map", "account="], "--map account=COLUMN"),
        (&["--map", "id=type,kind=type"], "ids stand in more than one row: an old type"),
        (&["--status", "queued=soon"], "a word means one of queued"),
        (&["--kind", "nobody.runs.it"], "kinds that are not offered: nobody.runs.it (20)"),
    ] {
        lines_with(&refused(&bench, &with(args)).await, &[why]);
    }
    bench.sql("UPDATE public.jobs SET status = 'odd' WHERE status = 'cancelled'").await;
    lines_with(&refused(&bench, FROM).await, &["unknown status words: odd (5)", "--status WORD=STATUS"]);
    bench.sql("UPDATE punchcard.kinds SET retired_at = now() WHERE name = 'qr.svg'").await;
    lines_with(
        &refused(&bench, &with(&["--status", "odd=canceled"])).await,
        &["kinds that are not offered: qr.svg (20)"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_kept_stays_where_it_is_and_is_named() {
    let bench = Bench::new().await;
    let (account, other) = (Uuid::new_v4(), bench.account(10).await);
    bench.enqueue(other, "qr.svg", 1).await;
    let forgotten = bench.account(10).await;
    bench.sql(&format!("SELECT punchcard.erase_account('{forgotten}')")).await;
    bench
        .sql(&format!(
            "CREATE TABLE public.jobs (id text PRIMARY KEY, user_id text, status text, type text, payload json, result text,
                 created_at timestamptz DEFAULT now(), finished_at timestamptz, run_at timestamptz, idempotency_key text, price numeric);
             INSERT INTO public.jobs (id, user_id, status, type, payload, price) VALUES
                 ('good', '{account}', 'queued', 'qr.svg', '{{\"text\":\"t\"}}', 2),
                 ('nobody', 'joe', 'queued', 'qr.svg', '{{}}', 2), ('worthless', '{account}', 'queued', 'qr.svg', '{{}}', 1.5),
                 ('big', '{account}', 'done', 'qr.svg', to_json(repeat('x', 70000)), 2),
                 ('nul', '{account}', 'queued', 'qr.svg', '\"\\u0000\"', 2), ('not nul', '{account}', 'done', 'x', '\"\\\\u0000\"', 2),
                 ('forgotten', '{forgotten}', 'failed', 'x', '{{}}', 2),
                 ('unkind', '{account}', 'failed', NULL, '{{}}', 2), ('wordless', '{account}', NULL, 'x', '{{}}', 2);
             INSERT INTO public.jobs (id, user_id, status, type, finished_at) VALUES
                 ('early', '{account}', 'done', 'x', now() - interval '1 day'), ('never', '{account}', 'done', 'x', 'infinity');
             INSERT INTO public.jobs (id, user_id, status, type, run_at, price) VALUES
                 ('later', '{account}', 'queued', 'qr.svg', now() + interval '2 days', 0),
                 ('much later', '{account}', 'queued', 'qr.svg', now() + interval '40 days', 2);
             INSERT INTO public.jobs (id, user_id, status, type, price, idempotency_key) VALUES
                 ('a', '{account}', 'done', 'x', 0, 'k'), ('b', '{account}', 'done', 'x', 0, 'k'), ('c', '{account}', 'done', 'x', 0, 'ké');
             INSERT INTO public.jobs (id, user_id, status, type, result) SELECT q.job_id, '{account}', 'done', 'x', '' FROM punchcard.queue q;
             INSERT INTO public.jobs (id, user_id, status, type, result) VALUES ('text', '{account}', 'done', 'x', 'plain')"
        ))
        .await;
    let args = ["--from", "public.jobs", "--pause", "0"];
    let plan = said(&bench, &[&args[..], &["--dry-run"]].concat()).await;
    let done = said(&bench, &args).await;
    for text in [&plan, &done] {
        lines_with(
            text,
            &[
                "skipped 1: its account is not a UUID: nobody",
                "skipped 1: its price is not a whole number from 0 to 1,000,000,000,000: worthless",
                "skipped 1: its input has more than 65,536 bytes: big",
                "skipped 1: its input contains \\u0000: nul",
                "skipped 1: it has no kind: unkind",
                "skipped 1: its account is erased: forgotten",
                "skipped 1: it has no status: wordless",
                "skipped 2: its times are out of order: early, never",
                "skipped 1: it waits for more than 30 days: much later",
                "skipped 1: its key is that of another row: b",
                "skipped 1: its key is not 1 to 128 printable ASCII characters: c",
                "skipped 1: its id is that of another account's job: ",
            ],
        );
    }
    lines_with(&done, &["imported: 3 as history, 2 to be run"]);
    assert_eq!(bench.count("SELECT count(*) FROM public.jobs WHERE status = 'punchcard'").await, 2);
    let output = "SELECT count(*) FROM punchcard.outcomes WHERE output::text = '\"plain\"'";
    assert_eq!(bench.count(output).await, 1, "a text that is no JSON is a JSON string");
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.queue WHERE run_at > now()").await, 1);
    bench.assert_audit_is_clean().await;

    bench.sql("UPDATE public.jobs SET status = 'queued' WHERE id = 'text'; UPDATE public.jobs SET price = 7.5 WHERE status = 'punchcard'").await;
    let again = said(&bench, &args).await;
    lines_with(&again, &["its status has changed here since: text", "imported: 0 as history, 0 to be run"]);
    bench.sql("DELETE FROM public.jobs").await;
    bench.sql(&format!("INSERT INTO public.jobs (id, user_id, status, type, price) VALUES ('m', '{account}', 'punchcard', 'qr.svg', 0.5)")).await;
    lines_with(
        &said(&bench, &args).await,
        &["(taken by an earlier run: nobody runs it until this is mended): m"],
    );
}
