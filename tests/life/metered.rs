//! Metered prices: what was used is captured, the rest released.
