//! Processor time of voice activity detection, what the first stage saves, and what it misses.
//!
//! `make bench-vad` prints the tables and writes `target/bench/vad.json`; `cargo bench --bench vad -- --sweep` compares
//! thresholds instead. Needs the models (`scripts/setup models`) and python3.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and stops where something is missing"
)]

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use june_edge::{
    audio::pcm::{FRAME_SAMPLES, Frame},
    providers::{
        cache_folder,
        inference::onnx::Runtime,
        vad::{
            SpeechDetector,
            earshot::Earshot,
            silero::Engine,
            two_stage::{StageSettings, TwoStage},
        },
    },
    turn::{
        endpointer::EndpointerConfig,
        utterance_detector::{SpeechEvent, UtteranceDetector},
    },
};
use test_support::fixtures;

#[path = "support/figures.rs"]
mod support;

const RATE_HZ: usize = 16_000;

/// A recording to judge.
struct Take {
    name: String,
    frames: Vec<Frame>,
}

/// The result of a detector for a take.
struct Verdict {
    probabilities: Vec<f32>,
    /// Share of frames that reached the second stage.
    awake: f64,
    /// Share of one core that a stream of this takes.
    core_share: f64,
}

fn main() {
    let models = cache_folder(|name| std::env::var(name).ok())
        .expect("a home directory, or JUNE_CACHE")
        .join("models");
    let runtime = Runtime::load(&models.join("libonnxruntime.so.1.23.2")).unwrap();
    let engine = Engine::load(&runtime, &models.join("silero-vad-v6.onnx")).unwrap();

    let speech = speech();
    let quiet = [
        silence(),
        backdrop("white", 0.01),
        backdrop("hum", 0.1),
        backdrop("white", 0.3),
        backdrop("music", 0.5),
        backdrop("babble", 0.5),
    ];
    let mut spoken = vec![Take { name: "speech, clean".into(), frames: frames(&speech) }];
    for snr_db in [20, 10, 5] {
        for kind in ["white", "hum", "music", "babble"] {
            let noise = noise(kind, speech.len());
            spoken.push(Take {
                name: format!("speech + {kind} {snr_db} dB"),
                frames: frames(&mix(&speech, &noise, snr_db)),
            });
        }
    }

    if std::env::args().any(|argument| argument == "--sweep") {
        return sweep(&engine, &quiet, &spoken);
    }

    println!("VAD of one stream, in percent of one core; `awake` is the share of frames that reach Silero\n");
    println!("{:<24} {:>8} {:>8} {:>9} {:>8}", "", "earshot", "silero", "two-stage", "awake");
    let mut figures = Vec::new();
    for take in quiet.iter().chain(&spoken[..1]) {
        let cheap = judge(&mut Earshot::default(), take, |_| false);
        let full = judge(&mut engine.detector(), take, |_| true);
        let both = judge(&mut two_stage(&engine, StageSettings::default()), take, TwoStage::is_awake);
        println!(
            "{:<24} {:>7.3}% {:>7.3}% {:>8.3}% {:>7.1}%",
            take.name,
            100.0 * cheap.core_share,
            100.0 * full.core_share,
            100.0 * both.core_share,
            100.0 * both.awake
        );
        figures.push((format!("{} core_percent", take.name), 100.0 * both.core_share));
    }
    figures.push(("vad_core_percent_silent".into(), figures[1].1));

    println!(
        "\nAgainst Silero alone: speech frames missed, other frames taken for speech, utterances of the endpointer\n"
    );
    println!("{:<24} {:>7} {:>7} {:>7} {:>12} {:>9}", "", "missed", "added", "awake", "utterances", "lost");
    for take in &spoken {
        let row = Comparison::of(&engine, take, &StageSettings::default());
        println!(
            "{:<24} {:>6.2}% {:>6.2}% {:>6.1}% {:>5} of {:>3} {:>9}",
            take.name,
            100.0 * row.missed,
            100.0 * row.added,
            100.0 * row.awake,
            row.utterances,
            row.utterances_alone,
            row.lost
        );
        figures.push((format!("{} missed_percent", take.name), 100.0 * row.missed));
    }
    let figures: Vec<_> = figures.iter().map(|(name, value)| (plain(name), *value)).collect();
    support::write_figures("vad", &figures);
}

/// Two stages compared with the second alone.
struct Comparison {
    missed: f64,
    added: f64,
    awake: f64,
    utterances: usize,
    utterances_alone: usize,
    /// Utterances found by Silero alone of which two stages found nothing.
    lost: usize,
}

impl Comparison {
    fn of(engine: &Engine, take: &Take, settings: &StageSettings) -> Self {
        let alone = judge(&mut engine.detector(), take, |_| true);
        let both = judge(&mut two_stage(engine, *settings), take, TwoStage::is_awake);
        let pairs = || alone.probabilities.iter().zip(&both.probabilities);
        let speech = pairs().filter(|(alone, _)| **alone >= 0.5).count();
        let missed = pairs().filter(|(alone, both)| **alone >= 0.5 && **both < 0.5).count();
        let added = pairs().filter(|(alone, both)| **alone < 0.35 && **both >= 0.5).count();
        let found_alone = utterances(engine.detector(), take);
        let found = utterances(two_stage(engine, *settings), take);
        let lost = found_alone
            .iter()
            .filter(|(from, to)| !found.iter().any(|(start, end)| start < to && end > from));
        Self {
            missed: missed as f64 / speech.max(1) as f64,
            added: added as f64 / (take.frames.len() - speech).max(1) as f64,
            awake: both.awake,
            utterances: found.len(),
            utterances_alone: found_alone.len(),
            lost: lost.count(),
        }
    }
}

/// Prints what each setting of the first stage saves and misses.
fn sweep(engine: &Engine, quiet: &[Take], spoken: &[Take]) {
    println!(
        "wake stay warm | awake: {} | speech | missed worst mean | lost",
        quiet.iter().map(|take| take.name.as_str()).collect::<Vec<_>>().join(" ")
    );
    for wake in [0.30, 0.35, 0.40, 0.45, 0.50] {
        for (stay_awake_frames, warm_up_frames) in [(10, 6), (20, 6), (10, 12), (10, 0)] {
            let settings = StageSettings { wake, stay_awake_frames, warm_up_frames };
            let awake: Vec<String> = quiet
                .iter()
                .map(|take| judge(&mut two_stage(engine, settings), take, TwoStage::is_awake).awake)
                .map(|share| format!("{:>5.1}", 100.0 * share))
                .collect();
            let rows: Vec<Comparison> =
                spoken.iter().map(|take| Comparison::of(engine, take, &settings)).collect();
            let missed = rows.iter().map(|row| 100.0 * row.missed);
            println!(
                "{wake:.2} {stay_awake_frames:>4} {warm_up_frames:>4} | {} | {:>5.1} | {:>5.2} {:>5.2} | {}",
                awake.join(" "),
                100.0 * rows[0].awake,
                missed.clone().fold(0.0, f64::max),
                missed.sum::<f64>() / rows.len() as f64,
                rows.iter().map(|row| row.lost).sum::<usize>()
            );
        }
    }
}

fn two_stage(
    engine: &Engine,
    settings: StageSettings,
) -> TwoStage<june_edge::providers::vad::silero::Silero> {
    TwoStage::new(engine.detector(), settings)
}

fn judge<D: SpeechDetector>(detector: &mut D, take: &Take, awake: impl Fn(&D) -> bool) -> Verdict {
    let mut awake_frames = 0;
    let began = cpu_time();
    let probabilities: Vec<f32> = take
        .frames
        .iter()
        .map(|frame| {
            let probability = detector.probability(frame).unwrap();
            awake_frames += usize::from(awake(detector));
            probability
        })
        .collect();
    let spent = cpu_time() - began;
    let count = take.frames.len();
    Verdict {
        probabilities,
        awake: awake_frames as f64 / count as f64,
        core_share: spent.as_secs_f64() / Duration::from_millis(32 * count as u64).as_secs_f64(),
    }
}

/// Processor time of this thread.
fn cpu_time() -> Duration {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(statistics.split(' ').next().unwrap().parse().unwrap())
}

fn utterances(detector: impl SpeechDetector + 'static, take: &Take) -> Vec<(u64, u64)> {
    let mut detector = UtteranceDetector::new(Box::new(detector), EndpointerConfig::default());
    let mut events = detector.push(take.frames.as_flattened());
    events.extend(detector.stall());
    let mut found = Vec::new();
    let mut began = 0;
    for event in events {
        match event {
            SpeechEvent::Started { at_sample } => began = at_sample,
            SpeechEvent::Ended { at_sample, .. } => found.push((began, at_sample)),
            SpeechEvent::Audio(_) | SpeechEvent::Paused | SpeechEvent::WentOn { .. } => {}
        }
    }
    found
}

/// All clips after one another, each after 1.5 s of a quiet room.
fn speech() -> Vec<i16> {
    let folder = fixtures();
    let mut clips: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wav"))
        .collect();
    clips.sort();
    let room = noise("white", 3 * RATE_HZ / 2);
    let mut all = Vec::new();
    for clip in clips {
        all.extend(room.iter().map(|sample| sample / 200)); // -66 dBFS
        all.extend(hound::WavReader::open(clip).unwrap().into_samples::<i16>().map(Result::unwrap));
    }
    all
}

fn silence() -> Take {
    Take { name: "digital silence".into(), frames: vec![[0; FRAME_SAMPLES]; 20 * 31] }
}

/// 30 s of noise at -20 dBFS, scaled by this factor.
fn backdrop(kind: &str, scale: f32) -> Take {
    let level = -20.0 + 20.0 * scale.log10();
    let samples: Vec<i16> =
        noise(kind, 30 * RATE_HZ).iter().map(|sample| (f32::from(*sample) * scale) as i16).collect();
    Take { name: format!("{kind} {level:.0} dBFS"), frames: frames(&samples) }
}

fn noise(kind: &str, samples: usize) -> Vec<i16> {
    let seconds = samples.div_ceil(RATE_HZ).to_string();
    let made =
        Command::new("python3").arg(fixtures().join("noise.py")).args([kind, &seconds]).output().unwrap();
    assert!(made.status.success(), "noise.py: {}", String::from_utf8_lossy(&made.stderr));
    made.stdout.as_chunks().0.iter().map(|pair| i16::from_le_bytes(*pair)).take(samples).collect()
}

fn mix(speech: &[i16], noise: &[i16], snr_db: i32) -> Vec<i16> {
    let energy = |samples: &[i16]| samples.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>();
    let scale = (energy(speech) / energy(noise) / 10f64.powf(f64::from(snr_db) / 10.0)).sqrt();
    speech
        .iter()
        .zip(noise)
        .map(|(voice, noise)| (f64::from(*voice) + scale * f64::from(*noise)) as i16)
        .collect()
}

fn frames(samples: &[i16]) -> Vec<Frame> {
    samples.as_chunks().0.to_vec()
}

/// A name as a key of the figures: words and numbers apart by `_`.
fn plain(name: &str) -> String {
    let words = name.split(|mark: char| !mark.is_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("_")
}
