//! Credits with a date: what lapses first is spent first, and what is left then lapses, once.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    cli::{punchcard, refused, said},
    life::lane::Dice,
    support::{Bench, event},
};

/// A plain account: what never lapses, and what does, by day; and what unfinished jobs hold.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) undated: i64,
    /// The day, the order of the grant, and what is left: free or held.
    pub(super) dated: Vec<(i64, usize, i64)>,
    pub(super) held: Vec<i64>,
}

impl Model {
    fn total(&self) -> i64 {
        self.undated + self.dated.iter().map(|(_, _, left)| left).sum::<i64>()
    }

    pub(super) fn free(&self) -> i64 {
        self.total() - self.held.iter().sum::<i64>()
    }

    /// What lapses first goes first.
    pub(super) fn spend(&mut self, mut amount: i64) {
        self.dated.sort_unstable();
        for (_, _, left) in &mut self.dated {
            let taken = amount.min(*left);
            *left -= taken;
            amount -= taken;
        }
        self.undated -= amount;
    }

    /// Until a day: what is held belongs to what lapses first, and is not taken yet.
    pub(super) fn lapse(&mut self, day: i64) {
        self.dated.sort_unstable();
        let mut held: i64 = self.held.iter().sum();
        for (at, _, left) in &mut self.dated {
            let kept = held.min(*left);
            held -= kept;
            if *at <= day {
                *left = kept;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_credits_are_spent_and_lapse_as_in_a_plain_model() {
    let seed: u64 = std::env::var("PUNCHCARD_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| Uuid::new_v4().as_u128() as u64);
    println!("PUNCHCARD_SEED={seed}");
    let mut dice = Dice(seed);
    let mut between = |least: i64, behind: i64| least + dice.below((behind - least) as u64) as i64;
    let bench = Bench::new().await;
    bench.begin_at("2024-01-01").await;
    bench.sql("INSERT INTO punchcard.kinds (name, price, metered, life_seconds) VALUES ('k', 40, true, 2592000)").await;
    let mut accounts = Vec::new();
    for number in 0..3 {
        let account = bench.account(50).await;
        if number == 1 {
            bench.sql(&format!("SELECT punchcard.spread_account('{account}', 4)")).await;
        }
        accounts.push((account, Model { undated: 50, ..Model::default() }, Vec::<Uuid>::new()));
    }
    let mut day: i64 = 0;
    for step in 0..250 {
        if between(0, 3) == 0 {
            day += between(1, 4);
        }
        // Where upkeep is late, what is spent meanwhile is still taken from what has lapsed: as in the model, which lapses then.
        bench.set_clock(&format!("2024-01-01 00:00Z' + interval '{day} days {step} seconds")).await;
        let (account, model, jobs) = &mut accounts[between(0, 3) as usize];
        match between(0, 9) {
            0 | 1 => {
                let (amount, in_days) = (between(1, 60), between(1, 40));
                let grant = format!(
                    "SELECT punchcard.grant_credits('{account}', {amount}, 'dated {step}', NULL, '2024-01-01 00:00Z'::timestamptz
                         + interval '{} days')",
                    day + in_days
                );
                bench.sql(&grant).await;
                bench.sql(&grant).await; // a replay
                model.dated.push((day + in_days, step, amount));
            }
            2 => {
                let amount = between(1, 40);
                bench
                    .sql(&format!("SELECT punchcard.grant_credits('{account}', {amount}, 'undated {step}')"))
                    .await;
                model.undated += amount;
            }
            3 => {
                let amount = between(1, 20).min(model.free());
                if amount > 0 {
                    bench
                        .sql(&format!(
                            "SELECT punchcard.increment_user_credits('{account}', -{amount}, 'off {step}')"
                        ))
                        .await;
                    model.spend(amount);
                }
            }
            4 | 5 => {
                let buy = format!("SELECT job_id FROM punchcard.enqueue('{account}', 'k')");
                match bench.admin.query_typed(&buy, &[]).await {
                    Ok(rows) => {
                        assert!(model.free() >= 40, "{step}");
                        model.held.push(40);
                        jobs.push(rows[0].get(0));
                    }
                    Err(error) => {
                        assert!(model.free() < 40, "{step}: {error:?}");
                        assert_eq!(error.code().map(|code| code.code()), Some("PT402"));
                    }
                }
            }
            6 if !jobs.is_empty() => {
                // One ends, having used some; perhaps while somebody holds its account.
                let (job, used) = (jobs.remove(0), between(0, 41));
                model.held.pop();
                let holder = crate::support::connect(&bench.direct_url).await;
                if between(0, 2) == 0 {
                    let hold = format!(
                        "BEGIN; SELECT FROM punchcard.accounts WHERE id = '{account}' FOR NO KEY UPDATE"
                    );
                    holder.batch_execute(&hold).await.unwrap();
                }
                bench
                    .sql(&format!(
                        "UPDATE punchcard.queue SET lease_token = 1, lease_expires_at = clock.now() + interval '1 hour',
                                                    run_started_at = clock.now(), attempt = 1 WHERE job_id = '{job}';
                         SELECT punchcard.settle('{{{job}}}', '{{1}}', '{{complete}}', '{{0}}', '{{1}}', '{{NULL}}', '{{{used}}}')"
                    ))
                    .await;
                drop(holder);
                model.spend(used);
            }
            7 if !jobs.is_empty() => {
                let job = jobs.pop().unwrap();
                model.held.pop();
                bench.sql(&format!("SELECT punchcard.cancel('{job}')")).await;
            }
            8 => {
                bench.sql("UPDATE punchcard.dated_grants SET look_at = least(look_at, clock.now()) WHERE expires_at <= clock.now()").await;
                bench.sql("DO $$ BEGIN WHILE punchcard.expire_credits() LOOP END LOOP; END $$").await;
                accounts.iter_mut().for_each(|(_, model, _)| model.lapse(day));
            }
            _ => {}
        }
        for (account, model, _) in &accounts {
            let shown = bench.db().balance(*account, soon()).await.unwrap();
            assert_eq!(
                (shown.available, shown.held),
                (model.free(), model.held.iter().sum()),
                "{step} {account}: {model:?}"
            );
            let mut dated: Vec<_> =
                model.dated.iter().filter(|(at, _, left)| *at > day && *left > 0).copied().collect();
            dated.sort_unstable();
            let expected: Vec<i64> = dated.iter().map(|(_, _, left)| *left).collect();
            let left = format!(
                "SELECT l.left_over FROM punchcard.dated_left('{account}') l
                 WHERE l.left_over > 0 AND l.expires_at > clock.now() ORDER BY l.expires_at, l.entry"
            );
            let expiring: Vec<i64> = bench.rows(&left).await.iter().map(|row| row.get(0)).collect();
            assert_eq!(expiring, expected, "{step} {account}, day {day}: {model:?}");
        }
    }
    bench.sql("SELECT punchcard.cancel(q.job_id) FROM punchcard.queue q").await;
    bench.assert_audit_is_clean().await;
}

fn soon() -> shared::domain::Deadline {
    shared::domain::Deadline::after(std::time::Duration::from_secs(60))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allowance_is_granted_shown_spent_and_lapses_with_a_tick() {
    let bench = Bench::new().await;
    let account = bench.account(100).await;
    let token = bench.service_token("billing", &["grant"]).await;
    let grant = |key: &str, body: Value| {
        let bearer = format!("Bearer {token}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
            ("idempotency-key", key),
        ];
        event("POST", &format!("/api/credits/grants?account_id={account}"), &headers, Some(&body.to_string()))
    };
    let soon = bench
        .rows("SELECT to_char(now() + interval '3 seconds', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
        .await[0]
        .get::<_, String>(0);
    let allowance = json!({ "amount": 30, "expires_at": soon });
    let granted = bench.request(grant("november", allowance.clone())).await;
    assert_eq!((granted.status, &granted.body["available_after"]), (201, &json!(130)), "{}", granted.body);
    assert_eq!(bench.request(grant("november", allowance)).await.status, 200, "once");
    for (key, expires_at, status, code) in [
        ("november", json!("2027-12-31T00:00:00Z"), 422, "idempotency_mismatch"),
        ("november", Value::Null, 422, "idempotency_mismatch"),
        ("other", json!("2020-01-01T00:00:00Z"), 422, "invalid_expires_at"),
        ("other", json!("2099-01-01T00:00:00Z"), 422, "invalid_expires_at"),
        ("other", json!("tomorrow"), 400, "invalid_expires_at"),
    ] {
        let answer = bench.request(grant(key, json!({ "amount": 30, "expires_at": expires_at }))).await;
        assert_eq!(
            (answer.status, &answer.body["code"]),
            (status, &json!(code)),
            "{expires_at}: {}",
            answer.body
        );
    }
    bench.enqueue(account, "qr.svg", 4).await;
    bench.drain().await;
    let shown = bench.get(account, "/api/credits").await.body;
    assert_eq!((&shown["available"], &shown["expiring"][0]["amount"]), (&json!(126), &json!(26)), "{shown}");
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    bench.sql("UPDATE punchcard.upkeep SET next_at = '-infinity' WHERE task = 'expiries'").await;
    bench.drain().await;
    assert_eq!(
        bench.get(account, "/api/credits").await.body,
        json!({ "available": 100, "held": 0, "expiring": [] }),
        "what was spent was the allowance's"
    );
    let entry = &bench.get(account, "/api/credits/ledger?limit=1").await.body["data"][0];
    assert_eq!((&entry["kind"], &entry["available_delta"]), (&json!("expire"), &json!(-26)), "{entry}");
    bench.sql("UPDATE punchcard.upkeep SET next_at = '-infinity'; UPDATE punchcard.dated_grants SET look_at = '-infinity'").await;
    bench.drain().await;
    assert_eq!(bench.balance(account).await, (100, 0), "once");
    bench.assert_audit_is_clean().await;

    let id = account.to_string();
    let cli = ["credits", "grant", &id, "5", "--key", "december", "--expires-at", "2027-01-01T00:00:00Z"];
    assert!(said(&punchcard(&bench, &cli)).contains(r#""available_after":105"#));
    assert!(
        said(&punchcard(&bench, &["credits", "show", &id]))
            .contains(r#""expiring":[{"amount":5,"expires_at":"2027-01-01T00:00:00.000000Z"}]"#)
    );
    let cli = ["credits", "grant", &id, "5", "--key", "never", "--expires-at", "2020-01-01T00:00:00Z"];
    assert!(refused(&punchcard(&bench, &cli)).contains("invalid_expires_at"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_over_the_date_is_the_allowances_and_no_pack_lapses_for_it() {
    let bench = Bench::new().await;
    bench.begin_at("2026-01-01").await;
    bench.sql("INSERT INTO punchcard.kinds (name, price, life_seconds) VALUES ('k', 100, 2592000)").await;
    let lapse = "UPDATE punchcard.dated_grants SET look_at = clock.now() WHERE expires_at <= clock.now();
        DO $$ BEGIN WHILE punchcard.expire_credits() LOOP END LOOP; END $$";
    for (captured, end) in [(true, (100, 0)), (false, (100, 0))] {
        bench.set_clock("2026-01-01").await;
        let account = Uuid::new_v4();
        bench.sql(&format!("SELECT punchcard.grant_credits('{account}', 100, 'allowance', NULL, clock.now() + interval '1 day')")).await;
        let job: Uuid =
            bench.rows(&format!("SELECT job_id FROM punchcard.enqueue('{account}', 'k')")).await[0].get(0);
        bench.set_clock("2026-01-03").await;
        bench.sql(lapse).await;
        bench.sql(&format!("SELECT punchcard.grant_credits('{account}', 100, 'a pack')")).await;
        bench.sql(lapse).await;
        assert_eq!(bench.balance(account).await, (100, 100), "the pack is there, and the allowance held");
        if captured {
            bench
                .sql(
                    "SELECT punchcard.settle(ARRAY[c.job_id], ARRAY[c.lease_token], '{complete}', '{0}', '{1}', '{NULL}')
                     FROM punchcard.claim(5, '{k}', true, 60, 60) c"
                )
                .await;
        } else {
            bench.sql(&format!("SELECT punchcard.cancel('{job}')")).await;
        }
        bench.sql(lapse).await;
        assert_eq!(bench.balance(account).await, end, "captured: {captured}");
        let lapsed = format!(
            "SELECT coalesce(sum(amount), 0)::bigint FROM punchcard.movements WHERE account_id = '{account}' AND kind = 'expire'"
        );
        assert_eq!(bench.count(&lapsed).await, if captured { 0 } else { -100 });
    }
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_busy_or_fails_keeps_no_other_from_lapsing() {
    let bench = Bench::new().await;
    let mut accounts = Vec::new();
    for _ in 0..14 {
        let account = bench.account(5).await;
        bench
            .sql(&format!(
                "SELECT punchcard.grant_credits('{account}', 10, 'a', NULL, now() + interval '100 ms')"
            ))
            .await;
        accounts.push(account);
    }
    let (broken, held) = (accounts[0], &accounts[1..12]);
    bench
        .sql(&format!(
            "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''not today''; END';
             CREATE TRIGGER broken BEFORE INSERT ON punchcard.movements FOR EACH ROW
             WHEN (NEW.account_id = '{broken}' AND NEW.kind = 'expire') EXECUTE FUNCTION public.refuse()"
        ))
        .await;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let holder = crate::support::connect(&bench.direct_url).await;
    let ids: Vec<String> = held.iter().map(|id| format!("'{id}'")).collect();
    let ids = ids.join(", ");
    // One of them makes another such grant meanwhile, and has not committed it.
    holder
        .batch_execute(&format!(
            "BEGIN; SELECT FROM punchcard.accounts WHERE id IN ({ids}) FOR NO KEY UPDATE;
             SELECT punchcard.increment_user_credits('{0}', -3, 'x');
             SELECT punchcard.grant_credits('{0}', 5, 'b', NULL, now() + interval '1 day')",
            held[0]
        ))
        .await
        .unwrap();
    let lapse = "UPDATE punchcard.upkeep SET next_at = now() WHERE task = 'expiries';
        DO $$ BEGIN WHILE punchcard.keep_up('expiries', 600) LOOP END LOOP; END $$";
    bench.sql(lapse).await;
    for free in &accounts[12..] {
        assert_eq!(bench.balance(*free).await, (5, 0), "it lapsed");
    }
    assert_eq!(bench.balance(broken).await, (15, 0), "it did not");
    let error: Option<String> =
        bench.rows("SELECT error FROM punchcard.upkeep WHERE task = 'expiries'").await[0].get(0);
    assert_eq!(error, None);
    // What waits for longer than a busy hour is said.
    let told = async || bench.rows(include_str!("../../shared/src/doctor/upkeep.sql")).await;
    assert!(told().await.is_empty());
    bench
        .sql(&format!(
            "UPDATE punchcard.dated_accounts SET dealt_at = now() - interval '2 hours' WHERE account_id = '{broken}'"
        ))
        .await;
    assert_eq!(
        told().await[0].get::<_, &str>(0),
        format!("what lapses of the credits of account {broken} has to wait: not today")
    );
    let health = bench.get(broken, "/api/health").await.body;
    assert_eq!(health["upkeep_waits"], json!(["expiries"]), "{health}");
    holder.batch_execute("COMMIT").await.unwrap();
    // Not before: the holder has written into that table.
    bench.sql("DROP TRIGGER broken ON punchcard.movements").await;
    bench
        .sql("UPDATE punchcard.dated_grants SET look_at = least(look_at, now()) WHERE expires_at <= now()")
        .await;
    bench.sql(lapse).await;
    for held in &held[1..] {
        assert_eq!(bench.balance(*held).await, (5, 0), "once it is free");
    }
    assert_eq!(bench.balance(held[0]).await, (10, 0), "what lapses later is there");
    assert_eq!(bench.balance(broken).await, (5, 0), "once it can be");
    assert!(told().await.is_empty());
    bench.assert_audit_is_clean().await;
}
