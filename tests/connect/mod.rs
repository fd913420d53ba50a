//! Getting in: TLS, passwords, and a process that was frozen.

mod password;
mod thaw;
mod tls;
