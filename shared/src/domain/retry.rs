//! When to try again: backoff with jitter, by a kind's policy or a job's own.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::json::at_most;

/// How the delays grow from attempt to attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Growth {
    /// Doubled with each attempt, up to the cap.
    #[default]
    Exponential,
    /// One base more with each attempt, up to the cap.
    Linear,
    /// As listed; the last one goes on.
    Fixed,
}

impl Growth {
    /// The growth of that word, if it is one.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "exponential" => Some(Self::Exponential),
            "linear" => Some(Self::Linear),
            "fixed" => Some(Self::Fixed),
            _ => None,
        }
    }
}

/// When to try again after an error.
#[derive(Debug, Clone, PartialEq)]
pub struct Backoff {
    /// How the delays grow.
    pub growth: Growth,
    /// The delay after the first attempt.
    pub base: Duration,
    /// The longest delay.
    pub cap: Duration,
    /// The delays of [`Growth::Fixed`].
    pub delays: Vec<Duration>,
    /// The part of a delay that is left to chance, `0.0..=1.0`.
    pub jitter: f64,
}

/// Where a job's policy differs from its kind's.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct RetryOverrides {
    /// How many attempts there may be, up to the kind's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 25))]
    pub max_attempts: Option<i64>,
    /// How the delays grow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Growth>,
    /// The delay after the first attempt, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 86400))]
    pub backoff_seconds: Option<i64>,
    /// The longest delay, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 86400))]
    pub backoff_max_seconds: Option<i64>,
    /// The delays of `fixed`, in seconds.
    #[cfg_attr(feature = "openapi", schema(schema_with = delays))]
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "at_most::<25, _, _>")]
    pub backoff_delays: Option<Vec<i64>>,
    /// The part of a delay that is left to chance, `0.0..=1.0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1))]
    pub jitter: Option<f64>,
}

/// What `fixed` lists.
#[cfg(feature = "openapi")]
fn delays() -> utoipa::openapi::schema::Array {
    use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, SchemaType, Type};
    let delay = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(86_400));
    let list = SchemaType::from_iter([Type::Array, Type::Null]);
    let delays = ArrayBuilder::new().schema_type(list).items(delay).min_items(Some(1)).max_items(Some(25));
    delays.description(Some("The delays of `fixed`, in seconds; the last goes on.")).build()
}

impl Backoff {
    /// Doubling, with half of each delay left to chance: what a kind has unless it says otherwise.
    #[must_use]
    pub fn exponential(base: Duration, cap: Duration) -> Self {
        Self { growth: Growth::Exponential, base, cap, delays: Vec::new(), jitter: 0.5 }
    }

    /// The delay after the `attempt`-th attempt (from 1). `chance` in `0.0..=1.0` picks a point in the part that is left
    /// to it, so that jobs that failed together do not come back together.
    #[must_use]
    pub fn delay(&self, attempt: u32, chance: f64) -> Duration {
        let after = attempt.saturating_sub(1);
        let full = match self.growth {
            Growth::Exponential => self.base.saturating_mul(1 << after.min(30)).min(self.cap),
            Growth::Linear => self.base.saturating_mul(after.saturating_add(1)).min(self.cap),
            Growth::Fixed => {
                let listed = self.delays.get(after as usize).or(self.delays.last());
                listed.copied().unwrap_or(self.base)
            }
        };
        full.mul_f64(1.0 - self.jitter.clamp(0.0, 1.0) * (1.0 - chance.clamp(0.0, 1.0)))
    }

    /// The same, but for what a job wants otherwise.
    #[must_use]
    pub fn overridden_by(mut self, job: RetryOverrides) -> Self {
        let seconds = |seconds: i64| Duration::from_secs(seconds.unsigned_abs());
        self.growth = job.backoff.unwrap_or(self.growth);
        self.base = job.backoff_seconds.map_or(self.base, seconds);
        self.cap = job.backoff_max_seconds.map_or(self.cap, seconds);
        if let Some(delays) = job.backoff_delays {
            self.delays = delays.into_iter().map(seconds).collect();
        }
        self.jitter = job.jitter.unwrap_or(self.jitter);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff(growth: Growth) -> Backoff {
        let seconds = Duration::from_secs;
        Backoff {
            growth,
            delays: [1, 7, 2].map(seconds).into(),
            ..Backoff::exponential(seconds(10), seconds(60))
        }
    }

    fn full(backoff: &Backoff) -> Vec<u64> {
        (1..=6).map(|attempt| backoff.delay(attempt, 1.0).as_secs()).collect()
    }

    #[test]
    fn delays_grow_as_their_policy_says() {
        assert_eq!(full(&backoff(Growth::Exponential)), [10, 20, 40, 60, 60, 60]);
        assert_eq!(full(&backoff(Growth::Linear)), [10, 20, 30, 40, 50, 60]);
        assert_eq!(full(&backoff(Growth::Fixed)), [1, 7, 2, 2, 2, 2]);
        assert_eq!(backoff(Growth::Exponential).delay(u32::MAX, 1.0).as_secs(), 60);
        assert_eq!(backoff(Growth::Linear).delay(u32::MAX, 1.0).as_secs(), 60);
    }

    #[test]
    fn jitter_is_the_part_that_is_left_to_chance() {
        let mut backoff = backoff(Growth::Exponential);
        assert_eq!(backoff.delay(1, 0.0), Duration::from_secs(5));
        assert_eq!(backoff.delay(25, 0.5), Duration::from_secs(45));
        backoff.jitter = 0.0;
        assert_eq!(backoff.delay(1, 0.0), Duration::from_secs(10));
        backoff.jitter = 1.0;
        assert_eq!(backoff.delay(1, 0.0), Duration::ZERO);
    }

    #[test]
    fn a_job_overrides_what_it_names_and_nothing_else() {
        let job = r#"{"backoff": "linear", "backoff_max_seconds": 25, "jitter": 0}"#;
        let changed =
            backoff(Growth::Exponential).overridden_by(serde_json::from_str(job).expect("overrides"));
        assert_eq!(full(&changed), [10, 20, 25, 25, 25, 25]);
        assert_eq!(changed.delay(1, 0.0), Duration::from_secs(10));
        let listed = r#"{"backoff": "fixed", "backoff_delays": [0, 3]}"#;
        let changed = backoff(Growth::Linear).overridden_by(serde_json::from_str(listed).expect("overrides"));
        assert_eq!(full(&changed), [0, 3, 3, 3, 3, 3]);
    }
}
