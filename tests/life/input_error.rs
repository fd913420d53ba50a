//! A final error that blames the input, and what it costs.
