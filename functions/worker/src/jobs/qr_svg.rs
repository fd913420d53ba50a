//! `qr.svg`: text in, a QR code as SVG out.

use std::fmt::Write;

use qrcode::{Color, QrCode};
use serde::Deserialize;
use shared::domain::{ErrorCode, JobError, Outcome};

use super::{Handler, Performing, Run};

/// The kind `qr.svg`.
pub struct QrSvg;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    text: String,
}

impl Handler for QrSvg {
    fn kind(&self) -> &'static str {
        "qr.svg"
    }

    fn perform<'a>(&'a self, run: &'a Run) -> Performing<'a> {
        Box::pin(async move { draw(&run.lease.input) })
    }
}

fn draw(input: &str) -> Outcome {
    let invalid = |why: String| Outcome::Final(JobError::new(ErrorCode::InvalidInput, why));
    let input: Input = match serde_json::from_str(input) {
        Ok(input) => input,
        Err(error) => return invalid(format!("expected {{\"text\": \"…\"}}: {error}")),
    };
    let code = match QrCode::new(input.text.as_bytes()) {
        Ok(code) => code,
        Err(error) => return invalid(format!("no QR code can hold this text: {error}")),
    };
    match serde_json::value::to_raw_value(&serde_json::json!({ "svg": svg(&code) })) {
        Ok(output) => Outcome::done(output),
        Err(error) => Outcome::Final(JobError::new(ErrorCode::InvalidOutput, error.to_string())),
    }
}

/// The code as SVG, a stroke for each run of dark modules: the largest code stays within what is kept of an output.
fn svg(code: &QrCode) -> String {
    let (width, quiet) = (code.width(), 4);
    let size = width + 2 * quiet;
    let mut path = String::new();
    for (y, row) in code.to_colors().chunks(width).enumerate() {
        let _ = write!(path, "M{quiet} {}.5", y + quiet);
        for run in row.chunk_by(|a, b| a == b) {
            let step = if run[0] == Color::Dark { "h" } else { "m" };
            let _ = write!(path, "{step}{}", run.len());
            path.push_str(if step == "m" { " 0" } else { "" });
        }
    }
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" width="256" height="256" shape-rendering="crispEdges"><path fill="#fff" d="M0 0h{size}v{size}H0z"/><path stroke="#000" d="{path}"/></svg>"##
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_an_svg() {
        let Outcome::Done { output, .. } = draw(r#"{"text":"hello"}"#) else { panic!("not done") };
        assert!(output.get().contains("<svg"));
    }

    #[test]
    fn the_largest_code_is_an_output_that_is_kept() {
        let text = serde_json::json!({ "text": "x".repeat(2_300) }).to_string();
        let Outcome::Done { output, .. } = draw(&text) else { panic!("not done") };
        assert!(output.get().len() <= shared::domain::job::MAX_OUTPUT_BYTES, "{}", output.get().len());
    }

    #[test]
    fn an_input_that_can_never_work_is_final() {
        for input in ["{}", "[]", r#"{"text":1}"#, r#"{"text":"x","more":1}"#] {
            assert!(matches!(draw(input), Outcome::Final(e) if e.code == ErrorCode::InvalidInput), "{input}");
        }
        let long = serde_json::json!({ "text": "x".repeat(5_000) }).to_string();
        assert!(matches!(draw(&long), Outcome::Final(_)));
    }
}
