//! A microphone in LiveKit data packets: MentraOS phones send it so, since their SDK cannot publish the
//! glasses' PCM as a track. Pure.
//!
//! ```text
//!   odd length    u8 sequence (mod 256)   PCM16LE, 16 kHz, mono …
//!   even length   PCM16LE, 16 kHz, mono …
//! ```
//!
//! The packets are lossy and arrive in bursts (four within 5 ms, then none for 300 ms): they wait in a queue of
//! [`MAX_SAMPLES`] and leave it in chunks of 20 ms in real time, or at twice that rate while there is a backlog.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::{audio::SAMPLE_RATE_HZ, telemetry};

/// Samples of a chunk: 20 ms.
const CHUNK_SAMPLES: usize = SAMPLE_RATE_HZ as usize / 50;
const CHUNK_TIME: Duration = Duration::from_millis(20);

/// Samples that may wait: a second. Beyond that the oldest are dropped.
pub const MAX_SAMPLES: usize = SAMPLE_RATE_HZ as usize;

/// More than one burst is a backlog: 400 ms.
const BACKLOG_SAMPLES: usize = SAMPLE_RATE_HZ as usize * 2 / 5;

/// A packet that is at most this far behind was reordered; one that is further behind begins a new count.
const MAX_REORDERED: u8 = 16;

/// After a pause of this length a sender may restart its count.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// The data packets of one sender.
#[derive(Debug, Default)]
pub struct DataPacketBuffer {
    /// The last sequence number, and when it arrived.
    last: Option<(u8, Instant)>,
    queue: VecDeque<i16>,
    /// When the next chunk leaves.
    next_at: Option<Instant>,
}

impl DataPacketBuffer {
    /// Queues the samples of a packet.
    pub fn push(&mut self, packet: &[u8], now: Instant) {
        let pcm = match packet {
            [] => return,
            [seq, pcm @ ..] if pcm.len().is_multiple_of(2) => {
                if !self.is_new(*seq, now) {
                    metrics::counter!(telemetry::PACKETS_STALE).increment(1);
                    return;
                }
                pcm
            }
            pcm => pcm,
        };
        let (pairs, _) = pcm.as_chunks::<2>();
        let newest = &pairs[pairs.len().saturating_sub(MAX_SAMPLES)..];
        let surplus = (self.queue.len() + newest.len()).saturating_sub(MAX_SAMPLES);
        let dropped = surplus + pairs.len() - newest.len();
        if dropped > 0 {
            metrics::counter!(telemetry::PACKET_SAMPLES_DROPPED).increment(dropped as u64);
        }
        self.queue.drain(..surplus);
        self.queue.extend(newest.iter().map(|pair| i16::from_le_bytes(*pair)));
        if !self.queue.is_empty() {
            self.next_at.get_or_insert(now);
        }
    }

    /// When [`due`](Self::due) has a chunk.
    pub fn deadline(&self) -> Option<Instant> {
        self.next_at
    }

    /// The chunk that is due.
    pub fn due(&mut self, now: Instant) -> Option<Vec<i16>> {
        let at = self.next_at.filter(|at| now >= *at)?;
        let chunk: Vec<i16> = self.queue.drain(..CHUNK_SAMPLES.min(self.queue.len())).collect();
        let interval = if self.queue.len() > BACKLOG_SAMPLES { CHUNK_TIME / 2 } else { CHUNK_TIME };
        // After a late wake-up it catches up with a second at most.
        self.next_at = (!self.queue.is_empty())
            .then_some((at + interval).max(now.checked_sub(RESTART_PAUSE).unwrap_or(at)));
        Some(chunk)
    }

    /// Whether a packet is neither repeated nor reordered; counts those that are missing.
    fn is_new(&mut self, seq: u8, now: Instant) -> bool {
        if let Some((last, at)) = self.last {
            let ahead = seq.wrapping_sub(last);
            let is_behind = ahead == 0 || ahead > u8::MAX - MAX_REORDERED;
            if is_behind && now < at + RESTART_PAUSE {
                return false;
            }
            if (2..=u8::MAX / 2).contains(&ahead) {
                metrics::counter!(telemetry::PACKETS_LOST).increment(u64::from(ahead - 1));
            }
        }
        self.last = Some((seq, now));
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    /// A packet of so many samples, all of this value.
    fn packet(seq: u8, samples: usize, value: i16) -> Vec<u8> {
        let pcm = value.to_le_bytes().repeat(samples);
        [&[seq][..], &pcm].concat()
    }

    /// All samples until the queue is empty, and when each chunk left.
    fn drain(packets: &mut DataPacketBuffer) -> (Vec<i16>, Vec<Instant>) {
        let (mut samples, mut times) = (Vec::new(), Vec::new());
        while let Some(at) = packets.deadline() {
            samples.extend(packets.due(at).unwrap());
            times.push(at);
        }
        (samples, times)
    }

    #[test]
    fn the_first_byte_of_an_odd_packet_is_a_sequence_number() {
        let (mut packets, now) = (DataPacketBuffer::default(), clock::now());
        packets.push(&[7, 1, 0, 2, 0], now);
        packets.push(&[3, 0, 4, 0], now);
        packets.push(&[8], now);
        packets.push(&[], now);
        assert_eq!(drain(&mut packets).0, [1, 2, 3, 4]);
    }

    #[test]
    fn a_burst_leaves_in_real_time() {
        let (mut packets, now) = (DataPacketBuffer::default(), clock::now());
        for seq in 1..=4 {
            packets.push(&packet(seq, 1_600, i16::from(seq)), now);
        }
        let (samples, times) = drain(&mut packets);
        assert_eq!(samples.len(), 6_400);
        assert!(samples.is_sorted());
        assert_eq!((times.len(), times[0], times[19]), (20, now, now + 19 * CHUNK_TIME));
    }

    #[test]
    fn a_backlog_is_caught_up_with() {
        let (mut packets, now) = (DataPacketBuffer::default(), clock::now());
        packets.push(&packet(1, MAX_SAMPLES, 1), now);
        let (_, times) = drain(&mut packets);
        assert_eq!(times[1], now + CHUNK_TIME / 2);
        assert!(*times.last().unwrap() < now + Duration::from_millis(800));
    }

    #[test]
    fn at_most_a_second_waits_and_the_oldest_is_dropped() {
        let (mut packets, now) = (DataPacketBuffer::default(), clock::now());
        packets.push(&packet(1, MAX_SAMPLES, 1), now);
        packets.push(&packet(2, 1_600, 2), now);
        let (samples, _) = drain(&mut packets);
        assert_eq!(samples.len(), MAX_SAMPLES);
        assert_eq!(samples.iter().filter(|sample| **sample == 2).count(), 1_600);
    }

    #[test]
    fn a_repeated_or_reordered_packet_is_dropped() {
        let (mut packets, now) = (DataPacketBuffer::default(), clock::now());
        for (seq, value) in [(254, 1), (0, 2), (255, 9), (0, 9), (1, 3)] {
            packets.push(&packet(seq, 1, value), now);
        }
        assert_eq!(drain(&mut packets).0, [1, 2, 3]);
    }

    #[test]
    fn a_sender_that_restarts_its_count_is_accepted() {
        let (mut packets, now) = (DataPacketBuffer::default(), clock::now());
        packets.push(&packet(200, 1, 1), now);
        packets.push(&packet(1, 1, 2), now);
        packets.push(&packet(2, 1, 3), now);
        packets.push(&packet(1, 1, 4), now + RESTART_PAUSE);
        assert_eq!(drain(&mut packets).0, [1, 2, 3, 4]);
    }

    proptest! {
        #[test]
        fn no_packets_make_more_than_a_second_wait(
            arrivals in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..2_000), 0..50u64), 0..60),
        ) {
            let (mut packets, mut now) = (DataPacketBuffer::default(), clock::now());
            for (packet, wait_ms) in arrivals {
                packets.push(&packet, now);
                prop_assert!(packets.queue.len() <= MAX_SAMPLES);
                now += Duration::from_millis(wait_ms);
                while let Some(chunk) = packets.due(now) {
                    prop_assert!((1..=CHUNK_SAMPLES).contains(&chunk.len()));
                }
                prop_assert_eq!(packets.deadline().is_some(), !packets.queue.is_empty());
            }
        }
    }
}
