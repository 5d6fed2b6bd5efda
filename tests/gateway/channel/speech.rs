//! Spoken answers as a client gets them.

use june_client::{Device, DeviceEvent, Options};
use june_edge::protocol::{
    FromClient, ToClient,
    edge_v1::{
        audio::Codec,
        from_client::{Say, SpeechCapabilities},
    },
};
use test_support::tts_servers::{KEY, SAMPLE_RATE_HZ, Script, TtsServer, Vendor};

use crate::support::{TestGateway, soon};

/// What a client that takes these codecs hears of the answer to a line.
struct Answer {
    codec: Codec,
    sample_rate: u32,
    samples: Vec<i16>,
    /// By the client's own count of what it played.
    played_ms: u64,
}

async fn answer(gateway: &TestGateway, user: &str, codecs: &[&str], frame_ms: u32) -> Answer {
    let session = gateway.session(user).await;
    let codecs = codecs.iter().map(|name| (*name).to_owned()).collect();
    let options = Options { speech: SpeechCapabilities { codecs, frame_ms }, ..Options::default() };
    let (mut device, _) =
        Device::connect(&session.control_url, &session.control_token, options).await.unwrap();
    device.send(FromClient::Say(Say { text: "Go forward ten meters.".into() })).await;
    let (mut samples, mut began) = (Vec::new(), None);
    let played_ms = soon(async {
        loop {
            match device.next().await.unwrap() {
                DeviceEvent::Audio(frame) => {
                    assert_eq!(frame.position as usize, samples.len(), "no sample is missing");
                    samples.extend(frame.samples());
                }
                DeviceEvent::Message(message) => {
                    if let ToClient::SpeechBegin { codec, sample_rate, .. } = *message {
                        began = Some((codec, sample_rate));
                    }
                }
                DeviceEvent::Played { played_ms, .. } => return played_ms,
                _ => {}
            }
        }
    })
    .await;
    let (codec, sample_rate) = began.unwrap();
    Answer { codec, sample_rate, samples, played_ms }
}

fn energy(samples: impl Iterator<Item = f64>) -> f64 {
    samples.map(|sample| sample * sample).sum()
}

#[actix_web::test]
async fn an_answer_in_opus_is_heard_as_the_one_in_pcm() {
    let tts = TtsServer::start(Vendor::OpenAi, Script::default()).await;
    let url = tts.url();
    let settings = [
        ("LLM", "echo"),
        ("TTS", "openai"),
        ("TTS_OPENAI_BASE_URL", url.as_str()),
        ("TTS_OPENAI_API_KEY", KEY),
    ];
    let gateway = TestGateway::with(&settings).await;

    let (pcm, opus) =
        tokio::join!(answer(&gateway, "ann", &["pcm16le"], 20), answer(&gateway, "bob", &["opus"], 60));

    assert_eq!((pcm.codec, opus.codec), (Codec::Pcm16le, Codec::Opus));
    assert_eq!((pcm.sample_rate, opus.sample_rate), (SAMPLE_RATE_HZ, SAMPLE_RATE_HZ));
    assert_eq!(pcm.samples.len(), opus.samples.len());
    let difference =
        energy(pcm.samples.iter().zip(&opus.samples).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    let signal = energy(pcm.samples.iter().map(|sample| f64::from(*sample)));
    let decibels = 10.0 * (signal / difference).log10();
    assert!(decibels > 10.0, "the difference is {decibels:.1} dB below the answer");
    let length_ms = (pcm.samples.len() * 1000) as u64 / u64::from(SAMPLE_RATE_HZ);
    assert_eq!((pcm.played_ms, opus.played_ms), (length_ms, length_ms));
}
