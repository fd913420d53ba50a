//! What this program says, a line at a time. Whoever reads it may have heard enough (`| head -1`) and closed
//! the pipe: then it ends, quietly and at once, as a program does that a signal tells so; a transaction that
//! is open is rolled back.

use std::{
    fmt,
    io::{self, ErrorKind, Write},
    process::exit,
};

/// The exit code of a program that SIGPIPE ended, as a shell has it.
const PIPE_CLOSED: i32 = 128 + 13;

/// Every `println!` of this program, in place of the standard library's, which panics when nobody listens.
macro_rules! println {
    () => { $crate::output::line(format_args!("")) };
    ($($arg:tt)*) => { $crate::output::line(format_args!($($arg)*)) };
}

/// Every `eprintln!`: what cannot be said on standard error is not said.
macro_rules! eprintln {
    ($($arg:tt)*) => { $crate::output::note(format_args!($($arg)*)) };
}

/// Writes a line to standard output.
pub(crate) fn line(line: fmt::Arguments<'_>) {
    written(writeln!(io::stdout().lock(), "{line}"));
}

/// Writes a text to standard output, to its end.
#[allow(dead_code)] // who includes this file may have lines alone
pub(crate) fn text(text: &str) {
    written(io::stdout().lock().write_all(text.as_bytes()));
}

/// Writes a line to standard error.
pub(crate) fn note(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

fn written(result: io::Result<()>) {
    match result {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => exit(PIPE_CLOSED),
        Err(error) => {
            note(format_args!("standard output: {error}"));
            exit(1)
        }
    }
}
