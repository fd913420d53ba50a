//! `qr.svg`: text in, a QR code as SVG out.

use qrcode::{QrCode, render::svg};
use serde::Deserialize;
use shared::domain::{ErrorCode, JobError, Lease, Outcome};

use super::{Handler, Performing};

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

    fn perform<'a>(&'a self, lease: &'a Lease) -> Performing<'a> {
        Box::pin(async move { draw(&lease.input) })
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
    let image = code.render::<svg::Color<'_>>().min_dimensions(256, 256).build();
    match serde_json::value::to_raw_value(&serde_json::json!({ "svg": image })) {
        Ok(output) => Outcome::Done(output),
        Err(error) => Outcome::Final(JobError::new(ErrorCode::InvalidOutput, error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_an_svg() {
        let Outcome::Done(output) = draw(r#"{"text":"hello"}"#) else { panic!("not done") };
        assert!(output.get().contains("<svg"));
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
