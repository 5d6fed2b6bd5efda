//! Playback of the spoken response: assembles frames, drops those of a response that was interrupted, and
//! computes how much was played.
//!
//! Pure: it has no audio device. It computes what a loudspeaker has played at a given time.

use std::time::Instant;

use bytes::Buf;
use june_protocol::audio::DownlinkFrame;

use crate::speech_decoder::SpeechDecoder;

/// The playback of one response.
#[derive(Debug, Default)]
pub struct Player {
    generation: u32,
    rate_hz: u32,
    decoder: SpeechDecoder,
    /// The samples of this response, by position.
    samples: Vec<i16>,
    /// A position, and when its sample is played.
    clock: Option<(u64, Instant)>,
    /// The last frame arrived.
    complete: bool,
    /// Playback was stopped.
    stopped: bool,
}

impl Player {
    /// A response begins (`speech_begin`). `rate_hz` is its sample rate.
    pub fn begin(&mut self, generation: u32, rate_hz: u32, decoder: SpeechDecoder) {
        *self = Self { generation, rate_hz, decoder, ..Self::default() };
    }

    /// Takes a frame. Drops frames of other responses and samples that arrived before. Returns the new part, as PCM.
    pub fn push(&mut self, frame: DownlinkFrame, now: Instant) -> Option<DownlinkFrame> {
        if frame.generation != self.generation || self.stopped {
            return None;
        }
        let mut frame = self.decoder.decode(frame)?;
        let known = self.samples.len() as u64;
        if frame.position > known {
            return None;
        }
        let duplicate = ((known - frame.position) as usize * 2).min(frame.payload.len());
        frame.payload.advance(duplicate);
        frame.position = known;
        if frame.payload.is_empty() && (!frame.end || self.complete) {
            return None;
        }
        let samples = frame.samples();
        let underrun = self.played(now) >= known;
        if underrun && !samples.is_empty() {
            self.clock = Some((known, now));
        }
        self.samples.extend(samples);
        self.complete |= frame.end;
        Some(frame)
    }

    /// Stops playback (`audio_stop_request`, or an interruption detected by the client).
    pub fn stop(&mut self, now: Instant) {
        let played = self.played(now) as usize;
        self.samples.truncate(played);
        self.complete = true;
        self.stopped = true;
    }

    /// The generation of the response.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// How much was played by `now`, in milliseconds.
    pub fn played_ms(&self, now: Instant) -> u64 {
        if self.rate_hz == 0 { 0 } else { self.played(now) * 1000 / u64::from(self.rate_hz) }
    }

    /// Whether the response was played to its end.
    pub fn is_over(&self, now: Instant) -> bool {
        self.complete && self.played(now) >= self.samples.len() as u64
    }

    /// The samples received so far, and their rate in Hz.
    pub fn samples(&self) -> (&[i16], u32) {
        (&self.samples, self.rate_hz)
    }

    fn played(&self, now: Instant) -> u64 {
        let Some((position, at)) = self.clock else { return 0 };
        let elapsed = now.saturating_duration_since(at).as_secs_f64() * f64::from(self.rate_hz);
        (position + elapsed as u64).min(self.samples.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    fn frame(generation: u32, position: u64, samples: &[i16], end: bool) -> DownlinkFrame {
        DownlinkFrame::decode(DownlinkFrame::encode_pcm(generation, position, end, samples)).unwrap()
    }

    #[test]
    fn frames_are_assembled_and_no_sample_is_played_twice() {
        let mut player = Player::default();
        let now = clock::now();
        player.begin(1, 1000, SpeechDecoder::default());
        player.push(frame(1, 0, &[1; 100], false), now);
        player.push(frame(1, 50, &[2; 100], true), now);
        assert_eq!(player.samples().0, [[1; 100].as_slice(), &[2; 50]].concat());
        assert_eq!(player.played_ms(now + Duration::from_millis(60)), 60);
        assert!(player.is_over(now + Duration::from_millis(150)));
    }

    #[test]
    fn frames_of_an_interrupted_response_are_dropped() {
        let mut player = Player::default();
        let now = clock::now();
        player.begin(1, 1000, SpeechDecoder::default());
        player.push(frame(1, 0, &[1; 100], false), now);
        player.stop(now + Duration::from_millis(30));
        assert_eq!(player.samples().0.len(), 30);
        player.begin(2, 1000, SpeechDecoder::default());
        player.push(frame(1, 100, &[1; 100], false), now);
        assert_eq!(player.samples().0.len(), 0);
    }

    #[test]
    fn an_underrun_is_not_counted_as_played() {
        let mut player = Player::default();
        let now = clock::now();
        player.begin(1, 1000, SpeechDecoder::default());
        player.push(frame(1, 0, &[1; 100], false), now);
        let later = now + Duration::from_millis(500);
        assert_eq!(player.played_ms(later), 100);
        player.push(frame(1, 100, &[1; 100], true), later);
        assert_eq!(player.played_ms(later + Duration::from_millis(10)), 110);
    }
}
