//! The schema and its statements.

mod grants;
mod ledger;
mod plans;
mod statements;
