//! Statements of an operator's. Whoever may create in a schema of the path can make a function or an operator that fits a call
//! better than PostgreSQL's own does, and it would run as who calls (CVE-2018-1058). The functions' role has its path from
//! `punchcard roles`; an operator logs in as anybody, perhaps through a transaction pooler: so the path is set for one
//! transaction.

use tokio_postgres::{
    Client, Row,
    types::{ToSql, Type},
};

const PIN: &str = "BEGIN; SET LOCAL search_path = pg_catalog, pg_temp";

/// Sends a statement as [`Client::query_typed`] does, under a path of PostgreSQL's own schema alone.
///
/// # Errors
/// As [`Client::query_typed`].
pub async fn query(
    client: &Client,
    sql: &str,
    params: &[(&(dyn ToSql + Sync), Type)],
) -> Result<Vec<Row>, tokio_postgres::Error> {
    client.batch_execute(PIN).await?;
    let answer = client.query_typed(sql, params).await;
    end(client, answer).await
}

/// The same for statements without parameters, all or none of them.
///
/// # Errors
/// As [`Client::batch_execute`].
pub async fn execute(client: &Client, sql: &str) -> Result<(), tokio_postgres::Error> {
    client.batch_execute(PIN).await?;
    let done = client.batch_execute(sql).await;
    end(client, done).await
}

async fn end<T>(
    client: &Client,
    answer: Result<T, tokio_postgres::Error>,
) -> Result<T, tokio_postgres::Error> {
    match answer {
        Ok(answer) => client.batch_execute("COMMIT").await.map(|()| answer),
        // What the server said counts, also if it closed the connection with it.
        Err(error) => {
            client.batch_execute("ROLLBACK").await.ok();
            Err(error)
        }
    }
}
