//! Statements that record what was done are sent until there is an answer: what a worker cannot record is done again.

use std::time::Duration;

use shared::{db::DbError, domain::Deadline};

/// What the margin of the invocation has left when nothing is recorded any more.
pub(crate) const TO_ANSWER: Duration = Duration::from_millis(500);
/// A statement that is not answered for this long is sent again on another connection: the server's own time-out, 15 s, is over.
const SEND_BUDGET: Duration = Duration::from_secs(16);
/// The pause before a statement is sent again to a server that is away, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How long what others hold is left alone before it is come back to, at first and at most.
pub(crate) const HELD_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Sends a statement that may be sent again until there is an answer, or no time is left. Answers, too, whether an earlier answer
/// was lost: then it may have been done before.
pub(crate) async fn until_answered<T, F>(
    until: Deadline,
    send: impl Fn(Deadline) -> F,
) -> (Result<T, DbError>, bool)
where
    F: Future<Output = Result<T, DbError>>,
{
    let (mut pause, mut perhaps_done) = (PAUSE.0, false);
    loop {
        match send(until.within(SEND_BUDGET)).await {
            Err(error @ (DbError::Unavailable(_) | DbError::Unknown(_))) if until.left() > pause => {
                tracing::error!(error = %error, "recording failed, trying again");
                perhaps_done |= matches!(error, DbError::Unknown(_));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
            answer => return (answer, perhaps_done),
        }
    }
}
