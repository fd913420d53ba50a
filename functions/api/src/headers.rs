//! Headers that carry lists: wishes (`Prefer`, RFC 7240) and entity tags (RFC 9110 §8.8.3).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

/// The seconds of `wait` among the preferences (RFC 7240 §4.3). A preference is only a wish: what is malformed or unknown
/// is passed over, and of one that stands there twice the first counts (§2).
pub(crate) fn preferred_wait(preferences: &str) -> Option<u64> {
    let wishes =
        members(preferences, ',').into_iter().filter_map(|wish| members(wish, ';').into_iter().next());
    let mut named =
        wishes.filter_map(|wish| wish.split_once('=')).map(|(name, value)| (name.trim(), value.trim()));
    let (_, seconds) = named.find(|(name, _)| name.eq_ignore_ascii_case("wait"))?;
    whole(seconds.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(seconds))
}

/// A number of digits alone; one that is too large is as large as can be.
pub(crate) fn whole(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// A strong entity tag: what it is the tag of differs if and only if this does.
pub(crate) fn entity_tag(representation: &str) -> String {
    let digest = Sha256::digest(representation);
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(&digest[..16]))
}

/// Whether one of the entity tags of an `If-None-Match` is `tag`, by the weak comparison (RFC 9110 §13.1.2); `*` is any.
pub(crate) fn matches(if_none_match: &str, tag: &str) -> bool {
    let opaque = |known: &str| known.strip_prefix("W/").unwrap_or(known) == tag;
    if_none_match.trim() == "*" || members(if_none_match, ',').into_iter().any(opaque)
}

/// The members of a list, trimmed, the empty ones left out (RFC 9110 §5.6.1); what is quoted is in one piece.
fn members(list: &str, separator: char) -> Vec<&str> {
    let mut quoted = false;
    let mut escaped = false;
    let parts = list.split(|c| {
        let separates = c == separator && !quoted;
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && quoted && !escaped;
        separates
    });
    parts.map(str::trim).filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::{entity_tag, matches, preferred_wait, whole};

    #[test]
    fn a_wish_to_wait_is_found_among_others_and_what_is_malformed_is_none() {
        for (wish, seconds) in [
            ("wait=10", Some(10)),
            ("respond-async, wait=10", Some(10)),
            ("respond-async;foo=\"a, wait=1\" , WAIT = \"7\" ; bar=2", Some(7)),
            ("foo=\"\\\", wait=1\", wait=2", Some(2)),
            (",, wait=0,", Some(0)),
            ("wait=3, wait=9", Some(3)),
            ("wait=99999999999999999999999", Some(u64::MAX)),
            ("wait=x, wait=9", None),
            ("wait", None),
            ("wait=", None),
            ("wait=-1", None),
            ("wait=+1", None),
            ("wait=1.5", None),
            ("wait=1 0", None),
            ("waiting=1; wait=2", None),
            ("foo=\"wait=1", None),
            ("", None),
        ] {
            assert_eq!(preferred_wait(wish), seconds, "{wish}");
        }
        assert_eq!((whole("12"), whole("٣"), whole(" 1")), (Some(12), None, None));
    }

    #[test]
    fn a_tag_is_of_its_text_and_matches_in_lists_weakly() {
        let tag = entity_tag("{}");
        assert_eq!((tag.len(), entity_tag("{}") == tag, entity_tag("{ }") == tag), (24, true, false));
        for known in ["*", " * ", "W/*", "\"*\""] {
            assert_eq!(matches(known, &tag), known.trim() == "*", "{known}");
        }
        for known in [&tag, &format!("W/{tag}"), &format!("\"a,b\" ,, \"c\", W/{tag}, \"d\"")] {
            assert!(matches(known, &tag), "{known}");
        }
        let inside = format!("\"a, {}", tag.trim_start_matches('"'));
        for known in ["", "\"a\"", tag.trim_matches('"'), &format!("w/{tag}"), &inside] {
            assert!(!matches(known, &tag), "{known}");
        }
    }
}
