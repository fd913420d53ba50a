//! Where random sequences run: kinds, accounts, a database that is emptied before each, and dice.

use shared::db::Db;
use tokio_postgres::Client;
use uuid::Uuid;

use super::model::{BACKOFF, LIFE, Terms};
use crate::support::{Bench, connect};

const PLAIN: Terms = Terms {
    name: "m.plain",
    price: 10,
    metered: false,
    cancel_costs: false,
    cancel_refused: false,
    input_error_costs: false,
    max_attempts: 3,
    max_crashes: 2,
    cancel_url: Some("https://outside.test/drop"),
};
pub const KINDS: [Terms; 4] = [
    PLAIN,
    Terms {
        name: "m.strict",
        price: 7,
        cancel_costs: true,
        input_error_costs: true,
        max_attempts: 2,
        ..PLAIN
    },
    Terms { name: "m.metered", price: 9, metered: true, cancel_refused: true, max_crashes: 1, ..PLAIN },
    Terms { name: "m.free", price: 0, max_attempts: 1, cancel_url: None, ..PLAIN },
];
pub const CREDITS: [i64; 2] = [45, 23];
/// SplitMix64: small, and the same everywhere.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, bound: u64) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound).expect("small")
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.below(from.len() as u64)].clone())
    }
}

/// Makes the kinds, with so many seconds after an error and of life.
pub async fn make_kinds(bench: &Bench, backoff: i64, life: i64) {
    for kind in KINDS {
        let word = |charged, refused| {
            if refused {
                "refuse"
            } else if charged {
                "capture"
            } else {
                "release"
            }
        };
        bench
            .sql(&format!(
                "INSERT INTO punchcard.kinds (name, price, metered, on_cancel, on_input_error, max_attempts, max_crashes,
                     cancel_url, backoff, backoff_delays, jitter, life_seconds, timeout_seconds, max_priority)
                 VALUES ('{}', {}, {}, '{}', '{}', {}, {}, {}, 'fixed', '{{{backoff}}}', 0, {life}, 30, 10)",
                kind.name,
                kind.price,
                kind.metered,
                word(kind.cancel_costs, kind.cancel_refused),
                word(kind.input_error_costs, false),
                kind.max_attempts,
                kind.max_crashes,
                kind.cancel_url.map_or("NULL".to_owned(), |url| format!("'{url}'"))
            ))
            .await;
    }
}

/// A database of its own, emptied before each sequence by a superuser whom no trigger stops.
pub struct Lane {
    pub bench: Bench,
    pub db: Db,
    owner: Client,
}

impl Lane {
    pub async fn new() -> Self {
        let bench = Bench::new().await;
        make_kinds(&bench, BACKOFF, LIFE).await;
        let owner = connect(&bench.direct_url).await;
        owner.batch_execute("SET session_replication_role = replica").await.unwrap();
        Self { db: bench.db(), bench, owner }
    }

    pub async fn begin(&self) -> [Uuid; 2] {
        self.owner
            .batch_execute(
                "DELETE FROM punchcard.jobs; DELETE FROM punchcard.queue; DELETE FROM punchcard.outcomes;
                 DELETE FROM punchcard.attempts; DELETE FROM punchcard.movements; DELETE FROM punchcard.accounts;
                 DELETE FROM punchcard.idempotency_keys; DELETE FROM punchcard.retries;
                 DELETE FROM punchcard.deferred_entries;
                 DELETE FROM punchcard.webhooks; DELETE FROM punchcard.outbox; DELETE FROM punchcard.deliveries",
            )
            .await
            .unwrap();
        [self.bench.account(CREDITS[0]).await, self.bench.account(CREDITS[1]).await]
    }
}
