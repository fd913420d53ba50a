//! Which column of the old table is what: as `--map` says, and guessed by its name where it says nothing.

use super::{source::Source, words::Words};

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

/// In the names of columns that say what something costs: as one of their words.
const PRICES: &[&str] = &[
    "price", "prices", "cost", "costs", "credit", "credits", "amount", "fee", "fees", "charge", "charged",
    "paid", "points", "cents",
];

/// A column, with its type and the type's category as `pg_type` has it.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) type_name: String,
    /// The type without its length: a word that is cast to it is not cut.
    pub(crate) cast: String,
    pub(crate) category: String,
    /// The type behind domains.
    pub(crate) base: String,
    /// Whether this role may read it.
    pub(crate) readable: bool,
    /// Whether this role may change it.
    pub(crate) writable: bool,
    /// Whether its values are the database's to make.
    pub(crate) generated: bool,
}

impl Column {
    fn fits(&self, form: Form) -> bool {
        match form {
            Form::Text | Form::Json | Form::JsonOrText => true,
            Form::Time => self.is_zoneless() || self.base == "timestamp with time zone",
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

    fn is_zoneless(&self) -> bool {
        self.base == "timestamp without time zone" || self.base == "date"
    }

    /// Its point in time. What lies beyond the years that have four digits is for ever: there it could not be
    /// moved by a zone's hours.
    fn time(&self, zone: &str) -> String {
        let column = self.quoted();
        if !self.is_zoneless() {
            return column;
        }
        format!(
            "(CASE WHEN {column} >= '10000-01-01' THEN 'infinity'
                   WHEN {column} < '0001-01-01' THEN '-infinity'
                   ELSE {column}::timestamp END AT TIME ZONE {})",
            literal(zone)
        )
    }

    /// Whether it looks like a payload.
    fn is_json(&self) -> bool {
        self.base == "json" || self.base == "jsonb"
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
    columns: &'a [Column],
    constants: &'a Constants<'a>,
    found: Vec<Found<'a>>,
    input_said: bool,
    zone: &'a str,
}

#[derive(Debug)]
struct Found<'a> {
    field: &'static str,
    form: Form,
    column: Option<&'a Column>,
    /// Of an input of several columns, those after the first.
    more: Vec<&'a Column>,
    guessed: bool,
}

impl<'a> Found<'a> {
    fn all(&self) -> impl Iterator<Item = &'a Column> {
        self.column.into_iter().chain(self.more.iter().copied())
    }

    /// As `--map` has it.
    fn pair(&self) -> String {
        let names: Vec<&str> = self.all().map(|column| column.name.as_str()).collect();
        format!("{}={}", self.field, names.join("+"))
    }
}

impl<'a> Mapping<'a> {
    /// Takes what `--map` says (`account=user_id,kind=type`; nothing behind the `=`: no column), guesses the rest.
    pub(crate) fn new(
        source: &'a Source,
        said: Option<&str>,
        no_input: bool,
        constants: &'a Constants<'a>,
    ) -> Result<Self, String> {
        let Source { table, columns, role } = source;
        let mut named: Vec<(&'static str, Vec<&'a Column>)> = Vec::new();
        for pair in said.unwrap_or_default().split(',').filter(|pair| !pair.trim().is_empty()) {
            let (field, names) = pair.split_once('=').ok_or_else(|| {
                format!("--map: {pair}: write FIELD=COLUMN, separated by commas, such as account=user_id")
            })?;
            let field = known_field(field.trim())?;
            if named.iter().any(|(name, _)| *name == field) {
                return Err(format!("--map: {field} is said twice"));
            }
            named.push((field, find(table, columns, field, names.trim())?));
        }
        let input_said = named.iter().any(|(name, _)| *name == "input");
        match (no_input, input_said) {
            (true, true) => {
                return Err("--no-input, and --map says what the input is: say one of them".into());
            }
            (true, false) => named.push(("input", Vec::new())),
            (false, _) => {}
        }
        let said_of =
            |field| named.iter().find(|(name, _)| *name == field).map(|(_, columns)| columns.clone());
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
                        && !named.iter().any(|(_, said)| said.iter().any(|it| it.name == column.name))
                });
                usual.iter().find_map(|name| free.clone().find(|column| plain(&column.name) == *name))
            };
            let (all, guessed) = match said_of(field) {
                Some(columns) => (columns, false),
                None if constant(field) => (Vec::new(), false),
                None => (guess().into_iter().collect(), true),
            };
            let (column, more) = (all.first().copied(), all.into_iter().skip(1).collect::<Vec<_>>());
            if let Some(column) = column.filter(|column| !column.fits(form)) {
                let wanted = if form == Form::Time { "a date or a timestamp" } else { "a number" };
                return Err(format!(
                    "--map: {field}: the column {} is of type {}: {wanted} is needed, or none ({field}=)",
                    column.name, column.type_name
                ));
            }
            found.push(Found { field, form, column, more, guessed: guessed && column.is_some() });
        }
        let input_said = input_said || no_input;
        let mapping = Self { table, columns, constants, found, input_said, zone: "UTC" };
        mapping.require("account", "the column of whom a job belongs to: --map account=COLUMN")?;
        mapping.require("id", "--map id=COLUMN")?;
        mapping.require("status", "--map status=COLUMN")?;
        if constants.kind.is_none() {
            mapping.require("kind", "--map kind=COLUMN, or --kind KIND if all jobs are of one")?;
        }
        let unreadable = mapping.found.iter().find(|it| it.all().any(|column| !column.readable));
        match unreadable {
            Some(it) => Err(format!(
                "{table}: the role {role} may not read the column of {}: grant select, or map none to it ({}=)",
                it.pair(),
                it.field
            )),
            None => Ok(mapping),
        }
    }

    /// Reads times without a zone as of this one.
    pub(crate) fn in_zone(self, zone: &'a str) -> Self {
        Self { zone, ..self }
    }

    /// Whether a column is mapped to the field.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.column(field).is_some()
    }

    /// The columns of times without a zone, as `--map` has them.
    pub(crate) fn zoneless(&self) -> Vec<String> {
        let times = self.found.iter().filter(|it| it.form == Form::Time);
        times.filter(|it| it.column.is_some_and(Column::is_zoneless)).map(Found::pair).collect()
    }

    /// Why it is not known what the jobs' inputs are.
    pub(crate) fn input_obstacle(&self) -> Option<String> {
        (!self.has("input") && !self.input_said).then(|| {
            format!(
                "no column is the input, and every job would get {{}}: say --map input=COLUMN, or \
                 input=COLUMN+COLUMN for an object of several, or --no-input; left out are {}",
                self.left_out().join(", ")
            )
        })
    }

    /// Why no row can be marked by this role.
    pub(crate) fn mark_obstacle(&self, role: &str) -> Option<String> {
        let (table, status) = (self.table, self.column("status")?);
        let why = match status {
            Column { generated: true, .. } => {
                "its values are generated: map the column that they are made of to status".into()
            }
            Column { writable: false, .. } => {
                format!(
                    "the role {role} may not: grant update ({}) on {table} to {role}",
                    identifier(&status.name)
                )
            }
            _ => return None,
        };
        Some(format!("{table}: rows cannot be marked in the column {}: {why}", status.name))
    }

    /// Columns that nothing is read from; those of JSON first, since they may be an input.
    fn left_out(&self) -> Vec<String> {
        let unused =
            |column: &&Column| !self.found.iter().any(|it| it.all().any(|used| used.name == column.name));
        let (json, others): (Vec<&Column>, Vec<&Column>) =
            self.columns.iter().filter(unused).partition(|column| column.is_json());
        let json =
            json.iter().map(|column| format!("{} ({}: perhaps an input)", column.name, column.type_name));
        json.chain(others.iter().map(|column| column.name.clone())).collect()
    }

    fn column(&self, field: &str) -> Option<&'a Column> {
        self.found.iter().find(|it| it.field == field).and_then(|it| it.column)
    }

    fn is_of_several(&self, field: &str) -> bool {
        self.found.iter().any(|it| it.field == field && !it.more.is_empty())
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

    /// What is to be said if it is not: silence about money is no answer.
    pub(crate) fn price_wanted(&self, jobs: i64) -> String {
        let named = |column: &&Column| {
            let taken = self.found.iter().any(|it| it.column.is_some_and(|it| it.name == column.name));
            !taken
                && column.fits(Form::Number)
                && words(&column.name).iter().any(|word| PRICES.contains(&word.as_str()))
        };
        let columns: Vec<&str> =
            self.columns.iter().filter(named).map(|column| column.name.as_str()).collect();
        let column = match columns.as_slice() {
            [] => "--map price=COLUMN if a column says it".to_owned(),
            [column] => format!("--map price={column} if the column {column} says it"),
            [first, ..] => {
                format!("--map price={first} if that column says it (or {})", columns[1..].join(", "))
            }
        };
        format!(
            "{}: {jobs} jobs are to be run, and nothing says what was paid for each: say {column}, --price CREDITS if all \
             cost the same, or --price 0 if nothing is to be given back for one that fails",
            self.table
        )
    }

    /// The column of the status words, for a message.
    pub(crate) fn status_column(&self) -> &str {
        self.column("status").map_or("status", |column| &column.name)
    }

    /// What is what, in one line each.
    pub(crate) fn lines(&self) -> Vec<String> {
        let text = |guessed: bool| {
            let pairs = self.found.iter().filter(|it| it.guessed == guessed);
            pairs.filter(|it| it.column.is_some()).map(Found::pair).collect::<Vec<_>>().join(",")
        };
        let left_out = self.left_out().join(", ");
        let lines = [("mapped", text(false)), ("guessed", text(true)), ("columns left out", left_out)];
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
                let of_type = self.column("status").map_or("text", |column| &column.cast);
                format!("{}::{of_type}", literal(&words.taken))
            }
            "state" => {
                let cases: String = words
                    .meanings()
                    .map(|(word, meaning)| format!(" WHEN {} THEN {}", literal(&word), literal(meaning)))
                    .collect();
                format!("CASE lower(btrim({}::text COLLATE \"C\", E' \\t\\n\\r')){cases} END", status())
            }
            "created" | "started" | "finished" | "run_at" => {
                or_else(column.map(|column| column.time(self.zone)), None)
            }
            "input_given" if self.is_of_several("input") => "true".into(),
            "input" if self.is_of_several("input") => {
                let columns = self.found.iter().filter(|it| it.field == place).flat_map(Found::all);
                let members = columns.map(|it| format!("{}, {}", literal(&it.name), it.quoted()));
                format!("json_build_object({})", members.collect::<Vec<_>>().join(", "))
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

/// The column of that name, or several of a `+` between; none of no name.
fn find<'a>(table: &str, columns: &'a [Column], field: &str, names: &str) -> Result<Vec<&'a Column>, String> {
    let one = |name: &str| columns.iter().find(|column| column.name == name);
    if names.is_empty() {
        return Ok(Vec::new());
    }
    if let Some(column) = one(names) {
        return Ok(vec![column]);
    }
    let of_input = if field == "input" { names.split('+').collect() } else { vec![names] };
    let mut found: Vec<&Column> = Vec::new();
    for name in of_input {
        let column = one(name.trim()).ok_or_else(|| {
            let all: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
            format!("--map: {table} has no column {}; it has {}", name.trim(), all.join(", "))
        })?;
        if found.iter().any(|it| it.name == column.name) {
            return Err(format!("--map: {field}: the column {} is said twice", column.name));
        }
        found.push(column);
    }
    Ok(found)
}

fn plain(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "")
}

/// The words of a name, in lower case: `creditsSpent` and `credits_spent` have two.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut after_lower = false;
    for c in name.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && after_lower) {
            words.push(String::new());
        }
        after_lower = c.is_lowercase();
        if let Some(word) = words.last_mut().filter(|_| c.is_alphanumeric()) {
            word.extend(c.to_lowercase());
        }
    }
    words
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

    fn source(columns: &[(&str, &str)]) -> Source {
        let column = |(name, category): &(&str, &str)| Column {
            name: (*name).into(),
            type_name: "some type".into(),
            cast: "some type".into(),
            category: (*category).into(),
            base: if *category == "D" { "timestamp without time zone".into() } else { String::new() },
            readable: true,
            writable: true,
            generated: false,
        };
        let columns = columns.iter().map(column).collect();
        Source { table: "public.jobs".into(), columns, role: "us".into() }
    }

    fn mapping<'a>(
        source: &'a Source,
        said: Option<&str>,
        constants: &'a Constants<'a>,
    ) -> Result<Mapping<'a>, String> {
        Mapping::new(source, said, false, constants)
    }

    const NONE: &Constants<'_> = &Constants { kind: None, price: None };
    const PRISMA: &[(&str, &str)] =
        &[("id", "U"), ("userId", "U"), ("type", "S"), ("status", "E"), ("payload", "U"), ("createdAt", "N")];

    #[test]
    fn usual_names_are_guessed_where_the_type_fits() {
        let source = source(PRISMA);
        let mapping = mapping(&source, Some("input=payload"), NONE).unwrap();
        assert_eq!(
            mapping.lines(),
            [
                "mapped: input=payload",
                "guessed: account=userId,id=id,status=status,kind=type",
                "columns left out: createdAt"
            ]
        );
    }

    #[test]
    fn a_constant_goes_before_a_guess_and_an_empty_name_means_none() {
        let source = source(PRISMA);
        let constants = Constants { kind: Some("it's"), price: None };
        let mapping = mapping(&source, Some("input="), &constants).unwrap();
        let words = Words::new(None, "punchcard").unwrap();
        assert_eq!(mapping.fill("{kind} {input} {account}", &words), "'it''s' NULL::json o.\"userId\"");
    }

    #[test]
    fn times_without_a_zone_are_of_the_one_that_is_said_and_inputs_of_several_columns_an_object() {
        let source = source(&[
            ("id", "N"),
            ("userId", "U"),
            ("status", "S"),
            ("it's", "S"),
            ("size", "N"),
            ("run_at", "D"),
        ]);
        let constants = Constants { kind: Some("k"), price: None };
        let mapping = mapping(&source, Some("input=it's + size"), &constants).unwrap().in_zone("Asia/Tokyo");
        let words = Words::new(None, "punchcard").unwrap();
        assert_eq!(
            mapping.fill("{input_given} {input}", &words),
            "true json_build_object('it''s', o.\"it's\", 'size', o.\"size\")"
        );
        assert!(mapping.fill("{run_at}", &words).ends_with("AT TIME ZONE 'Asia/Tokyo')"));
        assert_eq!(mapping.zoneless(), ["run_at=run_at"]);
    }

    #[test]
    fn columns_that_may_say_what_was_paid_are_named() {
        let wanted = |more: &[(&str, &str)], said: Option<&str>| {
            let source = source(&[PRISMA, more].concat());
            let mapping = mapping(&source, said, NONE).unwrap();
            assert!(!mapping.has_price());
            mapping.price_wanted(7)
        };
        for name in
            ["cost", "COST", "credits", "creditsSpent", "credits_used", "Amount", "price_cents", "unit-price"]
        {
            let said = wanted(&[(name, "N"), ("priority", "N")], None);
            assert!(said.contains(&format!("--map price={name} if the column {name} says it")), "{said}");
            assert!(said.contains("7 jobs") && said.contains("--price 0"), "{said}");
        }
        let said = wanted(&[("cost", "N"), ("amount", "N"), ("fee", "N")], None);
        assert!(said.contains("--map price=cost if that column says it (or amount, fee)"), "{said}");
        // A price that --map takes away is not said by that; what is no number, or no price, is not named.
        assert!(wanted(&[("price", "N")], Some("price=")).contains("--map price=price"));
        for other in [("cost", "S"), ("accosted", "N"), ("description", "S"), ("pricelist", "N")] {
            assert!(wanted(&[other], None).contains("--map price=COLUMN"), "{other:?}");
        }
        assert!(
            wanted(&[("cost", "N")], Some("priority=cost")).contains("--map price=COLUMN"),
            "it is something else"
        );
    }

    #[test]
    fn names_are_quoted_and_not_filled_in_again() {
        let source = source(&[("{table}\"; --", "S"), ("id", "N"), ("status", "S"), ("kind", "S")]);
        let said = Some("account={table}\"; --");
        let mapping = mapping(&source, said, NONE).unwrap();
        let words = Words::new(None, "punchcard").unwrap();
        assert_eq!(mapping.fill("{account}", &words), "o.\"{table}\"\"; --\"");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let source = source(PRISMA);
        for (said, why) in [
            ("account", "FIELD=COLUMN"),
            ("acount=x", "no field acount"),
            ("account=user", "no column user; it has id, userId"),
            ("created=createdAt", "is of type some type: a date or a timestamp is needed"),
            ("account=", "no column is mapped to account"),
            ("kind=", "or --kind KIND"),
        ] {
            let error = mapping(&source, Some(said), NONE).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
