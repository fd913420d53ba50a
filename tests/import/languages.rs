//! Status words, names and keys are compared byte for byte, whatever language a column or a database speaks.

use uuid::Uuid;

use super::{lines_with, old_table, refused, said, with};
use crate::support::{Bench, OWNER, as_role};

/// Whether the server has the International Components for Unicode: Debian's does, an embedded one may not.
async fn has_turkish(bench: &Bench) -> bool {
    bench.count("SELECT count(*) FROM pg_collation WHERE collname = 'tr-TR-x-icu'").await > 0
}

const WORDS: &str = "UPDATE public.jobs SET status = CASE status WHEN 'queued' THEN 'PENDING' WHEN 'completed' THEN 'FINISHED' ELSE status END";

/// A migrated database that speaks Turkish, in place of the bench's own.
async fn turkish(bench: &Bench) -> Bench {
    let database = format!("{}_tr", bench.database);
    bench
        .sql(&format!(
            "CREATE DATABASE {database} OWNER {OWNER} TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'tr-TR'"
        ))
        .await;
    let direct_url = format!("{}/{database}", bench.direct_url.rsplit_once('/').unwrap().0);
    shared::db::migrate::apply(&as_role(&direct_url, OWNER)).await.expect("migrations");
    let bench = Bench::of(direct_url.clone(), database, direct_url).await;
    bench.sql("INSERT INTO punchcard.kinds (name, price) VALUES ('qr.svg', 1)").await;
    bench
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_turkish_database_pending_is_pending() {
    let bench = Bench::new().await;
    if !has_turkish(&bench).await {
        return;
    }
    let turkish = turkish(&bench).await;
    let lower = turkish.rows("SELECT lower('PENDING')").await.remove(0);
    assert_eq!(lower.get::<_, String>(0), "pendıng", "it is Turkish");
    old_table(&turkish, &[Uuid::new_v4()], 20).await;
    turkish.sql(WORDS).await;
    turkish.sql("ALTER TABLE public.jobs RENAME user_id TO \"USER_ID\"; ALTER TABLE public.jobs RENAME id TO \"ID\"").await;
    let done = said(&turkish, &with(&["--pause", "0"])).await;
    lines_with(&done, &["account=USER_ID,id=ID", "PENDING (20) is queued", "FINISHED (5) is succeeded"]);
    lines_with(&done, &["imported: 15 as history, 20 to be run"]);
    turkish.assert_audit_is_clean().await;
    let name = turkish.database.clone();
    drop(turkish);
    bench.sql(&format!("DROP DATABASE {name} WITH (FORCE)")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_of_any_language_is_read_and_of_one_that_takes_no_pattern_too() {
    let bench = Bench::new().await;
    if !has_turkish(&bench).await {
        return;
    }
    // Compared without regard to case by the database itself: patterns are refused of such a column.
    bench.sql("CREATE COLLATION public.blurred (provider = icu, locale = 'und-u-ks-level2', deterministic = false)").await;
    for collation in ["\"tr-TR-x-icu\"", "public.blurred"] {
        old_table(&bench, &[Uuid::new_v4()], 20).await;
        bench.sql(WORDS).await;
        bench
            .sql(&format!(
                "ALTER TABLE public.jobs ADD idempotency_key text;
                 UPDATE public.jobs SET idempotency_key = 'KEY-' || id;
                 ALTER TABLE public.jobs ALTER user_id TYPE text COLLATE {collation}, ALTER status TYPE text COLLATE {collation},
                     ALTER type TYPE text COLLATE {collation}, ALTER idempotency_key TYPE text COLLATE {collation},
                     ALTER error TYPE text COLLATE {collation}, ALTER id DROP DEFAULT, ALTER id TYPE text COLLATE {collation}"
            ))
            .await;
        let done = said(&bench, &with(&["--pause", "0"])).await;
        lines_with(&done, &["PENDING (20) is queued", "imported: 15 as history, 20 to be run"]);
        bench.sql("DROP TABLE public.jobs").await;
    }
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_advice_for_a_word_that_is_not_known_works_as_it_stands() {
    let bench = Bench::new().await;
    old_table(&bench, &[Uuid::new_v4()], 20).await;
    for odd in ["IN LİMBO", "wait, please", "a=b", " padded ", "", "it's", "НОВАЯ"] {
        bench.sql(&format!("UPDATE public.jobs SET status = '{}' WHERE status NOT IN ('completed', 'failed', 'cancelled', 'processing')", odd.replace('\'', "''"))).await;
        let line = refused(&bench, &with(&["--dry-run"])).await;
        let advice = line.split("such as --status '").nth(1).unwrap_or_else(|| panic!("{line}"));
        let advice = advice.trim_end().strip_suffix('\'').unwrap();
        assert_eq!(advice, format!("{odd}=queued"));
        lines_with(&said(&bench, &with(&["--status", advice, "--dry-run"])).await, &["(20) is queued"]);
    }
}
