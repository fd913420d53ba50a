//! Marking rows of the old table, with a look at what came of it; and the trial: every step on a few rows,
//! rolled back.

use tokio_postgres::{
    Client, Error, Transaction,
    error::SqlState,
    types::{ToSql, Type},
};

use super::plan::Plan;
use crate::failure::{Failure, said, word};

/// As many rows are tried.
const TRIED: i64 = 10;
/// Where the old worker holds all of these, as many more are tried, so often.
const TIMES: i64 = 10;

type Params<'a> = [(&'a (dyn ToSql + Sync), Type); 2];

/// The mark, and where it is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark<'a> {
    pub(crate) table: &'a str,
    pub(crate) column: &'a str,
    pub(crate) word: &'a str,
}

impl Mark<'_> {
    /// Why it could not be written.
    pub(crate) fn refused(&self, error: &Error) -> Failure {
        let Self { table, column, word: mark } = self;
        let of_word = [
            SqlState::INVALID_TEXT_REPRESENTATION,
            SqlState::CHECK_VIOLATION,
            SqlState::STRING_DATA_RIGHT_TRUNCATION,
            SqlState::FOREIGN_KEY_VIOLATION,
        ];
        let why = word(error);
        match error.code().is_some_and(|code| of_word.contains(code)) {
            true => format!(
                "{table}: the column {column} does not take the word {mark}: choose one that it takes with \
                 --taken-status, or let it take this one ({why})"
            ),
            false => format!("{table}: rows cannot be marked in the column {column} ({why})"),
        }
        .into()
    }

    /// Marks a batch, and looks: what was found must have been changed, and must read as marked, once every
    /// trigger has had its say. Answers how many it were.
    ///
    /// # Errors
    /// What is otherwise; the transaction is to be rolled back.
    async fn batch(&self, transaction: &Transaction<'_>, after: i64, rows: i64) -> Result<i64, Failure> {
        let Self { table, column, word: mark } = self;
        let params: Params<'_> = [(&after, Type::INT8), (&rows, Type::INT8)];
        let refused = |error: Error| self.refused(&error);
        // The table's triggers may name what is beside it, or in `public`. What is written here itself, PostgreSQL's own schema
        // has the very types of.
        let end = if table.starts_with('"') { table.find("\".").map(|at| at + 1) } else { table.find('.') };
        let schema = end.map_or("public", |end| &table[..end]);
        let path = format!("SET LOCAL search_path = pg_catalog, {schema}, public, pg_temp");
        transaction.batch_execute(&path).await.map_err(refused)?;
        let marked = transaction.query_typed(include_str!("mark.sql"), &params).await.map_err(refused)?;
        let marked = marked.first().ok_or("the database answers no row")?;
        let (found, changed): (i64, i64) = (marked.get(0), marked.get(1));
        if changed < found {
            return Err(format!(
                "{table}: of {found} rows an update of {column} changed {changed}: a trigger or a rule of \
                 the table keeps it from the others: turn it off for the import, or let it pass the word {mark}"
            )
            .into());
        }
        transaction.execute_typed(include_str!("constraints.sql"), &[]).await.map_err(refused)?;
        let pinned = "SET LOCAL search_path = pg_catalog, pg_temp";
        transaction.batch_execute(pinned).await.map_err(refused)?;
        let now = transaction.query_typed(include_str!("marked.sql"), &params).await.map_err(refused)?;
        let now = now.first().ok_or("the database answers no row")?;
        let read: Option<String> = marked.get::<_, Option<String>>(2).or_else(|| now.get(1));
        if marked.get::<_, Option<String>>(2).is_some() || now.get::<_, i64>(0) < found {
            return Err(format!(
                "{table}: the word {mark} was written to the column {column} and reads back as {}: its type \
                 or a trigger changes it: choose a word that it keeps with --taken-status, or let it keep \
                 this one",
                read.as_deref().unwrap_or("nothing")
            )
            .into());
        }
        Ok(found)
    }

    /// Marks all that is queued, each batch in a transaction of its own; answers how many it were, and tells
    /// `each` step.
    ///
    /// # Errors
    /// What is otherwise than it must be, and how many are marked by then.
    pub(crate) async fn all(
        &self,
        client: &mut Client,
        queued: i64,
        rows: i64,
        each: impl Fn(i64, i64),
    ) -> Result<i64, Failure> {
        let (mut after, mut done) = (0, 0);
        let failed = |why: Failure, done: i64| -> Failure {
            match done {
                0 => format!("{why}; nothing has changed").into(),
                _ => {
                    format!("{why}; {done} were marked before, and wait: mend it, and run this again").into()
                }
            }
        };
        while after < queued {
            let begun = client.transaction().await;
            let transaction = begun.map_err(|error| failed(said(&error).into(), done))?;
            let marked = self.batch(&transaction, after, rows).await.map_err(|why| failed(why, done))?;
            transaction.commit().await.map_err(|error| failed(self.refused(&error), done))?;
            done += marked;
            after = (after + rows).min(queued);
            each(done, after);
        }
        Ok(done)
    }

    /// Does every step to a few rows, looks whether they are where they should be, and rolls it back. Answers
    /// what could not be tried.
    ///
    /// # Errors
    /// What is otherwise than it must be. Nothing has changed.
    pub(crate) async fn trial(&self, client: &mut Client, plan: &Plan) -> Result<Option<String>, Failure> {
        let transaction = client.transaction().await.map_err(|error| said(&error))?;
        let tried =
            self.try_all(&transaction, plan).await.map_err(|why| format!("{why}; nothing has changed"));
        let rolled_back = transaction.rollback().await.map_err(|error| said(&error));
        let tried = tried?;
        rolled_back?;
        Ok(tried)
    }

    async fn try_all(&self, transaction: &Transaction<'_>, plan: &Plan) -> Result<Option<String>, Failure> {
        let mut untried = None;
        if plan.to_take() > 0 {
            let (mut from, mut marked) = (0, 0);
            while from < plan.queued.min(TRIED * TIMES) {
                marked = self.batch(transaction, from, TRIED).await?;
                if marked > 0 {
                    break;
                }
                from += TRIED;
            }
            if plan.queued > 0 && marked == 0 {
                let why = "somebody else holds each queued row that was to be marked, or has changed it";
                untried = Some(format!("not tried: {why}"));
                from = 0;
            }
            transaction
                .execute_typed(include_str!("take_job.sql"), &[])
                .await
                .map_err(|error| said(&error))?;
            try_step(transaction, ("take", include_str!("take.sql")), from, marked).await?;
        }
        if plan.history() > 0 {
            try_step(transaction, ("copy", include_str!("copy.sql")), 0, 0).await?;
        }
        Ok(untried)
    }
}

/// One step on a few rows after number `from`: those that it says it did, and `least`, must be in Punchcard
/// then.
async fn try_step(
    transaction: &Transaction<'_>,
    (step, sql): (&str, &str),
    from: i64,
    least: i64,
) -> Result<(), Failure> {
    let failed = |error: Error| {
        format!(
            "tried on a few rows, and rolled back: this role cannot bring them into Punchcard: {}",
            said(&error)
        )
    };
    let params: Params<'_> = [(&from, Type::INT8), (&TRIED, Type::INT8)];
    let done = transaction.query_typed(sql, &params).await.map_err(failed)?;
    let done: i64 = done.first().map_or(0, |row| row.get(0));
    let params: [(&(dyn ToSql + Sync), Type); 3] =
        [(&from, Type::INT8), (&TRIED, Type::INT8), (&step, Type::TEXT)];
    let arrived = transaction.query_typed(include_str!("arrived.sql"), &params).await.map_err(failed)?;
    let arrived: i64 = arrived.first().map_or(0, |row| row.get(0));
    match arrived < done.max(least) {
        true => Err(format!(
            "tried on a few rows, and rolled back: of {} that were to come into Punchcard {arrived} arrived",
            done.max(least)
        )
        .into()),
        false => Ok(()),
    }
}
