//! The gateway's own share of a turn, while many people talk at once: from the frame of audio that ends the utterance to
//! the first frame of the answer's speech, without the latency of the scripted providers.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use june_client::Event;
use june_edge::{
    protocol::SessionOptions,
    providers::{Choice, ProviderConfig, registry::Providers},
    turn::{
        endpointer::EndpointerConfig,
        utterance_detector::{SpeechEvent, UtteranceDetector},
    },
};
use test_support::{clip, models};

use crate::{client::Client, gateway::Gateway, process};

const CONVERSATIONS: usize = 100;
const TURNS: usize = 5;

/// The latency of each of the three providers.
const LATENCY_MS: u64 = 50;

const FRAME: Duration = Duration::from_millis(20);
const FRAME_SAMPLES: usize = 320;

/// From the beginning of one question to the next: time for the answer.
const PERIOD: Duration = Duration::from_millis(5_600);

pub struct Overhead {
    pub ms: Vec<f64>,
    pub unanswered: usize,
    pub conversations: usize,
    pub core_percent: f64,
    pub client_core_percent: f64,
}

pub async fn of_conversations() -> Overhead {
    let models = models().display().to_string();
    let latency = LATENCY_MS.to_string();
    let gateway = Gateway::start_with(&[
        ("STT", "scripted"),
        ("LLM", "scripted"),
        ("TTS", "scripted"),
        ("SCRIPTED_LATENCY_MS", &latency),
        ("SCRIPTED_ANSWER", "w1 w2."),
        ("JUNE_MODELS", &models),
        ("LIVEKIT_URL", "off"),
        ("SESSIONS_PER_MINUTE_BY_ADDRESS", "0"),
        ("CONNECTS_PER_MINUTE_BY_ADDRESS", "0"),
    ]);
    let speech: Rc<[Vec<i16>]> = speech().into();
    let ends: Rc<[usize]> = utterance_ends(&speech).into();
    assert_eq!(ends.len(), TURNS, "each question is one utterance");

    let mut clients = Vec::new();
    for n in 0..CONVERSATIONS {
        clients.push(Client::attach(gateway.port, &format!("talker-{n}"), &SessionOptions::default()).await);
    }
    let (pid, own, began) = (gateway.pid(), std::process::id(), Instant::now());
    let (cpu, own_cpu) = (process::cpu_seconds(pid), process::cpu_seconds(own));
    let talking: Vec<_> = clients
        .into_iter()
        .enumerate()
        .map(|(n, client)| {
            // Evenly spread over a period.
            let delay = PERIOD * n as u32 / CONVERSATIONS as u32;
            tokio::task::spawn_local(talk(client, delay, speech.clone(), ends.clone()))
        })
        .collect();
    let mut ms = Vec::new();
    for one in talking {
        ms.extend(one.await.unwrap());
    }
    let percent = |seconds: f64| 100.0 * seconds / began.elapsed().as_secs_f64();
    Overhead {
        unanswered: CONVERSATIONS * TURNS - ms.len(),
        ms,
        conversations: CONVERSATIONS,
        core_percent: percent(process::cpu_seconds(pid) - cpu),
        client_core_percent: percent(process::cpu_seconds(own) - own_cpu),
    }
}

/// What each client sends: the same question again and again, with silence between, in frames.
fn speech() -> Vec<Vec<i16>> {
    let frames_per_turn = (PERIOD.as_millis() / FRAME.as_millis()) as usize;
    let mut turn = clip("goforward.wav").samples;
    turn.resize(frames_per_turn * FRAME_SAMPLES, 0);
    let turns = (0..TURNS).flat_map(|_| turn.chunks(FRAME_SAMPLES).map(<[i16]>::to_vec));
    turns.collect()
}

/// The frames with which the gateway's detector, which is run here on the same audio, ends an utterance.
fn utterance_ends(speech: &[Vec<i16>]) -> Vec<usize> {
    let off = || Choice::Listed(vec!["scripted"]);
    let config =
        ProviderConfig { models: models(), stt: off(), llm: off(), tts: off(), ..ProviderConfig::default() };
    let providers = Providers::load(&config);
    let mut detector = UtteranceDetector::new(providers.vad.detector(), EndpointerConfig::default());
    let ended = |frame: &Vec<i16>| {
        detector.push(frame).iter().any(|event| matches!(event, SpeechEvent::Ended { .. }))
    };
    let ended: Vec<bool> = speech.iter().map(ended).collect();
    (0..ended.len()).filter(|frame| ended[*frame]).collect()
}

/// A conversation; the gateway's own share of each turn, in milliseconds.
async fn talk(mut client: Client, delay: Duration, speech: Rc<[Vec<i16>]>, ends: Rc<[usize]>) -> Vec<f64> {
    tokio::time::sleep(delay).await;
    let mut ended_at = Vec::new();
    let mut answered_at = Vec::new();
    let (reader, writer) = client.channel.halves();
    let speak = async {
        let mut tick = tokio::time::interval(FRAME);
        for (n, frame) in speech.iter().enumerate() {
            tick.tick().await;
            if ends.contains(&n) {
                ended_at.push(Instant::now());
            }
            writer.send_audio(frame, 0).await.unwrap();
        }
    };
    let hear = async {
        let mut generation = None;
        loop {
            match reader.next().await {
                Some(Event::Audio(frame)) if generation != Some(frame.generation) => {
                    generation = Some(frame.generation);
                    answered_at.push(Instant::now());
                }
                Some(Event::Closed { code, reason }) => panic!("the channel closed: {code} {reason}"),
                _ => {}
            }
        }
    };
    tokio::select! {
        () = speak => {}
        () = hear => {}
    }
    let providers = Duration::from_millis(3 * LATENCY_MS);
    let answer = |ended: &Instant| {
        answered_at.iter().find(|answered| *answered > ended && **answered < *ended + PERIOD)
    };
    let took = ended_at.iter().filter_map(|ended| Some(*answer(ended)? - *ended));
    took.map(|took| (took.as_secs_f64() - providers.as_secs_f64()) * 1000.0).collect()
}
