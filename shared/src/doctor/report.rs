//! What the doctor found, for a person and for a program.

use serde::Serialize;

use crate::db::diagnosis::{Class, Diagnosis, Stage, Symptom, diagnose};

/// What a step found.
#[derive(Debug, Serialize)]
pub struct Step {
    /// Where.
    pub stage: Stage,
    /// Whether it is as it must be.
    pub ok: bool,
    /// What there is.
    pub found: String,
    /// What it means and what to do; of a step that is fine, a warning.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub diagnosis: Option<Diagnosis>,
}

/// The steps that were taken. On the way to the database the first that failed is the last.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What kind of endpoint it is.
    pub endpoint: &'static str,
    /// In order.
    pub steps: Vec<Step>,
}

impl Report {
    /// 0, or 10 and more: which stage failed.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let failed = self.steps.iter().find(|step| !step.ok);
        failed.map_or(0, |step| 10 + step.stage as u8)
    }

    /// For a person.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("endpoint: {}", self.endpoint)];
        for step in &self.steps {
            let stage = format!("{:?}", step.stage).to_lowercase();
            let mark = match (step.ok, step.diagnosis.is_some()) {
                (false, _) => "FAIL",
                (true, true) => "warn",
                (true, false) => "ok  ",
            };
            lines.push(format!("{mark} {stage:<8} {}", step.found));
            if let Some(Diagnosis { code, cause, fix, class, .. }) = step.diagnosis {
                let again = match class {
                    Class::Permanent => "trying again does not help",
                    Class::Transient => "trying again may help",
                    Class::Ambiguous => "connect again; what was under way may have been done",
                };
                lines.push(format!("       why: {cause} ({code}; {again})"));
                lines.push(format!("       fix: {fix}"));
            }
        }
        lines
    }

    pub(super) fn pass(&mut self, stage: Stage, found: impl Into<String>) {
        self.steps.push(Step { stage, ok: true, found: found.into(), diagnosis: None });
    }

    /// Something that works, with a word of warning.
    pub(super) fn warn(&mut self, stage: Stage, found: impl Into<String>) {
        let found = found.into();
        let diagnosis = diagnose(Symptom::Seen(stage, &found));
        self.steps.push(Step { stage, ok: true, found, diagnosis });
    }

    /// That there was no time for more, at the stage that was come to.
    pub(super) fn out_of_time(&self) -> Failed {
        seen(self.steps.last().map_or(Stage::Url, |step| step.stage), "no answer before the time was up")
    }

    pub(super) fn fail(&mut self, (stage, found, diagnosis): Failed) {
        self.steps.push(Step { stage, ok: false, found, diagnosis });
    }
}

/// Why a step failed: what was seen, and what it means.
pub(super) type Failed = (Stage, String, Option<Diagnosis>);

/// What no server said.
pub(super) fn seen(stage: Stage, text: impl Into<String>) -> Failed {
    let text = text.into();
    let diagnosis = diagnose(Symptom::Seen(stage, &text));
    (diagnosis.map_or(stage, |it| it.stage), text, diagnosis)
}

/// What the driver says, and the server through it.
pub(super) fn said(stage: Stage, error: &tokio_postgres::Error) -> Failed {
    match error.as_db_error() {
        Some(db) => {
            let text = format!("{} {}: {}", db.severity(), db.code().code(), db.message());
            let diagnosis = diagnose(Symptom::Server { code: db.code().code(), message: db.message() });
            (diagnosis.map_or(stage, |it| it.stage), text, diagnosis)
        }
        None => {
            let text = crate::db::connect::reason(error);
            seen(if text.contains("TLS") { Stage::Tls } else { stage }, text)
        }
    }
}
