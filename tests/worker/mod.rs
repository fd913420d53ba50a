//! The poller, through the real binary.

mod http_target;
mod lease;
mod tick;
