//! Rivals: programs in a folder, no part of the project. Each is run as `PROGRAM WORKLOAD` with the environment
//! `DATABASE_URL` (an empty database of its own), `JOBS` and `CLIENTS`; it sets itself up, prints `ready`, waits for a
//! line on its standard input, does the work, prints `done`, and ends. Workloads: `enqueue` (JOBS by CLIENTS
//! producers) and `drain` (JOBS that it put in before `ready`, by CLIENTS processes, until every one is finished in the
//! database). One that ends with status 3 does not take part in a workload.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use local::Result;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::compare::{Bench, Run};
use crate::meter::{Measure, Meter};
use crate::server::Server;

#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) name: String,
    program: PathBuf,
}

/// The programs of a folder, by name.
pub(crate) fn list(folder: &Path) -> Result<Vec<Peer>> {
    use std::os::unix::fs::PermissionsExt;
    let mut peers = Vec::new();
    for entry in
        std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?.flatten()
    {
        let metadata = entry.path().metadata()?;
        if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
            let name = entry.path().file_stem().unwrap_or_default().to_string_lossy().into_owned();
            peers.push(Peer { name, program: std::path::absolute(entry.path())? });
        }
    }
    peers.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(peers)
}

/// Every rival as a contender of a workload.
pub(crate) fn contenders<'a>(
    bench: &'a Bench,
    workload: &'a str,
    jobs: u32,
    clients: u32,
) -> Vec<(String, Run<'a>)> {
    let contender = |peer: &'a Peer| {
        let run: Run<'a> = Box::new(move || Box::pin(peer.run(&bench.server, workload, jobs, clients)));
        (peer.name.clone(), run)
    };
    bench.peers.iter().map(contender).collect()
}

impl Peer {
    async fn run(&self, server: &Server, workload: &str, jobs: u32, clients: u32) -> Result<Measure> {
        let database = server.database("template1").await?;
        let mut child = Command::new(&self.program)
            .arg(workload)
            .env("DATABASE_URL", &database.url)
            .env("JOBS", jobs.to_string())
            .env("CLIENTS", clients.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        let mut wait_for = async |word: &str| -> Result<bool> {
            while let Some(line) = lines.next_line().await? {
                if line.trim() == word {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        if !wait_for("ready").await? {
            let status = child.wait().await?;
            server.drop(database).await?;
            return match status.code() {
                Some(3) => Ok(Measure::default()),
                _ => Err(format!("it ended with {status}").into()),
            };
        }
        database.settle_down().await?;
        let meter = Meter::start(server, &database.name).await?;
        child.stdin.take().ok_or("no input")?.write_all(b"go\n").await?;
        let done = wait_for("done").await?;
        let measure = meter.stop(f64::from(jobs)).await?;
        if !done {
            return Err("it ended before it was done".into());
        }
        child.wait().await?;
        server.drop(database).await?;
        Ok(measure)
    }
}
