//! The streams of speech by the names of clients' subscriptions, and which of them a session serves.
//!
//! | name | what is said |
//! |---|---|
//! | `transcription`, `transcription:auto` | in any language |
//! | `transcription:de-DE` | in this one |
//! | `translation:de-DE-to-en-US` | in the first one, in the second; from `auto` or `all` likewise |
//!
//! Each of them may have a `?query`.

use crate::{
    error::Code,
    language::Language,
    limits::Limit,
    providers::stt::SpokenLanguage,
    session::{Offer, Options, options::UNDETERMINED},
};

/// Languages in which a user's speech is transcribed beside the session's.
const MAX_LANGUAGES: usize = 2;

const MAX_TRANSLATIONS: usize = 4;

/// Codes that are none of one language: uncoded, multiple, undetermined, no linguistic content (ISO 639-2).
const NO_LANGUAGES: [&str; 4] = ["mis", "mul", UNDETERMINED, "zxx"];

/// A stream of speech.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stream {
    Transcription(Spoken),
    Translation { from: Spoken, to: Language },
}

/// What a stream is of.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Spoken {
    Any,
    In(Language),
}

impl Spoken {
    fn parse(tag: &str) -> Result<Self, String> {
        match tag {
            "auto" | "all" => Ok(Self::Any),
            _ => known(tag).map(Self::In),
        }
    }

    /// Whether it is of what was said in a language, as far as that is known.
    pub(super) fn is_of(&self, heard: Option<&Language>) -> bool {
        match self {
            Self::Any => true,
            Self::In(language) => heard.is_none_or(|heard| heard.is_like(language)),
        }
    }
}

impl Stream {
    /// None for streams of other things.
    pub(super) fn parse(name: &str) -> Option<Result<Self, String>> {
        let stream = name.split('?').next().unwrap_or_default();
        let (kind, languages) =
            stream.split_once(':').map_or((stream, None), |(kind, rest)| (kind, Some(rest)));
        match (kind, languages) {
            ("transcription", None) => Some(Ok(Self::Transcription(Spoken::Any))),
            ("transcription", Some(tag)) => Some(Spoken::parse(tag).map(Self::Transcription)),
            ("translation", Some(languages)) => Some(translation(languages)),
            ("translation", None) => Some(Err("must be translation:<from>-to-<to>".into())),
            _ => None,
        }
    }

    /// Whether a stream of this name is of speech.
    pub(super) fn is_speech(name: &str) -> bool {
        Self::parse(name).is_some()
    }
}

fn translation(languages: &str) -> Result<Stream, String> {
    let (from, to) = languages.split_once("-to-").ok_or("must be translation:<from>-to-<to>")?;
    let (from, to) = (Spoken::parse(from)?, known(to)?);
    if from == Spoken::In(to.clone()) {
        return Err("both languages are the same".into());
    }
    Ok(Stream::Translation { from, to })
}

fn known(tag: &str) -> Result<Language, String> {
    let language = Language::parse(tag).ok().filter(|language| !NO_LANGUAGES.contains(&language.primary()));
    language.ok_or_else(|| format!("\"{tag}\" is no known language (BCP 47)"))
}

/// A stream that is translated.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Translated {
    /// As the client wrote it.
    pub(super) stream: String,
    pub(super) from: Spoken,
    pub(super) to: Language,
}

/// A stream that is not served.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Unserved {
    pub(super) stream: String,
    pub(super) code: Code,
    pub(super) reason: String,
}

/// What a session does for its subscriptions.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// In which languages an utterance is transcribed beside the session's.
    pub(super) languages: Vec<Language>,
    pub(super) translations: Vec<Translated>,
    pub(super) unserved: Vec<Unserved>,
}

impl Plan {
    pub(super) fn new<'a>(
        wanted: impl IntoIterator<Item = &'a String>,
        options: &Options,
        offer: &Offer,
    ) -> Self {
        let mut plan = Self::default();
        for name in wanted {
            let Some(stream) = Stream::parse(name) else { continue };
            let added = stream
                .map_err(|reason| (Code::InvalidRequest, reason))
                .and_then(|stream| plan.add(name, stream, options, offer));
            if let Err((code, reason)) = added {
                plan.unserved.push(Unserved { stream: name.clone(), code, reason });
            }
        }
        plan
    }

    fn add(
        &mut self,
        name: &str,
        stream: Stream,
        options: &Options,
        offer: &Offer,
    ) -> Result<(), (Code, String)> {
        let (Stream::Transcription(spoken) | Stream::Translation { from: spoken, .. }) = &stream;
        if let Stream::Translation { .. } = stream {
            if options.translators(offer).is_empty() {
                return Err((Code::Unsupported, unable(options, offer)));
            }
            if self.translations.len() >= MAX_TRANSLATIONS {
                return Err(too_many(format!("at most {MAX_TRANSLATIONS} translations")));
            }
        }
        let language = options.beside(spoken, offer).map_err(|reason| (Code::Unsupported, reason))?;
        if let Some(language) = language.filter(|language| !self.languages.contains(language)) {
            if self.languages.len() >= MAX_LANGUAGES {
                return Err(too_many(format!("at most {MAX_LANGUAGES} languages beside the session's")));
            }
            self.languages.push(language);
        }
        if let Stream::Translation { from, to } = stream {
            self.translations.push(Translated { stream: name.to_owned(), from, to });
        }
        Ok(())
    }
}

impl Options {
    /// The language in which utterances have to be transcribed for a stream, where that is not the session's.
    fn beside(&self, spoken: &Spoken, offer: &Offer) -> Result<Option<Language>, String> {
        let Spoken::In(language) = spoken else { return Ok(None) };
        let is_own = matches!(self.spoken(), SpokenLanguage::Known(own) if own.is_like(language));
        // Without STT, the client may transcribe by itself.
        let Some(stt) = self.stt(offer).filter(|_| !is_own) else { return Ok(None) };
        if !stt.transcribes(&SpokenLanguage::Known(language.clone())) {
            return Err(format!("{} does not transcribe {language}", stt.name()));
        }
        match self.spoken() {
            SpokenLanguage::Known(_) => Ok(Some(language.clone())),
            SpokenLanguage::Auto { .. } => Ok(None),
        }
    }
}

fn unable(options: &Options, offer: &Offer) -> String {
    let names = options.llm_names(offer);
    match names.len() {
        0 => "this gateway has no LLM".into(),
        1 => format!("{} does not translate", names[0]),
        _ => format!("none of {} translates", names.join(", ")),
    }
}

fn too_many(reason: String) -> (Code, String) {
    Limit::Subscriptions.count();
    (Code::RateLimited, reason)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::session::options::tests::{offer, options_of};

    fn plan(wanted: &[&str], options: Value, offer: &Offer) -> Plan {
        let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        Plan::new(&wanted, &options_of(options), offer)
    }

    /// Each stream that is not served, and why.
    fn unserved(wanted: &[&str], options: Value, offer: &Offer) -> Vec<(String, Code, String)> {
        let plan = plan(wanted, options, offer);
        plan.unserved.into_iter().map(|Unserved { stream, code, reason }| (stream, code, reason)).collect()
    }

    fn language(tag: &str) -> Language {
        Language::parse(tag).unwrap()
    }

    /// With an LLM that translates.
    fn translating() -> Offer {
        Offer { llm_names: vec!["openai", "echo"], llm_translators: vec!["openai"], ..offer() }
    }

    #[test]
    fn a_stream_is_read_from_its_name() {
        let translation = |from, to| Some(Ok(Stream::Translation { from, to: language(to) }));
        let german = || Spoken::In(language("de-DE"));
        for (name, stream) in [
            ("transcription", Some(Ok(Stream::Transcription(Spoken::Any)))),
            ("transcription:auto?hints=ja", Some(Ok(Stream::Transcription(Spoken::Any)))),
            ("transcription:de-DE", Some(Ok(Stream::Transcription(german())))),
            ("translation:de-DE-to-en-US?x", translation(german(), "en-US")),
            ("translation:all-to-to", translation(Spoken::Any, "to")),
            ("translation:to-to-en", translation(Spoken::In(language("to")), "en")),
            ("audio_chunk", None),
            ("transcriptions", None),
        ] {
            assert_eq!(Stream::parse(name), stream, "{name}");
        }
    }

    #[test]
    fn what_is_no_stream_is_refused_with_the_reason() {
        for (name, reason) in [
            ("translation", "must be translation:<from>-to-<to>"),
            ("translation:en-US", "must be translation:<from>-to-<to>"),
            ("translation:en_US-to-de", "\"en_US\" is no known language (BCP 47)"),
            ("translation:en-to-xx", "\"xx\" is no known language (BCP 47)"),
            ("translation:en-to-auto", "\"auto\" is no known language (BCP 47)"),
            ("translation:en-to-und", "\"und\" is no known language (BCP 47)"),
            ("translation:en-US-to-en-US", "both languages are the same"),
            ("transcription:xx", "\"xx\" is no known language (BCP 47)"),
        ] {
            let expected = vec![(name.to_owned(), Code::InvalidRequest, reason.to_owned())];
            assert_eq!(unserved(&[name], json!({}), &translating()), expected);
        }
    }

    #[test]
    fn another_language_is_transcribed_beside_the_sessions_where_the_stt_can() {
        let plan = plan(
            &["transcription:en-GB", "transcription:de-DE", "translation:de-DE-to-en", "transcription:fr"],
            json!({}),
            &translating(),
        );

        assert_eq!(plan.languages, [language("de-DE")]);
        assert_eq!(plan.translations.len(), 1);
        let reason = "listener does not transcribe fr".to_owned();
        let french = Unserved { stream: "transcription:fr".into(), code: Code::Unsupported, reason };
        assert_eq!(plan.unserved, [french]);
    }

    #[test]
    fn where_the_stt_finds_out_the_language_nothing_is_transcribed_twice() {
        let plan = plan(&["transcription:de", "transcription:fr"], json!({"language": "auto"}), &offer());

        assert_eq!(plan.languages, []);
        assert_eq!(plan.unserved.len(), 1, "listener does not transcribe fr");
    }

    #[test]
    fn an_llm_that_cannot_translate_is_refused_by_name() {
        let wanted = ["translation:en-to-de"];
        let two = Offer { llm_names: vec!["echo", "smollm2"], ..offer() };
        let none = Offer { llm_names: Vec::new(), ..offer() };
        for (options, offer, reason) in [
            (json!({}), &offer(), "echo does not translate"),
            (json!({"llm": ["echo"]}), &translating(), "echo does not translate"),
            (json!({}), &two, "none of echo, smollm2 translates"),
            (json!({}), &none, "this gateway has no LLM"),
        ] {
            let expected = vec![(wanted[0].to_owned(), Code::Unsupported, reason.to_owned())];
            assert_eq!(unserved(&wanted, options, offer), expected);
        }
    }

    #[test]
    fn streams_beyond_the_limits_are_refused_and_the_others_served() {
        let wanted = ["de", "ja", "fr", "es", "it"].map(|to| format!("translation:en-to-{to}"));
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        let plan = plan(&wanted, json!({}), &translating());
        assert_eq!((plan.translations.len(), plan.unserved.len()), (4, 1));
        assert_eq!(plan.unserved[0].code, Code::RateLimited);

        let offer = Offer { llm_names: vec!["openai", "echo"], ..offer() };
        let languages = ["transcription:de", "transcription:de-AT", "transcription:ja"];
        let expected = ("transcription:ja".to_owned(), Code::RateLimited);
        let refused = unserved(&languages, json!({}), &offer);
        assert_eq!(refused.len(), 1);
        assert_eq!((refused[0].0.clone(), refused[0].1), expected);
    }
}
