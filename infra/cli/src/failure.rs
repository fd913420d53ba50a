//! What went wrong, in one line for a person at a terminal.

use serde_json::Value;
use shared::db::{DbError, connect::reason, diagnosis::schema_fault};
use tokio_postgres::Error;

/// Why a command failed.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The one line. Of what the database says, the message alone: its details show what stands in a row.
pub(crate) fn one_line(failure: &Failure) -> String {
    let text = match failure.downcast_ref::<DbError>() {
        Some(DbError::Refused { code, detail, .. }) => format!("{code}: {}", plain(detail)),
        Some(error @ (DbError::Unavailable(_) | DbError::Unfit(_) | DbError::Denied(_))) => {
            format!("{error}; `punchcard doctor` says where the way ends")
        }
        Some(_) | None => failure.to_string(),
    };
    text.lines().next().unwrap_or_default().to_owned()
}

/// The driver's error, likewise; of one that the schema is to blame for, what to do.
pub(crate) fn said(error: &Error) -> String {
    let fault = error.as_db_error().and_then(|db| schema_fault(db.code().code(), db.message()));
    fault.unwrap_or_else(|| word(error))
}

/// The server's message alone, or why there is none.
pub(crate) fn word(error: &Error) -> String {
    error.as_db_error().map_or_else(|| reason(error), |db| db.message().to_owned())
}

/// The detail of a refusal: a text, or figures as JSON.
fn plain(detail: &str) -> String {
    let Ok(Value::Object(members)) = serde_json::from_str(detail) else { return detail.to_owned() };
    let bare = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let named = members.iter().filter(|(name, _)| *name != "detail");
    let named: Vec<String> = named.map(|(name, value)| format!("{name} {}", bare(value))).collect();
    match members.get("detail") {
        Some(text) if named.is_empty() => bare(text),
        Some(text) => format!("{} ({})", bare(text), named.join(", ")),
        None => named.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str, detail: &str) -> String {
        one_line(&DbError::Refused { status: 409, code: code.into(), detail: detail.into() }.into())
    }

    #[test]
    fn a_refusal_is_a_sentence_also_where_it_carries_figures() {
        assert_eq!(refused("not_found", "There is nothing here."), "not_found: There is nothing here.");
        assert_eq!(
            refused("already_retried", r#"{"detail":"It has been.","retried_as":"x"}"#),
            "already_retried: It has been. (retried_as x)"
        );
        assert_eq!(
            refused("insufficient_credits", r#"{"required":5,"available":0}"#),
            "insufficient_credits: available 0, required 5"
        );
    }

    #[test]
    fn what_stands_in_a_row_is_not_shown() {
        let error = DbError::Broken("ERROR: too long\nDETAIL: Failing row contains (secret)".into());
        assert_eq!(one_line(&error.into()), "the database refuses the statement: ERROR: too long");
    }
}
