//! Calendar times of messages: RFC 3339, UTC, milliseconds.

use chrono::{DateTime, SecondsFormat};

/// Formats milliseconds since the Unix epoch, `2026-11-24T21:36:18.250Z`.
pub fn timestamp(unix_ms: u64) -> String {
    let millis = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    DateTime::from_timestamp_millis(millis).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Parses a [`timestamp`] to milliseconds since the Unix epoch.
pub fn parse_timestamp(text: &str) -> Option<u64> {
    DateTime::parse_from_rfc3339(text).ok()?.timestamp_millis().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_survives_the_wire() {
        assert_eq!(timestamp(1_795_556_178_250), "2026-11-24T21:36:18.250Z");
        assert_eq!(parse_timestamp("2026-11-24T21:36:18.250Z"), Some(1_795_556_178_250));
        assert_eq!(parse_timestamp("yesterday"), None);
    }
}
