//! What the functions need around them, on this machine: PostgreSQL, PgBouncer, SQS, tools, Lambda. Never deployed.

pub mod gateway;
pub mod lambda;
pub mod pgbouncer;
pub mod postgres;
mod process;
pub mod programs;
pub mod pump;
pub mod scripted;
pub mod sqs;
pub mod tools;
pub mod watch;

/// Sends a signal to a process that is not reaped yet; false if there is none.
pub fn process_signal(pid: u32, number: i32) -> bool {
    lambda::signal(pid, number)
}

/// One line: what is wrong and what to do about it.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// The result of everything here that starts or installs something.
pub type Result<T> = std::result::Result<T, Error>;
