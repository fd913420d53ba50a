//! In which zone the old table's times are read that have none, and what that makes of the jobs to be run.

use tokio_postgres::{
    Client,
    types::{ToSql, Type},
};

use super::rows;
use crate::failure::{Failure, said};

/// What is read as that unless another is said.
const UTC: &str = "UTC";

/// The zone of times without one.
#[derive(Debug)]
pub(crate) struct Zone {
    /// As PostgreSQL writes it.
    pub(crate) name: String,
    said: bool,
    /// Others that are set in this database, for us or for who writes the table: what it filled in was local
    /// time there.
    set: Vec<String>,
}

impl Zone {
    /// Asks the database. Before the session is given a zone of its own.
    ///
    /// # Errors
    /// There is no zone of the name that was said.
    pub(crate) async fn find(client: &Client, said_zone: Option<&str>, table: &str) -> Result<Self, Failure> {
        let asked = |sql: &'static str, text: String| async move {
            let params: [(&(dyn ToSql + Sync), Type); 1] = [(&text, Type::TEXT)];
            let rows = client.query_typed(sql, &params).await.map_err(|error| said(&error))?;
            Ok::<_, Failure>(rows.iter().map(|row| row.get(0)).collect::<Vec<String>>())
        };
        let set = asked(include_str!("zones.sql"), table.to_owned()).await?;
        let Some(zone) = said_zone else { return Ok(Self { name: UTC.into(), said: false, set }) };
        let known = asked(include_str!("zone.sql"), zone.to_owned()).await?;
        let name = known.into_iter().next();
        let name = name.ok_or_else(|| {
            format!("--time-zone: the database knows no zone {zone}: write one such as Europe/Berlin, or UTC")
        })?;
        Ok(Self { name, said: true, set })
    }

    /// How times without a zone are read, if there are columns of such.
    pub(crate) fn line(&self, zoneless: &[String]) -> Option<String> {
        let how = if self.said { "" } else { " (--time-zone says another)" };
        (!zoneless.is_empty())
            .then(|| format!("times without a zone, {}, are read as {}{how}", zoneless.join(", "), self.name))
    }

    /// Why they cannot be read yet: they may well be local times of another zone.
    pub(crate) fn obstacle(&self, zoneless: &[String]) -> Option<String> {
        (!self.said && !self.set.is_empty() && !zoneless.is_empty()).then(|| {
            format!(
                "{} have no time zone, and {} is set in this database, not UTC: say in which they were \
                 written: --time-zone {}, or --time-zone UTC",
                zoneless.join(", "),
                self.set.join(" and "),
                self.set[0]
            )
        })
    }
}

/// When what is to be taken over is due.
///
/// # Errors
/// The database's.
pub(crate) async fn due(client: &Client) -> Result<String, Failure> {
    let found = rows(client, include_str!("due.sql")).await?;
    let row = found.first().ok_or("the database answers no row")?;
    let (now, later): (i64, i64) = (row.get(0), row.get(1));
    let first: Option<(String, i64)> = row.get::<_, Option<String>>(2).zip(row.get(3));
    Ok(match first {
        Some((at, seconds)) => {
            format!("due: {now} at once, {later} later: the first of them at {at}, in {}", spelt(seconds))
        }
        None => format!("due: {now} at once, none later"),
    })
}

fn spelt(seconds: i64) -> String {
    match (seconds / 3_600, seconds / 60 % 60) {
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}
