//! The Lambda service for one function binary, on this machine: the Runtime API with real deadlines, one
//! process per concurrent invocation, a kill at the time-out, and a new process after a crash.

mod environment;
mod runtime_api;

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::scripted::lock;
use environment::Environment;
use runtime_api::Answer;

const REGION: &str = "eu-central-1";
/// The largest event that Lambda takes, and the largest response.
const MAX_EVENT_BYTES: usize = 6 * 1024 * 1024;
const MAX_RESPONSE_BYTES: usize = MAX_EVENT_BYTES + 100;

/// Why an invocation gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvokeError {
    /// The function answered an error, or its start did.
    #[error("the function answered an error: {error_type}: {message}")]
    Function {
        /// Lambda's `errorType`.
        error_type: String,
        /// Lambda's `errorMessage`.
        message: String,
    },
    /// The event is larger than Lambda takes; nothing was invoked.
    #[error("the event has {0} bytes, at most {MAX_EVENT_BYTES} are taken")]
    TooLarge(usize),
    /// The time-out passed and the process was killed; also when it never asked for an event.
    #[error("the function timed out and was killed")]
    TimedOut,
    /// The process ended without an answer: a crash, a kill, or the function was dropped.
    #[error("the process exited without an answer")]
    Exited,
    /// No process could be started.
    #[error("the function's process could not be started: {0}")]
    Spawn(String),
}

#[derive(Debug, Clone)]
struct Settings {
    name: String,
    binary: PathBuf,
    env: Vec<(String, String)>,
    timeout: Duration,
    kill_at_timeout: bool,
    memory: Option<u64>,
    log: PathBuf,
}

/// One deployed function: its binary, its settings and its execution environments (processes).
///
/// Dropping it kills every process. On Linux they also die with the *thread* that spawned them, so spawn
/// from threads that live as long as the test: the workers of its runtime do.
#[derive(Debug)]
pub struct Function {
    settings: Arc<Settings>,
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    /// A permit is the right to use one environment; so idle and busy ones together never exceed it.
    permits: Semaphore,
    idle: Mutex<Vec<Environment>>,
    live: Live,
}

/// The processes that were started and are not yet known to have ended.
type Live = Arc<Mutex<HashSet<u32>>>;

impl Pool {
    fn new(max_concurrency: usize) -> Arc<Pool> {
        Arc::new(Pool {
            permits: Semaphore::new(max_concurrency),
            idle: Mutex::default(),
            live: Live::default(),
        })
    }
}

impl Function {
    /// The function in `binary`, with `env` in its environment: time-out 30 s, up to 16 processes.
    /// Nothing is started before the first invocation.
    pub fn new(binary: PathBuf, env: Vec<(String, String)>) -> Function {
        let name = binary.file_stem().map_or_else(|| "function".into(), |name| name.to_string_lossy().into());
        let log = std::env::temp_dir().join(format!("punchcard-{name}-{}.log", fresh_id()));
        let timeout = Duration::from_secs(30);
        let settings = Settings { name, binary, env, timeout, kill_at_timeout: true, memory: None, log };
        Function { settings: Arc::new(settings), pool: Pool::new(16) }
    }

    /// How long one invocation may take; the deadline header says the same.
    pub fn timeout(mut self, timeout: Duration) -> Function {
        Arc::make_mut(&mut self.settings).timeout = timeout;
        self
    }

    /// How many processes there may be at once; further invocations wait.
    pub fn max_concurrency(mut self, processes: usize) -> Function {
        self.pool = Pool::new(processes);
        self
    }

    /// How many MB of memory each process may allocate: whoever asks for more gets none, and ends. Only on Linux.
    pub fn memory(mut self, megabytes: u64) -> Function {
        Arc::make_mut(&mut self.settings).memory = Some(megabytes);
        self
    }

    /// Lets an invocation outlive its time-out: for a process that a test freezes and wakes late.
    /// The deadline header stays as it is.
    pub fn without_timeout_kill(mut self) -> Function {
        Arc::make_mut(&mut self.settings).kill_at_timeout = false;
        self
    }

    /// Invokes the function and waits for its answer. The invocation goes on when this future is dropped.
    ///
    /// # Errors
    /// See [`InvokeError`].
    pub async fn invoke(&self, event: &Value) -> Result<Value, InvokeError> {
        self.start_invoke(event).wait().await
    }

    /// Starts an invocation that a test can kill or freeze midway. Call it within a Tokio runtime.
    pub fn start_invoke(&self, event: &Value) -> Invocation {
        let (state, process) = watch::channel(Process::Waiting);
        let (settings, pool) = (Arc::clone(&self.settings), Arc::clone(&self.pool));
        let event = Bytes::from(event.to_string());
        let task = tokio::spawn(async move {
            let answer = run(&settings, &pool, event, &state).await;
            state.send_replace(Process::Ended);
            answer
        });
        Invocation { process, task }
    }

    /// The processes that are alive, busy and idle ones.
    pub fn pids(&self) -> Vec<u32> {
        lock(&self.pool.live).iter().copied().collect()
    }

    /// What all processes wrote to stdout and stderr so far.
    pub async fn logs(&self) -> String {
        std::fs::read(&self.settings.log).map_or_else(
            |_| String::new(), // nothing was started yet
            |log| String::from_utf8_lossy(&log).into_owned(),
        )
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        self.pool.permits.close();
        for pid in lock(&self.pool.live).iter() {
            signal(*pid, libc::SIGKILL);
        }
        let idle = std::mem::take(&mut *lock(&self.pool.idle));
        drop(idle);
        let _ = std::fs::remove_file(&self.settings.log);
    }
}

/// An invocation under way. Dropping it lets it run on.
#[derive(Debug)]
pub struct Invocation {
    process: watch::Receiver<Process>,
    task: JoinHandle<Result<Value, InvokeError>>,
}

#[derive(Debug, Clone, Copy)]
enum Process {
    Waiting,
    Running(u32),
    Ended,
}

impl Invocation {
    /// The process that serves it, as soon as there is one; `None` when the invocation is over.
    pub async fn pid(&self) -> Option<u32> {
        let mut process = self.process.clone();
        let state = process.wait_for(|state| !matches!(state, Process::Waiting)).await.ok()?;
        match *state {
            Process::Running(pid) => Some(pid),
            Process::Waiting | Process::Ended => None,
        }
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// See [`InvokeError`].
    pub async fn wait(self) -> Result<Value, InvokeError> {
        self.task.await.unwrap_or(Err(InvokeError::Exited))
    }

    /// Kills the process now (SIGKILL). False when none serves the invocation, yet or any more.
    pub fn kill(&self) -> bool {
        self.signal(libc::SIGKILL)
    }

    /// Freezes the process (SIGSTOP). False when none serves the invocation, yet or any more.
    pub fn pause(&self) -> bool {
        self.signal(libc::SIGSTOP)
    }

    /// Wakes a frozen process (SIGCONT). False when none serves the invocation, yet or any more.
    pub fn resume(&self) -> bool {
        self.signal(libc::SIGCONT)
    }

    fn signal(&self, number: i32) -> bool {
        match *self.process.borrow() {
            Process::Running(pid) => signal(pid, number),
            Process::Waiting | Process::Ended => false,
        }
    }
}

async fn run(
    settings: &Arc<Settings>,
    pool: &Pool,
    event: Bytes,
    state: &watch::Sender<Process>,
) -> Result<Value, InvokeError> {
    if event.len() > MAX_EVENT_BYTES {
        return Err(InvokeError::TooLarge(event.len()));
    }
    let _permit = pool.permits.acquire().await.map_err(|_| InvokeError::Exited)?;
    let mut environment = match take_idle(pool) {
        Some(environment) => environment,
        None => Environment::spawn(settings, &pool.live).await?,
    };
    if pool.permits.is_closed() {
        return Err(InvokeError::Exited);
    }
    state.send_replace(Process::Running(environment.pid));
    let answer = environment.serve(settings, event).await;
    // From here on a `kill` would hit another invocation's process.
    state.send_replace(Process::Ended);
    match answer {
        Ok(Answer::Response(body)) => {
            lock(&pool.idle).push(environment);
            serde_json::from_slice(&body).map_err(|error| InvokeError::Function {
                error_type: "Runtime.InvalidResponse".into(),
                message: format!("the response is not JSON: {error}"),
            })
        }
        Ok(Answer::Error(body)) => {
            lock(&pool.idle).push(environment);
            Err(function_error(&body))
        }
        Ok(Answer::InitError(body)) => {
            environment.end().await;
            Err(function_error(&body))
        }
        Err(error) => {
            environment.end().await;
            Err(error)
        }
    }
}

/// The environment used last that is still alive.
fn take_idle(pool: &Pool) -> Option<Environment> {
    let mut idle = lock(&pool.idle);
    while let Some(mut environment) = idle.pop() {
        if environment.is_alive() {
            return Some(environment);
        }
    }
    None
}

fn function_error(body: &[u8]) -> InvokeError {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    InvokeError::Function { error_type: text("errorType"), message: text("errorMessage") }
}

#[allow(unsafe_code)] // kill(2) has no safe form in std; the pid is of a child that is not reaped yet
pub(crate) fn signal(pid: u32, number: i32) -> bool {
    libc::pid_t::try_from(pid).is_ok_and(|pid| unsafe { libc::kill(pid, number) } == 0)
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Unique, which is all that it has to be here: no random source of its own is worth a dependency.
fn fresh_id() -> Uuid {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let half = |salt: u64| RandomState::new().hash_one((count, salt, since_epoch(), std::process::id()));
    let bytes = (u128::from(half(0)) << 64 | u128::from(half(1))).to_be_bytes();
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}
