//! Where a history plays: few accounts, few kinds, a credit source; everybody's connections; and the end of it, when all that
//! is unfinished is finished.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::{Value, json};
use shared::db::Db;
use tokio_postgres::Client;
use uuid::Uuid;

use super::record::{Answer, Done, History, Run};
use crate::{
    life::{
        lane::{Dice, KINDS, make_kinds},
        model::Terms,
    },
    support::{APP, Bench, OWNER, as_role, connect},
};

/// Seconds: nobody's life is over within a history.
const LIFE: i64 = 604_800;
/// Its kind in `terms`: the worker's process has it to itself.
pub const SCRIPTED: usize = KINDS.len();
/// Nobody listens there.
pub const NOWHERE: &str = "http://127.0.0.1:9/history";

/// The accounts, by what is special about them.
pub const PLENTY: usize = 0;
pub const TIGHT: usize = 1;
pub const SPREAD: usize = 2;
/// It draws from the credit source, and has nothing else.
pub const SOURCE: usize = 3;
/// What each starts with.
pub const CREDITS: [i64; 4] = [2_000_000, 60, 2_000_000, 2_000_000];

pub struct Stage {
    pub bench: Bench,
    pub accounts: [Uuid; 4],
    /// Whether a worker's process takes part, with a kind of its own.
    pub process: bool,
    pub history: History,
}

/// Somebody who takes part, with a connection of their own.
pub struct Actor {
    pub name: &'static str,
    pub stage: Arc<Stage>,
    pub db: Db,
    pub dice: Dice,
    /// For transactions of their own, past the pooler.
    pub client: Option<Client>,
}

/// A job as it is at the end, in what was asked of it and what came of it.
#[derive(Debug)]
pub struct Final {
    pub account: Uuid,
    pub kind: String,
    pub status: String,
    pub price: i64,
    pub captured: i64,
    pub attempt: i16,
    pub max_attempts: i16,
    pub output: Option<String>,
    pub retry_of: Option<Uuid>,
    pub input: Value,
}

pub fn terms(kind: usize) -> Terms {
    let scripted = Terms { name: "test.scripted", price: 10, cancel_url: None, ..KINDS[0] };
    KINDS.get(kind).copied().unwrap_or(scripted)
}

impl Stage {
    pub async fn new(process: bool) -> Arc<Self> {
        let bench = Bench::new().await;
        make_kinds(&bench, 0, LIFE).await;
        bench.scripted_kind("backoff = 'fixed', backoff_delays = '{0}'").await;
        bench
            .sql(&format!("UPDATE punchcard.kinds SET cancel_url = '{NOWHERE}' WHERE cancel_url IS NOT NULL"))
            .await;
        let accounts = std::array::from_fn(|_| Uuid::new_v4());
        let (wallet, credits) = (accounts[SOURCE], CREDITS[SOURCE]);
        bench
            .sql(&format!(
                "CREATE TABLE public.wallets (user_id uuid PRIMARY KEY, credits bigint NOT NULL CHECK (credits >= 0));
                 INSERT INTO public.wallets VALUES ('{wallet}', {credits});
                 GRANT SELECT, UPDATE ON public.wallets TO {OWNER};
                 SELECT punchcard.use_credit_source('public.wallets', 'user_id', 'credits')"
            ))
            .await;
        for account in [PLENTY, TIGHT, SPREAD] {
            let (id, credits) = (accounts[account], CREDITS[account]);
            bench.sql(&format!("SELECT punchcard.grant_credits('{id}', {credits}, 'start')")).await;
        }
        bench.sql(&format!("SELECT punchcard.spread_account('{}', 3)", accounts[SPREAD])).await;
        Arc::new(Self { bench, accounts, process, history: History::new() })
    }

    /// An actor with the functions' connection.
    pub fn actor(self: &Arc<Self>, name: &'static str, seed: u64) -> Actor {
        Actor { name, stage: Arc::clone(self), db: self.bench.db(), dice: dice(name, seed), client: None }
    }

    /// One with the operator's.
    pub fn operator(self: &Arc<Self>, name: &'static str, seed: u64) -> Actor {
        let db = self.bench.operators_db();
        Actor { name, stage: Arc::clone(self), db, dice: dice(name, seed), client: None }
    }

    pub async fn jobs(&self) -> BTreeMap<Uuid, Final> {
        let jobs = "SELECT id, account_id, kind, status, price, coalesce(captured, 0), attempt, max_attempts, output::text,
                           retry_of, input::text FROM punchcard.jobs_now";
        let job = |row: &tokio_postgres::Row| Final {
            account: row.get(1),
            kind: row.get(2),
            status: row.get(3),
            price: row.get(4),
            captured: row.get(5),
            attempt: row.get(6),
            max_attempts: row.get(7),
            output: row.get(8),
            retry_of: row.get(9),
            input: serde_json::from_str(row.get(10)).expect("JSON"),
        };
        self.bench.rows(jobs).await.iter().map(|row| (row.get(0), job(row))).collect()
    }

    async fn unfinished(&self, which: &str) -> Vec<Uuid> {
        let sql = format!(
            "SELECT id FROM punchcard.jobs_now WHERE status IN ('queued', 'running') AND {which} ORDER BY id"
        );
        self.bench.rows(&sql).await.iter().map(|row| row.get(0)).collect()
    }
}

/// A sequence of its own for each name.
fn dice(name: &str, seed: u64) -> Dice {
    Dice(name.bytes().fold(seed, |sum, byte| sum.wrapping_mul(0x100_0000_01b3).wrapping_add(byte.into())))
}

impl Actor {
    pub fn history(&self) -> &History {
        &self.stage.history
    }

    /// One with a connection more: the team's own, as whoever may call what the functions may.
    pub async fn with_client(mut self) -> Self {
        self.client = Some(connect(&as_role(&self.stage.bench.direct_url, APP)).await);
        self
    }

    pub fn client(&self) -> &Client {
        self.client.as_ref().expect("an actor with one")
    }

    /// What they do, until the operations are used up.
    pub async fn act(mut self) -> Self {
        match self.name.trim_end_matches(char::is_numeric) {
            "buyer " => self.buys().await,
            "canceler" => self.cancels().await,
            "holder" => self.holds().await,
            "worker " => self.works().await,
            "outside " => self.calls_back().await,
            "operator " => self.operates().await,
            "messenger" => self.tells().await,
            "observer" => self.looks().await,
            "process" => self.ticks().await,
            other => panic!("{other} has no part"),
        }
        self
    }

    /// Up to so many milliseconds.
    pub fn moment(&mut self, most: u64) -> Duration {
        Duration::from_micros(self.dice.below(most * 1_000 + 1) as u64)
    }

    pub async fn pause(&mut self, most: u64) {
        let moment = self.moment(most);
        tokio::time::sleep(moment).await;
    }

    /// Once for every so many times.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.dice.below(times) == 0
    }

    /// Finishes whatever is unfinished, as a worker that has all the time there is; answers what cannot be finished.
    pub async fn finish_all(mut self) -> Vec<Uuid> {
        let worker = self.stage.process.then(|| self.stage.bench.scripted_worker());
        let mut idle = 0;
        loop {
            let mut busy = self.rescue().await > 0;
            let leases = self.claim(500, super::workers::LONG).await;
            busy |= !leases.is_empty();
            self.complete(leases).await;
            for job in self.stage.unfinished("waiting_until IS NOT NULL").await {
                busy |= self.call_last_back(job).await;
            }
            if let Some(worker) = &worker
                && !self.stage.unfinished("kind = 'test.scripted'").await.is_empty()
            {
                busy |= self.tick(worker).await > 0;
            }
            let left = self.stage.unfinished("true").await;
            // Leases, waits and pauses that are over by then, all of them.
            idle = if busy { 0 } else { idle + 1 };
            if left.is_empty() || idle > 100 {
                return left;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends the job's last run from outside, if anybody knows of one; answers whether it did.
    async fn call_last_back(&mut self, job: Uuid) -> bool {
        let entries = self.history().entries();
        let last = entries.iter().rev().find_map(|entry| match &entry.done {
            Done::Claim { runs, .. } => runs.iter().find(|run| run.job == job).copied(),
            _ => None,
        });
        let Some(Run { token, .. }) = last else { return false };
        matches!(self.call_back(Run { job, token }, super::workers::Call::Done).await, Answer::Made(_))
    }

    /// One tick of the worker's process; answers how many jobs it took.
    pub async fn tick(&self, worker: &local::lambda::Function) -> u64 {
        let began = self.history().now();
        let summary = worker.invoke(&json!({})).await.expect("a tick");
        let count = |name: &str| summary[name].as_u64().expect("a count");
        self.history().note(self.name, began, Done::Tick { lost: count("lost") });
        count("claimed")
    }
}
