//! `cargo xtask test`: the units, then the integration tests around a PostgreSQL of their own. All of them run once, through
//! PgBouncer in transaction mode, the strictest case; those of the modules `db` and `connect` also directly, through
//! PgBouncer in session mode, and on the newest PostgreSQL.

use std::process::Command;

use local::Result;
use local::pgbouncer::{PgBouncer, PoolMode};
use local::postgres::{Options, Postgres};
use local::programs::{NEWEST, PROGRAMS};
use local::sqs::Emulator;
use local::tools;

use crate::{Build, cargo, functions, programs, run, step, stub_roles};

/// What differs by how a connection is had, and by the server's version.
const ABOUT_CONNECTIONS: [&str; 2] = ["db::", "connect::"];

/// The whole of it; with `direct_only`, the integration tests run once and directly, and nothing is pooled.
pub(crate) async fn test(direct_only: bool, sequences: Option<u64>, filter: &[String]) -> Result<()> {
    functions(Build::Debug)?;
    programs()?;
    let passes = Passes { sequences, emulator: step("SQS", Emulator::start)? };
    let postgres = step("PostgreSQL", || Postgres::start(Options::default()))?;
    stub_roles(&postgres.url("postgres")).await?;
    run(cargo(&["test", "--workspace", "--lib", "--bins"]))?;
    if direct_only {
        return passes.direct("directly", &postgres, filter);
    }
    passes.pooled(&postgres, PoolMode::Transaction, filter)?;
    let Some(filter) = about_connections(filter) else { return Ok(()) };
    passes.direct("directly: db and connect", &postgres, &filter)?;
    passes.pooled(&postgres, PoolMode::Session, &filter)?;
    match postgres.major() {
        0 => println!(
            "\nPostgreSQL {NEWEST} is left out: PUNCHCARD_TEST_DATABASE_URL names the server to test."
        ),
        NEWEST.. => println!("\nAll of it ran on PostgreSQL {}, the newest here.", postgres.major()),
        _ => {
            drop(postgres);
            let newest = step("PostgreSQL", || Postgres::start_newest(Options::default()))?;
            stub_roles(&newest.url("postgres")).await?;
            let name = format!("on PostgreSQL {}: db and connect", newest.major());
            passes.direct(&name, &newest, &filter)?;
        }
    }
    Ok(())
}

/// What all passes have in common.
struct Passes {
    sequences: Option<u64>,
    emulator: Emulator,
}

impl Passes {
    fn direct(&self, name: &str, postgres: &Postgres, filter: &[String]) -> Result<()> {
        run(self.pass(name, postgres, filter))
    }

    /// With the functions behind a pooler.
    fn pooled(&self, postgres: &Postgres, mode: PoolMode, filter: &[String]) -> Result<()> {
        let pooler = step("PgBouncer", || PgBouncer::start(postgres, mode))?;
        let name = format!("through PgBouncer ({} mode)", mode.word());
        let mut pass = self.pass(&name, postgres, filter);
        pass.env("PUNCHCARD_TEST_POOLER_URL", pooler.url("postgres"));
        pass.env("PUNCHCARD_TEST_POOL_MODE", pooler.mode.word());
        run(pass)
    }

    fn pass(&self, name: &str, postgres: &Postgres, filter: &[String]) -> Command {
        println!("\n== {name} ==");
        let mut pass = cargo(&["test", "--workspace", "--test", "it", "--"]);
        pass.args(filter).env("PUNCHCARD_TEST_DATABASE_URL", postgres.url("postgres"));
        pass.env_remove("PUNCHCARD_TEST_POOLER_URL").env_remove("PUNCHCARD_TEST_POOL_MODE");
        pass.env("PUNCHCARD_BIN_DIR", tools::target_dir().join("debug"));
        pass.env("PUNCHCARD_TEST_SQS_ENDPOINT", self.emulator.endpoint());
        if postgres.major() > 0 {
            pass.env(PROGRAMS, postgres.bin_dir());
        }
        pass.envs(self.sequences.map(|sequences| ("PUNCHCARD_SEQUENCES", sequences.to_string())));
        pass
    }
}

/// Of the tests asked for, those of the modules `db` and `connect`; none if all are others.
fn about_connections(filter: &[String]) -> Option<Vec<String>> {
    let (options, names): (Vec<String>, Vec<String>) =
        filter.iter().cloned().partition(|word| word.starts_with('-'));
    let names = match names.is_empty() {
        true => ABOUT_CONNECTIONS.map(str::to_owned).to_vec(),
        false => {
            let about = |name: &String| ABOUT_CONNECTIONS.iter().any(|module| name.starts_with(module));
            names.into_iter().filter(about).collect()
        }
    };
    (!names.is_empty()).then(|| [options, names].concat())
}
