//! Row security that hides rows from whoever must see them: to see nothing is not to find nothing wrong.

use super::{another, assert_sound, doctor, empty, migrate, offer, punchcard, punchcard_as, refused, remove};
use crate::support::{APP, Bench, OWNER, as_role, connect};

/// Whoever reads by a grant of the team's own, but whom no policy names, is not told that all is well.
#[tokio::test(flavor = "multi_thread")]
async fn an_audit_that_sees_no_row_is_not_clean() {
    let server = Bench::new().await;
    let account = server.account(10).await;
    server.enqueue(account, "qr.svg", 1).await;
    let role = another(&server).await;
    server
        .sql(&format!(
            "GRANT USAGE ON SCHEMA punchcard TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA punchcard TO {role};
             GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA punchcard TO {role}"
        ))
        .await;
    let reader = connect(&as_role(&server.direct_url, &role)).await;
    let audit = "SELECT invariant || ' ' || finding FROM punchcard.audit";
    let found = reader.query_typed(audit, &[]).await.unwrap();
    assert_eq!(found.len(), 1);
    let found: String = found[0].get(0);
    assert!(
        found.starts_with("I0 row security hides the rows of ") && found.contains(&format!("from {role}")),
        "{found}"
    );
    // A policy that shows some of them is no better.
    server
        .sql(&format!("CREATE POLICY dear_ones ON punchcard.jobs FOR SELECT TO {role} USING (price > 1)"))
        .await;
    assert_eq!(
        reader
            .query_typed("SELECT 1 FROM punchcard.hidden WHERE hidden_table = 'jobs'", &[])
            .await
            .unwrap()
            .len(),
        1
    );
    for row in server.rows("SELECT relname::text FROM pg_class WHERE relnamespace = 'punchcard'::regnamespace AND relkind IN ('r', 'p')").await {
        server.sql(&format!("CREATE POLICY {role} ON punchcard.{} FOR SELECT TO {role} USING (true)", row.get::<_, String>(0))).await;
    }
    assert!(reader.query_typed(audit, &[]).await.unwrap().is_empty(), "it sees every row, and all is well");
    server
        .sql(&format!(
            "CREATE POLICY less ON punchcard.movements AS RESTRICTIVE TO {role} USING (amount > 1)"
        ))
        .await;
    let found = reader.query_typed(audit, &[]).await.unwrap();
    assert!(
        found.iter().any(|row| row.get::<_, String>(0).starts_with("I0 ")),
        "a restrictive policy hides some"
    );
    server.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

/// Nor does any command say that there is nothing to list, or to do.
#[tokio::test(flavor = "multi_thread")]
async fn no_command_takes_hidden_rows_for_none() {
    let server = Bench::new().await;
    let database = empty(&server, OWNER, "").await;
    migrate(&database).await;
    let account = database.account(10).await;
    database.enqueue(account, "qr.svg", 1).await;
    let job: String = database.rows("SELECT id::text FROM punchcard.jobs").await[0].get(0);
    let id = account.to_string();
    let file = std::env::temp_dir().join(format!("kinds-{account}.toml"));
    std::fs::write(&file, "[kinds.\"qr.svg\"]\nprice = 1\n[kinds.unserved]\nprice = 5\nmax_attempts = 1\n")
        .unwrap();
    let commands = [
        vec!["jobs", "list", &id],
        vec!["jobs", "show", &job],
        vec!["jobs", "failed"],
        vec!["jobs", "redrive", "qr.svg", "--dry-run"],
        vec!["jobs", "redrive", "qr.svg"],
        vec!["tokens", "list"],
        vec!["limits", "show"],
        vec!["limits", "set", &id, "--unfinished-jobs", "9"],
        vec!["webhooks", "failed"],
        vec!["credits", "show", &id],
        vec!["credits", "source", "show"],
        vec!["kinds", "secret", "qr.svg"],
        vec!["apply", file.to_str().unwrap(), "--dry-run"],
    ];
    let stranger = "CREATE POLICY more ON punchcard.{table} AS RESTRICTIVE USING (false)";
    // As a restore without owners leaves it: the policies name somebody else.
    let of_another = "ALTER POLICY owner_does_all ON punchcard.{table} TO punchcard_app";
    for (hide, show) in [
        (stranger, "DROP POLICY more ON punchcard.{table}"),
        (of_another, "ALTER POLICY owner_does_all ON punchcard.{table} TO punchcard_migrator"),
    ] {
        for command in &commands {
            punchcard(&database, command);
        }
        let each = |statement: &str| {
            let tables = "SELECT relname FROM pg_class
                WHERE relnamespace = 'punchcard'::regnamespace AND relkind IN ('r', 'p') AND relrowsecurity";
            let statement = statement.replace("{table}", "%I");
            format!(
                "DO $$ DECLARE t text;
                 BEGIN FOR t IN {tables} LOOP EXECUTE format('{statement}', t); END LOOP; END $$"
            )
        };
        database.sql(&each(hide)).await;
        for command in &commands {
            let output = punchcard_as(&database, OWNER, command);
            let line = refused(&output);
            assert!(line.contains(&format!("from {OWNER}, their owner: run `punchcard migrate`")), "{line}");
            assert!(output.stdout.is_empty(), "{command:?}: {output:?}");
        }
        database.sql(&each(show)).await;
    }
    // Whoever looks as another role is sent to the owner.
    let role = another(&server).await;
    database
        .sql(&format!(
            "GRANT USAGE ON SCHEMA punchcard TO {role};
             GRANT SELECT ON ALL TABLES IN SCHEMA punchcard TO {role}"
        ))
        .await;
    let line = refused(&punchcard_as(&database, &role, &["tokens", "list"]));
    assert!(line.contains(&format!("from {role}: ask as their owner")), "{line}");
    // Where there is no schema yet, that is what is said.
    let before = empty(&server, OWNER, "").await;
    let line = refused(&punchcard_as(&before, OWNER, &["jobs", "failed"]));
    assert!(line.contains("run `punchcard migrate`") && !line.contains("row security"), "{line}");
    std::fs::remove_file(file).unwrap();
    remove(&server, before).await;
    remove(&server, database).await;
    server.sql(&format!("DROP ROLE {role}")).await;
}

/// The functions' role is looked after as the owner is.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_of_the_functions_that_no_policy_names_is_found_and_mended() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    bench.enqueue(account, "qr.svg", 1).await;
    bench
        .sql("DROP POLICY app_reads ON punchcard.queue; ALTER POLICY app_reads ON punchcard.kinds USING (price > 1)")
        .await;
    let (said, exit) = doctor(&bench, APP);
    assert!(exit == 18 && said.contains(&format!("the rows of 2 tables from {APP}")), "{said}");
    bench.sql("CREATE POLICY more ON punchcard.jobs AS RESTRICTIVE USING (price > 1)").await;
    let line = refused(&punchcard_as(&bench, OWNER, &["migrate"]));
    assert!(line.contains("policies that are not Punchcard's") && line.contains("drop those"), "{line}");
    bench.sql("DROP POLICY more ON punchcard.jobs").await;
    assert!(punchcard(&bench, &["migrate"]).contains("made anew"));
    assert_sound(&bench, "mended");
    offer(&bench);
    bench.drain().await;
    bench.assert_audit_is_clean().await;
}

/// Nor is an old table empty whose rows are hidden from who imports it.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_sees_no_row_does_not_say_that_there_is_none() {
    let bench = Bench::new().await;
    bench
        .sql(&format!(
            "CREATE TABLE public.jobs (id uuid, user_id uuid, status text, type text, payload jsonb);
             INSERT INTO public.jobs VALUES (gen_random_uuid(), gen_random_uuid(), 'done', 'old', '{{}}');
             ALTER TABLE public.jobs ENABLE ROW LEVEL SECURITY;
             GRANT USAGE ON SCHEMA public TO {OWNER}; GRANT SELECT, UPDATE ON public.jobs TO {OWNER}"
        ))
        .await;
    let import = ["import", "--from", "public.jobs", "--price", "1"];
    for policy in ["", "CREATE POLICY p ON public.jobs TO {OWNER} USING (user_id IS NULL)"] {
        bench.sql(&policy.replace("{OWNER}", OWNER)).await;
        let line = refused(&punchcard_as(&bench, OWNER, &import));
        assert!(
            line.contains(&format!("row security may hide rows from the role {OWNER} (of public.jobs)")),
            "{line}"
        );
    }
    bench.sql("ALTER POLICY p ON public.jobs USING (true)").await;
    assert!(punchcard(&bench, &import).contains("imported: 1 as history, 0 to be run"));
}
