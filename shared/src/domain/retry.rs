//! When to try again: exponential backoff with jitter.

use std::time::Duration;

/// A kind's backoff: the delay doubles with each attempt, up to a cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The delay after the first attempt.
    pub base: Duration,
    /// The longest delay.
    pub cap: Duration,
}

impl Backoff {
    /// The delay after the `attempt`-th attempt (from 1). `jitter` in `0.0..=1.0` picks a point in the upper half
    /// of it ("equal jitter"), so that jobs that failed together do not come back together.
    #[must_use]
    pub fn delay(&self, attempt: u32, jitter: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(30);
        let full = self.base.saturating_mul(1 << doublings).min(self.cap);
        full.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { base: Duration::from_secs(10), cap: Duration::from_secs(60) };

    #[test]
    fn doubles_up_to_the_cap() {
        let full: Vec<u64> = (1..=5).map(|attempt| BACKOFF.delay(attempt, 1.0).as_secs()).collect();
        assert_eq!(full, [10, 20, 40, 60, 60]);
    }

    #[test]
    fn jitter_stays_in_the_upper_half() {
        assert_eq!(BACKOFF.delay(1, 0.0), Duration::from_secs(5));
        assert_eq!(BACKOFF.delay(25, 0.0), Duration::from_secs(30));
    }
}
