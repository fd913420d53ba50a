//! Sends what is to be said of jobs: webhooks, signed as Standard Webhooks has it, and cancels to HTTP targets. Beside the
//! drain, so that what it settles is said at once; each message on its own, so that no slow receiver holds up another, and in turn
//! by account, so that no account does.

use std::{
    collections::{HashSet, VecDeque},
    future::ready,
    time::Duration,
};

use bytes::Bytes;
use http::{Response, StatusCode};
use serde::Serialize;
use shared::{
    db::{
        DbError,
        webhooks::{Delivery, Recorded, Round, Sent},
    },
    domain::Deadline,
    http_client::{self, Allow, HttpError},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use uuid::Uuid;

use crate::{
    MARGIN, Summary, Worker,
    drain::{self, Trigger},
    executor::jitter,
    jobs::http_target::retry_after,
    message::request,
    receivers::{AT_ONCE, Place, Receivers, Unfit},
    recording::{Failures, HELD_PAUSE, Mend, SEND_BUDGET as RECORD_BUDGET, TO_ANSWER, halves, parts},
};

/// How long a receiver has to answer: the specification asks for 15 to 30 seconds.
const SEND_BUDGET: Duration = Duration::from_secs(15);
/// A message that was not recorded by then is sent again by whoever comes next.
const LEASE: Duration = Duration::from_secs(60);
/// How long what became of one message waits for others, to be recorded together.
const RECORD_AFTER: Duration = Duration::from_millis(50);
/// How long after a place was free none was taken for it is there another look: several may be free by then.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// How long messages are taken on after the drain is over.
const ALONE_BUDGET: Duration = Duration::from_secs(30);
/// What is read of an answer: nothing is done with it.
const ANSWER_BYTES: usize = 65_536;
/// How long after each sending that failed the next one is, in seconds: the specification's schedule. After the last it is
/// given up, three days and some hours on.
const SCHEDULE: [u64; 9] = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];

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

/// Drains the queue, and does `beside` meanwhile, which may say that there are messages to send; sends those, what is due to be
/// sent (`due`: something is), and what the drain adds to it. Messages that cannot be recorded are sent again; only the drain's
/// failure is one.
pub(crate) async fn while_draining(
    worker: &Worker,
    trigger: Trigger<'_>,
    due: bool,
    deadline: Deadline,
    summary: &mut Summary,
    beside: impl AsyncFnOnce(&watch::Sender<()>),
) -> Result<(), DbError> {
    let (told, news) = watch::channel(());
    if due {
        told.send_replace(());
    }
    let drained = async {
        let (drained, ()) =
            tokio::join!(drain::run(worker, trigger, &told, deadline, summary), beside(&told));
        drop(told);
        drained
    };
    let (drained, delivered) = tokio::join!(drained, Courier::new(worker, deadline).run(news));
    summary.webhooks = delivered;
    drained
}

/// When there is the next look at what is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Once there is news.
    Never,
    /// As soon as a place is free.
    Now,
    /// Once a message has arrived: those that are due are of accounts that have enough on their way.
    WhenOneIsSent,
    /// Then.
    At(Instant),
}

/// Where accounts are visited one by one: in a circle, so that each has its turn, whoever is in front of it.
#[derive(Debug)]
struct Circle {
    after: Uuid,
    /// Whether it was begun at its beginning.
    whole: bool,
    /// Whether any message was taken since.
    some: bool,
}

impl Circle {
    fn begin() -> Self {
        let mut somewhere = [0; 16];
        // Without randomness, at the beginning.
        let _ = getrandom::fill(&mut somewhere);
        Self { after: Uuid::from_bytes(somewhere), whole: false, some: false }
    }

    /// After a claim that ended at `walked`: whether the next one may find more.
    fn go_on(&mut self, walked: Option<Uuid>, some: bool) -> bool {
        self.some |= some;
        if let Some(account) = walked {
            self.after = account;
            return true;
        }
        let more = self.some || !self.whole;
        *self = Self { after: Uuid::nil(), whole: true, some: false };
        more
    }
}

struct Courier<'a> {
    worker: &'a Worker,
    deadline: Deadline,
    /// With less left of the invocation than this nothing more is sent.
    least: Duration,
    sending: JoinSet<(Delivery, Sent)>,
    receivers: Receivers,
    circle: Circle,
    /// Since when the drain is over.
    alone_since: Option<Instant>,
    /// To be recorded, some of it perhaps once somebody lets go of it.
    sent: Vec<(Delivery, Sent)>,
    record_at: Instant,
    /// How long what somebody holds is left alone.
    pause: Duration,
    tally: Delivered,
}

impl<'a> Courier<'a> {
    fn new(worker: &'a Worker, deadline: Deadline) -> Self {
        let (sending, sent, record_at) = (JoinSet::new(), Vec::new(), Instant::now());
        let least = SEND_BUDGET.min(deadline.left() / 2);
        let (receivers, circle, alone_since) = (Receivers::default(), Circle::begin(), None);
        let (pause, tally) = (HELD_PAUSE.0, Delivered::default());
        Self {
            worker,
            deadline,
            least,
            sending,
            receivers,
            circle,
            alone_since,
            sent,
            record_at,
            pause,
            tally,
        }
    }

    /// Until nobody can have more to say, and nothing is on its way.
    async fn run(mut self, mut news: watch::Receiver<()>) -> Delivered {
        let (mut look, mut open) = (Look::Never, true);
        loop {
            if !open && self.sending.is_empty() && matches!(look, Look::Never | Look::WhenOneIsSent) {
                self.finish().await;
                return self.tally;
            }
            let at = if let Look::At(at) = look { at } else { Instant::now() };
            tokio::select! {
                // An error: the drain is over, and all of its news was seen.
                heard = news.changed(), if open => {
                    open = heard.is_ok();
                    if open {
                        look = Look::Now;
                    }
                    self.alone_since = (!open).then(Instant::now);
                }
                // A task that was lost comes back when its lease is over.
                Some(done) = self.sending.join_next() => {
                    if let Ok((delivery, sent)) = done {
                        self.done(delivery, sent);
                    }
                    if look == Look::WhenOneIsSent {
                        look = Look::At(Instant::now() + LOOK_AGAIN_AFTER);
                    }
                }
                () = sleep_until(at), if matches!(look, Look::At(_)) => look = Look::Now,
                () = ready(()), if look == Look::Now && self.sending.len() < AT_ONCE => look = self.claim().await,
                () = sleep_until(self.record_at), if !self.sent.is_empty() => self.record().await,
            }
        }
    }

    /// Remembers what is to be recorded.
    fn done(&mut self, delivery: Delivery, sent: Sent) {
        let (id, job, attempt) = (delivery.id, delivery.job.id, delivery.sending());
        match &sent {
            Sent::Delivered => self.tally.delivered += 1,
            Sent::Retry { error, .. } => {
                self.tally.retried += 1;
                tracing::warn!(webhook.id = %id, job.id = %job, attempt, error, "webhook failed, sent again later");
            }
            Sent::PutBack(_) => tracing::debug!(webhook.id = %id, job.id = %job, "webhook put back"),
            Sent::GiveUp(error) | Sent::Gone(error) => {
                self.tally.given_up += 1;
                tracing::error!(webhook.id = %id, job.id = %job, attempt, error, "webhook given up");
            }
        }
        self.keep(vec![(delivery, sent)], RECORD_AFTER);
    }

    /// Records these after a while, or with what is to be recorded sooner.
    fn keep(&mut self, sent: Vec<(Delivery, Sent)>, pause: Duration) {
        let at = Instant::now() + pause;
        self.record_at = if self.sent.is_empty() { at } else { self.record_at.min(at) };
        self.sent.extend(sent);
    }

    /// Takes what is due and sends it; answers when to look again.
    async fn claim(&mut self) -> Look {
        // An invocation that does nothing else any more ends: the next one looks for jobs, too.
        let alone_too_long = self.alone_since.is_some_and(|since| since.elapsed() > ALONE_BUDGET);
        if self.deadline.left() < self.least || alone_too_long {
            return Look::Never;
        }
        let free = AT_ONCE - self.sending.len();
        let secrets = self.worker.secrets.get(self.deadline).await;
        let Some(master) = secrets.ok().and_then(|secrets| secrets.signing_secret) else {
            tracing::warn!("there is no SIGNING_SECRET: webhooks wait");
            return Look::Never;
        };
        let (rooms, after) = (self.receivers.rooms(free), self.circle.after);
        let round = Round { limit: free, lease: LEASE, spare: true, rooms, after };
        let taken = match self.worker.db.claim_deliveries(&round, self.deadline).await {
            Ok(taken) => taken,
            Err(error) => {
                tracing::error!(error = %error, "webhooks wait for the next tick");
                return Look::Never;
            }
        };
        let some = !taken.deliveries.is_empty();
        let private = self.worker.config.allow_private_targets;
        for delivery in taken.deliveries {
            let (master, deadline) = (master.clone(), self.deadline.within(SEND_BUDGET));
            let place = self.receivers.place(delivery.job.account_id);
            self.sending.spawn(async move {
                let sent = send(&delivery, &master, private, deadline, place).await;
                (delivery, sent)
            });
        }
        match taken.more {
            false => Look::Never,
            true if self.circle.go_on(taken.walked, some) => Look::Now,
            true => Look::WhenOneIsSent,
        }
    }

    /// Records what became of messages, as long as the margin of the invocation lasts; what is not recorded then is sent again.
    async fn record(&mut self) {
        let until = self.deadline.later(MARGIN - TO_ANSWER);
        let mut batches = VecDeque::from([std::mem::take(&mut self.sent)]);
        let (mut failures, since) = (Failures::none(), Instant::now());
        while let Some(batch) = batches.pop_front() {
            let answer = self.worker.db.settle_deliveries(&batch, until.within(RECORD_BUDGET)).await;
            let error = match answer {
                Ok(recorded) => {
                    failures = Failures::none();
                    self.note(batch, &recorded);
                    continue;
                }
                Err(error) => error,
            };
            match failures.mend(&error, (batch.len(), since.elapsed()), until).await {
                Mend::Again => batches.push_front(batch),
                Mend::Part { slow } => match parts(batch, |(delivery, _)| delivery.job.account_id) {
                    Ok(parts) => batches.extend(parts),
                    Err(of_one) if slow => self.come_back_to(of_one),
                    Err(of_one) => batches.extend(halves(of_one)),
                },
                Mend::ComeBack => self.come_back_to(batch),
                Mend::Refuse | Mend::Lose => lose(&batch, &error.to_string()),
            }
        }
    }

    fn note(&mut self, batch: Vec<(Delivery, Sent)>, recorded: &Recorded) {
        let out_of_reach: HashSet<Uuid> = recorded.out_of_reach.iter().copied().collect();
        let (held, rest): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|(delivery, _)| out_of_reach.contains(&delivery.id));
        if recorded.count < rest.len() {
            tracing::warn!(recorded.count, of = rest.len(), "webhooks were sent twice");
        }
        if held.is_empty() {
            self.pause = HELD_PAUSE.0;
        } else {
            tracing::warn!(webhooks = held.len(), "somebody holds webhooks: tried again");
            self.come_back_to(held);
        }
    }

    fn come_back_to(&mut self, held: Vec<(Delivery, Sent)>) {
        self.keep(held, self.pause);
        self.pause = (self.pause * 2).min(HELD_PAUSE.1);
    }

    /// Records what is left, and comes back to what somebody holds until the margin of the invocation is used up.
    async fn finish(&mut self) {
        let until = self.deadline.later(MARGIN - TO_ANSWER);
        // No longer than messages are sent after the drain: the next invocation looks for jobs, too.
        let alone = self.alone_since.unwrap_or_else(Instant::now) + ALONE_BUDGET;
        while !self.sent.is_empty() {
            self.record().await;
            if until.left() <= HELD_PAUSE.0 || Instant::now() > alone {
                break;
            }
            if !self.sent.is_empty() {
                sleep_until(self.record_at.min(until.earlier(HELD_PAUSE.0).instant())).await;
            }
        }
        lose(&self.sent, "somebody held it all the while");
    }
}

/// What became of these is not recorded: they are sent again.
fn lose(sent: &[(Delivery, Sent)], why: &str) {
    for (delivery, _) in sent {
        tracing::error!(webhook.id = %delivery.id, error = why, "webhook not recorded, it is sent again");
    }
}

async fn send(
    delivery: &Delivery,
    master: &str,
    private: bool,
    deadline: Deadline,
    mut place: Place,
) -> Sent {
    let request = match request(delivery, master, private) {
        Ok(request) => request,
        Err(why) => return Sent::GiveUp(why),
    };
    let allow = if private { Allow::Anything } else { Allow::PublicHttps };
    let answer =
        http_client::send_where(request, allow, ANSWER_BYTES, deadline, |address| place.enter(address)).await;
    let answer = match (answer, place.unfit) {
        (Ok(None), Some(Unfit::Full)) => return Sent::PutBack(SEND_BUDGET.mul_f64(1.0 + jitter())),
        (Ok(None), _) => {
            let why = "not sent: its receiver leaves others unanswered".to_owned();
            return again(delivery.sending(), None, why, jitter());
        }
        (Ok(Some(answer)), _) => Ok(answer),
        (Err(error), _) => Err(error),
    };
    place.note(!matches!(answer, Err(HttpError::TimedOut)));
    judge(delivery.sending(), answer)
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

    #[test]
    fn accounts_are_visited_in_a_circle_until_one_whole_has_had_nothing() {
        let at = |n| Some(Uuid::from_u128(n));
        let mut circle = Circle { after: Uuid::from_u128(7), whole: false, some: false };
        assert!(circle.go_on(at(9), false) && circle.after == Uuid::from_u128(9));
        assert!(circle.go_on(None, false), "not yet from the beginning");
        assert_eq!((circle.after, circle.whole), (Uuid::nil(), true));
        assert!(circle.go_on(at(3), true) && circle.go_on(at(9), false));
        assert!(circle.go_on(None, false), "there was some");
        assert!(circle.go_on(at(3), false) && !circle.go_on(None, false), "there was none");
        assert!(circle.go_on(None, true), "once there is room again");
    }
}
