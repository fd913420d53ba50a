//! The API, through the real binary.

mod auth;
mod create_job;
mod credits;
mod jobs;
