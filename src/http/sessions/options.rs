//! The options of a session in REST's spelling.

use serde_json::{Map, Value};

use crate::{
    http::error::ApiError,
    protocol::{InvalidOption, SessionOptions},
    session::{Offer, Options},
    store::sessions::SessionRecord,
};

/// The options of a request: those of its `options`, and the fields beside it that are one.
pub(super) fn asked(
    options: Map<String, Value>,
    fields: Map<String, Value>,
    offer: &Offer,
) -> Result<SessionOptions, ApiError> {
    let fields = fields.into_iter().filter(|(name, _)| SessionOptions::is_name(name));
    let mut asked = SessionOptions::default();
    asked.set(fields.collect())?;
    asked.set(options)?;
    if asked != SessionOptions::default() {
        Options::new(asked.clone(), offer)?;
    }
    Ok(asked)
}

/// The options in force, with the names of REST.
pub(super) fn in_force(record: &SessionRecord, offer: &Offer) -> Value {
    let mut options = serde_json::json!(Options::of_record(record.options.clone(), offer).in_force(offer));
    if let Some(options) = options.as_object_mut()
        && let Some(hints) = options.remove("languageHints")
    {
        options.insert("language_hints".into(), hints);
    }
    options
}

impl From<InvalidOption> for ApiError {
    fn from(invalid: InvalidOption) -> Self {
        Self::invalid(&invalid.name, invalid.problem)
    }
}
