//! Canceling: queued and running jobs, what it costs, and how a handler and a target hear of it.
