//! Playback for a client that plays files only: one clip after the other, each of whole sentences.
//!
//! The first sentence becomes a clip as soon as it is synthesized; what is synthesized while it plays becomes
//! the next one. The client reports when it has played a clip; without a report the clip counts as played
//! [`PLAY_TIMEOUT`] after its duration.
//!
//! ```text
//!   position 0        clip being played     ready          being synthesized
//!   ├─ released ───────┼───────────────┼── next clip ──┼── one sentence ──┤
//! ```
//!
//! Pure, like [`StreamPlayback`](super::stream_playback::StreamPlayback).

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::response::{playback::PlaybackEvent, spoken_transcript::SpokenTranscript};

/// How long a client may take to fetch a clip and to report it as played, beyond its duration.
pub const PLAY_TIMEOUT: Duration = Duration::from_secs(2);

/// One spoken response.
#[derive(Debug)]
pub struct ClipPlayback {
    rate_hz: u32,
    /// Samples from `base` on.
    samples: VecDeque<i16>,
    /// The position of the first sample that is kept.
    base: u64,
    /// Whole sentences end here.
    ready: u64,
    /// The next clip begins here.
    next: u64,
    /// The number of the last clip.
    last: u32,
    /// All samples have arrived.
    complete: bool,
    script: SpokenTranscript,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Nothing is being played.
    Idle,
    /// The last clip is being played; it begins at `from`.
    Playing { from: u64, since: Instant },
    /// The client is disconnected.
    Paused,
    /// Everything was played.
    Over,
}

impl ClipPlayback {
    /// A response of mono samples at this rate, in Hz.
    pub fn new(rate_hz: u32) -> Self {
        Self {
            rate_hz,
            samples: VecDeque::new(),
            base: 0,
            ready: 0,
            next: 0,
            last: 0,
            complete: false,
            script: SpokenTranscript::default(),
            state: State::Idle,
        }
    }

    /// The samples that follow belong to this sentence; the one before is whole.
    pub fn begin_sentence(&mut self, text: String) {
        self.end_sentence();
        self.script.begin(text, self.total());
    }

    /// The sentence is whole.
    pub fn end_sentence(&mut self) {
        self.ready = self.total();
    }

    /// The sentence was not synthesized to its end.
    pub fn abandon_sentence(&mut self) {
        self.script.abandon();
    }

    /// Whether there are no samples, nor were there any.
    pub fn is_empty(&self) -> bool {
        self.total() == 0
    }

    /// More samples.
    pub fn push(&mut self, samples: &[i16]) {
        self.samples.extend(samples);
        self.script.reaches(self.total());
    }

    /// No more samples.
    pub fn complete(&mut self) {
        self.end_sentence();
        self.complete = true;
    }

    /// Drops everything: nothing more will be played.
    pub fn clear(&mut self) {
        *self = Self::new(self.rate_hz);
    }

    /// How much speech waits to be played.
    pub fn buffered(&self) -> Duration {
        self.to_time(self.total() - self.next)
    }

    /// What is due now.
    pub fn poll(&mut self, now: Instant) -> Option<PlaybackEvent> {
        if self.deadline().is_some_and(|at| now >= at) {
            self.state = State::Idle;
        }
        let State::Idle = self.state else { return None };
        // What was played is not needed again.
        let played = self.next.saturating_sub(self.base);
        self.samples.drain(..played as usize);
        self.base += played;
        if self.ready > self.next {
            let samples: Vec<i16> =
                self.samples.iter().take((self.ready - self.next) as usize).copied().collect();
            self.state = State::Playing { from: self.next, since: now };
            self.next = self.ready;
            self.last += 1;
            return Some(PlaybackEvent::Clip { number: self.last, samples });
        }
        if self.complete {
            self.state = State::Over;
            return Some(PlaybackEvent::Finished);
        }
        None
    }

    /// The client has played a clip. Only the latest one counts.
    pub fn played(&mut self, clip: u32) {
        if let State::Playing { .. } = self.state
            && clip == self.last
        {
            self.state = State::Idle;
        }
    }

    /// When [`poll`](Self::poll) has something to do again, if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        let State::Playing { from, since } = self.state else { return None };
        Some(since + self.to_time(self.next - from) + PLAY_TIMEOUT)
    }

    /// The client is disconnected: what it had not played yet is played again.
    pub fn pause(&mut self, now: Instant) {
        if !matches!(self.state, State::Over) {
            self.next = self.heard(now);
            self.state = State::Paused;
        }
    }

    /// The client is back.
    pub fn resume(&mut self) {
        if let State::Paused = self.state {
            self.state = State::Idle;
        }
    }

    /// How much was heard, in milliseconds.
    pub fn heard_ms(&self, now: Instant) -> u64 {
        self.to_time(self.heard(now)).as_millis() as u64
    }

    /// The words that were heard.
    pub fn heard_text(&self, now: Instant) -> String {
        self.script.before(self.heard(now))
    }

    /// How much was heard, in samples: by the clock within a clip.
    fn heard(&self, now: Instant) -> u64 {
        match self.state {
            State::Playing { from, since } => {
                let elapsed = now.saturating_duration_since(since);
                (from + self.to_samples(elapsed)).min(self.next)
            }
            State::Idle | State::Paused | State::Over => self.next,
        }
    }

    fn total(&self) -> u64 {
        self.base + self.samples.len() as u64
    }

    fn to_samples(&self, time: Duration) -> u64 {
        (time.as_nanos() * u128::from(self.rate_hz) / 1_000_000_000) as u64
    }

    fn to_time(&self, samples: u64) -> Duration {
        Duration::from_nanos((samples * 1_000_000_000).div_ceil(u64::from(self.rate_hz)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    const RATE: u32 = 1_000;

    /// A second of sound.
    fn second(of: i16) -> Vec<i16> {
        vec![of; RATE as usize]
    }

    /// An answer of one sentence that takes a second, as its only clip starts.
    fn playing(sentence: &str, now: Instant) -> ClipPlayback {
        let mut clips = ClipPlayback::new(RATE);
        clips.begin_sentence(sentence.into());
        clips.push(&second(1));
        clips.complete();
        clips.poll(now);
        clips
    }

    fn clip(effect: Option<PlaybackEvent>) -> (u32, usize) {
        match effect {
            Some(PlaybackEvent::Clip { number: clip, samples }) => (clip, samples.len()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_sentence_is_played_at_once_and_what_comes_meanwhile_is_the_next_clip() {
        let now = clock::now();
        let mut clips = ClipPlayback::new(RATE);
        clips.begin_sentence("One.".into());
        clips.push(&second(1));
        assert_eq!(clips.poll(now), None, "the sentence may still grow");
        clips.end_sentence();
        assert_eq!(clip(clips.poll(now)), (1, 1_000));
        for sentence in ["Two.", "Three."] {
            clips.begin_sentence(sentence.into());
            clips.push(&second(2));
            assert_eq!(clips.poll(now), None, "a clip is being played");
        }
        clips.complete();

        clips.played(1);
        assert_eq!(clip(clips.poll(now)), (2, 2_000));
        clips.played(1);
        assert_eq!(clips.poll(now), None, "an answer about an older clip says nothing");
        clips.played(2);
        assert_eq!(clips.poll(now), Some(PlaybackEvent::Finished));
        assert_eq!(clips.poll(now), None);
        assert_eq!(clips.heard_text(now), "One. Two. Three.");
    }

    #[test]
    fn a_client_that_never_says_that_it_played_a_clip_is_believed_after_a_while() {
        let now = clock::now();
        let mut clips = playing("One.", now);

        let deadline = clips.deadline().unwrap();
        assert_eq!(deadline, now + Duration::from_secs(1) + PLAY_TIMEOUT);
        assert_eq!(clips.poll(deadline), Some(PlaybackEvent::Finished));
    }

    #[test]
    fn what_was_cut_is_heard_as_far_as_the_clock_says() {
        let now = clock::now();
        let clips = playing("Four words in here.", now);

        let half = now + Duration::from_millis(500);
        assert_eq!((clips.heard_ms(half), clips.heard_text(half).as_str()), (500, "Four words"));
    }

    #[test]
    fn a_client_that_comes_back_is_played_what_it_had_not_heard() {
        let now = clock::now();
        let mut clips = playing("One.", now);

        clips.pause(now + Duration::from_millis(400));
        assert_eq!((clips.deadline(), clips.poll(now)), (None, None));
        clips.resume();
        assert_eq!(clip(clips.poll(now)), (2, 600));
    }

    proptest! {
        /// Whatever the order of things, every sample is played once and in order.
        #[test]
        fn the_clips_are_the_answer(steps in proptest::collection::vec((0..4u8, 0..3_000u64), 0..40)) {
            let mut now = clock::now();
            let mut clips = ClipPlayback::new(RATE);
            let (mut given, mut played) = (Vec::new(), Vec::new());
            let mut take = |effect: Option<PlaybackEvent>| match effect {
                Some(PlaybackEvent::Clip { number: clip, samples }) => { played.extend(samples); Some(clip) }
                Some(PlaybackEvent::Frame { .. } | PlaybackEvent::Finished) | None => None,
            };
            let mut last = 0;
            clips.begin_sentence("a".into());
            for (kind, amount) in steps {
                now += Duration::from_millis(amount);
                match kind {
                    0 => {
                        let samples: Vec<i16> = (0..amount as i16).collect();
                        given.extend(samples.clone());
                        clips.push(&samples);
                    }
                    1 => clips.begin_sentence("b".into()),
                    2 => clips.played(last),
                    _ => {}
                }
                last = take(clips.poll(now)).unwrap_or(last);
            }
            clips.complete();
            for _ in 0..3 {
                last = take(clips.poll(now)).unwrap_or(last);
                clips.played(last);
            }
            prop_assert_eq!(played, given);
        }
    }
}
