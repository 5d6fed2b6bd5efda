//! Speech over a line that loses packets, through the whole path: how many words are wrong, and how much
//! later the end of speech is noticed, against the same line without losses.
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
#[path = "support/lossy.rs"]
mod lossy;
#[allow(dead_code, unused_imports, reason = "shared with the end-to-end tests, which use more of it")]
#[path = "../tests/e2e/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use june_edge::{
    client::microphone::{FRAME_SAMPLES, Published},
    protocol::{FromClient, ToClient, from_client::Interrupt, to_client::StreamData::Transcription},
};
use lossy::{Loss, Proxy};
use support::{Clip, Glasses, June, LivekitServer, clips, free_port, word_errors, words};

/// Where chance begins; another seed, other losses.
const SEED: u64 = 7;

fn main() {
    actix_web::rt::System::new().block_on(async {
        let (port, udp_port) = (free_port(), free_port());
        let mut livekit = LivekitServer::configure(port, lossy::ADDRESS, udp_port);
        livekit.run().await;
        let proxy = Proxy::start(udp_port, SEED).await;
        let data = tempfile::tempdir().unwrap();
        let june = June::with(&livekit, data.path(), port, &[("RUST_LOG", "error")]).await;
        let mut glasses = june.glasses("speaker").await;
        glasses.agent().await;
        let room = glasses.ack.livekit.clone().unwrap();
        let microphone = Published::join(&room.url, &room.token).await.unwrap();

        println!("Losses on the agent's line (seed {SEED})    lost   words wrong   end noticed after");
        let mut figures: Vec<(String, f64)> = Vec::new();
        let mut whole = None;
        for (name, key, loss) in [
            ("none", "loss0", Loss::None),
            ("5 % at random", "loss5", Loss::Random(0.05)),
            ("10 % in runs of 3", "loss10_bursts", Loss::Bursts(0.10, 3.0)),
        ] {
            proxy.lose(loss);
            let heard = hear(&mut glasses, &microphone).await;
            println!(
                "  {name:<36} {:>5.1} %   {:>7.1} %   {:>12.0} ms",
                proxy.lost_percent(),
                heard.wer_percent,
                heard.noticed_ms
            );
            figures.push((format!("{key}_wer_percent"), heard.wer_percent));
            let (wrong, noticed_ms) = *whole.get_or_insert((heard.wrong, heard.noticed_ms));
            if !matches!(loss, Loss::None) {
                // Where not a word was wrong without losses, it is held against one.
                let ratio = heard.wrong as f64 / wrong.max(1) as f64;
                figures.push((format!("{key}_wer_ratio"), ratio));
                figures.push((format!("{key}_added_delay_ms"), heard.noticed_ms - noticed_ms));
            }
        }
        microphone.leave().await;
        figures::add_figures("media", &figures);
    });
}

/// What came of all recordings.
struct Heard {
    /// Words.
    wrong: usize,
    wer_percent: f64,
    /// From the last sample's leaving to the end of speech at the client, median.
    noticed_ms: f64,
}

async fn hear(glasses: &mut Glasses, microphone: &Published) -> Heard {
    let (mut wrong, mut spoken, mut noticed) = (0, 0, Vec::new());
    for clip in clips() {
        let (said, after) = utter(glasses, microphone, &clip).await;
        wrong += word_errors(&clip.words, &said);
        spoken += words(&clip.words).len();
        noticed.push(after.as_secs_f64() * 1000.0);
    }
    noticed.sort_by(f64::total_cmp);
    Heard { wrong, wer_percent: 100.0 * wrong as f64 / spoken as f64, noticed_ms: noticed[noticed.len() / 2] }
}

/// Speaks a recording; what was understood of it, and how long after its last sample the end was noticed.
async fn utter(glasses: &mut Glasses, microphone: &Published, clip: &Clip) -> (String, Duration) {
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
    glasses.channel.say(&FromClient::Interrupt(Interrupt::default())).await.unwrap();
    glasses.turn_saved().await;
    (said.join(" "), noticed.unwrap().saturating_duration_since(last))
}
