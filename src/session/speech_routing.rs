//! What is heard, on its way from the microphones to recognition and to the dialogue.

use std::time::Duration;

use super::{Router, participants::ParticipantEvent};
use crate::{
    ids::Identity,
    protocol::Mode,
    turn::{turn_manager, utterance_detector::SpeechEvent},
};

impl Router<'_> {
    /// What voice detection found goes to recognition.
    pub(super) fn speech(&mut self, events: Vec<SpeechEvent>) {
        for event in events {
            let out = &mut self.out;
            let turn = match event {
                SpeechEvent::Started { at_sample } => {
                    let at_ms = self.media.session_ms(at_sample, out);
                    let (utterance, turn) = self.recognition.started(at_ms, self.media.active(), out);
                    self.pauses.started(utterance);
                    Some(turn)
                }
                SpeechEvent::Audio(samples) => {
                    self.pauses.audio(&samples, out);
                    self.recognition.audio(samples, out);
                    None
                }
                SpeechEvent::Paused => {
                    let silence = self.pauses.paused(out);
                    self.end_after(silence);
                    None
                }
                SpeechEvent::WentOn { silence } => {
                    self.pauses.went_on(silence);
                    Some(turn_manager::Input::NotOver)
                }
                SpeechEvent::Ended { reason, at_sample } => {
                    self.pauses.ended();
                    let at_ms = self.media.session_ms(at_sample, out);
                    let turn = self.recognition.ended(reason, at_ms, self.media.active(), out);
                    self.dialogue.speech_ended(out);
                    turn
                }
            };
            self.turn(turn);
        }
    }

    /// What is known of a pause goes to the dialogue and to voice detection.
    pub(super) fn pause_known(&mut self, silence: Option<Duration>) {
        if let Some((utterance, words)) = self.pauses.likely_end()
            && self.out.config().preempts
            && self.out.options().mode() != Mode::Captions
        {
            let likely_end = turn_manager::Input::LikelyEnd { utterance, text: words.to_owned() };
            self.turn(Some(likely_end));
        }
        self.end_after(silence);
    }

    fn end_after(&mut self, silence: Option<Duration>) {
        if let Some(silence) = silence {
            let events = self.media.end_after(silence);
            self.speech(events);
        }
    }

    /// What was found in another participant's audio goes to recognition.
    pub(super) fn participant(&mut self, participant: &Identity, events: Vec<ParticipantEvent>) {
        let out = &mut self.out;
        for event in events {
            match event {
                ParticipantEvent::Started { at_ms } => {
                    self.recognition.participant_started(participant, at_ms, out);
                }
                ParticipantEvent::Audio(samples) => {
                    self.recognition.participant_audio(participant, samples, out);
                }
                ParticipantEvent::Ended { at_ms } => {
                    self.recognition.participant_ended(participant, at_ms, out);
                    if out.options().answers(participant) {
                        self.dialogue.speech_ended(out);
                    }
                }
            }
        }
    }

    pub(super) fn participant_gone(&mut self, participant: &Identity) {
        let events = self.participants.gone(participant, &self.out);
        self.participant(participant, events);
    }

    /// What recognition found goes to the dialogue.
    pub(super) fn turn(&mut self, input: Option<turn_manager::Input>) {
        if let Some(input) = input {
            self.dialogue.turn(input, &mut self.out);
        }
    }
}
