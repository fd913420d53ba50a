//! How many workers a backlog deserves.

/// A backlog is to be gone within this many seconds: until the next tick looks again.
const HORIZON_SECONDS: f64 = 60.0;

/// What a poller sees when it decides how many workers to call for help.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Jobs that are due.
    pub due: u64,
    /// Jobs under a lease, here or elsewhere.
    pub running: u64,
    /// Jobs that one worker runs at once.
    pub concurrency: u64,
    /// Jobs that this worker has finished per second. While it has finished none, at least `concurrency` jobs have
    /// taken longer than it has been at work: then the rate at which it would have, had they just ended.
    pub rate: f64,
    /// Workers that this poller has called already.
    pub called: u64,
}

/// How many due jobs are worth counting: beyond them the answer is the same, or a million.
#[must_use]
pub fn worth_counting(rate: f64, bound: u64) -> u64 {
    let all = (rate * HORIZON_SECONDS).max(1.0) * (bound + 1) as f64;
    all.ceil().min(1_000_000.0) as u64
}

/// How many more workers to call, so that the backlog is gone within a minute. At most `bound` work beside the poller;
/// nobody is called for what the poller, and those at work already, will have done by then. It falls to zero with the
/// backlog.
#[must_use]
pub fn workers_to_call(load: Load, bound: u64) -> u64 {
    let each = (load.rate * HORIZON_SECONDS).max(1.0);
    // The poller itself is one of them.
    let wanted = ((load.due as f64 / each).ceil() as u64).saturating_sub(1).min(bound);
    let at_work = load.running.div_ceil(load.concurrency.max(1)).saturating_sub(1);
    wanted.saturating_sub(at_work.max(load.called))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(due: u64, running: u64, rate: f64, called: u64) -> Load {
        Load { due, running, concurrency: 50, rate, called }
    }

    #[test]
    fn nobody_is_called_for_what_the_poller_does_alone_in_a_minute() {
        assert_eq!(workers_to_call(load(0, 0, 0.0, 0), 20), 0);
        assert_eq!(workers_to_call(load(3_000, 50, 50.0, 0), 20), 0);
    }

    #[test]
    fn the_number_follows_the_backlog_and_the_rate_up_to_the_bound() {
        assert_eq!(workers_to_call(load(9_000, 50, 50.0, 0), 20), 2);
        assert_eq!(workers_to_call(load(9_000, 50, 10.0, 0), 20), 14);
        assert_eq!(workers_to_call(load(1_000_000, 50, 50.0, 0), 20), 20);
        assert_eq!(workers_to_call(load(1_000_000, 50, 0.0, 0), 20), 20);
    }

    #[test]
    fn those_at_work_and_those_called_count_once() {
        assert_eq!(workers_to_call(load(1_000_000, 1_050, 50.0, 0), 20), 0, "twenty beside the poller");
        assert_eq!(workers_to_call(load(1_000_000, 550, 50.0, 0), 20), 10);
        assert_eq!(workers_to_call(load(1_000_000, 50, 50.0, 20), 20), 0, "called, not there yet");
        assert_eq!(workers_to_call(load(9_000, 150, 50.0, 2), 20), 0);
    }
}
