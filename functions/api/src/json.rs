//! JSON in: an object, no deeper than 32, with nothing in it that no later reader can take.

use std::{cell::Cell, fmt};

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_path_to_error::Segment;
use shared::domain::{job::MAX_OUTPUT_DEPTH, json::depth};

use crate::{error::ApiError, event::Request};

/// The largest input of a job, in bytes of JSON.
pub(crate) const MAX_INPUT_BYTES: usize = 65_536;
/// The largest body: an input and room for what is around it.
const MAX_BODY_BYTES: usize = MAX_INPUT_BYTES + 16_384;
/// How deep arrays and objects may nest.
const MAX_DEPTH: usize = 32;

/// The largest job of a batch: an input and as much around it.
const MAX_JOB_BYTES: usize = 2 * MAX_INPUT_BYTES;
/// The largest body of a batch.
const MAX_BATCH_BYTES: usize = 4 * 1024 * 1024;
/// And of a call back.
const MAX_CALLBACK_BYTES: usize = 1024 * 1024;

/// Reads the body as `T`; each kind of bad body has a code of its own.
pub(crate) fn body<'a, T: Deserialize<'a>>(request: &'a Request) -> Result<T, ApiError> {
    read(request, MAX_BODY_BYTES, MAX_DEPTH, "A body has at most 80 KiB.")
}

/// Refuses a body where none is taken, but for an empty object: what it says would be passed over.
pub(crate) fn no_body(request: &Request) -> Result<(), ApiError> {
    if request.body.trim_ascii().is_empty() || request.body.trim_ascii() == b"{}" {
        return Ok(());
    }
    Err(ApiError::bad("unknown_field", "This takes no body.").at(""))
}

/// Reads the body of a batch.
pub(crate) fn large_body<'a, T: Deserialize<'a>>(request: &'a Request) -> Result<T, ApiError> {
    read(request, MAX_BATCH_BYTES, MAX_DEPTH, "A body has at most 4 MiB.")
}

/// Reads the body of a call back: an output and what a provider sends beside it.
pub(crate) fn callback_body<'a, T: Deserialize<'a>>(request: &'a Request) -> Result<T, ApiError> {
    read(request, MAX_CALLBACK_BYTES, MAX_OUTPUT_DEPTH + 1, "A body has at most 1 MiB.")
}

fn read<'a, T: Deserialize<'a>>(
    request: &'a Request,
    limit: usize,
    most_depth: usize,
    over: &'static str,
) -> Result<T, ApiError> {
    let media = request.header("content-type")?.unwrap_or_default();
    if !media.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        return Err(ApiError::unsupported_media_type());
    }
    if request.body.is_empty() {
        return Err(ApiError::bad("body_required", "Send a JSON object.").at(""));
    }
    if request.body.len() > limit {
        return Err(ApiError::too_large(over).at(""));
    }
    let text =
        std::str::from_utf8(&request.body).map_err(|_| ApiError::bad("invalid_json", "Not UTF-8.").at(""))?;
    if depth(text) > most_depth {
        let why = format!("At most {most_depth} levels of arrays and objects.");
        return Err(ApiError::bad("too_deep", why).at(""));
    }
    // Read once as any JSON, of which nothing is kept: numbers that overflow, trailing garbage and NULs are found wherever they
    // stand.
    let nul = Cell::new(false);
    let mut reader = serde_json::Deserializer::from_str(text);
    let is_object = Any { nul: &nul }.deserialize(&mut reader).and_then(|it| reader.end().map(|()| it));
    if !is_object.map_err(|error| ApiError::bad("invalid_json", position(&error)).at(""))? {
        return Err(ApiError::bad("not_an_object", "Send a JSON object.").at(""));
    }
    if nul.get() {
        return Err(ApiError::invalid("nul_character", "Text cannot contain \\u0000.").at(""));
    }
    fields(text)
}

/// Reads a job within a batch that was read before.
pub(crate) fn member<'a, T: Deserialize<'a>>(object: &'a RawValue) -> Result<T, ApiError> {
    if object.get().len() > MAX_JOB_BYTES {
        return Err(ApiError::too_large("A job of a batch has at most 128 KiB of JSON.").at(""));
    }
    fields(object.get())
}

fn fields<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, ApiError> {
    let mut reader = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        // Where it stands is said by the pointer.
        let said = error.inner().to_string();
        let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(said, _)| said);
        let (name, known) = named(said);
        let mut place = pointer(error.path());
        let code = if said.starts_with("unknown field") {
            "unknown_field"
        } else if said.starts_with("duplicate field") {
            "duplicate_field"
        } else {
            "invalid_field"
        };
        // The path ends where the member stands that is not known, is there twice, or is missing.
        let of_member = code != "invalid_field" || said.starts_with("missing field");
        let name = name.filter(|_| of_member).map(|name| format!("/{}", escaped(name)));
        if let Some(name) = name.filter(|name| !place.ends_with(name.as_str())) {
            place.push_str(&name);
        }
        let error = ApiError::bad(code, short(said)).at(&place);
        if known.is_empty() { error } else { error.allowed(known) }
    })
}

/// What serde says of a member or a word, between backticks, and which would be known.
fn named(said: &str) -> (Option<&str>, Vec<&str>) {
    match said.rsplit_once("`, expected ") {
        Some((before, known)) if said.starts_with("unknown ") => {
            (before.split_once('`').map(|(_, name)| name), known.split('`').skip(1).step_by(2).collect())
        }
        _ => {
            let name = said.split_once('`').and_then(|(_, rest)| rest.rsplit_once('`'));
            (name.map(|(name, _)| name), Vec::new())
        }
    }
}

fn escaped(name: &str) -> String {
    short(name).replace('~', "~0").replace('/', "~1")
}

/// A path as a JSON Pointer (RFC 6901).
fn pointer(path: &serde_path_to_error::Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } | Segment::Enum { variant: key } => {
                pointer.push('/');
                pointer.push_str(&escaped(key));
            }
            Segment::Unknown => {}
        }
    }
    pointer
}

fn position(error: &serde_json::Error) -> String {
    format!("Not valid JSON at line {}, column {}.", error.line(), error.column())
}

/// The beginning of what is said again of a request: it may be as long as the request.
pub(crate) fn short(text: &str) -> String {
    const MOST: usize = 300;
    let cut = &text[..text.floor_char_boundary(MOST)];
    if cut.len() < text.len() { format!("{cut}…") } else { cut.to_owned() }
}

/// Reads any JSON value, notes whether there is a NUL in it, and answers whether it is an object.
#[derive(Clone, Copy)]
struct Any<'a> {
    nul: &'a Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Any<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Any<'_> {
    type Value = bool;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        if text.contains('\0') {
            self.nul.set(true);
        }
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<bool, A::Error> {
        while items.next_element_seed(self)?.is_some() {}
        Ok(false)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<bool, A::Error> {
        while members.next_key_seed(self)?.is_some() {
            members.next_value_seed(self)?;
        }
        Ok(true)
    }
}
