//! Contenders of a workload, run in turn (A B A B), and the medians that come of it.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use indicatif::{ProgressBar, ProgressStyle};
use local::Result;
use serde::Serialize;

use crate::meter::Measure;
use crate::peers::Peer;
use crate::server::Server;

/// A way to do a workload's work: measures it once.
pub(crate) type Run<'a> = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Measure>> + 'a>> + 'a>;

/// What the table has a line for: the median of the rounds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) workload: String,
    pub(crate) contender: String,
    /// The round whose rate is the median.
    pub(crate) median: Measure,
    /// The lowest and the highest rate.
    pub(crate) spread: (f64, f64),
    /// Our rate over this one's.
    pub(crate) ratio: Option<f64>,
}

pub(crate) struct Bench {
    pub(crate) server: Server,
    pub(crate) pgbench: PathBuf,
    pub(crate) raw: PathBuf,
    pub(crate) functions: PathBuf,
    pub(crate) peers: Vec<Peer>,
    pub(crate) quick: bool,
    rounds: usize,
    rows: RefCell<Vec<Row>>,
    progress: ProgressBar,
}

impl Bench {
    pub(crate) async fn start(
        quick: bool,
        raw: &Path,
        functions: &Path,
        peers: Vec<Peer>,
        workloads: usize,
    ) -> Result<Self> {
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}")?;
        let progress = ProgressBar::new(workloads as u64).with_style(style).with_message("PostgreSQL");
        let server = Server::start(raw).await?;
        let pgbench = server.pgbench()?;
        let (raw, functions) = (raw.to_owned(), std::path::absolute(functions)?);
        let rounds = if quick { 1 } else { 3 };
        Ok(Self { server, pgbench, raw, functions, peers, quick, rounds, rows: RefCell::default(), progress })
    }

    /// Shows what is being measured.
    pub(crate) fn begin(&self, workload: &str) {
        self.progress.inc(u64::from(self.progress.message() != "PostgreSQL"));
        self.say(workload.to_owned());
    }

    fn say(&self, what: String) {
        if self.progress.is_hidden() {
            eprintln!("{what} ...");
        }
        self.progress.set_message(what);
    }

    /// The larger number, or, in a quick run, the smaller.
    pub(crate) fn size(&self, full: u32, quick: u32) -> u32 {
        if self.quick { quick } else { full }
    }

    /// Runs the contenders in turn, the first of which is ours, and keeps their medians.
    pub(crate) async fn compare(&self, workload: &str, contenders: Vec<(String, Run<'_>)>) -> Result<()> {
        let rows = self.measure(workload, contenders, self.rounds).await?;
        self.rows.borrow_mut().extend(rows);
        Ok(())
    }

    /// As [`Bench::compare`], once each: for what takes long.
    pub(crate) async fn compare_once(
        &self,
        workload: &str,
        contenders: Vec<(String, Run<'_>)>,
    ) -> Result<()> {
        let rows = self.measure(workload, contenders, 1).await?;
        self.rows.borrow_mut().extend(rows);
        Ok(())
    }

    async fn measure(
        &self,
        workload: &str,
        contenders: Vec<(String, Run<'_>)>,
        rounds: usize,
    ) -> Result<Vec<Row>> {
        let mut measured: Vec<Vec<Measure>> = contenders.iter().map(|_| Vec::new()).collect();
        for round in 1..=rounds {
            for ((name, run), measures) in contenders.iter().zip(&mut measured) {
                self.say(format!("{workload}: {name}, round {round} of {rounds}"));
                measures.push(run().await.map_err(|error| format!("{name}: {error}"))?);
            }
        }
        let mut rows: Vec<Row> = contenders
            .into_iter()
            .zip(measured)
            .map(|((contender, _), mut measures)| {
                measures.sort_by(|a, b| a.rate.total_cmp(&b.rate));
                let spread = (measures[0].rate, measures[measures.len() - 1].rate);
                let median = measures.swap_remove(measures.len() / 2);
                Row { workload: workload.to_owned(), contender, median, spread, ratio: None }
            })
            .collect();
        let ours = rows.first().map_or(0.0, |row| row.median.rate);
        rows.iter_mut().skip(1).for_each(|row| row.ratio = Some(ours / row.median.rate));
        Ok(rows)
    }

    pub(crate) fn finish(self) -> Vec<Row> {
        self.progress.finish_and_clear();
        self.rows.into_inner()
    }
}
