//! What a worker does about a statement that records what was done, when it fails: what is not recorded is done again.

use std::{collections::BTreeMap, time::Duration};

use shared::{db::DbError, domain::Deadline};
use uuid::Uuid;

/// What the margin of the invocation has left when nothing is recorded any more.
pub(crate) const TO_ANSWER: Duration = Duration::from_millis(500);
/// A statement that is not answered for this long is sent again on another connection: the server's own time-out, 15 s, is over.
pub(crate) const SEND_BUDGET: Duration = Duration::from_secs(16);
/// How long what others hold is left alone before it is come back to, at first and at most.
pub(crate) const HELD_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// The pause before a statement is sent again to a server that is away, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How often a statement is sent again that is not answered: then it may be a part of it that costs the connection, or the time.
const TRIES_UNANSWERED: u32 = 3;

/// What has failed for so long would keep all others waiting, were it tried in many parts.
pub(crate) const SLOW: Duration = Duration::from_secs(2);

/// What is to be done about a batch that was not recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mend {
    /// Send it again: it was about the moment, or the connection.
    Again,
    /// Try it in parts: it may be about one of them. If that was slow, what has not been tried goes first, and what is one
    /// account's alone is come back to.
    Part { slow: bool },
    /// Come back to it later: it is about this one, or about all, now.
    ComeBack,
    /// The database refuses this one, now and for ever.
    Refuse,
    /// There is no time left.
    Lose,
}

/// The failures since something was recorded last.
#[derive(Debug)]
pub(crate) struct Failures {
    count: u32,
    pause: Duration,
}

impl Failures {
    pub(crate) fn none() -> Self {
        Self { count: 0, pause: PAUSE.0 }
    }

    /// What to do about the next of them, after a batch of so many, so long after the first. Waits, if the server is to be left
    /// alone for a while.
    pub(crate) async fn mend(
        &mut self,
        error: &DbError,
        (batch, since): (usize, Duration),
        until: Deadline,
    ) -> Mend {
        tracing::error!(error = %error, batch, "recording failed");
        self.count += 1;
        let passing = match error {
            DbError::Unavailable(_) => true,
            DbError::Unknown(_) => self.count <= TRIES_UNANSWERED,
            DbError::Unfit(_) => self.count == 1,
            DbError::Busy(_) | DbError::Denied(_) | DbError::Broken(_) | DbError::Refused { .. } => false,
        };
        let parts = batch > 1 && !matches!(error, DbError::Denied(_));
        if !matches!(error, DbError::Busy(_)) && until.left() <= self.pause {
            return Mend::Lose;
        }
        if passing || matches!(error, DbError::Unknown(_)) {
            tokio::time::sleep(self.pause).await;
            self.pause = (self.pause * 2).min(PAUSE.1);
        }
        if passing {
            return Mend::Again;
        }
        match error {
            _ if parts => Mend::Part { slow: since > SLOW },
            DbError::Broken(_) | DbError::Refused { .. } => Mend::Refuse,
            _ => Mend::ComeBack,
        }
    }
}

/// A batch account by account, or, if it is all one's, as it is.
pub(crate) fn parts<T>(batch: Vec<T>, account: impl Fn(&T) -> Uuid) -> Result<Vec<Vec<T>>, Vec<T>> {
    let mut accounts: BTreeMap<Uuid, Vec<T>> = BTreeMap::new();
    for one in batch {
        accounts.entry(account(&one)).or_default().push(one);
    }
    let mut parts: Vec<Vec<T>> = accounts.into_values().collect();
    match parts.len() {
        1 => Err(parts.remove(0)),
        _ => Ok(parts),
    }
}

/// A batch in two.
pub(crate) fn halves<T>(mut batch: Vec<T>) -> [Vec<T>; 2] {
    let rest = batch.split_off(batch.len() / 2);
    [batch, rest]
}
