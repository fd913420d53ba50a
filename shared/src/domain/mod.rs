//! The rules, free of I/O: no SQL, no clock, no environment, no randomness but what is passed in.

pub mod deadline;
pub mod job;
pub mod json;
pub mod retry;
pub mod scale;
pub mod timestamp;
pub mod transitions;
pub mod verdict;

pub use deadline::Deadline;
pub use job::{ErrorCode, JobError, Lease, Status, Target};
pub use retry::{Backoff, Growth, RetryOverrides};
pub use timestamp::Timestamp;
pub use verdict::{Outcome, Verdict};
