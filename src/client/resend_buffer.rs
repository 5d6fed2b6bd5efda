//! Sound on its way to the gateway over the control channel.
//!
//! Pure. Frames are numbered and kept for a while after they were sent: when the connection breaks nobody
//! knows what of it arrived, so on the next one they are sent again, marked as back-fill, and the gateway
//! drops those it has.
//!
//! ```text
//!   dropped: older than KEEP, or heard      sent on this connection        to be sent
//!   ────────────────────────────────────┼──────────────────────────────┼────────────────▶ spoken
//!                                     front                           next
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;

use crate::{
    audio::SAMPLE_RATE_HZ,
    ids::UtteranceId,
    protocol::edge_v1::audio::{Codec, UplinkFrame},
};

/// How much sound is kept for a connection that comes back. A gateway takes no more (docs/PROTOCOL.md).
pub const RESEND_WINDOW: Duration = Duration::from_secs(5);

const RESEND_SAMPLES: usize = SAMPLE_RATE_HZ as usize * RESEND_WINDOW.as_secs() as usize;

/// The microphone's frames.
#[derive(Debug, Default)]
pub struct ResendBuffer {
    frames: VecDeque<UplinkFrame>,
    /// The samples in `frames`.
    samples: usize,
    /// How many of `frames` were sent on this connection.
    next: usize,
    /// The number of the newest frame.
    last_seq: u32,
    /// The highest number that was ever sent.
    sent_seq: u32,
    /// Frames up to here were captured before this connection.
    before: u32,
    /// How far each utterance goes at most, until its last word is told.
    ended: BTreeMap<UtteranceId, u32>,
}

impl ResendBuffer {
    /// Takes 16 kHz mono samples. What does not fit into [`RESEND_WINDOW`] pushes the oldest out.
    pub fn push(&mut self, samples: &[i16], capture_ms: u64) {
        let payload = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        self.frame(payload, capture_ms, false);
    }

    /// The microphone goes off.
    pub fn end(&mut self, capture_ms: u64) {
        self.frame(Bytes::new(), capture_ms, true);
    }

    /// The next frame for the wire.
    pub fn pop(&mut self) -> Option<Bytes> {
        let frame = self.frames.get(self.next)?;
        self.next += 1;
        self.sent_seq = self.sent_seq.max(frame.seq);
        Some(UplinkFrame { backfill: frame.seq <= self.before, ..frame.clone() }.encode())
    }

    /// Whether there is a frame for the wire.
    pub fn waits(&self) -> bool {
        self.next < self.frames.len()
    }

    /// The number of the newest frame.
    pub fn last_seq(&self) -> u32 {
        self.last_seq
    }

    /// The number of the next frame for the wire, also where there is none yet.
    pub fn next_seq(&self) -> u32 {
        self.frames.get(self.next).map_or(self.last_seq + 1, |frame| frame.seq)
    }

    /// The highest number that was ever sent: `lastAudioSeq`.
    pub fn sent_seq(&self) -> u32 {
        self.sent_seq
    }

    /// A new connection: what is kept goes again.
    pub fn rewind(&mut self) {
        self.next = 0;
        self.before = self.last_seq;
    }

    /// The gateway says that an utterance is over: it heard at most what was sent by now.
    pub fn utterance_ended(&mut self, utterance: UtteranceId) {
        // One that is never transcribed must not stay for ever.
        while self.ended.len() >= 8 {
            self.ended.pop_first();
        }
        self.ended.insert(utterance, self.sent_seq);
    }

    /// The gateway has the words of an utterance: its sound will not be asked for again. This is what keeps
    /// a gateway that was killed from hearing a sentence twice.
    pub fn utterance_told(&mut self, utterance: UtteranceId) {
        let Some(heard) = self.ended.remove(&utterance) else { return };
        while self.frames.front().is_some_and(|frame| frame.seq <= heard) {
            self.forget_first();
        }
    }

    fn frame(&mut self, payload: Bytes, capture_ms: u64, end: bool) {
        self.last_seq += 1;
        self.samples += payload.len() / 2;
        self.frames.push_back(UplinkFrame {
            codec: Codec::Pcm16le,
            pre_roll: false,
            backfill: false,
            end,
            seq: self.last_seq,
            capture_ms,
            payload,
        });
        while self.samples > RESEND_SAMPLES {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some(first) = self.frames.pop_front() {
            self.samples -= first.payload.len() / 2;
            self.next = self.next.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FRAME: usize = 320;

    fn pop_all(voice: &mut ResendBuffer) -> Vec<(u32, bool)> {
        std::iter::from_fn(|| voice.pop())
            .map(|frame| UplinkFrame::decode(frame).unwrap())
            .map(|frame| (frame.seq, frame.backfill))
            .collect()
    }

    fn speak(voice: &mut ResendBuffer, frames: usize) {
        (0..frames).for_each(|_| voice.push(&[7; FRAME], 0));
    }

    #[test]
    fn after_a_cut_what_is_kept_goes_again_as_back_fill_and_what_comes_then_does_not() {
        let mut voice = ResendBuffer::default();
        speak(&mut voice, 2);
        assert_eq!(pop_all(&mut voice), [(1, false), (2, false)]);
        speak(&mut voice, 1);

        voice.rewind();
        speak(&mut voice, 1);

        assert_eq!(pop_all(&mut voice), [(1, true), (2, true), (3, true), (4, false)]);
        assert_eq!(voice.sent_seq(), 4);
    }

    #[test]
    fn no_more_than_five_seconds_are_kept_and_the_oldest_go_first() {
        let mut voice = ResendBuffer::default();
        speak(&mut voice, 400);
        let waiting = pop_all(&mut voice);
        assert_eq!(waiting.len(), 250);
        assert_eq!(waiting.first(), Some(&(151, false)));
    }

    #[test]
    fn an_utterance_that_was_told_is_not_sent_again() {
        let mut voice = ResendBuffer::default();
        let utterance = UtteranceId(7);
        speak(&mut voice, 10);
        pop_all(&mut voice);
        voice.utterance_ended(utterance);
        speak(&mut voice, 2);
        pop_all(&mut voice);

        voice.utterance_told(utterance);
        voice.rewind();

        assert_eq!(pop_all(&mut voice), [(11, true), (12, true)]);
    }

    #[test]
    fn the_end_of_the_microphone_is_a_frame_without_sound() {
        let mut voice = ResendBuffer::default();
        voice.end(9);
        let frame = UplinkFrame::decode(voice.pop().unwrap()).unwrap();
        assert_eq!((frame.end, frame.capture_ms, frame.payload.len()), (true, 9, 0));
    }

    proptest! {
        /// Whatever happens, a gateway that drops numbers it has gets each frame once and in order, and none
        /// is missing that is not older than what is kept.
        #[test]
        fn a_gateway_gets_every_frame_once(steps in proptest::collection::vec(0..4u8, 0..300)) {
            let (mut voice, mut spoken, mut got) = (ResendBuffer::default(), 0u32, Vec::new());
            let hear = |voice: &mut ResendBuffer, got: &mut Vec<u32>| {
                if let Some(frame) = voice.pop() {
                    let frame = UplinkFrame::decode(frame).unwrap();
                    if got.last().is_none_or(|last| frame.seq > *last) {
                        got.push(frame.seq);
                    }
                }
            };
            for step in steps {
                match step {
                    0 | 1 => { speak(&mut voice, 1); spoken += 1; }
                    2 => hear(&mut voice, &mut got),
                    // Lost on the way.
                    _ => { voice.pop(); voice.rewind(); }
                }
            }
            while voice.waits() {
                hear(&mut voice, &mut got);
            }
            let first = spoken.saturating_sub(250) + 1;
            let wanted: Vec<u32> = (first..=spoken).collect();
            prop_assert!(got.ends_with(&wanted), "{got:?}");
        }
    }
}
