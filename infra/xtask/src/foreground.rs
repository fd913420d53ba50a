//! The command that runs in the foreground, and what ends it: whatever tells us to end (Ctrl-C, a terminal that is closed, a
//! termination), it and all that it started end first, and then the servers around it are stopped.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use local::{INTERRUPT, Result, die_with_parent, process_group_signal, tools};
use tokio::signal::unix::{SignalKind, signal};

/// The leader of its process group; 0 if there is none.
static FOREGROUND: AtomicU32 = AtomicU32::new(0);
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Passes on, from now on, what tells us to end. We live on to stop the servers.
pub(crate) fn pass_interruptions_on() {
    tokio::spawn(async {
        loop {
            interruption().await;
            INTERRUPTED.store(true, Ordering::SeqCst);
            let leader = FOREGROUND.load(Ordering::SeqCst);
            if leader != 0 {
                process_group_signal(leader, INTERRUPT);
            }
        }
    });
}

/// Waits until we are told to end.
pub(crate) async fn interruption() {
    let told = |kind| async move {
        match signal(kind) {
            Ok(mut signals) => drop(signals.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = told(SignalKind::interrupt()) => {}
        () = told(SignalKind::terminate()) => {}
        () = told(SignalKind::hangup()) => {}
    }
}

/// Cargo, with these arguments.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args);
    tools::forget_cargo_run(&mut command);
    command
}

/// Runs in the workspace's root; anything but success is an error.
pub(crate) fn run(mut command: Command) -> Result<()> {
    // A group of its own: Ctrl-C at a terminal reaches it through us. If we are killed, it is told too.
    die_with_parent(&mut command);
    let started = command.current_dir(tools::workspace()).process_group(0).spawn();
    let mut child = started.map_err(|error| format!("cannot start {:?}: {error}", command.get_program()))?;
    FOREGROUND.store(child.id(), Ordering::SeqCst);
    if INTERRUPTED.load(Ordering::SeqCst) {
        process_group_signal(child.id(), INTERRUPT);
    }
    let status = child.wait();
    FOREGROUND.store(0, Ordering::SeqCst);
    let status = status?;
    match status.success() {
        _ if INTERRUPTED.load(Ordering::SeqCst) => Err("interrupted".into()),
        true => Ok(()),
        false => Err(format!("failed ({status}): {command:?}").into()),
    }
}
