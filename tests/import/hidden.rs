//! A look that sees no row is no proof: where row security may hide some, nothing is said of the others.

use uuid::Uuid;

use super::{lines_with, old_table, refused_at, run_at, with};
use crate::support::{Bench, OWNER, PASSWORD, as_role};

#[tokio::test(flavor = "multi_thread")]
async fn an_old_table_whose_rows_are_hidden_from_the_role_is_not_empty() {
    let bench = Bench::new().await;
    old_table(&bench, &[Uuid::new_v4()], 20).await;
    let url = as_role(&bench.direct_url, OWNER);
    bench.sql(&format!("GRANT SELECT, UPDATE ON public.jobs TO {OWNER}; ALTER TABLE public.jobs ENABLE ROW LEVEL SECURITY")).await;
    let hidden = "row security may hide rows from the role punchcard_migrator (of public.jobs)";
    for policy in [
        // None at all; some rows; all to read, but some to change; all, but for what another policy takes away.
        "",
        "CREATE POLICY p ON public.jobs USING (status = 'queued')",
        "CREATE POLICY p ON public.jobs FOR SELECT USING (true)",
        "CREATE POLICY p ON public.jobs USING (true) WITH CHECK (status <> 'punchcard')",
        "CREATE POLICY p ON public.jobs USING (true); CREATE POLICY q ON public.jobs AS RESTRICTIVE USING (status = 'queued')",
        "DROP POLICY q ON public.jobs; DROP POLICY p ON public.jobs; CREATE POLICY p ON public.jobs TO anon USING (true)",
    ] {
        bench.sql(policy).await;
        for more in [&["--dry-run"][..], &["--pause", "0"]] {
            lines_with(&refused_at(&bench, &url, &with(more)).await, &[hidden, "BYPASSRLS"]);
        }
        if policy.starts_with("CREATE POLICY p") && !policy.contains("POLICY q") {
            bench.sql("DROP POLICY p ON public.jobs").await;
        }
    }
    bench
        .sql(&format!("DROP POLICY p ON public.jobs; CREATE POLICY p ON public.jobs TO {OWNER} USING (true)"))
        .await;
    let output = run_at(&bench, &url, &with(&["--pause", "0"])).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    lines_with(&String::from_utf8(output.stdout).unwrap(), &["imported: 15 as history, 20 to be run"]);
    bench.assert_audit_is_clean().await;
}

/// As after a restore with another owner: every policy of ours names the one that was.
#[tokio::test(flavor = "multi_thread")]
async fn tables_of_ours_that_hide_their_rows_are_named_too() {
    let bench = Bench::new().await;
    old_table(&bench, &[Uuid::new_v4()], 4).await;
    let role = format!("restored_{}", Uuid::new_v4().simple());
    bench
        .sql(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'; GRANT TEMPORARY ON DATABASE {} TO {role};
             GRANT USAGE ON SCHEMA punchcard TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA punchcard TO {role};
             GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA punchcard TO {role}; GRANT ALL ON public.jobs TO {role}",
            bench.database
        ))
        .await;
    let url = as_role(&bench.direct_url, &role);
    let line = refused_at(&bench, &url, &with(&["--pause", "0"])).await;
    lines_with(&line, &["row security may hide rows", "punchcard.jobs", "punchcard.kinds"]);
    bench.sql(&format!("ALTER ROLE {role} BYPASSRLS")).await;
    let output = run_at(&bench, &url, &with(&["--dry-run"])).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    bench.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}
