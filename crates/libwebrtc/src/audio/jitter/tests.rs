//! The jitter buffer behind a simulated network, in virtual time.

use std::collections::BTreeSet;

use super::*;
use crate::clock::now;

const PACKET: Duration = Duration::from_millis(20);
const TICKS: u32 = 960;
/// Opus TOC byte of a packet with one frame of 20 ms.
const TOC: u8 = 0x08;
const SEEDS: Range<u64> = 0..50;

// --- The simulated network --------------------------------------------------------------------------------

/// Impairments of a simulated network.
#[derive(Debug, Clone, Copy, Default)]
struct Impairment {
    /// Probability that a loss burst begins at a packet.
    loss: f64,
    /// Packets per loss burst.
    burst: usize,
    /// Maximum additional delay of a packet.
    jitter: Duration,
    /// Probability that a packet is duplicated.
    duplication: f64,
}

/// A deterministic random number generator (SplitMix64).
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A packet of 20 ms whose payload contains its number.
fn packet(number: usize) -> Packet {
    let payload = [&[TOC][..], &(number as u32).to_be_bytes()].concat();
    Packet { ssrc: 1, seq: number as u16, time: (number as u32).wrapping_mul(TICKS), payload: payload.into() }
}

/// A buffer that has played out packet 0, and the current time.
fn started_buffer() -> (Instant, JitterBuffer) {
    let (now, mut buffer) = (now(), JitterBuffer::default());
    buffer.insert(packet(0), now);
    buffer.poll(now);
    (now, buffer)
}

fn number(payload: &[u8]) -> usize {
    u32::from_be_bytes(payload[1..5].try_into().unwrap()) as usize
}

/// Sends `packets`, 20 ms apart, through `network`; returns the arrivals.
fn transmit(
    network: Impairment,
    seed: u64,
    packets: impl IntoIterator<Item = Packet>,
) -> Vec<(Duration, Packet)> {
    let mut rng = SplitMix64(seed);
    let mut arrivals = Vec::new();
    let mut to_lose = 0;
    for (sent, packet) in packets.into_iter().enumerate() {
        if to_lose == 0 && sent > 0 && rng.unit() < network.loss {
            to_lose = network.burst.max(1);
        }
        if to_lose > 0 {
            to_lose -= 1;
            continue;
        }
        let at = PACKET * sent as u32 + network.jitter.mul_f64(rng.unit());
        if rng.unit() < network.duplication {
            arrivals.push((at + network.jitter.mul_f64(rng.unit()), packet.clone()));
        }
        arrivals.push((at, packet));
    }
    arrivals.sort_by_key(|(at, _)| *at);
    arrivals
}

/// Inserts `arrivals` and polls at each deadline until `end`; returns the steps with their times.
fn play(
    buffer: &mut JitterBuffer,
    start: Instant,
    arrivals: Vec<(Duration, Packet)>,
    end: Duration,
) -> Vec<(Duration, PlayoutStep)> {
    let mut arrivals = arrivals.into_iter().peekable();
    let mut played = Vec::new();
    loop {
        let arrival = arrivals.peek().map(|(at, _)| start + *at);
        let Some(now) =
            [arrival, buffer.deadline()].into_iter().flatten().min().filter(|now| *now <= start + end)
        else {
            return played;
        };
        while let Some((_, packet)) = arrivals.next_if(|(at, _)| start + *at <= now) {
            buffer.insert(packet, now);
        }
        let before = played.len();
        played.extend(std::iter::from_fn(|| buffer.poll(now)).map(|play| (now - start, play)));
        assert!(
            played.len() > before || buffer.deadline() != Some(now),
            "the deadline is due but poll returned nothing: the driver would busy-loop"
        );
    }
}

/// Numbers of the packets played out, in order.
fn numbers(played: &[(Duration, PlayoutStep)]) -> Vec<usize> {
    played
        .iter()
        .filter_map(
            |(_, play)| {
                if let PlayoutStep::Packet { payload, .. } = play { Some(number(payload)) } else { None }
            },
        )
        .collect()
}

fn total_ticks(played: &[(Duration, PlayoutStep)]) -> u64 {
    played.iter().map(|(_, play)| u64::from(play.ticks())).sum()
}

/// All steps other than packets.
fn non_packet_steps(played: &[(Duration, PlayoutStep)]) -> Vec<PlayoutStep> {
    played
        .iter()
        .filter(|(_, play)| !matches!(play, PlayoutStep::Packet { .. }))
        .map(|(_, play)| play.clone())
        .collect()
}

/// Maximum delay of a packet against playout on a perfect network.
fn worst_delay(played: &[(Duration, PlayoutStep)]) -> Duration {
    let packets = played.iter().filter(|(_, play)| matches!(play, PlayoutStep::Packet { .. }));
    let sent = numbers(played).into_iter().map(|number| PACKET * number as u32);
    packets.zip(sent).map(|((at, _), sent)| at.saturating_sub(sent)).max().unwrap_or_default()
}

// --- Networks -----------------------------------------------------------------------------------------------

#[test]
fn packets_in_order_are_played_out_on_arrival() {
    let start = now();
    let played = play(
        &mut JitterBuffer::default(),
        start,
        transmit(Impairment::default(), 0, (0..100).map(packet)),
        PACKET * 99,
    );

    assert_eq!(numbers(&played), (0..100).collect::<Vec<_>>());
    assert!(played.iter().enumerate().all(|(i, (at, _))| *at == PACKET * i as u32));
}

#[test]
fn jitter_and_duplication_change_neither_order_nor_number() {
    let network = Impairment { jitter: Duration::from_millis(35), duplication: 0.1, ..Impairment::default() };
    for seed in SEEDS {
        let mut buffer = JitterBuffer::default();
        let arrivals = transmit(network, seed, (0..500).map(packet));
        // The first packet that arrives starts the stream; packets sent before it are late.
        let first = number(&arrivals[0].1.payload);
        let played = play(&mut buffer, now(), arrivals, PACKET * 502);

        assert_eq!(numbers(&played), (first..500).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(non_packet_steps(&played), [], "seed {seed}");
        assert!(worst_delay(&played) < network.jitter + MAX_GAP_WAIT, "seed {seed}");
    }
}

#[test]
fn lost_packets_are_concealed_for_their_length_and_delay_stays_low() {
    let networks = [
        ("5 % at random", Impairment { loss: 0.05, burst: 1, ..Impairment::default() }),
        ("10 % in bursts of 3", Impairment { loss: 0.035, burst: 3, ..Impairment::default() }),
        (
            "both, with jitter",
            Impairment { loss: 0.05, burst: 2, jitter: Duration::from_millis(15), duplication: 0.05 },
        ),
    ];
    for (name, network) in networks {
        for seed in SEEDS {
            let mut buffer = JitterBuffer::default();
            // The last packet arrives, so that every gap ends.
            let mut arrivals = transmit(network, seed, (0..1_000).map(packet));
            arrivals.push((PACKET * 1_000, packet(1_000)));
            let first = number(&arrivals[0].1.payload);
            let mut arrived: Vec<usize> =
                arrivals.iter().map(|(_, p)| number(&p.payload)).filter(|n| *n >= first).collect();
            arrived.sort_unstable();
            arrived.dedup();

            let played = play(&mut buffer, now(), arrivals, PACKET * 1_010);

            let played_numbers = numbers(&played);
            assert_eq!(
                played_numbers, arrived,
                "{name}, seed {seed}: packets that arrived were not played out in order"
            );
            let sent = (1_001 - first) as u64 * u64::from(TICKS);
            // The pause after the last packet is filled in real time.
            let slack = ticks_of(Duration::from_millis(200)) as u64;
            assert!(
                (sent..=sent + slack).contains(&total_ticks(&played)),
                "{name}, seed {seed}: the length differs from the sender's"
            );
            assert!(
                worst_delay(&played) < Duration::from_millis(80) + network.jitter,
                "{name}, seed {seed}: {:?}",
                worst_delay(&played)
            );
        }
    }
}

#[test]
fn a_gap_is_filled_by_concealment_and_the_fec_of_the_packet_after_it() {
    let arrivals = [0, 1, 4, 5].map(|n| (PACKET * n as u32, packet(n))).to_vec();
    let played = play(&mut JitterBuffer::default(), now(), arrivals, PACKET * 7);

    assert_eq!(numbers(&played), [0, 1, 4, 5]);
    let next = packet(4).payload;
    assert_eq!(
        non_packet_steps(&played),
        [PlayoutStep::Conceal { ticks: TICKS }, PlayoutStep::DecodeFec { next, ticks: TICKS }]
    );
}

#[test]
fn a_gap_too_long_for_concealment_fades_to_silence() {
    let arrivals = [0, 10, 11]
        .map(|n| (if n == 0 { Duration::ZERO } else { PACKET * (n as u32 - 8) }, packet(n)))
        .to_vec();
    let played = play(&mut JitterBuffer::default(), now(), arrivals, PACKET * 7);

    let fade = 2_880;
    assert_eq!(
        non_packet_steps(&played),
        [PlayoutStep::Conceal { ticks: fade }, PlayoutStep::Silence { ticks: 9 * TICKS - fade }]
    );
}

#[test]
fn the_wait_behind_gaps_adapts_to_the_network() {
    let (start, mut buffer) = (now(), JitterBuffer::default());

    // First, every tenth packet is 45 ms late.
    let late = |n: usize| {
        if n % 10 == 9 { Duration::from_millis(45) } else { Duration::ZERO }
    };
    let mut arrivals: Vec<_> = (0..300).map(|n| (PACKET * n as u32 + late(n), packet(n))).collect();
    arrivals.sort_by_key(|(at, _)| *at);
    play(&mut buffer, start, arrivals, PACKET * 299);
    let adapted = buffer.network.gap_wait;
    let late_packets = buffer.counters().late;

    // Then every tenth is lost.
    let lossy = (300..400).filter(|n| n % 10 != 9).map(|n| (PACKET * n as u32, packet(n))).collect();
    play(&mut buffer, start, lossy, PACKET * 399);

    assert!(adapted > Duration::from_millis(45), "{adapted:?}");
    assert_eq!(late_packets, 0, "packets arrived after their gap had been abandoned");
    assert_eq!(buffer.network.gap_wait, MIN_GAP_WAIT);
}

// --- Redundancy ---------------------------------------------------------------------------------------------

#[test]
fn a_red_copy_fills_its_gap_at_once_and_only_its_gap() {
    let (now, mut buffer) = (now(), JitterBuffer::default());
    buffer.insert(packet(0), now);
    assert_eq!(buffer.poll(now).map(|play| play.ticks()), Some(TICKS));

    let carrier = packet(2);
    buffer.insert(carrier.clone(), now + PACKET * 2);
    buffer.insert_copy(&carrier, 1, TICKS, packet(1).payload, now + PACKET * 2);
    buffer.insert_copy(&carrier, 2, 2 * TICKS, packet(0).payload, now + PACKET * 2);
    let played: Vec<_> =
        std::iter::from_fn(|| buffer.poll(now + PACKET * 2)).map(|play| (PACKET * 2, play)).collect();

    assert_eq!(numbers(&played), [1, 2]);
    assert_eq!((buffer.counters().from_red, buffer.counters().lost), (1, 0));
}

#[test]
fn a_red_copy_that_fits_no_gap_is_dropped() {
    let (now, mut buffer) = started_buffer();
    let carrier = packet(2);
    buffer.insert(carrier.clone(), now);

    // Before the last packet played out; overlapping its carrier; of another source.
    buffer.insert_copy(&carrier, 1, 5 * TICKS, packet(1).payload, now);
    buffer.insert_copy(&carrier, 1, TICKS / 2, packet(1).payload, now);
    buffer.insert_copy(&Packet { ssrc: 9, ..carrier }, 1, TICKS, packet(1).payload, now);

    assert_eq!(buffer.buffered.len(), 1);
}

// --- Retransmission -----------------------------------------------------------------------------------------

/// Inserts packets 20 ms apart, except those that are `lost`. These are retransmitted and arrive `answer` after the
/// buffer has reported the gap; never if `answer` is `None`.
fn play_with_retransmission(
    buffer: &mut JitterBuffer,
    packets: usize,
    lost: &BTreeSet<usize>,
    response_time: Option<Duration>,
) -> Vec<(Duration, PlayoutStep)> {
    let start = now();
    let sent = (0..packets).filter(|n| !lost.contains(n)).map(|n| (PACKET * n as u32, n));
    let mut arrivals: BTreeSet<(Duration, usize)> = sent.collect();
    let (mut reported, mut played) = (BTreeSet::new(), Vec::new());
    loop {
        let arrival = arrivals.first().map(|(at, _)| start + *at);
        let end = start + PACKET * packets as u32;
        let due = [arrival, buffer.deadline()].into_iter().flatten().min();
        let Some(now) = due.filter(|now| *now <= end) else {
            return played;
        };
        while let Some((_, number)) = arrivals.first().copied().filter(|(at, _)| start + *at <= now) {
            arrivals.pop_first();
            buffer.insert(packet(number), now);
        }
        played.extend(std::iter::from_fn(|| buffer.poll(now)).map(|play| (now - start, play)));
        let until_now = ((now - start).as_millis() / PACKET.as_millis()) as usize;
        if let (true, Some(response_time)) = (buffer.has_gap(), response_time) {
            let new = lost.range(..until_now).copied().filter(|number| reported.insert(*number));
            arrivals.extend(new.map(|number| (now - start + response_time, number)));
        }
    }
}

/// Numbers of lost packets, in runs of up to `longest`: an eighth of all.
fn lost_in_runs(seed: u64, packets: usize, longest: usize) -> BTreeSet<usize> {
    let (mut rng, mut lost) = (SplitMix64(seed), BTreeSet::new());
    let mut at = 1;
    while at + longest < packets {
        let run = 1 + rng.next() as usize % longest;
        lost.extend(at..at + run);
        at += run * 8;
    }
    lost
}

#[test]
fn packets_retransmitted_in_time_leave_nothing_to_conceal() {
    for seed in SEEDS {
        for response_time in [5, 20, 40].map(Duration::from_millis) {
            let (mut buffer, lost) = (JitterBuffer::default(), lost_in_runs(seed, 1_000, 4));
            let played = play_with_retransmission(&mut buffer, 1_000, &lost, Some(response_time));

            assert_eq!(numbers(&played), (0..1_000).collect::<Vec<_>>(), "seed {seed}, {response_time:?}");
            assert_eq!(non_packet_steps(&played), [], "seed {seed}, {response_time:?}");
            // The first of four lost packets waits for the packet after them and for the retransmission.
            assert!(
                worst_delay(&played) <= PACKET * 4 + response_time,
                "seed {seed}: {:?}",
                worst_delay(&played)
            );
        }
    }
}

#[test]
fn without_retransmissions_the_wait_falls_to_the_minimum() {
    let (mut buffer, lost) = (JitterBuffer::default(), lost_in_runs(7, 1_000, 3));
    play_with_retransmission(&mut buffer, 1_000, &lost, None);

    assert_eq!(buffer.network.gap_wait, MIN_GAP_WAIT);
}

#[test]
fn late_retransmissions_neither_reset_the_buffer_nor_raise_the_wait() {
    // More late packets at once than MAX_LATE_RUN.
    let lost: BTreeSet<usize> = (100..100 + 2 * MAX_LATE_RUN as usize).chain([200, 300]).collect();
    let mut buffer = JitterBuffer::default();
    let played = play_with_retransmission(&mut buffer, 400, &lost, Some(Duration::from_millis(150)));

    assert_eq!(buffer.counters().late, lost.len() as u64);
    assert!(!non_packet_steps(&played).contains(&PlayoutStep::Reset));
    assert_eq!(total_ticks(&played), 400 * u64::from(TICKS));
    assert!(
        buffer.network.gap_wait < MAX_GAP_WAIT / 2,
        "the wait was raised by packets that arrive too late"
    );
}

#[test]
fn a_packet_with_a_red_copy_leaves_no_gap_to_report() {
    let (now, mut buffer) = started_buffer();

    let carrier = packet(3);
    buffer.insert(carrier.clone(), now);
    buffer.insert_copy(&carrier, 1, TICKS, packet(2).payload, now);
    assert!(buffer.has_gap(), "packet 1 is missing");
    buffer.insert_copy(&carrier, 2, 2 * TICKS, packet(1).payload, now);
    assert!(!buffer.has_gap());
}

// --- Pauses -------------------------------------------------------------------------------------------------

#[test]
fn a_pause_is_filled_in_real_time_and_its_length_follows_the_rtp_timestamps() {
    let (start, mut buffer) = (now(), JitterBuffer::default());
    // A pause of 3 s, in RTP time too.
    let mut arrivals: Vec<_> = (0..50).map(|n| (PACKET * n as u32, packet(n))).collect();
    arrivals.extend((50..100).map(|n| {
        let resumed = Packet { time: packet(n + 150).time, ..packet(n) };
        (PACKET * (n as u32 + 150), resumed)
    }));

    let played = play(&mut buffer, start, arrivals, PACKET * 249);

    assert_eq!(total_ticks(&played), 250 * u64::from(TICKS));
    // Filler is continuous: the longest gap in the output is the time until the pause is detected.
    let gaps = played.windows(2).map(|pair| pair[1].0 - pair[0].0);
    assert!(gaps.max().unwrap() <= MIN_PAUSE_TIMEOUT + PACKET, "the output had a gap");
    let silent: u32 = non_packet_steps(&played)
        .iter()
        .filter(|play| matches!(play, PlayoutStep::Silence { .. }))
        .map(PlayoutStep::ticks)
        .sum();
    assert!(silent > 140 * TICKS, "{silent} ticks of silence");
}

#[test]
fn comfort_noise_covers_the_time_between_dtx_packets() {
    let (start, mut buffer) = (now(), JitterBuffer::default());
    let dtx = |n: usize| Packet { time: (n as u32 * 20) * TICKS, payload: [TOC].into(), ..packet(n) };
    let arrivals = (0..5).map(|n| (PACKET * 20 * n as u32, dtx(n))).collect();

    let played = play(&mut buffer, start, arrivals, PACKET * 80);

    assert!(non_packet_steps(&played).iter().all(|play| matches!(play, PlayoutStep::Conceal { .. })));
    assert_eq!(total_ticks(&played), 81 * u64::from(TICKS));
}

#[test]
fn excess_filler_is_subtracted_from_the_next_pauses() {
    let (start, mut buffer) = (now(), JitterBuffer::default());
    // The network delays packets by up to 400 ms; the sender does not pause.
    let mut arrivals: Vec<_> = (0..10).map(|n| (PACKET * n as u32, packet(n))).collect();
    arrivals.extend((10..30).map(|n| (PACKET * 30, packet(n))));
    arrivals.extend((30..40).map(|n| (PACKET * n as u32, packet(n))));
    // Later the sender pauses twice, for one second each.
    let after = |pause: u32| {
        move |n: usize| {
            (PACKET * (n as u32 + pause), Packet { time: packet(n + pause as usize).time, ..packet(n) })
        }
    };
    arrivals.extend((40..60).map(after(50)));
    arrivals.extend((60..80).map(after(100)));

    let played = play(&mut buffer, start, arrivals, PACKET * 179);

    assert_eq!(numbers(&played), (0..80).collect::<Vec<_>>());
    assert_eq!(total_ticks(&played), 180 * u64::from(TICKS), "the length differs from the sender's");
}

#[test]
fn a_sender_whose_rtp_clock_loses_time_in_pauses_does_not_delay_the_next_pause() {
    let mut buffer = JitterBuffer::default();
    // Runs of 20 packets, each followed by a pause of 500 ms that is 460 ms long in RTP time.
    let arrivals = (0..1_000_usize)
        .map(|n| {
            let pauses = (n / 20) as u32;
            let resumed = Packet { time: packet(n).time + pauses * 23 * TICKS, ..packet(n) };
            (PACKET * (n as u32 + pauses * 25), resumed)
        })
        .collect();

    play(&mut buffer, now(), arrivals, PACKET * (1_000 + 50 * 25));

    assert_eq!(buffer.network.pause_timeout(), MIN_PAUSE_TIMEOUT);
}

#[test]
fn a_burst_is_released_at_twice_real_time_so_that_it_fits_a_short_queue() {
    let (start, mut buffer) = (now(), JitterBuffer::default());
    let mut arrivals = vec![(Duration::ZERO, packet(0))];
    arrivals.extend((1..26).map(|n| (Duration::from_millis(70), packet(n))));

    let played = play(&mut buffer, start, arrivals, Duration::from_secs(1) / 2);

    let left_by = |ms: u64| played.iter().filter(|(at, _)| *at <= Duration::from_millis(ms)).count();
    assert_eq!(left_by(70), 1 + 5, "80 ms are released at once, plus the packet in progress");
    assert!(left_by(170) <= 1 + 5 + 10 && left_by(170) >= 1 + 5 + 9);
    assert_eq!(numbers(&played), (0..26).collect::<Vec<_>>());
}

#[test]
fn clock_drift_does_not_change_the_length_of_the_output() {
    for ppm in [-200_i64, 200] {
        let mut buffer = JitterBuffer::default();
        let drifting = |n: usize| {
            Duration::from_nanos((n as u64 * 20_000_000).saturating_add_signed(n as i64 * 20 * ppm))
        };
        // One hour with a pause of ten seconds per minute.
        let sent = (0..180_000_usize).filter(|n| n % 3_000 < 2_500);
        let arrivals = sent
            .clone()
            .enumerate()
            .map(|(i, n)| (drifting(n), Packet { seq: i as u16, ..packet(n) }))
            .collect();
        let end = drifting(179_000 - 1_000);

        let played = play(&mut buffer, now(), arrivals, end);

        let sender = end.as_secs_f64() / (1.0 + ppm as f64 / 1e6);
        let ours = total_ticks(&played) as f64 / f64::from(OPUS_CLOCK);
        assert!((sender - ours).abs() < 0.2, "{ppm} ppm: sent {sender} s, played {ours} s");
        assert_eq!(buffer.counters().lost, 0);
    }
}

// --- Sources ------------------------------------------------------------------------------------------------

#[test]
fn sequence_number_and_timestamp_wraparound_is_seamless() {
    let arrivals: Vec<_> = (0..200_usize)
        .map(|n| {
            let wrapped = Packet {
                seq: (n as u16).wrapping_add(u16::MAX - 100),
                time: (n as u32).wrapping_mul(TICKS).wrapping_add(u32::MAX - 50 * TICKS),
                ..packet(n)
            };
            (PACKET * n as u32, wrapped)
        })
        .collect();

    let played = play(&mut JitterBuffer::default(), now(), arrivals, PACKET * 199);

    assert_eq!(numbers(&played), (0..200).collect::<Vec<_>>());
    assert_eq!(non_packet_steps(&played), []);
}

#[test]
fn every_packet_of_a_day_is_played_out_across_many_wraparounds() {
    let (start, mut buffer, mut played) = (now(), JitterBuffer::default(), 0_usize);
    // 24 h of 60 ms packets: the sequence numbers wrap 21 times; the timestamps once, since they start near the end of
    // their range.
    const DAY: usize = 24 * 3600 * 1000 / 60;
    for n in 0..DAY {
        let now = start + Duration::from_millis(60) * n as u32;
        let time = (u32::MAX - 1_000_000).wrapping_add((n as u32).wrapping_mul(2_880));
        // TOC byte 0x18: one frame of 60 ms.
        let payload = [&[0x18][..], &(n as u32).to_be_bytes()].concat().into();
        buffer.insert(Packet { ssrc: 1, seq: n as u16, time, payload }, now);
        while let Some(play) = buffer.poll(now) {
            assert!(matches!(play, PlayoutStep::Packet { .. }), "packet {n}: {play:?}");
            played += 1;
        }
    }

    assert_eq!(played, DAY);
}

#[test]
fn another_ssrc_starts_after_the_buffered_packets_of_the_first() {
    let (start, mut buffer) = (now(), JitterBuffer::default());
    let other = |n: usize| Packet { ssrc: 2, seq: 7_000 + n as u16, time: 99, ..packet(n) };
    // Packet 1 is missing, so 2 is buffered when the other source starts. Then a late packet of the first arrives.
    let arrivals = vec![
        (Duration::ZERO, packet(0)),
        (PACKET, packet(2)),
        (PACKET, other(100)),
        (PACKET * 2, packet(3)),
        (PACKET * 2, Packet { seq: 7_101, time: 99 + TICKS, ..other(101) }),
    ];

    let played = play(&mut buffer, start, arrivals, PACKET * 3);

    assert_eq!(numbers(&played), [0, 2, 100, 101]);
    assert_eq!(non_packet_steps(&played), [PlayoutStep::Reset]);
}

#[test]
fn a_sender_that_restarts_with_lower_sequence_numbers_is_played_out() {
    let arrivals: Vec<_> = (0..100_usize)
        .map(|n| {
            let low = if n < 50 { packet(n + 400) } else { packet(n - 50) };
            (PACKET * n as u32, low)
        })
        .collect();

    let played = play(&mut JitterBuffer::default(), now(), arrivals, PACKET * 99);

    let played_numbers = numbers(&played);
    assert_eq!(played_numbers.iter().filter(|n| **n >= 400).count(), 50);
    assert!(
        played_numbers.contains(&49) && played_numbers.contains(&(MAX_LATE_RUN as usize)),
        "{played_numbers:?}"
    );
}

#[test]
fn a_jump_of_the_rtp_timestamp_is_played_out_without_filler() {
    let jumped = |n: usize| Packet {
        time: packet(n).time.wrapping_add(if n < 10 { 0 } else { 48_000 * 3_600 }),
        ..packet(n)
    };
    let arrivals = (0..20).map(|n| (PACKET * n as u32, jumped(n))).collect();

    let played = play(&mut JitterBuffer::default(), now(), arrivals, PACKET * 19);

    assert_eq!(numbers(&played), (0..20).collect::<Vec<_>>());
    assert_eq!(non_packet_steps(&played), [PlayoutStep::Reset]);
}

#[test]
fn invalid_packets_are_dropped_and_excess_packets_are_skipped() {
    let (now, mut buffer) = (now(), JitterBuffer::default());
    buffer.insert(Packet { payload: [].into(), ..packet(0) }, now);
    assert_eq!(buffer.deadline(), None);

    buffer.insert(packet(0), now);
    buffer.poll(now);
    // Packet 1 is missing, and 8 s of later packets arrive at once.
    for n in 2..400 {
        buffer.insert(packet(n), now);
    }

    assert!(duration_of(buffer.buffered.len() as i64 * i64::from(TICKS)) <= MAX_BUFFERED + PACKET);
    assert!(buffer.counters().skipped > 300);
}
