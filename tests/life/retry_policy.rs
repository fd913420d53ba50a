//! When a job is tried again: by its kind's policy or its own, and what spends an attempt.
