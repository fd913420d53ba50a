//! The life of a job, a file for each thing that can be done to it: through the API and a real tick, its money asserted.

mod attempts;
mod call_back;
mod cancel;
mod caps;
mod checkpoint;
mod compare;
mod deadlocks;
mod events;
mod held;
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
mod races_webhooks;
mod redrive;
mod refund;
mod retry_by_hand;
mod retry_policy;
mod sequences;
mod snooze;
mod steps_outside;
mod time_limit;
mod transaction;
mod wait;
mod webhooks;
mod webhooks_again;
mod webhooks_api;
mod webhooks_fair;

use help::{assert_refused, credits, until_running};
