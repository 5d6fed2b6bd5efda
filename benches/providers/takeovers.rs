//! A provider stalls, or its connection ends, in the middle of an utterance, an answer and a sentence: when another one
//! went on, as the client sees it, and whether everything is there once.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use june_client::Event;
use june_edge::protocol::{
    FromClient, Mode, SessionOptions, ToClient,
    edge_v1::{from_client::Vad, to_client::PartState},
};
use test_support::clip;

use crate::{
    client::{BOTH, Client, SAMPLES_PER_MS, final_text},
    gateway::Gateway,
};

/// Takeovers of each role; half of them after a stall.
const TAKEOVERS: usize = 16;

/// All deadlines.
const DEADLINE_MS: u64 = 500;

#[derive(Default)]
pub struct Takeovers {
    pub ms: Vec<f64>,
    pub deadline_ms: f64,
    pub lost: usize,
    pub doubled: usize,
    /// How often the client was told of a takeover.
    pub told: usize,
}

impl Takeovers {
    fn new() -> Self {
        Self { deadline_ms: DEADLINE_MS as f64, ..Self::default() }
    }

    /// Compares what came with what should have come.
    fn compare(&mut self, expected: &[String], came: &[String]) {
        let mut counts: HashMap<&str, i32> = HashMap::new();
        expected.iter().for_each(|word| *counts.entry(word).or_default() += 1);
        came.iter().for_each(|word| *counts.entry(word).or_default() -= 1);
        let sum = |sign: i32| counts.values().map(|count| (count * sign).max(0) as usize).sum::<usize>();
        self.lost += sum(1);
        self.doubled += sum(-1);
    }
}

/// A gateway with these settings, in which every second call of the role has a fault after so much.
fn gateway(role: &str, after: usize, settings: &[(&str, &str)]) -> Gateway {
    let deadline = DEADLINE_MS.to_string();
    let faults = format!("none,stall@{after},none,cut@{after}");
    let faults_of = format!("SCRIPTED_{role}_FAULTS");
    let own = [
        ("STT", "scripted"),
        ("LLM", "scripted"),
        ("TTS", "scripted"),
        ("SCRIPTED_LATENCY_MS", "50"),
        ("STT_FINAL_DEADLINE_MS", &deadline),
        ("LLM_FIRST_SENTENCE_DEADLINE_MS", &deadline),
        ("TTS_FIRST_SOUND_DEADLINE_MS", &deadline),
        ("PROVIDER_STALL_MS", &deadline),
        ("LLM_CALLS_PER_MINUTE_BY_USER", "0"),
        ("LINES_PER_MINUTE_BY_USER", "0"),
        ("LIVEKIT_URL", "off"),
        (&faults_of, &faults),
    ];
    Gateway::start_with(&[&own, settings].concat())
}

/// The client was told that another provider has taken over.
fn is_told(event: &Event) -> bool {
    use PartState::Degraded;
    matches!(
        event,
        Event::Message(
            _,
            ToClient::SttState { state: Degraded, .. }
                | ToClient::LlmState { state: Degraded, .. }
                | ToClient::TtsState { state: Degraded, .. },
        )
    )
}

/// Every utterance is the same recording, in the mode `push_to_talk`, so that its ends are the same, too.
pub async fn stt() -> Takeovers {
    /// Faster than speech, to save time.
    const SPEED: u32 = 4;
    /// A session may be no more than a minute of audio ahead of time; a turn takes eight seconds of audio, six ahead.
    const TURNS_OF_SESSION: usize = 8;
    /// Longer than the longest pre-roll: while nothing is sent between two turns, the gateway may forget what it has of it.
    const SILENCE: usize = 34 * WINDOWS;
    /// Detection takes windows of 256 and 512 samples, and an utterance begins with one. A turn of whole windows, in frames of
    /// 320, has the same utterance as the turn before: the scripted STT hears other words in other samples.
    const WINDOWS: usize = 2_560;
    let gateway = gateway("STT", 2, &[("STT", BOTH), ("SCRIPTED_ANSWER", "w1.")]);
    let options = SessionOptions { mode: Some(Mode::PushToTalk), ..SessionOptions::default() };
    let mut client = Client::attach(gateway.port, "speaker", &options).await;
    let (mut takeovers, mut undisturbed) = (Takeovers::new(), Vec::new());
    let (silence, mut question) = (vec![0; SILENCE], clip("goforward.wav").samples);
    question.resize(question.len().next_multiple_of(WINDOWS), 0);
    for turn in 0..2 * TAKEOVERS {
        if turn > 0 && turn % TURNS_OF_SESSION == 0 {
            client = Client::attach(gateway.port, &format!("speaker-{turn}"), &options).await;
        }
        let mut tick = tokio::time::interval(Duration::from_millis(20) / SPEED);
        for (samples, status) in [(&silence, true), (&question, false)] {
            for frame in samples.chunks(20 * SAMPLES_PER_MS) {
                tick.tick().await;
                client.send_audio(frame).await;
            }
            client.channel.send(&FromClient::Vad(Vad { status, audio_seq: None })).await.unwrap();
        }
        let ended = Instant::now();
        let told = &mut takeovers.told;
        let heard = client
            .wait_for(|event| {
                *told += usize::from(is_told(event));
                final_text(event)
            })
            .await;
        let took = ended.elapsed();
        match turn % 2 {
            0 => undisturbed = words(&heard),
            _ => {
                takeovers.ms.push(took.as_secs_f64() * 1000.0);
                takeovers.compare(&undisturbed, &words(&heard));
            }
        }
        speech_is_over(&mut client).await;
    }
    takeovers
}

/// The fault comes in the second sentence.
pub async fn llm() -> Takeovers {
    const ANSWER: &str = "w1 w2. w3 w4 w5 w6 w7 w8 w9 w10 w11 w12.";
    let gateway = gateway("LLM", 11, &[("LLM", BOTH), ("TTS", "auto"), ("SCRIPTED_ANSWER", ANSWER)]);
    let mut client = Client::attach(gateway.port, "reader", &SessionOptions::default()).await;
    let mut takeovers = Takeovers::new();
    for turn in 0..2 * TAKEOVERS {
        client.say("And?").await;
        let (mut text, mut pauses, mut last) = (String::new(), Vec::new(), None);
        let told = &mut takeovers.told;
        client
            .wait_for(|event| {
                *told += usize::from(is_told(event));
                match event {
                    Event::Message(_, ToClient::AnswerDelta { text: delta, .. }) => {
                        let now = Instant::now();
                        pauses.extend(last.replace(now).map(|last| now - last));
                        text.push_str(delta);
                        None
                    }
                    Event::Message(_, ToClient::AnswerDone { .. }) => Some(()),
                    _ => None,
                }
            })
            .await;
        if turn % 2 == 1 {
            takeovers.ms.push(longest(&pauses));
            takeovers.compare(&words(ANSWER), &words(&text));
        }
    }
    takeovers
}

/// Words are tones, which are known by their loudness.
pub async fn tts() -> Takeovers {
    const ANSWER: &str = "w1 w2 w3 w4 w5 w6 w7 w8 w9.";
    let gateway = gateway("TTS", 20, &[("TTS", BOTH), ("SCRIPTED_ANSWER", ANSWER)]);
    let mut client = Client::attach(gateway.port, "listener", &SessionOptions::default()).await;
    let mut takeovers = Takeovers::new();
    for turn in 0..2 * TAKEOVERS {
        client.say("And?").await;
        let (mut samples, mut pauses, mut last) = (Vec::new(), Vec::new(), None);
        let told = &mut takeovers.told;
        client
            .wait_for(|event| {
                *told += usize::from(is_told(event));
                match event {
                    Event::Audio(frame) => {
                        let now = Instant::now();
                        pauses.extend(last.replace(now).map(|last| now - last));
                        let pairs = frame.payload.chunks_exact(2);
                        samples.extend(pairs.map(|pair| i16::from_le_bytes([pair[0], pair[1]])));
                        None
                    }
                    Event::Message(_, ToClient::SpeechFinish { .. }) => Some(()),
                    _ => None,
                }
            })
            .await;
        if turn % 2 == 1 {
            takeovers.ms.push(longest(&pauses));
            takeovers.compare(&words(ANSWER.trim_end_matches('.')), &heard(&samples));
        }
    }
    takeovers
}

async fn speech_is_over(client: &mut Client) {
    client
        .wait_for(|event| matches!(event, Event::Message(_, ToClient::SpeechFinish { .. })).then_some(()))
        .await;
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn longest(pauses: &[Duration]) -> f64 {
    pauses.iter().max().map_or(0.0, |pause| pause.as_secs_f64() * 1000.0)
}

/// The words of the scripted TTS (docs/SETTINGS.md): `w7` has the loudness 500 + 7 · 500. A word of which less than half
/// is there is none, and one that is there one and a half times is there twice.
fn heard(samples: &[i16]) -> Vec<String> {
    /// The two letters of a word, at 15 letters a second and 24 kHz.
    const WORD: usize = 2 * 24_000 / 15;
    let mut loud: HashMap<u16, usize> = HashMap::new();
    for sample in samples.iter().filter(|sample| **sample != 0) {
        *loud.entry(sample.unsigned_abs()).or_default() += 1;
    }
    let times = |count: usize| (count + WORD / 2) / WORD;
    let name = |loudness: u16| format!("w{}", (loudness - 500) / 500);
    loud.into_iter().flat_map(|(loudness, count)| vec![name(loudness); times(count)]).collect()
}
