//! A function that was frozen for longer than its connection lived.

use std::time::{Duration, Instant};

use local::{lambda::Function, process_signal};
use serde_json::json;

use crate::support::{Bench, binary, environment, event};

/// How often; each is a freeze, a killed backend and a thaw.
const TIMES: usize = 50;

#[tokio::test(flavor = "multi_thread")]
async fn the_first_request_after_a_thaw_succeeds_fifty_times_of_fifty() {
    let bench = Bench::new().await;
    let api = Function::new(binary("api"), environment(&bench.url)).max_concurrency(1);
    let health = event("GET", "/api/health", &[], None);
    let backends = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    for time in 0..TIMES {
        assert_eq!(api.invoke(&health).await.unwrap()["statusCode"], 200, "{time}, before");
        let pid = api.pids()[0];
        assert!(process_signal(pid, libc::SIGSTOP));
        bench.count(backends).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(process_signal(pid, libc::SIGCONT));
        let woken = Instant::now();
        assert_eq!(api.invoke(&health).await.unwrap()["statusCode"], json!(200), "{time}, thawed");
        assert!(woken.elapsed() < Duration::from_secs(10), "{time}: {:?}", woken.elapsed());
        assert_eq!(api.pids(), [pid], "the same environment");
    }
}
