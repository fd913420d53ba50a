//! A point in time as the API writes it.

use std::fmt;

use serde::{Serialize, Serializer};
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

/// A point in time by the database's clock; shown as RFC 3339 in UTC with microseconds, which is all that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, format = DateTime))]
pub struct Timestamp(pub OffsetDateTime);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.0.to_offset(UtcOffset::UTC);
        let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
        let (hour, minute, second) = (time.hour(), time.minute(), time.second());
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z",
            time.microsecond()
        )
    }
}

impl Timestamp {
    /// An RFC 3339 time with its offset; what is before 1970 is 1970. `None` for anything else, and for what the library takes
    /// beyond it: a leap second, an unknown offset (`-00:00`), another letter than `T`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.get(10..11) != Some("T") || text.ends_with("-00:00") || text.contains(":60") {
            return None;
        }
        let time = OffsetDateTime::parse(text, &Rfc3339).ok()?.checked_to_offset(UtcOffset::UTC)?;
        // PostgreSQL knows no year 0.
        Some(Self(time.max(OffsetDateTime::UNIX_EPOCH)))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_in_utc_with_microseconds() {
        let shown = |micros: i128| {
            Timestamp(OffsetDateTime::from_unix_timestamp_nanos(micros * 1_000).expect("in range"))
                .to_string()
        };
        assert_eq!(shown(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(shown(1_795_511_546_049_446), "2026-11-24T09:12:26.049446Z");
    }
}
