//! Logs and metrics: how they are set up, and the metrics' names in one place.

/// Messages of a type this gateway does not act on.
pub const UNKNOWN_MESSAGES: &str = "june_unknown_messages_total";
