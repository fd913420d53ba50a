//! What a tick keeps up before it drains, each task with its interval and its budget. Every one is idempotent and taken in small
//! steps, each a statement: any number of ticks may be at them at once, one that dies half-way leaves the rest of it to the
//! next, and after an hour without a tick they are simply due.
//!
//! Three more have no interval, since the first statement of a tick does them, or finds them due: lapsed jobs are taken back and
//! deferred entries entered (`tick`), and messages are sent (`deliver`).

use std::time::Duration;

use shared::domain::Deadline;

use crate::Worker;

/// One of them.
struct Task {
    /// As the row of `punchcard.upkeep` has it.
    name: &'static str,
    /// How long after it was done it is due again.
    every: Duration,
    /// How long it may keep the drain of one tick waiting.
    budget: Duration,
}

const TASKS: &[Task] = &[
    // The months to come of the tables that are kept by month.
    Task { name: "periods", every: Duration::from_secs(3_600), budget: Duration::from_secs(3) },
    // The months that are past their retention: into the archive, and gone.
    Task { name: "retention", every: Duration::from_secs(3_600), budget: Duration::from_secs(5) },
    // Idempotency keys that are past theirs.
    Task { name: "keys", every: Duration::from_secs(86_400), budget: Duration::from_secs(2) },
    // Accounts that are to be forgotten: due at once when one is, and then until no job of it is unfinished.
    Task { name: "erasures", every: Duration::from_secs(300), budget: Duration::from_secs(10) },
    // What is left of grants whose time is over.
    Task { name: "expiries", every: Duration::from_secs(600), budget: Duration::from_secs(2) },
    // Whether money is as it should be, a part of the accounts after the other.
    Task { name: "audit", every: Duration::from_secs(21_600), budget: Duration::from_secs(2) },
];

/// Does what is due of them, by name; what this build does not know is for another.
pub(crate) async fn keep_up(worker: &Worker, due: &[String], deadline: Deadline) {
    for task in TASKS.iter().filter(|task| due.iter().any(|due| due == task.name)) {
        let until = deadline.within(task.budget);
        loop {
            match worker.db.keep_up(task.name, task.every, until).await {
                Ok(true) if !until.left().is_zero() => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(task = task.name, error = %error, "upkeep is left to the next tick");
                    break;
                }
            }
        }
    }
}
