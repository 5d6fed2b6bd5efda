//! The jitter buffer behind a simulated network, in virtual time.

use std::collections::BTreeSet;

use super::*;
use crate::clock::now;

const PACKET: Duration = Duration::from_millis(20);
const TICKS: u32 = 960;
/// Opus's first byte for one frame of 20 ms.
const TOC: u8 = 0x08;
const SEEDS: Range<u64> = 0..50;

// --- The simulated network --------------------------------------------------------------------------------

/// What a network does to packets.
#[derive(Debug, Clone, Copy, Default)]
struct Impairment {
    /// The chance that a loss begins, and how many packets one loss takes.
    loss: f64,
    burst: usize,
    /// The most by which one packet is later than another.
    jitter: Duration,
    /// The chance that a packet comes twice.
    duplication: f64,
}

/// Small, fast and the same everywhere (SplitMix64).
struct Chance(u64);

impl Chance {
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

/// A packet of 20 ms that carries its number.
fn packet(number: usize) -> Packet {
    let payload = [&[TOC][..], &(number as u32).to_be_bytes()].concat();
    Packet { ssrc: 1, seq: number as u16, time: (number as u32).wrapping_mul(TICKS), payload: payload.into() }
}

/// A buffer that has played packet 0, and when.
fn begun() -> (Instant, JitterBuffer) {
    let (now, mut buffer) = (now(), JitterBuffer::default());
    buffer.insert(packet(0), now);
    buffer.poll(now);
    (now, buffer)
}

fn number(payload: &[u8]) -> usize {
    u32::from_be_bytes(payload[1..5].try_into().unwrap()) as usize
}

/// When each of `packets`, sent 20 ms apart, arrives.
fn through(
    network: Impairment,
    seed: u64,
    packets: impl IntoIterator<Item = Packet>,
) -> Vec<(Duration, Packet)> {
    let mut chance = Chance(seed);
    let mut arrivals = Vec::new();
    let mut to_lose = 0;
    for (sent, packet) in packets.into_iter().enumerate() {
        if to_lose == 0 && sent > 0 && chance.unit() < network.loss {
            to_lose = network.burst.max(1);
        }
        if to_lose > 0 {
            to_lose -= 1;
            continue;
        }
        let at = PACKET * sent as u32 + network.jitter.mul_f64(chance.unit());
        if chance.unit() < network.duplication {
            arrivals.push((at + network.jitter.mul_f64(chance.unit()), packet.clone()));
        }
        arrivals.push((at, packet));
    }
    arrivals.sort_by_key(|(at, _)| *at);
    arrivals
}

/// Lets `arrivals` come to `buffer`, and time run on until `end`; returns what was played when.
fn play(
    buffer: &mut JitterBuffer,
    start: Instant,
    arrivals: Vec<(Duration, Packet)>,
    end: Duration,
) -> Vec<(Duration, Play)> {
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
            "the deadline is due and nothing is played: the driver would spin"
        );
    }
}

/// The numbers of the packets that were played, in order.
fn numbers(played: &[(Duration, Play)]) -> Vec<usize> {
    played
        .iter()
        .filter_map(
            |(_, play)| {
                if let Play::Packet { payload, .. } = play { Some(number(payload)) } else { None }
            },
        )
        .collect()
}

fn total_ticks(played: &[(Duration, Play)]) -> u64 {
    played.iter().map(|(_, play)| u64::from(play.ticks())).sum()
}

/// Everything that was played apart from packets.
fn covers(played: &[(Duration, Play)]) -> Vec<Play> {
    played
        .iter()
        .filter(|(_, play)| !matches!(play, Play::Packet { .. }))
        .map(|(_, play)| play.clone())
        .collect()
}

/// The longest that a packet waited after it could have been played, were nothing lost or late.
fn worst_delay(played: &[(Duration, Play)]) -> Duration {
    let packets = played.iter().filter(|(_, play)| matches!(play, Play::Packet { .. }));
    let sent = numbers(played).into_iter().map(|number| PACKET * number as u32);
    packets.zip(sent).map(|((at, _), sent)| at.saturating_sub(sent)).max().unwrap_or_default()
}

// --- Networks -----------------------------------------------------------------------------------------------

#[test]
fn packets_in_order_are_played_when_they_arrive() {
    let start = now();
    let played = play(
        &mut JitterBuffer::default(),
        start,
        through(Impairment::default(), 0, (0..100).map(packet)),
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
        let arrivals = through(network, seed, (0..500).map(packet));
        // The one that comes first is taken for the first; what was sent before it is late.
        let first = number(&arrivals[0].1.payload);
        let played = play(&mut buffer, now(), arrivals, PACKET * 502);

        assert_eq!(numbers(&played), (first..500).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(covers(&played), [], "seed {seed}");
        assert!(worst_delay(&played) < network.jitter + MAX_HOLD, "seed {seed}");
    }
}

#[test]
fn lost_packets_are_covered_by_as_much_as_was_lost_and_delay_stays_low() {
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
            // The last packets arrive, so that every hole has an end.
            let mut arrivals = through(network, seed, (0..1_000).map(packet));
            arrivals.push((PACKET * 1_000, packet(1_000)));
            let first = number(&arrivals[0].1.payload);
            let mut arrived: Vec<usize> =
                arrivals.iter().map(|(_, p)| number(&p.payload)).filter(|n| *n >= first).collect();
            arrived.sort_unstable();
            arrived.dedup();

            let played = play(&mut buffer, now(), arrivals, PACKET * 1_010);

            let heard = numbers(&played);
            assert_eq!(heard, arrived, "{name}, seed {seed}: packets that arrived were not played in order");
            let sent = (1_001 - first) as u64 * u64::from(TICKS);
            // A pause behind the last packet is filled in real time.
            let slack = ticks_of(Duration::from_millis(200)) as u64;
            assert!(
                (sent..=sent + slack).contains(&total_ticks(&played)),
                "{name}, seed {seed}: the length is not the sender's"
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
fn a_hole_is_covered_by_concealment_and_the_fec_of_the_packet_behind_it() {
    let arrivals = [0, 1, 4, 5].map(|n| (PACKET * n as u32, packet(n))).to_vec();
    let played = play(&mut JitterBuffer::default(), now(), arrivals, PACKET * 7);

    assert_eq!(numbers(&played), [0, 1, 4, 5]);
    let next = packet(4).payload;
    assert_eq!(covers(&played), [Play::Conceal { ticks: TICKS }, Play::Recover { next, ticks: TICKS }]);
}

#[test]
fn a_hole_longer_than_concealment_reaches_is_faded_and_then_silent() {
    let arrivals = [0, 10, 11]
        .map(|n| (if n == 0 { Duration::ZERO } else { PACKET * (n as u32 - 8) }, packet(n)))
        .to_vec();
    let played = play(&mut JitterBuffer::default(), now(), arrivals, PACKET * 7);

    let fade = 2_880;
    assert_eq!(covers(&played), [Play::Conceal { ticks: fade }, Play::Silence { ticks: 9 * TICKS - fade }]);
}

#[test]
fn the_wait_behind_holes_follows_the_network() {
    let (start, mut buffer) = (now(), JitterBuffer::default());

    // Every tenth packet is 45 ms late, for a while.
    let late = |n: usize| {
        if n % 10 == 9 { Duration::from_millis(45) } else { Duration::ZERO }
    };
    let mut arrivals: Vec<_> = (0..300).map(|n| (PACKET * n as u32 + late(n), packet(n))).collect();
    arrivals.sort_by_key(|(at, _)| *at);
    play(&mut buffer, start, arrivals, PACKET * 299);
    let learnt = buffer.network.hold;
    let given_up = buffer.counters().late;

    // Then every tenth is lost.
    let lossy = (300..400).filter(|n| n % 10 != 9).map(|n| (PACKET * n as u32, packet(n))).collect();
    play(&mut buffer, start, lossy, PACKET * 399);

    assert!(learnt > Duration::from_millis(45), "{learnt:?}");
    assert_eq!(given_up, 0, "packets came after they had been given up");
    assert_eq!(buffer.network.hold, MIN_HOLD);
}

// --- Redundancy ---------------------------------------------------------------------------------------------

#[test]
fn a_copy_fills_its_hole_at_once_and_only_its_hole() {
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
fn a_copy_that_fits_nowhere_is_not_played() {
    let (now, mut buffer) = begun();
    let carrier = packet(2);
    buffer.insert(carrier.clone(), now);

    // Before what was played already; overlapping its carrier; of another source.
    buffer.insert_copy(&carrier, 1, 5 * TICKS, packet(1).payload, now);
    buffer.insert_copy(&carrier, 1, TICKS / 2, packet(1).payload, now);
    buffer.insert_copy(&Packet { ssrc: 9, ..carrier }, 1, TICKS, packet(1).payload, now);

    assert_eq!(buffer.held.len(), 1);
}

// --- Sent again ---------------------------------------------------------------------------------------------

/// Lets packets come 20 ms apart, but for those that are `lost`: these come `answer` after the buffer asked for them,
/// if they do.
fn play_asking(
    buffer: &mut JitterBuffer,
    packets: usize,
    lost: &BTreeSet<usize>,
    answer: Option<Duration>,
) -> Vec<(Duration, Play)> {
    let start = now();
    let sent = (0..packets).filter(|n| !lost.contains(n)).map(|n| (PACKET * n as u32, n));
    let mut arrivals: BTreeSet<(Duration, usize)> = sent.collect();
    let (mut asked, mut played) = (BTreeSet::new(), Vec::new());
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
        if let (true, Some(answer)) = (buffer.has_hole(), answer) {
            let new = lost.range(..until_now).copied().filter(|number| asked.insert(*number));
            arrivals.extend(new.map(|number| (now - start + answer, number)));
        }
    }
}

/// Runs of up to `longest` lost packets, an eighth of all.
fn lost_in_runs(seed: u64, packets: usize, longest: usize) -> BTreeSet<usize> {
    let (mut chance, mut lost) = (Chance(seed), BTreeSet::new());
    let mut at = 1;
    while at + longest < packets {
        let run = 1 + chance.next() as usize % longest;
        lost.extend(at..at + run);
        at += run * 8;
    }
    lost
}

#[test]
fn what_the_peer_sends_again_in_time_leaves_nothing_to_conceal() {
    for seed in SEEDS {
        for answer in [5, 20, 40].map(Duration::from_millis) {
            let (mut buffer, lost) = (JitterBuffer::default(), lost_in_runs(seed, 1_000, 4));
            let played = play_asking(&mut buffer, 1_000, &lost, Some(answer));

            assert_eq!(numbers(&played), (0..1_000).collect::<Vec<_>>(), "seed {seed}, {answer:?}");
            assert_eq!(covers(&played), [], "seed {seed}, {answer:?}");
            // The first of four lost ones waits for the packet behind them, and for the answer.
            assert!(worst_delay(&played) <= PACKET * 4 + answer, "seed {seed}: {:?}", worst_delay(&played));
        }
    }
}

#[test]
fn a_peer_that_does_not_answer_is_not_waited_for() {
    let (mut buffer, lost) = (JitterBuffer::default(), lost_in_runs(7, 1_000, 3));
    play_asking(&mut buffer, 1_000, &lost, None);

    assert_eq!(buffer.network.hold, MIN_HOLD);
}

#[test]
fn what_the_peer_sends_again_too_late_disturbs_nothing() {
    // Many at once, so that they could be taken for a new beginning.
    let lost: BTreeSet<usize> = (100..100 + 2 * MAX_LATE_RUN as usize).chain([200, 300]).collect();
    let mut buffer = JitterBuffer::default();
    let played = play_asking(&mut buffer, 400, &lost, Some(Duration::from_millis(150)));

    assert_eq!(buffer.counters().late, lost.len() as u64);
    assert!(!covers(&played).contains(&Play::Restart));
    assert_eq!(total_ticks(&played), 400 * u64::from(TICKS));
    assert!(buffer.network.hold < MAX_HOLD / 2, "it waits for what does not come in time");
}

#[test]
fn a_packet_with_a_copy_is_not_asked_for() {
    let (now, mut buffer) = begun();

    let carrier = packet(3);
    buffer.insert(carrier.clone(), now);
    buffer.insert_copy(&carrier, 1, TICKS, packet(2).payload, now);
    assert!(buffer.has_hole(), "packet 1 is missing");
    buffer.insert_copy(&carrier, 2, 2 * TICKS, packet(1).payload, now);
    assert!(!buffer.has_hole());
}

// --- Pauses -------------------------------------------------------------------------------------------------

#[test]
fn a_pause_is_filled_in_real_time_and_ends_where_the_senders_clock_says() {
    let (start, mut buffer) = (now(), JitterBuffer::default());
    // The sender is silent for 3 s, by its clock too.
    let mut arrivals: Vec<_> = (0..50).map(|n| (PACKET * n as u32, packet(n))).collect();
    arrivals.extend((50..100).map(|n| {
        let resumed = Packet { time: packet(n + 150).time, ..packet(n) };
        (PACKET * (n as u32 + 150), resumed)
    }));

    let played = play(&mut buffer, start, arrivals, PACKET * 249);

    assert_eq!(total_ticks(&played), 250 * u64::from(TICKS));
    // Silence comes steadily: a reader never waits longer than until it is sure that this is a pause.
    let gaps = played.windows(2).map(|pair| pair[1].0 - pair[0].0);
    assert!(gaps.max().unwrap() <= MIN_IDLE + PACKET, "a reader had to wait");
    let silent: u32 =
        covers(&played).iter().filter(|play| matches!(play, Play::Silence { .. })).map(Play::ticks).sum();
    assert!(silent > 140 * TICKS, "{silent} ticks of silence");
}

#[test]
fn comfort_noise_covers_the_time_between_dtx_packets() {
    let (start, mut buffer) = (now(), JitterBuffer::default());
    let dtx = |n: usize| Packet { time: (n as u32 * 20) * TICKS, payload: [TOC].into(), ..packet(n) };
    let arrivals = (0..5).map(|n| (PACKET * 20 * n as u32, dtx(n))).collect();

    let played = play(&mut buffer, start, arrivals, PACKET * 80);

    assert!(covers(&played).iter().all(|play| matches!(play, Play::Conceal { .. })));
    assert_eq!(total_ticks(&played), 81 * u64::from(TICKS));
}

#[test]
fn filler_that_was_too_long_is_taken_off_the_next_pauses() {
    let (start, mut buffer) = (now(), JitterBuffer::default());
    // The network holds ten packets back for 400 ms; the sender did not pause.
    let mut arrivals: Vec<_> = (0..10).map(|n| (PACKET * n as u32, packet(n))).collect();
    arrivals.extend((10..30).map(|n| (PACKET * 30, packet(n))));
    arrivals.extend((30..40).map(|n| (PACKET * n as u32, packet(n))));
    // Later it does, twice, for a second each.
    let after = |pause: u32| {
        move |n: usize| {
            (PACKET * (n as u32 + pause), Packet { time: packet(n + pause as usize).time, ..packet(n) })
        }
    };
    arrivals.extend((40..60).map(after(50)));
    arrivals.extend((60..80).map(after(100)));

    let played = play(&mut buffer, start, arrivals, PACKET * 179);

    assert_eq!(numbers(&played), (0..80).collect::<Vec<_>>());
    assert_eq!(total_ticks(&played), 180 * u64::from(TICKS), "the stream is not as long as the sender's");
}

#[test]
fn a_sender_whose_clock_loses_time_in_pauses_does_not_make_the_next_pause_begin_later() {
    let mut buffer = JitterBuffer::default();
    // 20 packets and a pause of 500 ms, of which its clock knows 460.
    let arrivals = (0..1_000_usize)
        .map(|n| {
            let pauses = (n / 20) as u32;
            let resumed = Packet { time: packet(n).time + pauses * 23 * TICKS, ..packet(n) };
            (PACKET * (n as u32 + pauses * 25), resumed)
        })
        .collect();

    play(&mut buffer, now(), arrivals, PACKET * (1_000 + 50 * 25));

    assert_eq!(buffer.network.idle(), MIN_IDLE);
}

#[test]
fn a_burst_leaves_at_twice_real_time_so_that_a_short_queue_holds_it() {
    let (start, mut buffer) = (now(), JitterBuffer::default());
    let mut arrivals = vec![(Duration::ZERO, packet(0))];
    arrivals.extend((1..26).map(|n| (Duration::from_millis(70), packet(n))));

    let played = play(&mut buffer, start, arrivals, Duration::from_secs(1) / 2);

    let left_by = |ms: u64| played.iter().filter(|(at, _)| *at <= Duration::from_millis(ms)).count();
    assert_eq!(left_by(70), 1 + 5, "80 ms leave at once, and one more begins");
    assert!(left_by(170) <= 1 + 5 + 10 && left_by(170) >= 1 + 5 + 9);
    assert_eq!(numbers(&played), (0..26).collect::<Vec<_>>());
}

#[test]
fn a_clock_that_drifts_makes_the_stream_neither_longer_nor_shorter() {
    for ppm in [-200_i64, 200] {
        let mut buffer = JitterBuffer::default();
        let drifting = |n: usize| {
            Duration::from_nanos((n as u64 * 20_000_000).saturating_add_signed(n as i64 * 20 * ppm))
        };
        // An hour, with a pause of ten seconds each minute.
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
fn numbers_that_wrap_around_are_no_event() {
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
    assert_eq!(covers(&played), []);
}

#[test]
fn a_day_of_packets_wraps_around_again_and_again_and_every_one_is_played() {
    let (start, mut buffer, mut played) = (now(), JitterBuffer::default(), 0_usize);
    // 24 h of 60 ms packets: the sequence numbers wrap around 21 times, the timestamps nearly once; started
    // shortly before their end, they do.
    const DAY: usize = 24 * 3600 * 1000 / 60;
    for n in 0..DAY {
        let now = start + Duration::from_millis(60) * n as u32;
        let time = (u32::MAX - 1_000_000).wrapping_add((n as u32).wrapping_mul(2_880));
        // 0x18 is one frame of 60 ms.
        let payload = [&[0x18][..], &(n as u32).to_be_bytes()].concat().into();
        buffer.insert(Packet { ssrc: 1, seq: n as u16, time, payload }, now);
        while let Some(play) = buffer.poll(now) {
            assert!(matches!(play, Play::Packet { .. }), "packet {n}: {play:?}");
            played += 1;
        }
    }

    assert_eq!(played, DAY);
}

#[test]
fn another_source_starts_over_after_what_waits_of_the_first() {
    let (start, mut buffer) = (now(), JitterBuffer::default());
    let other = |n: usize| Packet { ssrc: 2, seq: 7_000 + n as u16, time: 99, ..packet(n) };
    // Packet 1 is missing, so 2 waits when the other source begins; then a straggler of the first comes.
    let arrivals = vec![
        (Duration::ZERO, packet(0)),
        (PACKET, packet(2)),
        (PACKET, other(100)),
        (PACKET * 2, packet(3)),
        (PACKET * 2, Packet { seq: 7_101, time: 99 + TICKS, ..other(101) }),
    ];

    let played = play(&mut buffer, start, arrivals, PACKET * 3);

    assert_eq!(numbers(&played), [0, 2, 100, 101]);
    assert_eq!(covers(&played), [Play::Restart]);
}

#[test]
fn a_sender_that_begins_anew_with_lower_numbers_is_heard_again() {
    let arrivals: Vec<_> = (0..100_usize)
        .map(|n| {
            let low = if n < 50 { packet(n + 400) } else { packet(n - 50) };
            (PACKET * n as u32, low)
        })
        .collect();

    let played = play(&mut JitterBuffer::default(), now(), arrivals, PACKET * 99);

    let heard = numbers(&played);
    assert_eq!(heard.iter().filter(|n| **n >= 400).count(), 50);
    assert!(heard.contains(&49) && heard.contains(&(MAX_LATE_RUN as usize)), "{heard:?}");
}

#[test]
fn a_jump_of_the_senders_clock_plays_on_at_once() {
    let jumped = |n: usize| Packet {
        time: packet(n).time.wrapping_add(if n < 10 { 0 } else { 48_000 * 3_600 }),
        ..packet(n)
    };
    let arrivals = (0..20).map(|n| (PACKET * n as u32, jumped(n))).collect();

    let played = play(&mut JitterBuffer::default(), now(), arrivals, PACKET * 19);

    assert_eq!(numbers(&played), (0..20).collect::<Vec<_>>());
    assert_eq!(covers(&played), [Play::Restart]);
}

#[test]
fn what_is_no_opus_is_dropped_and_too_much_is_skipped() {
    let (now, mut buffer) = (now(), JitterBuffer::default());
    buffer.insert(Packet { payload: [].into(), ..packet(0) }, now);
    assert_eq!(buffer.deadline(), None);

    buffer.insert(packet(0), now);
    buffer.poll(now);
    // Packet 1 is missing, and a minute of others comes at once.
    for n in 2..400 {
        buffer.insert(packet(n), now);
    }

    assert!(duration_of(buffer.held.len() as i64 * i64::from(TICKS)) <= MAX_HELD + PACKET);
    assert!(buffer.counters().skipped > 300);
}
