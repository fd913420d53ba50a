//! What the status words of a hand-rolled queue mean.

use std::collections::BTreeMap;

use shared::domain::Status;

/// The usual words, in lower case.
const USUAL: &[(Status, &[&str])] = &[
    (Status::Queued, &["queued", "pending", "waiting", "new"]),
    (Status::Running, &["running", "processing", "active", "in_progress", "started"]),
    (Status::Succeeded, &["succeeded", "completed", "complete", "done", "success", "finished"]),
    (Status::Failed, &["failed", "error", "errored", "dead"]),
    (Status::Canceled, &["canceled", "cancelled", "aborted"]),
];

/// What counts as no part of a word.
const BLANK: [char; 4] = [' ', '\t', '\n', '\r'];

/// Words in lower case and their status, and the word that marks what was taken from the old worker.
#[derive(Debug)]
pub(crate) struct Words {
    known: BTreeMap<String, Status>,
    /// The mark.
    pub(crate) taken: String,
}

impl Words {
    /// The usual words, and those of `more` (`pending=queued,done=succeeded`), which go before them.
    pub(crate) fn new(more: Option<&str>, taken: &str) -> Result<Self, String> {
        let usual =
            USUAL.iter().flat_map(|(status, words)| words.iter().map(|word| ((*word).into(), *status)));
        let mut known: BTreeMap<String, Status> = usual.collect();
        let mut said: Vec<(String, Status)> = Vec::new();
        for pair in pairs(more.unwrap_or_default()) {
            let (word, status) = pair.rsplit_once('=').ok_or_else(|| {
                format!("--status: {pair}: write WORD=STATUS, separated by commas, such as pending=queued")
            })?;
            let status = Status::parse(status.trim()).ok_or_else(|| {
                let all = Status::ALL.map(Status::as_str).join(", ");
                format!("--status: {pair}: a word means one of {all}")
            })?;
            let twice = said.iter().any(|(it, other)| *it == plain(word) && *other != status);
            if twice {
                return Err(format!("--status: {word} is said to be two things"));
            }
            said.push((plain(word), status));
        }
        known.extend(said);
        if plain(taken).is_empty() || taken.trim_matches(BLANK) != taken {
            return Err("--taken-status: a word is needed, without blanks around it".into());
        }
        if let Some(status) = known.get(&plain(taken)) {
            return Err(format!(
                "--taken-status: {taken} means {} already: choose a word that means nothing else",
                status.as_str()
            ));
        }
        Ok(Self { known, taken: taken.to_owned() })
    }

    /// Each word and what it means to the statements: a status, or `taken`.
    pub(crate) fn meanings(&self) -> impl Iterator<Item = (String, &'static str)> {
        let known = self.known.iter().map(|(word, status)| (word.clone(), status.as_str()));
        known.chain([(plain(&self.taken), "taken")])
    }
}

/// A word as the statements compare it: without blanks around it, A to Z in small letters. No language's own:
/// in Turkish PENDING would become another word.
fn plain(word: &str) -> String {
    word.trim_matches(BLANK).to_ascii_lowercase()
}

/// What stands between commas; a comma in a word is none, since what is before it says no status.
fn pairs(text: &str) -> Vec<String> {
    let mut pairs: Vec<String> = Vec::new();
    let mut open = String::new();
    for part in text.split(',') {
        open.push_str(part);
        match open.contains('=') {
            true => pairs.push(std::mem::take(&mut open)),
            false => open.push(','),
        }
    }
    let rest = open.trim_matches([' ', ',']);
    if !rest.is_empty() {
        pairs.push(rest.to_owned());
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_ones_own_goes_before_the_usual() {
        let words = Words::new(Some("Failed=running, paid = queued"), "punchcard").unwrap();
        let meaning = |word: &str| words.meanings().find(|(it, _)| it == word).map(|(_, status)| status);
        assert_eq!(
            (meaning("failed"), meaning("paid"), meaning("done"), meaning("punchcard"), meaning("x")),
            (Some("running"), Some("queued"), Some("succeeded"), Some("taken"), None)
        );
    }

    #[test]
    fn any_word_can_be_said_as_it_stands_there() {
        let words =
            Words::new(Some("PENDING=queued,in, progress=running, a=b = failed,=canceled,НОВАЯ=queued"), "p");
        let words = words.unwrap();
        let meaning = |word: &str| words.meanings().find(|(it, _)| it == word).map(|(_, status)| status);
        assert_eq!((meaning("pending"), meaning("in, progress")), (Some("queued"), Some("running")));
        assert_eq!(
            (meaning("a=b"), meaning(""), meaning("НОВАЯ")),
            (Some("failed"), Some("canceled"), Some("queued"))
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (more, taken, why) in [
            (Some("x"), "p", "WORD=STATUS"),
            (Some("x=y"), "p", "one of queued"),
            (None, "Queued", "means queued already"),
            (Some("p=failed"), "p", "means failed already"),
            (Some("x=failed,X=queued"), "p", "two things"),
            (None, "", "a word is needed"),
            (None, " p", "without blanks"),
        ] {
            let error = Words::new(more, taken).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
