//! Paces a spoken response to the client: frames of 20 ms, [`LEAD`] ahead of what is being played, so that
//! network jitter is not audible and a barge-in finds little in flight.
//!
//! It also tracks how much was heard: by the client's report (`playhead`) where there is one, else by the
//! clock.
//!
//! ```text
//!   position 0        kept from          played          sent          queued
//!   ├─ released ─────────┼──── for a resume ──┼── the lead ──┼── waiting ──┤
//! ```
//!
//! Pure: takes the time, and returns its next deadline.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::response::{playback::PlaybackEvent, spoken_transcript::SpokenTranscript};

/// Length of a frame, in milliseconds (docs/PROTOCOL.md).
pub const FRAME_MS: u64 = 20;

/// How far sending runs ahead of playing.
pub const LEAD: Duration = Duration::from_millis(400);

/// Frames are sent in batches of this length: fewer wake-ups, and still far below the lead.
const BUNCH: Duration = Duration::from_millis(60);

/// How much of what was played is kept for a client that reconnects and never reported its position.
const RESEND_WINDOW: Duration = Duration::from_secs(5);

/// One spoken response.
#[derive(Debug)]
pub struct StreamPlayback {
    rate_hz: u32,
    /// Samples from `base` on.
    samples: VecDeque<i16>,
    /// The position of the first sample that is kept.
    base: u64,
    /// The position of the next sample to be sent.
    sent: u64,
    /// What the client reported as played.
    reported: Option<u64>,
    /// All samples have arrived.
    complete: bool,
    /// The frame with the end mark is out.
    end_sent: bool,
    script: SpokenTranscript,
    clock: Clock,
}

/// How playback relates to time.
#[derive(Clone, Copy, Debug)]
enum Clock {
    /// Nothing to play: at this position.
    Stopped { at: u64 },
    /// The sample at `position` is played at `at`.
    Running { position: u64, at: Instant },
    /// The client is disconnected; it had played this far.
    Paused { at: u64 },
    /// Everything was played.
    Over,
}

impl StreamPlayback {
    /// A response of mono samples at this rate, in Hz.
    pub fn new(rate_hz: u32) -> Self {
        Self {
            rate_hz,
            samples: VecDeque::new(),
            base: 0,
            sent: 0,
            reported: None,
            complete: false,
            end_sent: false,
            script: SpokenTranscript::default(),
            clock: Clock::Stopped { at: 0 },
        }
    }

    /// The samples that follow belong to this sentence.
    pub fn begin_sentence(&mut self, text: String) {
        self.script.begin(text, self.total());
    }

    /// More samples.
    pub fn push(&mut self, samples: &[i16]) {
        self.samples.extend(samples);
        self.script.reaches(self.total());
    }

    /// No more samples.
    pub fn complete(&mut self) {
        self.complete = true;
    }

    /// How much speech waits to be sent.
    pub fn buffered(&self) -> Duration {
        self.to_time(self.total() - self.sent)
    }

    /// What is due now.
    pub fn poll(&mut self, now: Instant) -> Vec<PlaybackEvent> {
        let mut events = Vec::new();
        if let Clock::Stopped { at } = self.clock
            && self.sendable()
        {
            self.clock = Clock::Running { position: at, at: now };
        }
        let Clock::Running { .. } = self.clock else {
            return events;
        };

        let allowed = self.played(now) + self.to_samples(LEAD);
        let frame = self.to_samples(Duration::from_millis(FRAME_MS));
        while self.sent < allowed && self.sendable() {
            let length = (self.total() - self.sent).min(frame);
            let from = (self.sent - self.base) as usize;
            let samples: Vec<i16> = self.samples.range(from..from + length as usize).copied().collect();
            let position = self.sent;
            self.sent += length;
            let end = self.complete && self.sent == self.total();
            self.end_sent = end;
            events.push(PlaybackEvent::Frame { position, samples, end });
        }

        let played = self.played(now);
        if self.end_sent && played >= self.total() {
            self.clock = Clock::Over;
            events.push(PlaybackEvent::Finished);
        } else if !self.sendable() && played >= self.sent {
            // Synthesis is slower than playback: the clock waits for it.
            self.clock = Clock::Stopped { at: self.sent };
        }
        self.forget(played);
        events
    }

    /// When [`poll`](Self::poll) has something to do again, if no sample comes before.
    pub fn deadline(&self) -> Option<Instant> {
        let Clock::Running { position, at } = self.clock else {
            return None;
        };
        let time_of = |sample: u64| at + self.to_time(sample.saturating_sub(position));
        if !self.sendable() {
            return Some(time_of(self.sent));
        }
        let next = (self.sent + self.to_samples(BUNCH)).min(self.total().max(self.sent + 1));
        Some(time_of(next.saturating_sub(self.to_samples(LEAD))))
    }

    /// The client reports how much it has played, in milliseconds.
    pub fn reported(&mut self, played_ms: u64) {
        let played = (played_ms * u64::from(self.rate_hz) / 1000).min(self.sent);
        self.reported = Some(self.reported.unwrap_or_default().max(played));
    }

    /// The client is disconnected: nothing is sent, the clock stops.
    pub fn pause(&mut self, now: Instant) {
        if !matches!(self.clock, Clock::Over) {
            self.clock = Clock::Paused { at: self.heard(now) };
        }
    }

    /// The client is back: it gets everything after what it had played, again where necessary.
    pub fn resume(&mut self, now: Instant) {
        if let Clock::Paused { at } = self.clock {
            let from = at.max(self.base);
            self.sent = from;
            self.end_sent = false;
            self.clock = Clock::Running { position: from, at: now };
        }
    }

    /// How much was heard, in samples.
    fn heard(&self, now: Instant) -> u64 {
        match self.reported {
            // The time since the report is not added: the history should rather miss a word that was
            // heard than have one that was not.
            Some(reported) => reported,
            None => self.played(now),
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

    /// Whether a frame is ready: a whole one, or the rest of a complete response.
    fn sendable(&self) -> bool {
        let left = self.total() - self.sent;
        if self.complete { !self.end_sent } else { left >= self.to_samples(Duration::from_millis(FRAME_MS)) }
    }

    /// The position that is being played.
    fn played(&self, now: Instant) -> u64 {
        match self.clock {
            Clock::Stopped { at } | Clock::Paused { at } => at,
            Clock::Running { position, at } => {
                let elapsed = self.to_samples(now.saturating_duration_since(at));
                (position + elapsed).min(self.sent)
            }
            Clock::Over => self.total(),
        }
    }

    fn total(&self) -> u64 {
        self.base + self.samples.len() as u64
    }

    /// Releases samples that no client needs again.
    fn forget(&mut self, played: u64) {
        let needed = match self.reported {
            Some(reported) => reported,
            None => played.saturating_sub(self.to_samples(RESEND_WINDOW)),
        };
        let gone = needed.min(self.sent).saturating_sub(self.base);
        self.samples.drain(..gone as usize);
        self.base += gone;
    }

    fn to_samples(&self, time: Duration) -> u64 {
        (time.as_nanos() * u128::from(self.rate_hz) / 1_000_000_000) as u64
    }

    /// Rounded up, so that a deadline never comes before its sample.
    fn to_time(&self, samples: u64) -> Duration {
        Duration::from_nanos((samples * 1_000_000_000).div_ceil(u64::from(self.rate_hz)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    const RATE: u32 = 16_000;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn second_of_sound() -> Vec<i16> {
        (0..RATE as i16).collect()
    }

    fn frames(effects: &[PlaybackEvent]) -> usize {
        effects.iter().filter(|effect| matches!(effect, PlaybackEvent::Frame { .. })).count()
    }

    /// Runs it to the end by its own deadlines; gives all effects and how long it took.
    fn play(playback: &mut StreamPlayback, start: Instant) -> (Vec<PlaybackEvent>, Duration) {
        let mut now = start;
        let mut effects = playback.poll(now);
        while let Some(deadline) = playback.deadline() {
            now = now.max(deadline);
            effects.extend(playback.poll(now));
        }
        (effects, now - start)
    }

    #[test]
    fn the_first_sound_leaves_at_once_and_the_rest_at_the_pace_of_playing() {
        let mut playback = StreamPlayback::new(RATE);
        playback.push(&second_of_sound());
        playback.complete();
        let start = clock::now();

        let first = playback.poll(start);
        assert_eq!(frames(&first), 20, "the lead of 400 ms is sent in one go");

        let (rest, took) = play(&mut playback, start);
        assert_eq!(frames(&rest), 30);
        assert_eq!(rest.last(), Some(&PlaybackEvent::Finished));
        assert_eq!(took, ms(1000));
    }

    #[test]
    fn every_frame_carries_twenty_milliseconds_and_the_last_one_the_end() {
        let mut playback = StreamPlayback::new(RATE);
        playback.push(&second_of_sound()[..1000]);
        playback.complete();

        let (effects, _) = play(&mut playback, clock::now());

        let sizes: Vec<_> = effects
            .iter()
            .filter_map(|effect| match effect {
                PlaybackEvent::Frame { position, samples, end } => Some((*position, samples.len(), *end)),
                PlaybackEvent::Clip { .. } | PlaybackEvent::Finished => None,
            })
            .collect();
        assert_eq!(sizes, [(0, 320, false), (320, 320, false), (640, 320, false), (960, 40, true)]);
    }

    #[test]
    fn a_synthesis_that_is_slower_than_the_playing_makes_a_pause_and_no_rush_afterwards() {
        let mut playback = StreamPlayback::new(RATE);
        playback.push(&second_of_sound()[..3200]);
        let start = clock::now();
        assert_eq!(frames(&playback.poll(start)), 10);
        assert_eq!(frames(&playback.poll(start + ms(900))), 0);

        playback.push(&second_of_sound());
        assert_eq!(
            frames(&playback.poll(start + ms(1000))),
            20,
            "the lead counts from the moment sound is back"
        );
    }

    #[test]
    fn what_was_heard_follows_the_clock_until_the_client_says_better() {
        let mut playback = StreamPlayback::new(RATE);
        playback.begin_sentence("One two three four.".into());
        playback.push(&second_of_sound());
        playback.begin_sentence("Five six.".into());
        playback.push(&second_of_sound());
        let start = clock::now();
        playback.poll(start);
        playback.poll(start + ms(300));
        playback.poll(start + ms(600));

        assert_eq!(playback.heard_text(start + ms(500)), "One two");

        playback.reported(250);
        assert_eq!(playback.heard_text(start + ms(500)), "One");
        assert_eq!(playback.heard_ms(start + ms(500)), 250);
    }

    #[test]
    fn a_client_that_comes_back_goes_on_from_what_it_had_played() {
        let mut playback = StreamPlayback::new(RATE);
        playback.push(&second_of_sound());
        playback.complete();
        let start = clock::now();
        playback.poll(start);
        playback.reported(100);
        playback.pause(start + ms(300));
        assert_eq!(playback.deadline(), None);
        assert_eq!(playback.poll(start + ms(5_000)), []);

        playback.resume(start + ms(9_000));
        let effects = playback.poll(start + ms(9_000));
        assert!(matches!(&effects[0], PlaybackEvent::Frame { position: 1600, .. }), "{:?}", effects[0]);
    }

    proptest! {
        /// However samples arrive and the client comes and goes, what it can put together by position
        /// is the whole answer, gap-free.
        #[test]
        fn the_client_gets_every_sample(
            runs in proptest::collection::vec((0..4000usize, 0..700u64, any::<bool>()), 1..12),
        ) {
            let mut playback = StreamPlayback::new(RATE);
            let mut now = clock::now();
            let mut sound: Vec<i16> = Vec::new();
            let mut effects = Vec::new();
            for (length, wait_ms, away) in runs {
                let run: Vec<i16> = (0..length).map(|i| (sound.len() + i) as i16).collect();
                sound.extend(&run);
                playback.push(&run);
                effects.extend(playback.poll(now));
                if away {
                    playback.pause(now);
                }
                now += ms(wait_ms);
                effects.extend(playback.poll(now));
                if away {
                    playback.resume(now);
                }
            }
            playback.complete();
            effects.extend(play(&mut playback, now).0);

            let mut got: Vec<i16> = Vec::new();
            let mut ends = 0;
            for effect in effects {
                if let PlaybackEvent::Frame { position, samples, end } = effect {
                    prop_assert!(position as usize <= got.len(), "a gap before {}", position);
                    let known = got.len() - position as usize;
                    got.extend(samples.iter().skip(known));
                    ends += usize::from(end);
                }
            }
            prop_assert_eq!(got, sound);
            prop_assert!(ends >= 1);
        }
    }
}
