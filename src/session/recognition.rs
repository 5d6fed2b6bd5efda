//! Utterances and their transcripts: numbers them, tells interims and finals, and passes what was said on
//! to the turn manager.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    audio::Pcm,
    error::Code,
    ids::{Identity, UtteranceId},
    language::Language,
    limits::Limit,
    protocol::{
        Profile, ToClient,
        edge_v1::{
            from_client::LocalTranscription,
            to_client::{MediaSource, PartState, SpeechEndReason, StreamData},
        },
    },
    providers::stt::{SpokenLanguage, Transcript},
    session::{
        MAX_TYPED_BYTES,
        elsewhere::Elsewhere,
        messages::{Taken, Transcribed},
        out::{Effect, Out, Reason, Soonest},
        streams::{Plan, Unserved},
        subscriptions::{MAX_STREAMS, Subscriptions},
        translation::{Said, Translations},
    },
    store::history::HistoryItem,
    turn::{turn_manager, utterance_detector::EndReason},
};

/// The longest language tag that a client may give a transcript (BCP 47 recommends buffers of 35).
const MAX_LANGUAGE_BYTES: usize = 35;

/// What an utterance is.
#[derive(Clone, Debug, PartialEq)]
enum Origin {
    /// The user's, in the session's language.
    Owner,
    /// The same speech, transcribed in another language for the streams that name it.
    InLanguage(Language),
    /// Of another participant's microphone.
    Participant(Identity),
}
/// The provider's name of transcripts from elsewhere.
const ELSEWHERE: &str = "webhook";

/// An utterance whose final transcript is still to come. Times are milliseconds of the session.
#[derive(Debug)]
struct Utterance {
    origin: Origin,
    started_ms: u64,
    /// Where it ends; grows while it is open.
    ended_ms: u64,
    /// The last interim that was told.
    interim: String,
    /// The client's own recogniser, where that transcribed it.
    provider: Option<String>,
    /// The tag of the language that was heard; none for the session's.
    language: Option<String>,
    /// The provider's label of who spoke.
    speaker: Option<String>,
}

impl Utterance {
    fn new(origin: Origin, at_ms: u64) -> Self {
        Self {
            origin,
            started_ms: at_ms,
            ended_ms: at_ms,
            interim: String::new(),
            provider: None,
            language: None,
            speaker: None,
        }
    }

    /// The STT said which language it heard, and who spoke.
    fn heard(&mut self, language: Option<&Language>, speaker: Option<String>, out: &Out<'_>) {
        if let Origin::InLanguage(language) = &self.origin {
            self.language = Some(language.to_string());
        } else if language.is_some() {
            self.language = Some(out.options().tag(language));
        }
        self.speaker = speaker.or(self.speaker.take());
    }

    fn participant(&self) -> Option<&Identity> {
        match &self.origin {
            Origin::Participant(identity) => Some(identity),
            Origin::Owner | Origin::InLanguage(_) => None,
        }
    }

    /// Who spoke. A provider's labels are its own for each microphone.
    fn speaker(&self) -> Option<String> {
        match (self.participant(), &self.speaker) {
            (Some(participant), Some(label)) => Some(format!("{participant}:{label}")),
            (Some(participant), None) => Some(participant.to_string()),
            (None, label) => label.clone(),
        }
    }
}

/// The machine.
#[derive(Debug)]
pub(super) struct Recognition {
    subscriptions: Subscriptions,
    /// What is done for them.
    plan: Plan,
    /// The streams that the client was told are not served.
    told_unserved: BTreeSet<String>,
    pub(super) translations: Translations,
    /// The user's utterance that is going on.
    open: Option<UtteranceId>,
    /// The same in other languages.
    open_in_languages: Vec<UtteranceId>,
    /// Those of other participants.
    open_of_participants: BTreeMap<Identity, UtteranceId>,
    last_utterance: UtteranceId,
    /// Those whose final is still to come.
    pending: BTreeMap<UtteranceId, Utterance>,
    /// What STT services send that the gateway does not call.
    elsewhere: Elsewhere,
}

impl Recognition {
    /// Numbers utterances after `last_utterance`.
    pub(super) fn new(last_utterance: UtteranceId) -> Self {
        Self {
            subscriptions: Subscriptions::default(),
            plan: Plan::default(),
            told_unserved: BTreeSet::new(),
            translations: Translations::default(),
            open: None,
            open_in_languages: Vec::new(),
            open_of_participants: BTreeMap::new(),
            last_utterance,
            pending: BTreeMap::new(),
            elsewhere: Elsewhere::default(),
        }
    }

    #[cfg(test)]
    pub(super) fn last_utterance(&self) -> UtteranceId {
        self.last_utterance
    }

    fn begin(&mut self, origin: Origin, at_ms: u64) -> UtteranceId {
        self.last_utterance = self.last_utterance.next();
        self.pending.insert(self.last_utterance, Utterance::new(origin, at_ms));
        self.last_utterance
    }

    // --- Subscriptions ------------------------------------------------------------------------

    /// A client attached and was acknowledged, perhaps with a set of streams.
    pub(super) fn attached(&mut self, wanted: Option<Vec<String>>, out: &mut Out<'_>) {
        self.subscriptions.attached(wanted, out.now);
        self.told_unserved.clear();
        self.serve(None, out);
    }

    /// The client sent a set of streams.
    pub(super) fn subscribe(&mut self, wanted: Vec<String>, id: Option<String>, out: &mut Out<'_>) {
        if self.subscriptions.update(wanted, out.now) {
            self.told_unserved.clear();
            self.serve(id, out);
        }
    }

    /// The streams, or the options of the session, changed: tells which streams are not served.
    pub(super) fn serve(&mut self, id: Option<String>, out: &mut Out<'_>) {
        self.plan = Plan::new(self.subscriptions.wanted(), out.options(), &out.config().offer);
        let unserved = std::mem::take(&mut self.plan.unserved);
        for Unserved { stream, code, reason } in &unserved {
            if !self.told_unserved.contains(stream) {
                out.tell(ToClient::error(*code, format!("{stream}: {reason}"), id.clone()).of_stream(stream));
            }
        }
        self.told_unserved = unserved.into_iter().map(|unserved| unserved.stream).collect();
        if let Some(stream) = self.subscriptions.take_excess() {
            Limit::Subscriptions.count();
            let message = format!("{stream}: at most {MAX_STREAMS} streams of speech");
            out.tell(ToClient::error(Code::RateLimited, message, id).of_stream(&stream));
        }
        self.translations.keep(&self.plan.translations, out);
    }

    // --- Utterances ---------------------------------------------------------------------------

    /// Speech began, in this utterance.
    pub(super) fn started(
        &mut self,
        at_ms: u64,
        source: MediaSource,
        out: &mut Out<'_>,
    ) -> (UtteranceId, turn_manager::Input) {
        let user = self.begin(Origin::Owner, at_ms);
        self.open = Some(user);
        out.tell(ToClient::SpeechStarted { utterance_id: user, at: at_ms, source });
        out.push(Effect::Transcribe(user, out.options().transcription()));
        for language in self.plan.languages.clone() {
            let request = out.options().transcription_in(SpokenLanguage::Known(language.clone()));
            let utterance = self.begin(Origin::InLanguage(language), at_ms);
            self.open_in_languages.push(utterance);
            out.push(Effect::TranscribeBeside(utterance, request));
        }
        (user, turn_manager::Input::SpeechStarted(user))
    }

    /// The next samples of the user's open utterance.
    pub(super) fn audio(&self, samples: Pcm, out: &mut Out<'_>) {
        for utterance in &self.open_in_languages {
            out.push(Effect::UtteranceAudio(*utterance, samples.clone()));
        }
        if let Some(utterance) = self.open {
            out.push(Effect::UtteranceAudio(utterance, samples));
        }
    }

    /// Speech ended.
    pub(super) fn ended(
        &mut self,
        reason: EndReason,
        at_ms: u64,
        source: MediaSource,
        out: &mut Out<'_>,
    ) -> Option<turn_manager::Input> {
        let utterance = self.open.take()?;
        self.end(utterance, at_ms);
        out.tell(ToClient::SpeechEnded { utterance_id: utterance, at: at_ms, source, reason: reason.into() });
        out.push(Effect::EndUtterance(utterance));
        for utterance in std::mem::take(&mut self.open_in_languages) {
            self.end(utterance, at_ms);
            out.push(Effect::EndUtterance(utterance));
        }
        Some(turn_manager::Input::SpeechEnded(utterance))
    }

    fn end(&mut self, utterance: UtteranceId, at_ms: u64) {
        if let Some(pending) = self.pending.get_mut(&utterance) {
            pending.ended_ms = at_ms;
        }
    }

    /// Another participant began to speak.
    pub(super) fn participant_started(&mut self, participant: &Identity, at_ms: u64, out: &mut Out<'_>) {
        let utterance = self.begin(Origin::Participant(participant.clone()), at_ms);
        self.open_of_participants.insert(participant.clone(), utterance);
        out.push(Effect::TranscribeBeside(utterance, out.options().transcription()));
    }

    /// The next samples of their open utterance.
    pub(super) fn participant_audio(&self, participant: &Identity, samples: Pcm, out: &mut Out<'_>) {
        if let Some(utterance) = self.open_of_participants.get(participant) {
            out.push(Effect::UtteranceAudio(*utterance, samples));
        }
    }

    pub(super) fn participant_ended(&mut self, participant: &Identity, at_ms: u64, out: &mut Out<'_>) {
        if let Some(utterance) = self.open_of_participants.remove(participant) {
            self.end(utterance, at_ms);
            out.push(Effect::EndUtterance(utterance));
        }
    }

    fn is_open(&self, utterance: UtteranceId) -> bool {
        self.open == Some(utterance)
            || self.open_in_languages.contains(&utterance)
            || self.open_of_participants.values().any(|open| *open == utterance)
    }

    // --- Transcripts --------------------------------------------------------------------------

    /// An interim transcript. A client replaces the interim it has, so a shorter one would make words
    /// vanish and come back: it is dropped.
    pub(super) fn interim(&mut self, utterance: UtteranceId, heard: Transcript, out: &mut Out<'_>) {
        let Transcript { text, language, speaker, confidence: _ } = heard;
        let open = self.is_open(utterance);
        let Some(pending) = self.pending.get_mut(&utterance) else { return };
        if text.len() < pending.interim.len() || text == pending.interim {
            return;
        }
        pending.heard(language.as_ref(), speaker, out);
        if open {
            pending.ended_ms = out.elapsed_ms();
        }
        pending.interim.clone_from(&text);
        self.tell_transcript(utterance, text, false, out);
    }

    /// The final transcript, which is empty where nothing was said after all.
    pub(super) fn finished(
        &mut self,
        utterance: UtteranceId,
        heard: Transcript,
        out: &mut Out<'_>,
    ) -> Option<turn_manager::Input> {
        let Transcript { text, language, speaker, confidence: _ } = heard;
        let pending = self.pending.get_mut(&utterance)?;
        pending.heard(language.as_ref(), speaker, out);
        if pending.origin == Origin::Owner {
            out.options_mut().hear(language.as_ref());
        }
        let said = self.tell_transcript(utterance, text, true, out)?;
        let Utterance { origin, .. } = self.pending.remove(&utterance)?;
        let has_words = !said.text.trim().is_empty();
        if has_words {
            self.translations.said(&said, &self.plan.translations, out);
        }
        if has_words && !matches!(origin, Origin::InLanguage(_)) {
            out.push(Effect::Save(
                HistoryItem::Utterance {
                    utterance_id: Some(utterance),
                    text: said.text.clone(),
                    start_ms: said.start_ms,
                    end_ms: said.end_ms,
                    language: said.language,
                    participant: said.participant,
                    speaker: said.speaker,
                },
                None,
            ));
        }
        match origin {
            Origin::Owner => Some(turn_manager::Input::Transcribed { utterance, text: said.text }),
            Origin::InLanguage(_) => None,
            Origin::Participant(participant) => {
                let is_answered = has_words && out.options().answers(&participant);
                let text = format!("{participant}: {}", said.text);
                is_answered.then_some(turn_manager::Input::Transcribed { utterance, text })
            }
        }
    }

    /// The utterance could not be transcribed; the state of the STT.
    pub(super) fn failed(
        &mut self,
        utterance: UtteranceId,
        cause: String,
        state: PartState,
        out: &mut Out<'_>,
    ) -> Option<turn_manager::Input> {
        tracing::warn!(session.id = %out.info().id, %cause, "utterance not transcribed");
        let provider = provider(out).to_owned();
        out.tell(ToClient::SttState {
            state,
            provider,
            message: Some(cause),
            taken_over_by: None,
            retry_in_ms: None,
        });
        self.finished(utterance, Transcript::default(), out)
    }

    /// A transcript of the client's own recogniser. It belongs to the utterance that ended last and has
    /// no final yet, else it is an utterance of its own.
    pub(super) fn local_transcription(
        &mut self,
        local: LocalTranscription,
        out: &mut Out<'_>,
    ) -> Option<turn_manager::Input> {
        if local.text.len() > MAX_TYPED_BYTES {
            let message = format!("text: must have at most {MAX_TYPED_BYTES} bytes");
            out.error(Code::InvalidRequest, message, None);
            return None;
        }
        if local.transcribe_language.as_ref().is_some_and(|language| !is_language_tag(language)) {
            out.error(Code::InvalidRequest, "transcribeLanguage: must be a language tag (BCP 47)", None);
            return None;
        }
        if local.is_final
            && let Err(refusal) = out.config().limits.own_transcript(&out.info().user, out.now)
        {
            out.refuse(refusal, None);
            return None;
        }
        let at_ms = out.elapsed_ms();
        let last = self.pending.iter().rev().find(|(utterance, pending)| {
            pending.origin == Origin::Owner && !self.elsewhere.is_open(**utterance)
        });
        let utterance = match last.filter(|_| self.open.is_none()) {
            Some((utterance, _)) => *utterance,
            None => self.begin(Origin::Owner, at_ms),
        };
        let pending = self.pending.get_mut(&utterance)?;
        pending.ended_ms = at_ms;
        pending.provider = Some(local.provider.unwrap_or_else(|| "client".into()));
        pending.language = local.transcribe_language;
        if local.is_final {
            self.finished(utterance, Transcript::text(local.text), out)
        } else {
            self.interim(utterance, Transcript::text(local.text), out);
            None
        }
    }

    /// A transcript of an STT service that transcribes the user elsewhere. A final is an utterance of its own.
    pub(super) fn transcribed_elsewhere(
        &mut self,
        transcribed: Transcribed,
        out: &mut Out<'_>,
    ) -> Option<turn_manager::Input> {
        if self.elsewhere.is_old(&transcribed) {
            out.push(Effect::Taken(Taken::Duplicate));
            return None;
        }
        let limited = if transcribed.is_final {
            out.config().limits.own_transcript(&out.info().user, out.now)
        } else {
            self.elsewhere.take_interim(out.now)
        };
        if let Err(refusal) = limited {
            out.push(Effect::Taken(Taken::Limited(refusal)));
            return None;
        }
        let at_ms = out.elapsed_ms();
        let (utterance, abandoned) = self.elsewhere.take(&transcribed, self.last_utterance.next());
        self.last_utterance = self.last_utterance.max(utterance);
        out.push(Effect::Taken(Taken::As(utterance)));
        if let Some(abandoned) = abandoned {
            // Its final never came: clients do not wait for it.
            self.finished(abandoned, Transcript::default(), out);
        }
        let pending = self.pending.entry(utterance).or_insert_with(|| Utterance::new(Origin::Owner, at_ms));
        pending.ended_ms = at_ms;
        pending.provider = Some(ELSEWHERE.into());
        let heard = Transcript { language: transcribed.language, ..Transcript::text(transcribed.text) };
        if !transcribed.is_final {
            self.interim(utterance, heard, out);
            return None;
        }
        let text = heard.text.clone();
        self.finished(utterance, heard, out)?;
        Some(turn_manager::Input::Heard { utterance, text })
    }

    /// Tells an interim or a final to every stream that wants it, under the subscriber's own name of the
    /// stream; gives what was told.
    fn tell_transcript(
        &self,
        utterance: UtteranceId,
        text: String,
        is_final: bool,
        out: &mut Out<'_>,
    ) -> Option<Said> {
        let pending = self.pending.get(&utterance)?;
        let said = Said {
            utterance,
            text,
            start_ms: pending.started_ms,
            end_ms: pending.ended_ms,
            language: pending.language.clone().unwrap_or_else(|| out.options().tag(None)),
            provider: pending.provider.clone().unwrap_or_else(|| provider(out).to_owned()),
            participant: pending.participant().cloned(),
            speaker: pending.speaker(),
        };
        let usual = format!("transcription:{}", said.language);
        let streams = match &pending.origin {
            Origin::InLanguage(language) => self.subscriptions.transcription_in(language),
            Origin::Owner | Origin::Participant(_) => {
                let default = (out.profile() == Profile::EdgeV1).then(|| usual.clone());
                self.subscriptions.transcription(&said.language, default)
            }
        };
        let data = StreamData::Transcription {
            utterance_id: utterance,
            text: said.text.clone(),
            is_final,
            start_time: said.start_ms,
            end_time: said.end_ms,
            transcribe_language: said.language.clone(),
            provider: said.provider.clone(),
            participant: said.participant.clone(),
            speaker_id: said.speaker.clone(),
        };
        let session_id = out.info().id;
        let message = |stream_type, out: &Out<'_>| ToClient::DataStream {
            session_id,
            stream_type,
            data: data.clone(),
            timestamp: out.timestamp(),
        };
        for stream in streams {
            let message = message(stream, out);
            out.tell(message);
        }
        // Consumers get each utterance once.
        if !matches!(pending.origin, Origin::InLanguage(_)) {
            let message = message(usual, out);
            out.push(Effect::ForwardStream(message));
        }
        Some(said)
    }

    /// Tells a client that attached that there is no recognition, where there is none.
    pub(super) fn tell_unavailable(out: &mut Out<'_>) {
        if let Err(why) = &out.config().stt {
            let message = Some(why.clone());
            out.tell(ToClient::SttState {
                state: PartState::Failed,
                provider: "none".into(),
                message,
                taken_over_by: None,
                retry_in_ms: None,
            });
        }
    }

    // --- Time ---------------------------------------------------------------------------------

    pub(super) fn deadline(&self) -> Soonest {
        Soonest::default()
            .or(self.subscriptions.deadline(), Reason::Subscriptions)
            .or_soonest(self.translations.deadline())
    }

    /// What time brings.
    pub(super) fn tick(&mut self, out: &mut Out<'_>) {
        if self.subscriptions.tick(out.now) {
            self.serve(None, out);
        }
        self.translations.tick(out);
    }
}

/// The name of the gateway's own recogniser.
fn provider<'a>(out: &'a Out<'_>) -> &'a str {
    out.config().stt.as_ref().copied().unwrap_or("none")
}

/// Whether this looks like a BCP 47 language tag: subtags of letters and digits, joined by hyphens.
fn is_language_tag(tag: &str) -> bool {
    tag.len() <= MAX_LANGUAGE_BYTES
        && tag.split('-').all(|part| {
            (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
        && tag.split('-').next().is_some_and(|first| first.bytes().all(|byte| byte.is_ascii_alphabetic()))
}

impl From<EndReason> for SpeechEndReason {
    fn from(reason: EndReason) -> Self {
        match reason {
            EndReason::Silence => Self::Silence,
            EndReason::ClientVad => Self::ClientVad,
            EndReason::Limit => Self::Limit,
            EndReason::Muted => Self::Muted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_language_tag;

    #[test]
    fn a_language_tag_is_told_from_other_words() {
        for tag in ["de", "de-DE", "zh-Hant-TW", "es-419", "x-klingon"] {
            assert!(is_language_tag(tag), "{tag}");
        }
        for tag in ["", "de_DE", "de--DE", "-de", "419", "transcription:de", "Donaudampfschiff"] {
            assert!(!is_language_tag(tag), "{tag}");
        }
    }
}
