//! The kinds: a job is done by Rust code registered here under its kind's name, or by an HTTP target.

pub mod http_target;
pub mod qr_svg;
mod run;

use std::{future::Future, pin::Pin, sync::Arc};

use shared::{
    config::WorkerConfig,
    domain::{ErrorCode, JobError, Lease, Outcome, Target},
    secrets::Secrets,
    signing::callback_token,
};

use http_target::HttpTarget;
pub(crate) use run::News;
pub use run::{NotSaved, Progress, Run};

/// What running a job once comes to, sooner or later.
pub type Performing<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// Rust code of a kind. It may run more than once for a job (at-least-once): `run.lease.job_id` is the same each time.
pub trait Handler: Send + Sync {
    /// The kind's name.
    fn kind(&self) -> &'static str;
    /// Runs the job once. Its ending is a value; a panic is caught and counts as an error.
    fn perform<'a>(&'a self, run: &'a Run) -> Performing<'a>;
}

/// The Rust kinds. A new one is a file beside this one and an entry here.
#[must_use]
pub fn handlers() -> Vec<Box<dyn Handler>> {
    vec![Box::new(qr_svg::QrSvg)]
}

/// Every kind of a worker.
pub struct Kinds {
    handlers: Arc<[Box<dyn Handler>]>,
    http: HttpTarget,
    callbacks: Option<(String, String)>,
}

impl Kinds {
    /// The Rust kinds of these handlers, and HTTP targets.
    #[must_use]
    pub fn new(handlers: Arc<[Box<dyn Handler>]>, secrets: &Secrets, config: &WorkerConfig) -> Self {
        let http = HttpTarget::new(secrets.signing_secret.clone(), config.allow_private_targets);
        Self { handlers, http, callbacks: config.public_url.clone().zip(secrets.signing_secret.clone()) }
    }

    /// A run of this lease, which begins now.
    #[must_use]
    pub fn run(&self, lease: Lease) -> Run {
        let callback_url = self.callbacks.as_ref().map(|(public_url, master)| {
            format!("{public_url}/api/callbacks/{}", callback_token(master, lease.job_id, lease.lease_token))
        });
        Run::new(lease, callback_url)
    }

    /// The names of the kinds served by Rust code.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        self.handlers.iter().map(|handler| handler.kind()).collect()
    }

    /// Whether HTTP targets are called: not without a secret to sign with.
    #[must_use]
    pub fn serve_http(&self) -> bool {
        self.http.can_sign()
    }

    /// Runs a job once.
    pub async fn perform(&self, run: &Run) -> Outcome {
        match &run.lease.target {
            Target::Http { url, secret_version, .. } => self.http.perform(run, url, *secret_version).await,
            Target::Rust => match self.handlers.iter().find(|handler| handler.kind() == run.lease.kind) {
                Some(handler) => handler.perform(run).await,
                // Claimed by name, so this worker knows it; were it otherwise, another may.
                None => Outcome::NotStarted,
            },
            Target::Retired => {
                Outcome::Final(JobError::new(ErrorCode::KindRetired, "this kind is not offered any more"))
            }
        }
    }

    /// Tells an HTTP target that wants to know that its call was dropped because the job was canceled.
    pub async fn tell_canceled(&self, run: &Run) {
        if let Target::Http { cancel_url: Some(url), secret_version, .. } = &run.lease.target {
            self.http.tell_canceled(run, url, *secret_version).await;
        }
    }
}
