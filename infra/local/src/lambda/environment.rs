//! An execution environment: one process, started for an invocation and kept for the next.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};

use super::runtime_api::{Answer, Event, RuntimeApi};
use super::{InvokeError, Live, REGION, Settings, fresh_id};
use crate::scripted::{Server, lock};

/// How long a process may take until it asks for its first event: more than Lambda's ten seconds, since what runs here is a
/// debug build on a machine that may be busy.
const INIT_LIMIT: Duration = Duration::from_secs(60);

/// One process and the Runtime API that it alone talks to.
#[derive(Debug)]
pub(super) struct Environment {
    child: Child,
    pub(super) pid: u32,
    events: mpsc::UnboundedSender<Event>,
    live: Live,
    _api: Server,
}

impl Environment {
    pub(super) async fn spawn(settings: &Arc<Settings>, live: &Live) -> Result<Environment, InvokeError> {
        let failed = |error: std::io::Error| InvokeError::Spawn(error.to_string());
        let (events, queue) = mpsc::unbounded_channel();
        let api = Arc::new(RuntimeApi::new(settings, queue));
        let server = Server::start(move |request| Arc::clone(&api).answer(request)).await.map_err(failed)?;
        let log = open_log(settings).map_err(failed)?;
        let child =
            command(settings, &server, log).and_then(|mut command| command.spawn()).map_err(failed)?;
        let pid = child.id().ok_or(InvokeError::Exited)?;
        lock(live).insert(pid);
        Ok(Environment { child, pid, events, live: Arc::clone(live), _api: server })
    }

    pub(super) async fn serve(&mut self, settings: &Settings, body: Bytes) -> Result<Answer, InvokeError> {
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

    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills the process and waits until it is gone.
    pub(super) async fn end(mut self) {
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
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", settings.memory.unwrap_or(128).to_string())
        .env("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{}", settings.name))
        .env("AWS_LAMBDA_LOG_STREAM_NAME", format!("[$LATEST]{}", fresh_id().simple()))
        .env("AWS_REGION", REGION)
        .envs(settings.env.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true);
    die_with_parent(&mut command);
    if let Some(megabytes) = settings.memory {
        bound_memory(&mut command, megabytes << 20);
    }
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

#[cfg(target_os = "linux")]
#[allow(unsafe_code)] // setrlimit is async-signal-safe and touches only the child
fn bound_memory(command: &mut Command, bytes: u64) {
    unsafe {
        command.pre_exec(move || {
            let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
            match libc::setrlimit(libc::RLIMIT_DATA, &raw const limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
}

#[cfg(not(target_os = "linux"))]
fn bound_memory(_command: &mut Command, _bytes: u64) {}
