//! Three years of an installation by a clock of their own, held against a plain model at the end of each month: money, statements, what
//! is gone, and that nothing of it depends on when ticks come.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::{Value, json};
use uuid::Uuid;

use super::{expiries::Model, retention::statement};
use crate::{life::lane::Dice, support::Bench};

/// How long a job lives, in days.
const LIFE: i64 = 20;
const PRICE: i64 = 2;
/// For how many days payloads and keys are kept, and money.
const KEPT: (u32, u32) = (100, 200);

/// A job that is not finished: when it has to be, and how it ends if it is run.
struct Job {
    expires: i64,
    ends: Ends,
}

#[derive(Clone, Copy, PartialEq)]
enum Ends {
    Complete,
    Fail,
    /// It is put off until it is over.
    Never,
}

struct Account {
    id: Uuid,
    credits: Model,
    jobs: Vec<Job>,
    /// How many entries it has, and had at the end of the last month, with its balances then.
    entries: i64,
    closed: (i64, i64, i64),
    erased: bool,
    /// Each statement as it was when it was final: its pages.
    statements: BTreeMap<String, Vec<Value>>,
}

impl Account {
    fn new() -> Self {
        Self {
            id: Uuid::new_v4(),
            credits: Model::default(),
            jobs: Vec::new(),
            entries: 0,
            closed: (0, 0, 0),
            erased: false,
            statements: BTreeMap::new(),
        }
    }

    fn state(&self) -> (i64, i64, i64) {
        (self.entries, self.credits.free(), self.credits.held.iter().sum())
    }

    /// What a tick does: what is over fails, what can be run is.
    fn tick(&mut self, day: i64) {
        let (credits, entries) = (&mut self.credits, &mut self.entries);
        self.jobs.retain(|job| {
            let over = job.expires <= day;
            let ends = over || job.ends != Ends::Never;
            if ends {
                credits.held.pop();
                *entries += 1;
                if !over && job.ends == Ends::Complete {
                    credits.spend(PRICE);
                }
            }
            !ends
        });
        let before = credits.dated.iter().map(|(_, _, left)| *left).collect::<Vec<_>>();
        credits.lapse(day);
        // An entry for each grant of which something lapsed; `lapse` keeps their order.
        let mut sorted = credits.dated.clone();
        sorted.sort_unstable();
        *entries += before.iter().zip(&sorted).filter(|(before, (_, _, now))| **before > *now).count() as i64;
        credits.dated.retain(|(_, _, left)| *left > 0);
    }
}

/// What a tick does, as far as it is upkeep: everything that is due.
const UPKEEP: &str = "DO $$ BEGIN
    UPDATE punchcard.upkeep SET next_at = '-infinity' WHERE task <> 'audit';
    UPDATE punchcard.erasures SET look_at = clock.now() WHERE done_at IS NULL;
    UPDATE punchcard.dated_grants SET look_at = least(look_at, clock.now()) WHERE left_over > 0 AND expires_at <= clock.now();
    WHILE punchcard.keep_up('periods', 3600) LOOP END LOOP;
    WHILE punchcard.keep_up('erasures', 300) LOOP END LOOP;
    WHILE punchcard.keep_up('expiries', 600) LOOP END LOOP;
    WHILE punchcard.keep_up('retention', 3600) LOOP END LOOP;
    WHILE punchcard.keep_up('keys', 86400) LOOP END LOOP;
END $$;";

/// What a tick does, as far as it is jobs: each ends as its input says.
const RUN: &str = "DO $$
    DECLARE taken integer;
    BEGIN
        WHILE EXISTS (SELECT FROM punchcard.rescue(1000)) LOOP END LOOP;
        LOOP
            WITH c AS MATERIALIZED (
                SELECT c.job_id, c.lease_token, c.input, c.input::json ->> 'ends' AS ends
                FROM punchcard.claim(1000, '{k}', true, 60, 60) c
            ), s AS MATERIALIZED (
                SELECT punchcard.settle(
                    array_agg(c.job_id), array_agg(c.lease_token),
                    array_agg(CASE c.ends WHEN 'never' THEN 'snooze' ELSE c.ends END), array_agg(43200::float8),
                    array_agg(CASE c.ends WHEN 'complete' THEN c.input END),
                    array_agg(CASE c.ends WHEN 'fail' THEN '{\"code\":\"x\",\"message\":\"m\",\"attempt\":1}' END)) AS settled
                FROM c HAVING count(*) > 0
            )
            SELECT count(*) INTO taken FROM s;
            EXIT WHEN taken = 0;
        END LOOP;
    END $$;";

#[tokio::test(flavor = "multi_thread")]
async fn three_years_are_as_a_plain_model_has_them_at_the_end_of_each_month() {
    let set = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seed = set("PUNCHCARD_SEED").unwrap_or_else(|| Uuid::new_v4().as_u128() as u64);
    let a_day = set("PUNCHCARD_JOBS_A_DAY").unwrap_or(12) as i64;
    println!("PUNCHCARD_SEED={seed} PUNCHCARD_JOBS_A_DAY={a_day}");
    let mut dice = Dice(seed);
    let mut below = |bound: i64| dice.below(bound as u64) as i64;
    let bench = Bench::new().await;
    bench.begin_at("2024-01-01").await;
    bench
        .sql(&format!(
            "INSERT INTO punchcard.kinds (name, price, life_seconds, max_attempts) VALUES ('k', {PRICE}, {LIFE} * 86400, 3);
             UPDATE punchcard.retention SET payload_days = {0}, key_days = {0}, money_days = {1}",
            KEPT.0, KEPT.1
        ))
        .await;
    let mut accounts: Vec<Account> = (0..4).map(|_| Account::new()).collect();
    let (mut day, mut erased, mut gone) = (0, 0, 0);
    for month in 0..36 {
        let (year, number) = (2024 + month / 12, 1 + month % 12);
        let name = format!("{year}-{number:02}");
        let days = match number {
            2 if year == 2024 => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        // Of each year there are two months without a tick.
        let ticks = !matches!(number, 4 | 9);
        for of_month in 1..=days {
            let now = format!("{name}-{of_month:02} 12:00Z");
            bench.set_clock(&now).await;
            let mut sql = String::new();
            for (place, account) in accounts.iter_mut().enumerate().filter(|(_, account)| !account.erased) {
                let id = account.id;
                if of_month == 1 {
                    // An allowance for a month, and sometimes a pack.
                    let amount = 20 + a_day * PRICE * 3;
                    let until = format!("timestamptz '{now}' + interval '{days} days'");
                    write!(sql, "SELECT punchcard.grant_credits('{id}', {amount}, '{name}', NULL, {until});")
                        .unwrap();
                    account.credits.dated.push((day + days, month as usize, amount));
                    account.entries += 1;
                }
                if below(9) == 0 {
                    let amount = 1 + below(a_day * 4);
                    write!(sql, "SELECT punchcard.grant_credits('{id}', {amount}, '{now}');").unwrap();
                    account.credits.undated += amount;
                    account.entries += 1;
                }
                let wanted = if place == 0 { a_day / 2 } else { below(a_day / 2) };
                for part in (0..wanted).step_by(1_000) {
                    let jobs = (wanted - part).min(1_000);
                    if jobs * PRICE > account.credits.free() {
                        continue;
                    }
                    let never = below(20) == 0;
                    let ends = |number: i64| match number % 7 {
                        0 if never => Ends::Never,
                        1 | 2 => Ends::Fail,
                        _ => Ends::Complete,
                    };
                    write!(
                        sql,
                        "SELECT count(*) FROM punchcard.enqueue_batch('{id}', (
                             SELECT json_agg(json_build_object('kind', 'k', 'tags', ARRAY['of:{id}'], 'input', json_build_object(
                                 'who', 'of:{id}', 'ends', CASE n % 7 WHEN 0 THEN {} WHEN 1 THEN 'fail' WHEN 2 THEN 'fail'
                                                                      ELSE 'complete' END)))
                             FROM generate_series(0, {jobs} - 1) n), '{now} {part}');",
                        if never { "'never'" } else { "'complete'" },
                    )
                    .unwrap();
                    for number in 0..jobs {
                        account.jobs.push(Job { expires: day + LIFE, ends: ends(number) });
                        account.credits.held.push(PRICE);
                        account.entries += 1;
                    }
                }
            }
            bench.sql(&sql).await;
            if ticks {
                bench.sql(RUN).await;
                bench.sql(UPKEEP).await;
                accounts.iter_mut().filter(|account| !account.erased).for_each(|account| account.tick(day));
            }
            day += 1;
        }

        // The end of the month.
        for account in &accounts {
            let (entries, free, held) = account.state();
            assert_eq!(
                bench.balance(account.id).await,
                (free, held),
                "{name} {}: {:?}",
                account.id,
                account.credits
            );
            let there =
                format!("SELECT sum(entries)::bigint FROM punchcard.accounts WHERE id = '{}'", account.id);
            assert_eq!(bench.count(&there).await, entries, "{name} {}", account.id);
        }
        bench.sql("UPDATE clock.shift SET by = s.by + interval '15 hours' FROM clock.shift s").await;
        for account in &mut accounts {
            let pages = match a_day < 100 {
                true => statement(&bench, account.id, &name, 1_000).await,
                false => {
                    let path = format!("/api/credits/statement?month={name}&limit=1");
                    vec![bench.get(account.id, &path).await.body]
                }
            };
            let (before, after) = (account.closed, account.state());
            let share = &pages[0]["shares"][0];
            let shown = |what: &str, side: &str| share[what][side].as_i64().unwrap();
            assert_eq!(
                (
                    share["first"].as_i64().unwrap() - 1,
                    shown("opening", "available"),
                    shown("opening", "held")
                ),
                before,
                "{name} {}",
                account.id
            );
            assert_eq!(
                (
                    share["behind"].as_i64().unwrap() - 1,
                    shown("closing", "available"),
                    shown("closing", "held")
                ),
                after,
                "{name} {}",
                account.id
            );
            account.closed = after;
            if a_day < 100 {
                account.statements.insert(name.clone(), pages);
            }
            // Those of before are as they were, or gone: some of them each time.
            for (month, pages) in account.statements.iter().filter(|_| below(5) == 0) {
                let path = format!("/api/credits/statement?month={month}&limit=1000");
                let now = bench.get(account.id, &path).await;
                match now.status {
                    200 => assert_eq!(
                        (&now.body["shares"], &now.body["data"]),
                        (&pages[0]["shares"], &pages[0]["data"]),
                        "{month}"
                    ),
                    410 => gone += 1,
                    status => panic!("{month}: {status} {}", now.body),
                }
            }
        }
        if ticks {
            // The views' clock is PostgreSQL's: by that, what is unfinished is late.
            let findings = "SELECT a::text FROM punchcard.audit a WHERE a.finding NOT LIKE 'unfinished two ticks%' LIMIT 5";
            let findings: Vec<String> = bench.rows(findings).await.iter().map(|row| row.get(0)).collect();
            assert!(findings.is_empty(), "{name}: {findings:?}");
            for account in accounts.iter().filter(|account| account.erased) {
                let mark = format!("of:{}", account.id);
                for table in ["jobs", "outcomes", "labels"] {
                    let left =
                        format!("SELECT count(*) FROM punchcard.{table} t WHERE t::text LIKE '%{mark}%'");
                    assert_eq!(bench.count(&left).await, 0, "{name} {table}");
                }
            }
        }
        // Now and then somebody is forgotten, and somebody else comes.
        if month % 7 == 5 {
            let leaver = &mut accounts[1 + below(3) as usize];
            bench.sql(&format!("SELECT punchcard.erase_account('{}')", leaver.id)).await;
            leaver.erased = true;
            leaver.entries += leaver.jobs.len() as i64;
            leaver.jobs.clear();
            leaver.credits.held.clear();
            bench.sql("DO $$ BEGIN WHILE punchcard.erase_payloads() LOOP END LOOP; END $$").await;
            // What it has left lapses as everybody's does: that is not what this looks at.
            bench
                .sql(&format!(
                    "UPDATE punchcard.dated_grants SET left_over = 0 WHERE account_id = '{}'",
                    leaver.id
                ))
                .await;
            bench
                .sql(&format!("DELETE FROM punchcard.dated_accounts WHERE account_id = '{}'", leaver.id))
                .await;
            erased += 1;
            accounts.push(Account::new());
        }
    }
    assert!(erased == 5 && (gone > 50 || a_day >= 100), "{erased} erased, {gone} statements gone");
    let left = bench
        .rows("SELECT min(punchcard.uuid_time(id)) > clock.now() - interval '135 days' FROM punchcard.jobs")
        .await;
    assert!(left[0].get::<_, bool>(0), "payloads go");
    let keys = "SELECT count(*) FROM punchcard.idempotency_keys k WHERE punchcard.uuid_time(k.job_id) < clock.now() - interval '140 days'";
    assert_eq!(bench.count(keys).await, 0, "keys go");
    assert!(bench.count("SELECT count(*) FROM punchcard.carried").await >= 4);
    assert_eq!(
        json!(null),
        bench.get(accounts[0].id, "/api/health").await.body["upkeep_waits"],
        "nothing waits"
    );
}
