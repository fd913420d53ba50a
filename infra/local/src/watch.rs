//! `cargo lambda watch`, and the functions that it starts when they are first called.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{self, Server};
use crate::{Result, tools};

/// Requests to a function at once, each served by a process of its own, as Lambda does. The emulator's
/// default is one: a caller that waits for a job would keep all others waiting.
const CONCURRENCY: &str = "8";

/// What a developer's shell may carry and the functions would obey.
const FOREIGN: [&str; 10] = [
    "DATABASE_URL",
    "JWKS_URL",
    "JWT_AUDIENCE",
    "ACCOUNT_CLAIM",
    "SECRET_ARN",
    "SECRETS_ENDPOINT",
    "CONCURRENCY",
    "LINGER_MS",
    "WAKE_QUEUE_URL",
    "MOST_HELPERS",
];

/// A running `cargo lambda watch`; on drop it is stopped, with its functions.
pub struct Watch {
    _server: Server,
    port: u16,
    log: PathBuf,
}

impl Watch {
    /// Starts it on a free port with `env` for the functions, built with `features`, and waits until it listens. They are told
    /// that this is where the API is. It is probed by connecting alone: an HTTP probe that is given up counts against the
    /// emulator.
    ///
    /// # Errors
    /// When cargo-lambda can neither be found nor installed, or does not start.
    pub fn start(
        cargo_lambda: &Path,
        features: Option<&str>,
        env: &[(String, String)],
        log: &Path,
    ) -> Result<Self> {
        let port = process::free_port()?;
        let mut command = Command::new(cargo_lambda);
        command.args(["lambda", "watch", "-A", "127.0.0.1", "-P", &port.to_string(), "--ignore-changes"]);
        command.args(["--concurrency", CONCURRENCY]);
        command.args(features.map(|features| format!("--features={features}")));
        command.current_dir(tools::workspace());
        for name in FOREIGN {
            command.env_remove(name);
        }
        tools::forget_cargo_run(&mut command);
        command.env("PUBLIC_URL", format!("http://127.0.0.1:{port}"));
        command.envs(env.iter().map(|(name, value)| (name, value)));
        let mut server = Server::spawn(command, log.to_owned())?;
        server.wait_for_port(port)?;
        Ok(Self { _server: server, port, log: log.to_owned() })
    }

    /// Where `/api/…` is served.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where a function is invoked with an event of any trigger.
    pub fn invoke_url(&self, function: &str) -> String {
        format!("http://127.0.0.1:{}/2015-03-31/functions/{function}/invocations", self.port)
    }

    /// Where it and the functions log.
    pub fn log(&self) -> &Path {
        &self.log
    }
}
