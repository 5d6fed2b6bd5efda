//! Ways to the server other than UDP.

use livekit::SimulateScenario;
use livekit::prelude::*;
use livekit::webrtc::audio_stream::native::NativeAudioStream;
use livekit::webrtc::prelude::IceTransportsType;

use crate::support::{MODES, Mode, Server, free_udp_port, hears_cleanly, subscribed};

const RATE: u32 = 16_000;

#[tokio::test(flavor = "multi_thread")]
async fn where_the_server_wants_tcp_sound_comes_by_tcp() {
    let server = Server::start().await;
    for mode in MODES {
        let name = format!("tcp-{mode:?}");
        let mut python = server.python(&name, "python", &["tone", "440"]);
        python.says("published").await;
        let (room, mut events) = server.join(&name, "rust", mode).await;
        subscribed(&mut events).await;

        room.simulate_scenario(SimulateScenario::ForceTcp).await.unwrap();
        let track = subscribed(&mut events).await;

        let mut stream = NativeAudioStream::new(track.rtc_track(), RATE as i32, 1);
        hears_cleanly(&mut stream, RATE, 1, 440.0, 12_000.0).await;
        assert_eq!(established_tcp(server.tcp_port()), 1, "{mode:?}: the sound did not come by TCP");
        room.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sound_comes_by_a_turn_server_where_nothing_else_is_allowed() {
    // The server has a socket on each interface and calls all of them by the address of its node: of those it
    // keeps the candidate that it came to first. A relay on loopback reaches only the one of loopback.
    let turn = format!(
        "  interfaces:\n    includes: [lo]\nturn:\n  enabled: true\n  domain: localhost\n  udp_port: {}\n  relay_range_start: 17700\n  \
         relay_range_end: 17799\n",
        free_udp_port()
    );
    let server = Server::start_with(&turn).await;
    for mode in MODES {
        let name = format!("turn-{mode:?}");
        let mut python = server.python(&name, "python", &["tone", "440"]);
        python.says("published").await;
        let mut options = RoomOptions::default();
        options.single_peer_connection = mode == Mode::Single;
        options.rtc_config.ice_transport_type = IceTransportsType::Relay;
        let (room, mut events) = server.join_with(&name, "rust", options).await.expect("joining failed");
        let track = subscribed(&mut events).await;

        let mut stream = NativeAudioStream::new(track.rtc_track(), RATE as i32, 1);
        hears_cleanly(&mut stream, RATE, 1, 440.0, 12_000.0).await;
        room.close().await.unwrap();
    }
}

/// The established TCP connections of this process to `port`. The peer has some too, with servers of 2024.
fn established_tcp(port: u16) -> usize {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = descriptors.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    let ours: Vec<String> = links.map(|link| link.to_string_lossy().into_owned()).collect();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let remote = format!(":{port:04X}");
    let fields = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    // proc(5): the remote address is the third field, the state the fourth, and 01 is established; the tenth is the
    // inode.
    let established = fields.filter(|fields| fields[2].ends_with(&remote) && fields[3] == "01");
    established.filter(|fields| ours.contains(&format!("socket:[{}]", fields[9]))).count()
}
