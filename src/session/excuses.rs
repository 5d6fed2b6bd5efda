//! What is said where there is no answer, by language.

use crate::language::Language;

/// One text per language, of whatever region; none where nothing is said. The first is the gateway's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excuses(Vec<(Language, Option<String>)>);

/// A text for an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Excuse {
    pub(crate) text: String,
    /// None for a text of another language than the answer's, which is not spoken.
    pub(crate) language: Option<Language>,
}

impl Excuses {
    pub fn new(texts: Vec<(Language, Option<String>)>) -> Self {
        Self(texts)
    }

    /// The text for an answer in a language; the gateway's own where there is none in it, or where the language is not
    /// known.
    pub(crate) fn of(&self, language: Option<&Language>) -> Option<Excuse> {
        let (own, own_text) = self.0.first()?;
        let (spoken, text) = match language {
            None => (Some(own), own_text),
            Some(language) => match self.0.iter().find(|(of, _)| of.is_like(language)) {
                Some((_, text)) => (Some(language), text),
                None => (None, own_text),
            },
        };
        text.clone().map(|text| Excuse { text, language: spoken.cloned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn language(tag: &str) -> Language {
        Language::parse(tag).unwrap()
    }

    #[test]
    fn an_answer_is_excused_in_its_language_and_spoken_in_no_other() {
        let texts = [("de", Some("Leider nicht.")), ("en-US", Some("Sorry.")), ("fr", None)];
        let texts = texts.map(|(tag, text)| (language(tag), text.map(str::to_owned)));
        let excuses = Excuses::new(texts.to_vec());
        let excuse = |asked: &str| excuses.of(Some(&language(asked)));
        let said = |text: &str, spoken: Option<&str>| {
            Some(Excuse { text: text.into(), language: spoken.map(language) })
        };

        assert_eq!(excuse("en-GB"), said("Sorry.", Some("en-GB")));
        assert_eq!(excuse("de-AT"), said("Leider nicht.", Some("de-AT")));
        assert_eq!(excuse("it"), said("Leider nicht.", None));
        assert_eq!(excuse("fr"), None);
        assert_eq!(excuses.of(None), said("Leider nicht.", Some("de")));
        assert_eq!(Excuses::default().of(None), None);
    }
}
