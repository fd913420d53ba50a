//! All SQL of the project, one statement to a file, and the one connection of an execution environment.
//!
//! Statements go out unnamed and return built-in types only: named ones break behind a transaction pooler, and a
//! user-defined result type brings them back through the driver's own look-ups (ADR 0003).

pub mod accounts;
pub mod audit;
pub mod batch;
pub mod callbacks;
pub mod connect;
pub mod connection_string;
pub mod credits;
pub mod diagnosis;
mod error;
pub mod jobs;
pub mod kinds;
pub mod life;
#[cfg(feature = "migrate")]
pub mod migrate;
pub mod pinned;
pub mod queue;
pub mod retention;
pub mod schema;
pub mod sqlstate;
mod statements;
pub mod tokens;
pub mod upkeep;
pub mod webhooks;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use futures_util::StreamExt;
use tokio::{sync::Mutex, time::timeout_at};
use tokio_postgres::{
    Client, Row,
    types::{ToSql, Type},
};

use connect::Socket;
pub use error::DbError;
use error::Failed;
pub use statements::STATEMENTS;

use crate::{
    domain::Deadline,
    secrets::{SecretStore, Secrets},
};

/// A parameter and the type it is sent as.
type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// How many bytes of JSON a page of a list has at most, but for its first entry. As an answer of Lambda's it is a JSON string, in
/// which each may become two; that has 6 MiB at most.
pub const PAGE_BYTES: i64 = 2_500_000;
/// Opening a connection may take this long at most.
const CONNECT_BUDGET: Duration = Duration::from_secs(5);
/// After a refused password nobody is bothered for this long.
const DENIED_FOR: Duration = Duration::from_secs(60);
/// A connection unused for longer than this may have died while the function was frozen: it is asked first.
const TRUSTED_FOR: Duration = Duration::from_secs(10);
/// How long that question may take.
const CHECK_BUDGET: Duration = Duration::from_secs(1);
/// How often a statement that was in a deadlock, or could not be serialized, is sent again, and the pause before it, times
/// two for each time.
const COLLISIONS: u32 = 3;
const COLLISION_PAUSE: Duration = Duration::from_millis(10);
/// A connection that answers nothing for this long is held up by its first statement.
const STALLED_AFTER: Duration = Duration::from_millis(50);

/// The connection of an execution environment, opened when first needed and replaced after any doubt. One statement at a time is
/// on its way on it (ADR 5). A poller may have two, and an environment that serves several requests at once a few, each in a slot
/// of its own.
#[derive(Debug)]
pub struct Db {
    secrets: Arc<SecretStore>,
    slots: Box<[Slot]>,
    /// When, and why, the server last refused to let us in.
    denied: std::sync::Mutex<Option<(Instant, String)>>,
    /// One connection is opened at a time: a password that is refused is not sent by each slot.
    connecting: Mutex<()>,
    /// Whether each statement has a path of its own: see [`pinned`].
    pinned: bool,
}

#[derive(Debug, Default)]
struct Slot {
    connection: Mutex<Option<Arc<Connection>>>,
    /// Statements that wait for an answer, and since when nothing has been answered.
    waiting: std::sync::Mutex<(usize, Option<Instant>)>,
}

#[derive(Debug)]
struct Connection {
    client: Client,
    _socket: Socket,
    opened: Instant,
    /// When the last answer came, in milliseconds after `opened`.
    used: AtomicU64,
    /// A statement on it had no answer, or lost it: no other goes out on it.
    doubted: AtomicBool,
    /// Held by the statement that is on its way. A pooler takes the first of two answers for the end, and if the client dies
    /// then, gives its connection to another, who reads the second: rows that are somebody else's.
    alone: Mutex<()>,
}

/// Whether a statement may be sent again when its outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    /// It reads, or a key or lease token makes a second execution a no-op.
    Safe,
    /// A second execution might do it twice.
    Unsafe,
}

impl Again {
    /// A key makes a second purchase a replay.
    fn if_keyed(key: Option<&str>) -> Self {
        if key.is_some() { Self::Safe } else { Self::Unsafe }
    }
}

impl Db {
    /// A database that nobody has connected to yet.
    #[must_use]
    pub fn new(secrets: Arc<SecretStore>) -> Self {
        Self::with_connections(secrets, 1)
    }

    /// The same, by up to so many connections at once: for an environment that serves several requests.
    #[must_use]
    pub fn with_connections(secrets: Arc<SecretStore>, connections: usize) -> Self {
        let slots = (0..connections.max(1)).map(|_| Slot::default()).collect();
        let (denied, connecting) = (std::sync::Mutex::default(), Mutex::default());
        Self { secrets, slots, denied, connecting, pinned: false }
    }

    /// The same for an operator, who may log in as anybody: what others have created is never taken for PostgreSQL's own.
    #[must_use]
    pub fn for_operator(secrets: Arc<SecretStore>) -> Self {
        Self { pinned: true, ..Self::new(secrets) }
    }

    /// Sends one statement and answers its rows: one round trip. A connection that turns out to be dead, or of no use (a
    /// primary that was demoted), is replaced once, if the statement was not executed or may be executed again. A statement
    /// that was rolled back because it collided with others is sent again, a few times.
    async fn rows(
        &self,
        sql: &str,
        params: &[Param<'_>],
        again: Again,
        deadline: Deadline,
    ) -> Result<Vec<Row>, DbError> {
        let mut slot = self.slot();
        let mut _waiting = Waiting::on(slot);
        // Once a first try may have been executed, no later failure to connect makes that undone.
        let mut unknown = None;
        let (mut replaced, mut moved, mut collisions) = (false, false, 0);
        loop {
            let connection = match self.connection(slot, deadline).await {
                Ok(connection) => connection,
                // Where there is no room for another connection, what is open is waited for.
                Err(error) => match self.open_slot().filter(|_| unknown.is_none() && !moved) {
                    Some(open) => {
                        tracing::warn!(error = %error, "by a connection that is open");
                        (slot, moved) = (open, true);
                        _waiting = Waiting::on(slot);
                        continue;
                    }
                    None => return Err(unknown.unwrap_or(error)),
                },
            };
            let Ok(alone) = timeout_at(deadline.instant(), connection.alone.lock()).await else {
                let waited = DbError::Unavailable("the statements before it took all of its time".into());
                return Err(unknown.unwrap_or(waited));
            };
            // Whoever had it before may have lost it.
            if connection.doubted.load(Ordering::Relaxed) {
                continue;
            }
            let client = &connection.client;
            let query = async {
                match self.pinned {
                    true => {
                        let answer = pinned::query(client, sql, params).await;
                        let ended = answer.is_ok();
                        (answer, ended)
                    }
                    false => ask(client, sql, params).await,
                }
            };
            let asked = Asked(&connection);
            let answer = timeout_at(deadline.instant(), query).await;
            let ended = matches!(answer, Ok((_, true)));
            if ended {
                asked.answered();
            }
            let failed = match answer.map(|(rows, _)| rows) {
                Ok(Ok(rows)) => {
                    connection.has_answered();
                    return Ok(rows);
                }
                Ok(Err(error)) => Failed::of(&error),
                // The server goes on with a statement whose future was dropped: the connection goes with it.
                Err(_) => {
                    slot.give_up(&connection);
                    return Err(DbError::Unknown("no answer in time".into()));
                }
            };
            if failed.sound && ended {
                connection.has_answered();
            } else {
                slot.give_up(&connection);
            }
            let pause = COLLISION_PAUSE * 2_u32.pow(collisions);
            let collided = failed.at_once && collisions < COLLISIONS && deadline.left() > pause * 2;
            let replace = match failed.error {
                DbError::Unavailable(_) | DbError::Unfit(_) => !failed.sound && !replaced,
                DbError::Unknown(_) => again == Again::Safe && !replaced,
                _ => false,
            };
            if !collided && !replace {
                return Err(unknown.unwrap_or(failed.error));
            }
            if collided {
                tracing::warn!(error = %failed.error, "sent again");
                drop(alone);
                tokio::time::sleep(spread(pause)).await;
                collisions += 1;
            } else {
                tracing::warn!(error = %failed.error, "database connection replaced");
                replaced = true;
            }
            if matches!(failed.error, DbError::Unknown(_)) {
                unknown = Some(failed.error);
            }
        }
    }

    /// The first slot where the fewest statements wait, rather than one whose first waits for long: the others are
    /// behind it.
    fn slot(&self) -> &Slot {
        let fewest = self.slots.iter().min_by_key(|slot| {
            let (waiting, since) = *lock(&slot.waiting);
            (waiting > 0 && since.is_some_and(|since| since.elapsed() > STALLED_AFTER), waiting)
        });
        fewest.unwrap_or(&self.slots[0])
    }

    /// A slot whose connection is open, and in no doubt.
    fn open_slot(&self) -> Option<&Slot> {
        self.slots.iter().find(|slot| {
            slot.connection.try_lock().is_ok_and(|current| {
                current.as_ref().is_some_and(|open| !open.doubted.load(Ordering::Relaxed))
            })
        })
    }

    /// The slot's connection, if it still answers; else a new one.
    async fn connection(&self, slot: &Slot, deadline: Deadline) -> Result<Arc<Connection>, DbError> {
        let busy = |_| DbError::Unavailable("another request is connecting".into());
        let mut current = timeout_at(deadline.instant(), slot.connection.lock()).await.map_err(busy)?;
        let connection = match current.take() {
            Some(connection) if connection.is_alive(deadline).await => connection,
            _ => Arc::new(self.connect(deadline).await?),
        };
        *current = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// A new connection. A refused password is tried again once if the secret has been rotated meanwhile; else not for a
    /// minute, since poolers lock an address out after a few.
    async fn connect(&self, deadline: Deadline) -> Result<Connection, DbError> {
        let busy = |_| DbError::Unavailable("another request is connecting".into());
        let _alone = timeout_at(deadline.instant(), self.connecting.lock()).await.map_err(busy)?;
        if let Some((since, why)) = lock(&self.denied).as_ref()
            && since.elapsed() < DENIED_FOR
        {
            return Err(DbError::Denied(why.clone()));
        }
        let deadline = deadline.within(CONNECT_BUDGET);
        let secrets = self.secrets.get(deadline).await?;
        let mut opened = open_within(&secrets, deadline).await;
        if let Err(DbError::Denied(why)) = &opened {
            tracing::error!(error = why, "the database refuses to let us in");
            if let Some(rotated) = self.secrets.changed(&secrets, deadline).await? {
                opened = open_within(&rotated, deadline).await;
            }
        }
        if let Err(DbError::Denied(why)) = &opened {
            *lock(&self.denied) = Some((Instant::now(), why.clone()));
        }
        let (client, socket) = opened?;
        Ok(Connection {
            client,
            _socket: socket,
            opened: Instant::now(),
            used: AtomicU64::new(0),
            doubted: AtomicBool::new(false),
            alone: Mutex::default(),
        })
    }
}

impl Slot {
    /// The next statement gets another connection; this one closes once nobody waits for it.
    fn give_up(&self, connection: &Arc<Connection>) {
        connection.doubted.store(true, Ordering::Relaxed);
        // Whoever has the lock may be connecting: that is not waited for.
        if let Ok(mut current) = self.connection.try_lock() {
            current.take_if(|current| Arc::ptr_eq(current, connection));
        }
    }
}

/// Asks, and says whether the end of the answer has come: behind an error, too, it comes a moment later, and a pooler that hears
/// the next question before takes it for that one's (ADR 5).
async fn ask(
    client: &Client,
    sql: &str,
    params: &[Param<'_>],
) -> (Result<Vec<Row>, tokio_postgres::Error>, bool) {
    let params = params.iter().map(|(value, its_type)| (*value, its_type.clone()));
    let mut answer = match client.query_typed_raw(sql, params).await {
        Ok(answer) => std::pin::pin!(answer),
        Err(error) => return (Err(error), false),
    };
    let (mut rows, mut failed) = (Vec::new(), None);
    loop {
        match answer.next().await {
            Some(Ok(row)) => rows.push(row),
            Some(Err(error)) if failed.is_none() && error.as_db_error().is_some() => failed = Some(error),
            Some(Err(error)) => return (Err(failed.unwrap_or(error)), false),
            None => return (failed.map_or(Ok(rows), Err), true),
        }
    }
}

/// A question on its way. Dropped without an answer, as when whoever asked is, it dooms its connection: what is asked next would
/// go out behind it.
struct Asked<'a>(&'a Connection);

impl Asked<'_> {
    fn answered(self) {
        std::mem::forget(self);
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.doubted.store(true, Ordering::Relaxed);
    }
}

/// Counted for as long as it lives.
struct Waiting<'a>(&'a Slot);

impl<'a> Waiting<'a> {
    fn on(slot: &'a Slot) -> Self {
        let mut waiting = lock(&slot.waiting);
        if waiting.0 == 0 {
            waiting.1 = Some(Instant::now());
        }
        waiting.0 += 1;
        Self(slot)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = lock(&self.0.waiting);
        *waiting = (waiting.0.saturating_sub(1), Some(Instant::now()));
    }
}

/// From the pause to twice as long, so that two who collided do not do so again.
fn spread(pause: Duration) -> Duration {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
    pause + pause.mul_f64(f64::from(nanos % 1_000_003) / 1_000_003.0)
}

async fn open_within(secrets: &Secrets, deadline: Deadline) -> Result<(Client, Socket), DbError> {
    let opened = timeout_at(deadline.instant(), connect::open(secrets)).await;
    opened.unwrap_or_else(|_| Err(DbError::Unavailable("connecting took too long".into())))
}

/// A panic elsewhere leaves what is behind it as it was.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Connection {
    fn has_answered(&self) {
        let millis = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.used.store(millis, Ordering::Relaxed);
    }

    /// Whether the connection still answers. Asked only after a pause: `is_closed` alone does not know about a
    /// connection that died while the process was frozen.
    async fn is_alive(&self, deadline: Deadline) -> bool {
        if self.doubted.load(Ordering::Relaxed) {
            return false;
        }
        let unused =
            self.opened.elapsed().saturating_sub(Duration::from_millis(self.used.load(Ordering::Relaxed)));
        // While a statement is on its way, that is the question.
        if let Ok(_alone) = self.alone.try_lock()
            && unused > TRUSTED_FOR
        {
            let asked = Asked(self);
            let check =
                timeout_at(deadline.within(CHECK_BUDGET).instant(), self.client.check_connection()).await;
            if matches!(check, Ok(Ok(()))) {
                asked.answered();
                return true;
            }
            return false;
        }
        !self.client.is_closed()
    }
}
