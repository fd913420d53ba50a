//! One run of a job, as its handler sees it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use shared::domain::{Lease, job::MAX_CHECKPOINT_BYTES};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

/// The longest message of a progress, in characters.
const MAX_MESSAGE_CHARS: usize = 200;

/// One run of a job: what to do, whether to stop, and where to say how far it is.
#[derive(Debug)]
pub struct Run {
    /// What to do, for how long.
    pub lease: Lease,
    until: Instant,
    callback_url: Option<String>,
    canceled: CancellationToken,
    said: Mutex<Said>,
    /// There is something that is not to wait for the next check-in.
    hurry: Arc<Notify>,
    /// What was saved is written.
    written: Notify,
}

/// What the handler has said, and what of it is not noted yet.
#[derive(Debug, Default)]
struct Said {
    progress: Option<Progress>,
    saved: Option<Box<RawValue>>,
    /// How often something was saved, and which of these states is written.
    saves: u64,
    saves_written: u64,
}

/// What a run has said since that was last written.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) progress: Option<Progress>,
    pub(crate) saved: Option<Box<RawValue>>,
    saves: u64,
}

/// Why a state cannot be saved.
#[derive(Debug, thiserror::Error)]
pub enum NotSaved {
    /// It is too large.
    #[error("a checkpoint has at most {MAX_CHECKPOINT_BYTES} bytes of JSON, not {0}")]
    TooLarge(usize),
    /// It is no JSON.
    #[error("a checkpoint is JSON: {0}")]
    NotJson(#[from] serde_json::Error),
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
    /// A run that begins now; `callback_url` is where it can be called back for, if anywhere.
    #[must_use]
    pub fn new(lease: Lease, callback_url: Option<String>) -> Self {
        let until = Instant::now() + lease.timeout.min(lease.lasts);
        let (canceled, said) = (CancellationToken::new(), Mutex::default());
        Self { lease, until, callback_url, canceled, said, hurry: Arc::default(), written: Notify::new() }
    }

    /// Lets this run ask for a check-in by `hurry`.
    pub(crate) fn hurried_by(self, hurry: &Arc<Notify>) -> Self {
        Self { hurry: Arc::clone(hurry), ..self }
    }

    /// What is left of its time: then it is dropped, and has crashed. A handler that cannot be done by then saves where it is
    /// and yields ([`shared::domain::Outcome::Yield`]) a little before.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Where somebody outside calls back once they have done the job, after the handler has ended with
    /// [`shared::domain::Outcome::Wait`]: `POST {"status":"succeeded","output":…}`. `None` if the worker has no `PUBLIC_URL`.
    #[must_use]
    pub fn callback_url(&self) -> Option<&str> {
        self.callback_url.as_deref()
    }

    /// Saves where the job is: up to 16 KiB of JSON, which the next run finds in `lease.checkpoint`, however this one ends
    /// unless it ends the job. It is written within two seconds, and when the run ends.
    ///
    /// # Errors
    /// [`NotSaved`] if it is too large or no JSON; what was saved before stays.
    pub fn save(&self, state: &impl Serialize) -> Result<(), NotSaved> {
        let state = to_raw_value(state)?;
        if state.get().len() > MAX_CHECKPOINT_BYTES {
            return Err(NotSaved::TooLarge(state.get().len()));
        }
        let mut said = self.said();
        said.saved = Some(state);
        said.saves += 1;
        Ok(())
    }

    /// The same, and it is written when this ends: for what must not be done twice, such as what a provider is paid for. While
    /// the database is away it does not end; the run's time does.
    ///
    /// # Errors
    /// As [`Self::save`].
    pub async fn save_now(&self, state: &impl Serialize) -> Result<(), NotSaved> {
        self.save(state)?;
        let this = self.said().saves;
        self.hurry.notify_one();
        loop {
            let written = self.written.notified();
            if self.said().saves_written >= this {
                return Ok(());
            }
            written.await;
        }
    }

    /// What was saved last in this run.
    pub(crate) fn saved(&self) -> Option<Box<RawValue>> {
        self.said().saved.clone()
    }

    /// What was said that is not written yet.
    pub(crate) fn news(&self) -> News {
        let said = self.said();
        let saved = said.saved.clone().filter(|_| said.saves > said.saves_written);
        News { progress: said.progress.clone(), saved, saves: said.saves }
    }

    /// These news are written.
    pub(crate) fn wrote(&self, news: &News) {
        let mut said = self.said();
        if said.progress == news.progress {
            said.progress = None;
        }
        said.saves_written = said.saves_written.max(news.saves);
        drop(said);
        self.written.notify_waiters();
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how far the job is: 0 to 100, more is 100, and a message that is cut at 200 characters. Cheap: the worker notes
    /// the last one every two seconds, for as long as the job runs.
    pub fn progress(&self, percent: u8, message: Option<&str>) {
        let message =
            message.map(|text| text.chars().filter(|c| *c != '\0').take(MAX_MESSAGE_CHARS).collect());
        let progress = Progress { percent: percent.min(100), message };
        self.said().progress = Some(progress);
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
}
