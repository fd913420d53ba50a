//! `cargo xtask bench`: ours, the raw statements and the rivals, measured side by side in one run, as ratios.
//! How to read and repeat it: docs/PERFORMANCE.md.

#![allow(clippy::print_stdout, clippy::print_stderr)] // A command line talks to its user.

mod compare;
mod meter;
mod peers;
mod pgbench;
mod report;
mod server;
mod weight;
mod workloads;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use local::Result;

use compare::Bench;

/// Measures Punchcard against the raw statements that do the same work, and against rivals.
#[derive(Parser)]
struct Args {
    /// Shows that it runs, in a minute or two: debug builds, small tables, one round. Its figures say nothing.
    #[arg(long)]
    quick: bool,
    /// Only this workload; repeatable.
    #[arg(long = "only", value_name = "WORKLOAD", value_parser = workloads::names())]
    only: Vec<String>,
    /// The same, without saying `--only`.
    #[arg(value_name = "WORKLOAD", value_parser = workloads::names())]
    workloads: Vec<String>,
    /// Also the long soak: 15 minutes.
    #[arg(long)]
    soak: bool,
    /// Write the measurements here as well, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Rivals: programs in this folder that speak the protocol of docs/PERFORMANCE.md.
    #[arg(long, value_name = "DIR")]
    peers: Option<PathBuf>,
    /// The raw statements.
    #[arg(long, value_name = "DIR", default_value = "infra/bench/raw")]
    raw: PathBuf,
    /// Where the builds of the functions are that are measured.
    #[arg(long, value_name = "DIR", default_value = "target/release")]
    functions: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<()> {
    let only = [args.only, args.workloads].concat();
    let chosen = workloads::chosen(&only, args.quick, args.soak);
    let peers = args.peers.as_deref().map(peers::list).transpose()?.unwrap_or_default();
    let bench = Bench::start(args.quick, &args.raw, &args.functions, peers, chosen.len()).await?;
    let work = async {
        for workload in chosen {
            bench.begin(workload.name);
            workload.run(&bench).await.map_err(|error| format!("{}: {error}", workload.name))?;
        }
        Ok::<(), local::Error>(())
    };
    tokio::select! {
        done = work => done,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    }?;
    let rows = bench.finish();
    print!("{}", report::table(&rows));
    report::keep(&rows, args.json.as_deref())
}
