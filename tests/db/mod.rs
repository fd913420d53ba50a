//! The schema and its statements.

mod credit_source;
mod engine;
mod grants;
mod ledger;
mod migrate;
mod plans;
mod read_committed;
mod statements;
mod transitions;
