//! The size of speech in Opus.

use std::time::Duration;

use june_client::{Channel, Event, Gateway as Api};
use june_edge::{
    ids::UserId,
    protocol::{
        FromClient, ToClient,
        edge_v1::{audio::Codec, from_client::Say},
    },
};

/// Kilobits a second of a spoken answer, without headers, in frames of 60 ms. None if the gateway speaks in PCM only.
pub async fn kbit_s(port: u16) -> Option<f64> {
    const INIT: &str = r#"{"type":"connection_init","capabilities":
        {"media":["ws"],"speech":{"codecs":["opus"],"frameMs":60}}}"#;
    const FRAME_S: f64 = 0.06;
    let api = Api::new(&format!("http://127.0.0.1:{port}"), None);
    let session = api.create_session(&UserId::parse("opus").unwrap()).await.unwrap();
    let mut channel = Channel::open_unattached(&session.control_url, &session.control_token).await.unwrap();
    channel.writer().send_raw(Ok(INIT.into())).await.unwrap();
    let text = "The quick brown fox jumps over the lazy dog, and runs home before the rain begins.";
    let (mut bytes, mut frames) = (0, 0);
    let spoken = async {
        loop {
            match channel.next().await {
                Event::Message(_, ToClient::ConnectionAck(_)) => {
                    channel.send(&FromClient::Say(Say { text: text.into() })).await.unwrap();
                }
                Event::Message(_, ToClient::SpeechBegin { codec, .. }) if codec != Codec::Opus => {
                    return None;
                }
                Event::Audio(frame) => {
                    bytes += frame.payload.len();
                    frames += 1;
                }
                Event::Message(_, ToClient::SpeechFinish { .. }) => {
                    return Some(bytes as f64 * 8.0 / 1000.0 / (f64::from(frames) * FRAME_S));
                }
                Event::Message(..) => {}
                Event::Closed { code, reason } => panic!("the channel closed: {code} {reason}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), spoken).await.expect("an answer within a minute")
}
