//! The moment by which an invocation must have answered, as a budget that every call is bounded by.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// The moment by which a piece of work must be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline that lies `budget` from now.
    #[must_use]
    pub fn after(budget: Duration) -> Self {
        Self(Instant::now() + budget)
    }

    /// The deadline of a Lambda invocation, less `margin` to record and answer in. A deadline that has passed is
    /// unknown, not urgent (`cargo lambda watch` sends a constant of 1970): then it lies `fallback` from now.
    #[must_use]
    pub fn of_invocation(deadline: SystemTime, margin: Duration, fallback: Duration) -> Self {
        match deadline.duration_since(SystemTime::now()) {
            Ok(left) => Self::after(left.saturating_sub(margin)),
            Err(_) => Self::after(fallback),
        }
    }

    /// The time left, zero once it has passed.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// The earlier of this deadline and the one `budget` from now.
    #[must_use]
    pub fn within(&self, budget: Duration) -> Self {
        Self(self.0.min(Instant::now() + budget))
    }

    /// The deadline that lies `by` after this one.
    #[must_use]
    pub fn later(&self, by: Duration) -> Self {
        Self(self.0 + by)
    }

    /// The deadline that lies `by` before this one.
    #[must_use]
    pub fn earlier(&self, by: Duration) -> Self {
        Self(self.0.checked_sub(by).unwrap_or_else(Instant::now))
    }

    /// The instant itself, for `tokio::time::timeout_at`.
    #[must_use]
    pub fn instant(&self) -> Instant {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_of_1970_is_unknown_rather_than_passed() {
        let of_1970 = SystemTime::UNIX_EPOCH + Duration::from_secs(600);
        let deadline = Deadline::of_invocation(of_1970, Duration::from_secs(1), Duration::from_secs(50));
        assert!(deadline.left() > Duration::from_secs(49));
    }

    #[test]
    fn a_later_deadline_does_not_move_when_the_first_has_passed() {
        let second = Duration::from_secs(1);
        let passed = Deadline(Instant::now() - second);
        assert_eq!(passed.later(second * 3).0, passed.0 + second * 3);
        assert!(passed.later(second / 2).left().is_zero());
        assert_eq!(passed.earlier(second).later(second), passed);
    }

    #[test]
    fn the_margin_is_kept_free() {
        let in_ten = SystemTime::now() + Duration::from_secs(10);
        let deadline = Deadline::of_invocation(in_ten, Duration::from_secs(2), Duration::from_secs(50));
        assert!(deadline.left() <= Duration::from_secs(8));
        assert!(deadline.left() > Duration::from_secs(7));
    }
}
