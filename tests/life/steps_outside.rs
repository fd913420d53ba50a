//! What happens to jobs from outside in a random sequence (`sequences.rs`): call backs, and who is told.

use std::time::Duration;

use serde_json::value::RawValue;
use shared::{
    db::{
        callbacks::CallBack,
        webhooks::{Delivery, Event, Round, Sent},
    },
    domain::{ErrorCode, JobError},
};

use super::{
    model::{Said, Stand},
    outbox::{AGAIN, EVENTS, Heard, Hook, SENDING, Taken},
    sequences::{Sequence, refused, soon},
};

const URLS: [&str; 2] = ["https://one.test/hook", "https://two.test/hook"];

fn taken(delivery: &Delivery) -> Taken<'_> {
    let event = match &delivery.event {
        Event::Job(event) => event,
        Event::Cancel => "cancel",
    };
    let url = delivery.url.as_deref();
    Taken { id: delivery.id, job: delivery.job.id, event, url, attempt: delivery.attempt }
}

impl Sequence<'_> {
    /// Somewhere, and some events: those that end a job, or any.
    pub fn hook(&mut self) -> Hook {
        let url = self.dice.pick(&URLS).expect("one");
        let mut events = EVENTS[1..].to_vec();
        if self.dice.below(3) > 0 {
            events = EVENTS.into_iter().filter(|_| self.dice.below(3) > 0).collect();
        }
        if events.is_empty() {
            events.push(EVENTS[0]);
        }
        Hook { url, events }
    }

    /// Somebody outside calls back: of a run that waits, as often as not; else of any, also one that is over.
    pub async fn call_back(&mut self) {
        let stands = |(job, _): &&_| matches!(self.model.jobs[job].stand, Stand::Waiting { .. });
        let waiting: Vec<_> = self.runs.iter().filter(stands).copied().collect();
        let one = if self.dice.below(2) == 0 { self.dice.pick(&waiting) } else { None };
        let Some((job, run)) = one.or_else(|| self.dice.pick(&self.runs)) else { return };
        let error = |code| JobError::new(code, "no");
        let (said, words) = match self.dice.below(8) {
            0..=1 => (None, CallBack::Progress { percent: Some(7), message: None }),
            2..=3 => {
                let used = self.dice.pick(&[None, Some(0), Some(3), Some(80)]).flatten();
                (Some(Said::Done { used }), CallBack::Done { output: RawValue::NULL.to_owned(), used })
            }
            4..=5 => (Some(Said::Error), CallBack::Err(error(ErrorCode::TargetError))),
            6 => (Some(Said::Never), CallBack::Final(error(ErrorCode::TargetError))),
            _ => (Some(Said::BadInput), CallBack::Final(error(ErrorCode::InvalidInput))),
        };
        self.trace.push(format!("call back {job} run {run} {said:?}"));
        let answer = refused(self.lane.db.call_back(job, run, &words, soon()).await);
        let answer = answer.map(|answer| (answer.status.as_str(), answer.cancel_requested));
        assert_eq!(answer, self.model.call_back(job, run, said));
    }

    /// An account is told somewhere else, or of something else, or not any more.
    pub async fn set_webhook(&mut self) {
        let account = self.dice.below(2);
        let hook = if self.dice.below(5) > 0 { Some(self.hook()) } else { None };
        self.trace.push(format!("account {account} is told {hook:?}"));
        let events: Option<Vec<String>> =
            hook.as_ref().map(|hook| hook.events.iter().map(ToString::to_string).collect());
        let url = hook.as_ref().map(|hook| hook.url);
        self.lane.db.set_webhook(self.accounts[account], url, events.as_deref(), soon()).await.unwrap();
        self.model.outbox.hooks[account] = hook.map(|hook| (hook, false));
    }

    /// A worker takes messages to send. What became of them it may never record.
    pub async fn take_messages(&mut self) {
        let limit = self.dice.pick(&[1, 2, 3, 1_000]).expect("one");
        let lease = Duration::from_secs(SENDING.unsigned_abs());
        let deliveries =
            self.lane.db.claim_deliveries(&Round::of(limit, lease), soon()).await.unwrap().deliveries;
        let now = self.model.now;
        assert_eq!(deliveries.len(), self.model.outbox.due(now).min(limit));
        for delivery in deliveries {
            self.trace.push(format!("take {:?}", taken(&delivery)));
            assert!(self.model.outbox.take(now, taken(&delivery)), "{delivery:?}");
            self.sending.push(delivery);
        }
        if self.dice.below(2) == 0 {
            self.record_messages().await;
        }
    }

    /// Workers record what became of messages: in time, late, twice.
    pub async fn record_messages(&mut self) {
        let mut batch: Vec<(Delivery, Sent)> = Vec::new();
        let mut heard = Vec::new();
        for _ in 0..=self.dice.below(4) {
            if self.sending.is_empty() {
                break;
            }
            let delivery = self.sending.swap_remove(self.dice.below(self.sending.len() as u64));
            // One statement records a message once.
            if batch.iter().any(|(other, _)| other.id == delivery.id) {
                continue;
            }
            let (word, sent) = match self.dice.below(8) {
                0 => (Heard::Yes, Sent::Delivered),
                1..=3 => {
                    let delay = Duration::from_secs(AGAIN.unsigned_abs());
                    (Heard::NotNow, Sent::Retry { delay, error: "503".into() })
                }
                4 => (Heard::Never, Sent::GiveUp("it is too late".into())),
                _ => (Heard::Gone, Sent::Gone("410".into())),
            };
            self.trace.push(format!("record {:?} {word:?}", taken(&delivery)));
            heard.push(word);
            batch.push((delivery, sent));
        }
        let recorded = self.lane.db.settle_deliveries(&batch, soon()).await.unwrap().count;
        let said: Vec<_> =
            batch.iter().zip(&heard).map(|((delivery, _), word)| (taken(delivery), *word)).collect();
        assert_eq!(recorded, self.model.outbox.record(self.model.now, &said));
        let dice = &mut self.dice;
        let again = batch.into_iter().map(|(delivery, _)| delivery).filter(|_| dice.below(3) == 0);
        self.sending.extend(again);
    }
}
