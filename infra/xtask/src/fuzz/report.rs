//! What was answered: a table of operations and statuses, and what is wrong with it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use local::gateway::Call;
use serde_json::Value;

/// How often each operation answered each status.
pub(super) struct Report {
    operations: Vec<Operation>,
    failures: Vec<String>,
}

struct Operation {
    method: String,
    path: String,
    documented: Vec<u16>,
    answered: BTreeMap<u16, u64>,
}

impl Report {
    /// Of the operations of a document.
    pub(super) fn of(document: &Value) -> Self {
        let mut operations = Vec::new();
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in item.as_object().into_iter().flatten() {
                let responses = operation["responses"].as_object().into_iter().flatten();
                operations.push(Operation {
                    method: method.to_uppercase(),
                    path: path.clone(),
                    documented: responses.filter_map(|(status, _)| status.parse().ok()).collect(),
                    answered: BTreeMap::new(),
                });
            }
        }
        Self { operations, failures: Vec::new() }
    }

    /// Counts a call; those that no operation answers (405, 404) are only looked at for being a 5xx.
    pub(super) fn add(&mut self, call: &Call) {
        if call.status >= 500 {
            let why = call.failure.as_deref().unwrap_or_default();
            self.failures.push(format!("{} {}: {} {why}", call.method, call.path, call.status));
        }
        // A path without `{…}` goes before one with it.
        let fitting =
            self.operations.iter_mut().filter(|it| it.method == call.method && fits(&it.path, &call.path));
        if let Some(operation) = fitting.min_by_key(|it| it.path.matches('{').count()) {
            *operation.answered.entry(call.status).or_default() += 1;
        }
    }

    /// How many calls there were.
    pub(super) fn calls(&self) -> u64 {
        self.operations.iter().flat_map(|operation| operation.answered.values()).sum()
    }

    /// Prints the table; answers what is wrong.
    pub(super) fn show(&self) -> Vec<String> {
        println!("\n{:<36} {:>7}  statuses", "operation", "calls");
        let mut faults = self.failures.clone();
        for operation in &self.operations {
            let name = format!("{} {}", operation.method, operation.path);
            let statuses: Vec<String> =
                operation.answered.iter().map(|(status, calls)| format!("{status}: {calls}")).collect();
            println!("{name:<36} {:>7}  {}", operation.answered.values().sum::<u64>(), statuses.join(", "));
            let undocumented =
                operation.answered.keys().filter(|status| !operation.documented.contains(status));
            faults.extend(undocumented.map(|status| format!("{name}: {status} is not documented")));
            if !operation.answered.keys().any(|status| (200..300).contains(status)) {
                faults.push(format!("{name}: never answered 2xx"));
            }
        }
        faults
    }
}

fn fits(template: &str, path: &str) -> bool {
    let (template, path) = (template.split('/'), path.trim_end_matches('/').split('/'));
    template.clone().count() == path.clone().count()
        && template.zip(path).all(|(name, segment)| name.starts_with('{') || name == segment)
}

/// A panic elsewhere does not hide what was counted.
pub(super) fn lock(report: &Mutex<Report>) -> MutexGuard<'_, Report> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}
