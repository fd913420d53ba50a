//! Getting in: TLS, passwords, and a process that was frozen.

mod concurrency;
mod doctor;
mod password;
mod thaw;
mod tls;
