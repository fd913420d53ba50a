//! The schema and its statements.

mod credit_source;
mod engine;
mod grants;
mod ledger;
mod plans;
mod statements;
