//! Getting in: TLS, passwords, peers that are silent, and a process that was frozen.

mod bad_peers;
mod concurrency;
mod doctor;
mod password;
mod thaw;
mod tls;
