//! The options of a session: what was asked for, checked, and completed by the gateway's settings.

use std::sync::Arc;

use crate::{
    ids::Identity,
    language::Language,
    protocol::{InvalidOption, Mode, Participants, SessionOptions},
    providers::{
        selected,
        stt::{SpeechToText, SpokenLanguage, SttRequest},
        tts::{SpeechRequest, TextToSpeech},
    },
    tools::{OfferedTool, Tools, declaration},
};

/// The longest instructions, in bytes.
const MAX_INSTRUCTIONS_BYTES: usize = 4_000;

/// How many words a vocabulary may have, and how long one may be, in bytes.
const MAX_WORDS: usize = 100;
const MAX_WORD_BYTES: usize = 64;

const MAX_HINTS: usize = 8;

/// Identities in a list of participants.
const MAX_LISTED: usize = 32;
const MAX_VOICE_BYTES: usize = 64;

/// `language` of a session in which the STT finds out.
const AUTO: &str = "auto";

/// A language that nobody knows (RFC 5646 §4.1).
pub(super) const UNDETERMINED: &str = "und";

/// What sessions choose from.
#[derive(Clone, Default)]
pub struct Offer {
    /// The language of a session that asks for none.
    pub language: SpokenLanguage,
    /// None where nothing transcribes.
    pub stt: Option<Arc<dyn SpeechToText>>,
    /// None where nothing speaks.
    pub tts: Option<Arc<dyn TextToSpeech>>,
    /// The providers that a session may ask for, by role, in the order in which they are tried.
    pub stt_names: Vec<&'static str>,
    pub llm_names: Vec<&'static str>,
    pub tts_names: Vec<&'static str>,
    /// Those of the LLM providers that translate.
    pub llm_translators: Vec<&'static str>,
    /// How many microphones of other participants are transcribed at once in a session.
    pub participants: usize,
    /// Webhooks and MCP servers.
    pub tools: Tools,
}

/// The options in force.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Options {
    /// As they were asked for.
    given: SessionOptions,
    language: SpokenLanguage,
    mode: Mode,
    /// The language of the last utterance, where the STT says so.
    heard: Option<Language>,
}

impl Options {
    /// Checks what is asked for. A language that the STT does not transcribe, or the TTS does not speak, is invalid.
    pub(crate) fn new(given: SessionOptions, offer: &Offer) -> Result<Self, InvalidOption> {
        let options = Self::parse(given, offer)?;
        for (name, asked, offered) in [
            ("stt", &options.given.stt, &offer.stt_names),
            ("llm", &options.given.llm, &offer.llm_names),
            ("tts", &options.given.tts, &offer.tts_names),
        ] {
            check_providers(name, asked.as_deref(), offered)?;
        }
        options.check_languages(offer)?;
        declaration::check_targets(options.given.tools.as_deref().unwrap_or_default(), &offer.tools)?;
        options.check_voice(offer)?;
        options.check_participants(offer)?;
        Ok(options)
    }

    /// Options of a record, which were valid once. The gateway may have other providers since then: a language that
    /// these do not know stays, and the client is told when it is spoken.
    pub(crate) fn of_record(given: SessionOptions, offer: &Offer) -> Self {
        Self::parse(given, offer).unwrap_or_else(|invalid| {
            tracing::error!(%invalid, "session options ignored");
            Self { language: offer.language.clone(), ..Self::default() }
        })
    }

    fn parse(given: SessionOptions, offer: &Offer) -> Result<Self, InvalidOption> {
        let length = |name, text: Option<&str>, most| match text {
            Some(text) if text.trim().is_empty() || text.len() > most => {
                Err(InvalidOption::new(name, format!("must have 1 to {most} bytes")))
            }
            Some(_) | None => Ok(()),
        };
        length("instructions", given.instructions.as_deref(), MAX_INSTRUCTIONS_BYTES)?;
        length("voice", given.voice.as_deref(), MAX_VOICE_BYTES)?;
        // Some vendors' voices are a part of a URL.
        let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
        if given.voice.as_ref().is_some_and(|voice| !voice.bytes().all(is_of_name)) {
            return Err(InvalidOption::new("voice", "must be of letters, digits, and . _ - :"));
        }
        check_vocabulary(given.vocabulary.as_deref().unwrap_or_default())?;
        declaration::check(given.tools.as_deref().unwrap_or_default())?;
        Ok(Self {
            language: language(&given, offer)?,
            mode: given.mode.unwrap_or_default(),
            heard: None,
            given,
        })
    }

    fn check_languages(&self, offer: &Offer) -> Result<(), InvalidOption> {
        let (languages, name) = match &self.language {
            SpokenLanguage::Known(language) => (std::slice::from_ref(language), "language"),
            SpokenLanguage::Auto { hints } => (hints.as_slice(), "languageHints"),
        };
        if let Some(stt) = self.stt(offer) {
            let unknown = languages
                .iter()
                .find(|language| !stt.transcribes(&SpokenLanguage::Known((*language).clone())));
            if let Some(language) = unknown {
                return Err(InvalidOption::new(
                    name,
                    format!("{} does not transcribe {language}", stt.name()),
                ));
            }
            if !stt.transcribes(&self.language) {
                let problem = format!("{} does not find out which language is spoken", stt.name());
                return Err(InvalidOption::new("language", problem));
            }
        }
        // Nothing is spoken in captions.
        if let Some(tts) = self.tts(offer).filter(|_| self.mode != Mode::Captions)
            && let Some(language) = languages.iter().find(|language| !tts.speaks(language))
        {
            return Err(InvalidOption::new(name, format!("{} does not speak {language}", tts.name())));
        }
        Ok(())
    }

    /// Checks that the TTS speaks the language of a line.
    pub(crate) fn check_speech(&self, language: &Language, offer: &Offer) -> Result<(), String> {
        match self.tts(offer) {
            Some(tts) if !tts.speaks(language) => Err(format!("{} does not speak {language}", tts.name())),
            Some(_) | None => Ok(()),
        }
    }

    fn check_voice(&self, offer: &Offer) -> Result<(), InvalidOption> {
        let tts = self.tts(offer);
        let voices = tts.as_ref().map(|tts| tts.voices()).unwrap_or_default();
        match &self.given.voice {
            Some(voice) if !voices.is_empty() && !voices.contains(&voice.as_str()) => {
                Err(InvalidOption::new("voice", format!("\"{voice}\" is none of {}", voices.join(", "))))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn check_participants(&self, offer: &Offer) -> Result<(), InvalidOption> {
        let [heard, answered] = [&self.given.participants, &self.given.answers]
            .map(|given| given.as_ref().unwrap_or(&Participants::OWNER));
        for (name, participants) in [("participants", heard), ("answers", answered)] {
            if matches!(participants, Participants::Listed(listed) if listed.len() > MAX_LISTED) {
                return Err(InvalidOption::new(name, format!("must list at most {MAX_LISTED} identities")));
            }
        }
        if !heard.is_owner() && offer.participants == 0 {
            return Err(InvalidOption::new("participants", "this gateway transcribes nobody but the owner"));
        }
        let is_heard = match answered {
            Participants::Group(_) => answered.is_owner() || *heard == Participants::ALL,
            Participants::Listed(listed) => listed.iter().all(|identity| heard.include(identity)),
        };
        if !is_heard {
            let problem = "nobody can be answered who is not among participants";
            return Err(InvalidOption::new("answers", problem));
        }
        Ok(())
    }

    /// The STT providers that were asked for, or all.
    pub(super) fn stt(&self, offer: &Offer) -> Option<Arc<dyn SpeechToText>> {
        Some(selected(offer.stt.as_ref()?, self.given.stt.as_deref(), |all, names| all.select(names)))
    }

    /// The TTS providers that were asked for, or all.
    fn tts(&self, offer: &Offer) -> Option<Arc<dyn TextToSpeech>> {
        Some(selected(offer.tts.as_ref()?, self.given.tts.as_deref(), |all, names| all.select(names)))
    }

    /// The LLM providers that were asked for, or all, in the order in which they are tried.
    pub(super) fn llm_names(&self, offer: &Offer) -> Vec<&'static str> {
        let offered = || offer.llm_names.iter().copied();
        match &self.given.llm {
            Some(asked) => asked.iter().filter_map(|asked| offered().find(|name| name == asked)).collect(),
            None => offered().collect(),
        }
    }

    /// Those of them that translate.
    pub(super) fn translators(&self, offer: &Offer) -> Vec<&'static str> {
        let mut names = self.llm_names(offer);
        names.retain(|name| offer.llm_translators.contains(name));
        names
    }

    /// Whether anybody's microphone but the user's is transcribed.
    pub(crate) fn hears_others(&self) -> bool {
        self.given.participants.as_ref().is_some_and(|heard| !heard.is_owner())
    }

    /// Whether the microphone of this participant, who is not the user, is transcribed.
    pub(crate) fn hears(&self, participant: &Identity) -> bool {
        self.given.participants.as_ref().is_some_and(|heard| heard.include(participant))
    }

    /// Whether what this participant says is answered.
    pub(crate) fn answers(&self, participant: &Identity) -> bool {
        self.given.answers.as_ref().is_some_and(|answered| answered.include(participant))
    }

    /// The language that is spoken.
    pub(super) fn spoken(&self) -> &SpokenLanguage {
        &self.language
    }

    /// As they were asked for.
    pub(crate) fn given(&self) -> &SessionOptions {
        &self.given
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// The system prompt; none for the gateway's own.
    pub(crate) fn instructions(&self) -> Option<&str> {
        self.given.instructions.as_deref()
    }

    /// All options, for the client. The gateway's own instructions are not the client's to read.
    pub(crate) fn in_force(&self, offer: &Offer) -> SessionOptions {
        let (language, hints) = match &self.language {
            SpokenLanguage::Known(language) => (language.to_string(), Vec::new()),
            SpokenLanguage::Auto { hints } => (AUTO.into(), hints.iter().map(ToString::to_string).collect()),
        };
        let names = |asked: &Option<Vec<String>>, offered: &[&str]| {
            let names = asked.clone().unwrap_or_else(|| offered.iter().map(ToString::to_string).collect());
            (!names.is_empty()).then_some(names)
        };
        SessionOptions {
            language: Some(language),
            language_hints: (!hints.is_empty()).then_some(hints),
            mode: Some(self.mode),
            stt: names(&self.given.stt, &offer.stt_names),
            llm: names(&self.given.llm, &offer.llm_names),
            tts: names(&self.given.tts, &offer.tts_names),
            ..self.given.clone()
        }
    }

    // --- Languages ----------------------------------------------------------------------------

    /// An utterance was in this language, where the STT says so.
    pub(crate) fn hear(&mut self, language: Option<&Language>) {
        self.heard = language.cloned();
    }

    /// The tag of an utterance's language. A provider may say `en` where `en-US` was asked for.
    pub(crate) fn tag(&self, heard: Option<&Language>) -> String {
        let expected = match &self.language {
            SpokenLanguage::Known(language) => std::slice::from_ref(language),
            SpokenLanguage::Auto { hints } => hints,
        };
        let language = match heard {
            Some(heard) => expected.iter().find(|expected| expected.is_like(heard)).or(Some(heard)),
            None => expected.first().filter(|_| expected.len() == 1),
        };
        language.map_or_else(|| UNDETERMINED.to_owned(), ToString::to_string)
    }

    /// The tags of the languages that are expected.
    pub(crate) fn tags(&self) -> Vec<String> {
        match &self.language {
            SpokenLanguage::Auto { hints } if !hints.is_empty() => {
                hints.iter().map(ToString::to_string).collect()
            }
            SpokenLanguage::Known(_) | SpokenLanguage::Auto { .. } => vec![self.tag(None)],
        }
    }

    /// What the LLM may call.
    pub(crate) fn tools(&self, offer: &Offer) -> Vec<OfferedTool> {
        declaration::offered(self.given.tools.as_deref().unwrap_or_default(), &offer.tools)
    }

    // --- Requests -----------------------------------------------------------------------------

    pub(crate) fn transcription(&self) -> SttRequest {
        self.transcription_in(self.language.clone())
    }

    /// The same in another language than the session's.
    pub(super) fn transcription_in(&self, language: SpokenLanguage) -> SttRequest {
        SttRequest { language, vocabulary: self.given.vocabulary.clone().unwrap_or_default() }
    }

    /// The language of an answer, whether or not the TTS speaks it; `asked`: that of a line.
    pub(crate) fn answer_language<'a>(&'a self, asked: Option<&'a Language>) -> Option<&'a Language> {
        match &self.language {
            _ if asked.is_some() => asked,
            SpokenLanguage::Known(language) => Some(language),
            SpokenLanguage::Auto { .. } => self.heard.as_ref(),
        }
    }

    /// A sentence of an answer is spoken in the session's language, else in that of the last utterance if the TTS
    /// speaks it.
    ///
    /// `asked`: another language, that of a line.
    pub(crate) fn speech(&self, text: String, asked: Option<&Language>, offer: &Offer) -> SpeechRequest {
        let language = match &self.language {
            _ if asked.is_some() => asked,
            SpokenLanguage::Known(language) => Some(language),
            SpokenLanguage::Auto { .. } => {
                let tts = self.tts(offer);
                let speaks = |language: &&Language| tts.as_ref().is_some_and(|tts| tts.speaks(language));
                self.heard.as_ref().filter(speaks)
            }
        };
        SpeechRequest { text, language: language.cloned(), voice: self.given.voice.clone() }
    }
}

/// The language that is asked for, or the gateway's.
fn language(given: &SessionOptions, offer: &Offer) -> Result<SpokenLanguage, InvalidOption> {
    let hints = given.language_hints.as_deref();
    let language = match given.language.as_deref() {
        None if hints.is_none() => return Ok(offer.language.clone()),
        None => matches!(offer.language, SpokenLanguage::Auto { .. }).then_some(AUTO),
        asked => asked,
    };
    match (language, hints) {
        (Some(AUTO), hints) => {
            let hints = hints.unwrap_or_default();
            if hints.len() > MAX_HINTS {
                return Err(InvalidOption::new("languageHints", format!("must be at most {MAX_HINTS}")));
            }
            let hints = hints.iter().map(|hint| parsed("languageHints", hint)).collect::<Result<_, _>>()?;
            Ok(SpokenLanguage::Auto { hints })
        }
        (Some(tag), None) => Ok(SpokenLanguage::Known(parsed("language", tag)?)),
        (_, Some(_)) => Err(InvalidOption::new("languageHints", "only with language auto")),
        (None, None) => Ok(offer.language.clone()),
    }
}

fn parsed(name: &str, tag: &str) -> Result<Language, InvalidOption> {
    Language::parse(tag).map_err(|error| match name {
        "language" => InvalidOption::new(name, format!("{error}; or {AUTO}")),
        _ => InvalidOption::new(name, error),
    })
}

fn check_vocabulary(words: &[String]) -> Result<(), InvalidOption> {
    if words.len() > MAX_WORDS {
        return Err(InvalidOption::new("vocabulary", format!("must have at most {MAX_WORDS} words")));
    }
    let is_word = |word: &String| {
        !word.trim().is_empty() && word.len() <= MAX_WORD_BYTES && !word.contains(char::is_control)
    };
    if !words.iter().all(is_word) {
        let problem = format!("a word must have 1 to {MAX_WORD_BYTES} bytes, without control characters");
        return Err(InvalidOption::new("vocabulary", problem));
    }
    Ok(())
}

fn check_providers(name: &str, asked: Option<&[String]>, offered: &[&str]) -> Result<(), InvalidOption> {
    let Some(asked) = asked else { return Ok(()) };
    if offered.is_empty() {
        return Err(InvalidOption::new(name, "this gateway has none"));
    }
    if let Some(unknown) = asked.iter().find(|asked| !offered.contains(&asked.as_str())) {
        return Err(InvalidOption::new(name, format!("\"{unknown}\" is none of {}", offered.join(", "))));
    }
    let is_twice = |(at, asked_name): (usize, &String)| asked[..at].contains(asked_name);
    if asked.is_empty() || asked.iter().enumerate().any(is_twice) {
        return Err(InvalidOption::new(name, "must name at least one provider, each once"));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
