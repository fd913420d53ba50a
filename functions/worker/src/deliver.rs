//! Sends what is to be said of jobs: webhooks, signed as Standard Webhooks has it, and cancels to HTTP targets. Beside the
//! drain, so that what it settles is said at once; each message on its own, so that no slow receiver holds up another.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use serde::Serialize;
use serde_json::value::RawValue;
use shared::{
    db::{
        DbError,
        jobs::{Job, JobCredits},
        webhooks::{Delivery, Event, Sent},
    },
    domain::{Deadline, Status, Timestamp},
    http_client::{self, Allow, HttpError},
    signing::{account_secret, signed_post},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use uuid::Uuid;

use crate::{
    Summary, Worker,
    drain::{self, Trigger},
    executor::jitter,
    jobs::http_target::{HttpTarget, Post, retry_after},
};

/// How many messages are on their way at once.
const AT_ONCE: usize = 50;
/// How long a receiver has to answer: the specification asks for 15 to 30 seconds.
const SEND_BUDGET: Duration = Duration::from_secs(15);
/// A message that was not recorded by then is sent again by whoever comes next.
const LEASE: Duration = Duration::from_secs(60);
/// How long what became of one message waits for others, to be recorded together.
const RECORD_AFTER: Duration = Duration::from_millis(50);
/// How many messages of an account a host may leave unanswered, until no more are sent there by this invocation.
const SILENT_AFTER: u32 = 3;
/// How long messages are taken on after the drain is over.
const ALONE_BUDGET: Duration = Duration::from_secs(30);
/// What is read of an answer: nothing is done with it.
const ANSWER_BYTES: usize = 65_536;
/// The largest output that is sent along: the specification asks for small messages.
const MOST_OUTPUT_BYTES: usize = 10_000;
/// How long after each sending that failed the next one is, in seconds: the specification's schedule. After the last it is
/// given up, three days and some hours on.
const SCHEDULE: [u64; 9] = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];

/// A message that was taken this often has taken its workers down, or was never recorded: it is not sent any more.
const MOST_TAKEN: i16 = 100;

/// What became of the messages that were sent.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Delivered {
    /// Heard.
    pub delivered: usize,
    /// Not heard, to be sent again.
    pub retried: usize,
    /// Not heard, and given up.
    pub given_up: usize,
}

/// Drains the queue, and meanwhile sends what is due to be sent (`due`: something is) and what the drain adds to it. Messages
/// that cannot be recorded are sent again; only the drain's failure is one.
pub(crate) async fn while_draining(
    worker: &Worker,
    trigger: Trigger<'_>,
    due: bool,
    deadline: Deadline,
    summary: &mut Summary,
) -> Result<(), DbError> {
    let (told, news) = watch::channel(());
    if due {
        told.send_replace(());
    }
    let drained = async {
        let drained = drain::run(worker, trigger, &told, deadline, summary).await;
        drop(told);
        drained
    };
    let (drained, delivered) = tokio::join!(drained, Courier::new(worker, deadline).run(news));
    summary.webhooks = delivered;
    drained
}

struct Courier<'a> {
    worker: &'a Worker,
    deadline: Deadline,
    /// With less left of the invocation than this nothing more is sent.
    least: Duration,
    sending: JoinSet<(Delivery, Sent, Silence)>,
    /// How many messages a host has left unanswered, of an account.
    silent: HashMap<(Uuid, String), u32>,
    /// Since when the drain is over.
    alone_since: Option<Instant>,
    sent: Vec<(Delivery, Sent)>,
    record_at: Instant,
    tally: Delivered,
}

impl<'a> Courier<'a> {
    fn new(worker: &'a Worker, deadline: Deadline) -> Self {
        let (sending, sent, record_at) = (JoinSet::new(), Vec::new(), Instant::now());
        let least = SEND_BUDGET.min(deadline.left() / 2);
        let (silent, alone_since, tally) = (HashMap::new(), None, Delivered::default());
        Self { worker, deadline, least, sending, silent, alone_since, sent, record_at, tally }
    }

    /// Until nobody can have more to say, and nothing is on its way.
    async fn run(mut self, mut news: watch::Receiver<()>) -> Delivered {
        let (mut more, mut open) = (false, true);
        loop {
            if more && self.sending.len() < AT_ONCE {
                more = self.claim().await;
            }
            if !more && !open && self.sending.is_empty() {
                self.record().await;
                return self.tally;
            }
            tokio::select! {
                // An error: the drain is over, and all of its news was seen.
                heard = news.changed(), if open => {
                    (more, open) = (more || heard.is_ok(), heard.is_ok());
                    self.alone_since = (!open).then(Instant::now);
                }
                // A task that was lost comes back when its lease is over.
                Some(done) = self.sending.join_next() => if let Ok((delivery, sent, silence)) = done {
                    if silence == Silence::Kept {
                        *self.silent.entry(receiver(&delivery)).or_default() += 1;
                    }
                    self.done(delivery, sent);
                },
                () = sleep_until(self.record_at), if !self.sent.is_empty() => self.record().await,
            }
        }
    }

    /// Remembers what is to be recorded.
    fn done(&mut self, delivery: Delivery, sent: Sent) {
        if self.sent.is_empty() {
            self.record_at = Instant::now() + RECORD_AFTER;
        }
        self.sent.push((delivery, sent));
    }

    /// Takes what is due and sends it; answers whether there may be more.
    async fn claim(&mut self) -> bool {
        // An invocation that does nothing else any more ends: the next one looks for jobs, too.
        let alone_too_long = self.alone_since.is_some_and(|since| since.elapsed() > ALONE_BUDGET);
        if self.deadline.left() < self.least || alone_too_long {
            return false;
        }
        let free = AT_ONCE - self.sending.len();
        let secrets = self.worker.secrets.get(self.deadline).await;
        let Some(master) = secrets.ok().and_then(|secrets| secrets.signing_secret) else {
            tracing::warn!("there is no SIGNING_SECRET: webhooks wait");
            return false;
        };
        let claimed = match self.worker.db.claim_deliveries(free, LEASE, self.deadline).await {
            Ok(claimed) => claimed,
            Err(error) => {
                tracing::error!(error = %error, "webhooks wait for the next tick");
                return false;
            }
        };
        let more = claimed.len() == free;
        let private = self.worker.config.allow_private_targets;
        for delivery in claimed {
            if self.silent.get(&receiver(&delivery)).is_some_and(|times| *times >= SILENT_AFTER) {
                let why = "not sent: its receiver leaves others unanswered".to_owned();
                let sent = again(delivery.attempt, None, why, jitter());
                self.done(delivery, sent);
                continue;
            }
            let (master, deadline) = (master.clone(), self.deadline.within(SEND_BUDGET));
            self.sending.spawn(async move {
                let (sent, silence) = send(&delivery, &master, private, deadline).await;
                (delivery, sent, silence)
            });
        }
        more
    }

    async fn record(&mut self) {
        if self.sent.is_empty() {
            return;
        }
        for (delivery, sent) in &self.sent {
            let (id, job, attempt) = (delivery.id, delivery.job.id, delivery.attempt);
            match sent {
                Sent::Delivered => self.tally.delivered += 1,
                Sent::Retry { error, .. } => {
                    self.tally.retried += 1;
                    tracing::warn!(webhook.id = %id, job.id = %job, attempt, error, "webhook failed, sent again later");
                }
                Sent::GiveUp(error) | Sent::Gone(error) => {
                    self.tally.given_up += 1;
                    tracing::error!(webhook.id = %id, job.id = %job, attempt, error, "webhook given up");
                }
            }
        }
        let sent = std::mem::take(&mut self.sent);
        match self.worker.db.settle_deliveries(&sent, self.deadline.later(Duration::from_secs(1))).await {
            Ok(recorded) if recorded == sent.len() => {}
            Ok(recorded) => tracing::warn!(recorded, of = sent.len(), "webhooks were sent twice"),
            Err(error) => {
                tracing::error!(error = %error, "what became of webhooks is lost, they are sent again")
            }
        }
    }
}

/// Whether a receiver answered at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Silence {
    Broken,
    Kept,
}

/// Whose messages go where: what one account's host does is no other's matter.
fn receiver(delivery: &Delivery) -> (Uuid, String) {
    let host = delivery.url.as_ref().and_then(|url| Some(url.parse::<Uri>().ok()?.authority()?.to_string()));
    (delivery.job.account_id, host.unwrap_or_default())
}

async fn send(delivery: &Delivery, master: &str, private: bool, deadline: Deadline) -> (Sent, Silence) {
    let request = match request(delivery, master, private) {
        Ok(request) => request,
        Err(why) => return (Sent::GiveUp(why), Silence::Broken),
    };
    let allow = if private { Allow::Anything } else { Allow::PublicHttps };
    let answer = http_client::send(request, allow, ANSWER_BYTES, deadline).await;
    let silence = if matches!(answer, Err(HttpError::TimedOut)) { Silence::Kept } else { Silence::Broken };
    (judge(delivery.attempt, answer), silence)
}

fn judge(attempt: i16, answer: Result<Response<Bytes>, HttpError>) -> Sent {
    let (error, asked) = match answer {
        // One that says more than is read has heard all the same.
        Err(HttpError::TooLarge(_)) => return Sent::Delivered,
        Ok(response) if response.status().is_success() => return Sent::Delivered,
        Ok(response) if response.status() == StatusCode::GONE => {
            return Sent::Gone("the receiver answered 410 (Gone)".into());
        }
        Ok(response) => {
            let said = format!("the receiver answered {}", response.status().as_u16());
            (said, retry_after(response.headers()))
        }
        Err(error @ HttpError::Forbidden(_)) => return Sent::GiveUp(error.to_string()),
        Err(error) => (error.to_string(), None),
    };
    again(attempt, asked, error, jitter())
}

/// The next sending after one that failed, by the schedule with a tenth left to chance; not before the receiver asked for it.
fn again(attempt: i16, asked: Option<Duration>, error: String, chance: f64) -> Sent {
    let nth = usize::from(attempt.unsigned_abs()).saturating_sub(1);
    let Some(seconds) = SCHEDULE.get(nth) else { return Sent::GiveUp(error) };
    let delay = Duration::from_secs(*seconds).mul_f64(1.0 + 0.1 * chance);
    let asked = asked.unwrap_or_default().min(Duration::from_secs(86_400));
    Sent::Retry { delay: delay.max(asked), error }
}

/// # Errors
/// Why it can never be sent.
fn request(delivery: &Delivery, master: &str, private: bool) -> Result<Request<Bytes>, String> {
    let url = delivery.url.as_deref().ok_or("the webhook is gone or disabled")?;
    if delivery.attempt > MOST_TAKEN {
        return Err("what became of it was never recorded".into());
    }
    let job = &delivery.job;
    let event = match &delivery.event {
        Event::Job(event) => event,
        Event::Cancel => {
            let post = Post {
                id: job.id,
                kind: &job.kind,
                account_id: job.account_id,
                attempt: job.attempt.unsigned_abs().into(),
                max_attempts: job.max_attempts.unsigned_abs().into(),
                credits: job.credits.price,
                input: job.input.get(),
                callback_url: None,
            };
            let target = HttpTarget::new(Some(master.to_owned()), private);
            let request = target.cancel_request(&post, url, delivery.kind_secret_version);
            return request.map_err(|error| error.message);
        }
    };
    let message = Message { r#type: event, timestamp: delivery.created_at, data: Data::of(job) };
    let body = serde_json::to_vec(&message).map_err(|error| error.to_string())?;
    let secret = |version: &u32| account_secret(master, job.account_id, *version);
    let secrets: Vec<String> = delivery.secret_versions.iter().map(secret).collect();
    signed_post(&delivery.id.to_string(), url, &secrets, body)
}

/// A message, as Standard Webhooks has it.
#[derive(Serialize)]
struct Message<'a> {
    r#type: &'a str,
    /// When what it says happened.
    timestamp: Timestamp,
    data: Data<'a>,
}

/// The job as it is when the message is sent: a final one is always the same.
#[derive(Serialize)]
struct Data<'a> {
    id: Uuid,
    kind: &'a str,
    account_id: Uuid,
    status: Status,
    attempt: i16,
    output: Option<&'a RawValue>,
    /// Whether there is an output that is too large for a message: `GET /api/jobs/{id}` has it.
    output_omitted: bool,
    error: Option<&'a RawValue>,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    metadata: &'a BTreeMap<String, String>,
    tags: &'a [String],
    credits: &'a JobCredits,
}

impl<'a> Data<'a> {
    fn of(job: &'a Job) -> Self {
        let output = job.output.as_deref();
        let fits = output.filter(|output| output.get().len() <= MOST_OUTPUT_BYTES);
        Self {
            id: job.id,
            kind: &job.kind,
            account_id: job.account_id,
            status: job.status,
            attempt: job.attempt,
            output: fits,
            output_omitted: fits.is_none() && output.is_some(),
            error: job.error.as_deref(),
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            metadata: &job.metadata,
            tags: &job.tags,
            credits: &job.credits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_sent_again_by_the_schedule_until_it_is_given_up() {
        let delay = |attempt, asked, chance| match again(attempt, asked, "no".into(), chance) {
            Sent::Retry { delay, .. } => Some(delay.as_secs()),
            Sent::GiveUp(_) => None,
            other => panic!("{other:?}"),
        };
        let schedule: Vec<_> = (1..=10).map(|attempt| delay(attempt, None, 0.0)).collect();
        let [after, .., last] = schedule.as_slice() else { panic!("ten") };
        assert_eq!((after, schedule[8], last), (&Some(5), Some(86_400), &None));
        assert_eq!(delay(2, None, 1.0), Some(330), "a tenth is left to chance");
        assert_eq!(delay(1, Some(Duration::from_secs(60)), 0.0), Some(60), "Retry-After is obeyed");
        assert_eq!(delay(2, Some(Duration::from_secs(1)), 0.0), Some(300), "but shortens nothing");
        assert_eq!(delay(1, Some(Duration::MAX), 0.0), Some(86_400), "nor puts it off for ever");
    }
}
