//! The API, through the real binary.

mod answers;
mod auth;
mod create_batch;
mod create_job;
mod credits;
mod gateway_events;
mod jobs;
mod key_set;
mod memory;
mod openapi;
mod priority;
mod refused_tokens;
mod replays;
mod validate;
mod written_and_shown;
