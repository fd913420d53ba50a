//! The workloads: one file for each family.

mod drain;
mod enqueue;
mod held;
mod idle;
mod kept;
mod latency;
mod pickup;
mod tables;

use clap::builder::PossibleValuesParser;
use local::Result;

use crate::compare::Bench;
use crate::weight;

/// A family of workloads, measured together.
#[derive(Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    family: Family,
}

#[derive(Clone, Copy)]
enum Family {
    Enqueue,
    Batch,
    Drain,
    Steady,
    Backlog,
    History,
    Delayed,
    Held,
    Soak,
    Idle,
    Kept,
    Pickup,
    Weight,
}

const ALL: [Workload; 13] = [
    Workload { name: "enqueue", family: Family::Enqueue },
    Workload { name: "batch", family: Family::Batch },
    Workload { name: "drain", family: Family::Drain },
    Workload { name: "steady", family: Family::Steady },
    Workload { name: "backlog", family: Family::Backlog },
    Workload { name: "history", family: Family::History },
    Workload { name: "delayed", family: Family::Delayed },
    Workload { name: "held", family: Family::Held },
    Workload { name: "soak", family: Family::Soak },
    Workload { name: "idle", family: Family::Idle },
    Workload { name: "kept", family: Family::Kept },
    Workload { name: "pickup", family: Family::Pickup },
    Workload { name: "weight", family: Family::Weight },
];

pub(crate) fn names() -> PossibleValuesParser {
    ALL.map(|workload| workload.name).into()
}

/// Those named, else all; the soak only if it is wished for.
pub(crate) fn chosen(only: &[String], quick: bool, soak: bool) -> Vec<Workload> {
    let wanted = |workload: &&Workload| match workload.family {
        _ if !only.is_empty() => only.iter().any(|name| name == workload.name),
        Family::Soak => soak && !quick,
        Family::Pickup => !quick,
        _ => true,
    };
    ALL.iter().filter(wanted).copied().collect()
}

impl Workload {
    pub(crate) async fn run(self, bench: &Bench) -> Result<()> {
        match self.family {
            Family::Enqueue => enqueue::run(bench).await,
            Family::Batch => enqueue::batch(bench).await,
            Family::Drain => drain::run(bench).await,
            Family::Steady => latency::steady(bench).await,
            Family::Backlog => tables::backlog(bench).await,
            Family::History => tables::history(bench).await,
            Family::Delayed => tables::delayed(bench).await,
            Family::Held => held::run(bench).await,
            Family::Soak => latency::soak(bench).await,
            Family::Idle => idle::run(bench).await,
            Family::Kept => kept::run(bench).await,
            Family::Pickup => pickup::run(bench).await,
            Family::Weight => weight::run(bench).await,
        }
    }
}
