//! Those who buy and cancel: one by one and in batches, by a key twice at once, without waiting for the answer, and inside
//! transactions of their own.

use std::time::Duration;

use serde_json::{Value, json, value::to_raw_value};
use shared::{
    db::jobs::{JobOptions, JobWebhook, NewJob},
    domain::Deadline,
};
use tokio::sync::Notify;
use uuid::Uuid;

use super::{
    record::{Answer, BUSY, Done, Finding, Run, keep},
    stage::{Actor, NOWHERE, PLENTY, SCRIPTED, SOURCE, SPREAD, TIGHT, terms},
};
use crate::life::{lane::KINDS, races::soon};

/// Whether somebody buys and cancels several times within one transaction.
const OWN_TRANSACTIONS: bool = true;
/// Unfinished jobs, about: few, so that everybody meets.
const FEW: u64 = 60;
/// The newest jobs and runs, which all actors choose from.
pub const NEWEST: usize = 60;

/// What is to be bought, perhaps by several at once.
#[derive(Debug, Clone)]
pub struct Purchase {
    pub account: usize,
    pub kinds: Vec<usize>,
    pub key: Option<String>,
    /// In the input of each job.
    pub mark: String,
    webhook: bool,
    priority: i16,
    script: usize,
}

/// What jobs of the worker's process do, run by run; the last run ends them.
pub fn scripts() -> [Value; 7] {
    let done = json!({ "do": "done", "seconds": 0.05 });
    [
        json!([done]),
        json!([{ "do": "err" }, done]),
        json!([{ "do": "yield", "seconds": 0.02 }, { "do": "err" }, done]),
        json!([{ "do": "progress", "percent": 30, "message": "drawing", "seconds": 0.05 }]),
        json!([{ "do": "chatter", "percent": 20, "seconds": 0.2 }]),
        json!([{ "do": "yield", "save": 1 }, done]),
        json!([{ "do": "err" }, { "do": "final" }]),
    ]
}

impl Purchase {
    fn input(&self) -> Value {
        json!({ "mark": self.mark, "script": scripts()[self.script] })
    }
}

impl Actor {
    pub async fn buys(&mut self) {
        for nth in 0_u64.. {
            if !self.history().goes_on() {
                return;
            }
            if nth.is_multiple_of(3) {
                let hour = Duration::from_secs(3_600);
                let backlog = self.db.backlog(FEW * 2, hour, soon()).await;
                if backlog.is_ok_and(|backlog| backlog.due + backlog.running > FEW) {
                    self.pause(20).await;
                    continue;
                }
            }
            let known: Vec<Purchase> = self.history().board().keyed.iter().cloned().collect();
            // Somebody else's, as likely as not while they are still at it; or once more.
            let twin = if self.one_in(3) { known.last().cloned() } else { None };
            let again = if self.one_in(8) { self.dice.pick(&known) } else { None };
            let purchase = match twin.or(again) {
                Some(purchase) => purchase,
                None => {
                    let keyed = !self.one_in(3);
                    self.purchase(keyed)
                }
            };
            // Who does not wait asks again, by the same key; that may be bought after all, later than a refusal.
            if purchase.key.is_some() && purchase.account != TIGHT && self.one_in(20) {
                let moment = Duration::from_micros(500 + self.dice.below(4_000) as u64);
                self.buy(&purchase, Deadline::after(moment), true).await;
            }
            self.buy(&purchase, soon(), false).await;
            self.pause(3).await;
        }
    }

    fn purchase(&mut self, keyed: bool) -> Purchase {
        let mark = format!("{} {}", self.name, self.history().number());
        let key = keyed.then(|| format!("key of {mark}"));
        let many = if self.one_in(3) { 2 + self.dice.below(20) } else { 1 };
        let mut kinds = Vec::new();
        for _ in 0..many {
            let scripted = self.stage.process && self.one_in(12);
            kinds.push(if scripted { SCRIPTED } else { self.dice.below(4) });
        }
        let account = self.dice.pick(&[PLENTY, TIGHT, SPREAD, SPREAD, SOURCE]).expect("one");
        let (webhook, priority) = (self.one_in(4), self.dice.pick(&[0, 0, -5]).expect("one"));
        let purchase = Purchase { account, kinds, key, mark, webhook, priority, script: self.dice.below(7) };
        if purchase.key.is_some() {
            keep(&mut self.history().board().keyed, purchase.clone(), 8);
        }
        purchase
    }

    async fn buy(&self, purchase: &Purchase, deadline: Deadline, impatient: bool) {
        let account = self.stage.accounts[purchase.account];
        let began = self.history().now();
        let bought = if let [kind] = purchase.kinds[..] {
            let webhook = purchase.webhook.then(|| JobWebhook { url: NOWHERE.to_owned(), events: None });
            let options = JobOptions { webhook, ..JobOptions::default() };
            let input = to_raw_value(&purchase.input()).expect("JSON");
            let (priority, kind) = (purchase.priority, terms(kind).name);
            let job = NewJob { kind, input: &input, priority, run_at: None, options: &options };
            let bought = self.db.enqueue(account, job, purchase.key.as_deref(), deadline).await;
            bought.map(|bought| vec![bought.job.id])
        } else {
            let job = |kind: &usize| {
                let mut job = json!({ "kind": terms(*kind).name, "input": purchase.input(), "priority": purchase.priority });
                if purchase.webhook {
                    job["webhook"] = json!({ "url": NOWHERE });
                }
                job
            };
            let jobs = Value::from_iter(purchase.kinds.iter().map(job)).to_string();
            let bought = self.db.enqueue_batch(account, &jobs, purchase.key.as_deref(), deadline).await;
            bought.map(|bought| bought.jobs.iter().map(|job| job.id).collect())
        };
        let jobs = self.history().sort((self.name, None), &["insufficient_credits"], impatient, bought);
        self.note_purchase(began, purchase, jobs);
    }

    fn note_purchase(&self, began: u64, purchase: &Purchase, jobs: Answer<Vec<Uuid>>) {
        let Purchase { account, kinds, mark, .. } = purchase.clone();
        if let Answer::Made(jobs) = &jobs {
            let mut board = self.history().board();
            for (job, kind) in jobs.iter().zip(&kinds) {
                keep(&mut board.bought, *job, NEWEST);
                board.accounts.insert(*job, account);
                if *kind == SCRIPTED {
                    keep(&mut board.scripted, *job, 10);
                }
            }
        }
        self.history().note(self.name, began, Done::Buy { account, kinds, mark, jobs });
    }

    pub async fn cancels(&mut self) {
        while self.history().goes_on() {
            let newest: Vec<Uuid> = self.history().board().bought.iter().copied().collect();
            if let Some(job) = self.dice.pick(&newest) {
                let began = self.history().now();
                let canceled = self.db.cancel(job, None, soon()).await;
                let who = (self.name, Some(job));
                let done = self.history().sort(who, &["not_cancelable", BUSY], false, canceled);
                self.history().note(self.name, began, Done::Cancel { job, done });
            }
            self.pause(12).await;
        }
    }

    /// Does one thing within a transaction that stays open for some milliseconds, as a team's backend does: a run says how far
    /// it is, mostly, so that others meet a row that is locked and then another.
    pub async fn holds(&mut self) {
        while self.history().goes_on() {
            let (runs, jobs) = {
                let board = self.history().board();
                (board.settling.clone(), board.bought.iter().copied().collect::<Vec<Uuid>>())
            };
            match self.dice.below(12) {
                0 => {
                    let kinds = vec![self.dice.below(4)];
                    let purchase = Purchase { kinds, ..self.purchase(false) };
                    self.in_transaction(&[purchase], &[]).await;
                }
                1 => {
                    let jobs: Vec<Uuid> = self.dice.pick(&jobs).into_iter().collect();
                    self.in_transaction(&[], &jobs).await;
                }
                2 if OWN_TRANSACTIONS => {
                    let mut purchases = Vec::new();
                    for _ in 0..3 {
                        let kinds = vec![self.dice.below(4)];
                        let purchase = self.purchase(false);
                        purchases.push(Purchase { kinds, account: SPREAD, ..purchase });
                    }
                    self.in_transaction(&purchases, &[]).await;
                }
                3 if OWN_TRANSACTIONS => {
                    // Of one account, and not of several shares: those may meet others in the wrong order.
                    let account = self.dice.pick(&[PLENTY, TIGHT, SOURCE]);
                    let theirs = |job: &Uuid| self.history().board().accounts.get(job).copied() == account;
                    let theirs: Vec<Uuid> = jobs.iter().filter(|job| theirs(job)).copied().collect();
                    let mut some: Vec<Uuid> = Vec::new();
                    for job in (0..6).filter_map(|_| self.dice.pick(&theirs)) {
                        if !some.contains(&job) {
                            some.push(job);
                        }
                    }
                    self.in_transaction(&[], &some).await;
                }
                _ => {
                    if let Some(run) = self.dice.pick(&runs) {
                        let hold = self.moment(15);
                        self.hold(run, hold, &Notify::new()).await;
                    }
                }
            }
            self.pause(4).await;
        }
    }

    /// Buys and cancels, all or nothing.
    async fn in_transaction(&mut self, purchases: &[Purchase], jobs: &[Uuid]) {
        let began = self.history().now();
        let mut statements = Vec::new();
        for purchase in purchases {
            let (account, kind) = (self.stage.accounts[purchase.account], KINDS[purchase.kinds[0]].name);
            let input = purchase.input();
            statements
                .push(format!("SELECT job_id FROM punchcard.enqueue('{account}', '{kind}', '{input}')"));
        }
        statements
            .extend(jobs.iter().map(|job| format!("SELECT '{job}'::uuid FROM punchcard.cancel('{job}')")));
        let rules = ["insufficient_credits", "not_cancelable"];
        let hold = self.moment(15);
        let done = self.transaction(&statements, &rules, hold, &Notify::new()).await;
        match (done, jobs) {
            (Answer::Made(rows), _) => {
                let (bought, canceled) = rows.split_at(purchases.len());
                for (purchase, job) in purchases.iter().zip(bought) {
                    self.note_purchase(began, purchase, Answer::Made(vec![*job]));
                }
                for job in canceled {
                    self.history().note(self.name, began, Done::Cancel { job: *job, done: Answer::Made(()) });
                }
            }
            // One of several refuses all: then it is not known which.
            (Answer::Refused(word), &[job]) => {
                self.history().note(self.name, began, Done::Cancel { job, done: Answer::Refused(word) });
            }
            _ => {}
        }
    }

    /// Says how far a run is in a transaction that then stays open for so long; `held` hears when it is.
    pub async fn hold(&self, run: Run, hold: Duration, held: &Notify) {
        let began = self.history().now();
        let Run { job, token } = run;
        let statement = format!(
            "SELECT '{job}'::uuid FROM punchcard.call_back('{job}', {token}, 'progress', p_percent => 9::smallint)"
        );
        let rules = ["callback_used", "callback_expired"];
        let done = self.transaction(&[statement], &rules, hold, held).await;
        self.note_progress(began, run, done);
    }

    /// Answers the jobs that the statements name.
    async fn transaction(
        &self,
        statements: &[String],
        rules: &[&str],
        hold: Duration,
        held: &Notify,
    ) -> Answer<Vec<Uuid>> {
        let (client, mut jobs) = (self.client(), Vec::new());
        client.batch_execute("BEGIN").await.expect("a transaction");
        for statement in statements {
            match client.query_typed(statement, &[]).await {
                Ok(rows) => jobs.extend(rows.iter().map(|row| row.get::<_, Uuid>(0))),
                Err(error) => {
                    client.batch_execute("ROLLBACK").await.expect("an end of it");
                    held.notify_one();
                    let refused = error.as_db_error().map(|error| (error.code().code(), error.message()));
                    return match refused {
                        Some((_, word)) if rules.contains(&word) => Answer::Refused(word.to_owned()),
                        Some(("55P03", _)) => Answer::Refused(BUSY.to_owned()),
                        _ => {
                            let what = format!("{} was answered: {error:?}", self.name);
                            self.history().found(Finding::new(what));
                            Answer::Unknown
                        }
                    };
                }
            }
        }
        held.notify_one();
        tokio::time::sleep(hold).await;
        client.batch_execute("COMMIT").await.expect("an end of it");
        Answer::Made(jobs)
    }
}
