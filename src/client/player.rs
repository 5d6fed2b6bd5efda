//! Plays the spoken answer: puts frames together, drops those of an answer that was cut, and knows how
//! much was played.
//!
//! Pure, and silent: it tells what a loudspeaker would be doing at a given time.

use std::time::Instant;

use bytes::Buf;

use crate::protocol::edge_v1::audio::DownlinkFrame;

/// What is being played.
#[derive(Debug, Default)]
pub struct Player {
    generation: u32,
    rate_hz: u32,
    /// The samples of this answer, by position.
    samples: Vec<i16>,
    /// When the sample at the position was, or will be, played.
    clock: Option<(u64, Instant)>,
    /// The last frame has arrived.
    complete: bool,
    /// Nothing more of it is played.
    stopped: bool,
}

impl Player {
    /// An answer begins (`speech_begin`).
    pub fn begin(&mut self, generation: u32, rate_hz: u32) {
        *self = Self { generation, rate_hz, ..Self::default() };
    }

    /// A frame arrived. Frames of an older answer are dropped, and what was there already is not taken
    /// twice. Gives what is new of it.
    pub fn take(&mut self, mut frame: DownlinkFrame, now: Instant) -> Option<DownlinkFrame> {
        let known = self.samples.len() as u64;
        if frame.generation != self.generation || frame.position > known || self.stopped {
            return None;
        }
        let twice = ((known - frame.position) as usize * 2).min(frame.payload.len());
        frame.payload.advance(twice);
        frame.position = known;
        if frame.payload.is_empty() && (!frame.end || self.complete) {
            return None;
        }
        let news = frame.samples();
        let dry = self.played(now) >= known;
        if dry && !news.is_empty() {
            self.clock = Some((known, now));
        }
        self.samples.extend(news);
        self.complete |= frame.end;
        Some(frame)
    }

    /// Stop at once (`audio_stop_request`, or a barge-in seen here).
    pub fn stop(&mut self, now: Instant) {
        let played = self.played(now) as usize;
        self.samples.truncate(played);
        self.complete = true;
        self.stopped = true;
    }

    /// Which answer it is.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// How much was played by now, in milliseconds.
    pub fn played_ms(&self, now: Instant) -> u64 {
        if self.rate_hz == 0 { 0 } else { self.played(now) * 1000 / u64::from(self.rate_hz) }
    }

    /// Whether everything there is was played.
    pub fn is_over(&self, now: Instant) -> bool {
        self.complete && self.played(now) >= self.samples.len() as u64
    }

    /// The sound so far, and its rate in Hz.
    pub fn sound(&self) -> (&[i16], u32) {
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
    fn frames_are_put_together_and_nothing_is_played_twice() {
        let mut player = Player::default();
        let now = clock::now();
        player.begin(1, 1000);
        player.take(frame(1, 0, &[1; 100], false), now);
        player.take(frame(1, 50, &[2; 100], true), now);
        assert_eq!(player.sound().0, [[1; 100].as_slice(), &[2; 50]].concat());
        assert_eq!(player.played_ms(now + Duration::from_millis(60)), 60);
        assert!(player.is_over(now + Duration::from_millis(150)));
    }

    #[test]
    fn frames_of_an_answer_that_was_cut_are_dropped() {
        let mut player = Player::default();
        let now = clock::now();
        player.begin(1, 1000);
        player.take(frame(1, 0, &[1; 100], false), now);
        player.stop(now + Duration::from_millis(30));
        assert_eq!(player.sound().0.len(), 30);
        player.begin(2, 1000);
        player.take(frame(1, 100, &[1; 100], false), now);
        assert_eq!(player.sound().0.len(), 0);
    }

    #[test]
    fn a_pause_of_the_network_is_not_counted_as_played() {
        let mut player = Player::default();
        let now = clock::now();
        player.begin(1, 1000);
        player.take(frame(1, 0, &[1; 100], false), now);
        let later = now + Duration::from_millis(500);
        assert_eq!(player.played_ms(later), 100);
        player.take(frame(1, 100, &[1; 100], true), later);
        assert_eq!(player.played_ms(later + Duration::from_millis(10)), 110);
    }
}
