//! Where an utterance begins and ends.
//!
//! ```text
//!            p ≥ enter              speech for min_speech              p < exit
//!   Quiet ─────────────▶ Starting ───────────────────────▶ Speaking ───────────▶ Stopping
//!     ▲  ◀───────────────   │                                  ▲  ◀────────────    │
//!     │       p < exit                                         │     p ≥ enter     │
//!     └────────────────────────────────────────────────────────┼───────────────────┘
//!                          silence for min_silence             │
//!   any ── open() ──▶ Held ── close() ──▶ Quiet       split at the maximum length: continues as the next
//! ```
//!
//! An endpointer gets samples with the probability that they are speech. It counts time in samples, so it
//! needs no clock and gives the same result for a recording as for a microphone. An utterance starts some
//! pre-roll before the speech that opened it, so that the first word is whole; samples that may become
//! pre-roll are kept. From `look_for_pause` on, what follows the least speech-like moment so far is held
//! back: if the utterance reaches its maximum length, it is split there, and what was held back opens the
//! next one.
//!
//! An endpointer may follow a client that detects speech by itself ([`Endpointer::follow`]). Then an utterance
//! opens when the client says so, from where the gateway detected the beginning of speech, at most
//! [`MAX_PRE_ROLL`] ago. After [`CLIENT_VAD_TIMEOUT`] of speech the client is not waited for.
//!
//! By push to talk ([`Endpointer::push_to_talk`]) an utterance is what comes between the client's `open` and `close`,
//! without pre-roll. Nothing else opens or ends one.

use std::collections::VecDeque;
use std::time::Duration;

use crate::{
    audio::{Pcm, SAMPLE_RATE_HZ},
    turn::utterance_detector::{EndReason, SpeechEvent},
};

/// The minimum of the pre-roll setting.
pub const MIN_PRE_ROLL: Duration = Duration::from_millis(100);

/// The maximum of the pre-roll setting, and of what is kept while the client decides.
pub const MAX_PRE_ROLL: Duration = Duration::from_secs(5);

/// How much speech opens an utterance although the client that is followed reported none.
pub const CLIENT_VAD_TIMEOUT: Duration = Duration::from_secs(2);

/// How long after speech ended the client may still report it.
const LATE: Duration = Duration::from_secs(2);

/// When an utterance opens and closes.
///
/// With the defaults each clip of `tests/fixtures/audio` is one utterance. (300 ms of `min_silence` would do for
/// these, but they are read aloud; spontaneous speech has longer pauses.)
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EndpointerConfig {
    /// Probability from which a frame counts as speech.
    pub enter: f32,
    /// Probability below which a frame counts as silence once there was speech. Lower than `enter`, so that
    /// a probability near the threshold does not split a word.
    pub exit: f32,
    /// How much speech opens an utterance; less is a click or a cough.
    pub min_speech: Duration,
    /// How much audio before its first speech an utterance has: 100 ms to 5 s.
    pub pre_roll: Duration,
    /// How much silence is a pause, of which is told.
    pub pause: Duration,
    /// How much silence ends it, unless [`Endpointer::end_after`] says otherwise.
    pub min_silence: Duration,
    /// The length from which on a place to split is looked for.
    pub look_for_pause: Duration,
    /// The maximum length. STT models decode an utterance whole, so this bounds their memory.
    pub longest: Duration,
}

impl Default for EndpointerConfig {
    fn default() -> Self {
        Self {
            enter: 0.5,
            exit: 0.35,
            min_speech: Duration::from_millis(96),
            pre_roll: Duration::from_millis(500),
            pause: Duration::from_millis(160),
            min_silence: Duration::from_millis(500),
            look_for_pause: Duration::from_secs(12),
            longest: Duration::from_secs(15),
        }
    }
}

/// Finds the utterances in one stream of samples.
#[derive(Debug)]
pub struct Endpointer {
    enter: f32,
    exit: f32,
    min_speech: u64,
    pre_roll: usize,
    pause: u64,
    min_silence: u64,
    look_for_pause: u64,
    longest: u64,
    phase: Phase,
    /// Samples taken so far.
    position: u64,
    /// The last samples, not handed out yet: pre-roll while no utterance is open, what follows the least
    /// speech-like moment of a long one.
    kept: VecDeque<i16>,
    /// The client decides when an utterance opens.
    follows: bool,
    /// An utterance opens and ends by the client's word alone.
    push_to_talk: bool,
    /// While it does, and no utterance is open: the last speech that was detected.
    stretch: Option<Stretch>,
}

/// Where speech began and how far it went, without a pause of `min_silence`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stretch {
    first: u64,
    last: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Quiet,
    /// Speech began; `speech` samples of it so far.
    Starting {
        speech: u64,
    },
    Open(Utterance),
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Utterance {
    /// Position of its first sample.
    began: u64,
    voice: Voice,
    /// The lowest probability since `look_for_pause`; what follows that moment is held back.
    weakest: f32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Voice {
    Speaking,
    /// Silence for so many samples.
    Stopping {
        silence: u64,
        /// How much ends it.
        limit: u64,
    },
    /// The client opened it and will close it.
    Held,
}

impl Endpointer {
    /// Settings out of their range are clamped to it.
    pub fn new(settings: EndpointerConfig) -> Self {
        let pre_roll = settings.pre_roll.clamp(MIN_PRE_ROLL, MAX_PRE_ROLL);
        let longest = settings.longest.max(Duration::from_secs(1));
        // What is held back must not be long enough to be split again.
        let look_for_pause = settings.look_for_pause.clamp(longest.mul_f32(0.6), longest);
        Self {
            enter: settings.enter,
            exit: settings.exit.min(settings.enter),
            min_speech: samples(settings.min_speech),
            pre_roll: samples(pre_roll) as usize,
            pause: samples(settings.pause).max(1),
            min_silence: samples(settings.min_silence),
            look_for_pause: samples(look_for_pause),
            longest: samples(longest),
            phase: Phase::Quiet,
            position: 0,
            kept: VecDeque::new(),
            follows: false,
            push_to_talk: false,
            stretch: None,
        }
    }

    /// Follows the client's own detection from now on, or no longer. An utterance that is open stays so.
    pub fn follow(&mut self, client: bool) {
        self.follows = client;
        self.stretch = None;
        if let Phase::Starting { .. } = self.phase {
            self.phase = Phase::Quiet;
        }
    }

    /// Push to talk from now on, or no longer. An utterance that is open ends, unless the client opened it.
    pub fn push_to_talk(&mut self, on: bool, events: &mut Vec<SpeechEvent>) {
        self.push_to_talk = on;
        match self.phase {
            Phase::Open(Utterance { voice: Voice::Held, .. }) => {}
            Phase::Open(_) | Phase::Quiet | Phase::Starting { .. } if on => {
                self.end(EndReason::ClientVad, events);
                self.phase = Phase::Quiet;
                self.kept.clear();
                self.stretch = None;
            }
            Phase::Open(_) | Phase::Quiet | Phase::Starting { .. } => {}
        }
    }

    /// Whether samples have no effect until [`open`](Self::open).
    pub fn is_deaf(&self) -> bool {
        self.push_to_talk && !self.is_open()
    }

    /// Takes the next samples (a frame, as a rule), which are speech with this probability.
    pub fn push(&mut self, samples: &[i16], probability: f32, events: &mut Vec<SpeechEvent>) {
        let count = samples.len() as u64;
        self.position += count;
        self.kept.extend(samples);
        match self.phase {
            Phase::Quiet | Phase::Starting { .. } if self.push_to_talk => self.kept.clear(),
            Phase::Quiet | Phase::Starting { .. } if self.follows => self.wait(count, probability, events),
            Phase::Quiet if probability >= self.enter => self.starting(count, events),
            Phase::Quiet => self.forget_old(),
            Phase::Starting { speech } if probability >= self.exit => self.starting(speech + count, events),
            Phase::Starting { .. } => {
                self.phase = Phase::Quiet;
                self.forget_old();
            }
            Phase::Open(utterance) => self.go_on(utterance, count, probability, events),
        }
    }

    /// The client detected the beginning of speech.
    pub fn open(&mut self, events: &mut Vec<SpeechEvent>) {
        match &mut self.phase {
            Phase::Quiet | Phase::Starting { .. } => {
                let late = |stretch: &Stretch| stretch.last + samples(LATE) >= self.position;
                let first = self.stretch.filter(late).map_or(self.position, |stretch| stretch.first);
                self.forget_before(first);
                self.start(Voice::Held, events);
            }
            Phase::Open(utterance) => utterance.voice = Voice::Held,
        }
    }

    /// The client detected the end of speech.
    pub fn close(&mut self, events: &mut Vec<SpeechEvent>) {
        self.end(EndReason::ClientVad, events);
    }

    /// No more audio comes for now; later audio does not continue what came before.
    pub fn stall(&mut self, events: &mut Vec<SpeechEvent>) {
        self.end(EndReason::Muted, events);
        self.phase = Phase::Quiet;
        self.kept.clear();
        self.stretch = None;
    }

    /// The pause that was told of last ends the utterance after so much silence. No effect once there was speech again.
    pub fn end_after(&mut self, silence: Duration, events: &mut Vec<SpeechEvent>) {
        let Phase::Open(Utterance { voice: Voice::Stopping { silence: so_far, limit }, .. }) =
            &mut self.phase
        else {
            return;
        };
        if *so_far >= self.pause {
            *limit = samples(silence);
            if *so_far >= *limit {
                self.end(EndReason::Silence, events);
            }
        }
    }

    /// Whether an utterance is open.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// Samples taken so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// No utterance is open and the client decides: waits for its `open`.
    fn wait(&mut self, count: u64, probability: f32, events: &mut Vec<SpeechEvent>) {
        let began = self.position - count;
        let stretch = self.stretch.filter(|stretch| began - stretch.last < self.min_silence);
        let is_speech = match stretch {
            Some(stretch) if stretch.last == began => probability >= self.exit,
            Some(_) | None => probability >= self.enter,
        };
        self.forget_old();
        if !is_speech {
            return;
        }
        let first = stretch.map_or(began, |stretch| stretch.first);
        self.stretch = Some(Stretch { first, last: self.position });
        if self.position - first >= samples(CLIENT_VAD_TIMEOUT) {
            self.forget_before(first);
            self.start(Voice::Speaking, events);
        }
    }

    fn starting(&mut self, speech: u64, events: &mut Vec<SpeechEvent>) {
        if speech >= self.min_speech {
            self.start(Voice::Speaking, events);
        } else {
            self.phase = Phase::Starting { speech };
        }
    }

    /// Opens an utterance with all that is kept.
    fn start(&mut self, voice: Voice, events: &mut Vec<SpeechEvent>) {
        let began = self.position - self.kept.len() as u64;
        self.stretch = None;
        self.phase = Phase::Open(Utterance { began, voice, weakest: f32::INFINITY });
        events.push(SpeechEvent::Started { at_sample: began });
        self.hand_out(events);
    }

    fn go_on(
        &mut self,
        mut utterance: Utterance,
        count: u64,
        probability: f32,
        events: &mut Vec<SpeechEvent>,
    ) {
        let length = self.position - utterance.began;
        if length <= self.look_for_pause {
            self.hand_out(events);
        } else if probability <= utterance.weakest {
            utterance.weakest = probability;
            self.hand_out(events);
        }

        utterance.voice = match utterance.voice {
            Voice::Speaking if probability < self.exit => {
                Voice::Stopping { silence: count, limit: self.min_silence }
            }
            Voice::Stopping { silence, .. } if probability >= self.enter => {
                if silence >= self.pause {
                    events.push(SpeechEvent::WentOn { silence: duration(silence) });
                }
                Voice::Speaking
            }
            Voice::Stopping { silence, limit } => Voice::Stopping { silence: silence + count, limit },
            Voice::Speaking => Voice::Speaking,
            Voice::Held => Voice::Held,
        };
        self.phase = Phase::Open(utterance);
        if let Voice::Stopping { silence, .. } = utterance.voice
            && (silence.saturating_sub(count)..silence).contains(&(self.pause - 1))
        {
            events.push(SpeechEvent::Paused);
        }

        match utterance.voice {
            Voice::Stopping { silence, limit } if silence >= limit => self.end(EndReason::Silence, events),
            Voice::Speaking | Voice::Stopping { .. } | Voice::Held if length >= self.longest => {
                let at_sample = self.position - self.kept.len() as u64;
                events.push(SpeechEvent::Ended { reason: EndReason::Limit, at_sample });
                self.start(utterance.voice, events);
            }
            Voice::Speaking | Voice::Stopping { .. } | Voice::Held => {}
        }
    }

    /// Ends the open utterance, if there is one, with all samples so far.
    fn end(&mut self, reason: EndReason, events: &mut Vec<SpeechEvent>) {
        let Phase::Open(_) = self.phase else { return };
        self.hand_out(events);
        events.push(SpeechEvent::Ended { reason, at_sample: self.position });
        self.phase = Phase::Quiet;
        self.kept.shrink_to(self.pre_roll);
    }

    fn hand_out(&mut self, events: &mut Vec<SpeechEvent>) {
        if !self.kept.is_empty() {
            events.push(SpeechEvent::Audio(Pcm::from(&*self.kept.make_contiguous())));
            self.kept.clear();
        }
    }

    fn forget_old(&mut self) {
        let most = if self.follows { samples(MAX_PRE_ROLL) as usize } else { self.pre_roll };
        let surplus = self.kept.len().saturating_sub(most);
        self.kept.drain(..surplus);
    }

    /// Forgets what is older than the pre-roll of speech that began at `first`.
    fn forget_before(&mut self, first: u64) {
        let wanted = (self.position - first) as usize + self.pre_roll;
        let surplus = self.kept.len().saturating_sub(wanted);
        self.kept.drain(..surplus);
    }
}

fn duration(samples: u64) -> Duration {
    Duration::from_millis(samples * 1000 / u64::from(SAMPLE_RATE_HZ))
}

fn samples(duration: Duration) -> u64 {
    duration.as_millis() as u64 * u64::from(SAMPLE_RATE_HZ) / 1000
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audio::pcm::FRAME_SAMPLES;

    /// One second in frames, rounded up.
    const SECOND: usize = 32;

    /// An endpointer that took frames of these probabilities, and where utterances begin and end.
    fn after(probabilities: &[f32]) -> (Endpointer, Vec<SpeechEvent>) {
        let mut endpointer = Endpointer::new(EndpointerConfig::default());
        let mut events = Vec::new();
        for probability in probabilities {
            endpointer.push(&[0; FRAME_SAMPLES], *probability, &mut events);
        }
        (endpointer, bounds(events))
    }

    /// Where utterances begin and end.
    fn bounds(mut events: Vec<SpeechEvent>) -> Vec<SpeechEvent> {
        events.retain(|event| matches!(event, SpeechEvent::Started { .. } | SpeechEvent::Ended { .. }));
        events
    }

    /// What is told of pauses.
    fn pauses(mut events: Vec<SpeechEvent>) -> Vec<SpeechEvent> {
        events.retain(|event| matches!(event, SpeechEvent::Paused | SpeechEvent::WentOn { .. }));
        events
    }

    fn frames(count: usize) -> u64 {
        (count * FRAME_SAMPLES) as u64
    }

    #[test]
    fn a_click_shorter_than_the_shortest_speech_opens_nothing() {
        let (_, events) = after(&[0.1, 0.9, 0.9, 0.1, 0.1, 0.9, 0.9, 0.1]);

        assert_eq!(events, []);
    }

    #[test]
    fn an_utterance_begins_a_pre_roll_before_its_first_speech() {
        let mut input = vec![0.0; 2 * SECOND];
        input.extend([0.9; 3]);

        let (_, events) = after(&input);

        assert_eq!(events, [SpeechEvent::Started { at_sample: frames(2 * SECOND) - 8_000 }]);
    }

    #[test]
    fn a_probability_between_exit_and_enter_neither_opens_nor_begins_to_close() {
        let (_, never_opened) = after(&[0.4; 50]);
        let mut input = vec![0.9; 3];
        input.extend([0.4; 50]);
        let (endpointer, _) = after(&input);

        assert_eq!(never_opened, []);
        assert!(endpointer.is_open());
    }

    #[test]
    fn a_pause_shorter_than_the_hang_over_does_not_cut() {
        let mut input = vec![0.9; 10];
        input.extend([0.0; 15]);
        input.extend([0.9; 10]);

        let (endpointer, events) = after(&input);

        assert_eq!(events, [SpeechEvent::Started { at_sample: 0 }]);
        assert!(endpointer.is_open());
    }

    #[test]
    fn silence_for_the_hang_over_ends_it() {
        let mut input = vec![0.9; 10];
        input.extend([0.0; 16]);

        let (_, events) = after(&input);

        let end = SpeechEvent::Ended { reason: EndReason::Silence, at_sample: frames(26) };
        assert_eq!(events, [SpeechEvent::Started { at_sample: 0 }, end]);
    }

    /// Speech, and then so many silent frames, each followed by the events so far.
    fn pause(endpointer: &mut Endpointer, silent_frames: usize) -> Vec<SpeechEvent> {
        let mut events = Vec::new();
        for probability in std::iter::repeat_n(0.9, 10).chain(std::iter::repeat_n(0.0, silent_frames)) {
            endpointer.push(&[0; FRAME_SAMPLES], probability, &mut events);
        }
        events
    }

    #[test]
    fn a_pause_is_told_once_and_so_is_its_end_with_its_length() {
        let mut endpointer = Endpointer::new(EndpointerConfig::default());

        let mut events = pause(&mut endpointer, 4);
        assert_eq!(pauses(events.clone()), []);
        events.extend(pause(&mut endpointer, 12));
        events.extend(pause(&mut endpointer, 5));

        let went_on = SpeechEvent::WentOn { silence: Duration::from_millis(12 * 32) };
        assert_eq!(pauses(events), [SpeechEvent::Paused, went_on, SpeechEvent::Paused]);
    }

    #[test]
    fn a_pause_ends_the_utterance_when_it_is_told_to_and_the_next_one_as_usual() {
        let mut endpointer = Endpointer::new(EndpointerConfig::default());
        let mut events = pause(&mut endpointer, 6);
        endpointer.end_after(Duration::from_secs(2), &mut events);
        events.extend(std::iter::repeat_n((), 30).flat_map(|()| {
            let mut events = Vec::new();
            endpointer.push(&[0; FRAME_SAMPLES], 0.0, &mut events);
            events
        }));
        assert!(endpointer.is_open(), "it waits");

        events.extend(pause(&mut endpointer, 6));
        endpointer.end_after(Duration::from_millis(160), &mut events);
        assert!(!endpointer.is_open(), "it has been silent long enough");

        let ended = bounds(pause(&mut endpointer, 16));
        assert!(matches!(ended[..], [SpeechEvent::Started { .. }, SpeechEvent::Ended { .. }]), "{ended:?}");
    }

    #[test]
    fn a_decision_that_comes_after_the_person_went_on_has_no_effect() {
        let mut endpointer = Endpointer::new(EndpointerConfig::default());
        let mut events = pause(&mut endpointer, 6);
        events.extend(pause(&mut endpointer, 1));

        endpointer.end_after(Duration::ZERO, &mut events);

        assert!(endpointer.is_open());
    }

    #[test]
    fn a_long_utterance_is_cut_at_its_weakest_moment_and_goes_on() {
        let mut input = vec![0.9; 13 * SECOND];
        input.push(0.6);
        input.extend(vec![0.9; 2 * SECOND]);

        let (endpointer, events) = after(&input);

        let cut = frames(13 * SECOND + 1);
        assert_eq!(
            events,
            [
                SpeechEvent::Started { at_sample: 0 },
                SpeechEvent::Ended { reason: EndReason::Limit, at_sample: cut },
                SpeechEvent::Started { at_sample: cut },
            ]
        );
        assert!(endpointer.is_open());
    }

    #[test]
    fn what_a_client_opened_only_the_client_ends() {
        let (mut endpointer, _) = after(&[0.9; 10]);
        let mut events = Vec::new();

        endpointer.open(&mut events);
        for _ in 0..3 * SECOND {
            endpointer.push(&[0; FRAME_SAMPLES], 0.0, &mut events);
        }
        assert!(endpointer.is_open());
        endpointer.close(&mut events);
        endpointer.close(&mut events);

        let at_sample = frames(10 + 3 * SECOND);
        assert_eq!(bounds(events), [SpeechEvent::Ended { reason: EndReason::ClientVad, at_sample }]);
    }

    #[test]
    fn a_client_gets_the_pre_roll_too() {
        let (mut endpointer, _) = after(&vec![0.0; 2 * SECOND]);
        let mut events = Vec::new();

        endpointer.open(&mut events);

        let at_sample = frames(2 * SECOND) - 8_000;
        assert_eq!(events, [SpeechEvent::Started { at_sample }, SpeechEvent::Audio(Pcm::from([0; 8_000]))]);
    }

    #[test]
    fn what_came_before_a_stall_is_no_pre_roll_of_what_comes_after() {
        let (mut endpointer, _) = after(&[0.0; SECOND]);
        let mut events = Vec::new();

        endpointer.stall(&mut events);
        endpointer.open(&mut events);

        assert_eq!(events, [SpeechEvent::Started { at_sample: frames(SECOND) }]);
    }

    /// An endpointer that follows its client, and took frames of these probabilities.
    fn following(probabilities: &[f32]) -> (Endpointer, Vec<SpeechEvent>) {
        let mut endpointer = Endpointer::new(EndpointerConfig::default());
        endpointer.follow(true);
        let mut events = Vec::new();
        for probability in probabilities {
            endpointer.push(&[0; FRAME_SAMPLES], *probability, &mut events);
        }
        (endpointer, bounds(events))
    }

    #[test]
    fn a_client_that_is_late_gets_its_first_word_all_the_same() {
        let mut input = vec![0.0; 4 * SECOND];
        input.extend(vec![0.9; SECOND]);
        input.extend([0.1; 10]);
        input.extend([0.9; 10]);
        let (mut endpointer, before) = following(&input);
        let mut events = Vec::new();

        endpointer.open(&mut events);

        assert_eq!(before, []);
        assert_eq!(bounds(events), [SpeechEvent::Started { at_sample: frames(4 * SECOND) - 8_000 }]);
    }

    #[test]
    fn a_word_that_is_over_can_be_claimed_for_two_seconds() {
        for (silence, at_sample) in
            [(SECOND, frames(SECOND) - 8_000), (4 * SECOND, frames(6 * SECOND) - 8_000)]
        {
            let mut input = vec![0.0; SECOND];
            input.extend(vec![0.9; SECOND]);
            input.extend(vec![0.0; silence]);
            let (mut endpointer, _) = following(&input);
            let mut events = Vec::new();

            endpointer.open(&mut events);

            assert_eq!(bounds(events), [SpeechEvent::Started { at_sample }], "{silence}");
        }
    }

    #[test]
    fn a_client_that_says_nothing_of_two_seconds_of_speech_is_not_waited_for() {
        let mut input = vec![0.0; SECOND];
        input.extend(vec![0.9; 2 * SECOND]);
        let (_, events) = following(&input);

        assert_eq!(events, [SpeechEvent::Started { at_sample: frames(SECOND) - 8_000 }]);
    }

    #[test]
    fn what_the_client_does_not_take_for_speech_opens_nothing() {
        let mut input = Vec::new();
        for _ in 0..10 {
            input.extend(vec![0.9; SECOND]);
            input.extend(vec![0.0; SECOND]);
        }
        let (endpointer, events) = following(&input);

        assert_eq!(events, []);
        assert_eq!(endpointer.kept.len() as u64, samples(MAX_PRE_ROLL));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Hear { samples: usize, probability: f32 },
        Open,
        Close,
        Stall,
        Follow(bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        // Runs of alike frames, so that every phase is reached.
        let push = (1usize..40, prop_oneof![0.0f32..0.35, 0.35f32..0.5, 0.5f32..1.0])
            .prop_map(|(frames, probability)| Step::Hear { samples: frames * FRAME_SAMPLES, probability });
        let odd = (1usize..FRAME_SAMPLES, 0.0f32..1.0)
            .prop_map(|(samples, probability)| Step::Hear { samples, probability });
        let follow = any::<bool>().prop_map(Step::Follow);
        prop_oneof![
            20 => push, 2 => odd, 1 => Just(Step::Open), 1 => Just(Step::Close), 1 => Just(Step::Stall), 1 => follow
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn utterances_are_the_input_from_start_to_end_and_never_overlap(
            steps in prop::collection::vec(step(), 0..120),
            pre_roll_ms in 100u64..5_000,
        ) {
            let settings = EndpointerConfig {
                pre_roll: Duration::from_millis(pre_roll_ms),
                look_for_pause: Duration::from_secs(3),
                longest: Duration::from_secs(4),
                ..EndpointerConfig::default()
            };
            let mut most_kept = settings.pre_roll.max(Duration::from_secs(2)) + Duration::from_millis(200);
            let mut endpointer = Endpointer::new(settings);
            let mut input: Vec<i16> = Vec::new();
            let mut events = Vec::new();
            for step in steps {
                match step {
                    Step::Hear { samples, probability } => {
                        let from = input.len();
                        // A prime period: a piece taken from the wrong place does not match.
                        input.extend((from..from + samples).map(|n| (n % 30_011) as i16));
                        for frame in input[from..].chunks(FRAME_SAMPLES) {
                            endpointer.push(frame, probability, &mut events);
                        }
                    }
                    Step::Open => endpointer.open(&mut events),
                    Step::Close => endpointer.close(&mut events),
                    Step::Stall => endpointer.stall(&mut events),
                    Step::Follow(client) => {
                        endpointer.follow(client);
                        most_kept = MAX_PRE_ROLL + Duration::from_millis(200);
                    }
                }
                prop_assert!(endpointer.kept.len() as u64 <= samples(most_kept));
            }
            prop_assert_eq!(endpointer.position(), input.len() as u64);

            let mut open: Option<u64> = None;
            let mut last = 0;
            let mut cut_at = None;
            for event in events {
                match event {
                    SpeechEvent::Started { at_sample } => {
                        prop_assert!(open.is_none() && at_sample >= last);
                        prop_assert!(cut_at.take().is_none_or(|cut| cut == at_sample));
                        open = Some(at_sample);
                        last = at_sample;
                    }
                    SpeechEvent::Audio(pcm) => {
                        prop_assert!(open.is_some());
                        let next = last + pcm.len() as u64;
                        prop_assert_eq!(&*pcm, &input[last as usize..next as usize]);
                        last = next;
                    }
                    SpeechEvent::Paused | SpeechEvent::WentOn { .. } => prop_assert!(open.is_some()),
                    SpeechEvent::Ended { reason, at_sample } => {
                        prop_assert!(open.take().is_some_and(|began| at_sample - began <= samples(Duration::from_secs(9))));
                        prop_assert_eq!(at_sample, last);
                        cut_at = (reason == EndReason::Limit).then_some(at_sample);
                    }
                }
            }
            prop_assert!(cut_at.is_none());
            prop_assert_eq!(open.is_some(), endpointer.is_open());
        }
    }
}
