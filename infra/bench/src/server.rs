//! The server under measurement: PostgreSQL as it is in production, and databases copied from prepared templates.

use std::path::{Path, PathBuf};

use local::Result;
use local::postgres::{Options, Postgres};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

/// Durable, and otherwise at its defaults but for what a server of its own would have.
const SETTINGS: &[&str] = &["shared_buffers=512MB", "max_wal_size=4GB"];
const WITH_STATISTICS: &[&str] =
    &["shared_buffers=512MB", "max_wal_size=4GB", "shared_preload_libraries=pg_stat_statements"];
/// Accounts of a template, with credits enough for everything.
pub(crate) const ACCOUNTS: u32 = 10_000;

pub(crate) struct Server {
    pub(crate) postgres: Postgres,
    pub(crate) admin: Client,
    pub(crate) counts_statements: bool,
}

/// A database of one measurement.
pub(crate) struct Database {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) client: Client,
}

impl Server {
    pub(crate) async fn start(raw: &Path) -> Result<Self> {
        let with_statistics = Options { durable: true, settings: WITH_STATISTICS, tls: None };
        let plain = Options { durable: true, settings: SETTINGS, tls: None };
        // The extension comes with most packages of the server, not with all.
        let (postgres, counts_statements) = match Postgres::start_embedded(with_statistics) {
            Ok(postgres) => (postgres, true),
            Err(_) => (Postgres::start_embedded(plain)?, false),
        };
        let admin = connect(&postgres.url("postgres")).await?;
        let server = Self { postgres, admin, counts_statements };
        if counts_statements {
            server.admin.batch_execute("CREATE EXTENSION pg_stat_statements").await?;
        }
        server.make_template_of_ours().await?;
        server.make_template_of_raw(raw).await?;
        Ok(server)
    }

    async fn make_template_of_ours(&self) -> Result<()> {
        self.admin.batch_execute("CREATE DATABASE ours").await?;
        let url = self.postgres.url("ours");
        shared::db::migrate::apply(&url).await?;
        let client = connect(&url).await?;
        let fill = format!(
            "INSERT INTO punchcard.kinds (name, price, max_priority, url) VALUES ('bench.noop', 1, 10, NULL),
                 ('bench.http', 1, 10, 'http://127.0.0.1:9/');
             SELECT count(punchcard.grant_credits({account}, 1000000000, 'start')) FROM generate_series(1, {ACCOUNTS}) AS n",
            account = account("n"),
        );
        client.batch_execute(&fill).await?;
        Ok(client.batch_execute("VACUUM FULL ANALYZE").await?)
    }

    async fn make_template_of_raw(&self, raw: &Path) -> Result<()> {
        self.admin.batch_execute("CREATE DATABASE raw").await?;
        let client = connect(&self.postgres.url("raw")).await?;
        client.batch_execute(&read(&raw.join("schema.sql"))?).await?;
        let fill = format!(
            "INSERT INTO raw.accounts SELECT {}, 1000000000, 0 FROM generate_series(1, {ACCOUNTS}) AS n",
            account("n")
        );
        client.batch_execute(&fill).await?;
        Ok(client.batch_execute("VACUUM FULL ANALYZE").await?)
    }

    /// A copy of a template: `ours`, `raw`, or `template1` for an empty one.
    pub(crate) async fn database(&self, template: &str) -> Result<Database> {
        let name = format!("bench_{}", Uuid::new_v4().simple());
        self.admin.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await?;
        let url = self.postgres.url(&name);
        let client = connect(&url).await?;
        Ok(Database { name, url, client })
    }

    /// The audit of a database of ours must be clean after every workload.
    pub(crate) async fn drop_audited(&self, database: Database) -> Result<()> {
        let findings = database
            .client
            .query_typed("SELECT invariant || ' ' || finding FROM punchcard.audit LIMIT 1", &[])
            .await?;
        if let Some(finding) = findings.first() {
            return Err(format!("the audit is not clean: {}", finding.get::<_, String>(0)).into());
        }
        self.drop(database).await
    }

    pub(crate) async fn drop(&self, database: Database) -> Result<()> {
        let Database { name, client, .. } = database;
        drop(client);
        Ok(self.admin.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await?)
    }

    pub(crate) fn pgbench(&self) -> Result<PathBuf> {
        let beside = self.postgres.bin_dir().join("pgbench");
        let found = Some(beside).filter(|path| path.is_file()).or_else(|| local::tools::on_path("pgbench"));
        found.ok_or_else(|| "pgbench is missing: it comes with PostgreSQL's contrib package".into())
    }
}

impl Database {
    pub(crate) async fn count(&self, sql: &str) -> Result<i64> {
        Ok(self.client.query_typed(sql, &[]).await?.first().map_or(0, |row| row.get(0)))
    }

    pub(crate) async fn settle_down(&self) -> Result<()> {
        self.client.batch_execute("VACUUM ANALYZE").await?;
        Ok(self.client.batch_execute("CHECKPOINT").await?)
    }

    /// Jobs of ours, bought as anybody would buy them, by `accounts` accounts in turn; then a vacuum and a checkpoint.
    pub(crate) async fn fill(&self, jobs: u32, accounts: u32, priority: &str, run_at: &str) -> Result<()> {
        self.fill_more(jobs, accounts, priority, run_at).await?;
        self.settle_down().await
    }

    /// The same without either.
    pub(crate) async fn fill_more(
        &self,
        jobs: u32,
        accounts: u32,
        priority: &str,
        run_at: &str,
    ) -> Result<()> {
        for from in (0..jobs).step_by(50_000) {
            let until = jobs.min(from + 50_000);
            let sql = format!(
                "SELECT count(punchcard.enqueue({account}, 'bench.noop', '{INPUT}', NULL, {priority}, {run_at}))
                 FROM generate_series({from} + 1, {until}) AS n",
                account = account(&format!("n % {accounts} + 1")),
            );
            self.client.batch_execute(&sql).await?;
        }
        Ok(())
    }

    /// Jobs of the raw tables.
    pub(crate) async fn fill_raw(&self, jobs: u32) -> Result<()> {
        let sql = format!(
            "INSERT INTO raw.jobs (account_id, id, price, entry, available_after, held_after, kind, input)
             SELECT {account}, gen_random_uuid(), 1, n, 1, n, 'bench.noop', '{INPUT}' FROM generate_series(1, {jobs}) AS n;
             INSERT INTO raw.queue (job_id, account_id, price, run_at)
             SELECT j.id, j.account_id, 1, now() - interval '1 hour' + j.entry * interval '1 microsecond' FROM raw.jobs j
             ORDER BY j.entry;
             UPDATE raw.accounts SET held = held + {jobs}",
            account = account(&format!("n % {ACCOUNTS} + 1")),
        );
        self.client.batch_execute(&sql).await?;
        self.settle_down().await
    }
}

/// The input of every job: 100 bytes.
pub(crate) const INPUT: &str =
    r#"{"user_id":123,"kind":"noop","pad":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}"#;

/// SQL for the id of the account of a number, from 1.
pub(crate) fn account(number: &str) -> String {
    format!("('00000000-0000-7000-8000-' || lpad(to_hex(({number})::int), 12, '0'))::uuid")
}

pub(crate) async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

pub(crate) fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()).into())
}
