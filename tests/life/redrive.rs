//! Failed jobs in bulk, by filter, at a rate.
