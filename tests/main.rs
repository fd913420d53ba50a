//! Everything that needs PostgreSQL. Run by `cargo xtask test`, through PgBouncer in transaction mode; `db` and `connect` also
//! directly, in session mode and on the newest PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod api;
mod architecture;
mod cli;
mod connect;
mod db;
mod environments;
mod events;
mod import;
mod life;
mod providers;
mod secrets;
mod sql_texts;
mod support;
mod worker;
