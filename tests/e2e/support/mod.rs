//! The parts, each a process of its own that ends with the test.

mod livekit;
mod publisher;
mod watcher;

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use june_client::{Channel, Event, Gateway as Api, SessionInfo};
use june_edge::{
    ids::UserId,
    protocol::{
        ToClient,
        edge_v1::{
            from_client::ConnectionInit,
            to_client::{MediaReason, MediaSource},
        },
    },
};

pub use self::{
    livekit::{LivekitServer, SECRET},
    publisher::Publisher,
    watcher::{Everybody, Face, Watcher},
};
pub use test_support::{Clip, Proxy, clip, clips, free_port, word_errors, words};

/// What should happen soon, on a machine that is busy with other things as well.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("nothing came within a minute")
}

/// Asks again and again, until there is an answer.
pub async fn until<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    soon(async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

pub fn repository(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

/// A tool by the variable that `scripts/setup where` gives.
pub fn tool(variable: &str) -> PathBuf {
    let path = std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run the tests by `make test`, which installs what they need")
    });
    assert!(
        Path::new(&path).exists(),
        "{variable}: there is no {path}; `scripts/setup e2e sdks livekit` installs it"
    );
    path.into()
}

/// A process that is killed when the test is over.
pub struct Process(pub Child);

impl Process {
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// As `kill -9` does.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A gateway in a process of its own.
pub struct June {
    pub process: Process,
    pub port: u16,
    pub api: Api,
    pub http: reqwest::Client,
    settings: Vec<(String, String)>,
}

impl June {
    /// A gateway beside this LiveKit, on a data folder. The echo model answers.
    pub async fn start(livekit: &LivekitServer, data: &Path, port: u16) -> Self {
        Self::with(livekit, data, port, &[]).await
    }

    pub async fn with(livekit: &LivekitServer, data: &Path, port: u16, settings: &[(&str, &str)]) -> Self {
        let url = livekit.url();
        let keys = [
            ("LIVEKIT_URL", url.as_str()),
            ("LIVEKIT_API_KEY", livekit::KEY),
            ("LIVEKIT_API_SECRET", SECRET),
        ];
        Self::without_keys(data, port, &[&keys[..], settings].concat()).await
    }

    /// A gateway that is told of no LiveKit unless by these settings.
    pub async fn without_keys(data: &Path, port: u16, settings: &[(&str, &str)]) -> Self {
        // Two crypto providers are linked; the clients in this process need one to be chosen.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut all = vec![
            ("PORT".to_owned(), port.to_string()),
            ("DATA_DIR".into(), data.display().to_string()),
            ("LIVEKIT_REJOIN_BACKOFF_MS".into(), "200".into()),
            ("LLM".into(), "echo".into()),
        ];
        all.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let process = launch(&all);
        let url = format!("http://127.0.0.1:{port}");
        let june =
            Self { process, port, api: Api::new(&url, None), http: reqwest::Client::new(), settings: all };
        june.wait_until_ready().await;
        june
    }

    async fn wait_until_ready(&self) {
        let url = format!("http://127.0.0.1:{}/readyz", self.port);
        until(async || {
            let response = self.http.get(&url).send().await.ok()?;
            response.status().is_success().then_some(())
        })
        .await;
    }

    /// Dies by `kill -9`, and a new one takes its place.
    pub async fn kill_and_start_again(&mut self) {
        self.process.kill();
        self.process = launch(&self.settings);
        self.wait_until_ready().await;
    }

    pub async fn session(&self, user: &str) -> SessionInfo {
        self.api.create_session(&UserId::parse(user).unwrap()).await.unwrap()
    }

    /// A client that is attached to a new session.
    pub async fn glasses(&self, user: &str) -> Glasses {
        Glasses::attach(self.session(user).await, ConnectionInit::default()).await
    }

    /// What was said in a session.
    pub async fn history(&self, session: &SessionInfo) -> Vec<serde_json::Value> {
        self.api.history(session.session_id).await.unwrap()
    }

    /// What a counter stands at; 0 where nothing was counted.
    pub async fn metric(&self, name: &str) -> u64 {
        let page = self.http.get(format!("{}/metrics", self.url())).send().await.unwrap();
        let page = page.text().await.unwrap();
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What of it is in memory.
    pub fn resident_kb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

fn launch(settings: &[(String, String)]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_june"));
    for name in
        ["LIVEKIT_URL", "LIVEKIT_WS_URL", "LIVEKIT_INTERNAL_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"]
    {
        command.env_remove(name);
    }
    command.arg("serve").envs(settings.iter().cloned()).stdin(Stdio::null());
    Process::start(&mut command)
}

/// A client on an attached control channel.
pub struct Glasses {
    pub channel: Channel,
    pub ack: june_edge::protocol::edge_v1::to_client::ConnectionAck,
    pub session: SessionInfo,
}

impl Glasses {
    pub async fn attach(session: SessionInfo, init: ConnectionInit) -> Self {
        let (channel, ack) =
            soon(Channel::open(&session.control_url, &session.control_token, init)).await.unwrap();
        Self { channel, ack, session }
    }

    /// The next thing that `pick` takes; what comes before it is passed over.
    pub async fn wait_for<T>(&mut self, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
        soon(async {
            loop {
                let event = self.channel.next().await;
                if let Some(picked) = pick(&event) {
                    return picked;
                }
                if let Event::Closed { code, reason } = event {
                    panic!("the channel closed: {code} {reason}");
                }
            }
        })
        .await
    }

    pub async fn wait_for_message<T>(&mut self, mut pick: impl FnMut(&ToClient) -> Option<T>) -> T {
        self.wait_for(|event| match event {
            Event::Message(_, message) => pick(message),
            Event::Audio(_) | Event::Closed { .. } => None,
        })
        .await
    }

    /// Waits until the gateway is in the room.
    pub async fn agent(&mut self) {
        use june_edge::protocol::edge_v1::to_client::MediaReason::AgentJoined;
        self.wait_for_message(|message| match message {
            ToClient::MediaState { reason: AgentJoined, .. } => Some(()),
            _ => None,
        })
        .await;
    }

    /// The next final that has words.
    pub async fn final_words(&mut self) -> String {
        use june_edge::protocol::edge_v1::to_client::StreamData::Transcription;
        self.wait_for_message(|message| match message {
            ToClient::DataStream { data: Transcription { text, is_final: true, .. }, .. }
                if !text.is_empty() =>
            {
                Some(text.clone())
            }
            _ => None,
        })
        .await
    }

    /// Waits until a turn is on disk; gives its place.
    pub async fn turn_saved(&mut self) -> u64 {
        self.wait_for_message(|message| match message {
            ToClient::TurnSaved { history_seq, .. } => Some(*history_seq),
            _ => None,
        })
        .await
    }

    /// Waits until the media are like this.
    pub async fn media(&mut self, wanted: impl Fn(MediaSource, MediaReason) -> bool) {
        self.wait_for_message(|message| match message {
            ToClient::MediaState { active, reason, .. } if wanted(*active, *reason) => Some(()),
            _ => None,
        })
        .await;
    }

    /// Sends sound over the control channel as fast as it goes.
    pub async fn send(&mut self, samples: &[i16]) {
        for frame in samples.chunks(1_600) {
            self.channel.writer().send_audio(frame, 0).await.unwrap();
        }
    }

    /// Sends a clip as fast as it goes, with silence behind it.
    pub async fn send_at_once(&mut self, clip: &Clip) {
        self.send(&clip.samples).await;
        self.send(&[0; 16_000]).await;
    }

    /// Speaks a clip over the control channel, in real time, with silence behind it.
    pub async fn speak(&mut self, clip: &Clip) {
        let silence = vec![0; 16_000];
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        for frame in clip.samples.chunks(320).chain(silence.chunks(320)) {
            tick.tick().await;
            self.channel.writer().send_audio(frame, 0).await.unwrap();
        }
    }
}
