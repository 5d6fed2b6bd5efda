//! A microphone that comes as data packets: what MentraOS phones do, whose SDK cannot publish their
//! glasses' PCM as a track. Pure.
//!
//! ```text
//!   odd length    u8 sequence (mod 256)   PCM16LE, 16 kHz, mono …
//!   even length   PCM16LE, 16 kHz, mono …
//! ```
//!
//! The packets are lossy and come in bursts (four within 5 ms, then nothing for 300): they wait in a
//! queue of [`MAX_SAMPLES`] and leave it in runs of 20 ms at the pace of the microphone, or at twice that while
//! there is a backlog.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::{audio::SAMPLE_RATE_HZ, telemetry};

/// Samples of a run: 20 ms.
const RUN: usize = SAMPLE_RATE_HZ as usize / 50;
const RUN_TIME: Duration = Duration::from_millis(20);

/// The most that waits: a second. Beyond it the oldest is dropped.
pub const MAX_SAMPLES: usize = SAMPLE_RATE_HZ as usize;

/// More than a burst's worth is a backlog: 400 ms.
const BACKLOG: usize = SAMPLE_RATE_HZ as usize * 2 / 5;

/// A packet that is this little behind was overtaken; one that is further behind begins a new count.
const REORDERED: u8 = 16;

/// After a pause as long as this a sender may count from the beginning.
const PAUSE: Duration = Duration::from_secs(1);

/// The packets of one sender.
#[derive(Debug, Default)]
pub struct Packets {
    /// The last sequence number, and when it came.
    last: Option<(u8, Instant)>,
    queue: VecDeque<i16>,
    /// When the next run leaves.
    next_at: Option<Instant>,
}

impl Packets {
    /// Takes a packet.
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

    /// When [`due`](Self::due) has a run.
    pub fn deadline(&self) -> Option<Instant> {
        self.next_at
    }

    /// The run that is due.
    pub fn due(&mut self, now: Instant) -> Option<Vec<i16>> {
        let at = self.next_at.filter(|at| now >= *at)?;
        let run: Vec<i16> = self.queue.drain(..RUN.min(self.queue.len())).collect();
        let pace = if self.queue.len() > BACKLOG { RUN_TIME / 2 } else { RUN_TIME };
        // One that is woken late catches up, but not with what it slept through.
        self.next_at =
            (!self.queue.is_empty()).then_some((at + pace).max(now.checked_sub(PAUSE).unwrap_or(at)));
        Some(run)
    }

    /// Whether a packet is not one that came before or was overtaken; counts those that are missing.
    fn is_new(&mut self, seq: u8, now: Instant) -> bool {
        if let Some((last, at)) = self.last {
            let ahead = seq.wrapping_sub(last);
            let is_behind = ahead == 0 || ahead > u8::MAX - REORDERED;
            if is_behind && now < at + PAUSE {
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

    /// Everything that leaves until nothing waits, and when it was over.
    fn drain(packets: &mut Packets) -> (Vec<i16>, Vec<Instant>) {
        let (mut sound, mut times) = (Vec::new(), Vec::new());
        while let Some(at) = packets.deadline() {
            sound.extend(packets.due(at).unwrap());
            times.push(at);
        }
        (sound, times)
    }

    #[test]
    fn the_first_byte_of_an_odd_packet_is_no_sound() {
        let (mut packets, now) = (Packets::default(), clock::now());
        packets.push(&[7, 1, 0, 2, 0], now);
        packets.push(&[3, 0, 4, 0], now);
        packets.push(&[8], now);
        packets.push(&[], now);
        assert_eq!(drain(&mut packets).0, [1, 2, 3, 4]);
    }

    #[test]
    fn a_burst_leaves_at_the_pace_of_a_microphone() {
        let (mut packets, now) = (Packets::default(), clock::now());
        for seq in 1..=4 {
            packets.push(&packet(seq, 1_600, i16::from(seq)), now);
        }
        let (sound, times) = drain(&mut packets);
        assert_eq!(sound.len(), 6_400);
        assert!(sound.is_sorted());
        assert_eq!((times.len(), times[0], times[19]), (20, now, now + 19 * RUN_TIME));
    }

    #[test]
    fn a_backlog_is_caught_up_with() {
        let (mut packets, now) = (Packets::default(), clock::now());
        packets.push(&packet(1, MAX_SAMPLES, 1), now);
        let (_, times) = drain(&mut packets);
        assert_eq!(times[1], now + RUN_TIME / 2);
        assert!(*times.last().unwrap() < now + Duration::from_millis(800));
    }

    #[test]
    fn more_than_a_second_does_not_wait_and_the_oldest_goes() {
        let (mut packets, now) = (Packets::default(), clock::now());
        packets.push(&packet(1, MAX_SAMPLES, 1), now);
        packets.push(&packet(2, 1_600, 2), now);
        let (sound, _) = drain(&mut packets);
        assert_eq!(sound.len(), MAX_SAMPLES);
        assert_eq!(sound.iter().filter(|sample| **sample == 2).count(), 1_600);
    }

    #[test]
    fn a_packet_that_came_before_or_was_overtaken_is_dropped() {
        let (mut packets, now) = (Packets::default(), clock::now());
        for (seq, value) in [(254, 1), (0, 2), (255, 9), (0, 9), (1, 3)] {
            packets.push(&packet(seq, 1, value), now);
        }
        assert_eq!(drain(&mut packets).0, [1, 2, 3]);
    }

    #[test]
    fn a_sender_that_begins_to_count_again_is_heard() {
        let (mut packets, now) = (Packets::default(), clock::now());
        packets.push(&packet(200, 1, 1), now);
        packets.push(&packet(1, 1, 2), now);
        packets.push(&packet(2, 1, 3), now);
        packets.push(&packet(1, 1, 4), now + PAUSE);
        assert_eq!(drain(&mut packets).0, [1, 2, 3, 4]);
    }

    proptest! {
        #[test]
        fn no_packets_make_more_than_a_second_wait(
            arrivals in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..2_000), 0..50u64), 0..60),
        ) {
            let (mut packets, mut now) = (Packets::default(), clock::now());
            for (packet, wait_ms) in arrivals {
                packets.push(&packet, now);
                prop_assert!(packets.queue.len() <= MAX_SAMPLES);
                now += Duration::from_millis(wait_ms);
                while let Some(run) = packets.due(now) {
                    prop_assert!((1..=RUN).contains(&run.len()));
                }
                prop_assert_eq!(packets.deadline().is_some(), !packets.queue.is_empty());
            }
        }
    }
}
