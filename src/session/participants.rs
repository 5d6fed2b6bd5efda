//! Microphones of other participants in the room: each has its own utterance detector. The user's endpointing and
//! turn-taking know nothing of them.

use std::{collections::BTreeMap, time::Instant};

use crate::{
    audio::{Pcm, SAMPLE_RATE_HZ},
    error::Code,
    ids::Identity,
    limits::Limit,
    session::{
        media::{AUDIO_STALL_TIMEOUT, Pace},
        out::{Out, Reason, Soonest, is_due},
    },
    turn::utterance_detector::{SpeechEvent, UtteranceDetector},
};

struct Microphone {
    detector: UtteranceDetector,
    /// The last audio.
    heard_at: Instant,
    pace: Pace,
}

impl Microphone {
    /// When its open utterance ends because no audio arrives any more.
    fn stall_at(&self) -> Option<Instant> {
        self.detector.is_open().then(|| self.heard_at + AUDIO_STALL_TIMEOUT)
    }
}

/// What was found in a participant's audio. Times are milliseconds of the session.
#[derive(Debug)]
pub(super) enum ParticipantEvent {
    Started { at_ms: u64 },
    Audio(Pcm),
    Ended { at_ms: u64 },
}

/// The machine.
#[derive(Default)]
pub(super) struct ParticipantMicrophones(BTreeMap<Identity, Microphone>);

impl ParticipantMicrophones {
    /// Audio of a participant: 16 kHz mono.
    pub(super) fn audio(
        &mut self,
        participant: &Identity,
        samples: &Pcm,
        out: &Out<'_>,
    ) -> Vec<ParticipantEvent> {
        let config = out.config();
        if config.stt.is_err() || !out.options().hears(participant) {
            return Vec::new();
        }
        if !self.0.contains_key(participant) {
            if self.0.len() >= config.offer.participants {
                return Vec::new();
            }
            let detector = UtteranceDetector::new((config.detectors)(), config.endpointer);
            let microphone = Microphone { detector, heard_at: out.now, pace: Pace::new(out.now) };
            self.0.insert(participant.clone(), microphone);
        }
        let Some(microphone) = self.0.get_mut(participant) else { return Vec::new() };
        microphone.heard_at = out.now;
        if !microphone.pace.admits(samples, out.now) {
            Limit::Audio.count();
            return Vec::new();
        }
        let events = microphone.detector.push(samples);
        in_session(events, &microphone.detector, out)
    }

    /// A participant's microphone will bring nothing more.
    pub(super) fn gone(&mut self, participant: &Identity, out: &Out<'_>) -> Vec<ParticipantEvent> {
        let Some(mut microphone) = self.0.remove(participant) else { return Vec::new() };
        let events = microphone.detector.stall();
        in_session(events, &microphone.detector, out)
    }

    /// One more microphone is in the room than are transcribed at once.
    pub(super) fn refused(participant: &Identity, out: &mut Out<'_>) {
        let most = out.config().offer.participants;
        let message =
            format!("{participant} is not transcribed: at most {most} participants are, at the same time");
        Limit::Participants.count();
        out.error(Code::RateLimited, message, None);
    }

    /// Those who are not to be transcribed any more.
    pub(super) fn unwanted(&self, out: &Out<'_>) -> Vec<Identity> {
        self.0.keys().filter(|participant| !out.options().hears(participant)).cloned().collect()
    }

    pub(super) fn deadline(&self) -> Soonest {
        Soonest::default().or(self.0.values().filter_map(Microphone::stall_at).min(), Reason::AudioStall)
    }

    /// Those whose utterance has got no audio for too long.
    pub(super) fn stalled(&self, now: Instant) -> Vec<Identity> {
        let is_stalled = |(_, microphone): &(&Identity, &Microphone)| is_due(microphone.stall_at(), now);
        self.0.iter().filter(is_stalled).map(|(participant, _)| participant.clone()).collect()
    }
}

/// The events in milliseconds of the session, counted back from now.
fn in_session(
    events: Vec<SpeechEvent>,
    detector: &UtteranceDetector,
    out: &Out<'_>,
) -> Vec<ParticipantEvent> {
    let at_ms = |at_sample: u64| {
        let ago_ms = detector.position().saturating_sub(at_sample) * 1000 / u64::from(SAMPLE_RATE_HZ);
        out.elapsed_ms().saturating_sub(ago_ms)
    };
    let event = |event| match event {
        SpeechEvent::Started { at_sample } => Some(ParticipantEvent::Started { at_ms: at_ms(at_sample) }),
        SpeechEvent::Audio(samples) => Some(ParticipantEvent::Audio(samples)),
        SpeechEvent::Paused | SpeechEvent::WentOn { .. } => None,
        SpeechEvent::Ended { reason: _, at_sample } => {
            Some(ParticipantEvent::Ended { at_ms: at_ms(at_sample) })
        }
    };
    events.into_iter().filter_map(event).collect()
}
