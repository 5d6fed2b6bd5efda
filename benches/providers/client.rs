//! A client on its control channel.

use std::time::Duration;

use june_client::{Channel, Event, Gateway as Api};
use june_edge::{
    ids::UserId,
    protocol::{
        FromClient, Mode, SessionOptions, ToClient,
        edge_v1::from_client::{Capabilities, ConnectionInit, Say},
    },
};

/// 16 kHz.
pub const SAMPLES_PER_MS: usize = 16;

/// The scripted providers of one role, the second of which takes over.
pub const BOTH: &str = "scripted,scripted-spare";

pub struct Client {
    pub channel: Channel,
}

impl Client {
    pub async fn attach(port: u16, user: &str, options: &SessionOptions) -> Self {
        let api = Api::new(&format!("http://127.0.0.1:{port}"), None);
        let session = api.create_session_with(&UserId::parse(user).unwrap(), options).await.unwrap();
        let vad = options.mode == Some(Mode::PushToTalk);
        let init = ConnectionInit {
            capabilities: Capabilities { media: vec!["ws".into()], vad, ..Capabilities::default() },
            ..ConnectionInit::default()
        };
        let (channel, _) = Channel::open(&session.control_url, &session.control_token, init).await.unwrap();
        Self { channel }
    }

    pub async fn say(&mut self, text: &str) {
        self.channel.send(&FromClient::Say(Say { text: text.into() })).await.unwrap();
    }

    pub async fn send_audio(&mut self, samples: &[i16]) {
        self.channel.writer().send_audio(samples, 0).await.unwrap();
    }

    /// The next event that `pick` takes.
    pub async fn wait_for<T>(&mut self, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
        let picked = async {
            loop {
                let event = self.channel.next().await;
                if let Some(picked) = pick(&event) {
                    return picked;
                }
                if let Event::Closed { code, reason } = event {
                    panic!("the channel closed: {code} {reason}");
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), picked).await.expect("an event within 30 s")
    }
}

/// The text of a final.
pub fn final_text(event: &Event) -> Option<String> {
    use june_edge::protocol::edge_v1::to_client::StreamData::Transcription;
    match event {
        Event::Message(_, ToClient::DataStream { data: Transcription { text, is_final: true, .. }, .. }) => {
            Some(text.clone())
        }
        _ => None,
    }
}
