//! A run's time limit, crashes, and that both are bounded.
