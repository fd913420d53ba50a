//! Those who run it: credits in and out, refunds, retries, redrives, webhooks; and those who only look.

use shared::{
    db::{
        life::{FailedFilter, RedrivePace},
        webhooks::{Round, Sent},
    },
    domain::{Status, Timestamp},
};
use std::time::Duration;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{
    buyers::NEWEST,
    record::{Answer, Done, Finding, Seen, keep},
    stage::{Actor, NOWHERE, PLENTY, SPREAD, TIGHT},
};
use crate::life::{lane::KINDS, races::soon};

impl Actor {
    pub async fn operates(&mut self) {
        while self.history().goes_on() {
            // What has just ended, and what is ending now.
            let (ended, ending): (Vec<Uuid>, Vec<Uuid>) = {
                let board = self.history().board();
                let ended = board.ended.iter().rev().take(8).copied().collect();
                (ended, board.settling.iter().map(|run| run.job).collect())
            };
            match self.dice.below(14) {
                0..=1 => {
                    // The other one grants the same at times: it is the key that counts.
                    let account = self.dice.pick(&[PLENTY, TIGHT, TIGHT, SPREAD]).expect("one");
                    let number = self.history().number() / 100;
                    self.grant(account, &format!("grant {number} to {account}")).await;
                }
                2 => {
                    let (account, amount) = (self.dice.below(3), self.dice.pick(&[-30, 20]).expect("one"));
                    let key = format!("adjustment {}", self.history().number());
                    self.adjust(account, amount, &key).await;
                }
                3..=5 => {
                    let job = if self.one_in(3) { self.dice.pick(&ending) } else { self.dice.pick(&ended) };
                    // Who is not sure whether it was done does it again.
                    if let Some(job) = job {
                        while self.refund(job).await && self.one_in(2) {}
                    }
                }
                6..=8 => {
                    let job = if self.one_in(2) { self.dice.pick(&ending) } else { self.dice.pick(&ended) };
                    if let Some(job) = job {
                        self.retry(job).await;
                    }
                }
                9 => self.redrive().await,
                10..=11 => self.spread().await,
                12 => {
                    let began = self.history().now();
                    let returned = self.db.return_credits(soon()).await;
                    if let Answer::Made(_) = self.history().sort((self.name, None), &[], false, returned) {
                        self.history().note(self.name, began, Done::Return);
                    }
                }
                _ => {
                    self.rescue().await;
                }
            }
            self.pause(12).await;
        }
    }

    async fn grant(&self, account: usize, key: &str) {
        let amount = 20;
        let began = self.history().now();
        let granted = self.db.grant(self.stage.accounts[account], amount, key, None, None, soon()).await;
        let done = self.history().sort((self.name, None), &[], false, granted.map(drop));
        self.history().note(self.name, began, Done::Move { account, amount, key: key.to_owned(), done });
    }

    async fn adjust(&self, account: usize, amount: i64, key: &str) {
        // The team's backend does this in SQL.
        let adjust = "SELECT punchcard.increment_user_credits($1, $2, $3)";
        let id = self.stage.accounts[account];
        let params = [(&id as _, Type::UUID), (&amount as _, Type::INT8), (&key as _, Type::TEXT)];
        let began = self.history().now();
        let done = match self.stage.bench.admin.execute_typed(adjust, &params).await {
            Ok(_) => Answer::Made(()),
            Err(error) => match error.as_db_error() {
                Some(refused) if refused.message() == "insufficient_credits" => {
                    Answer::Refused(refused.message().to_owned())
                }
                _ => {
                    self.history().found(Finding::new(format!("{} was answered: {error:?}", self.name)));
                    Answer::Unknown
                }
            },
        };
        self.history().note(self.name, began, Done::Move { account, amount, key: key.to_owned(), done });
    }

    /// Answers whether it was made.
    async fn refund(&self, job: Uuid) -> bool {
        let began = self.history().now();
        let refunded = self.db.refund(job, None, soon()).await.map(|(_, amount)| amount);
        let rules = ["nothing_captured", "already_refunded"];
        let amount = self.history().sort((self.name, Some(job)), &rules, false, refunded);
        let made = matches!(amount, Answer::Made(_));
        self.history().note(self.name, began, Done::Refund { job, amount });
        made
    }

    async fn retry(&self, job: Uuid) {
        let began = self.history().now();
        let retried = self.db.retry(job, None, soon()).await.map(|retried| retried.job_id);
        let rules = ["not_retryable", "already_retried", "insufficient_credits"];
        let new = self.history().sort((self.name, Some(job)), &rules, false, retried);
        if let Answer::Made(new) = &new {
            keep(&mut self.history().board().bought, *new, NEWEST);
        }
        self.history().note(self.name, began, Done::Retry { job, new });
    }

    async fn redrive(&mut self) {
        let kind = Some(KINDS[self.dice.below(4)].name.to_owned());
        let filter = FailedFilter { kind, ..FailedFilter::default() };
        let pace = RedrivePace { limit: 10, per_second: None, delay: 0.0, after: None::<(Timestamp, Uuid)> };
        let began = self.history().now();
        let redriven = self.db.redrive(&filter, pace, soon()).await.map(|page| page.jobs);
        let Answer::Made(redriven) = self.history().sort((self.name, None), &[], false, redriven) else {
            return;
        };
        let rules = ["insufficient_credits", "already_retried", "account_busy"];
        for (job, word) in redriven.iter().filter_map(|job| Some((job.job_id, job.refused.as_ref()?))) {
            if !rules.contains(&word.as_str()) {
                self.history().found(Finding::of(job, format!("a redrive refuses it: {word}")));
            }
        }
        let jobs = redriven.iter().map(|job| (job.job_id, job.retried_as)).collect();
        self.history().note(self.name, began, Done::Redrive { jobs });
    }

    async fn spread(&mut self) {
        let shares = self.dice.pick(&[1, 2, 3, 5]).expect("one");
        let began = self.history().now();
        let spread = self.db.spread_account(self.stage.accounts[SPREAD], shares, soon()).await;
        if let Answer::Made(()) = self.history().sort((self.name, None), &[], false, spread) {
            self.history().note(self.name, began, Done::Spread);
        }
    }

    /// What is said of jobs: where to, and that it was.
    pub async fn tells(&mut self) {
        while self.history().goes_on() {
            if self.one_in(6) {
                let account = self.dice.below(3);
                let url = if self.one_in(2) { Some(NOWHERE) } else { None };
                let began = self.history().now();
                let set = self.db.set_webhook(self.stage.accounts[account], url, None, soon()).await;
                if let Answer::Made(_) = self.history().sort((self.name, None), &[], false, set) {
                    self.history().note(self.name, began, Done::SetWebhook);
                }
            }
            let began = self.history().now();
            let taken = self.db.claim_deliveries(&Round::of(20, Duration::from_secs(600)), soon()).await;
            let taken = taken.map(|taken| taken.deliveries);
            let Answer::Made(taken) = self.history().sort((self.name, None), &[], false, taken) else {
                return;
            };
            let messages = taken.iter().map(|message| (message.id, message.attempt)).collect();
            self.history().note(self.name, began, Done::TakeMessages { messages });
            self.pause(10).await;
            let mut sent = Vec::new();
            for message in taken {
                let fate = match self.dice.below(6) {
                    0 => Sent::Retry { delay: Duration::from_millis(20), error: "503".into() },
                    1 => Sent::GiveUp("404".into()),
                    2 => Sent::Gone("410".into()),
                    _ => Sent::Delivered,
                };
                sent.push((message, fate));
            }
            if !sent.is_empty() {
                let began = self.history().now();
                let recorded = self.db.settle_deliveries(&sent, soon()).await;
                // What somebody holds for a moment is not lost.
                let recorded = recorded.map(|recorded| recorded.count + recorded.out_of_reach.len());
                if let Answer::Made(recorded) = self.history().sort((self.name, None), &[], false, recorded) {
                    self.history().note(
                        self.name,
                        began,
                        Done::RecordMessages { sent: sent.len(), recorded },
                    );
                }
            }
            self.pause(30).await;
        }
    }

    pub async fn looks(&mut self) {
        while self.history().goes_on() {
            let (ended, bought): (Vec<Uuid>, Vec<Uuid>) = {
                let board = self.history().board();
                (board.ended.iter().copied().collect(), board.bought.iter().copied().collect())
            };
            match self.dice.below(30) {
                0 => self.audit().await,
                1..=3 => {
                    let account = self.dice.below(4);
                    let began = self.history().now();
                    let balance = self.db.balance(self.stage.accounts[account], soon()).await;
                    if let Answer::Made(balance) = self.history().sort((self.name, None), &[], false, balance)
                    {
                        let (available, held) = (balance.available, balance.held);
                        self.history().note(
                            self.name,
                            began,
                            Done::LookAtBalance { account, available, held },
                        );
                    }
                }
                _ => {
                    let job = if self.one_in(2) { self.dice.pick(&bought) } else { self.dice.pick(&ended) };
                    if let Some(job) = job {
                        self.look(job).await;
                    }
                }
            }
            self.pause(12).await;
        }
    }

    async fn look(&self, job: Uuid) {
        let began = self.history().now();
        let found = self.db.find_job(job, None, soon()).await;
        let Answer::Made(found) = self.history().sort((self.name, None), &[], false, found) else { return };
        let seen = found.map(|job| Seen {
            status: job.status,
            captured: job.credits.captured,
            output: job.output.flatten().map(|output| output.get().to_owned()),
        });
        let shown =
            seen.as_ref().is_none_or(|seen| (seen.status == Status::Succeeded) == seen.output.is_some());
        if !shown {
            self.history().found(Finding::of(job, format!("it is shown as {seen:?}")));
        }
        self.history().note(self.name, began, Done::Look { job, seen });
    }

    /// At any moment, not only when all is quiet.
    pub async fn audit(&self) {
        let began = self.history().now();
        // The operator's: it is not the functions' to read.
        let findings =
            "SELECT invariant || ' ' || coalesce(subject::text, '') || ' ' || finding FROM punchcard.audit";
        let findings: Vec<String> =
            self.stage.bench.rows(findings).await.iter().map(|row| row.get(0)).collect();
        if let Some(first) = findings.first() {
            self.history().found(Finding::new(format!("{}: the audit finds: {first}", self.name)));
        }
        self.history().note(self.name, began, Done::Audit);
    }
}
