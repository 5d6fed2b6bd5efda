//! Sound on the control channel, when things go wrong on the way.

use audiopus::{Application, Channels, SampleRate, coder::Encoder};
use bytes::Bytes;
use june_edge::protocol::{
    FromClient,
    edge_v1::{
        audio::{Codec, UplinkFrame},
        from_client::{AudioConfig, ConnectionInit, Resume},
    },
};

use crate::support::{Glasses, June, LivekitServer, clip, free_port, word_errors};

/// 20 ms at 16 kHz.
const FRAME: usize = 320;

fn frame(codec: Codec, seq: usize, backfill: bool, payload: Bytes) -> Bytes {
    UplinkFrame { codec, pre_roll: false, backfill, end: false, seq: seq as u32, capture_ms: 0, payload }
        .encode()
}

fn pcm(samples: &[i16]) -> Bytes {
    samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

#[actix_web::test]
async fn an_utterance_that_the_connection_breaks_is_whole_after_the_back_fill() {
    let port = free_port();
    let livekit = LivekitServer::prepare(port);
    let data = tempfile::tempdir().unwrap();
    let june = June::start(&livekit, data.path(), port).await;
    let clip = clip("goforward.wav");
    let silence = vec![0; 16_000];
    let sound = [&clip.samples[..], &silence].concat();
    let frames: Vec<Bytes> = sound.chunks(FRAME).map(pcm).collect();
    let cut = clip.samples.len() / FRAME / 2;

    let mut glasses = june.glasses("ann").await;
    for (seq, payload) in (1..).zip(&frames).take(cut) {
        let frame = frame(Codec::Pcm16le, seq, false, payload.clone());
        glasses.channel.writer().send_raw(Err(frame)).await.unwrap();
    }
    let started =
        |message: &_| matches!(message, june_edge::protocol::ToClient::SpeechStarted { .. }).then_some(());
    glasses.wait_for_message(started).await;
    let resume = Resume {
        session_id: glasses.ack.session_id,
        resume_token: glasses.ack.resume_token.clone(),
        last_server_seq: glasses.channel.last_seq(),
        // Ten frames were sent that never arrived.
        last_audio_seq: cut as u32 + 10,
    };
    let session = glasses.session.clone();
    drop(glasses);
    let init = ConnectionInit { resume: Some(resume), ..ConnectionInit::default() };
    let mut glasses = Glasses::attach(session, init).await;
    assert!(glasses.ack.resumed);
    assert_eq!(glasses.ack.audio.last_seq, Some(cut as u32));

    // Live sound first; then what was missed, with some of what was not.
    let live = cut + 40;
    let order = (live..live + 5).chain(cut - 5..live).chain(live + 5..frames.len() + 1);
    for seq in order {
        let frame = frame(Codec::Pcm16le, seq, seq < live, frames[seq - 1].clone());
        glasses.channel.writer().send_raw(Err(frame)).await.unwrap();
    }

    assert_eq!(word_errors(&clip.words, &glasses.final_words().await), 0);
    glasses.turn_saved().await;
    let history = june.history(&glasses.session).await;
    let kinds: Vec<_> = history.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["utterance", "answer"]);
}

#[actix_web::test]
async fn opus_with_lost_packets_is_understood() {
    let port = free_port();
    let livekit = LivekitServer::prepare(port);
    let data = tempfile::tempdir().unwrap();
    let june = June::start(&livekit, data.path(), port).await;
    let mut glasses = june.glasses("ann").await;
    let clip = clip("goforward.wav");
    let mut encoder = Encoder::new(SampleRate::Hz16000, Channels::Mono, Application::Voip).unwrap();
    encoder.set_inband_fec(true).unwrap();
    encoder.set_packet_loss_perc(10).unwrap();

    let format = AudioConfig { codec: Codec::Opus, sample_rate: 16_000, channels: 1 };
    glasses.channel.send(&FromClient::AudioConfig(format)).await.unwrap();
    let sound = [&clip.samples[..], &[0; 16_000]].concat();
    for (seq, samples) in (1..).zip(sound.chunks_exact(FRAME)) {
        let mut packet = [0; 1500];
        let length = encoder.encode(samples, &mut packet).unwrap();
        if seq % 20 != 10 {
            let frame = frame(Codec::Opus, seq, false, Bytes::copy_from_slice(&packet[..length]));
            glasses.channel.writer().send_raw(Err(frame)).await.unwrap();
        }
    }

    assert_eq!(word_errors(&clip.words, &glasses.final_words().await), 0);
    assert!(june.metric("june_uplink_frames_lost_total").await > 0);
}
