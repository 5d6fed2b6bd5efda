//! Sound coded, carried over a line that loses packets, and decoded by libopus, in virtual time.

use std::f64::consts::TAU;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::format::Format;
use super::jitter::Packet;
use super::measure::{sine, snr_db};
use super::receiver::{Packing, Receiver};
use super::red::Packer;
use super::report::ReceiveReport;
use super::sender::{Coding, Sender};
use super::sink::{Sink, Sinks};
use crate::clock::now;

const RATE: u32 = 16_000;
const OPUS: u8 = 111;
const TICK: Duration = Duration::from_millis(10);
const SAMPLES_PER_TICK: usize = RATE as usize / 100;
const SPEECH: Coding = Coding { max_bitrate: Some(32_000), dtx: false, fec: true, stereo: false };

/// What came out at the other end.
struct Heard {
    pcm: Vec<i16>,
    /// Packets that were sent, lost ones included.
    sent: usize,
    report: ReceiveReport,
}

/// Sends `pcm` at real time and takes what the receiver plays meanwhile.
fn carry(pcm: &[i16], coding: Coding, red: bool, lost: impl Fn(usize) -> bool) -> Heard {
    let mut sender = Sender::new(Format::SPEECH, coding, 7, 7).unwrap();
    let mut packer = red.then(Packer::default);
    let mut receiver = Receiver::default();
    let sinks = Sinks::default();
    let sink = Arc::new(Sink::new(Format::SPEECH, None));
    sinks.add(&sink);
    let packing = if red { Packing::Red { opus: OPUS } } else { Packing::Opus };

    let (start, mut sent) = (now(), 0);
    for (tick, pcm) in (0..).zip(pcm.chunks(SAMPLES_PER_TICK)) {
        let now = start + TICK * tick;
        sender.push(pcm, now, |outgoing| {
            let payload = match &mut packer {
                Some(packer) => packer.pack(outgoing.payload, outgoing.time, OPUS),
                None => outgoing.payload,
            };
            if !lost(sent) {
                let packet = Packet {
                    ssrc: 1,
                    seq: outgoing.seq as u16,
                    time: outgoing.time,
                    payload: payload.into(),
                };
                receiver.insert(packet, packing, now);
            }
            sent += 1;
        });
        receiver.run(&sinks, true, now, &mut Vec::new());
    }
    Heard { pcm: drain(&sink), sent, report: receiver.report() }
}

fn drain(sink: &Sink) -> Vec<i16> {
    let mut pcm = Vec::new();
    while let Poll::Ready(Some(frame)) = sink.poll_frame(&mut Context::from_waker(Waker::noop())) {
        pcm.extend_from_slice(&frame.data);
    }
    pcm
}

/// Something like a voice: a buzz whose harmonics fall off, gliding between 100 and 220 Hz, in four syllables a
/// second. What it does next cannot be guessed from what it did before.
fn voice(seconds: usize) -> Vec<i16> {
    let mut phase = 0.0;
    (0..RATE as usize * seconds)
        .map(|i| {
            let at = i as f64 / f64::from(RATE);
            phase += TAU * (160.0 + 60.0 * (TAU * 3.3 * at).sin()) / f64::from(RATE);
            let buzz: f64 = (1..=20).map(f64::from).map(|n| (n * phase).sin() * 6_000.0 / n).sum();
            (buzz * (0.55 + 0.45 * (TAU * 4.0 * at).sin())) as i16
        })
        .collect()
}

/// The power of `heard` against that of its difference from `clean`, in dB.
fn likeness_db(heard: &[i16], clean: &[i16]) -> f64 {
    let (mut power, mut error) = (0.0, 1e-9);
    for (heard, clean) in heard.iter().zip(clean) {
        power += f64::from(*clean).powi(2);
        error += (f64::from(*heard) - f64::from(*clean)).powi(2);
    }
    10.0 * (power / error).log10()
}

#[test]
fn a_tone_comes_out_as_it_went_in_and_without_a_hole() {
    let heard = carry(&sine(440.0, 12_000.0, RATE, 48_000), SPEECH, false, |_| false);

    let tone = snr_db(&heard.pcm[16_000..40_000], RATE, 440.0);
    assert!((tone.amplitude - 12_000.0).abs() < 120.0 && tone.snr_db > 25.0, "{tone:?}");
    assert!(heard.pcm.len() > 48_000 - 3_200, "{} samples", heard.pcm.len());
    assert_eq!(heard.report.counters.concealments, 0);
}

#[test]
fn a_lost_packet_comes_back_better_from_the_copy_in_the_next_one_than_made_up() {
    let voice = voice(6);
    let lost = |number: usize| number > 100 && number.is_multiple_of(10);
    // Forward error correction changes what is coded, so each is held against itself without loss.
    let likeness = |fec| {
        let coding = Coding { fec, ..SPEECH };
        let clean = carry(&voice, coding, false, |_| false);
        let heard = carry(&voice, coding, false, lost);
        assert_eq!(heard.pcm.len(), clean.pcm.len(), "losses must not move the sound");
        likeness_db(&heard.pcm, &clean.pcm)
    };

    let (with, without) = (likeness(true), likeness(false));

    assert!(with > without + 3.0, "{with:.1} dB with FEC, {without:.1} dB without");
}

#[test]
fn with_redundant_packets_single_losses_are_not_heard_at_all() {
    let voice = voice(6);
    let clean = carry(&voice, SPEECH, true, |_| false);
    // The first loss teaches the buffer to wait for copies; it may be heard.
    let heard =
        carry(&voice, SPEECH, true, |number| number == 20 || number > 100 && number.is_multiple_of(7));

    let tail = |pcm: &[i16]| pcm[pcm.len() - 3 * RATE as usize..].to_vec();
    let (heard_tail, clean_tail) = (tail(&heard.pcm), tail(&clean.pcm));
    // The buffer may have grown by whole steps of 2.5 ms meanwhile.
    let same = (0..=24).map(|steps| steps * 40).any(|later| {
        heard_tail[later..] == clean_tail[..clean_tail.len() - later]
            || heard_tail[..heard_tail.len() - later] == clean_tail[later..]
    });
    assert!(same, "{:?}", heard.report.counters);
    assert!(heard.report.counters.from_red > 20, "{:?}", heard.report.counters);
}

#[test]
fn while_nobody_speaks_little_is_sent_and_silence_is_played_on() {
    let mut pcm = voice(2);
    pcm.extend(vec![0; 4 * RATE as usize]);
    pcm.extend(voice(2));
    let coding = Coding { dtx: true, ..SPEECH };

    let heard = carry(&pcm, coding, false, |_| false);

    // 200 packets of speech; of 200 of silence, a few until the encoder believes it and then one in 400 ms.
    assert!((200..260).contains(&heard.sent), "{} packets", heard.sent);
    assert!(
        heard.pcm.len() > pcm.len() - 6_400,
        "{} of {} samples: time stood still",
        heard.pcm.len(),
        pcm.len()
    );
    let middle = &heard.pcm[4 * RATE as usize..5 * RATE as usize];
    assert!(middle.iter().all(|sample| sample.abs() < 100), "it is not silent");
    let end = &heard.pcm[heard.pcm.len() - RATE as usize..];
    assert!(end.iter().any(|sample| *sample > 5_000), "speech did not come back");
}

#[test]
fn the_rtp_clock_keeps_to_the_senders_over_any_number_of_pauses() {
    let mut sender = Sender::new(Format::SPEECH, SPEECH, 7, u32::MAX - 960).unwrap();
    let start = now();
    let (mut now, mut first) = (start, None);
    for pause in 0..500_u32 {
        for pcm in sine(440.0, 12_000.0, RATE, 6_400).chunks(SAMPLES_PER_TICK * 2) {
            sender.push(pcm, now, |packet| {
                let first = *first.get_or_insert(packet.time);
                let ticks = (now - start).as_secs_f64() * 48_000.0;
                let off_ms = (f64::from(packet.time.wrapping_sub(first)) - ticks) / 48.0;
                assert!(off_ms.abs() < 20.0, "{off_ms} ms off after {pause} pauses");
            });
            now += 2 * TICK;
        }
        now += Duration::from_millis(130 + u64::from(pause * 7 % 53));
    }
}

#[test]
fn each_stream_of_a_track_gets_the_format_it_asked_for() {
    let mut sender = Sender::new(Format::SPEECH, SPEECH, 7, 7).unwrap();
    let mut receiver = Receiver::default();
    let sinks = Sinks::default();
    let formats = [(8_000, 1), (16_000, 1), (44_100, 1), (48_000, 2)];
    let streams = formats.map(|(rate, channels)| {
        let sink = Arc::new(Sink::new(Format::new(rate, channels).unwrap(), None));
        sinks.add(&sink);
        sink
    });
    let start = now();
    for (tick, pcm) in (0..).zip(sine(440.0, 12_000.0, RATE, 32_000).chunks(SAMPLES_PER_TICK)) {
        let now = start + TICK * tick;
        sender.push(pcm, now, |outgoing| {
            let packet = Packet {
                ssrc: 1,
                seq: outgoing.seq as u16,
                time: outgoing.time,
                payload: outgoing.payload.into(),
            };
            receiver.insert(packet, Packing::Opus, now);
        });
        receiver.run(&sinks, true, now, &mut Vec::new());
    }

    for ((rate, channels), stream) in formats.into_iter().zip(streams) {
        let left: Vec<i16> = drain(&stream).into_iter().step_by(channels as usize).collect();
        let tone = snr_db(&left[rate as usize..], rate as u32, 440.0);
        assert!(
            (tone.amplitude - 12_000.0).abs() < 240.0 && tone.snr_db > 20.0,
            "{rate} Hz in {channels} channels: {tone:?}"
        );
    }
}

#[test]
fn what_is_no_opus_packet_harms_nothing() {
    let mut receiver = Receiver::default();
    let sinks = Sinks::default();
    let sink = Arc::new(Sink::new(Format::SPEECH, None));
    sinks.add(&sink);
    let start = now();
    // Every first byte there is, followed by nothing that fits it.
    for number in 0..256_u32 {
        let now = start + 2 * TICK * number;
        let packet = Packet {
            ssrc: 1,
            seq: number as u16,
            time: number * 960,
            payload: vec![number as u8, 0xff, 0xff].into(),
        };
        for packing in [Packing::Opus, Packing::Red { opus: OPUS }] {
            receiver.insert(packet.clone(), packing, now);
        }
        receiver.run(&sinks, true, now, &mut Vec::new());
    }
}
