//! A livekit-server of one's own, reachable on loopback, that sends its webhooks to a gateway.

use std::process::{Command, Stdio};

use livekit_api::{
    access_token::{AccessToken, VideoGrants},
    services::room::RoomClient,
};
use tempfile::TempDir;

use super::{Everybody, Face, Process, free_port, tool, until};

pub const KEY: &str = "devkey";
pub const SECRET: &str = "devsecret-devsecret-devsecret-32";

/// The secret of `livekit-server --dev`, whose key is [`KEY`], too.
const DEV_SECRET: &str = "secret";

pub struct LivekitServer {
    port: u16,
    secret: &'static str,
    config: TempDir,
    process: Option<Process>,
}

impl LivekitServer {
    /// A server that is at work, and whose webhooks go to a gateway on this port.
    pub async fn start(gateway_port: u16) -> Self {
        let mut server = Self::prepare(gateway_port);
        server.run().await;
        server
    }

    /// `livekit-server --dev` with ports of its own: its keys are LiveKit's development pair.
    pub async fn dev(gateway_port: u16) -> Self {
        let mut server = Self { secret: DEV_SECRET, ..Self::prepare(gateway_port) };
        server.run().await;
        server
    }

    /// A server that is not there yet.
    pub fn prepare(gateway_port: u16) -> Self {
        Self::configure(gateway_port, "127.0.0.1", free_port())
    }

    /// A server that is not there yet, takes media at a UDP port and tells clients to send it to an address.
    pub fn configure(gateway_port: u16, address: &str, udp: u16) -> Self {
        // Behind an address of somebody else's, there is no other way in and none out.
        let extra =
            if address == "127.0.0.1" { "" } else { ", use_ice_lite: true, interfaces: {includes: [lo]}" };
        let (port, tcp) = (free_port(), free_port());
        let config = tempfile::tempdir().unwrap();
        let yaml = format!(
            "port: {port}\nbind_addresses: [127.0.0.1]\n\
             rtc: {{node_ip: {address}, use_external_ip: false, enable_loopback_candidate: true, udp_port: {udp}, tcp_port: {tcp}{extra}}}\n\
             webhook: {{api_key: {KEY}, urls: ['http://127.0.0.1:{gateway_port}/api/livekit/webhook']}}\n\
             logging: {{level: warn}}\n"
        );
        std::fs::write(config.path().join("livekit.yaml"), yaml).unwrap();
        Self { port, secret: SECRET, config, process: None }
    }

    /// Starts it, and waits until it answers.
    pub async fn run(&mut self) {
        let mut command = Command::new(tool("LIVEKIT_SERVER"));
        command.arg("--config").arg(self.config.path().join("livekit.yaml"));
        if self.secret == DEV_SECRET {
            // It brings its own keys.
            command.arg("--dev");
        } else {
            command.arg("--keys").arg(format!("{KEY}: {}", self.secret));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(Process::start(&mut command));
        let url = format!("http://127.0.0.1:{}", self.port);
        until(async || reqwest::get(&url).await.ok()).await;
    }

    /// A token to join a room, publish and subscribe.
    pub fn token(&self, room: &str, identity: &str) -> String {
        self.sign(room, identity, true)
    }

    /// A token to join a room and publish, as the gateway issues them.
    ///
    /// Where a participant subscribes, LiveKit asks their SDK for offers at any time, and an SDK that disconnects
    /// while one is unanswered loses its leave request: LiveKit keeps the participant for 20 s more, and then says
    /// that the connection was lost.
    pub fn publisher_token(&self, room: &str, identity: &str) -> String {
        self.sign(room, identity, false)
    }

    fn sign(&self, room: &str, identity: &str, can_subscribe: bool) -> String {
        let grants = VideoGrants {
            room_join: true,
            room: room.into(),
            can_subscribe: Some(can_subscribe),
            ..VideoGrants::default()
        };
        AccessToken::with_api_key(KEY, self.secret)
            .with_identity(identity)
            .with_grants(grants)
            .to_jwt()
            .unwrap()
    }

    /// Everybody in a room whom others can see, by LiveKit's own list.
    pub async fn participants(&self, room: &str) -> Everybody {
        let listed = match self.rooms().list_participants(room).await {
            Ok(listed) => listed,
            Err(error) => panic!("{error}"),
        };
        let visible =
            listed.into_iter().filter(|them| !them.permission.as_ref().is_some_and(|may| may.hidden));
        visible
            .map(|them| {
                let tracks = them.tracks.into_iter().map(|track| track.sid).collect();
                (them.sid, Face { identity: them.identity, tracks })
            })
            .collect()
    }

    /// The names of all rooms.
    pub async fn room_names(&self) -> Vec<String> {
        let rooms = self.rooms().list_rooms(Vec::new()).await.unwrap();
        rooms.into_iter().map(|room| room.name).collect()
    }

    /// Removes somebody from a room.
    pub async fn remove(&self, room: &str, identity: &str) {
        self.rooms().remove_participant(room, identity).await.unwrap();
    }

    fn rooms(&self) -> RoomClient {
        RoomClient::with_api_key(&self.url(), KEY, self.secret)
    }

    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }
}
