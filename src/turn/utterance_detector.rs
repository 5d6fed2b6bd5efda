//! From samples to utterances. No I/O, no clock, no lock, nothing async; time is counted in samples.
//!
//! ```text
//!  PCM, any chunk length        32 ms frames          probability            Started · Audio · Ended
//!  ──────────▶ pcm::Framer ──────────▶ SpeechDetector ──────────▶      Endpointer ──────────▶ the session
//! ```
//!
//! A session owns one [`UtteranceDetector`]. Its events go to recognition: audio to STT, beginnings and ends to
//! the turn manager.

use std::time::Duration;

use super::endpointer::{Endpointer, EndpointerConfig};
use crate::audio::Pcm;
use crate::audio::pcm::Framer;
use crate::providers::vad::SpeechDetector;

/// What was found in the samples. Positions count samples at 16 kHz since the detector began.
///
/// Utterances never overlap. The audio of one is the input from its start to its end, unchanged.
#[derive(Clone, Debug, PartialEq)]
pub enum SpeechEvent {
    /// An utterance opened.
    Started {
        /// Position of its first sample, pre-roll included.
        at_sample: u64,
    },
    /// The next samples of the open utterance.
    Audio(Pcm),
    /// The user paused within the open utterance, for `pause` so far.
    Paused,
    /// The pause is over, and the utterance goes on.
    WentOn {
        /// The length of the pause.
        silence: Duration,
    },
    /// The open utterance ended. Every `Started` gets exactly one.
    Ended {
        /// What ended it.
        reason: EndReason,
        /// Position after its last sample.
        at_sample: u64,
    },
}

/// What ended an utterance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// The user was silent for `min_silence`.
    Silence,
    /// The client's own voice activity detection closed.
    ClientVad,
    /// It reached its maximum length. The next utterance always starts at the same sample, so the turn does
    /// not end here.
    Limit,
    /// Audio stopped arriving while it was open.
    Muted,
}

/// Finds the utterances in one stream of 16 kHz mono PCM.
pub struct UtteranceDetector {
    framer: Framer,
    detector: Box<dyn SpeechDetector>,
    endpointer: Endpointer,
    /// The probability of the last whole frame; a remainder too short for the detector gets the same.
    probability: f32,
}

impl UtteranceDetector {
    /// Uses this voice detector, with these settings of the endpointer.
    pub fn new(detector: Box<dyn SpeechDetector>, settings: EndpointerConfig) -> Self {
        Self { framer: Framer::default(), detector, endpointer: Endpointer::new(settings), probability: 0.0 }
    }

    /// Lets the client's own voice detection decide when an utterance opens, or no longer.
    pub fn follow(&mut self, client: bool) {
        self.endpointer.follow(client);
    }

    /// Push to talk from now on, or no longer.
    pub fn push_to_talk(&mut self, on: bool) -> Vec<SpeechEvent> {
        let mut events = Vec::new();
        self.endpointer.push_to_talk(on, &mut events);
        events
    }

    /// Takes the next samples, any number of them.
    pub fn push(&mut self, pcm: &[i16]) -> Vec<SpeechEvent> {
        let mut events = Vec::new();
        let Self { framer, detector, endpointer, probability } = self;
        framer.push(pcm, |frame| {
            if !endpointer.is_deaf() {
                *probability = detector.probability(frame).unwrap_or(0.0);
            }
            endpointer.push(frame, *probability, &mut events);
        });
        events
    }

    /// The client detected the beginning of speech: opens an utterance with its pre-roll, or takes over the
    /// open one. From then on only the client ends it.
    pub fn open(&mut self) -> Vec<SpeechEvent> {
        // What does not fill a frame came before.
        let mut events = if self.endpointer.is_deaf() { self.flush() } else { Vec::new() };
        self.endpointer.open(&mut events);
        events
    }

    /// The client detected the end of speech. No effect where no utterance is open.
    pub fn close(&mut self) -> Vec<SpeechEvent> {
        let mut events = self.flush();
        self.endpointer.close(&mut events);
        events
    }

    /// Audio stopped arriving. An open utterance ends with [`EndReason::Muted`]; the pre-roll is dropped,
    /// since later audio does not continue it.
    pub fn stall(&mut self) -> Vec<SpeechEvent> {
        let mut events = self.flush();
        self.endpointer.stall(&mut events);
        self.detector.reset();
        self.probability = 0.0;
        events
    }

    /// The pause that was told of last ends the utterance after so much silence.
    pub fn end_after(&mut self, silence: Duration) -> Vec<SpeechEvent> {
        let mut events = Vec::new();
        self.endpointer.end_after(silence, &mut events);
        events
    }

    /// Whether an utterance is open.
    pub fn is_open(&self) -> bool {
        self.endpointer.is_open()
    }

    /// Samples taken by the endpointer so far: the latest position that an event can refer to.
    pub fn position(&self) -> u64 {
        self.endpointer.position()
    }

    /// Passes on the samples that do not fill a frame, so that an utterance ends with its last sample.
    fn flush(&mut self) -> Vec<SpeechEvent> {
        let mut events = Vec::new();
        let rest = self.framer.take();
        if !rest.is_empty() {
            self.endpointer.push(&rest, self.probability, &mut events);
        }
        events
    }
}

/// The samples of a recording in tests/fixtures/audio.
#[cfg(test)]
pub(crate) fn fixture(name: &str) -> Vec<i16> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/audio/").to_owned() + name;
    let reader = hound::WavReader::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert_eq!(reader.spec().sample_rate, crate::audio::SAMPLE_RATE_HZ, "{path}");
    reader.into_samples::<i16>().map(|sample| sample.expect("a whole recording")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::pcm::Frame;

    /// Takes a frame for speech where its first sample is loud.
    struct LoudIsSpeech;

    impl SpeechDetector for LoudIsSpeech {
        fn probability(&mut self, frame: &Frame) -> Option<f32> {
            Some(if frame[0].unsigned_abs() > 1000 { 0.9 } else { 0.1 })
        }

        fn reset(&mut self) {}
    }

    fn detector() -> UtteranceDetector {
        UtteranceDetector::new(Box::new(LoudIsSpeech), EndpointerConfig::default())
    }

    fn audio(events: &[SpeechEvent]) -> Vec<i16> {
        events
            .iter()
            .flat_map(|event| match event {
                SpeechEvent::Audio(pcm) => pcm.to_vec(),
                SpeechEvent::Started { .. }
                | SpeechEvent::Ended { .. }
                | SpeechEvent::Paused
                | SpeechEvent::WentOn { .. } => Vec::new(),
            })
            .collect()
    }

    #[test]
    fn chunks_of_any_length_are_heard_alike() {
        let mut input = vec![0; 16_000];
        input.extend(vec![5000; 16_000]);
        input.extend(vec![0; 16_000]);

        let whole = detector().push(&input);
        let mut piecewise = detector();
        let pieces: Vec<SpeechEvent> = input.chunks(77).flat_map(|chunk| piecewise.push(chunk)).collect();

        assert!(matches!(whole.first(), Some(SpeechEvent::Started { .. })));
        assert_eq!(pieces, whole);
    }

    #[test]
    fn a_client_that_closes_in_the_middle_of_a_frame_loses_no_sample() {
        let mut detector = detector();
        let input: Vec<i16> = (0..1300).collect();

        let mut events = detector.open();
        events.extend(detector.push(&input));
        events.extend(detector.close());

        assert_eq!(events.first(), Some(&SpeechEvent::Started { at_sample: 0 }));
        assert_eq!(audio(&events), input);
        assert_eq!(
            events.last(),
            Some(&SpeechEvent::Ended { reason: EndReason::ClientVad, at_sample: 1300 })
        );
    }

    #[test]
    fn a_microphone_that_falls_silent_in_an_utterance_ends_it_as_muted() {
        let mut detector = detector();
        let events = detector.push(&[5000; 16_000]);
        assert!(detector.is_open());

        let end = detector.stall();

        assert_eq!(audio(&events).len() + audio(&end).len(), 16_000);
        assert_eq!(end.last(), Some(&SpeechEvent::Ended { reason: EndReason::Muted, at_sample: 16_000 }));
        assert_eq!(detector.stall(), []);
    }

    #[test]
    fn by_push_to_talk_an_utterance_is_what_comes_between_open_and_close_to_the_sample() {
        let mut detector = detector();
        detector.push_to_talk(true);

        assert_eq!(detector.push(&[5000; 16_100]), []);
        let mut events = detector.open();
        events.extend(detector.push(&[1; 20_001]));
        assert!(detector.is_open(), "silence ends nothing");
        events.extend(detector.close());
        events.extend(detector.push(&[5000; 16_000]));

        assert_eq!(events.first(), Some(&SpeechEvent::Started { at_sample: 16_100 }));
        assert_eq!(audio(&events), [1; 20_001]);
        let end = SpeechEvent::Ended { reason: EndReason::ClientVad, at_sample: 36_101 };
        assert_eq!(events.last(), Some(&end));
    }

    #[test]
    fn push_to_talk_ends_what_speech_opened_and_leaves_what_the_client_opened() {
        let mut by_speech = detector();
        by_speech.push(&[5000; 16_000]);
        assert!(matches!(by_speech.push_to_talk(true).last(), Some(SpeechEvent::Ended { .. })));
        assert_eq!(by_speech.push_to_talk(false), []);
        assert!(!by_speech.push(&[5000; 16_000]).is_empty(), "speech opens again");

        let mut by_client = detector();
        by_client.open();
        assert_eq!(by_client.push_to_talk(true), []);
        assert!(by_client.is_open());
    }
}
