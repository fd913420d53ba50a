//! Taking messages to send costs the same, however many are due of one account, and reads no more of accounts that have none due
//! than says so.

use serde_json::Value;

use crate::support::Bench;

impl Bench {
    /// Messages of `accounts` accounts, `each` of each, due or not.
    async fn say(&self, accounts: usize, each: usize, next_at: &str) {
        self.sql(&format!(
            "INSERT INTO punchcard.outbox (id, account_id, job_id, event, next_at)
             SELECT gen_random_uuid(), a.id, gen_random_uuid(), 'job.failed', {next_at}
             FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, {accounts}) OFFSET 0) a,
                 generate_series(1, {each}) n"
        ))
        .await;
    }

    /// The buffers that taking 50 reads, and how many messages of how many accounts it took; all of it rolled back.
    async fn take(&self, arguments: &str) -> (i64, i64, i64) {
        let sql = format!(
            "BEGIN;
             EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM punchcard.claim_deliveries(50, 60{arguments});
             SELECT count(*), count(DISTINCT account_id) FROM punchcard.outbox WHERE attempt > 0;
             ROLLBACK"
        );
        let answers = self.admin.simple_query(&sql).await.expect(&sql);
        let rows: Vec<_> = answers
            .into_iter()
            .filter_map(|answer| match answer {
                tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            })
            .collect();
        let (last, lines) = rows.split_last().unwrap();
        let plan: String = lines.iter().map(|row| row.get(0).unwrap()).collect();
        let plan: Value = serde_json::from_str(&plan).unwrap();
        let plan = &plan[0]["Plan"];
        let buffers =
            plan["Shared Hit Blocks"].as_i64().unwrap() + plan["Shared Read Blocks"].as_i64().unwrap();
        (buffers, last.get(0).unwrap().parse().unwrap(), last.get(1).unwrap().parse().unwrap())
    }

    async fn settled(&self) {
        self.sql("VACUUM ANALYZE punchcard.outbox").await;
        self.take("").await; // the function's plans are made
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn taking_messages_costs_the_same_however_many_one_account_has() {
    let bench = Bench::new().await;
    bench.say(20, 1, "now()").await;
    bench.say(1, 1_000, "now() - interval '1 hour'").await;
    bench.settled().await;
    let (few, taken, accounts) = bench.take("").await;
    assert_eq!((taken, accounts), (23, 21), "an even share of 50 for each of 21, and 20 have one");
    bench.say(1, 100_000, "now() - interval '2 hours'").await;
    bench.settled().await;
    let (many, taken, accounts) = bench.take("").await;
    assert_eq!((taken, accounts), (26, 22));
    assert!(many <= few * 2, "{few} buffers beside 1,000, {many} beside 100,000");

    // Who is to be given none is stepped over, too.
    let loud = "SELECT string_agg(quote_literal(account_id), ',') FROM (
        SELECT account_id FROM punchcard.outbox GROUP BY account_id HAVING count(*) > 10) l";
    let loud: String = bench.rows(loud).await[0].get(0);
    let barred = format!(", true, ARRAY[{loud}]::uuid[], '{{0,0}}'");
    let (barring, taken, accounts) = bench.take(&barred).await;
    assert_eq!((taken, accounts), (20, 20));
    assert!(barring <= many * 2, "{many} buffers, {barring} without those who have most");
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_whose_messages_are_not_due_cost_a_step_each_and_no_more_than_a_thousand_at_once() {
    let bench = Bench::new().await;
    bench.say(1, 5_000, "now() - interval '1 hour'").await;
    bench.say(20, 1, "now()").await;
    bench.say(400, 100, "now() + interval '1 hour'").await;
    bench.settled().await;
    let (some, taken, accounts) = bench.take("").await;
    assert_eq!((taken, accounts), (23, 21));
    bench.say(8_000, 5, "now() + interval '1 hour'").await;
    bench.settled().await;
    let (most, ..) = bench.take("").await;
    assert!(some > 400 && most < some * 6, "{some} buffers beside 400 accounts, {most} beside 8,400");
    // Where no more are due than one look shows, nobody is visited.
    bench.sql("DELETE FROM punchcard.outbox WHERE next_at < now() - interval '30 minutes'").await;
    bench.settled().await;
    let (quiet, taken, accounts) = bench.take("").await;
    assert_eq!((taken, accounts), (20, 20));
    assert!(quiet < some, "{quiet} buffers when there is no flood");
}
