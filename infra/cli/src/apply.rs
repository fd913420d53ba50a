//! `punchcard apply`: makes the kinds what a file says. All is judged before anybody connects; what the
//! database itself has to say, it says to the very statement that would be committed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use shared::{
    db::{
        Db,
        connect::client,
        kinds::{self, BOUNDS, Bound, Kind, Unfinished, field_of},
        retention::{self, Past, Retention},
    },
    domain::Growth,
    http_client::{Allow, vet_url},
    secrets::Secrets,
};
use tokio_postgres::{Client, Error, error::SqlState};

use crate::{Failure, failure::said, in_two_minutes, soon};

/// What a tick keeps for itself: to take back, claim, settle and answer, in seconds.
const TICK_MARGIN: i32 = 10;
/// The longest attempt that fits into a tick of the template's default `PollerTimeout` of 120 s.
const LONGEST_BY_DEFAULT: i32 = 120 - TICK_MARGIN;
/// Of a value that is refused, as much is shown.
const SHOWN: usize = 60;

/// What to apply, and how.
#[derive(Args)]
pub(crate) struct Options {
    /// The file.
    #[arg(default_value = "infra/kinds.toml")]
    file: PathBuf,
    /// Only show what would change: with every check, the database's own too, and rolled back.
    #[arg(long)]
    dry_run: bool,
    /// Retire the kinds that the file does not name: they are not sold any more, and what is queued of them
    /// fails and is released; and shorten the retention, which deletes. Without it both are told, and stay.
    #[arg(long)]
    prune: bool,
    /// Take targets at private addresses and by plain HTTP, as a local worker may.
    #[arg(long)]
    allow_private_targets: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KindsFile {
    kinds: BTreeMap<String, Map<String, Value>>,
    retention: Option<Retention>,
}

/// What a file wants.
struct Wanted {
    kinds: Vec<Kind>,
    /// `None`: as it is.
    retention: Option<Retention>,
}

/// Applies the file. Kinds that it does not name are left as they are, unless they are to be pruned.
pub(crate) async fn apply(
    secrets: impl Fn() -> Result<Secrets, Failure>,
    db: impl AsyncFn() -> Result<Db, Failure>,
    options: &Options,
) -> Result<(), Failure> {
    let Options { file, dry_run, prune, allow_private_targets } = options;
    let allow = if *allow_private_targets { Allow::Anything } else { Allow::PublicHttps };
    let Wanted { kinds: wanted, retention } =
        read_file(file, allow).map_err(|error| format!("{}: {error}", file.display()))?;
    let (secrets, db) = (secrets()?, db().await?);
    let known = db.list_kinds(soon()).await?;

    let changed: Vec<Kind> = wanted.iter().filter(|kind| !known.contains(kind)).cloned().collect();
    for kind in &changed {
        describe(kind, known.iter().find(|known| known.name == kind.name));
    }
    for kind in wanted.iter().filter(|kind| !is_served(kind)) {
        println!(
            "warning: {}: there is no url, and functions/worker has no Rust code of that name (it has {}): \
             unless a worker of your own serves it, its jobs wait until their life_seconds are over ({} s), \
             fail and are released",
            kind.name,
            rust_kinds().join(", "),
            kind.life_seconds
        );
    }
    let gone = known.iter().filter(|known| !known.retired && !wanted.iter().any(|it| it.name == known.name));
    let gone: Vec<String> = gone.map(|kind| kind.name.clone()).collect();
    let unfinished = match gone.is_empty() {
        true => Vec::new(),
        false => db.unfinished(&gone, soon()).await?,
    };
    for left in &unfinished {
        println!("{}", told_of(left, *prune, *dry_run));
    }

    let retired = if *prune { gone } else { Vec::new() };
    let retention = match retention {
        Some(wanted) => kept_for(&db, wanted, *prune).await?,
        None => Kept::AsItIs,
    };
    let changes = changed.len() + retired.len();
    let new = match retention {
        Kept::Changes(new) => Some(new),
        Kept::AsItIs | Kept::Waits => None,
    };
    if changes > 0 || new.is_some() {
        write(&secrets, &changed, &retired, new, *dry_run).await?;
    }
    let of_retention = if new.is_some() { " and the retention" } else { "" };
    match (changes + usize::from(new.is_some()), dry_run) {
        (0, _) if matches!(retention, Kept::Waits) => println!("nothing has changed"),
        (0, _) => println!("nothing to change: what the file names is as it says"),
        (_, true) => println!("dry run: {changes} kinds{of_retention} would change, and nothing has"),
        (_, false) => println!("{changes} kinds{of_retention} changed"),
    }
    Ok(())
}

/// What becomes of the retention.
#[derive(Clone, Copy)]
enum Kept {
    /// It is as the file says, or the file does not speak of it.
    AsItIs,
    /// It becomes this.
    Changes(Retention),
    /// It would delete, and was not to be pruned.
    Waits,
}

/// Tells how a retention changes, and whether it is to: one that is shorter deletes.
async fn kept_for(db: &Db, wanted: Retention, prune: bool) -> Result<Kept, Failure> {
    let known = db.retention(soon()).await?;
    if wanted == known {
        return Ok(Kept::AsItIs);
    }
    let taken = prune || !wanted.is_shorter_than(&known);
    let word = if taken { "changed" } else { "would change" };
    for (field, old, new) in differences(&known, &wanted) {
        println!("{word}: retention: {field}: {old} -> {new}");
    }
    if !wanted.is_shorter_than(&known) {
        return Ok(Kept::Changes(wanted));
    }
    let past = db.past(&wanted, in_two_minutes()).await?;
    if past.is_empty() {
        println!("nothing is that old yet");
    }
    for Past { what, number, credits, days: (first, last) } in &past {
        let credits = credits.map_or_else(String::new, |credits| format!(", {credits} credits"));
        println!("deletes: {number} {what}{credits}, of {first} to {last}");
    }
    if !prune {
        println!(
            "warning: the retention is shorter, which deletes: all of it stays as it was; --prune changes it"
        );
        return Ok(Kept::Waits);
    }
    Ok(Kept::Changes(wanted))
}

/// Whether somebody is known to do its jobs: an HTTP target, or code that is compiled into this repository's
/// worker.
fn is_served(kind: &Kind) -> bool {
    kind.url.is_some() || rust_kinds().contains(&kind.name.as_str())
}

fn rust_kinds() -> Vec<&'static str> {
    worker::jobs::handlers().iter().map(|handler| handler.kind()).collect()
}

/// In one statement of one transaction, which a dry run rolls back.
async fn write(
    secrets: &Secrets,
    changed: &[Kind],
    retired: &[String],
    retention: Option<Retention>,
    dry_run: bool,
) -> Result<(), Failure> {
    let mut client = client(secrets).await?;
    let failed = |error: Error| format!("{}; nothing has changed", said(&error));
    let transaction = client.transaction().await.map_err(failed)?;
    if let Err(error) = kinds::apply(&transaction, changed, retired).await {
        transaction.rollback().await.map_err(failed)?;
        return Err(refusal(&mut client, changed, error).await.into());
    }
    if let Some(retention) = &retention {
        retention::set(&transaction, retention).await.map_err(failed)?;
    }
    match dry_run {
        true => transaction.rollback().await.map_err(failed)?,
        false => {
            transaction.commit().await.map_err(|error| format!("{}; look what has changed", said(&error)))?
        }
    }
    Ok(())
}

/// Why the database refuses what passed here: of a CHECK of its own, which kind and which field it is about.
/// Of a table with row security the server does not say which row it was: each kind is asked for alone.
async fn refusal(client: &mut Client, changed: &[Kind], error: Error) -> String {
    let constraint = |error: &Error| {
        let db = error.as_db_error().filter(|db| *db.code() == SqlState::CHECK_VIOLATION)?;
        db.constraint().map(str::to_owned)
    };
    let Some(of_all) = constraint(&error) else { return format!("{}; nothing has changed", said(&error)) };
    let mut found = None;
    for kind in changed {
        let Ok(transaction) = client.transaction().await else { break };
        let alone = kinds::apply(&transaction, std::slice::from_ref(kind), &[]).await;
        if let Some(of_one) = alone.err().as_ref().and_then(constraint) {
            found = Some((kind.name.as_str(), of_one));
            break;
        }
    }
    let (kind, constraint) = found.unwrap_or(("a kind", of_all));
    let field = field_of(&constraint);
    let bound = BOUNDS.iter().find(|(name, _)| *name == field);
    let bound = bound.map_or_else(String::new, |(_, bound)| format!(" (here: {bound})"));
    format!(
        "{kind}: {field}: the database does not take its value, by its own rule {constraint}{bound}; nothing \
         has changed: this program and the database are of different versions"
    )
}

/// What would be, or is, retired, or is left.
fn told_of(left: &Unfinished, prune: bool, dry_run: bool) -> String {
    let Unfinished { kind, jobs, running, held } = left;
    let figures = format!("{jobs} unfinished jobs, {running} of them running, {held} credits held");
    match (prune, dry_run) {
        (true, false) => format!("retired: {kind}: {figures}: what is queued fails and is released"),
        (true, true) => {
            format!("would be retired: {kind}: {figures}: what is queued would fail and be released")
        }
        (false, _) => format!(
            "warning: {kind} is not in the file, and stays as it is: {figures}; --prune retires it, and \
             what is queued fails and is released"
        ),
    }
}

/// Field by field: of a new kind what is not the default, of another what it was.
fn describe(kind: &Kind, known: Option<&Kind>) {
    let target = kind.url.as_deref().unwrap_or("Rust code");
    match known {
        None => {
            println!("new: {}: {target}", kind.name);
            // All but the price has a default.
            let plain = serde_json::from_value(json!({ "name": kind.name, "price": -1 }));
            for (field, _, new) in plain.iter().flat_map(|plain| differences(plain, kind)) {
                println!("  {field} = {new}");
            }
        }
        Some(known) => {
            if known.retired {
                println!("changed: {}: offered again", kind.name);
            }
            for (field, old, new) in differences(known, kind) {
                println!("changed: {}: {field}: {old} -> {new}", kind.name);
            }
        }
    }
    if kind.timeout_seconds > LONGEST_BY_DEFAULT {
        let needed = kind.timeout_seconds + TICK_MARGIN;
        println!("  it may take {} s: deploy with PollerTimeout={needed} or more", kind.timeout_seconds);
    }
}

/// The fields in which two of them differ, as they are written in a file.
fn differences<T: Serialize>(old: &T, new: &T) -> impl Iterator<Item = (String, String, String)> + use<T> {
    let fields = |written: &T| match serde_json::to_value(written) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let (old, new) = (fields(old), fields(new));
    let shown = |value: &Value| if value.is_null() { "none".to_owned() } else { value.to_string() };
    new.into_iter().filter_map(move |(field, new)| {
        let old = old.get(&field).unwrap_or(&Value::Null);
        (*old != new).then(|| (field, shown(old), shown(&new)))
    })
}

/// What the file wants, if all of it can be.
fn read_file(file: &Path, allow: Allow) -> Result<Wanted, Failure> {
    let text = std::fs::read_to_string(file)?;
    let KindsFile { kinds, retention } = toml::from_str(&text).map_err(|error| {
        let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        let line = line.map_or_else(String::new, |line| format!("line {line}: "));
        format!("{line}{}", error.message())
    })?;
    let mut flaws = Vec::new();
    flaws.extend(retention.as_ref().and_then(Retention::flaw).map(|flaw| format!("retention: {flaw}")));
    let mut wanted = Vec::new();
    for (name, fields) in kinds {
        let found = flaws_of(&name, &fields);
        if !found.is_empty() {
            flaws.extend(found.into_iter().map(|flaw| format!("{name}: {flaw}")));
            continue;
        }
        match serde_json::from_value(Value::Object(fields)) {
            Ok(kind) => {
                let kind = Kind { name, ..kind };
                flaws.extend(flaw(&kind, allow).map(|flaw| format!("{}: {flaw}", kind.name)));
                wanted.push(kind);
            }
            Err(error) => flaws.push(format!("{name}: {error}")),
        }
    }
    match flaws.is_empty() {
        true => Ok(Wanted { kinds: wanted, retention }),
        false => Err(flaws.join("; ").into()),
    }
}

/// The fields that are not what they may be.
fn flaws_of(name: &str, fields: &Map<String, Value>) -> Vec<String> {
    let mut flaws = Vec::new();
    if !Bound::Name.holds(&name.into()) {
        flaws.push(format!("the name of a kind is {}", Bound::Name));
    }
    for (field, value) in fields {
        match BOUNDS.iter().find(|(known, _)| known == field) {
            Some(("name", _)) => flaws.push("name: the name of its table is the kind's".to_owned()),
            Some((_, bound)) if !bound.holds(value) => {
                flaws.push(format!("{field} = {}: it is {bound}", shown(value)));
            }
            // What there is no such field of is refused, by its name, where the kind is read.
            Some(_) | None => {}
        }
    }
    flaws
}

/// A value, cut to what fits into a line.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// What makes no sense together, or points to where no worker may go.
fn flaw(kind: &Kind, allow: Allow) -> Option<String> {
    for url in kind.url.iter().chain(&kind.cancel_url) {
        if let Err(error) = vet_url(url, allow) {
            return Some(format!("{url}: {error}"));
        }
    }
    ((kind.backoff == Growth::Fixed) == kind.backoff_delays.is_empty())
        .then(|| "backoff = \"fixed\" and backoff_delays go together".to_owned())
}
