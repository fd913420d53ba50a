//! The poller and the SQS worker, through the real binaries.

mod failover;
mod http_target;
mod lapsed;
mod lease;
mod sqs;
mod switch;
mod target_reason;
mod tick;
