//! Utterances and their transcripts: numbers them, tells interims and finals, and passes what was said on
//! to the turn manager.

use std::collections::BTreeMap;

use crate::{
    error::Code,
    ids::UtteranceId,
    language::Language,
    protocol::{
        Profile, ToClient,
        edge_v1::{
            from_client::LocalTranscription,
            to_client::{MediaSource, PartState, SpeechEndReason, StreamData},
        },
    },
    providers::stt::Transcript,
    session::{
        MAX_TYPED_BYTES,
        out::{Effect, Out, Reason, Soonest},
        subscriptions::Subscriptions,
    },
    store::history::HistoryItem,
    turn::{turn_manager, utterance_detector::EndReason},
};

/// The longest language tag that a client may give a transcript (BCP 47 recommends buffers of 35).
const MAX_LANGUAGE_BYTES: usize = 35;

/// An utterance whose final transcript is still to come. Times are milliseconds of the session.
#[derive(Debug)]
struct Utterance {
    started_ms: u64,
    /// Where it ends; grows while it is open.
    ended_ms: u64,
    /// The last interim that was told.
    interim: String,
    /// The client's own recogniser, where that transcribed it.
    provider: Option<String>,
    /// The tag of the language that was heard; none for the session's.
    language: Option<String>,
}

impl Utterance {
    fn new(at_ms: u64) -> Self {
        Self { started_ms: at_ms, ended_ms: at_ms, interim: String::new(), provider: None, language: None }
    }

    /// The STT said which language it heard.
    fn heard(&mut self, language: Option<&Language>, out: &Out<'_>) {
        if language.is_some() {
            self.language = Some(out.options().tag(language));
        }
    }
}

/// The machine.
#[derive(Debug)]
pub(super) struct Recognition {
    /// The streams the client wants.
    pub(super) subscriptions: Subscriptions,
    /// The utterance that is going on.
    open: Option<UtteranceId>,
    last_utterance: UtteranceId,
    /// Those whose final is still to come.
    pending: BTreeMap<UtteranceId, Utterance>,
}

impl Recognition {
    /// Numbers utterances after `last_utterance`.
    pub(super) fn new(last_utterance: UtteranceId) -> Self {
        Self { subscriptions: Subscriptions::default(), open: None, last_utterance, pending: BTreeMap::new() }
    }

    #[cfg(test)]
    pub(super) fn last_utterance(&self) -> UtteranceId {
        self.last_utterance
    }

    /// Speech began.
    pub(super) fn started(
        &mut self,
        at_ms: u64,
        source: MediaSource,
        out: &mut Out<'_>,
    ) -> turn_manager::Input {
        self.last_utterance = self.last_utterance.next();
        let utterance = self.last_utterance;
        self.open = Some(utterance);
        self.pending.insert(utterance, Utterance::new(at_ms));
        out.tell(ToClient::SpeechStarted { utterance_id: utterance, at: at_ms, source });
        out.push(Effect::Transcribe(utterance, out.options().transcription()));
        turn_manager::Input::SpeechStarted(utterance)
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
        if let Some(pending) = self.pending.get_mut(&utterance) {
            pending.ended_ms = at_ms;
        }
        out.tell(ToClient::SpeechEnded { utterance_id: utterance, at: at_ms, source, reason: reason.into() });
        out.push(Effect::EndUtterance(utterance));
        Some(turn_manager::Input::SpeechEnded(utterance))
    }

    /// An interim transcript. A client replaces the interim it has, so a shorter one would make words
    /// vanish and come back: it is dropped.
    pub(super) fn interim(&mut self, utterance: UtteranceId, heard: Transcript, out: &mut Out<'_>) {
        let Transcript { text, language, .. } = heard;
        let open = self.open == Some(utterance);
        let Some(pending) = self.pending.get_mut(&utterance) else { return };
        if text.len() < pending.interim.len() || text == pending.interim {
            return;
        }
        pending.heard(language.as_ref(), out);
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
        let Transcript { text, language, .. } = heard;
        if let Some(pending) = self.pending.get_mut(&utterance) {
            pending.heard(language.as_ref(), out);
            out.options_mut().hear(language.as_ref());
        }
        self.tell_transcript(utterance, text.clone(), true, out);
        let pending = self.pending.remove(&utterance)?;
        if !text.trim().is_empty() {
            out.push(Effect::Save(
                HistoryItem::Utterance {
                    utterance_id: Some(utterance),
                    text: text.clone(),
                    start_ms: pending.started_ms,
                    end_ms: pending.ended_ms,
                    language: pending.language.unwrap_or_else(|| out.options().tag(None)),
                },
                None,
            ));
        }
        Some(turn_manager::Input::Transcribed { utterance, text })
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
        let utterance = match self.pending.last_key_value().filter(|_| self.open.is_none()) {
            Some((utterance, _)) => *utterance,
            None => {
                self.last_utterance = self.last_utterance.next();
                self.last_utterance
            }
        };
        let pending = self.pending.entry(utterance).or_insert_with(|| Utterance::new(at_ms));
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

    /// Tells an interim or a final to every stream that wants it, under the subscriber's own name of the
    /// stream.
    fn tell_transcript(&self, utterance: UtteranceId, text: String, is_final: bool, out: &mut Out<'_>) {
        let Some(pending) = self.pending.get(&utterance) else { return };
        let language = pending.language.clone().unwrap_or_else(|| out.options().tag(None));
        let usual = format!("transcription:{language}");
        let default = (out.profile() == Profile::EdgeV1).then(|| usual.clone());
        let streams = self.subscriptions.transcription(&language, default);
        let data = StreamData::Transcription {
            utterance_id: utterance,
            text,
            is_final,
            start_time: pending.started_ms,
            end_time: pending.ended_ms,
            transcribe_language: language,
            provider: pending.provider.clone().unwrap_or_else(|| provider(out).to_owned()),
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
        let message = message(usual, out);
        out.push(Effect::ForwardStream(message));
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

    pub(super) fn deadline(&self) -> Soonest {
        Soonest::default().or(self.subscriptions.deadline(), Reason::Subscriptions)
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
