//! What a piece of work cost: time, and the steadier figures. CPU of the server's processes, WAL, statements, commits.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use local::Result;
use serde::Serialize;

use crate::server::Server;

/// One measurement, everything per job but the first two.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Measure {
    /// Jobs done.
    pub(crate) jobs: f64,
    /// Jobs per second; for a latency, see `more`.
    pub(crate) rate: f64,
    /// Microseconds of the server's processes.
    pub(crate) server_cpu_us: Option<f64>,
    pub(crate) wal_bytes: f64,
    pub(crate) statements: Option<f64>,
    pub(crate) commits: f64,
    pub(crate) dead_rows: f64,
    /// Figures of one workload, such as `p99_ms`.
    pub(crate) more: BTreeMap<String, f64>,
}

/// A measurement under way.
pub(crate) struct Meter<'a> {
    server: &'a Server,
    database: String,
    started: Instant,
    before: Reading,
}

struct Reading {
    cpu_us: Option<f64>,
    wal: i64,
    commits: i64,
}

impl<'a> Meter<'a> {
    pub(crate) async fn start(server: &'a Server, database: &str) -> Result<Self> {
        if server.counts_statements {
            server.admin.batch_execute("SELECT pg_stat_statements_reset()").await?;
        }
        let before = Reading::take(server, database).await?;
        Ok(Self { server, database: database.to_owned(), started: Instant::now(), before })
    }

    /// Ends it now.
    pub(crate) async fn stop(self, jobs: f64) -> Result<Measure> {
        let seconds = self.started.elapsed().as_secs_f64();
        self.stop_after(jobs, seconds).await
    }

    /// Ends it, `seconds` having been measured otherwise.
    pub(crate) async fn stop_after(self, jobs: f64, seconds: f64) -> Result<Measure> {
        // Backends report their counts when they end, or a second after they fall idle.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let after = Reading::take(self.server, &self.database).await?;
        let per_job = |total: f64| total / jobs.max(1.0);
        let statements = match self.server.counts_statements {
            true => Some(per_job(self.statements().await?)),
            false => None,
        };
        Ok(Measure {
            jobs,
            rate: jobs / seconds.max(1e-9),
            server_cpu_us: after
                .cpu_us
                .zip(self.before.cpu_us)
                .map(|(after, before)| per_job(after - before)),
            wal_bytes: per_job((after.wal - self.before.wal) as f64),
            statements,
            commits: per_job((after.commits - self.before.commits) as f64),
            dead_rows: 0.0,
            more: BTreeMap::new(),
        })
    }

    async fn statements(&self) -> Result<f64> {
        let sql = format!(
            "SELECT coalesce(sum(s.calls), 0)::bigint FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
             WHERE d.datname = '{}'",
            self.database
        );
        let rows = self.server.admin.query_typed(&sql, &[]).await?;
        Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0)) as f64)
    }
}

impl Reading {
    async fn take(server: &Server, database: &str) -> Result<Self> {
        let sql = format!(
            "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint,
                    coalesce((SELECT xact_commit FROM pg_stat_database WHERE datname = '{database}'), 0)"
        );
        let rows = server.admin.query_typed(&sql, &[]).await?;
        let row = rows.first().ok_or("no reading")?;
        Ok(Self { cpu_us: server.postgres.pid().and_then(cpu_us), wal: row.get(0), commits: row.get(1) })
    }
}

/// Microseconds of CPU of a process, of its living children, and of those that have ended. Linux only.
fn cpu_us(postmaster: u32) -> Option<f64> {
    let (_, _, ended) = times(postmaster)?;
    let mut total = ended;
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some((parent, own, _)) = pid.and_then(times)
            && parent == postmaster
        {
            total += own;
        }
    }
    Some(total as f64 * 10_000.0) // a tick is 1/100 s (proc(5): USER_HZ)
}

/// Parent, own ticks, ticks of ended children.
fn times(pid: u32) -> Option<(u32, u64, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field)?.parse::<u64>().ok();
    Some((fields.get(1)?.parse().ok()?, ticks(11)? + ticks(12)?, ticks(13)? + ticks(14)?))
}
