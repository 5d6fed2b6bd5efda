//! Paces a spoken response to the client: frames of 20 or 60 ms, [`LEAD`] ahead of what is being played, so that
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
//! Positions count samples at the rate that is sent, whatever the codec.
//!
//! Pure: takes the time, and returns its next deadline.

use std::time::{Duration, Instant};

use crate::{
    audio::opus_encoder::OPUS_SPEECH_RATE_HZ,
    response::{
        opus_frames::OpusFrames,
        pcm_frames::PcmFrames,
        playback::{FrameAudio, PlaybackEvent},
        speech_format::{SpeechCodec, SpeechFormat},
        spoken_transcript::SpokenTranscript,
    },
};

/// How far sending runs ahead of playing.
pub const LEAD: Duration = Duration::from_millis(400);

/// Frames are sent in batches of this length: fewer wake-ups, and still far below the lead.
const BUNCH: Duration = Duration::from_millis(60);

/// How much of what was played is kept for a client that reconnects and never reported its position.
const RESEND_WINDOW: Duration = Duration::from_secs(5);

/// One spoken response.
#[derive(Debug)]
pub struct StreamPlayback {
    /// The rate that is sent.
    rate_hz: u32,
    frames: Frames,
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

/// What there is to send, in the client's codec.
#[derive(Debug)]
enum Frames {
    Pcm(PcmFrames),
    // Boxed: it is far larger.
    Opus(Box<OpusFrames>),
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
    /// A response of mono samples at this rate, in Hz. One that Opus cannot be made of is sent as PCM.
    pub fn new(rate_hz: u32, format: SpeechFormat) -> Self {
        let opus = match format.codec {
            SpeechCodec::Opus => OpusFrames::new(rate_hz, format.frame_ms).ok(),
            SpeechCodec::Pcm => None,
        };
        let (frames, rate_hz) = match opus {
            Some(opus) => (Frames::Opus(Box::new(opus)), OPUS_SPEECH_RATE_HZ),
            None => {
                let frame = u64::from(rate_hz) * u64::from(format.frame_ms) / 1000;
                (Frames::Pcm(PcmFrames::new(frame)), rate_hz)
            }
        };
        Self {
            rate_hz,
            frames,
            sent: 0,
            reported: None,
            complete: false,
            end_sent: false,
            script: SpokenTranscript::default(),
            clock: Clock::Stopped { at: 0 },
        }
    }

    /// The codec of the frames.
    pub fn codec(&self) -> SpeechCodec {
        match self.frames {
            Frames::Pcm(_) => SpeechCodec::Pcm,
            Frames::Opus(_) => SpeechCodec::Opus,
        }
    }

    /// The rate of what is decoded from the frames, in Hz.
    pub fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    /// How many samples at the beginning are the codec's, and no part of the response.
    pub fn pre_skip(&self) -> Option<u32> {
        match &self.frames {
            Frames::Pcm(_) => None,
            Frames::Opus(opus) => Some(opus.pre_skip() as u32),
        }
    }

    /// The samples that follow belong to this sentence.
    pub fn begin_sentence(&mut self, text: String) {
        self.script.begin(text, self.total());
    }

    /// The sentence was not synthesized to its end.
    pub fn abandon_sentence(&mut self) {
        self.script.abandon();
    }

    /// Whether there are no samples, nor were there any.
    pub fn is_empty(&self) -> bool {
        self.end() == 0
    }

    /// More samples.
    pub fn push(&mut self, samples: &[i16]) {
        match &mut self.frames {
            Frames::Pcm(pcm) => pcm.push(samples),
            Frames::Opus(opus) => opus.push(samples),
        }
        self.script.reaches(self.end());
    }

    /// No more samples.
    pub fn complete(&mut self) {
        self.complete = true;
        if let Frames::Opus(opus) = &mut self.frames {
            opus.complete();
            self.script.reaches(self.end());
        }
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
        while self.sent < allowed && self.sendable() {
            let position = self.sent;
            let (audio, length) = self.frame_at(position);
            self.sent += length;
            let end = self.complete && self.sent == self.total();
            self.end_sent = end;
            events.push(PlaybackEvent::Frame { position, audio, end });
        }

        let played = self.played(now);
        if self.end_sent && played >= self.end() {
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
            return Some(time_of(self.sent.min(self.end())));
        }
        let next = (self.sent + self.to_samples(BUNCH)).min(self.total().max(self.sent + 1));
        Some(time_of(next.saturating_sub(self.to_samples(LEAD))))
    }

    /// The client reports how much it has played, in milliseconds.
    pub fn reported(&mut self, played_ms: u64) {
        let played = (played_ms * u64::from(self.rate_hz) / 1000).min(self.sent).min(self.end());
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
            let from = self.frame_start(at);
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
        if self.complete { !self.end_sent } else { left >= self.frame() }
    }

    /// The position that is being played.
    fn played(&self, now: Instant) -> u64 {
        match self.clock {
            Clock::Stopped { at } | Clock::Paused { at } => at,
            Clock::Running { position, at } => {
                let elapsed = self.to_samples(now.saturating_duration_since(at));
                (position + elapsed).min(self.sent).min(self.end())
            }
            Clock::Over => self.end(),
        }
    }

    // --- Frames -------------------------------------------------------------------------------

    /// The frame at a position, and its length in samples.
    fn frame_at(&mut self, position: u64) -> (FrameAudio, u64) {
        match &mut self.frames {
            Frames::Pcm(pcm) => pcm.at(position),
            Frames::Opus(opus) => opus.at(position),
        }
    }

    /// The length of a frame, in samples.
    fn frame(&self) -> u64 {
        match &self.frames {
            Frames::Pcm(pcm) => pcm.frame(),
            Frames::Opus(opus) => opus.frame(),
        }
    }

    /// Where the frame begins that has this position; the first that is kept if it is gone. PCM can be cut anywhere.
    fn frame_start(&self, position: u64) -> u64 {
        match &self.frames {
            Frames::Pcm(pcm) => position.max(pcm.base()),
            Frames::Opus(opus) => (position / opus.frame() * opus.frame()).max(opus.base()),
        }
    }

    /// The position after the last frame.
    fn total(&self) -> u64 {
        match &self.frames {
            Frames::Pcm(pcm) => pcm.total(),
            Frames::Opus(opus) => opus.total(),
        }
    }

    /// The position after the last sample of the response.
    fn end(&self) -> u64 {
        match &self.frames {
            Frames::Pcm(pcm) => pcm.total(),
            Frames::Opus(opus) => opus.end(),
        }
    }

    /// Releases samples that no client needs again.
    fn forget(&mut self, played: u64) {
        let needed = match self.reported {
            Some(reported) => reported,
            None => played.saturating_sub(self.to_samples(RESEND_WINDOW)),
        };
        let before = needed.min(self.sent);
        match &mut self.frames {
            Frames::Pcm(pcm) => pcm.release(before),
            Frames::Opus(opus) => opus.release(before),
        }
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
    use crate::{clock, response::opus_frames::tests::decoded};

    const RATE: u32 = 16_000;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn second_of_sound() -> Vec<i16> {
        (0..RATE as i16).collect()
    }

    fn pcm(audio: &FrameAudio) -> &[i16] {
        let FrameAudio::Samples(samples) = audio else { panic!("{audio:?}") };
        samples
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
        let mut playback = StreamPlayback::new(RATE, SpeechFormat::default());
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
        let mut playback = StreamPlayback::new(RATE, SpeechFormat::default());
        playback.push(&second_of_sound()[..1000]);
        playback.complete();

        let (effects, _) = play(&mut playback, clock::now());

        let sizes: Vec<_> = effects
            .iter()
            .filter_map(|effect| match effect {
                PlaybackEvent::Frame { position, audio, end } => Some((*position, pcm(audio).len(), *end)),
                PlaybackEvent::Clip { .. } | PlaybackEvent::Finished => None,
            })
            .collect();
        assert_eq!(sizes, [(0, 320, false), (320, 320, false), (640, 320, false), (960, 40, true)]);
    }

    #[test]
    fn a_synthesis_that_is_slower_than_the_playing_makes_a_pause_and_no_rush_afterwards() {
        let mut playback = StreamPlayback::new(RATE, SpeechFormat::default());
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
        let mut playback = StreamPlayback::new(RATE, SpeechFormat::default());
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
        let mut playback = StreamPlayback::new(RATE, SpeechFormat::default());
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

    // --- Opus ---------------------------------------------------------------------------------

    fn opus(frame_ms: u32) -> StreamPlayback {
        StreamPlayback::new(RATE, SpeechFormat { codec: SpeechCodec::Opus, frame_ms })
    }

    fn positions(effects: &[PlaybackEvent]) -> Vec<u64> {
        effects
            .iter()
            .filter_map(|effect| match effect {
                PlaybackEvent::Frame { position, .. } => Some(*position),
                PlaybackEvent::Clip { .. } | PlaybackEvent::Finished => None,
            })
            .collect()
    }

    #[test]
    fn opus_is_paced_like_samples_and_ends_with_the_response_not_with_its_padding() {
        for (frame_ms, lead, all) in [(20, 20, 51), (60, 7, 17)] {
            let mut playback = opus(frame_ms);
            playback.push(&second_of_sound());
            playback.complete();
            let start = clock::now();

            let first = playback.poll(start);
            assert_eq!(frames(&first), lead, "the lead of 400 ms, in frames of {frame_ms} ms");

            let (rest, took) = play(&mut playback, start);
            assert_eq!(frames(&first) + frames(&rest), all);
            assert_eq!(rest.last(), Some(&PlaybackEvent::Finished));
            assert_eq!(took, ms(1000));
            assert_eq!(playback.heard_ms(start + ms(2000)), 1000);
        }
    }

    #[test]
    fn what_was_heard_of_opus_is_told_in_the_time_of_the_response() {
        let mut playback = opus(60);
        playback.begin_sentence("One two three four.".into());
        playback.push(&second_of_sound());
        playback.begin_sentence("Five six.".into());
        playback.push(&second_of_sound());
        playback.complete();
        let start = clock::now();
        playback.poll(start);

        assert_eq!(playback.heard_ms(start + ms(250)), 250);
        assert_eq!(playback.heard_text(start + ms(400)), "One");

        playback.reported(350);
        assert_eq!(playback.heard_ms(start + ms(2000)), 350);
    }

    #[test]
    fn a_client_of_opus_that_comes_back_gets_whole_packets_from_where_it_was() {
        let mut playback = opus(20);
        playback.push(&second_of_sound());
        playback.complete();
        let start = clock::now();
        let before = playback.poll(start);
        playback.reported(110);
        playback.pause(start + ms(300));

        playback.resume(start + ms(9_000));
        let after = playback.poll(start + ms(9_000));

        assert_eq!(positions(&after)[0], 5 * 480, "110 ms are within the packet that begins at 100");
        assert_eq!(after[..15], before[5..], "the same packets");
        assert_eq!(playback.heard_ms(start + ms(9_000)), 110);
    }

    proptest! {
        /// However samples arrive and the client comes and goes, the packets that it does not have yet follow one
        /// another, and decode to a sound of the response's length.
        #[test]
        fn the_client_gets_every_packet(
            runs in proptest::collection::vec((0..4000usize, 0..700u64, any::<bool>()), 1..8),
            frame_ms in prop::sample::select(vec![20, 60]),
        ) {
            let mut playback = opus(frame_ms);
            let mut now = clock::now();
            let mut total = 0;
            let mut effects = Vec::new();
            for (length, wait_ms, away) in runs {
                total += length;
                playback.push(&vec![100; length]);
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

            let frame = 24 * u64::from(frame_ms);
            let (mut got, mut ends) = (Vec::new(), 0);
            for effect in &effects {
                if let PlaybackEvent::Frame { position, audio, end } = effect {
                    let next = got.len() as u64 * frame;
                    prop_assert!(*position <= next && position.is_multiple_of(frame), "{} after {}", position, next);
                    if *position == next {
                        got.push(audio);
                    }
                    ends += usize::from(*end);
                }
            }
            prop_assert!(ends >= 1);
            let sound = decoded(got, u64::from(playback.pre_skip().unwrap()));
            prop_assert_eq!(sound.len(), (total * 3).div_ceil(2));
        }
    }

    proptest! {
        /// However samples arrive and the client comes and goes, what it can put together by position
        /// is the whole answer, gap-free.
        #[test]
        fn the_client_gets_every_sample(
            runs in proptest::collection::vec((0..4000usize, 0..700u64, any::<bool>()), 1..12),
        ) {
            let mut playback = StreamPlayback::new(RATE, SpeechFormat::default());
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
                if let PlaybackEvent::Frame { position, audio, end } = effect {
                    prop_assert!(position as usize <= got.len(), "a gap before {}", position);
                    let known = got.len() - position as usize;
                    got.extend(pcm(&audio).iter().skip(known));
                    ends += usize::from(end);
                }
            }
            prop_assert_eq!(got, sound);
            prop_assert!(ends >= 1);
        }
    }
}
