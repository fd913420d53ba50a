//! Every run of a job, and bounded results and errors.
