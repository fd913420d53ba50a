//! The life of a job, a file for each thing that can be done to it: through the API and a real tick, its money asserted.

mod attempts;
mod cancel;
mod caps;
mod compare;
mod events;
mod help;
mod input_error;
mod labels;
mod lane;
mod metered;
mod model;
mod outbox;
mod progress;
mod property;
mod races;
mod races_outside;
mod redrive;
mod refund;
mod retry_by_hand;
mod retry_policy;
mod sequences;
mod steps_outside;
mod time_limit;
mod transaction;
mod wait;

use help::{assert_refused, credits, until_running};
