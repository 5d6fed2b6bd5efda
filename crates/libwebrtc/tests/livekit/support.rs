//! Test fixtures: a livekit-server, other participants, and measurement of tones.

use std::f64::consts::PI;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use futures::StreamExt;
use livekit::prelude::*;
use livekit::webrtc::audio_stream::native::NativeAudioStream;
use livekit_api::access_token::{AccessToken, VideoGrants};
use tempfile::TempDir;
use test_support::free_port;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::RwLock;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

pub const KEY: &str = "devkey";
pub const SECRET: &str = "secret-secret-secret-secret-secret";

/// Timeout of every wait: much longer than a successful one takes.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(30);

pub type Events = UnboundedReceiver<RoomEvent>;

/// Number of peer connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One peer connection for publishing and subscribing, which livekit uses with servers that support it.
    Single,
    /// Two peer connections, one to publish and one to subscribe.
    Dual,
}

pub const MODES: [Mode; 2] = [Mode::Single, Mode::Dual];

/// A livekit-server for one test.
pub struct Server {
    process: Child,
    port: u16,
    tcp_port: u16,
    files: TempDir,
}

impl Server {
    /// Starts the binary that `LIVEKIT_SERVER` names.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// Starts a server with additional lines of configuration.
    pub async fn start_with(more: &str) -> Self {
        Self::start_at("127.0.0.1", free_port(), more).await
    }

    /// Starts a server with this UDP port that signals `address` as its own.
    pub async fn start_behind(address: &str, udp_port: u16) -> Self {
        // ICE lite and a single interface, so that all media passes through `address`.
        Self::start_at(address, udp_port, "  use_ice_lite: true\n  interfaces:\n    includes: [lo]\n").await
    }

    async fn start_at(address: &str, udp_port: u16, more: &str) -> Self {
        // Logs to the test output; filtered by `RUST_LOG`.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let binary = std::env::var_os("LIVEKIT_SERVER")
            .expect("LIVEKIT_SERVER must name a livekit-server binary (v1.8.4 or later)");
        let files = TempDir::new().unwrap();
        let (port, tcp_port) = (free_port(), free_port());
        let config = format!(
            "port: {port}\nbind_addresses: [\"127.0.0.1\"]\nkeys:\n  {KEY}: {SECRET}\nlogging:\n  level: warn\n\
             rtc:\n  node_ip: {address}\n  use_external_ip: false\n  enable_loopback_candidate: true\n  \
             udp_port: {udp_port}\n  tcp_port: {tcp_port}\n{more}"
        );
        let path = files.path().join("livekit.yaml");
        std::fs::write(&path, config).unwrap();
        let process = Command::new(&binary)
            .arg("--config")
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", PathBuf::from(binary).display()));
        let server = Self { process, port, tcp_port, files };
        timeout(TEST_TIMEOUT, server.wait_until_ready()).await.expect("the livekit-server did not start");
        server
    }

    async fn wait_until_ready(&self) {
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    /// Port for ICE-TCP.
    pub fn tcp_port(&self) -> u16 {
        self.tcp_port
    }

    /// Process id of the server.
    pub fn pid(&self) -> u32 {
        self.process.id().expect("the server is running")
    }

    /// Joins a room with the crate under test.
    pub async fn join(&self, room: &str, identity: &str, mode: Mode) -> (Room, Events) {
        let mut options = RoomOptions::default();
        options.single_peer_connection = mode == Mode::Single;
        self.join_with(room, identity, options).await.expect("joining failed")
    }

    pub async fn join_with(
        &self,
        room: &str,
        identity: &str,
        options: RoomOptions,
    ) -> RoomResult<(Room, Events)> {
        // A request for encryption prevents all other connections of this process.
        static CONNECTING: RwLock<()> = RwLock::const_new(());
        let (url, token) = (self.url(), token(room, identity));
        let connect = async {
            if options.encryption.is_some() {
                let _alone = CONNECTING.write().await;
                Room::connect(&url, &token, options).await
            } else {
                let _with_others = CONNECTING.read().await;
                Room::connect(&url, &token, options).await
            }
        };
        timeout(TEST_TIMEOUT, connect).await.expect("joining took too long")
    }

    /// Starts a participant with the official Python SDK; for `script` see `peer.py`.
    pub fn python(&self, room: &str, identity: &str, script: &[&str]) -> Peer {
        let python = std::env::var_os("JUNE_PYTHON")
            .expect("JUNE_PYTHON must name a Python with the packages livekit, livekit-api and numpy");
        let mut command = Command::new(python);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/livekit/peer.py"));
        self.peer(command, room, identity, script)
    }

    /// Starts a participant with the official SDK for Node.js; for `script` see `peer.cjs`.
    pub fn node(&self, room: &str, identity: &str, script: &[&str]) -> Peer {
        self.peer(Self::javascript("peer.cjs"), room, identity, script)
    }

    /// Starts a participant with livekit-client in Chromium; for `script` see `browser.cjs`.
    pub fn browser(&self, room: &str, identity: &str, script: &[&str]) -> Peer {
        let mut command = Self::javascript("browser.cjs");
        command.env("TMPDIR", self.files.path());
        self.peer(command, room, identity, script)
    }

    fn javascript(file: &str) -> Command {
        assert!(
            std::env::var_os("NODE_PATH").is_some(),
            "NODE_PATH must name a node_modules directory with @livekit/rtc-node, livekit-client and playwright-core"
        );
        let mut command = Command::new("node");
        command.arg(format!("{}/tests/livekit/{file}", env!("CARGO_MANIFEST_DIR")));
        command
    }

    fn peer(&self, mut command: Command, room: &str, identity: &str, script: &[&str]) -> Peer {
        let mut process = command
            .args([&*self.url(), &*token(room, identity)])
            .args(script)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("the other participant did not start: {error}"));
        let lines = BufReader::new(process.stdout.take().expect("stdout is piped")).lines();
        Peer { _process: process, lines }
    }
}

/// A participant with an official SDK, in a separate process.
pub struct Peer {
    _process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    /// Waits for the next line of output that starts with `word`; returns its other words.
    pub async fn expect_line(&mut self, word: &str) -> Vec<String> {
        let wait = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                let mut words = line.split_whitespace().map(str::to_owned);
                if words.next().as_deref() == Some(word) {
                    return words.collect();
                }
            }
            panic!("the other participant ended without printing {word:?}")
        };
        timeout(TEST_TIMEOUT, wait)
            .await
            .unwrap_or_else(|_| panic!("the other participant did not print {word:?}"))
    }
}

fn token(room: &str, identity: &str) -> String {
    let grants = VideoGrants { room_join: true, room: room.to_owned(), ..VideoGrants::default() };
    AccessToken::with_api_key(KEY, SECRET).with_identity(identity).with_grants(grants).to_jwt().unwrap()
}

/// Waits for the first event for which `pick` returns a value.
pub async fn event<T>(events: &mut Events, what: &str, mut pick: impl FnMut(RoomEvent) -> Option<T>) -> T {
    let wait = async {
        loop {
            let event = events.recv().await.unwrap_or_else(|| panic!("the room ended without {what}"));
            if let Some(picked) = pick(event) {
                return picked;
            }
        }
    };
    timeout(TEST_TIMEOUT, wait).await.unwrap_or_else(|_| panic!("timed out waiting for {what}"))
}

/// Waits for the next subscribed audio track.
pub async fn subscribed(events: &mut Events) -> RemoteAudioTrack {
    event(events, "an audio track", |event| match event {
        RoomEvent::TrackSubscribed { track: RemoteTrack::Audio(track), .. } => Some(track),
        _ => None,
    })
    .await
}

/// Reads `seconds` of audio.
pub async fn read(stream: &mut NativeAudioStream, rate: u32, seconds: f64) -> Vec<i16> {
    let length = (f64::from(rate) * seconds) as usize;
    let mut pcm = Vec::with_capacity(length);
    let fill = async {
        while pcm.len() < length {
            pcm.extend_from_slice(&stream.next().await.expect("the stream ended").data);
        }
    };
    timeout(TEST_TIMEOUT, fill).await.expect("the stream stopped");
    pcm.truncate(length);
    pcm
}

/// Reads until `seconds` in a row are a clean tone.
pub async fn expect_clean_tone(
    stream: &mut NativeAudioStream,
    rate: u32,
    seconds: u32,
    hz: f64,
    amplitude: f64,
) {
    expect_tone(stream, rate, seconds, |tone| tone.is_clean(hz, amplitude)).await;
}

/// Reads until `good` holds for `seconds` in a row. Gaps caused by an overloaded machine are transient and tolerated; a
/// persistent fault fails the test.
pub async fn expect_tone(
    stream: &mut NativeAudioStream,
    rate: u32,
    seconds: u32,
    good: impl Fn(Tone) -> bool,
) {
    let mut windows = Vec::new();
    let mut in_a_row = 0;
    while in_a_row < 2 * seconds {
        let tone = Tone::of(&read(stream, rate, 0.5).await, rate);
        windows.push(tone);
        in_a_row = if good(tone) { in_a_row + 1 } else { 0 };
        assert!(windows.len() < 60, "the tone was not received: {windows:#?}");
    }
}

/// Reads until `seconds` in a row are silent; returns the seconds read before that.
pub async fn expect_silence(stream: &mut NativeAudioStream, rate: u32, seconds: f64) -> f64 {
    const WINDOW_S: f64 = 0.1;
    let (mut before, mut silent) = (0.0, 0.0);
    while silent < seconds {
        let loudest = read(stream, rate, WINDOW_S).await.iter().map(|sample| sample.unsigned_abs()).max();
        if loudest.unwrap_or(0) < 50 {
            silent += WINDOW_S;
        } else {
            before += silent + WINDOW_S;
            silent = 0.0;
        }
        assert!(before < 30.0, "the stream did not become silent; peak of the last window: {loudest:?}");
    }
    before
}

/// Measured properties of a tone.
#[derive(Debug, Clone, Copy)]
pub struct Tone {
    pub hz: f64,
    pub amplitude: f64,
    pub snr_db: f64,
}

impl Tone {
    /// Measures `pcm` with the sampling rate `rate`.
    pub fn of(pcm: &[i16], rate: u32) -> Self {
        let hz = frequency_hz(pcm, rate);
        let angle = |i: usize| 2.0 * PI * hz * i as f64 / f64::from(rate);
        let n = pcm.len() as f64;
        let (mut s, mut c) = (0.0, 0.0);
        for (i, sample) in pcm.iter().enumerate() {
            s += f64::from(*sample) * angle(i).sin() * 2.0 / n;
            c += f64::from(*sample) * angle(i).cos() * 2.0 / n;
        }
        let residual: f64 = pcm
            .iter()
            .enumerate()
            .map(|(i, sample)| (f64::from(*sample) - s * angle(i).sin() - c * angle(i).cos()).powi(2))
            .sum();
        let amplitude = s.hypot(c);
        let snr_db = 10.0 * (amplitude * amplitude / 2.0 / (residual / n).max(1e-9)).log10();
        Self { hz, amplitude, snr_db }
    }

    /// Whether it is the tone that was sent, within the tolerance of the codec.
    pub fn is_clean(self, hz: f64, amplitude: f64) -> bool {
        (self.hz - hz).abs() < 1.0
            && (self.amplitude - amplitude).abs() < amplitude * 0.02
            && self.snr_db > 35.0
    }
}

fn frequency_hz(pcm: &[i16], rate: u32) -> f64 {
    let crossings: Vec<f64> = pcm
        .windows(2)
        .enumerate()
        .filter(|(_, pair)| pair[0] < 0 && pair[1] >= 0)
        .map(|(i, pair)| i as f64 + f64::from(pair[0]) / (f64::from(pair[0]) - f64::from(pair[1])))
        .collect();
    match (crossings.first(), crossings.last()) {
        (Some(first), Some(last)) if last > first => {
            (crossings.len() - 1) as f64 * f64::from(rate) / (last - first)
        }
        _ => 0.0,
    }
}
