//! The mark is looked at once it is written: by the trial, and by each batch. What it does not do as it must is refused, and
//! nothing has changed.

use uuid::Uuid;

use super::{FROM, content, lines_with, old_table, refused, refused_at, run, said, with};
use crate::support::{Bench, OWNER, as_role, connect};

const MARKED: &str = "SELECT count(*) FROM public.jobs WHERE status::text = 'punchcard'";
const DRY: &[&str] = &["--dry-run"];

/// Both runs refuse it, in the same words.
async fn both_refuse(bench: &Bench, more: &[&str], words: &[&str]) {
    for last in [DRY, &["--pause", "0"]] {
        lines_with(&refused(bench, &with(&[more, last].concat())).await, words);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_padded_column_bears_the_whole_mark() {
    let bench = Bench::new().await;
    old_table(&bench, &[Uuid::new_v4()], 20).await;
    bench.sql("ALTER TABLE public.jobs ALTER status TYPE char(10)").await;
    said(&bench, &with(DRY)).await;
    let done = said(&bench, &with(&["--pause", "0"])).await;
    lines_with(&done, &["imported: 15 as history, 20 to be run"]);
    assert!(!done.contains("old worker, which had"), "{done}");
    assert_eq!(bench.count(MARKED).await, 20);
    bench.drain().await;
    bench.assert_audit_is_clean().await;
    lines_with(&said(&bench, FROM).await, &["punchcard (20) is taken", "in Punchcard already: 35"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_cuts_the_mark_or_takes_none_is_refused_by_the_dry_run() {
    let bench = Bench::new().await;
    old_table(&bench, &[Uuid::new_v4()], 20).await;
    bench.sql("UPDATE public.jobs SET status = CASE status WHEN 'queued' THEN 'new' ELSE 'done' END").await;
    bench.sql("CREATE DOMAIN public.word AS varchar(5)").await;
    for (column, words) in [
        ("char(5)", &["does not take the word punchcard", "--taken-status"][..]),
        ("varchar(5)", &["does not take the word punchcard", "--taken-status"]),
        // A cast to it cuts the word without a word.
        ("public.word", &["reads back as punch", "--taken-status"]),
        ("\"char\"", &["reads back as p", "--taken-status"]),
    ] {
        let values = if column == "\"char\"" { " USING left(status, 1)::\"char\"" } else { "" };
        bench
            .sql(&format!(
                "ALTER TABLE public.jobs ALTER status DROP DEFAULT, ALTER status TYPE {column}{values}"
            ))
            .await;
        both_refuse(&bench, &["--status", "n=queued,d=succeeded"], words).await;
    }
    // A word that fits passes.
    bench.sql("ALTER TABLE public.jobs ALTER status TYPE public.word USING CASE status WHEN 'n' THEN 'new' ELSE 'done' END").await;
    lines_with(
        &said(&bench, &with(&["--taken-status", "moved", "--dry-run"])).await,
        &["dry run: nothing has changed"],
    );
}

/// Tables on which an update of the status does something else, what is said, and what of it is undone afterwards.
const ODD: &[(&str, &str, &str)] = &[
    (
        "CREATE TRIGGER t BEFORE UPDATE ON public.jobs FOR EACH ROW EXECUTE FUNCTION public.keep()",
        "an update of status changed 0: a trigger or a rule",
        "DROP TRIGGER t ON public.jobs",
    ),
    (
        "CREATE TRIGGER t BEFORE UPDATE ON public.jobs FOR EACH ROW EXECUTE FUNCTION public.back()",
        "reads back as queued",
        "DROP TRIGGER t ON public.jobs",
    ),
    (
        "CREATE TRIGGER t AFTER UPDATE ON public.jobs FOR EACH ROW WHEN (NEW.status = 'punchcard') EXECUTE FUNCTION public.afterwards()",
        "reads back as swept",
        "DROP TRIGGER t ON public.jobs",
    ),
    (
        "CREATE CONSTRAINT TRIGGER t AFTER UPDATE ON public.jobs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
             WHEN (NEW.status = 'punchcard') EXECUTE FUNCTION public.afterwards()",
        "reads back as swept",
        "DROP TRIGGER t ON public.jobs",
    ),
    (
        "CREATE TRIGGER t BEFORE UPDATE ON public.jobs FOR EACH ROW EXECUTE FUNCTION public.refuse()",
        "cannot be marked in the column status (not yours to change)",
        "DROP TRIGGER t ON public.jobs",
    ),
    (
        "CREATE RULE r AS ON UPDATE TO public.jobs DO INSTEAD NOTHING",
        "cannot be marked in the column status",
        "DROP RULE r ON public.jobs",
    ),
    (
        "ALTER TABLE public.jobs ADD CONSTRAINT c CHECK (status <> 'punchcard') NOT VALID",
        "does not take the word punchcard",
        "ALTER TABLE public.jobs DROP CONSTRAINT c",
    ),
    (
        "CREATE UNIQUE INDEX u ON public.jobs (user_id) WHERE status = 'punchcard'",
        "cannot be marked in the column status",
        "DROP INDEX public.u",
    ),
    (
        "ALTER TABLE public.jobs RENAME status TO word;
         ALTER TABLE public.jobs ADD status text GENERATED ALWAYS AS (lower(word)) STORED",
        "its values are generated",
        "ALTER TABLE public.jobs DROP status; ALTER TABLE public.jobs RENAME word TO status",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_does_something_else_is_found_by_the_trial() {
    let bench = Bench::new().await;
    old_table(&bench, &[Uuid::new_v4()], 20).await;
    bench
        .sql(
            "CREATE FUNCTION public.keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE FUNCTION public.back() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.status := OLD.status; RETURN NEW; END';
             CREATE FUNCTION public.afterwards() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN UPDATE public.jobs SET status = ''swept'' WHERE id = NEW.id; RETURN NULL; END';
             CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN RAISE EXCEPTION ''not yours to change''; END'",
        )
        .await;
    for (make, why, undo) in ODD {
        bench.sql(make).await;
        both_refuse(&bench, &[], &[why]).await;
        bench.sql(undo).await;
    }
    lines_with(&said(&bench, &with(&["--pause", "0"])).await, &["imported: 15 as history, 20 to be run"]);
    bench.assert_audit_is_clean().await;
}

/// What the trial of some rows cannot see, each batch sees of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_keeps_some_rows_stops_at_their_batch_and_says_what_was_marked() {
    let bench = Bench::new().await;
    old_table(&bench, &[Uuid::new_v4()], 40).await;
    // The youngest come last.
    bench.sql("ALTER TABLE public.jobs ADD held boolean NOT NULL DEFAULT false").await;
    bench.sql("UPDATE public.jobs SET held = true WHERE created_at > now() - interval '5 minutes' AND status = 'queued'").await;
    bench
        .sql(
            "CREATE FUNCTION public.keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER t BEFORE UPDATE ON public.jobs FOR EACH ROW WHEN (OLD.held) EXECUTE FUNCTION public.keep()",
        )
        .await;
    said(&bench, &with(DRY)).await;
    let output = run(&bench, &with(&["--pause", "0", "--batch", "15"])).await;
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.trim().lines().count() == 1, "{error}");
    lines_with(&error, &["of 10 rows an update of status changed", "30 were marked before, and wait"]);
    assert_eq!(bench.count(MARKED).await, 30, "of the last batch none");
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.queue").await, 0);
    bench.sql("DROP TRIGGER t ON public.jobs").await;
    let done = said(&bench, &with(&["--pause", "0"])).await;
    lines_with(
        &done,
        &["to take over: 40: 10 queued, 30 taken by an earlier run", "imported: 30 as history, 40 to be run"],
    );
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_somebody_holds_are_not_said_to_be_with_the_old_worker() {
    let bench = Bench::new().await;
    old_table(&bench, &[Uuid::new_v4()], 4).await;
    let holder = connect(&bench.direct_url).await;
    holder.batch_execute("BEGIN; SELECT FROM public.jobs WHERE status = 'queued' FOR UPDATE").await.unwrap();
    let untried = "not tried: somebody else holds each queued row";
    lines_with(&said(&bench, &with(DRY)).await, &[untried, "dry run: nothing has changed"]);
    let done = said(&bench, &with(&["--pause", "0"])).await;
    lines_with(&done, &[untried, "4 are queued still: somebody else held them locked: run this again"]);
    holder.batch_execute("ROLLBACK").await.unwrap();
    lines_with(&said(&bench, &with(&["--pause", "0"])).await, &["imported: 0 as history, 4 to be run"]);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_for_the_mark_is_needed_where_the_status_is_the_key() {
    let bench = Bench::new().await;
    let account = Uuid::new_v4();
    bench
        .sql(&format!(
            "CREATE TABLE public.jobs (id bigint, user_id uuid, type text, status text, payload json) PARTITION BY LIST (status);
             CREATE TABLE public.jobs_open PARTITION OF public.jobs FOR VALUES IN ('queued', 'processing');
             INSERT INTO public.jobs SELECT n, '{account}', 'qr.svg', 'queued', '{{\"text\":\"t\"}}' FROM generate_series(1, 3) n"
        ))
        .await;
    both_refuse(&bench, &[], &["does not take the word punchcard"]).await;
    bench.sql("CREATE TABLE public.jobs_gone PARTITION OF public.jobs FOR VALUES IN ('punchcard')").await;
    lines_with(&said(&bench, &with(&["--pause", "0"])).await, &["imported: 0 as history, 3 to be run"]);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_and_a_name_in_other_letters_are_told_from_a_table() {
    let bench = Bench::new().await;
    old_table(&bench, &[Uuid::new_v4()], 4).await;
    bench.sql("CREATE VIEW public.open_jobs AS SELECT * FROM public.jobs; ALTER TABLE public.jobs RENAME TO \"Order\"").await;
    let of = |name: &'static str| ["--from", name, "--price", "3", "--dry-run"];
    lines_with(
        &refused(&bench, &of("public.open_jobs")).await,
        &["public.open_jobs is not a table of an old queue: it is a view"],
    );
    for name in ["public.Order", "public.ORDER", "\"order\""] {
        let line = refused(&bench, &of(name)).await;
        lines_with(&line, &["there is no table", "there is public.\"Order\": write it so"]);
    }
    lines_with(&said(&bench, &of("public.\"Order\"")).await, &["to take over: 4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_role_may_not_do_is_found_before_a_row_is_marked() {
    let bench = Bench::new().await;
    old_table(&bench, &[Uuid::new_v4()], 20).await;
    let url = as_role(&bench.direct_url, OWNER);
    let args = with(&["--pause", "0"]);
    lines_with(
        &refused_at(&bench, &url, &args).await,
        &["the role punchcard_migrator may not read the column of"],
    );
    bench
        .sql(&format!(
            "GRANT SELECT (id, user_id, type, status, payload, error, created_at) ON public.jobs TO {OWNER}"
        ))
        .await;
    lines_with(
        &refused_at(&bench, &url, &args).await,
        &["may not read the column of output=result", "(output=)"],
    );
    let mapped = with(&["--pause", "0", "--map", "output=,started=,finished="]);
    lines_with(
        &refused_at(&bench, &url, &mapped).await,
        &["punchcard_migrator may not: grant update (\"status\") on public.jobs to punchcard_migrator"],
    );
    bench.sql(&format!("GRANT UPDATE (status) ON public.jobs TO {OWNER}")).await;
    // A role that may mark and not bring in: the rows would be marked, and stay so.
    bench
        .sql(&format!(
            "ALTER TABLE punchcard.queue OWNER TO postgres; GRANT SELECT ON punchcard.queue TO {OWNER}"
        ))
        .await;
    bench
        .sql(&format!("CREATE POLICY all_pass ON punchcard.queue TO {OWNER} USING (true) WITH CHECK (true)"))
        .await;
    lines_with(
        &refused_at(&bench, &url, &mapped).await,
        &[
            "tried on a few rows, and rolled back: this role cannot bring them into Punchcard",
            "nothing has changed",
        ],
    );
    bench.sql(&format!("ALTER TABLE punchcard.queue OWNER TO {OWNER}")).await;
    let before = content(&bench).await;
    let output = super::run_at(&bench, &url, &mapped).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_ne!(content(&bench).await, before);
    assert_eq!(bench.count(MARKED).await, 20);
    bench.assert_audit_is_clean().await;
}
