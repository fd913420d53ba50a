//! `punchcard roles`: the two roles that log in, one for migrations and one for the deployed functions, each with a
//! password made here and time-outs of its own.

use shared::{
    db::{connect, connection_string::ConnectionString, pinned},
    secrets::Secrets,
};

use crate::failure::{Failure, word};

const KNOWN: &str = include_str!("known.sql");
const CREATE: &str = include_str!("create.sql");
const PASSWORD: &str = include_str!("password.sql");
const OWN_DATABASE: &str = include_str!("own_database.sql");
const TEMPORARY: &str = include_str!("temporary.sql");

/// The roles, and what each is for.
const ROLES: [(&str, &str); 2] =
    [("punchcard_migrator", "for `punchcard migrate`"), ("punchcard_app", "for the functions' secret")];

/// Makes the roles, as an administrator; answers what to tell about each. A role that can log in keeps its password,
/// unless it is the one to `rotate`. In an `own_database` everybody else's right to temporary objects is taken away.
///
/// # Errors
/// What the server says, in one line.
pub(crate) async fn create(
    secrets: &Secrets,
    rotate: Option<&str>,
    own_database: bool,
) -> Result<Vec<String>, Failure> {
    let client = connect::client(secrets).await?;
    pinned::execute(&client, CREATE).await.map_err(|error| word(&error))?;
    let known = pinned::query(&client, KNOWN, &[]).await.map_err(|error| word(&error))?;
    let known: Vec<String> = known.iter().map(|row| row.get(0)).collect();
    let (mut lines, mut let_in) = (Vec::new(), String::new());
    if own_database {
        pinned::execute(&client, OWN_DATABASE).await.map_err(|error| word(&error))?;
        lines.push(
            "temporary objects: the database's owner and punchcard_migrator alone may create them".into(),
        );
    } else if !pinned::query(&client, TEMPORARY, &[]).await.map_err(|error| word(&error))?.is_empty() {
        // Not taken away unasked: others whose database it is too may need it.
        lines.push(
            "temporary objects: everybody may create them, as PostgreSQL has it; where the database is \
             Punchcard's alone, --own-database takes that away"
                .into(),
        );
    }
    for (role, purpose) in ROLES {
        if known.iter().any(|it| it == role) && rotate != Some(role) {
            lines.push(format!("{role}: kept as it is (--rotate {role} gives it another password)"));
            continue;
        }
        let password = crate::random_hex()?;
        let_in += &with_password(role, &password);
        lines.push(format!("{role}, {purpose}: {}", url_of(&secrets.database_url, role, &password)?));
    }
    // At once: a password that is set is told.
    pinned::execute(&client, &let_in).await.map_err(|error| word(&error))?;
    Ok(lines)
}

/// The verifier is hexadecimal and base64: nothing in it ends the literal.
fn with_password(role: &str, password: &str) -> String {
    let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
    PASSWORD.replace("{role}", role).replace("{verifier}", &verifier)
}

/// The administrator's URL as this role's. Supabase's pooler wants the project's ref behind the user's name.
fn url_of(url: &str, role: &str, password: &str) -> Result<String, Failure> {
    let string = ConnectionString::parse(url, None)?;
    let admin = string.config.get_user().unwrap_or_default();
    let of_project = admin.rsplit_once('.').filter(|_| string.host().ends_with(".pooler.supabase.com"));
    let user = of_project.map_or_else(|| role.to_owned(), |(_, project)| format!("{role}.{project}"));
    let database = string.config.get_dbname().unwrap_or(admin);
    Ok(format!("postgres://{user}:{password}@{}:{}/{database}", string.host(), string.port()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_url_is_the_administrators_as_another_role() {
        let of = |url| url_of(url, "punchcard_app", "pw").unwrap();
        assert_eq!(
            of("postgres://postgres:x@db.abc.supabase.co/postgres"),
            "postgres://punchcard_app:pw@db.abc.supabase.co:5432/postgres"
        );
        assert_eq!(
            of("postgres://postgres.abc:x@aws-0-eu-central-1.pooler.supabase.com:5432/postgres"),
            "postgres://punchcard_app.abc:pw@aws-0-eu-central-1.pooler.supabase.com:5432/postgres"
        );
        assert_eq!(
            of("host=10.0.0.1 user=first.last password=x dbname=d"),
            "postgres://punchcard_app:pw@10.0.0.1:5432/d"
        );
    }
}
