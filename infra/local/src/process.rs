//! Child processes that never outlive us, and the user that servers run as.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Result;

/// Uid and gid that a server runs as, when we are root and it refuses root.
#[derive(Clone, Copy)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// `postgres`, else `nobody`; none when we are not root.
pub(crate) fn server_user() -> Result<Option<User>> {
    if !is_root() {
        return Ok(None);
    }
    let passwd = std::fs::read_to_string("/etc/passwd")?;
    let find = |name: &str| {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut ids = line.split(':').skip(2).map(|id| id.parse().ok());
        Some(User { uid: ids.next()??, gid: ids.next()?? })
    };
    let user = find("postgres").or_else(|| find("nobody"));
    Ok(Some(user.ok_or("no user postgres or nobody to run the server as: create one")?))
}

#[allow(unsafe_code)] // geteuid has no safe wrapper in std; it cannot fail.
pub(crate) fn is_root() -> bool {
    unsafe { libc::geteuid() == 0 }
}

/// The command, run as `user` if there is one.
pub(crate) fn command(program: &Path, user: Option<User>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    command
}

/// A fresh private folder with a short path, owned by the server's user.
pub(crate) fn folder(prefix: &str, user: Option<User>) -> Result<Folder> {
    use std::os::unix::fs::DirBuilderExt;
    let path = std::env::temp_dir().join(format!("{prefix}{}", random_hex(4)?));
    std::fs::DirBuilder::new().mode(0o700).create(&path)?;
    let folder = Folder(path);
    own(&folder.0, user)?;
    Ok(folder)
}

/// Writes a private file that the server's user can read.
pub(crate) fn write_private(path: &Path, text: &str, user: Option<User>) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())?;
    own(path, user)
}

fn own(path: &Path, user: Option<User>) -> Result<()> {
    if let Some(user) = user {
        std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid))?;
    }
    Ok(())
}

/// Gives a folder, and all that is in it, to the server's user.
pub(crate) fn own_all(path: &Path, user: Option<User>) -> Result<()> {
    own(path, user)?;
    if path.symlink_metadata()?.is_dir() {
        for entry in std::fs::read_dir(path)? {
            own_all(&entry?.path(), user)?;
        }
    }
    Ok(())
}

pub(crate) fn random_hex(bytes: usize) -> Result<String> {
    let mut buffer = vec![0; bytes];
    getrandom::fill(&mut buffer).map_err(|error| format!("no randomness: {error}"))?;
    Ok(buffer.iter().map(|byte| format!("{byte:02x}")).collect())
}

pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// A folder that is removed on drop.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server in a process group of its own: on drop it is stopped, with all that it started.
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts the command with its output in `log`.
    pub(crate) fn spawn(mut command: Command, log: PathBuf) -> Result<Self> {
        let output = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        die_with_parent(&mut command);
        command.process_group(0); // Ctrl-C at the terminal reaches us alone, and we stop it.
        let child =
            command.spawn().map_err(|error| format!("cannot start {:?}: {error}", command.get_program()))?;
        Ok(Self { child, log })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it listens.
    pub(crate) fn wait_for_port(&mut self, port: u16) -> Result<()> {
        self.wait_for(|| TcpStream::connect(("127.0.0.1", port)).is_ok())
    }

    /// Waits until it is so; an early end or 60 s without is an error with the log's last line.
    pub(crate) fn wait_for(&mut self, so: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !so() {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("the server ended ({status}): {}", self.last_line()).into());
            }
            if Instant::now() > deadline {
                return Err(format!("the server did not start in 60 s: {}", self.last_line()).into());
            }
            sleep(Duration::from_millis(30));
        }
        Ok(())
    }

    fn last_line(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().last().unwrap_or("its log is empty").to_owned()
    }

    fn signal(&self, signal: libc::c_int) {
        signal_group(self.child.id(), signal);
    }
}

#[allow(unsafe_code)] // kill(2) has no safe wrapper in std; the group is that of our own unreaped child.
pub(crate) fn signal_group(leader: u32, signal: libc::c_int) -> bool {
    libc::pid_t::try_from(leader)
        .is_ok_and(|leader| leader > 0 && unsafe { libc::kill(-leader, signal) } == 0)
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal(libc::SIGINT);
        let deadline = Instant::now() + Duration::from_secs(10);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            sleep(Duration::from_millis(10));
        }
        self.signal(libc::SIGKILL);
        let _ = self.child.wait();
    }
}

/// SIGINT to the child when we die, however we die, so that nothing is left running.
#[allow(unsafe_code)] // pre_exec is unsafe by nature; prctl is async-signal-safe and touches no memory.
pub(crate) fn die_with_parent(command: &mut Command) {
    #[cfg(target_os = "linux")]
    unsafe {
        command.pre_exec(|| {
            // A shell's background jobs ignore it, and what they start would.
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGINT);
            Ok(())
        });
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}
