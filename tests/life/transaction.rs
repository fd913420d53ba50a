//! Enqueue, cancel and retry inside a transaction of the team's own.
