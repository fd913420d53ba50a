//! Getting in: TLS, passwords, and a process that was frozen.

mod doctor;
mod password;
mod thaw;
mod tls;
