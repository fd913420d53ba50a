//! Credits of the team's own: drawn once, returned once, whatever shape the team's function has.

use serde_json::json;
use uuid::Uuid;

use crate::support::{Bench, OWNER, as_role, bearer, connect, event};

/// Functions as they are found in the wild, by what is wrong with them.
const SOUND: &str = "CREATE FUNCTION public.increment_user_credits(p_user_id uuid, p_amount integer) RETURNS integer
    LANGUAGE plpgsql AS $$
    DECLARE left_over integer;
    BEGIN
        UPDATE user_credits SET credits = credits + p_amount WHERE user_id = p_user_id AND credits + p_amount >= 0
        RETURNING credits INTO left_over;
        IF NOT FOUND THEN RAISE EXCEPTION 'insufficient credits'; END IF;
        RETURN left_over;
    END $$";
const CLAMPING: &str =
    "CREATE FUNCTION public.increment_user_credits(user_id_param uuid, credits_to_add integer) RETURNS void
    LANGUAGE sql AS $$ UPDATE public.user_credits SET credits = GREATEST(0, credits + credits_to_add)
                       WHERE user_id = user_id_param $$";
const SWALLOWING: &str =
    "CREATE FUNCTION public.increment_user_credits(p_user_id uuid, p_type text, p_amount integer)
    RETURNS TABLE (balance integer, success boolean, message text) LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE public.user_credits SET credits = credits + p_amount WHERE user_id = p_user_id
        RETURNING credits INTO balance;
        RETURN QUERY SELECT balance, true, NULL::text;
    EXCEPTION WHEN OTHERS THEN
        RETURN QUERY SELECT 0, false, SQLERRM;
    END $$";
const DOUBLING: &str = "CREATE FUNCTION public.increment_user_credits(p_user_id uuid, p_amount integer) RETURNS void
    LANGUAGE sql AS $$ UPDATE public.user_credits SET credits = credits + 2 * p_amount WHERE user_id = p_user_id $$";

const USE_FUNCTION: &str = "SELECT * FROM punchcard.use_credit_source('public.user_credits', 'user_id', 'credits', 'public.increment_user_credits')";
const USE_TABLE: &str =
    "SELECT * FROM punchcard.use_credit_source('public.user_credits', 'user_id', 'credits')";

/// A team's own table, which is not ours, with two accounts of 25.
async fn team(bench: &Bench, check: &str) -> (Uuid, Uuid) {
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    bench
        .sql(&format!(
            "CREATE TABLE public.user_credits (user_id uuid PRIMARY KEY, credits integer NOT NULL {check});
             INSERT INTO public.user_credits VALUES ('{one}', 25), ('{two}', 25);
             ALTER TABLE public.user_credits ENABLE ROW LEVEL SECURITY;
             GRANT SELECT, UPDATE ON public.user_credits TO {OWNER};
             CREATE POLICY punchcard ON public.user_credits TO {OWNER} USING (true) WITH CHECK (true)"
        ))
        .await;
    (one, two)
}

/// As the owner: the trial must have the rights that the functions will have.
async fn take(bench: &Bench, sql: &str) -> Result<Vec<String>, String> {
    let owner = connect(&as_role(&bench.direct_url, OWNER)).await;
    let rows = owner.query_typed(sql, &[]).await;
    rows.map(|rows| rows.iter().map(|row| row.get(0)).collect()).map_err(|error| {
        error.as_db_error().and_then(|db| db.detail()).map_or(format!("{error:?}"), str::to_owned)
    })
}

async fn credits(bench: &Bench, account: Uuid) -> i64 {
    bench.count(&format!("SELECT credits::bigint FROM public.user_credits WHERE user_id = '{account}'")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_draws_and_a_failure_returns_once() {
    for sql in [USE_TABLE, USE_FUNCTION] {
        let bench = Bench::new().await;
        let (one, two) = team(&bench, "CHECK (credits >= 0)").await;
        bench.sql(SOUND).await;
        assert_eq!(take(&bench, sql).await, Ok(vec![]));
        assert_eq!((credits(&bench, one).await, credits(&bench, two).await), (25, 25), "only tried");

        // Fifty buyers of 10 at once: two can pay.
        let token = bearer(one);
        let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
        let post = event("POST", "/api/jobs", &headers, Some(r#"{"kind":"echo.http"}"#));
        let buyers = (0..50).map(|_| bench.request(post.clone()));
        let statuses: Vec<u64> =
            futures_util::future::join_all(buyers).await.iter().map(|it| it.status).collect();
        assert_eq!(statuses.iter().filter(|status| **status == 202).count(), 2, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 402).count(), 48, "{statuses:?}");
        assert_eq!(credits(&bench, one).await, 5);
        let shown = bench.get(one, "/api/credits").await.body;
        assert_eq!((&shown["available"], &shown["held"]), (&json!(5), &json!(20)));
        let short = bench.post(one, json!({"kind": "echo.http"}), None).await;
        assert_eq!((&short.body["required"], &short.body["available"]), (&json!(10), &json!(5)));

        // Nobody listens at the target: the attempts are used up, and both are returned.
        bench.sql("UPDATE punchcard.queue SET max_attempts = 1").await;
        bench.enqueue(two, "qr.svg", 3).await;
        bench.drain().await;
        assert_eq!((credits(&bench, one).await, credits(&bench, two).await), (25, 22));
        assert_eq!((bench.balance(one).await, bench.balance(two).await), ((0, 0), (0, 0)));
        let refunds =
            format!("SELECT count(*) FROM punchcard.ledger WHERE account_id = '{one}' AND kind = 'release'");
        assert_eq!(bench.count(&refunds).await, 2);
        bench.assert_audit_is_clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_source_does_not_take_back_waits_and_is_returned_by_a_later_tick() {
    let bench = Bench::new().await;
    let (one, two) = team(&bench, "CHECK (credits >= 0)").await;
    bench.sql(SOUND).await;
    take(&bench, USE_FUNCTION).await.unwrap();
    bench.enqueue(one, "unserved", 2).await;
    bench.enqueue(two, "qr.svg", 1).await;
    bench.sql("DROP FUNCTION public.increment_user_credits").await;
    bench
        .sql("UPDATE punchcard.queue SET expires_at = now() - interval '1 second' WHERE kind = 'unserved'")
        .await;
    let answer = bench.post(two, json!({"kind": "qr.svg"}), None).await;
    assert_eq!((answer.status, &answer.body["code"]), (503, &json!("credit_source_failed")));
    assert!(!answer.body.to_string().contains("increment_user_credits"), "{}", answer.body);
    bench.drain().await;
    assert_eq!(
        (credits(&bench, one).await, bench.balance(one).await),
        (15, (10, 0)),
        "released, and waiting"
    );
    assert_eq!(bench.get(one, "/api/credits").await.body["available"], 25, "and not lost to whoever looks");
    bench.assert_audit_is_clean().await;

    bench.sql(SOUND).await;
    for _ in 0..2 {
        bench.poller().invoke(&json!({})).await.expect("a tick");
    }
    assert_eq!((credits(&bench, one).await, bench.balance(one).await), (25, (0, 0)));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_judged_by_its_effect() {
    let bench = Bench::new().await;
    let (one, _) = team(&bench, "").await;
    let owner = as_role(&bench.direct_url, OWNER);
    let replace = async |function: &str| {
        bench
            .sql("DO $$ DECLARE f text; BEGIN FOR f IN SELECT oid::regprocedure FROM pg_proc WHERE proname = 'increment_user_credits'
                  AND pronamespace = 'public'::regnamespace LOOP EXECUTE 'DROP FUNCTION ' || f; END LOOP; END $$")
            .await;
        bench.sql(function).await;
    };
    let warned = take(&bench, USE_TABLE).await.unwrap();
    assert!(warned[0].contains("below zero"), "{warned:?}");
    replace(CLAMPING).await;
    let warned = take(&bench, USE_FUNCTION).await.unwrap();
    assert!(warned[0].contains("clamps"), "{warned:?}");
    replace(DOUBLING).await;
    assert!(take(&bench, USE_FUNCTION).await.unwrap_err().contains("a refund of 1 made 27 of 25"));
    replace(SWALLOWING).await;
    assert!(
        take(&bench, USE_FUNCTION).await.unwrap_err().contains("wants p_type, a text: give it a constant")
    );
    let with_constant = USE_FUNCTION.replace("credits')", "credits', '{\"p_type\":\"job\"}')");
    assert!(take(&bench, &with_constant).await.is_ok());
    replace(SOUND).await;
    bench.sql("REVOKE ALL ON public.user_credits FROM punchcard_migrator").await;
    let denied = take(&bench, USE_FUNCTION).await.unwrap_err();
    assert!(denied.contains("permission denied"), "{denied}");
    bench.sql("GRANT SELECT, UPDATE ON public.user_credits TO punchcard_migrator").await;
    bench.sql("DROP POLICY punchcard ON public.user_credits").await;
    assert!(take(&bench, USE_FUNCTION).await.unwrap_err().contains("shows no account"), "row security");
    bench.sql("CREATE POLICY punchcard ON public.user_credits TO punchcard_migrator USING (true)").await;
    for (sql, says) in [
        (
            "SELECT * FROM punchcard.use_credit_source('public.nope', 'user_id', 'credits')",
            "There is no table",
        ),
        (
            "SELECT * FROM punchcard.use_credit_source('public.user_credits', 'user_id', 'nope')",
            "There is no table",
        ),
        (
            "SELECT * FROM punchcard.use_credit_source('public.user_credits', 'user_id', 'credits', 'public.nope')",
            "There is no function",
        ),
    ] {
        assert!(take(&bench, sql).await.unwrap_err().contains(says), "{sql}");
    }
    bench.sql("ALTER TABLE public.user_credits DROP CONSTRAINT user_credits_pkey").await;
    assert!(take(&bench, USE_TABLE).await.unwrap_err().contains("unique index"));
    bench.sql("ALTER TABLE public.user_credits ADD PRIMARY KEY (user_id)").await;

    // The one that it was, still in force: a refused change changes nothing.
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.credit_source WHERE mover IS NOT NULL").await, 1);
    assert_eq!(credits(&bench, one).await, 25);

    // A function that starts to misbehave later moves nothing: its effect is looked at every time.
    take(&bench, USE_FUNCTION).await.unwrap();
    replace(DOUBLING).await;
    let answer = bench.post(one, json!({"kind": "qr.svg"}), None).await;
    assert_eq!((answer.status, credits(&bench, one).await), (503, 25), "{}", answer.body);

    let mut command = tokio::process::Command::new(crate::support::binary("punchcard"));
    let output =
        command.args(["credits", "source", "drop"]).env("DATABASE_URL", &owner).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(bench.post(one, json!({"kind": "qr.svg"}), None).await.status, 402);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_row_of_the_teams_holds_no_outcome_up_and_is_returned_later() {
    let bench = Bench::new().await;
    let (one, two) = team(&bench, "CHECK (credits >= 0)").await;
    take(&bench, USE_TABLE).await.unwrap();
    bench.enqueue(one, "echo.http", 1).await;
    bench.enqueue(two, "qr.svg", 1).await;
    bench.sql("UPDATE punchcard.queue SET max_attempts = 1").await;
    let team = connect(&bench.direct_url).await;
    team.batch_execute("BEGIN; SELECT FROM public.user_credits FOR UPDATE").await.unwrap();
    let begin = std::time::Instant::now();
    bench.poller().invoke(&json!({})).await.expect("a tick");
    assert!(begin.elapsed() < std::time::Duration::from_secs(40), "{:?}", begin.elapsed());
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.outcomes").await, 2);
    assert_eq!(bench.balance(one).await, (10, 0), "released, and waiting");
    team.batch_execute("ROLLBACK").await.unwrap();
    let summary = bench.poller().invoke(&json!({})).await.expect("a tick");
    assert_eq!(summary["credits_returned"], 1, "{summary}");
    assert_eq!((credits(&bench, one).await, bench.balance(one).await), (25, (0, 0)));
    bench.assert_audit_is_clean().await;
}

/// Buyers draw and ticks return at once, on spread accounts too: nothing is lost, made, or deadlocked.
#[tokio::test(flavor = "multi_thread")]
async fn buyers_and_returns_race_and_the_books_add_up() {
    let bench = Bench::new().await;
    let (one, two) = team(&bench, "CHECK (credits >= 0)").await;
    take(&bench, USE_TABLE).await.unwrap();
    bench.enqueue(one, "qr.svg", 1).await;
    bench.sql(&format!("SELECT punchcard.spread_account('{one}', 4)")).await;
    let url = as_role(&bench.direct_url, crate::support::APP);
    let buyers = (0..8).map(|n| {
        let (url, account) = (url.clone(), if n % 2 == 0 { one } else { two });
        async move {
            let client = connect(&url).await;
            for _ in 0..40 {
                let bought = client
                    .batch_execute(&format!("SELECT punchcard.enqueue('{account}', 'qr.svg', '{{}}')"))
                    .await;
                if let Err(error) = bought {
                    assert_eq!(error.code().map(|code| code.code()), Some("PT402"), "{error:?}");
                }
            }
        }
    });
    let returns = (0..3).map(|_| async {
        let client = connect(&url).await;
        for _ in 0..40 {
            // The jobs end without success, and what is released goes home.
            client
                .batch_execute(
                    "SELECT punchcard.settle(array_agg(job_id), array_agg(lease_token), array_agg('fail'::text), array_agg(0::float8),
                         array_agg(NULL::text), array_agg('{\"code\":\"t\",\"message\":\"t\",\"attempt\":1}'::text))
                     FROM punchcard.claim(5, '{qr.svg}', true, 60, 60)",
                )
                .await
                .unwrap();
            client.batch_execute("SELECT punchcard.return_credits()").await.unwrap();
        }
    });
    tokio::join!(futures_util::future::join_all(buyers), futures_util::future::join_all(returns));
    bench.sql("UPDATE punchcard.queue SET expires_at = now() - interval '1 second'").await;
    for _ in 0..3 {
        bench.poller().invoke(&json!({})).await.expect("a tick");
    }
    assert_eq!((credits(&bench, one).await, credits(&bench, two).await), (25, 25), "all of it came home");
    assert_eq!((bench.balance(one).await, bench.balance(two).await), ((0, 0), (0, 0)));
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(bench.count(deadlocks).await, 0);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn taking_a_source_never_moves_what_is_punchcards_own_unasked() {
    let bench = Bench::new().await;
    let (one, _) = team(&bench, "CHECK (credits >= 0)").await;
    bench.sql(&format!("SELECT punchcard.grant_credits('{one}', 7, 'start')")).await;
    let refused = take(&bench, USE_TABLE).await.unwrap_err();
    assert!(refused.contains("have 7 credits"), "{refused}");
    bench.sql(&format!("SELECT punchcard.increment_user_credits('{one}', -7, 'away')")).await;
    take(&bench, USE_TABLE).await.unwrap();
    bench.enqueue(one, "qr.svg", 1).await;
    take(&bench, USE_TABLE).await.expect("the same one again");
    bench.sql("CREATE TABLE public.other (user_id uuid PRIMARY KEY, credits int); GRANT SELECT, UPDATE ON public.other TO punchcard_migrator").await;
    let refused = take(&bench, &USE_TABLE.replace("user_credits", "other")).await.unwrap_err();
    assert!(refused.contains("have 1 credits"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_are_bound_by_name() {
    let bench = Bench::new().await;
    let (one, _) = team(&bench, "CHECK (credits >= 0)").await;
    bench
        .sql(
            "CREATE TABLE public.log (reason text, kind text); GRANT INSERT ON public.log TO punchcard_migrator;
             CREATE FUNCTION public.move(OUT left_over integer, p_user_id uuid, p_amount integer, p_reason text DEFAULT 'none',
                                         p_kind text DEFAULT 'none') LANGUAGE plpgsql AS $$
             BEGIN
                 UPDATE user_credits SET credits = credits + p_amount WHERE user_id = p_user_id RETURNING credits INTO left_over;
                 INSERT INTO log VALUES (p_reason, p_kind);
             END $$",
        )
        .await;
    let with = |constants: &str| {
        format!(
            "SELECT * FROM punchcard.use_credit_source('public.user_credits', 'user_id', 'credits', 'public.move', '{constants}')"
        )
    };
    assert!(take(&bench, &with(r#"{"p_knid":"job"}"#)).await.unwrap_err().contains("no argument p_knid"));
    take(&bench, &with(r#"{"p_kind":"job"}"#)).await.unwrap();
    bench.enqueue(one, "qr.svg", 1).await;
    let logged = "SELECT count(*) FROM public.log WHERE reason = 'none' AND kind = 'job'";
    assert_eq!((bench.count(logged).await, credits(&bench, one).await), (1, 24));
}
