//! Which column of the old table is what: as `--map` says, and guessed by its name where it says nothing.

use super::words::Words;

/// How a column is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As text, whatever its type.
    Text,
    /// As JSON; a text must be JSON.
    Json,
    /// As JSON; a text that is none becomes a JSON string.
    JsonOrText,
    /// A date or a time stamp.
    Time,
    /// A number.
    Number,
}

/// What there is to map, how it is read, and the usual names of its column: in lower case, without underscores.
const FIELDS: &[(&str, Form, &[&str])] = &[
    ("account", Form::Text, &["userid", "accountid", "ownerid", "customerid"]),
    ("id", Form::Text, &["id", "jobid", "uuid"]),
    ("status", Form::Text, &["status", "state"]),
    ("kind", Form::Text, &["type", "kind", "jobtype", "name"]),
    ("input", Form::Json, &["payload", "input", "data", "params", "parameters", "args", "arguments"]),
    ("output", Form::JsonOrText, &["result", "output"]),
    ("error", Form::Text, &["error", "errormessage", "lasterror"]),
    ("priority", Form::Number, &["priority"]),
    ("price", Form::Number, &["creditscost", "creditcost", "price"]),
    ("key", Form::Text, &["idempotencykey"]),
    ("created", Form::Time, &["createdat", "insertedat", "created"]),
    ("started", Form::Time, &["startedat", "started"]),
    ("finished", Form::Time, &["completedat", "finishedat", "endedat"]),
    ("run_at", Form::Time, &["scheduledfor", "runat", "scheduledat"]),
];

/// A column, with its type and the type's category as `pg_type` has it.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) type_name: String,
    pub(crate) category: String,
}

impl Column {
    fn fits(&self, form: Form) -> bool {
        match form {
            Form::Text | Form::Json | Form::JsonOrText => true,
            Form::Time => self.category == "D",
            Form::Number => self.category == "N",
        }
    }

    /// Its value as JSON.
    fn json(&self, form: Form) -> String {
        let column = self.quoted();
        match (self.category.as_str(), form) {
            ("S", Form::Json) => format!("pg_temp.punchcard_json({column}::text)"),
            ("S", _) => {
                format!("coalesce(pg_temp.punchcard_json({column}::text), to_json({column}::text))")
            }
            _ => format!("to_json({column})"),
        }
    }

    fn quoted(&self) -> String {
        format!("o.{}", identifier(&self.name))
    }
}

/// What stands for a field whose column there is none of.
#[derive(Debug)]
pub(crate) struct Constants<'a> {
    pub(crate) kind: Option<&'a str>,
    pub(crate) price: Option<u64>,
}

/// The columns found for the fields, in the order of `FIELDS`.
#[derive(Debug)]
pub(crate) struct Mapping<'a> {
    table: &'a str,
    constants: &'a Constants<'a>,
    found: Vec<Found<'a>>,
}

#[derive(Debug)]
struct Found<'a> {
    field: &'static str,
    form: Form,
    column: Option<&'a Column>,
    guessed: bool,
}

impl<'a> Mapping<'a> {
    /// Takes what `--map` says (`account=user_id,kind=type`; nothing behind the `=`: no column), guesses the rest.
    pub(crate) fn new(
        table: &'a str,
        columns: &'a [Column],
        said: Option<&str>,
        constants: &'a Constants<'a>,
    ) -> Result<Self, String> {
        let mut named = Vec::new();
        for pair in said.unwrap_or_default().split(',').filter(|pair| !pair.trim().is_empty()) {
            let (field, column) = pair.split_once('=').ok_or_else(|| {
                format!("--map: {pair}: write FIELD=COLUMN, separated by commas, such as account=user_id")
            })?;
            named.push((known_field(field.trim())?, find(table, columns, column.trim())?));
        }
        let said_of = |field| named.iter().rev().find(|(name, _)| *name == field).map(|(_, column)| *column);
        let constant = |field| match field {
            "kind" => constants.kind.is_some(),
            "price" => constants.price.is_some(),
            _ => false,
        };
        let mut found = Vec::new();
        for &(field, form, usual) in FIELDS {
            let guess = || {
                let free = columns.iter().filter(|column| {
                    column.fits(form)
                        && !named.iter().any(|(_, it)| it.is_some_and(|it| it.name == column.name))
                });
                usual.iter().find_map(|name| free.clone().find(|column| plain(&column.name) == *name))
            };
            let (column, guessed) = match said_of(field) {
                Some(column) => (column, false),
                None if constant(field) => (None, false),
                None => (guess(), true),
            };
            if let Some(column) = column.filter(|column| !column.fits(form)) {
                let wanted = if form == Form::Time { "a date or a timestamp" } else { "a number" };
                return Err(format!(
                    "--map: {field}: the column {} is of type {}: {wanted} is needed, or none ({field}=)",
                    column.name, column.type_name
                ));
            }
            found.push(Found { field, form, column, guessed: guessed && column.is_some() });
        }
        let mapping = Self { table, constants, found };
        mapping.require("account", "the column of whom a job belongs to: --map account=COLUMN")?;
        mapping.require("id", "--map id=COLUMN")?;
        mapping.require("status", "--map status=COLUMN")?;
        if constants.kind.is_none() {
            mapping.require("kind", "--map kind=COLUMN, or --kind KIND if all jobs are of one")?;
        }
        Ok(mapping)
    }

    fn column(&self, field: &str) -> Option<&'a Column> {
        self.found.iter().find(|it| it.field == field).and_then(|it| it.column)
    }

    fn require(&self, field: &str, what: &str) -> Result<(), String> {
        match self.column(field) {
            Some(_) => Ok(()),
            None => Err(format!("{}: no column is mapped to {field}; say {what}", self.table)),
        }
    }

    /// Whether it is known what was paid.
    pub(crate) fn has_price(&self) -> bool {
        self.constants.price.is_some() || self.column("price").is_some()
    }

    /// The column of the status words, for a message.
    pub(crate) fn status_column(&self) -> &str {
        self.column("status").map_or("status", |column| &column.name)
    }

    /// What is what, in one line each.
    pub(crate) fn lines(&self) -> Vec<String> {
        let text = |guessed: bool| {
            let pairs = self.found.iter().filter(|it| it.guessed == guessed);
            let pairs =
                pairs.filter_map(|it| it.column.map(|column| format!("{}={}", it.field, column.name)));
            pairs.collect::<Vec<_>>().join(",")
        };
        let lines = [("mapped", text(false)), ("guessed", text(true))];
        lines
            .into_iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(what, text)| format!("{what}: {text}"))
            .collect()
    }

    /// Fills in `old.sql`, in one pass: what is put in is not looked at again.
    pub(crate) fn fill(&self, template: &str, words: &Words) -> String {
        let mut sql = String::new();
        let mut rest = template;
        while let Some((before, (place, after))) =
            rest.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
        {
            sql.push_str(before);
            sql.push_str(&self.expression(place, words));
            rest = after;
        }
        sql + rest
    }

    fn expression(&self, place: &str, words: &Words) -> String {
        let column = self.column(place);
        let quoted = column.map(Column::quoted);
        let status = || self.column("status").map_or_else(|| "NULL".into(), Column::quoted);
        match place {
            "table" => self.table.to_owned(),
            "table_name" => literal(self.table),
            "taken" => {
                let of_type = self.column("status").map_or("text", |column| &column.type_name);
                format!("{}::{of_type}", literal(&words.taken))
            }
            "state" => {
                let cases: String = words
                    .meanings()
                    .map(|(word, meaning)| format!(" WHEN {} THEN {}", literal(&word), literal(meaning)))
                    .collect();
                format!("CASE lower({}::text){cases} END", status())
            }
            "input_given" => self
                .column("input")
                .map_or_else(|| "false".into(), |it| format!("{} IS NOT NULL", it.quoted())),
            "input" | "output" => {
                let form = self.found.iter().find(|it| it.field == place).map_or(Form::Json, |it| it.form);
                column.map_or_else(|| "NULL::json".into(), |column| column.json(form))
            }
            "kind" => or_else(quoted, self.constants.kind.map(literal)),
            "price" if !self.has_price() => "0".into(),
            "price" => or_else(quoted, self.constants.price.map(|price| price.to_string())),
            _ => or_else(quoted, None),
        }
    }
}

/// A column's value, or the constant where it has none. The cast makes a name of the old system's type comparable.
fn or_else(column: Option<String>, constant: Option<String>) -> String {
    match (column, constant) {
        (Some(column), Some(constant)) => format!("coalesce({column}::text, {constant}::text)"),
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => "NULL".into(),
    }
}

fn known_field(field: &str) -> Result<&'static str, String> {
    let known = FIELDS.iter().map(|(name, ..)| *name);
    known.clone().find(|name| *name == field).ok_or_else(|| {
        format!("--map: there is no field {field}; it is one of {}", known.collect::<Vec<_>>().join(", "))
    })
}

fn find<'a>(table: &str, columns: &'a [Column], name: &str) -> Result<Option<&'a Column>, String> {
    if name.is_empty() {
        return Ok(None);
    }
    columns.iter().find(|column| column.name == name).map(Some).ok_or_else(|| {
        let all: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        format!("--map: {table} has no column {name}; it has {}", all.join(", "))
    })
}

fn plain(name: &str) -> String {
    name.to_lowercase().replace('_', "")
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(columns: &[(&str, &str)]) -> Vec<Column> {
        let column = |(name, category): &(&str, &str)| Column {
            name: (*name).into(),
            type_name: "some type".into(),
            category: (*category).into(),
        };
        columns.iter().map(column).collect()
    }

    const NONE: &Constants<'_> = &Constants { kind: None, price: None };
    const PRISMA: &[(&str, &str)] =
        &[("id", "U"), ("userId", "U"), ("type", "S"), ("status", "E"), ("payload", "U"), ("createdAt", "N")];

    #[test]
    fn usual_names_are_guessed_where_the_type_fits() {
        let columns = columns(PRISMA);
        let mapping = Mapping::new("public.jobs", &columns, Some("input=payload"), NONE).unwrap();
        assert_eq!(
            mapping.lines(),
            ["mapped: input=payload", "guessed: account=userId,id=id,status=status,kind=type"]
        );
    }

    #[test]
    fn a_constant_goes_before_a_guess_and_an_empty_name_means_none() {
        let columns = columns(PRISMA);
        let constants = Constants { kind: Some("it's"), price: None };
        let mapping = Mapping::new("public.jobs", &columns, Some("input="), &constants).unwrap();
        let words = Words::new(None, "punchcard").unwrap();
        assert_eq!(mapping.fill("{kind} {input} {account}", &words), "'it''s' NULL::json o.\"userId\"");
    }

    #[test]
    fn names_are_quoted_and_not_filled_in_again() {
        let columns = columns(&[("{table}\"; --", "S"), ("id", "N"), ("status", "S"), ("kind", "S")]);
        let said = Some("account={table}\"; --");
        let mapping = Mapping::new("public.jobs", &columns, said, NONE).unwrap();
        let words = Words::new(None, "punchcard").unwrap();
        assert_eq!(mapping.fill("{account}", &words), "o.\"{table}\"\"; --\"");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let columns = columns(PRISMA);
        for (said, why) in [
            ("account", "FIELD=COLUMN"),
            ("acount=x", "no field acount"),
            ("account=user", "no column user; it has id, userId"),
            ("created=createdAt", "is of type some type: a date or a timestamp is needed"),
            ("account=", "no column is mapped to account"),
            ("kind=", "or --kind KIND"),
        ] {
            let error = Mapping::new("public.jobs", &columns, Some(said), NONE).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
