//! What the requests meet: two accounts with credits, kinds, and jobs in every state, which a worker keeps moving.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use local::lambda::Function;
use local::scripted::{Response, ScriptedServer};
use local::{Error, Result, tools};
use serde_json::{Value, json};
use shared::signing::callback_token;
use tokio::time::sleep;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::stack::{Database, Keys};

/// More than any run spends.
const CREDITS: i64 = 1_000_000_000;
/// Between two turns.
const PAUSE: Duration = Duration::from_secs(2);
/// Jobs of a state that an account has after each turn, at least.
const READY: i64 = 40;

/// How long a slow job runs.
const SLOW: Duration = Duration::from_secs(4);
/// So long after the start of a tick its slow jobs are running.
const RUNNING_AFTER: Duration = Duration::from_secs(1);

/// The kinds: what is done, what no worker does, what fails, what is still running when it is canceled, what waits to be called
/// back, what nobody can pay.
const KINDS: &str = "
INSERT INTO punchcard.kinds (name, price, timeout_seconds, backoff_seconds, url, metered) VALUES
    ('qr.svg', 1, 10, 1, NULL, false), ('fuzz.waits', 3, 10, 1, NULL, false), ('fuzz.fails', 2, 10, 1, '{url}/fails', false),
    ('fuzz.free', 0, 10, 1, '{url}/done', false), ('fuzz.metered', 8, 10, 1, '{url}/done', true),
    ('fuzz.slow', 1, 10, 1, '{url}/slow', false), ('fuzz.later', 4, 10, 1, '{url}/later', true),
    ('fuzz.dear', 1000000000000, 10, 1, NULL, false);
UPDATE punchcard.kinds SET max_priority = 10";

/// Buys what is missing of an account, so that there always is something to cancel and something to retry.
const STOCK: &str = "
SELECT punchcard.enqueue('{account}', k.kind) FROM (
    SELECT 'fuzz.waits' AS kind, (SELECT count(*) FROM punchcard.queue WHERE account_id = '{account}' AND kind = 'fuzz.waits') AS there
    UNION ALL SELECT 'fuzz.slow', {ready} - 5
    UNION ALL SELECT 'fuzz.later', (SELECT count(*) FROM punchcard.queue WHERE account_id = '{account}' AND kind = 'fuzz.later')
    UNION ALL
    SELECT 'fuzz.fails', count(*) FROM punchcard.outcomes o WHERE o.account_id = '{account}' AND o.status = 'failed'
        AND NOT EXISTS (SELECT FROM punchcard.retries r WHERE r.job_id = o.job_id)
) k, generate_series(k.there + 1, {ready})";

/// Ids for the hooks: of jobs that are not done for good, and of others.
const POOL: &str = "
SELECT json_build_object(
    'cancelable', (SELECT coalesce(json_agg(q.job_id), '[]') FROM (
        SELECT job_id FROM punchcard.queue WHERE account_id = '{account}' AND kind IN ('fuzz.waits', 'fuzz.slow')
        ORDER BY lease_expires_at, job_id DESC LIMIT 60) q),
    'retryable', (SELECT coalesce(json_agg(o.job_id), '[]') FROM (
        SELECT o.job_id FROM punchcard.outcomes o WHERE o.account_id = '{account}' AND o.status = 'failed'
            AND NOT EXISTS (SELECT FROM punchcard.retries r WHERE r.job_id = o.job_id)
        ORDER BY o.job_id DESC LIMIT 100) o),
    'waiting', (SELECT coalesce(json_agg(json_build_object('job', w.job_id, 'run', w.lease_token)), '[]') FROM (
        SELECT job_id, lease_token FROM punchcard.queue WHERE account_id = '{account}' AND waiting_until IS NOT NULL
        ORDER BY job_id LIMIT 40) w),
    'any', (SELECT coalesce(json_agg(j.id), '[]') FROM (
        SELECT id FROM punchcard.jobs WHERE account_id = '{account}' ORDER BY id DESC LIMIT 100) j))::text";

/// The database's side of a run, and the worker.
pub(super) struct World {
    /// Whose credits are spent.
    pub(super) accounts: [Uuid; 2],
    /// Some that may be erased.
    leavers: [Uuid; 3],
    /// An account that may have two unfinished jobs.
    limited: Uuid,
    client: Client,
    poller: Function,
    pool: PathBuf,
    target: ScriptedServer,
    /// What seals the tokens of those who call back.
    signing_secret: String,
}

impl World {
    /// Two accounts with jobs in every state, and the pool of their ids.
    pub(super) async fn create(database: &Database, keys: &Keys, pool: PathBuf) -> Result<Self> {
        let target = ScriptedServer::start(|request| match request.path.as_str() {
            "/done" => Response::json(200, json!({ "done": true })),
            "/later" => Response::json(202, json!({})),
            "/hook" => Response::json(204, json!({})),
            "/slow" => Response::json(200, json!({ "done": true })).delay(SLOW),
            _ => Response::json(422, json!({ "error": "never" })),
        });
        let target = target.await?;
        let client = database.connect().await?;
        client.batch_execute(&KINDS.replace("{url}", &target.url(""))).await?;
        let (accounts, limited) = ([Uuid::new_v4(), Uuid::new_v4()], Uuid::new_v4());
        let leavers = [Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4()];
        for account in accounts.into_iter().chain([limited]).chain(leavers) {
            let grant = format!("SELECT punchcard.grant_credits('{account}', {CREDITS}, 'fuzz')");
            client.batch_execute(&grant).await?;
        }
        let limit =
            format!("INSERT INTO punchcard.limits (account_id, unfinished_jobs) VALUES ('{limited}', 2)");
        client.batch_execute(&limit).await?;
        let poller = tools::target_dir().join("debug/poller");
        let mut environment = keys.environment(&database.url());
        environment.push(("PUBLIC_URL".to_owned(), "http://127.0.0.1:9".to_owned()));
        let poller = Function::new(poller, environment);
        let signing_secret = keys.signing_secret().to_owned();
        let world = Self { accounts, leavers, limited, client, poller, pool, target, signing_secret };
        world.turn_once().await?;
        Ok(world)
    }

    /// Turns on and on; ends with an error alone.
    pub(super) async fn turn(&self) -> Error {
        loop {
            sleep(PAUSE).await;
            if let Err(error) = self.turn_once().await {
                return error;
            }
        }
    }

    /// Buys what is missing and runs what is due, and tells the hooks what there is while it runs.
    async fn turn_once(&self) -> Result<()> {
        for account in self.accounts {
            let stock =
                STOCK.replace("{account}", &account.to_string()).replace("{ready}", &READY.to_string());
            self.client.batch_execute(&stock).await?;
        }
        let tick = self.poller.start_invoke(&json!({}));
        sleep(RUNNING_AFTER).await;
        self.fill_pool().await?;
        tick.wait().await?;
        Ok(())
    }

    /// Tells the hooks what there is.
    async fn fill_pool(&self) -> Result<()> {
        let mut jobs = serde_json::Map::new();
        for account in self.accounts {
            let query = POOL.replace("{account}", &account.to_string());
            let rows = self.client.query_typed(&query, &[]).await?;
            let mut ids: Value =
                rows.first().map_or(Ok(Value::Null), |row| serde_json::from_str(row.get(0)))?;
            ids["tokens"] = self.tokens(&ids["waiting"])?;
            jobs.insert(account.to_string(), ids);
        }
        let kinds: Vec<&str> = KINDS.split('\'').filter(|word| word.starts_with("fuzz.")).collect();
        let kinds = [&["qr.svg"], kinds.as_slice()].concat();
        let accounts = [self.accounts.as_slice(), &[self.limited]].concat();
        // Where those are told who ask to be: never elsewhere.
        let receiver = self.target.url("/hook");
        let leavers = &self.leavers;
        let pool = json!({
            "accounts": accounts, "leavers": leavers, "kinds": kinds, "jobs": jobs, "receiver": receiver
        });
        // Never half of it: it is read at any time.
        let new = self.pool.with_extension("new");
        fs::write(&new, pool.to_string())?;
        Ok(fs::rename(&new, &self.pool)?)
    }

    /// What may be called back with, for runs that wait for it.
    fn tokens(&self, waiting: &Value) -> Result<Value> {
        let token = |run: &Value| -> Result<String> {
            let job: Uuid = run["job"].as_str().ok_or("a run without a job")?.parse()?;
            let lease_token = run["run"].as_i64().ok_or("a run without a token")?;
            Ok(callback_token(&self.signing_secret, job, lease_token))
        };
        let tokens = waiting.as_array().into_iter().flatten().map(token);
        Ok(json!(tokens.collect::<Result<Vec<_>>>()?))
    }

    /// Prints what became of the jobs; answers the final statuses that none of them has.
    pub(super) async fn missing(&self) -> Result<Vec<String>> {
        let query = "SELECT s.status, count(o.job_id)
                     FROM unnest(ARRAY['succeeded', 'failed', 'canceled']) s (status)
                     LEFT JOIN punchcard.outcomes o ON o.status::text = s.status GROUP BY 1 ORDER BY 1";
        let mut missing = Vec::new();
        for row in self.client.query_typed(query, &[]).await? {
            let (status, jobs): (String, i64) = (row.get(0), row.get(1));
            println!("jobs {status}: {jobs}");
            if jobs == 0 {
                missing.push(format!("no job {status}: the worker did not keep them moving"));
            }
        }
        Ok(missing)
    }

    /// What the audit finds.
    pub(super) async fn audit(&self) -> Result<Vec<String>> {
        let query =
            "SELECT invariant || ' ' || coalesce(subject::text, '') || ' ' || finding FROM punchcard.audit";
        Ok(self.client.query_typed(query, &[]).await?.iter().map(|row| row.get(0)).collect())
    }
}
