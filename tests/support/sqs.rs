//! A queue per test, and the functions built with the feature `sqs`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use local::{lambda::Function, sqs::Queue};
use uuid::Uuid;

use super::{Bench, environment};

/// Of the emulator that `cargo xtask test` starts.
pub fn endpoint() -> String {
    std::env::var("PUNCHCARD_TEST_SQS_ENDPOINT")
        .expect("PUNCHCARD_TEST_SQS_ENDPOINT is not set: run `cargo xtask test`, which starts the emulator")
}

/// A function of the build with the feature.
pub fn binary(name: &str) -> PathBuf {
    super::binary("with-sqs").join(name)
}

/// The queue of one test.
pub struct Sqs {
    pub queue: Queue,
}

impl Sqs {
    pub async fn new(visibility: Duration, max_receive_count: u32) -> Self {
        let name = format!("t-{}", Uuid::new_v4().simple());
        let queue = Queue::create(&endpoint(), &name, visibility, max_receive_count).await.expect("a queue");
        Self { queue }
    }

    /// What the functions of a deployment with SQS have in their environment.
    pub fn environment(&self, bench: &Bench, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut env = environment(&bench.url);
        env.extend(local::sqs::environment(&endpoint()));
        env.push(("WAKE_QUEUE_URL".into(), self.queue.url.clone()));
        env.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        env
    }

    pub fn api(&self, bench: &Bench) -> Function {
        Function::new(binary("api"), self.environment(bench, &[])).max_concurrency(12)
    }

    pub fn poller(&self, bench: &Bench, more: &[(&str, &str)]) -> Function {
        Function::new(binary("poller"), self.environment(bench, more)).timeout(Duration::from_secs(60))
    }

    /// As it is deployed: built with the feature, and knowing no queue, since it sends nothing.
    pub fn worker(bench: &Bench, more: &[(&str, &str)]) -> Arc<Function> {
        let mut env = environment(&bench.url);
        env.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Arc::new(Function::new(binary("sqs-worker"), env).timeout(Duration::from_secs(60)))
    }

    /// Waits until there is no message any more, waiting or in work, and answers how many are dead letters.
    pub async fn emptied(&self) -> u64 {
        for _ in 0..1_200 {
            let (messages, dead) = self.queue.depths().await.expect("depths");
            if messages == 0 {
                return dead;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("messages are left after two minutes");
    }
}
