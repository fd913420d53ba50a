//! What JSON can be kept: text that every later reader can take. And how lists are read that somebody sends: with room for as many
//! entries as there may be.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// How deep the arrays and objects of a JSON text nest, without parsing it.
#[must_use]
pub fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// Reads a list of up to `MOST` entries; `None` if it is null. Of a longer one it keeps one entry more, so that whoever counts them
/// refuses it, and reads past the others.
///
/// # Errors
/// When it is no list, or one of the entries that are kept is none.
pub fn at_most<'de, const MOST: usize, D: Deserializer<'de>, T: Deserialize<'de>>(
    list: D,
) -> Result<Option<Vec<T>>, D::Error> {
    list.deserialize_option(List::<T, MOST> { counts: |_, _| true })
}

/// The same of texts, of which each counts once, however often it stands there.
///
/// # Errors
/// When it is no list of texts.
pub fn distinct_at_most<'de, const MOST: usize, D: Deserializer<'de>>(
    list: D,
) -> Result<Option<Vec<String>>, D::Error> {
    list.deserialize_option(List::<String, MOST> { counts: |kept, text| !kept.contains(text) })
}

/// The same of an object of texts.
///
/// # Errors
/// When it is no object of texts.
pub fn pairs_at_most<'de, const MOST: usize, D: Deserializer<'de>>(
    object: D,
) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    object.deserialize_option(Pairs::<MOST>)
}

struct List<T, const MOST: usize> {
    /// Whether an entry counts beside those that are kept.
    counts: fn(&[T], &T) -> bool,
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for List<T, MOST> {
    type Value = Option<Vec<T>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a sequence")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, list: D) -> Result<Self::Value, D::Error> {
        list.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut kept = Vec::new();
        while kept.len() <= MOST {
            let Some(entry) = entries.next_element()? else { return Ok(Some(kept)) };
            if (self.counts)(&kept, &entry) {
                kept.push(entry);
            }
        }
        while entries.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Some(kept))
    }
}

struct Pairs<const MOST: usize>;

impl<'de, const MOST: usize> Visitor<'de> for Pairs<MOST> {
    type Value = Option<BTreeMap<String, String>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a map")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, object: D) -> Result<Self::Value, D::Error> {
        object.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut kept = BTreeMap::new();
        while kept.len() <= MOST {
            let Some((name, value)) = members.next_entry::<String, _>()? else { return Ok(Some(kept)) };
            if kept.contains_key(&name) {
                return Err(serde::de::Error::custom(format!("duplicate field `{name}`")));
            }
            kept.insert(name, value);
        }
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Some(kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Sent<'a> {
        #[serde(default, deserialize_with = "at_most::<2, _, _>")]
        numbers: Option<Vec<i64>>,
        #[serde(default, deserialize_with = "distinct_at_most::<2, _>")]
        words: Option<Vec<String>>,
        #[serde(default, deserialize_with = "pairs_at_most::<2, _>")]
        pairs: Option<BTreeMap<String, String>>,
        #[serde(borrow, default, deserialize_with = "at_most::<2, _, _>")]
        borrowed: Option<Vec<&'a str>>,
    }

    #[test]
    fn of_too_many_entries_one_too_many_is_kept() {
        let read = |text: &'static str| serde_json::from_str::<Sent<'static>>(text);
        let few =
            read(r#"{"numbers":[1,1],"words":["a","b","a","b","a"],"pairs":{"a":"1","b":""},"borrowed":[]}"#);
        let few = few.expect("JSON");
        assert_eq!((few.numbers, few.borrowed), (Some(vec![1, 1]), Some(vec![])));
        assert_eq!(few.words, Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(few.pairs.map(|pairs| (pairs.len(), pairs["a"].clone())), Some((2, "1".to_owned())));
        let many = read(
            r#"{"numbers":[1,1,1,1,{}],"words":["a","b","c","a","d",7],"pairs":{"a":"","b":"","c":"","d":"","e":[]},
                "borrowed":["a","b","c","d"]}"#,
        );
        let many = many.expect("JSON");
        assert_eq!(
            (many.numbers.map(|kept| kept.len()), many.words.map(|kept| kept.len())),
            (Some(3), Some(3))
        );
        assert_eq!(
            (many.pairs.map(|kept| kept.len()), many.borrowed.map(|kept| kept.len())),
            (Some(3), Some(3))
        );
        let none = read(r#"{"numbers":null,"words":null,"pairs":null}"#).expect("JSON");
        assert!(
            none.numbers.is_none() && none.words.is_none() && none.pairs.is_none() && none.borrowed.is_none()
        );
        for bad in [
            r#"{"pairs":{"a":"","b":"","a":"1"}}"#,
            r#"{"numbers":["1"]}"#,
            r#"{"words":{}}"#,
            r#"{"words":[null]}"#,
            r#"{"pairs":{"a":7}}"#,
            r#"{"pairs":[]}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn brackets_in_strings_do_not_count() {
        for (text, deep) in [("1", 0), ("[]", 1), (r#"{"a":[1,{"b":2}]}"#, 3), (r#"["[[[\"[["]"#, 1)] {
            assert_eq!(depth(text), deep, "{text}");
        }
    }
}
