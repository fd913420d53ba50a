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

/// Sends a signal to the process group that a process leads which is not reaped yet; false if there is none.
pub fn process_group_signal(leader: u32, number: i32) -> bool {
    process::signal_group(leader, number)
}

/// SIGINT to the command's process when the thread dies that starts it, however that dies, so that nothing is left running.
pub fn die_with_parent(command: &mut std::process::Command) {
    process::die_with_parent(command);
}

/// Asks a process to end.
pub const INTERRUPT: i32 = libc::SIGINT;

/// One line: what is wrong and what to do about it.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// The result of everything here that starts or installs something.
pub type Result<T> = std::result::Result<T, Error>;
