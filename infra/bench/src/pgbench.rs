//! Runs a statement under pgbench: unnamed, as our functions send theirs.

use std::path::Path;

use local::Result;
use tokio::process::Command;

use crate::server::{INPUT, account};

/// How long or how often, and by how many.
pub(crate) struct Load<'a> {
    pub(crate) clients: u32,
    /// The accounts that buy, from the first.
    pub(crate) accounts: u32,
    pub(crate) seconds: Option<u32>,
    /// Transactions of each client, if not for a time.
    pub(crate) transactions: u32,
    /// Transactions a second, of all clients.
    pub(crate) rate: Option<u32>,
    /// pgbench's variables.
    pub(crate) define: &'a [(&'a str, &'a str)],
}

impl Load<'_> {
    pub(crate) const ONE: Load<'static> =
        Load { clients: 1, accounts: 1, seconds: None, transactions: 1, rate: None, define: &[] };
}

/// What pgbench says.
pub(crate) struct Answer {
    pub(crate) transactions: f64,
    /// A second, without connecting.
    pub(crate) rate: f64,
    /// Of single transactions, in milliseconds.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// The statement, with `:account` for the account of a random number and `:input` for an input.
pub(crate) async fn run(pgbench: &Path, url: &str, statement: &str, load: Load<'_>) -> Result<Answer> {
    let folder = tempfolder()?;
    let script = folder.join("script.sql");
    let text = statement.replace(":account", &account(":n")).replace(":input", &format!("'{INPUT}'"));
    std::fs::write(&script, format!("\\set n random(1, {})\n{text}\n", load.accounts))?;
    let mut command = Command::new(pgbench);
    command.args(["-n", "-M", "extended", "-l", "--log-prefix"]).arg(folder.join("log"));
    command.args(["-c", &load.clients.to_string(), "-j", &load.clients.min(2).to_string()]);
    match load.seconds {
        Some(seconds) => command.args(["-T", &seconds.to_string()]),
        None => command.args(["-t", &load.transactions.to_string()]),
    };
    if let Some(rate) = load.rate {
        command.args(["-R", &rate.to_string()]);
    }
    for (name, value) in load.define {
        command.arg("-D").arg(format!("{name}={value}"));
    }
    let output = command.arg("-f").arg(&script).arg(url).kill_on_drop(true).output().await?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    if let Some(error) = complained.lines().find(|line| line.contains("ERROR") || line.contains("FATAL")) {
        return Err(format!("pgbench: {error}").into());
    }
    let word = |line: &str, nth: usize| {
        let line = said.lines().find(|it| it.starts_with(line))?;
        line.split([' ', '/']).filter(|it| !it.is_empty()).nth(nth)?.parse::<f64>().ok()
    };
    let transactions = word("number of transactions actually processed", 5);
    let (Some(transactions), Some(rate)) = (transactions, word("tps", 2)) else {
        return Err(format!("pgbench did not finish: {}{}", said.trim(), complained.trim()).into());
    };
    let latencies = latencies(&folder)?;
    std::fs::remove_dir_all(&folder)?;
    let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied().unwrap_or(0.0);
    Ok(Answer { transactions, rate, p50_ms: at(0.5), p99_ms: at(0.99) })
}

fn tempfolder() -> Result<std::path::PathBuf> {
    let folder = std::env::temp_dir().join(format!("pc-bench-{}", uuid::Uuid::new_v4().simple()));
    std::fs::create_dir(&folder)?;
    Ok(folder)
}

/// The third column of each line of its logs: microseconds.
fn latencies(folder: &Path) -> Result<Vec<f64>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("log") {
            let text = std::fs::read_to_string(entry.path())?;
            let third = |line: &str| line.split(' ').nth(2)?.parse::<f64>().ok();
            found.extend(text.lines().filter_map(third).map(|us| us / 1_000.0));
        }
    }
    found.sort_by(f64::total_cmp);
    Ok(found)
}
