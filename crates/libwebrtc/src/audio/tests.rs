//! Sender and receiver with libopus over a simulated lossy network, in virtual time.

use std::f64::consts::TAU;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::format::Format;
use super::jitter::Packet;
use super::measure::{sine, snr_db};
use super::receiver::{PayloadFormat, Receiver};
use super::red::Packer;
use super::report::ReceiveReport;
use super::sender::{EncoderSettings, Sender};
use super::sink::{Sink, Sinks};
use crate::clock::now;

const RATE: u32 = 16_000;
const OPUS: u8 = 111;
const TICK: Duration = Duration::from_millis(10);
const SAMPLES_PER_TICK: usize = RATE as usize / 100;
const SPEECH: EncoderSettings =
    EncoderSettings { max_bitrate: Some(32_000), dtx: false, fec: true, stereo: false };

/// The received audio and statistics of one transmission.
struct Received {
    pcm: Vec<i16>,
    /// Number of packets sent, including lost ones.
    sent: usize,
    report: ReceiveReport,
}

/// Sends `pcm` in real time over a network that drops the packets for which `lost` is true.
fn transmit(pcm: &[i16], settings: EncoderSettings, red: bool, lost: impl Fn(usize) -> bool) -> Received {
    let mut sender = Sender::new(Format::SPEECH, settings, 7, 7).unwrap();
    let mut packer = red.then(Packer::default);
    let mut receiver = Receiver::default();
    let sinks = Sinks::default();
    let sink = Arc::new(Sink::new(Format::SPEECH, None));
    sinks.add(&sink);
    let payload_format = if red { PayloadFormat::Red { opus: OPUS } } else { PayloadFormat::Opus };

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
                receiver.insert(packet, payload_format, now);
            }
            sent += 1;
        });
        receiver.run(&sinks, true, now, &mut Vec::new());
    }
    Received { pcm: drain(&sink), sent, report: receiver.report() }
}

fn drain(sink: &Sink) -> Vec<i16> {
    let mut pcm = Vec::new();
    while let Poll::Ready(Some(frame)) = sink.poll_frame(&mut Context::from_waker(Waker::noop())) {
        pcm.extend_from_slice(&frame.data);
    }
    pcm
}

/// A speech-like signal: a harmonic tone that glides between 100 and 220 Hz, modulated at four syllables per second.
/// Concealment cannot predict it well.
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

/// Signal-to-noise ratio of `received` against `clean`, in dB.
fn snr_against_db(received: &[i16], clean: &[i16]) -> f64 {
    let (mut power, mut error) = (0.0, 1e-9);
    for (received, clean) in received.iter().zip(clean) {
        power += f64::from(*clean).powi(2);
        error += (f64::from(*received) - f64::from(*clean)).powi(2);
    }
    10.0 * (power / error).log10()
}

#[test]
fn a_tone_is_received_undistorted_and_without_gaps() {
    let received = transmit(&sine(440.0, 12_000.0, RATE, 48_000), SPEECH, false, |_| false);

    let tone = snr_db(&received.pcm[16_000..40_000], RATE, 440.0);
    assert!((tone.amplitude - 12_000.0).abs() < 120.0 && tone.snr_db > 25.0, "{tone:?}");
    assert!(received.pcm.len() > 48_000 - 3_200, "{} samples", received.pcm.len());
    assert_eq!(received.report.counters.concealments, 0);
}

#[test]
fn in_band_fec_restores_a_lost_packet_better_than_concealment() {
    let voice = voice(6);
    let lost = |number: usize| number > 100 && number.is_multiple_of(10);
    // FEC takes bitrate from the primary signal, so each setting is compared with itself without loss.
    let snr_with_loss = |fec| {
        let settings = EncoderSettings { fec, ..SPEECH };
        let clean = transmit(&voice, settings, false, |_| false);
        let received = transmit(&voice, settings, false, lost);
        assert_eq!(received.pcm.len(), clean.pcm.len(), "losses must not shift the audio in time");
        snr_against_db(&received.pcm, &clean.pcm)
    };

    let (with, without) = (snr_with_loss(true), snr_with_loss(false));

    assert!(with > without + 3.0, "{with:.1} dB with FEC, {without:.1} dB without");
}

#[test]
fn red_restores_single_losses_exactly() {
    let voice = voice(6);
    let clean = transmit(&voice, SPEECH, true, |_| false);
    // The first loss, during which the gap wait adapts, may be concealed.
    let received =
        transmit(&voice, SPEECH, true, |number| number == 20 || number > 100 && number.is_multiple_of(7));

    let tail = |pcm: &[i16]| pcm[pcm.len() - 3 * RATE as usize..].to_vec();
    let (received_tail, clean_tail) = (tail(&received.pcm), tail(&clean.pcm));
    // The delay may have changed by whole frames of 2.5 ms.
    let same = (0..=24).map(|steps| steps * 40).any(|later| {
        received_tail[later..] == clean_tail[..clean_tail.len() - later]
            || received_tail[..received_tail.len() - later] == clean_tail[later..]
    });
    assert!(same, "{:?}", received.report.counters);
    assert!(received.report.counters.from_red > 20, "{:?}", received.report.counters);
}

#[test]
fn with_dtx_silence_is_hardly_sent_and_is_played_out_in_real_time() {
    let mut pcm = voice(2);
    pcm.extend(vec![0; 4 * RATE as usize]);
    pcm.extend(voice(2));
    let settings = EncoderSettings { dtx: true, ..SPEECH };

    let received = transmit(&pcm, settings, false, |_| false);

    // 200 packets of speech. Of 200 of silence, a few until the encoder detects it and then one per 400 ms.
    assert!((200..260).contains(&received.sent), "{} packets", received.sent);
    assert!(
        received.pcm.len() > pcm.len() - 6_400,
        "{} of {} samples were played out",
        received.pcm.len(),
        pcm.len()
    );
    let middle = &received.pcm[4 * RATE as usize..5 * RATE as usize];
    assert!(middle.iter().all(|sample| sample.abs() < 100), "the pause is not silent");
    let end = &received.pcm[received.pcm.len() - RATE as usize..];
    assert!(end.iter().any(|sample| *sample > 5_000), "the speech after the pause is missing");
}

#[test]
fn the_rtp_clock_does_not_drift_from_real_time_over_many_pauses() {
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
fn each_stream_of_a_track_gets_its_requested_format() {
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
            receiver.insert(packet, PayloadFormat::Opus, now);
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
fn invalid_opus_packets_do_not_panic() {
    let mut receiver = Receiver::default();
    let sinks = Sinks::default();
    let sink = Arc::new(Sink::new(Format::SPEECH, None));
    sinks.add(&sink);
    let start = now();
    // Every possible first byte, followed by an invalid remainder.
    for number in 0..256_u32 {
        let now = start + 2 * TICK * number;
        let packet = Packet {
            ssrc: 1,
            seq: number as u16,
            time: number * 960,
            payload: vec![number as u8, 0xff, 0xff].into(),
        };
        for payload_format in [PayloadFormat::Opus, PayloadFormat::Red { opus: OPUS }] {
            receiver.insert(packet.clone(), payload_format, now);
        }
        receiver.run(&sinks, true, now, &mut Vec::new());
    }
}
