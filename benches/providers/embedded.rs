//! What the embedded models cost: memory of a gateway that nobody uses, and processor time of speech.

use std::time::Duration;

use june_edge::protocol::{Mode, SessionOptions};
use test_support::{clips, models};

use crate::{client::Client, gateway::Gateway, opus_down, process};

/// How long a fresh gateway is left alone.
const IDLE: Duration = Duration::from_secs(30);

/// Streams of continuous speech, as many as in `bench-turns`, and for how long. Fewer streams get more interims.
const STREAMS: usize = 8;
const SECONDS: usize = 16;

const FRAME: Duration = Duration::from_millis(20);
const FRAME_SAMPLES: usize = 320;

pub struct Embedded {
    pub idle_rss_mb: f64,
    pub stream_core_percent_speech: f64,
    pub opus_down_kbit_s: Option<f64>,
}

pub async fn costs() -> Embedded {
    let models = models().display().to_string();
    let gateway = Gateway::start_with(&[("JUNE_MODELS", &models), ("LIVEKIT_URL", "off"), ("LLM", "echo")]);
    tokio::time::sleep(IDLE).await;
    Embedded {
        idle_rss_mb: process::resident_kb(gateway.pid()) / 1024.0,
        opus_down_kbit_s: opus_down::kbit_s(gateway.port).await,
        stream_core_percent_speech: stream_core_percent(&gateway).await,
    }
}

/// Processor time for each stream of speech that is transcribed and not answered, with interims.
async fn stream_core_percent(gateway: &Gateway) -> f64 {
    let options = SessionOptions { mode: Some(Mode::Captions), ..SessionOptions::default() };
    let mut clients = Vec::new();
    for n in 0..STREAMS {
        clients.push(Client::attach(gateway.port, &format!("stream-{n}"), &options).await);
    }
    let speech = clips().swap_remove(0).samples;
    let frames: Vec<&[i16]> = speech.chunks_exact(FRAME_SAMPLES).collect();
    // The models are loaded by the first of it.
    send(&mut clients, &frames, 100).await;
    let cpu = process::cpu_seconds(gateway.pid());
    send(&mut clients, &frames, SECONDS * 50).await;
    100.0 * (process::cpu_seconds(gateway.pid()) - cpu) / (STREAMS * SECONDS) as f64
}

/// So many frames to each stream, in real time. Each begins elsewhere in the speech.
async fn send(clients: &mut [Client], speech: &[&[i16]], frames: usize) {
    let mut tick = tokio::time::interval(FRAME);
    for at in 0..frames {
        tick.tick().await;
        for (n, client) in clients.iter_mut().enumerate() {
            client.send_audio(speech[(at + n * speech.len() / STREAMS) % speech.len()]).await;
        }
    }
}
