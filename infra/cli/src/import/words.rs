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
        for pair in more.unwrap_or_default().split(',').filter(|pair| !pair.trim().is_empty()) {
            let (word, status) = pair.split_once('=').ok_or_else(|| {
                format!("--status: {pair}: write WORD=STATUS, separated by commas, such as pending=queued")
            })?;
            let status = Status::parse(status.trim()).ok_or_else(|| {
                let all = Status::ALL.map(Status::as_str).join(", ");
                format!("--status: {pair}: a word means one of {all}")
            })?;
            known.insert(word.trim().to_lowercase(), status);
        }
        if taken.is_empty() {
            return Err("--taken-status: a word is needed".into());
        }
        if let Some(status) = known.get(&taken.to_lowercase()) {
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
        known.chain([(self.taken.to_lowercase(), "taken")])
    }
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
    fn what_is_wrong_is_said() {
        for (more, taken, why) in [
            (Some("x"), "p", "WORD=STATUS"),
            (Some("x=y"), "p", "one of queued"),
            (None, "Queued", "means queued already"),
            (Some("p=failed"), "p", "means failed already"),
            (None, "", "a word is needed"),
        ] {
            let error = Words::new(more, taken).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
