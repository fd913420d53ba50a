//! PgBouncer before a server: in transaction mode, the strict case every statement must survive, or in session mode.

use std::path::{Path, PathBuf};

use crate::postgres::Postgres;
use crate::process::{self, Folder, Server, command};
use crate::{Result, tools};

/// How long a client keeps a connection of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolMode {
    /// For a transaction.
    Transaction,
    /// As long as it is there.
    Session,
}

impl PoolMode {
    /// As PgBouncer calls it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Transaction => "transaction",
            Self::Session => "session",
        }
    }
}

/// A running pooler, stopped on drop.
pub struct PgBouncer {
    /// How it serves.
    pub mode: PoolMode,
    _server: Server,
    _folder: Folder,
    port: u16,
    password: String,
}

impl PgBouncer {
    /// Starts it before the server; installs it where it is missing.
    pub fn start(postgres: &Postgres, mode: PoolMode) -> Result<Self> {
        let Program { file, libraries } = installed().map_or_else(install, Ok)?;
        let user = postgres.server_user();
        let port = process::free_port()?;
        let folder = process::folder("pc-pb-", user)?;
        // In session mode each client takes one of the pool, and keeps it.
        let pool = match mode {
            PoolMode::Transaction => 20,
            PoolMode::Session => 120,
        };
        let (host, upstream) = (postgres.host(), postgres.port());
        let (users, ini) = (folder.0.join("users.txt"), folder.0.join("pgbouncer.ini"));
        // The superuser's password, by which the pooler looks up the verifiers of all other roles.
        let password = postgres.password().replace('"', "\"\"");
        process::write_private(&users, &format!("\"postgres\" \"{password}\"\n"), user)?;
        let settings = format!(
            "[databases]\n* = host={host} port={upstream}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\npool_mode = {}\nauth_type = scram-sha-256\nauth_file = {}\n\
             auth_user = postgres\nadmin_users = postgres\n\
             auth_query = SELECT rolname, rolpassword FROM pg_catalog.pg_authid WHERE rolname = $1\n\
             default_pool_size = {pool}\nmax_client_conn = 1000\nmax_db_connections = 0\nserver_idle_timeout = 2\n",
            mode.word(),
            users.display()
        );
        process::write_private(&ini, &settings, user)?;
        let mut pgbouncer = command(&file, user);
        pgbouncer.current_dir(&folder.0).arg(&ini);
        if let Some(libraries) = libraries {
            pgbouncer.env("LD_LIBRARY_PATH", libraries);
        }
        let mut server = Server::spawn(pgbouncer, folder.0.join("log"))?;
        server.wait_for_port(port)?;
        Ok(Self { mode, _server: server, _folder: folder, port, password: postgres.password().to_owned() })
    }

    /// The superuser's URL of a database, through the pooler.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }
}

/// The pooler's program, and the folder of the libraries that came with it if it is unpacked, not installed.
struct Program {
    file: PathBuf,
    libraries: Option<PathBuf>,
}

fn installed() -> Option<Program> {
    let system = tools::on_path("pgbouncer").into_iter().chain([PathBuf::from("/usr/sbin/pgbouncer")]);
    let system = system.map(|file| Program { file, libraries: None });
    let unpacked = tools::folder("pgbouncer");
    let libraries = Path::new("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    let own =
        Program { file: unpacked.join("usr/sbin/pgbouncer"), libraries: Some(unpacked.join(libraries)) };
    system.chain([own]).find(|program| program.file.is_file())
}

fn install() -> Result<Program> {
    if tools::apt_as_root() {
        tools::apt_install("pgbouncer")?;
    } else if tools::on_path("apt-get").is_some() {
        tools::apt_unpack("pgbouncer", "pgbouncer")?;
    }
    installed().ok_or_else(|| {
        "PgBouncer is missing: install it (apt-get install pgbouncer), or run with --direct-only".into()
    })
}
