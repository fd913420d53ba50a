//! A PostgreSQL of our own.

use std::path::Path;
use std::process::Command;

use crate::Result;
use crate::process::{self, Folder, Server, User, command};
use crate::programs::Programs;

/// How to run the server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// Keep fsync on: survives a power cut, and is slower.
    pub durable: bool,
    /// Further settings, such as `shared_buffers=512MB`.
    pub settings: &'static [&'static str],
    /// TLS, by a certificate and its key, both as PEM.
    pub tls: Option<(&'a str, &'a str)>,
}

/// A running server: ours, stopped and removed on drop, or an external one, used as is.
pub struct Postgres {
    server: Option<(Server, Folder)>,
    base: String,
    host: String,
    port: u16,
    password: String,
    programs: Programs,
    user: Option<User>,
}

impl Postgres {
    /// The server of `PUNCHCARD_TEST_DATABASE_URL` if set (never `DATABASE_URL`), else one of our own.
    pub fn start(options: Options<'_>) -> Result<Self> {
        match std::env::var("PUNCHCARD_TEST_DATABASE_URL") {
            Ok(url) => Self::external(&url),
            Err(_) => Self::start_embedded(options),
        }
    }

    /// A server of our own, of the version [`NEWEST`](crate::programs::NEWEST).
    ///
    /// # Errors
    /// When it cannot be installed or started.
    pub fn start_newest(options: Options<'_>) -> Result<Self> {
        let user = process::server_user()?;
        Self::embedded(Programs::of_wheel(user)?, user, options)
    }

    fn external(url: &str) -> Result<Self> {
        let config: tokio_postgres::Config = url
            .parse()
            .map_err(|error| format!("PUNCHCARD_TEST_DATABASE_URL is not a URL of PostgreSQL: {error}"))?;
        let host = match config.get_hosts().first() {
            Some(tokio_postgres::config::Host::Tcp(host)) => host.clone(),
            _ => return Err("PUNCHCARD_TEST_DATABASE_URL must name a TCP host".into()),
        };
        let scheme = url.find("://").ok_or("PUNCHCARD_TEST_DATABASE_URL must be a postgres:// URL")? + 3;
        let end = url[scheme..].find(['/', '?']).map_or(url.len(), |at| scheme + at);
        Ok(Self {
            server: None,
            base: url[..end].to_owned(),
            host,
            port: config.get_ports().first().copied().unwrap_or(5432),
            password: config
                .get_password()
                .map(|it| String::from_utf8_lossy(it).into_owned())
                .unwrap_or_default(),
            programs: Programs::of_system(),
            user: process::server_user()?,
        })
    }

    fn embedded(programs: Programs, user: Option<User>, options: Options<'_>) -> Result<Self> {
        let bin_dir = &programs.bin_dir;
        let (port, password) = (process::free_port()?, process::random_hex(16)?);
        let folder = process::folder("pc-pg-", user)?;
        initdb(bin_dir, &folder.0, &password, user)?;
        if let Some((certificate, key)) = options.tls {
            process::write_private(&folder.0.join("data/server.crt"), certificate, user)?;
            process::write_private(&folder.0.join("data/server.key"), key, user)?;
        }
        let serve = serve(bin_dir, &folder.0, port, options, user);
        let mut server = Server::spawn(serve, folder.0.join("log"))?;
        server.wait_for_port(port)?;
        // It listens before it serves: only then is its status file marked ready.
        server.wait_for(|| is_ready(&folder.0))?;
        let base = format!("postgres://postgres:{password}@127.0.0.1:{port}");
        let host = "127.0.0.1".to_owned();
        Ok(Self { server: Some((server, folder)), base, host, port, password, programs, user })
    }

    /// The superuser's URL of a database.
    pub fn url(&self, database: &str) -> String {
        format!("{}/{database}", self.base)
    }

    /// The process that all others of the server are children of; none of a server that is not ours.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(|(server, _)| server.pid())
    }

    /// A server of our own, whatever `PUNCHCARD_TEST_DATABASE_URL` says.
    ///
    /// # Errors
    /// When none can be found, installed or started.
    pub fn start_embedded(options: Options<'_>) -> Result<Self> {
        let user = process::server_user()?;
        Self::embedded(Programs::usual(options.tls.is_some(), user)?, user, options)
    }

    /// Where it listens.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The superuser's password.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The folder of `postgres`, `initdb` and, with most packages, `psql`.
    pub fn bin_dir(&self) -> &Path {
        &self.programs.bin_dir
    }

    /// Its major version; 0 of a server that is not ours.
    pub fn major(&self) -> u32 {
        self.server.as_ref().map_or(0, |_| self.programs.major())
    }

    pub(crate) fn server_user(&self) -> Option<User> {
        self.user
    }
}

fn is_ready(folder: &Path) -> bool {
    let status = std::fs::read_to_string(folder.join("data/postmaster.pid")).unwrap_or_default();
    status.lines().any(|line| line.trim() == "ready")
}

fn initdb(bin_dir: &Path, folder: &Path, password: &str, user: Option<User>) -> Result<()> {
    let pwfile = folder.join("pw");
    process::write_private(&pwfile, password, user)?;
    let mut initdb = command(&bin_dir.join("initdb"), user);
    initdb.current_dir(folder).args([
        "-U",
        "postgres",
        "-A",
        "scram-sha-256",
        "-E",
        "UTF8",
        "--locale=C",
        "--no-sync",
    ]);
    initdb.arg("--pwfile").arg(&pwfile).arg("-D").arg(folder.join("data"));
    let output = initdb.output().map_err(|error| format!("cannot start initdb: {error}"))?;
    std::fs::remove_file(&pwfile)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("initdb failed: {}", String::from_utf8_lossy(&output.stderr).trim()).into()),
    }
}

fn serve(bin_dir: &Path, folder: &Path, port: u16, options: Options<'_>, user: Option<User>) -> Command {
    let mut postgres = command(&bin_dir.join("postgres"), user);
    postgres.current_dir(folder).arg("-D").arg(folder.join("data")).arg("-k").arg(folder);
    postgres.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-c", "max_connections=300"]);
    if !options.durable {
        postgres.args(["-c", "fsync=off", "-c", "full_page_writes=off"]);
    }
    if options.tls.is_some() {
        postgres.args(["-c", "ssl=on"]);
    }
    for setting in options.settings {
        postgres.args(["-c", setting]);
    }
    postgres
}
