//! What the functions of Punchcard must agree on. `domain` decides and knows no I/O; `db` records and holds all
//! SQL of the project; `doctor` examines a connection; `config` alone reads the environment; `wake` alone speaks to SQS.

pub mod config;
pub mod db;
pub mod doctor;
pub mod domain;
pub mod http_client;
pub mod secrets;
pub mod signing;
pub mod telemetry;
pub mod wake;
