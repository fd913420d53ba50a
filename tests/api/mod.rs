//! The API, through the real binary.

mod auth;
mod create_batch;
mod create_job;
mod credits;
mod jobs;
mod openapi;
