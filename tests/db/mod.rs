//! The schema and its statements.

mod engine;
mod grants;
mod ledger;
mod plans;
mod statements;
