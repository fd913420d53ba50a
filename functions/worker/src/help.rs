//! Calling for help: a poller that sees more due jobs than it can run posts `drain` wake-ups, and the queue's event
//! source mapping starts as many workers. How many is `domain::scale`'s to say.

use std::time::Duration;

use shared::{
    domain::{Deadline, scale},
    wake::{Message, WakeUp},
};
use tokio::time::Instant;

use crate::{Worker, drain::Trigger};

/// How long a poller works before it judges its own rate.
const FIRST_AFTER: Duration = Duration::from_secs(1);
/// How often it looks at the backlog again.
const EVERY: Duration = Duration::from_secs(10);
/// Those who were called count as called for as long as the backlog that they were called for was to last.
const CALLED_COUNT_FOR: Duration = Duration::from_secs(60);
/// Looking at the backlog and calling may take this long; in the last seconds of an invocation nobody is called.
const BUDGET: Duration = Duration::from_secs(5);
/// All drain wake-ups are nobody's in particular.
const GROUP: &str = "drain";

/// Who calls for help, and what for.
pub(crate) struct Help<'a> {
    worker: &'a Worker,
    able: bool,
    wanted: bool,
    started: Instant,
    next: Instant,
    called: Vec<(Instant, u64)>,
}

impl<'a> Help<'a> {
    /// Pollers call; those who were called do not.
    pub(crate) fn of(worker: &'a Worker, trigger: Trigger<'_>) -> Self {
        let able = worker.wake.is_on() && matches!(trigger, Trigger::Tick);
        let started = Instant::now();
        Self { worker, able, wanted: false, started, next: started + FIRST_AFTER, called: Vec::new() }
    }

    /// Whether the last claim left something due.
    pub(crate) fn wanted(&mut self, wanted: bool) {
        self.wanted = wanted;
    }

    /// When to look at the backlog next, if at all.
    pub(crate) fn at(&self, deadline: Deadline) -> Option<Instant> {
        (self.able && self.wanted && deadline.left() > BUDGET * 2).then_some(self.next)
    }

    /// Looks at the backlog and calls as many workers as it deserves; answers how many. That the backlog cannot be
    /// looked at is no reason to stop working on it.
    pub(crate) async fn call(&mut self, finished: usize, deadline: Deadline) -> usize {
        self.next = Instant::now() + EVERY;
        self.called.retain(|(at, _)| at.elapsed() < CALLED_COUNT_FOR);
        let (concurrency, bound) = (self.worker.config.concurrency, self.worker.config.most_helpers as u64);
        let done = if finished > 0 { finished } else { concurrency };
        let rate = done as f64 / self.started.elapsed().as_secs_f64().max(0.001);
        let (limit, budget) = (scale::worth_counting(rate, bound), deadline.left());
        let backlog = match self.worker.db.backlog(limit, budget, deadline.within(BUDGET)).await {
            Ok(backlog) => backlog,
            Err(error) => {
                tracing::warn!(error = %error, "backlog unknown, nobody called");
                return 0;
            }
        };
        let load = scale::Load {
            due: backlog.due,
            running: backlog.running,
            concurrency: concurrency as u64,
            rate,
            called: self.called.iter().map(|(_, workers)| workers).sum(),
        };
        let workers = scale::workers_to_call(load, bound);
        if workers == 0 {
            return 0;
        }
        let call = Message { wake_up: WakeUp::Drain {}, after: Duration::ZERO, group: GROUP.into() };
        let sent = self.worker.wake.send(&vec![call; workers as usize], deadline).await;
        self.called.push((Instant::now(), sent as u64));
        tracing::info!(
            due = load.due,
            running = load.running,
            rate = load.rate,
            workers = sent,
            "called for help"
        );
        sent
    }
}
