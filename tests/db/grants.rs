//! Under Supabase's default privileges, nobody but the service role reaches the credits.

use crate::support::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn anon_and_authenticated_reach_nothing() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    for role in ["anon", "authenticated"] {
        for sql in [
            format!("SELECT punchcard.increment_user_credits('{account}', 1000000, 'mint')"),
            format!("SELECT punchcard.grant_credits('{account}', 1000000, 'mint')"),
            format!("SELECT punchcard.enqueue('{account}', 'free')"),
            "SELECT * FROM punchcard.accounts".into(),
            "UPDATE punchcard.accounts SET available = 1000000".into(),
            "TRUNCATE punchcard.ledger".into(),
            "SELECT * FROM punchcard.audit".into(),
            "SELECT * FROM punchcard.service_tokens".into(),
        ] {
            let attempt = format!("BEGIN; SET LOCAL ROLE {role}; {sql}; COMMIT");
            let error = bench.admin.batch_execute(&attempt).await.expect_err(&attempt);
            assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{role}: {sql}");
            bench.sql("ROLLBACK").await;
        }
    }
    let function = "SELECT count(*) FROM pg_proc p, pg_roles r
        WHERE p.pronamespace = 'punchcard'::regnamespace AND r.rolname IN ('anon', 'authenticated')
          AND has_function_privilege(r.oid, p.oid, 'EXECUTE')";
    assert_eq!(bench.count(function).await, 0);
    bench
        .sql(&format!("BEGIN; SET LOCAL ROLE service_role; SELECT punchcard.increment_user_credits('{account}', 5, 'ok'); COMMIT"))
        .await;
    assert_eq!(bench.balance(account).await, (15, 0));
    let open = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'punchcard'::regnamespace AND prosecdef
        AND NOT 'search_path=\"\"' = ANY (coalesce(proconfig, '{}'))";
    assert_eq!(bench.count(open).await, 0, "a SECURITY DEFINER function pins its search_path");
}
