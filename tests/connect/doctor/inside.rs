//! What is found once one is in: grants, the team's credits, and the poller's own word.

use local::lambda::Function;
use serde_json::json;

use super::{ask, ask_more};
use crate::support::{APP, Bench, OWNER, PASSWORD, as_role, binary, connect, environment};

/// What somebody did by hand, what the audit says of it, and what undoes it.
const OPENED: &[(&str, &str, &str)] = &[
    ("GRANT USAGE ON SCHEMA punchcard TO anon", "open_grant", "SELECT punchcard.grant_access()"),
    ("GRANT INSERT ON punchcard.movements TO authenticated", "open_grant", "SELECT punchcard.grant_access()"),
    ("GRANT TRUNCATE ON punchcard_api.jobs TO anon", "open_grant", "SELECT punchcard.grant_access()"),
    ("GRANT SELECT (sha256) ON punchcard.service_tokens TO PUBLIC", "open_grant", "SELECT punchcard.grant_access()"),
    (
        "GRANT EXECUTE ON FUNCTION punchcard.increment_user_credits TO authenticated",
        "open_grant",
        "SELECT punchcard.grant_access()",
    ),
    (
        "DROP FUNCTION punchcard.balance; CREATE FUNCTION punchcard.balance(p_account_id uuid) RETURNS TABLE (available bigint, held bigint)
         LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'SELECT 1::bigint, 1::bigint'",
        "open_grant",
        "SELECT punchcard.grant_access()",
    ),
    (
        "ALTER TABLE punchcard.queue NO FORCE ROW LEVEL SECURITY",
        "open_rows",
        "ALTER TABLE punchcard.queue FORCE ROW LEVEL SECURITY",
    ),
    (
        "CREATE POLICY all_see ON punchcard.accounts FOR SELECT TO authenticated USING (true)",
        "open_rows",
        "DROP POLICY all_see ON punchcard.accounts",
    ),
    (
        "ALTER VIEW punchcard_api.credits RESET (security_invoker)",
        "open_view",
        "ALTER VIEW punchcard_api.credits SET (security_invoker = on)",
    ),
    (
        "ALTER FUNCTION punchcard.grant_credits RESET search_path",
        "open_search_path",
        "ALTER FUNCTION punchcard.grant_credits SET search_path = pg_catalog, pg_temp",
    ),
    (
        "CREATE FUNCTION public.top_up(a uuid) RETURNS void LANGUAGE sql SECURITY DEFINER
             SET search_path = pg_catalog, pg_temp AS $$ SELECT punchcard.grant_credits(a, 1000, 'k') $$",
        "open_function",
        "REVOKE EXECUTE ON FUNCTION public.top_up FROM PUBLIC, anon, authenticated",
    ),
    // What an empty path leaves out is looked for in pg_temp first; so is all if that is named first.
    (
        "ALTER FUNCTION public.top_up SET search_path = ''",
        "open_search_path",
        "ALTER FUNCTION public.top_up SET search_path = pg_catalog, public, pg_temp",
    ),
    (
        "ALTER FUNCTION public.top_up SET search_path = pg_temp, pg_catalog, pg_temp",
        "open_search_path",
        "ALTER FUNCTION public.top_up SET search_path = pg_catalog, pg_temp",
    ),
    (
        "ALTER FUNCTION public.top_up RESET search_path",
        "open_search_path",
        "DROP FUNCTION public.top_up",
    ),
    (
        "CREATE FUNCTION public.tidy_up() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'SELECT';
         ALTER FUNCTION public.tidy_up OWNER TO punchcard_migrator",
        "open_search_path",
        "DROP FUNCTION public.tidy_up",
    ),
    (
        "ALTER FUNCTION punchcard.refuse_change SET search_path = pg_catalog",
        "open_search_path",
        "ALTER FUNCTION punchcard.refuse_change SET search_path = pg_catalog, pg_temp",
    ),
    ("GRANT UPDATE ON punchcard.accounts TO punchcard_app", "open_grant", "SELECT punchcard.grant_access()"),
    ("GRANT SELECT ON punchcard.accounts TO service_role", "open_grant", "SELECT punchcard.grant_access()"),
    (
        "GRANT EXECUTE ON FUNCTION punchcard.increment_user_credits TO punchcard_app",
        "open_grant",
        "SELECT punchcard.grant_access()",
    ),
    (
        "GRANT CREATE ON SCHEMA punchcard TO punchcard_app",
        "too_mighty_role",
        "SELECT punchcard.grant_access()",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_of_grants_finds_what_was_opened_by_hand_and_nothing_else() {
    let bench = Bench::new().await;
    let url = as_role(&bench.direct_url, OWNER);
    let owner = connect(&url).await;
    let clean = ask_more(&url, &["--grants"], &[]).await;
    assert_eq!(clean.exit, 0, "under Supabase's default privileges: {}", clean.all);
    for (open, code, close) in OPENED {
        // As the superuser, whose own functions would not be the owner's to close.
        let by = if open.contains("public.") { &bench.admin } else { &owner };
        by.batch_execute(open).await.expect(open);
        let said = ask_more(&url, &["--grants"], &[]).await;
        assert_eq!((said.code.as_str(), said.exit), (*code, 19), "{open}: {}", said.all);
        by.batch_execute(close).await.expect(close);
    }
    let said = ask_more(&url, &["--grants"], &[]).await;
    assert_eq!(said.exit, 0, "all closed again: {}", said.all);
}

/// Not Punchcard's to judge, and worth a word.
#[tokio::test(flavor = "multi_thread")]
async fn what_temporary_objects_could_stand_for_is_a_warning() {
    let bench = Bench::new().await;
    let url = as_role(&bench.direct_url, APP);
    bench
        .sql(&format!(
            "ALTER DATABASE {} SET pgrst.db_schemas = 'api, public';
             CREATE FUNCTION public.whose() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = ''
                 AS 'SELECT current_user::text'",
            bench.database
        ))
        .await;
    let said = ask_more(&url, &["--grants"], &[]).await;
    let found = "whose(): SECURITY DEFINER in an exposed schema, and its search_path does not end in pg_temp";
    assert!(said.exit == 0 && said.all.to_string().contains(found), "{}", said.all);
    assert_eq!(said.code, "open_search_path");
    bench.sql("ALTER FUNCTION public.whose SET search_path = public, pg_temp").await;
    bench.allow_temporary(APP).await;
    let said = ask_more(&url, &["--grants"], &[]).await;
    assert!(said.all.to_string().contains("punchcard_app may create temporary objects"), "{}", said.all);
    assert_eq!((said.exit, said.code.as_str()), (0, "temporary_objects"));
    assert!(said.fix.contains("REVOKE TEMPORARY ON DATABASE"), "{}", said.fix);
    bench.sql(&format!("REVOKE TEMPORARY ON DATABASE {} FROM {APP}", bench.database)).await;
    let said = ask_more(&url, &["--grants"], &[]).await;
    assert!(!said.all.to_string().contains("pg_temp") && said.code.is_empty(), "{}", said.all);
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_shapes_of_the_teams_own_credits_are_named() {
    let bench = Bench::new().await;
    bench
        .sql(
            "CREATE TABLE public.user_credits (user_id uuid PRIMARY KEY, credits integer NOT NULL);
             CREATE FUNCTION public.increment_user_credits(p_user_id uuid, p_amount integer)
                 RETURNS TABLE (balance integer, success boolean, message text) LANGUAGE plpgsql SECURITY DEFINER AS $$
             DECLARE now_has integer;
             BEGIN
                 SELECT credits INTO now_has FROM user_credits WHERE user_id = p_user_id;
                 UPDATE user_credits SET credits = GREATEST(0, now_has + p_amount) WHERE user_id = p_user_id;
                 RETURN QUERY SELECT now_has, true, NULL::text;
             EXCEPTION WHEN OTHERS THEN
                 RETURN QUERY SELECT 0, false, SQLERRM;
             END $$",
        )
        .await;
    let said = ask(&as_role(&bench.direct_url, APP), &[]).await;
    let text = said.all.to_string();
    assert_eq!(said.exit, 0, "warnings: {text}");
    for shape in ["mints", "no search_path", "swallows", "clamps", "without a lock", "may fall below zero"] {
        assert!(text.contains(shape), "{shape}: {text}");
    }
    bench
        .sql(
            "DROP FUNCTION public.increment_user_credits; ALTER TABLE public.user_credits ADD CHECK (credits >= 0);
             CREATE FUNCTION public.increment_user_credits(p_user_id uuid, p_amount integer) RETURNS void
                 LANGUAGE sql AS $$ UPDATE public.user_credits SET credits = credits + p_amount WHERE user_id = p_user_id $$",
        )
        .await;
    let mended = ask(&as_role(&bench.direct_url, APP), &[]).await.all.to_string();
    assert!(!mended.contains("broken_credit_shape"), "{mended}");

    // The one that credits are drawn from is looked at itself.
    bench
        .sql(&format!(
            "GRANT SELECT, UPDATE ON public.user_credits TO {OWNER}; INSERT INTO public.user_credits VALUES (gen_random_uuid(), 5);
             SELECT punchcard.use_credit_source('public.user_credits', 'user_id', 'credits')"
        ))
        .await;
    let sound = ask(&as_role(&bench.direct_url, APP), &[]).await;
    assert!(
        sound.exit == 0 && sound.all.to_string().contains("credits come from public.user_credits"),
        "{}",
        sound.all
    );
    bench.sql("REVOKE ALL ON public.user_credits FROM punchcard_migrator").await;
    let broken = ask(&as_role(&bench.direct_url, APP), &[]).await;
    assert_eq!((broken.code.as_str(), broken.exit), ("credit_source_failed", 20), "{}", broken.all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poller_examines_its_own_connection_where_that_is_allowed() {
    let bench = Bench::new().await;
    let refused = bench.poller().invoke(&json!({"doctor": true})).await.expect_err("it is off");
    assert!(refused.to_string().contains("AllowDoctor=true"), "{refused}");
    let allowed = [("ALLOW_DOCTOR", "true"), ("CONNECTIONS", "100+2+20"), ("POOLER_MAX_CLIENTS", "100")];
    let report = bench.poller_with(&allowed).invoke(&json!({"doctor": true})).await.expect("a report");
    let text = report.to_string();
    for found in
        ["nobody has more than is meant", "too_many_connections", "122 connections at once, of at most 100"]
    {
        assert!(text.contains(found), "{found}: {text}");
    }
    assert!(!text.contains(PASSWORD), "{text}");
    let wrong = Function::new(binary("poller"), {
        let mut env = environment("postgres://u:hush-hush@127.0.0.1:1/d");
        env.push(("ALLOW_DOCTOR".into(), "true".into()));
        env
    });
    let report = wrong.invoke(&json!({"doctor": true})).await.expect("a report").to_string();
    assert!(report.contains("connection_refused") && !report.contains("hush-hush"), "{report}");
}
