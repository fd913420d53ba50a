//! `cargo xtask simulate burst`: a million jobs of a second arrive within a minute. Steps of a tenth of a second through
//! what AWS documents of Lambda and SQS, what was measured of the database, and the controller that the poller runs.

use clap::{Args, Subcommand};
use shared::domain::scale::{self, Load};

/// What to simulate.
#[derive(Subcommand)]
pub(crate) enum Simulation {
    /// A burst, through the API with a wake-up for each job, and by SQL, found by the tick alone.
    Burst(Burst),
}

/// The burst, and the deployment that it meets.
#[derive(Args, Clone, Copy)]
pub(crate) struct Burst {
    /// Jobs.
    #[arg(long, default_value_t = 1_000_000)]
    jobs: u64,
    /// Seconds in which they arrive.
    #[arg(long, default_value_t = 60.0)]
    arrival: f64,
    /// Seconds that a job runs.
    #[arg(long, default_value_t = 1.0)]
    job: f64,
    /// SQS workers at once (`SqsMaximumConcurrency`).
    #[arg(long, default_value_t = 200)]
    maximum_concurrency: u64,
    /// Jobs in flight in one worker (`PollerConcurrency`).
    #[arg(long, default_value_t = 50)]
    concurrency: u64,
    /// Seconds that an invocation may last (`PollerTimeout`).
    #[arg(long, default_value_t = 120.0)]
    timeout: f64,
    /// Memory of a worker in GB.
    #[arg(long, default_value_t = 0.128)]
    memory: f64,
    /// Cores of the database.
    #[arg(long, default_value_t = 2.0)]
    database_cores: f64,
    /// Microseconds of the database to buy one job of a batch (measured: docs/PERFORMANCE.md).
    #[arg(long, default_value_t = 14.0)]
    enqueue_us: f64,
    /// And to claim and settle one.
    #[arg(long, default_value_t = 27.0)]
    drain_us: f64,
}

/// How the jobs are bought, and so how the workers hear of them.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Api,
    Sql,
}

/// A step, in seconds.
const STEP: f64 = 0.1;
/// What one claim takes at most.
const CLAIM_LIMIT: f64 = 500.0;
/// Pollers at once (`PollerReservedConcurrency`): a tick may start while the last one still runs.
const POLLERS: usize = 2;
/// Lambda's event source mapping of a standard queue: five workers at first, three hundred more a minute.
/// <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html>
const FIRST_WORKERS: f64 = 5.0;
const MORE_EACH_SECOND: f64 = 300.0 / 60.0;
/// Messages of a batch, and the seconds that a worker needs for one whose jobs are all done.
const BATCH: f64 = 10.0;
const NO_OP_SECONDS: f64 = 0.02;
/// US dollars: a GB-second of arm64, a million requests of Lambda, a million requests of SQS.
const GB_SECOND: f64 = 0.000_013_333_4;
const LAMBDA_MILLION: f64 = 0.20;
const SQS_MILLION: f64 = 0.40;

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Report {
    seconds: f64,
    peak_workers: f64,
    peak_running: f64,
    peak_due: f64,
    /// Workers called, evaluation by evaluation, and when.
    calls: Vec<u64>,
    called_at: Vec<f64>,
    /// Workers at work, second by second.
    workers: Vec<f64>,
    worker_seconds: f64,
    invocations: f64,
    messages: f64,
    database_busy: f64,
}

pub(crate) fn run(simulation: &Simulation) {
    let Simulation::Burst(burst) = simulation;
    println!(
        "{} jobs of {} s within {} s; at most {} workers of {}; a database of {} cores, {} µs to buy, {} µs to claim and settle",
        burst.jobs,
        burst.job,
        burst.arrival,
        burst.maximum_concurrency,
        burst.concurrency,
        burst.database_cores,
        burst.enqueue_us,
        burst.drain_us
    );
    for (way, name) in [
        (Way::Api, "bought by the API in batches, a wake-up each"),
        (Way::Sql, "bought by SQL, found by the tick"),
    ] {
        print(name, burst, &simulate(burst, way));
    }
}

fn print(name: &str, burst: &Burst, report: &Report) {
    let compute = report.worker_seconds * burst.memory * GB_SECOND;
    let requests = report.invocations * LAMBDA_MILLION / 1e6;
    // Sent ten at a time, received ten at a time, deleted ten at a time.
    let sqs = report.messages / BATCH * 3.0 * SQS_MILLION / 1e6;
    println!("\n{name}");
    println!("  drained after          {:>8.1} s", report.seconds);
    println!("  jobs due at most       {:>8.0}", report.peak_due);
    println!("  jobs running at most   {:>8.0}", report.peak_running);
    println!(
        "  workers at most        {:>8.0} of {}, and {POLLERS} pollers",
        report.peak_workers, burst.maximum_concurrency
    );
    println!("  connections at most    {:>8.0}, and the API's", report.peak_workers + POLLERS as f64);
    println!("  database busy          {:>8.0} %", report.database_busy * 100.0);
    println!("  called for help        {:?}", report.calls);
    println!(
        "  invocations            {:>8.0}, {:.0} worker-seconds",
        report.invocations, report.worker_seconds
    );
    println!(
        "  cost                   {:>8.2} USD: compute {compute:.2}, requests {requests:.2}, SQS {sqs:.2}",
        compute + requests + sqs
    );
}

/// A worker at work; the poller is one of them.
struct Worker {
    left: f64,
    /// Jobs in flight, by the steps that they still take.
    running: Vec<f64>,
    /// Of a poller.
    caller: Option<Caller>,
}

impl Worker {
    fn new(burst: &Burst, caller: Option<Caller>) -> Self {
        Self { left: burst.timeout, running: vec![0.0; (burst.job / STEP).ceil() as usize], caller }
    }

    fn is_poller(&self) -> bool {
        self.caller.is_some()
    }

    fn in_flight(&self) -> f64 {
        self.running.iter().sum()
    }

    /// One step on; what has ended is to be settled.
    fn step(&mut self) -> f64 {
        self.left -= STEP;
        let ended = self.running.remove(0);
        self.running.push(0.0);
        if let Some(caller) = &mut self.caller {
            caller.finished += ended;
        }
        ended
    }
}

/// The poller's calls for help, as `functions/worker/src/help.rs` has them: first after a second, then each ten; those
/// called count for a minute.
struct Caller {
    next: f64,
    since: f64,
    finished: f64,
    called: Vec<(f64, u64)>,
}

impl Caller {
    fn new(now: f64) -> Self {
        Self { next: now + 1.0, since: now, finished: 0.0, called: Vec::new() }
    }

    fn call(&mut self, now: f64, due: f64, running: f64, burst: &Burst) -> u64 {
        self.next = now + 10.0;
        self.called.retain(|(at, _)| now - at < 60.0);
        let done = if self.finished > 0.0 { self.finished } else { burst.concurrency as f64 };
        let rate = done / (now - self.since).max(0.001);
        let load = Load {
            due: (due as u64).min(scale::worth_counting(rate, burst.maximum_concurrency)),
            running: running as u64,
            concurrency: burst.concurrency,
            rate,
            called: self.called.iter().map(|(_, workers)| workers).sum(),
        };
        let workers = scale::workers_to_call(load, burst.maximum_concurrency);
        self.called.push((now, workers));
        workers
    }
}

fn simulate(burst: &Burst, way: Way) -> Report {
    let mut report = Report::default();
    let mut workers: Vec<Worker> = Vec::new();
    let (mut arrived, mut due, mut unsettled, mut messages, mut done) = (0.0, 0.0, 0.0, 0.0, 0.0);
    let jobs = burst.jobs as f64;
    // When messages were first there: the mapping's ramp runs from then, until all is quiet.
    let mut ramp_since: Option<f64> = None;
    let mut busy = 0.0;
    let mut step = 0_u64;
    while done < jobs || messages > 0.0 || !workers.is_empty() {
        let now = step as f64 * STEP;
        if now > 86_400.0 {
            break;
        }
        let mut budget = burst.database_cores * STEP * 1e6;
        let all = budget;

        // Buyers first: theirs are many connections against few.
        let wish = (jobs / burst.arrival * STEP).min(jobs - arrived).max(0.0);
        let bought = wish.min(budget / burst.enqueue_us);
        budget -= bought * burst.enqueue_us;
        arrived += bought;
        due += bought;
        if way == Way::Api {
            messages += bought;
            report.messages += bought;
        }

        // What has ended is settled as the database gets to it: half of a job's share each, to claim and to settle.
        for worker in &mut workers {
            unsettled += worker.step();
        }
        let settled = unsettled.min(budget / (burst.drain_us / 2.0));
        budget -= settled * burst.drain_us / 2.0;
        unsettled -= settled;
        done += settled;

        // A tick each minute.
        if step.is_multiple_of(600) && workers.iter().filter(|worker| worker.is_poller()).count() < POLLERS {
            workers.push(Worker::new(burst, Some(Caller::new(now))));
            report.invocations += 1.0;
        }
        // Claims, in turn.
        for worker in &mut workers {
            let room = burst.concurrency as f64 - worker.in_flight();
            let time = if worker.left > burst.job { CLAIM_LIMIT } else { 0.0 };
            let claimed = room.min(time).min(due).min(budget / (burst.drain_us / 2.0)).max(0.0);
            budget -= claimed * burst.drain_us / 2.0;
            due -= claimed;
            if let Some(last) = worker.running.last_mut() {
                *last += claimed;
            }
        }
        let running: f64 = workers.iter().map(Worker::in_flight).sum();

        // A poller looks whether it needs help.
        for caller in workers.iter_mut().filter_map(|worker| worker.caller.as_mut()) {
            if now >= caller.next && due > 0.0 {
                let called = caller.call(now, due, running, burst);
                report.calls.push(called);
                report.called_at.push(now);
                messages += called as f64;
                report.messages += called as f64;
            }
        }

        // The mapping starts workers for the messages that there are.
        workers.retain(|worker| worker.in_flight() > 0.0 || (due > 0.0 && worker.left > burst.job));
        if messages > 0.0 {
            let since = *ramp_since.get_or_insert(now);
            let allowed =
                (FIRST_WORKERS + MORE_EACH_SECOND * (now - since)).min(burst.maximum_concurrency as f64);
            let mut free = allowed - workers.iter().filter(|worker| !worker.is_poller()).count() as f64;
            while free >= 1.0 && messages > 0.0 && due > 0.0 {
                // Calls come one at a time (the template's HelpQueue), wake-ups by tens.
                messages = (messages - if way == Way::Api { BATCH } else { 1.0 }).max(0.0);
                workers.push(Worker::new(burst, None));
                report.invocations += 1.0;
                free -= 1.0;
            }
            if due <= 0.0 && free >= 1.0 {
                // Nothing is due: each free worker goes through batches of hints that are no news.
                let batches = (free * STEP / NO_OP_SECONDS).min((messages / BATCH).ceil());
                messages = (messages - batches * BATCH).max(0.0);
                report.invocations += batches;
                report.worker_seconds += batches * NO_OP_SECONDS;
            }
        } else if !workers.iter().any(|worker| !worker.is_poller()) {
            ramp_since = None;
        }

        let helpers = workers.iter().filter(|worker| !worker.is_poller()).count() as f64;
        report.worker_seconds += workers.len() as f64 * STEP;
        report.peak_workers = report.peak_workers.max(helpers);
        report.peak_running = report.peak_running.max(running);
        report.peak_due = report.peak_due.max(due);
        busy += (all - budget) / all;
        if done < jobs {
            report.seconds = now + STEP;
            report.database_busy = busy / (step + 1) as f64;
        }
        if step.is_multiple_of(10) {
            report.workers.push(helpers);
        }
        step += 1;
    }
    report
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Wrapped {
        #[command(flatten)]
        burst: Burst,
    }

    fn burst(args: &[&str]) -> Burst {
        Wrapped::parse_from(["x"].iter().chain(args)).burst
    }

    #[test]
    fn the_workers_stay_within_their_bound_and_come_and_go_once() {
        for args in [&[][..], &["--maximum-concurrency", "20"], &["--job", "10"], &["--jobs", "30000"]] {
            for way in [Way::Api, Way::Sql] {
                let burst = burst(args);
                let report = simulate(&burst, way);
                let bound = burst.maximum_concurrency;
                assert!(report.peak_workers <= bound as f64, "{args:?}: {report:?}");
                // What a minute's ticks post together, each poller for itself, stays within their bounds.
                let calls = || report.called_at.iter().zip(&report.calls);
                for from in &report.called_at {
                    let minute = calls().filter(|(at, _)| (*from..from + 60.0).contains(*at));
                    let posted: u64 = minute.map(|(_, called)| called).sum();
                    assert!(posted <= bound * POLLERS as u64, "{args:?}: {posted} in a minute: {report:?}");
                }
                assert_eq!(
                    report.calls.last().copied().unwrap_or(0),
                    0,
                    "falls to zero: {args:?}: {report:?}"
                );
                // No oscillation. Workers whose time is up are replaced within ten seconds, so their number dips; but once
                // it has fallen below a quarter of its peak, it never rises above half of it again.
                let peak = report.peak_workers;
                let rise = report.workers.iter().position(|workers| *workers > peak / 2.0).unwrap_or(0);
                let after = report.workers[rise..].iter().skip_while(|workers| **workers > peak / 4.0);
                assert!(
                    after.clone().all(|workers| *workers <= peak / 2.0),
                    "{args:?}: {:?}",
                    report.workers
                );
            }
        }
    }

    #[test]
    fn a_trickle_calls_nobody() {
        let report = simulate(&burst(&["--jobs", "400"]), Way::Sql);
        assert_eq!(report.calls.iter().sum::<u64>(), 0, "{report:?}");
    }
}
