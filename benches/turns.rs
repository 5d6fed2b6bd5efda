//! Latencies of turns, and memory and processor time of sessions: a livekit-server, the gateway in a process of its
//! own, and the recordings of tests/fixtures/audio published into a room in real time.
//!
//! `make bench-turns` prints the tables and writes `target/bench/turns.json`. About two minutes.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a benchmark prints, stops where something is missing, and waits for one message of many"
)]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

#[path = "support/figures.rs"]
mod figures;
#[path = "support/load.rs"]
mod load;
#[path = "support/process.rs"]
mod process;
#[allow(dead_code, unused_imports, reason = "shared with the end-to-end tests, which use more of it")]
#[path = "../tests/e2e/support/mod.rs"]
mod support;

use std::time::Duration;

use june_client::{FRAME_SAMPLES, RoomMicrophone};
use june_edge::protocol::{
    FromClient, ToClient,
    edge_v1::{
        from_client::{ConnectionInit, Interrupt},
        to_client::TurnMetrics,
    },
};
use support::{Glasses, June, LivekitServer};
use test_support::{Clip, clips, free_port, word_errors, words};

/// How often each recording is published.
const ROUNDS: usize = 2;

/// Sessions whose cost is measured together.
const SESSIONS: usize = 40;

/// Concurrent streams while processor time is measured, and for how long.
const STREAMS: usize = 8;
const STREAM_SECONDS: usize = 8;

fn main() {
    actix_web::rt::System::new().block_on(async {
        let port = free_port();
        let livekit = LivekitServer::start(port).await;
        let data = tempfile::tempdir().unwrap();
        let june = June::with(&livekit, data.path(), port, &[("RUST_LOG", "error")]).await;
        let mut figures = Vec::new();

        let created = sessions_per_second(&june).await;
        println!(
            "Sessions created: {:.0} a second, p99 {:.1} ms\n",
            created.per_s,
            quantile(&created.took_ms, 0.99)
        );
        figures.push(("sessions_per_s".to_owned(), created.per_s));
        figures.push(("session_create_p99_ms".into(), quantile(&created.took_ms, 0.99)));

        let idle_kb = idle_session_kb(&june).await;
        println!("An idle session with its agent in its room: {idle_kb:.0} KiB\n");
        figures.push(("idle_session_kb".into(), idle_kb));

        let turns = turns(&june).await;
        println!(
            "Turns, in milliseconds from the end of speech as the endpointer detects it; {} of them",
            turns.metrics.len()
        );
        for (name, pick) in [
            ("final", (|turn| turn.final_ms) as fn(&TurnMetrics) -> Option<u64>),
            ("first_token", |turn| turn.first_token_ms),
            ("first_audio", |turn| turn.first_audio_ms),
        ] {
            let mut took: Vec<f64> = turns.metrics.iter().filter_map(pick).map(|ms| ms as f64).collect();
            took.sort_by(f64::total_cmp);
            let (p50, p99) = (quantile(&took, 0.5), quantile(&took, 0.99));
            println!("  {name:<14} p50 {p50:>5.0}   p99 {p99:>5.0}");
            figures.push((format!("{name}_p50_ms"), p50));
            figures.push((format!("{name}_p99_ms"), p99));
        }
        println!("  words wrong    {:.1} %\n", turns.wer_percent);
        figures.push(("wer_percent".into(), turns.wer_percent));
        drop(june);

        println!("One stream, in percent of a core and KiB    quiet            speech");
        for vad in ["two-stage", "silero"] {
            let data = tempfile::tempdir().unwrap();
            let june = June::with(&livekit, data.path(), port, &[("VAD", vad), ("RUST_LOG", "error")]).await;
            let quiet = stream_cost(&june, &quiet_room()).await;
            let speech = stream_cost(&june, &clips()[0].samples).await;
            println!(
                "  {vad:<40} {:>6.3} % {:>5.0}  {:>6.3} % {:>5.0}",
                quiet.core_percent, quiet.kb, speech.core_percent, speech.kb
            );
            let key = vad.replace('-', "_");
            figures.push((format!("stream_core_percent_quiet_{key}"), quiet.core_percent));
            figures.push((format!("stream_core_percent_speech_{key}"), speech.core_percent));
            figures.push((format!("stream_kb_{key}"), speech.kb));
        }
        let silent = vad_core_percent_silent();
        println!("\nVoice detection alone, one silent stream: {silent:.3} % of a core");
        figures.push(("vad_core_percent_silent".into(), silent));

        figures::write_figures("turns", &figures);
    });
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

async fn sessions_per_second(june: &June) -> load::Load {
    let body = r#"{"user_id":"bench"}"#;
    let request = format!(
        "POST /api/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    load::load(june.port, request, 64, Duration::from_secs(5)).await
}

/// Resident memory per attached session whose agent is in its room, without speech.
async fn idle_session_kb(june: &June) -> f64 {
    // The first one allocates what all share.
    let _first = idle(june, "first").await;
    let before = process::resident_kb(june.process.0.id());
    let mut sessions = Vec::new();
    for n in 0..SESSIONS {
        sessions.push(idle(june, &format!("idle-{n}")).await);
    }
    (process::resident_kb(june.process.0.id()) - before) / SESSIONS as f64
}

async fn idle(june: &June, user: &str) -> Glasses {
    let mut glasses = june.glasses(user).await;
    glasses.agent().await;
    glasses
}

struct Turns {
    metrics: Vec<TurnMetrics>,
    wer_percent: f64,
}

/// Publishes every recording; each response is interrupted once its speech begins.
async fn turns(june: &June) -> Turns {
    let mut glasses = june.glasses("speaker").await;
    glasses.agent().await;
    let room = glasses.ack.livekit.clone().unwrap();
    let microphone = RoomMicrophone::join(&room.url, &room.token).await.unwrap();
    let (mut metrics, mut wrong, mut spoken) = (Vec::new(), 0, 0);
    for clip in (0..ROUNDS).flat_map(|_| clips()) {
        let (said, turn) = turn(&mut glasses, &microphone, &clip).await;
        wrong += word_errors(&clip.words, &said);
        spoken += words(&clip.words).len();
        metrics.push(turn);
    }
    microphone.leave().await;
    Turns { metrics, wer_percent: 100.0 * wrong as f64 / spoken as f64 }
}

async fn turn(glasses: &mut Glasses, microphone: &RoomMicrophone, clip: &Clip) -> (String, TurnMetrics) {
    let said = async {
        let said = glasses.final_words().await;
        glasses
            .wait_for_message(|message| matches!(message, ToClient::SpeechBegin { .. }).then_some(()))
            .await;
        glasses.channel.send(&FromClient::Interrupt(Interrupt::default())).await.unwrap();
        let metrics = glasses
            .wait_for_message(|message| match message {
                ToClient::TurnMetrics(metrics) => Some(metrics.clone()),
                _ => None,
            })
            .await;
        glasses.turn_saved().await;
        (said, metrics)
    };
    let speaking = async {
        let silence = vec![0; 16_000];
        for frame in clip.samples.chunks(FRAME_SAMPLES).chain(silence.chunks(FRAME_SAMPLES)) {
            microphone.send(frame).await.unwrap();
        }
    };
    tokio::join!(said, speaking).0
}

/// Cost of one stream.
struct Cost {
    core_percent: f64,
    kb: f64,
}

/// Several streams of the same audio over control channels, in real time.
async fn stream_cost(june: &June, sound: &[i16]) -> Cost {
    let pid = june.process.0.id();
    let memory = process::resident_kb(pid);
    let mut listeners = Vec::new();
    for n in 0..STREAMS {
        let init = ConnectionInit {
            capabilities: june_edge::protocol::edge_v1::from_client::Capabilities {
                media: vec!["ws".into()],
                ..Default::default()
            },
            ..ConnectionInit::default()
        };
        listeners.push(Glasses::attach(june.session(&format!("stream-{n}")).await, init).await);
    }
    let cpu = process::cpu_seconds(pid);
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    for frame in sound.chunks_exact(FRAME_SAMPLES).cycle().take(STREAM_SECONDS * 50) {
        tick.tick().await;
        for glasses in &mut listeners {
            glasses.channel.writer().send_audio(frame, 0).await.unwrap();
        }
    }
    let streams = STREAMS as f64;
    Cost {
        core_percent: 100.0 * (process::cpu_seconds(pid) - cpu) / (streams * STREAM_SECONDS as f64),
        kb: (process::resident_kb(pid) - memory) / streams,
    }
}

/// A second of a quiet room: noise at about -60 dBFS.
fn quiet_room() -> Vec<i16> {
    let mut state = 1_u32;
    let mut noise = || {
        // A linear congruential generator (Numerical Recipes); the same on every machine.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 26) as i16 - 32
    };
    (0..16_000).map(|_| noise()).collect()
}

/// Processor time of the gateway's detector for ten minutes of a quiet room, measured in this process.
fn vad_core_percent_silent() -> f64 {
    use june_edge::{
        providers::{Choice, ProviderConfig, cache_folder, registry::Providers},
        turn::{endpointer::EndpointerConfig, utterance_detector::UtteranceDetector},
    };
    const SECONDS: usize = 600;
    let models = cache_folder(|name| std::env::var(name).ok()).unwrap().join("models");
    let settings = ProviderConfig { models, llm: Choice::Listed(vec!["echo"]), ..ProviderConfig::default() };
    let providers = Providers::load(&settings);
    let mut detector = UtteranceDetector::new(providers.vad.detector(), EndpointerConfig::default());
    let second = quiet_room();
    let cpu = process::cpu_seconds(std::process::id());
    for _ in 0..SECONDS {
        for frame in second.chunks(FRAME_SAMPLES) {
            assert!(detector.push(frame).is_empty(), "a quiet room is not speech");
        }
    }
    100.0 * (process::cpu_seconds(std::process::id()) - cpu) / SECONDS as f64
}
