//! The Lambda service for one function binary, on this machine: the Runtime API with real deadlines, one
//! process per concurrent invocation, a kill at the time-out, and a new process after a crash.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::scripted::{Request, Response, Server, lock};

const API: &str = "/2018-06-01/runtime";
/// How long a process may take until it asks for its first event, as in Lambda.
const INIT_LIMIT: Duration = Duration::from_secs(10);
const REGION: &str = "eu-central-1";

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
        let settings = Settings { name, binary, env, timeout, kill_at_timeout: true, log };
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
        if matches!(environment.child.try_wait(), Ok(None)) {
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

/// One process and the Runtime API that it alone talks to.
#[derive(Debug)]
struct Environment {
    child: Child,
    pid: u32,
    events: mpsc::UnboundedSender<Event>,
    live: Live,
    _api: Server,
}

impl Environment {
    async fn spawn(settings: &Arc<Settings>, live: &Live) -> Result<Environment, InvokeError> {
        let failed = |error: std::io::Error| InvokeError::Spawn(error.to_string());
        let (events, queue) = mpsc::unbounded_channel();
        let api = Arc::new(RuntimeApi {
            settings: Arc::clone(settings),
            queue: tokio::sync::Mutex::new(queue),
            current: Mutex::default(),
        });
        let server = Server::start(move |request| Arc::clone(&api).answer(request)).await.map_err(failed)?;
        let log = open_log(settings).map_err(failed)?;
        let child =
            command(settings, &server, log).and_then(|mut command| command.spawn()).map_err(failed)?;
        let pid = child.id().ok_or(InvokeError::Exited)?;
        lock(live).insert(pid);
        Ok(Environment { child, pid, events, live: Arc::clone(live), _api: server })
    }

    async fn serve(&mut self, settings: &Settings, body: Bytes) -> Result<Answer, InvokeError> {
        let (reply, mut answer) = oneshot::channel();
        let (started, start) = oneshot::channel();
        let event = Event { id: fresh_id().to_string(), body, started, reply };
        self.events.send(event).map_err(|_| InvokeError::Exited)?;
        tokio::select! {
            biased;
            Ok(answer) = &mut answer => Ok(answer),
            // It may have answered and then exited at once.
            _ = self.child.wait() => answer.try_recv().map_err(|_| InvokeError::Exited),
            () = time_out(settings, start) => Err(InvokeError::TimedOut),
        }
    }

    /// Kills the process and waits until it is gone.
    async fn end(mut self) {
        let _ = self.child.kill().await;
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        lock(&self.live).remove(&self.pid); // `kill_on_drop` does the rest
    }
}

/// Ends when the invocation has used up its time, which runs from the moment the process takes the event.
async fn time_out(settings: &Settings, start: oneshot::Receiver<()>) {
    if !settings.kill_at_timeout {
        std::future::pending::<()>().await;
    }
    match tokio::time::timeout(INIT_LIMIT, start).await {
        Ok(Ok(())) => tokio::time::sleep(settings.timeout).await,
        Ok(Err(_)) => std::future::pending().await, // refused in its init: the answer is there
        Err(_) => {}
    }
}

fn open_log(settings: &Settings) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(&settings.log)
}

fn command(settings: &Settings, server: &Server, log: File) -> std::io::Result<Command> {
    let inherited = ["PATH", "HOME", "LLVM_PROFILE_FILE"];
    let inherited = inherited.iter().filter_map(|key| Some((key, std::env::var_os(key)?)));
    let mut command = Command::new(&settings.binary);
    command
        .env_clear()
        .envs(inherited.map(|(key, value)| (OsString::from(key), value)))
        .env("AWS_LAMBDA_RUNTIME_API", server.address.to_string())
        .env("AWS_LAMBDA_FUNCTION_NAME", &settings.name)
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
        .env("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{}", settings.name))
        .env("AWS_LAMBDA_LOG_STREAM_NAME", format!("[$LATEST]{}", fresh_id().simple()))
        .env("AWS_REGION", REGION)
        .envs(settings.env.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true);
    die_with_parent(&mut command);
    Ok(command)
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)] // prctl is async-signal-safe and touches only the child: no orphan outlives a killed test
fn die_with_parent(command: &mut Command) {
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_command: &mut Command) {}

#[allow(unsafe_code)] // kill(2) has no safe form in std; the pid is of a child that is not reaped yet
fn signal(pid: u32, number: i32) -> bool {
    libc::pid_t::try_from(pid).is_ok_and(|pid| unsafe { libc::kill(pid, number) } == 0)
}

/// One event on its way to the process.
#[derive(Debug)]
struct Event {
    id: String,
    body: Bytes,
    started: oneshot::Sender<()>,
    reply: oneshot::Sender<Answer>,
}

#[derive(Debug)]
enum Answer {
    Response(Bytes),
    Error(Bytes),
    InitError(Bytes),
}

#[derive(Debug)]
struct RuntimeApi {
    settings: Arc<Settings>,
    queue: tokio::sync::Mutex<mpsc::UnboundedReceiver<Event>>,
    current: Mutex<Option<(String, oneshot::Sender<Answer>)>>,
}

impl RuntimeApi {
    async fn answer(self: Arc<Self>, request: Request) -> Response {
        let path = request.path.strip_prefix(API).unwrap_or(&request.path);
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (request.method, parts.as_slice()) {
            (Method::GET, ["invocation", "next"]) => self.next().await,
            (Method::POST, ["invocation", id, "response"]) => self.settle(id, Answer::Response(request.body)),
            (Method::POST, ["invocation", id, "error"]) => self.settle(id, Answer::Error(request.body)),
            (Method::POST, ["init", "error"] | ["runtime", "init", "error"]) => {
                self.refuse(request.body).await
            }
            _ => Response::json(404, json!({ "errorType": "NotFound", "errorMessage": "no such path" })),
        }
    }

    /// Waits for the next event, as long as it takes.
    async fn next(&self) -> Response {
        let Some(event) = self.queue.lock().await.recv().await else {
            return Response::hang_up();
        };
        let deadline = since_epoch() + self.settings.timeout;
        let function = &self.settings.name;
        let response = Response::bytes(200, event.body)
            .header("content-type", "application/json")
            .header("lambda-runtime-aws-request-id", &event.id)
            .header("lambda-runtime-deadline-ms", &deadline.as_millis().to_string())
            .header(
                "lambda-runtime-invoked-function-arn",
                &format!("arn:aws:lambda:{REGION}:000000000000:function:{function}"),
            )
            .header("lambda-runtime-trace-id", &trace_id());
        *lock(&self.current) = Some((event.id, event.reply));
        let _ = event.started.send(());
        response
    }

    fn settle(&self, id: &str, answer: Answer) -> Response {
        match lock(&self.current).take_if(|(current, _)| current == id) {
            Some((_, reply)) => {
                let _ = reply.send(answer);
                Response::json(202, json!({ "status": "OK" }))
            }
            None => Response::json(
                400,
                json!({ "errorType": "InvalidRequestID", "errorMessage": "no such invocation" }),
            ),
        }
    }

    /// The process says that it cannot start: its first event fails with that.
    async fn refuse(&self, body: Bytes) -> Response {
        if let Some(event) = self.queue.lock().await.recv().await {
            let _ = event.reply.send(Answer::InitError(body));
        }
        Response::json(202, json!({ "status": "OK" }))
    }
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn trace_id() -> String {
    let id = fresh_id().simple().to_string();
    format!("Root=1-{:08x}-{};Parent={};Sampled=0", since_epoch().as_secs(), &id[..24], &id[16..])
}

/// Unique, which is all that it has to be here: no random source of its own is worth a dependency.
fn fresh_id() -> Uuid {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let half = |salt: u64| RandomState::new().hash_one((count, salt, since_epoch(), std::process::id()));
    let bytes = (u128::from(half(0)) << 64 | u128::from(half(1))).to_be_bytes();
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}
