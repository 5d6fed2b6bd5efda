//! Uplink audio on the control channel.
//!
//! Pure. Frames are numbered and kept for a while after they were sent. When the connection breaks it is unknown
//! which of them arrived, so all are sent again on the next one, marked as backfill; the gateway drops those
//! that it has.
//!
//! ```text
//!   dropped: older than RESEND_WINDOW,      sent on this connection        to be sent
//!   or transcribed
//!   ────────────────────────────────────┼──────────────────────────────┼────────────────▶ captured
//!                                     front                           next
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use june_protocol::{
    SAMPLE_RATE_HZ,
    audio::{Codec, UplinkFrame},
    ids::UtteranceId,
};

/// How much audio is kept for a resumed connection. The gateway accepts no more (docs/PROTOCOL.md).
pub const RESEND_WINDOW: Duration = Duration::from_secs(5);

const RESEND_SAMPLES: usize = SAMPLE_RATE_HZ as usize * RESEND_WINDOW.as_secs() as usize;

/// Uplink frames, to be sent and to be sent again.
#[derive(Debug, Default)]
pub struct ResendBuffer {
    frames: VecDeque<UplinkFrame>,
    /// Number of samples in `frames`.
    samples: usize,
    /// How many of `frames` were sent on this connection.
    next: usize,
    /// The number of the newest frame.
    last_seq: u32,
    /// The highest number that was sent.
    sent_seq: u32,
    /// Frames up to here were captured before this connection.
    before: u32,
    /// The last frame that can belong to each utterance whose final transcript is still to come.
    ended: BTreeMap<UtteranceId, u32>,
}

impl ResendBuffer {
    /// Appends 16 kHz mono samples. Drops the oldest beyond [`RESEND_WINDOW`].
    pub fn push(&mut self, samples: &[i16], capture_ms: u64) {
        let payload = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        self.frame(payload, capture_ms, false);
    }

    /// Appends the mark that the microphone is turned off.
    pub fn end(&mut self, capture_ms: u64) {
        self.frame(Bytes::new(), capture_ms, true);
    }

    /// Encodes the next frame to be sent.
    pub fn pop(&mut self) -> Option<Bytes> {
        let frame = self.frames.get(self.next)?;
        self.next += 1;
        self.sent_seq = self.sent_seq.max(frame.seq);
        Some(UplinkFrame { backfill: frame.seq <= self.before, ..frame.clone() }.encode())
    }

    /// Whether a frame is to be sent.
    pub fn has_next(&self) -> bool {
        self.next < self.frames.len()
    }

    /// The number of the newest frame.
    pub fn last_seq(&self) -> u32 {
        self.last_seq
    }

    /// The number of the next frame to be sent, even if there is none yet.
    pub fn next_seq(&self) -> u32 {
        self.frames.get(self.next).map_or(self.last_seq + 1, |frame| frame.seq)
    }

    /// The highest number that was sent: `lastAudioSeq`.
    pub fn sent_seq(&self) -> u32 {
        self.sent_seq
    }

    /// Starts a new connection: everything kept is sent again.
    pub fn rewind(&mut self) {
        self.next = 0;
        self.before = self.last_seq;
    }

    /// The gateway ended an utterance (`speech_ended`). It contains at most what was sent by now.
    pub fn utterance_ended(&mut self, utterance: UtteranceId) {
        // An utterance may never get a final transcript.
        while self.ended.len() >= 8 {
            self.ended.pop_first();
        }
        self.ended.insert(utterance, self.sent_seq);
    }

    /// An utterance has its final transcript. Its audio is dropped, so that a gateway that crashes afterwards
    /// does not transcribe it twice.
    pub fn utterance_transcribed(&mut self, utterance: UtteranceId) {
        let Some(last) = self.ended.remove(&utterance) else { return };
        while self.frames.front().is_some_and(|frame| frame.seq <= last) {
            self.drop_first();
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
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
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

    fn pop_all(buffer: &mut ResendBuffer) -> Vec<(u32, bool)> {
        std::iter::from_fn(|| buffer.pop())
            .map(|frame| UplinkFrame::decode(frame).unwrap())
            .map(|frame| (frame.seq, frame.backfill))
            .collect()
    }

    fn push_frames(buffer: &mut ResendBuffer, frames: usize) {
        (0..frames).for_each(|_| buffer.push(&[7; FRAME], 0));
    }

    #[test]
    fn after_a_reconnect_kept_frames_are_sent_again_as_backfill_and_later_frames_are_not() {
        let mut buffer = ResendBuffer::default();
        push_frames(&mut buffer, 2);
        assert_eq!(pop_all(&mut buffer), [(1, false), (2, false)]);
        push_frames(&mut buffer, 1);

        buffer.rewind();
        push_frames(&mut buffer, 1);

        assert_eq!(pop_all(&mut buffer), [(1, true), (2, true), (3, true), (4, false)]);
        assert_eq!(buffer.sent_seq(), 4);
    }

    #[test]
    fn at_most_five_seconds_are_kept_and_the_oldest_are_dropped_first() {
        let mut buffer = ResendBuffer::default();
        push_frames(&mut buffer, 400);
        let waiting = pop_all(&mut buffer);
        assert_eq!(waiting.len(), 250);
        assert_eq!(waiting.first(), Some(&(151, false)));
    }

    #[test]
    fn a_transcribed_utterance_is_not_sent_again() {
        let mut buffer = ResendBuffer::default();
        let utterance = UtteranceId(7);
        push_frames(&mut buffer, 10);
        pop_all(&mut buffer);
        buffer.utterance_ended(utterance);
        push_frames(&mut buffer, 2);
        pop_all(&mut buffer);

        buffer.utterance_transcribed(utterance);
        buffer.rewind();

        assert_eq!(pop_all(&mut buffer), [(11, true), (12, true)]);
    }

    #[test]
    fn turning_the_microphone_off_is_a_frame_without_samples() {
        let mut buffer = ResendBuffer::default();
        buffer.end(9);
        let frame = UplinkFrame::decode(buffer.pop().unwrap()).unwrap();
        assert_eq!((frame.end, frame.capture_ms, frame.payload.len()), (true, 9, 0));
    }

    proptest! {
        /// A gateway that drops numbers it has gets each frame once and in order, and misses none that is
        /// within the window.
        #[test]
        fn a_gateway_gets_every_frame_once(steps in proptest::collection::vec(0..4u8, 0..300)) {
            let (mut buffer, mut captured, mut got) = (ResendBuffer::default(), 0u32, Vec::new());
            let receive = |buffer: &mut ResendBuffer, got: &mut Vec<u32>| {
                if let Some(frame) = buffer.pop() {
                    let frame = UplinkFrame::decode(frame).unwrap();
                    if got.last().is_none_or(|last| frame.seq > *last) {
                        got.push(frame.seq);
                    }
                }
            };
            for step in steps {
                match step {
                    0 | 1 => { push_frames(&mut buffer, 1); captured += 1; }
                    2 => receive(&mut buffer, &mut got),
                    // Lost with its connection.
                    _ => { buffer.pop(); buffer.rewind(); }
                }
            }
            while buffer.has_next() {
                receive(&mut buffer, &mut got);
            }
            let first = captured.saturating_sub(250) + 1;
            let wanted: Vec<u32> = (first..=captured).collect();
            prop_assert!(got.ends_with(&wanted), "{got:?}");
        }
    }
}
