//! The schema and its statements.

mod engine;
mod grants;
mod ledger;
mod migrate;
mod plans;
mod statements;
