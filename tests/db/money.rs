//! Money that moves by itself: adjustments, the first grant of an account, what an account may hold, and a
//! source that others draw from at the same time.

use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::{
    cli::{limit, punchcard, refused, said},
    support::{APP, Answer, Bench, OWNER, as_role, connect, event},
};

/// The SQLSTATE and the word that a statement is refused with.
async fn refusal(client: &Client, sql: &str) -> (String, String) {
    let error = client.batch_execute(sql).await.expect_err(sql);
    let error = error.as_db_error().expect("of the database");
    (error.code().code().to_owned(), error.message().to_owned())
}

fn is(code: &str, word: &str) -> (String, String) {
    (code.to_owned(), word.to_owned())
}

/// A job of price 1 that has succeeded.
async fn done(bench: &Bench, account: Uuid) -> String {
    let job = bench.post(account, json!({ "kind": "qr.svg", "input": { "text": "t" } }), None).await;
    bench.poller().invoke(&json!({})).await.expect("a tick");
    job.body["id"].as_str().expect("an id").to_owned()
}

async fn refunded(bench: &Bench, account: Uuid, job: &str) -> Value {
    bench.job(account, job).await["credits"]["refunded"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adjustment_names_a_job_of_its_own_account_or_none() {
    let bench = Bench::new().await;
    let (one, other) = (bench.account(10).await, bench.account(10).await);
    let (own, others) = (done(&bench, one).await, done(&bench, other).await);
    let nobody = Uuid::new_v4();
    let adjust = |account: Uuid, amount: i64, key: &str, job: &str| {
        format!("SELECT punchcard.increment_user_credits('{account}', {amount}, '{key}', '{job}', 'why')")
    };
    let unknown = Uuid::new_v4().to_string();
    // As the operator, and as the team's backend.
    for role in [OWNER, "service_role"] {
        bench.sql(&format!("SET ROLE {role}")).await;
        for (account, job) in [(one, &others), (one, &unknown), (nobody, &own), (nobody, &unknown)] {
            let sql = adjust(account, 7, "k", job);
            assert_eq!(refusal(&bench.admin, &sql).await, is("PT404", "not_found"), "{role}: {sql}");
        }
        // A job is charged by its hold alone.
        let charge = adjust(one, -1, "k", &own);
        assert_eq!(refusal(&bench.admin, &charge).await, is("PT422", "invalid_amount"), "{role}");
        bench.sql("RESET ROLE").await;
    }
    assert_eq!((bench.balance(one).await, bench.balance(other).await), ((9, 0), (9, 0)));
    assert_eq!(bench.count("SELECT count(*) FROM punchcard.ledger WHERE kind = 'adjust'").await, 0);
    let made = format!("SELECT count(*) FROM punchcard.balances WHERE account_id = '{nobody}'");
    assert_eq!(bench.count(&made).await, 0, "what is refused makes no account");
    bench.assert_audit_is_clean().await;

    // What another account tried is no refund: the job has its own still, and one.
    assert_eq!(refunded(&bench, other, &others).await, 0);
    let refund = |job: &str| punchcard(&bench, &["credits", "refund", job]);
    assert_eq!(said(&refund(&others)), format!("refunded 1 to {other}\n"));
    assert!(refused(&refund(&others)).contains("already_refunded"));
    assert_eq!((refunded(&bench, other, &others).await, bench.balance(other).await), (json!(1), (10, 0)));

    // By hand another amount is given back for one's own job: once, and the refund was that.
    bench.sql(&adjust(one, 5, "k", &own)).await;
    bench.sql(&adjust(one, 5, "k", &own)).await;
    assert_eq!(refusal(&bench.admin, &adjust(one, 1, "l", &own)).await, is("PT409", "already_adjusted"));
    assert!(refused(&refund(&own)).contains("already_refunded"));
    assert_eq!((refunded(&bench, one, &own).await, bench.balance(one).await), (json!(5), (14, 0)));
    // What names no job charges, too, and is nobody's refund.
    bench.sql(&format!("SELECT punchcard.increment_user_credits('{one}', -4, 'm')")).await;
    assert_eq!((refunded(&bench, one, &own).await, bench.balance(one).await), (json!(5), (10, 0)));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_bears_a_refunds_key_keeps_no_refund_back() {
    let bench = Bench::new().await;
    let account = bench.account(10).await;
    let job = done(&bench, account).await;
    let bearer = format!("Bearer {}", bench.service_token("payments", &["grant"]).await);
    let key = format!("refund:{job}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("idempotency-key", key.as_str()),
    ];
    let body = json!({ "amount": 3 }).to_string();
    let grant = event("POST", &format!("/api/credits/grants?account_id={account}"), &headers, Some(&body));
    assert_eq!(bench.request(grant.clone()).await.status, 201);
    assert_eq!((refunded(&bench, account, &job).await, bench.balance(account).await), (json!(0), (12, 0)));
    let refund = || punchcard(&bench, &["credits", "refund", &job]);
    assert_eq!(said(&refund()), format!("refunded 1 to {account}\n"));
    assert!(refused(&refund()).contains("already_refunded"));
    assert_eq!(bench.request(grant).await.status, 200, "and it was granted once");
    assert_eq!((refunded(&bench, account, &job).await, bench.balance(account).await), (json!(1), (13, 0)));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_holds_so_much_over_all_its_shares_and_stays_readable() {
    let bench = Bench::new().await;
    let account = Uuid::new_v4();
    let grant =
        |key: &str, amount: i64| format!("SELECT punchcard.grant_credits('{account}', {amount}, '{key}')");
    let most = 1_000_000_000_000_000;
    bench
        .sql(&format!(
            "SELECT punchcard.grant_credits('{account}', {most}, 'k' || n) FROM generate_series(1, 1000) n"
        ))
        .await;
    bench.sql(&format!("SELECT punchcard.spread_account('{account}', 64)")).await;
    // Its first share has room; the account has not.
    for (key, amount) in [("more", most), ("one", 1)] {
        assert_eq!(refusal(&bench.admin, &grant(key, amount)).await, is("PT422", "invalid_amount"));
    }
    let shown = bench.get(account, "/api/credits").await;
    assert_eq!((shown.status, &shown.body["available"]), (200, &json!(1_000_000_000_000_000_000_i64)));
    // What is held counts, so that whatever is released has room.
    assert_eq!(bench.post(account, json!({ "kind": "echo.http" }), None).await.status, 202);
    assert_eq!(refusal(&bench.admin, &grant("one", 1)).await, is("PT422", "invalid_amount"));
    bench.sql(&format!("SELECT punchcard.increment_user_credits('{account}', -2, 'less')")).await;
    bench.sql(&grant("two", 2)).await;
    assert_eq!(bench.balance(account).await, (1_000_000_000_000_000_000 - 10, 10));
    bench.assert_audit_is_clean().await;
}

/// Waits until somebody waits for a lock.
async fn until_blocked(bench: &Bench) {
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    for _ in 0..1_200 {
        if bench.count(waits).await > 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("nobody waits for a lock");
}

/// POSTs while a transaction is open on another connection, which ends so once the POST waits for it.
async fn beside(bench: &Bench, open: &str, kind: &str, account: Uuid, end: &str) -> Answer {
    let other = connect(&bench.direct_url).await;
    other.batch_execute(&format!("BEGIN; {open}")).await.expect(open);
    let post = bench.post(account, json!({ "kind": kind }), None);
    let ends = async {
        until_blocked(bench).await;
        other.batch_execute(end).await.expect(end);
    };
    tokio::join!(post, ends).0
}

/// The first purchase of an account whose first grant is on its way: either it is there, or it never was.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_purchase_beside_the_first_grant_is_paid_or_refused() {
    let bench = Bench::new().await;
    let grant = |account: Uuid| format!("SELECT punchcard.grant_credits('{account}', 25, 'first')");
    let spread =
        |account: Uuid| format!("{}; SELECT punchcard.spread_account('{account}', 4)", grant(account));

    // Nobody is limited, and nothing is waited for: what is not committed is not there.
    let account = Uuid::new_v4();
    let other = connect(&bench.direct_url).await;
    other.batch_execute(&format!("BEGIN; {}", grant(account))).await.unwrap();
    assert_eq!(bench.post(account, json!({ "kind": "echo.http" }), None).await.status, 402);
    other.batch_execute("COMMIT").await.unwrap();
    assert_eq!(bench.post(account, json!({ "kind": "echo.http" }), None).await.status, 202);

    // Whoever is limited waits for the account's row, and so does whoever buys for nothing.
    for limits in [["none", "none", "1000"], ["1000", "1000000", "none"]] {
        limit(&bench, Uuid::nil(), limits);
        for open in [&grant as &dyn Fn(Uuid) -> String, &spread] {
            for (kind, end, status, balance) in [
                ("echo.http", "COMMIT", 202, (15, 10)),
                ("echo.http", "ROLLBACK", 402, (0, 0)),
                ("free", "COMMIT", 202, (25, 0)),
                ("free", "ROLLBACK", 202, (0, 0)),
            ] {
                let account = Uuid::new_v4();
                let answer = beside(&bench, &open(account), kind, account, end).await;
                assert_eq!(answer.status, status, "{limits:?}, {kind}, {end}: {}", answer.body);
                assert_eq!(bench.balance(account).await, balance, "{limits:?}, {kind}, {end}");
            }
        }
    }
    bench.assert_audit_is_clean().await;
}

/// A team's own table with one account, and punchcard drawing from it.
async fn source(bench: &Bench, of_type: &str, credits: &str) -> Uuid {
    let account = Uuid::new_v4();
    bench
        .sql(&format!(
            "CREATE TABLE public.user_credits (user_id uuid PRIMARY KEY, credits {of_type} NOT NULL);
             INSERT INTO public.user_credits VALUES ('{account}', {credits});
             GRANT SELECT, UPDATE ON public.user_credits TO {OWNER}"
        ))
        .await;
    let owner = connect(&as_role(&bench.direct_url, OWNER)).await;
    let take = "SELECT punchcard.use_credit_source('public.user_credits', 'user_id', 'credits')";
    owner.batch_execute(take).await.expect("a source");
    account
}

async fn at_the_source(bench: &Bench, account: Uuid) -> String {
    let sql = format!("SELECT credits::text FROM public.user_credits WHERE user_id = '{account}'");
    bench.rows(&sql).await[0].get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_purchase_with_a_source_waits_for_the_first_grant_and_counts_it() {
    let bench = Bench::new().await;
    let known = source(&bench, "integer", "4").await;
    let grant = |account: Uuid| format!("SELECT punchcard.grant_credits('{account}', 6, 'first')");
    for (end, status, balance) in [("ROLLBACK", 402, (0, 0)), ("COMMIT", 202, (0, 10))] {
        let answer = beside(&bench, &grant(known), "echo.http", known, end).await;
        assert_eq!((answer.status, bench.balance(known).await), (status, balance), "{end}: {}", answer.body);
    }
    assert_eq!(at_the_source(&bench, known).await, "0", "what was missing is drawn");
    let unknown = Uuid::new_v4();
    let answer = beside(&bench, &grant(unknown), "unserved", unknown, "COMMIT").await;
    assert_eq!((answer.status, bench.balance(unknown).await), (202, (1, 5)), "{}", answer.body);
    bench.assert_audit_is_clean().await;
}

/// What one buyer sees is there may be gone once it has the lock: then the source is asked, not the buyer
/// refused.
#[tokio::test(flavor = "multi_thread")]
async fn the_source_is_asked_before_a_buyer_is_told_that_there_is_too_little() {
    for shares in [1, 4] {
        let bench = Bench::new().await;
        let account = source(&bench, "integer", "1000").await;
        // Ten that came back wait for the next tick, on Punchcard's side.
        bench.enqueue(account, "echo.http", 1).await;
        bench.sql("SELECT punchcard.cancel(id) FROM punchcard.jobs").await;
        bench.sql(&format!("SELECT punchcard.spread_account('{account}', {shares})")).await;
        assert_eq!(
            (bench.balance(account).await, at_the_source(&bench, account).await),
            ((10, 0), "990".into())
        );
        let open = format!("SELECT punchcard.enqueue('{account}', 'echo.http')");
        let answer = beside(&bench, &open, "echo.http", account, "COMMIT").await;
        assert_eq!(answer.status, 202, "{shares} shares: {}", answer.body);
        assert_eq!(
            (bench.balance(account).await, at_the_source(&bench, account).await),
            ((0, 20), "980".into())
        );

        // Many at once, while ticks give back what others have just released.
        let url = as_role(&bench.direct_url, APP);
        let buyers = (0..6).map(|_| async {
            let client = connect(&url).await;
            for _ in 0..15 {
                let cancel = format!(
                    "SELECT punchcard.cancel(e.job_id, '{account}') FROM punchcard.enqueue('{account}', 'echo.http') e"
                );
                client.batch_execute(&cancel).await.expect("the source has plenty");
            }
        });
        let returns = async {
            let client = connect(&url).await;
            for _ in 0..30 {
                client.batch_execute("SELECT punchcard.return_credits()").await.unwrap();
            }
        };
        tokio::join!(futures_util::future::join_all(buyers), returns);
        bench.poller().invoke(&json!({})).await.expect("a tick");
        assert_eq!(
            (bench.balance(account).await, at_the_source(&bench, account).await),
            ((0, 20), "980".into())
        );
        bench.assert_audit_is_clean().await;
    }
}

/// Balances at the source that are no number of ours: they are read down to whole credits within our bounds,
/// or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_balance_at_the_source_may_be_any_number() {
    let bench = Bench::new().await;
    source(&bench, "numeric", "1").await;
    for (credits, shown, status, left) in [
        ("0.5", 0, 402, "0.5"),
        ("1.5", 1, 202, "0.5"),
        ("10.999", 10, 202, "9.999"),
        ("-5", 0, 402, "-5"),
        ("1e18", 1_000_000_000_000_000_000_i64, 202, "999999999999999999"),
        ("1e30", 1_000_000_000_000_000_000, 202, "999999999999999999999999999999"),
        ("'NaN'", 0, 503, "NaN"),
        ("'Infinity'", 0, 503, "Infinity"),
        ("'-Infinity'", 0, 503, "-Infinity"),
    ] {
        let account = Uuid::new_v4();
        bench.sql(&format!("INSERT INTO public.user_credits VALUES ('{account}', {credits})")).await;
        let balance = bench.get(account, "/api/credits").await;
        assert_eq!((balance.status, &balance.body["available"]), (200, &json!(shown)), "{credits}");
        let answer = bench.post(account, json!({ "kind": "qr.svg" }), None).await;
        assert_eq!(answer.status, status, "{credits}: {}", answer.body);
        match status {
            402 => assert_eq!(answer.body["available"], 0, "{credits}"),
            503 => assert_eq!(answer.body["code"], "credit_source_failed", "{credits}"),
            _ => {}
        }
        assert_eq!(at_the_source(&bench, account).await, left, "{credits}");
    }
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balance_at_the_source_that_is_no_number_keeps_no_other_account_waiting() {
    let bench = Bench::new().await;
    let account = source(&bench, "numeric", "10").await;
    for broken in ["NaN", "Infinity"] {
        let odd = Uuid::new_v4();
        bench.sql(&format!("INSERT INTO public.user_credits VALUES ('{odd}', 10)")).await;
        for payer in [odd, account] {
            assert_eq!(bench.post(payer, json!({ "kind": "qr.svg" }), None).await.status, 202);
        }
        bench
            .sql(&format!("UPDATE public.user_credits SET credits = '{broken}' WHERE user_id = '{odd}'"))
            .await;
        let cancel =
            "SELECT punchcard.cancel(id) FROM punchcard.jobs_now WHERE status = 'queued' AND account_id =";
        bench.sql(&format!("{cancel} '{odd}'")).await;
        bench.sql(&format!("{cancel} '{account}'")).await;
        assert_eq!(bench.poller().invoke(&json!({})).await.unwrap()["credits_returned"], 1, "{broken}");
        assert_eq!(at_the_source(&bench, account).await, "10");
        let kept: i64 = bench
            .rows(&format!("SELECT available FROM punchcard.balances WHERE account_id = '{odd}'"))
            .await[0]
            .get(0);
        assert!(kept > 0, "what was released waits");
    }
    bench.assert_audit_is_clean().await;
}

/// Exact operators are found before PostgreSQL's own, in whatever schema of the path they are.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_of_a_low_role_moves_nothing_at_the_source() {
    let bench = Bench::new().await;
    let account = source(&bench, "numeric", "10").await;
    bench
        .sql(
            "CREATE FUNCTION public.evil(numeric, bigint) RETURNS numeric LANGUAGE sql AS 'SELECT 1000000::numeric';
             CREATE OPERATOR public.+ (LEFTARG = numeric, RIGHTARG = bigint, FUNCTION = public.evil)",
        )
        .await;
    assert_eq!(bench.post(account, json!({ "kind": "qr.svg" }), None).await.status, 202);
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_one_movement_may_carry_is_returned_tick_by_tick() {
    let bench = Bench::new().await;
    let account = source(&bench, "numeric", "0").await;
    for key in ["a", "b"] {
        bench.sql(&format!("SELECT punchcard.grant_credits('{account}', 1000000000000000, '{key}')")).await;
    }
    for (left, there) in [(1_000_000_000_000_000, "1000000000000000"), (0, "2000000000000000")] {
        assert_eq!(bench.poller().invoke(&json!({})).await.unwrap()["credits_returned"], 1);
        assert_eq!(
            (bench.balance(account).await, at_the_source(&bench, account).await),
            ((left, 0), there.into())
        );
    }
    bench.assert_audit_is_clean().await;
}
