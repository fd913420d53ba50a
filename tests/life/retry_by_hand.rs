//! A failed or canceled job once more, as a new job.
