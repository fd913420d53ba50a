//! The schema and its statements.

mod audit;
mod baseline;
mod credit_source;
mod engine;
mod erasure;
mod expiries;
mod grants;
mod ledger;
mod memory;
mod migrate;
mod money;
mod next_build;
mod outbox_plans;
mod periods;
mod plans;
mod read_committed;
mod retention;
mod schema;
mod shadowing;
mod snapshots;
mod statements;
mod transitions;
mod walks;
mod years;
