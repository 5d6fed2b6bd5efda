//! Speech over a network that loses packets, through the whole path: how many words are wrong, and how much
//! later the end of speech is detected, against the same network without losses. Several people speak at once, each in a
//! room of their own, and in so much noise that some words are not understood anyhow: what is understood without effort
//! hides what losses do to it.
//!
//! Part of `make bench-media`; adds its figures to `target/bench/media.json`. About two minutes.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a benchmark prints, stops where something is missing, and waits for one message of many"
)]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

#[path = "support/figures.rs"]
mod figures;
#[allow(dead_code, unused_imports, reason = "shared with the end-to-end tests, which use more of it")]
#[path = "../tests/e2e/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use june_client::{FRAME_SAMPLES, RoomMicrophone};
use june_protocol::{FromClient, ToClient, from_client::Interrupt, to_client::StreamData::Transcription};
use rand::{Rng, SeedableRng, rngs::StdRng};
use support::{Glasses, June, LivekitServer};
use test_support::{Clip, Loss, LossyNetwork, PROXY_ADDRESS, clips, free_port, word_errors, words};

/// Where chance begins; another seed, other losses.
const SEED: u64 = 7;
/// One way between the agent and its server: some 1,000 km.
const LATENCY: Duration = Duration::from_millis(10);
/// How many speak at once.
const SPEAKERS: usize = 6;
/// How far the speech is above the noise.
const SNR_DB: f32 = 20.0;

fn main() {
    actix_web::rt::System::new().block_on(async {
        let (port, udp_port) = (free_port(), free_port());
        let mut livekit = LivekitServer::configure(port, PROXY_ADDRESS, udp_port);
        livekit.run().await;
        let network = LossyNetwork::start(udp_port, LATENCY, SEED).await;
        let data = tempfile::tempdir().unwrap();
        let june = June::with(&livekit, data.path(), port, &[("RUST_LOG", "error")]).await;
        let mut speakers = Vec::new();
        for number in 0..SPEAKERS {
            let mut glasses = june.glasses(&format!("speaker-{number}")).await;
            glasses.agent().await;
            let room = glasses.ack.livekit.clone().unwrap();
            speakers.push((glasses, RoomMicrophone::join(&room.url, &room.token).await.unwrap()));
        }

        let clips: Vec<Clip> = clips().into_iter().map(in_noise).collect();
        println!("Losses on the agents' lines (seed {SEED})   lost       words wrong   end noticed after");
        let mut figures: Vec<(String, f64)> = Vec::new();
        let mut whole = None;
        for (name, key, loss) in [
            ("none", "loss0", Loss::None),
            ("5 % at random", "loss5", Loss::Random(0.05)),
            ("10 % in runs of 3", "loss10_bursts", Loss::Bursts(0.10, 3.0)),
        ] {
            network.lose(loss);
            let all = speakers.iter_mut().map(|(glasses, microphone)| hear(glasses, microphone, &clips));
            let each = futures::future::join_all(all).await;
            let mut heard = each.into_iter().fold(Heard::default(), Heard::and);
            let median_ms = heard.median_noticed_ms();
            println!(
                "  {name:<36} {:>5.1} %   {:>4} of {:>4}   {:>12.0} ms",
                network.lost_percent(),
                heard.wrong,
                heard.spoken,
                median_ms
            );
            figures.push((format!("{key}_wer_percent"), 100.0 * heard.wrong as f64 / heard.spoken as f64));
            let (wrong, noticed_ms) = *whole.get_or_insert((heard.wrong, median_ms));
            if !matches!(loss, Loss::None) {
                // Where not a word was wrong without losses, it is held against one.
                let ratio = heard.wrong as f64 / wrong.max(1) as f64;
                figures.push((format!("{key}_wer_ratio"), ratio));
                figures.push((format!("{key}_added_delay_ms"), median_ms - noticed_ms));
            }
        }
        for (_, microphone) in speakers {
            microphone.leave().await;
        }
        figures::add_figures("media", &figures);
    });
}

/// What came of the recordings.
#[derive(Default)]
struct Heard {
    /// Words.
    wrong: usize,
    spoken: usize,
    /// From each recording's last sample to the end of speech at the client.
    noticed_ms: Vec<f64>,
}

impl Heard {
    fn and(mut self, other: Self) -> Self {
        self.noticed_ms.extend(other.noticed_ms);
        Self { wrong: self.wrong + other.wrong, spoken: self.spoken + other.spoken, ..self }
    }

    fn median_noticed_ms(&mut self) -> f64 {
        self.noticed_ms.sort_by(f64::total_cmp);
        self.noticed_ms[self.noticed_ms.len() / 2]
    }
}

/// Speaks every recording.
async fn hear(glasses: &mut Glasses, microphone: &RoomMicrophone, clips: &[Clip]) -> Heard {
    let mut heard = Heard::default();
    for clip in clips {
        let (said, after) = utter(glasses, microphone, clip).await;
        heard.wrong += word_errors(&clip.words, &said);
        heard.spoken += words(&clip.words).len();
        heard.noticed_ms.push(after.as_secs_f64() * 1000.0);
    }
    heard
}

/// The recording with white noise, the same each time.
fn in_noise(clip: Clip) -> Clip {
    let power = clip.samples.iter().map(|sample| f32::from(*sample).powi(2)).sum::<f32>();
    let rms = (power / clip.samples.len() as f32).sqrt() / 10_f32.powf(SNR_DB / 20.0);
    let mut chance = StdRng::seed_from_u64(SEED);
    // As loud as that, evenly distributed.
    let peak = rms * 3_f32.sqrt();
    let noisy = |sample: &i16| (f32::from(*sample) + chance.random_range(-peak..=peak)) as i16;
    Clip { samples: clip.samples.iter().map(noisy).collect(), ..clip }
}

/// Speaks a recording; what was understood of it, and how long after its last sample the end was noticed.
async fn utter(glasses: &mut Glasses, microphone: &RoomMicrophone, clip: &Clip) -> (String, Duration) {
    let mut said = Vec::new();
    let mut noticed = None;
    let hearing = glasses.wait_for_message(|message| {
        match message {
            ToClient::SpeechEnded { .. } => noticed = Some(Instant::now()),
            ToClient::DataStream { data: Transcription { text, is_final: true, .. }, .. } => {
                said.push(text.clone());
            }
            ToClient::SpeechBegin { .. } => return Some(()),
            _ => {}
        }
        None
    });
    let speaking = async {
        for frame in clip.samples.chunks(FRAME_SAMPLES) {
            microphone.send(frame).await.unwrap();
        }
        let last = Instant::now();
        let silence = vec![0; 16_000];
        for frame in silence.chunks(FRAME_SAMPLES) {
            microphone.send(frame).await.unwrap();
        }
        last
    };
    let ((), last) = tokio::join!(hearing, speaking);
    glasses.channel.send(&FromClient::Interrupt(Interrupt::default())).await.unwrap();
    glasses.turn_saved().await;
    (said.join(" "), noticed.unwrap().saturating_duration_since(last))
}
