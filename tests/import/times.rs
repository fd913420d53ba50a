//! Times without a zone are what the zone of the session that wrote them made of them: read in another, a job is due hours too
//! late, or at once.

use tokio_postgres::Client;
use uuid::Uuid;

use super::{lines_with, refused, said};
use crate::support::{Bench, PASSWORD, as_role, connect};

const ARGS: &[&str] = &["--from", "public.tasks", "--kind", "qr.svg", "--price", "1", "--pause", "0"];
const OLD: &str = "CREATE TABLE public.tasks (id bigserial PRIMARY KEY, account_id uuid NOT NULL, status text NOT NULL DEFAULT 'queued',
    payload json NOT NULL DEFAULT '{\"text\":\"t\"}', created_at timestamp NOT NULL DEFAULT now(), run_at timestamp, finished_at date)";

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [ARGS, more].concat()
}

/// One job due in 50 minutes and one in 3 hours, by the clock of whoever writes them.
async fn write(writer: &Client) {
    let insert = format!(
        "INSERT INTO public.tasks (account_id, run_at) VALUES ('{}', now() + interval '50 minutes'), ('{}', now() + interval '3 hours')",
        Uuid::new_v4(),
        Uuid::new_v4()
    );
    writer.batch_execute(&insert).await.unwrap();
}

/// In how many minutes each job here is due, rounded.
async fn due(bench: &Bench) -> Vec<i64> {
    let sql =
        "SELECT round(extract(epoch FROM run_at - now()) / 60)::bigint FROM punchcard.jobs_now ORDER BY 1";
    bench.rows(sql).await.iter().map(|row| row.get(0)).collect()
}

/// In how many minutes, as a dry run says, the first job is due that is not due yet.
fn first_due(plan: &str) -> i64 {
    let spelt = plan.split("the first of them at ").nth(1).and_then(|rest| rest.split("Z, in ").nth(1));
    let words: Vec<&str> = spelt.expect(plan).lines().next().unwrap().split(' ').collect();
    match words.as_slice() {
        [hours, "h", minutes, "min"] => hours.parse::<i64>().unwrap() * 60 + minutes.parse::<i64>().unwrap(),
        [minutes, "min"] => minutes.parse().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_databases_zone_must_be_said_and_then_each_job_is_due_when_it_was() {
    for (zone, wrongly) in [
        ("Europe/Berlin", "due: 0 at once, 2 later: the first of them at"),
        ("America/New_York", "due: 2 at once, none later"),
    ] {
        let bench = Bench::new().await;
        bench.sql(OLD).await;
        bench.sql(&format!("ALTER DATABASE {} SET timezone = '{zone}'", bench.database)).await;
        write(&connect(&bench.direct_url).await).await;
        for more in [&["--dry-run"][..], &[]] {
            let line = refused(&bench, &with(more)).await;
            lines_with(
                &line,
                &[
                    "created=created_at, finished=finished_at, run_at=run_at have no time zone",
                    &format!("--time-zone {zone}, or --time-zone UTC"),
                ],
            );
        }
        // What reading them as UTC would mean is said first.
        let shown = String::from_utf8(super::run(&bench, &with(&["--dry-run"])).await.stdout).unwrap();
        lines_with(&shown, &["times without a zone, created=created_at,", "are read as UTC"]);
        lines_with(&shown, &[wrongly]);
        if zone == "Europe/Berlin" {
            assert!((90..=170).contains(&first_due(&shown)), "an hour or two too late: {shown}");
        }

        let lower = zone.to_lowercase();
        let plan = said(&bench, &with(&["--time-zone", &lower, "--dry-run"])).await;
        lines_with(&plan, &[&format!("are read as {zone}"), "due: 0 at once, 2 later: the first of them at"]);
        assert!((30..=50).contains(&first_due(&plan)), "{plan}");
        said(&bench, &with(&["--time-zone", zone])).await;
        let minutes = due(&bench).await;
        assert!((30..=50).contains(&minutes[0]) && (160..=180).contains(&minutes[1]), "{zone}: {minutes:?}");
        bench.assert_audit_is_clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn times_in_utc_need_no_word_but_are_named_and_those_with_a_zone_are_not() {
    let bench = Bench::new().await;
    bench.sql(OLD).await;
    bench.sql(&format!("ALTER DATABASE {} SET timezone = 'Etc/UTC'", bench.database)).await;
    write(&connect(&bench.direct_url).await).await;
    let plan = said(&bench, &with(&["--dry-run"])).await;
    lines_with(&plan, &["are read as UTC (--time-zone says another)"]);
    assert!((30..=50).contains(&first_due(&plan)), "{plan}");
    lines_with(
        &refused(&bench, &with(&["--time-zone", "Middle/Earth"])).await,
        &["knows no zone Middle/Earth", "Europe/Berlin"],
    );
    // The columns' zone is known: then the database's is nobody's business.
    bench.sql("ALTER TABLE public.tasks ALTER created_at TYPE timestamptz, ALTER run_at TYPE timestamptz, DROP finished_at").await;
    bench.sql(&format!("ALTER DATABASE {} SET timezone = 'Asia/Tokyo'", bench.database)).await;
    let plan = said(&bench, &with(&["--dry-run"])).await;
    assert!((30..=50).contains(&first_due(&plan)) && !plan.contains("without a zone"), "{plan}");
}

/// The zone of a role that writes the table, and not ours.
#[tokio::test(flavor = "multi_thread")]
async fn the_zone_of_who_writes_the_table_counts() {
    let bench = Bench::new().await;
    bench.sql(OLD).await;
    let role = format!("writer_{}", Uuid::new_v4().simple());
    bench
        .sql(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role};
             GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role};
             ALTER ROLE {role} SET timezone = 'America/New_York'"
        ))
        .await;
    write(&connect(&as_role(&bench.direct_url, &role)).await).await;
    lines_with(
        &refused(&bench, ARGS).await,
        &["America/New_York is set in this database", "--time-zone America/New_York"],
    );
    said(&bench, &with(&["--time-zone", "America/New_York"])).await;
    let minutes = due(&bench).await;
    assert!((30..=50).contains(&minutes[0]) && (160..=180).contains(&minutes[1]), "{minutes:?}");
    bench.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn times_that_no_zone_can_move_are_left_where_they_are() {
    let bench = Bench::new().await;
    bench.sql(OLD).await;
    let account = Uuid::new_v4();
    bench
        .sql(&format!(
            "INSERT INTO public.tasks (id, account_id, created_at, run_at) VALUES
                 (1, '{account}', now(), '-infinity'), (2, '{account}', now(), 'infinity'), (3, '{account}', '294276-12-31 23:00', NULL),
                 (4, '{account}', '4714-11-24 BC', NULL), (5, '{account}', now(), NULL), (6, '{account}', now() + interval '9 days', NULL);
             INSERT INTO public.tasks (id, account_id, status, created_at, finished_at) VALUES
                 (7, '{account}', 'done', now() - interval '9 days', '5874897-12-31'), (8, '{account}', 'done', now() - interval '9 days', '-infinity'),
                 (9, '{account}', 'done', now() - interval '9 days', now() - interval '1 day')"
        ))
        .await;
    let done = said(&bench, &with(&["--time-zone", "Asia/Tokyo"])).await;
    lines_with(
        &done,
        &[
            "skipped 1: it waits for more than 30 days: 2",
            "skipped 5: its times are out of order: ",
            "imported: 1 as history, 2 to be run",
        ],
    );
    // And what came in can be read: no year that no program knows.
    let page = bench.get(account, "/api/jobs").await;
    assert_eq!((page.status, page.body["data"].as_array().unwrap().len()), (200, 3), "{}", page.body);
    bench.drain().await;
    bench.assert_audit_is_clean().await;
}
