//! What an import would do: the figures of the survey, and what stands in the way.

use tokio_postgres::{Client, Row};

use super::{mapping::Mapping, rows};
use crate::Failure;

/// How many rows need what.
#[derive(Debug)]
pub(crate) struct Plan {
    words: Vec<(String, Option<String>, i64)>,
    succeeded: i64,
    failed: i64,
    canceled: i64,
    /// To be taken from the old worker.
    pub(crate) queued: i64,
    /// Taken by an earlier run that did not finish.
    pub(crate) marked: i64,
    running: i64,
    present: i64,
    clamped: i64,
    /// Whose column of the input is NULL.
    without_input: i64,
    /// To be taken, with a priority beyond what their kind may have.
    lowered: i64,
    /// Why, whether marked by an earlier run, how many, and the first of them.
    skipped: Vec<(String, bool, i64, String)>,
    missing_kinds: Vec<(String, i64)>,
    repeated: (i64, String),
}

impl Plan {
    /// Reads the survey.
    pub(crate) async fn read(client: &Client) -> Result<Self, Failure> {
        let figures = rows(client, include_str!("figures.sql")).await?;
        let figure = |column: usize| figures.first().map_or(0, |row| row.get(column));
        let repeated = rows(client, include_str!("repeated.sql")).await?;
        Ok(Self {
            words: each(&rows(client, include_str!("words.sql")).await?, |row| {
                (row.get(0), row.get(1), row.get(2))
            }),
            succeeded: figure(0),
            failed: figure(1),
            canceled: figure(2),
            queued: figure(3),
            marked: figure(4),
            running: figure(5),
            present: figure(6),
            clamped: figure(7),
            without_input: figure(8),
            lowered: figure(9),
            skipped: each(&rows(client, include_str!("skipped.sql")).await?, |row| {
                (row.get(0), row.get(1), row.get(2), row.get::<_, Option<String>>(3).unwrap_or_default())
            }),
            missing_kinds: each(&rows(client, include_str!("kinds.sql")).await?, |row| {
                (row.get(0), row.get(1))
            }),
            repeated: repeated
                .first()
                .map(|row| (row.get(0), row.get::<_, Option<String>>(1).unwrap_or_default()))
                .unwrap_or_default(),
        })
    }

    /// Final jobs, to be copied.
    pub(crate) fn history(&self) -> i64 {
        self.succeeded + self.failed + self.canceled
    }

    /// Jobs that are to be run by Punchcard.
    pub(crate) fn to_take(&self) -> i64 {
        self.queued + self.marked
    }

    /// One fact a line.
    pub(crate) fn lines(&self, mapping: &Mapping<'_>) -> Vec<String> {
        let mut lines = mapping.lines();
        let words = self.words.iter().map(|(word, state, count)| {
            format!("{} ({count}) is {}", shown(word), state.as_deref().unwrap_or("unknown"))
        });
        lines.push(format!("words: {}", words.collect::<Vec<_>>().join(", ")));
        lines.push(format!(
            "history to copy: {}: {} succeeded, {} failed, {} canceled",
            self.history(),
            self.succeeded,
            self.failed,
            self.canceled
        ));
        lines.push(format!(
            "to take over: {}: {} queued, {} taken by an earlier run",
            self.to_take(),
            self.queued,
            self.marked
        ));
        lines.push(format!("left to the old worker: {} running", self.running));
        lines.push(format!("in Punchcard already: {}", self.present));
        if self.clamped > 0 {
            lines.push(format!("priorities brought into -10 to 10: {}", self.clamped));
        }
        if self.lowered > 0 {
            lines.push(format!("priorities lowered to the max_priority of their kind: {}", self.lowered));
        }
        if self.without_input > 0 {
            lines.push(format!("without an input, which get {{}}: {}", self.without_input));
        }
        for (reason, marked, count, first) in &self.skipped {
            let more = if *count > 10 { ", …" } else { "" };
            let marked =
                if *marked { " (taken by an earlier run: nobody runs it until this is mended)" } else { "" };
            lines.push(format!("skipped {count}: {reason}{marked}: {first}{more}"));
        }
        for (kind, count) in &self.missing_kinds {
            lines.push(format!("missing kind {kind}: {count} jobs"));
        }
        lines
    }

    /// Why nothing can be done.
    pub(crate) fn obstacle(&self, mapping: &Mapping<'_>) -> Option<String> {
        let unknown = self.words.iter().filter(|(_, state, _)| state.is_none());
        let unknown: Vec<_> =
            unknown.map(|(word, _, count)| (word, format!("{} ({count})", shown(word)))).collect();
        let missing: Vec<_> =
            self.missing_kinds.iter().map(|(kind, count)| format!("{kind} ({count})")).collect();
        let (repeated, first) = &self.repeated;
        if let Some((first, _)) = unknown.first() {
            let words: Vec<&str> = unknown.iter().map(|(_, word)| word.as_str()).collect();
            Some(format!(
                "unknown status words: {}: say what they mean with --status WORD=STATUS, such as \
                 --status '{first}=queued'",
                words.join(", ")
            ))
        } else if *repeated > 0 {
            Some(format!("{repeated} ids stand in more than one row: {first}: map another column to id"))
        } else if !missing.is_empty() {
            Some(format!(
                "kinds that are not offered: {}: offer them with `punchcard apply`",
                missing.join(", ")
            ))
        } else if self.to_take() > 0 && !mapping.has_price() {
            Some(mapping.price_wanted(self.to_take()))
        } else {
            None
        }
    }

    /// What is left once all has been done.
    pub(crate) fn rest(&self) -> Option<String> {
        (self.running > 0)
            .then(|| format!("{} were running: run this again to copy what has become of them", self.running))
    }
}

/// A word, in quotes if it does not show where it begins and ends.
fn shown(word: &str) -> String {
    let plain =
        !word.is_empty() && !word.contains(|char: char| char.is_whitespace() || ",='\"".contains(char));
    if plain { word.to_owned() } else { format!("{word:?}") }
}

fn each<T>(rows: &[Row], read: impl Fn(&Row) -> T) -> Vec<T> {
    rows.iter().map(read).collect()
}
