//! Languages, as their tags.

use std::{fmt, str::FromStr};

use language_tags::LanguageTag;
use serde::{Deserialize, Serialize};

/// The longest tag that is taken, in bytes: what RFC 5646 §4.4.1 recommends for buffers.
const MAX_BYTES: usize = 35;

/// A language by its tag (BCP 47, RFC 5646) in the usual case: `en`, `de-AT`, `zh-Hant`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Language(LanguageTag);

/// Not a language tag.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("must be a language tag (BCP 47), such as en or de-AT")]
pub struct NotALanguage;

impl Language {
    pub fn parse(tag: &str) -> Result<Self, NotALanguage> {
        if tag.len() > MAX_BYTES {
            return Err(NotALanguage);
        }
        let tag = LanguageTag::parse(tag).map_err(|_| NotALanguage)?;
        tag.validate().map_err(|_| NotALanguage)?;
        Ok(Self(tag))
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Without region and script: `de` of `de-AT`.
    pub fn primary(&self) -> &str {
        self.0.primary_language()
    }

    /// Whether both are the same language, of whatever region.
    pub fn is_like(&self, other: &Self) -> bool {
        self.primary() == other.primary()
    }
}

impl FromStr for Language {
    type Err = NotALanguage;

    fn from_str(tag: &str) -> Result<Self, NotALanguage> {
        Self::parse(tag)
    }
}

impl TryFrom<String> for Language {
    type Error = NotALanguage;

    fn try_from(tag: String) -> Result<Self, NotALanguage> {
        Self::parse(&tag)
    }
}

impl From<Language> for String {
    fn from(language: Language) -> Self {
        language.as_str().to_owned()
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_brought_to_its_usual_case_and_something_else_is_refused() {
        for (tag, usual, primary) in
            [("EN", "en", "en"), ("de-at", "de-AT", "de"), ("zh-hant-tw", "zh-Hant-TW", "zh")]
        {
            let language = Language::parse(tag).unwrap();
            assert_eq!((language.as_str(), language.primary()), (usual, primary));
        }
        for tag in ["", "de_DE", "de--DE", "419", "Donaudampfschiff", &"de-x-".repeat(10)] {
            assert_eq!(Language::parse(tag), Err(NotALanguage), "{tag}");
        }
    }

    #[test]
    fn regions_are_the_same_language() {
        let [british, american, german] = ["en-GB", "en-US", "de"].map(|tag| Language::parse(tag).unwrap());
        assert!(british.is_like(&american) && !british.is_like(&german));
    }
}
