//! The old table as the database knows it: its name, its columns, and whether this role sees and may change
//! all of it.

use tokio_postgres::{
    Client, Row,
    types::{ToSql, Type},
};

use super::{mapping::Column, rows};
use crate::failure::{Failure, said};

/// The old table.
#[derive(Debug)]
pub(crate) struct Source {
    /// Its name, quoted, with its schema.
    pub(crate) table: String,
    pub(crate) columns: Vec<Column>,
    /// The role that looks at it.
    pub(crate) role: String,
}

impl Source {
    /// Looks at the table that `--from` names.
    ///
    /// # Errors
    /// It is no table, Punchcard's are not here, or row security may hide rows from this role: of what it
    /// does not see it could not say that it is not there.
    pub(crate) async fn find(client: &Client, from: &str) -> Result<Self, Failure> {
        let asked = |sql: &'static str, name: String| async move {
            let params: [(&(dyn ToSql + Sync), Type); 1] = [(&name, Type::TEXT)];
            client.query_typed(sql, &params).await
        };
        let unreadable =
            |_| format!("--from: {from} is no name of a table: write SCHEMA.TABLE, such as public.jobs");
        let mut quoted = false;
        let has_schema = from.chars().any(|c| {
            quoted ^= c == '"';
            c == '.' && !quoted
        });
        let full = if has_schema { from.to_owned() } else { format!("public.{from}") };
        let named = asked(include_str!("table.sql"), full).await.map_err(unreadable)?;
        let row = named.first().ok_or("the database answers no row")?;
        if !row.get::<_, bool>(2) {
            return Err("Punchcard's tables are not here: run `punchcard migrate` first".into());
        }
        let (name, what): (Option<String>, &str) = (row.get(0), row.get(1));
        let table = match (name, what) {
            (Some(name), "table") => name,
            (Some(name), what) => {
                return Err(format!("--from: {name} is not a table of an old queue: it is {what}").into());
            }
            (None, _) => {
                let like: Option<String> = row.get(3);
                let like = like.map_or_else(String::new, |like| {
                    format!("; there is {like}: write it so, quotes and all")
                });
                return Err(format!("--from: there is no table {from}{like}").into());
            }
        };
        let role: String =
            rows(client, include_str!("role.sql")).await?.first().map(|row| row.get(0)).unwrap_or_default();
        let hidden = asked(include_str!("hidden.sql"), table.clone()).await.map_err(|error| said(&error))?;
        let hidden: Vec<String> = hidden.iter().map(|row| row.get(0)).collect();
        if !hidden.is_empty() {
            return Err(format!(
                "row security may hide rows from the role {role} (of {}), and what it hides is not imported: \
                 connect as the owner of Punchcard's tables, whom the old table's policies let pass too, or \
                 as a role with BYPASSRLS; after a restore their owner runs `punchcard migrate` first",
                hidden.join(", ")
            )
            .into());
        }
        let columns =
            asked(include_str!("columns.sql"), table.clone()).await.map_err(|error| said(&error))?;
        Ok(Self { table, columns: columns.iter().map(column).collect(), role })
    }
}

fn column(row: &Row) -> Column {
    Column {
        name: row.get(0),
        type_name: row.get(1),
        cast: row.get(2),
        category: row.get(3),
        base: row.get::<_, Option<String>>(4).unwrap_or_default(),
        readable: row.get(5),
        writable: row.get(6),
        generated: row.get(7),
    }
}
