//! One run of a job, as its handler sees it.

use std::sync::{Mutex, PoisonError};

use shared::domain::Lease;
use tokio_util::sync::CancellationToken;

/// The longest message of a progress, in characters.
const MAX_MESSAGE_CHARS: usize = 200;

/// One run of a job: what to do, whether to stop, and where to say how far it is.
#[derive(Debug)]
pub struct Run {
    /// What to do, for how long.
    pub lease: Lease,
    canceled: CancellationToken,
    progress: Mutex<Option<Progress>>,
}

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// 0 to 100.
    pub percent: u8,
    /// What it is doing, for a person.
    pub message: Option<String>,
}

impl Run {
    /// A run that begins.
    #[must_use]
    pub fn new(lease: Lease) -> Self {
        Self { lease, canceled: CancellationToken::new(), progress: Mutex::new(None) }
    }

    /// Says how far the job is: 0 to 100, more is 100, and a message that is cut at 200 characters. Cheap: the worker notes
    /// the last one every two seconds, for as long as the job runs.
    pub fn progress(&self, percent: u8, message: Option<&str>) {
        let message =
            message.map(|text| text.chars().filter(|c| *c != '\0').take(MAX_MESSAGE_CHARS).collect());
        let progress = Progress { percent: percent.min(100), message };
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
    }

    /// Ends once the job is canceled, up to two seconds after it was. The handler may tidy up then, for five seconds; if it
    /// is done all the same, and says so, the job has succeeded.
    pub async fn canceled(&self) {
        self.canceled.cancelled().await;
    }

    /// Whether it is canceled.
    #[must_use]
    pub fn is_canceled(&self) -> bool {
        self.canceled.is_cancelled()
    }

    /// Tells the handler to stop.
    pub(crate) fn cancel(&self) {
        self.canceled.cancel();
    }

    /// What was said since this was last asked.
    pub(crate) fn take_progress(&self) -> Option<Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
