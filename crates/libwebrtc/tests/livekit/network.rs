//! Transports other than UDP, and a lossy network.

use std::collections::HashSet;
use std::time::Duration;

use livekit::SimulateScenario;
use livekit::prelude::*;
use livekit::webrtc::audio_stream::native::NativeAudioStream;
use livekit::webrtc::prelude::IceTransportsType;
use livekit::webrtc::stats::RtcStats;
use test_support::{Loss, LossyNetwork, PROXY_ADDRESS, free_port};

use crate::audio::publish_tone;
use crate::support::{MODES, Mode, Server, expect_clean_tone, read, subscribed};

const RATE: u32 = 16_000;

#[tokio::test(flavor = "multi_thread")]
async fn audio_is_received_over_tcp_if_the_server_requires_it() {
    let server = Server::start().await;
    for mode in MODES {
        let name = format!("tcp-{mode:?}");
        let mut python = server.python(&name, "python", &["tone", "440"]);
        python.expect_line("published").await;
        let (room, mut events) = server.join(&name, "rust", mode).await;
        subscribed(&mut events).await;

        room.simulate_scenario(SimulateScenario::ForceTcp).await.unwrap();
        let track = subscribed(&mut events).await;

        let mut stream = NativeAudioStream::new(track.rtc_track(), RATE as i32, 1);
        expect_clean_tone(&mut stream, RATE, 1, 440.0, 12_000.0).await;
        assert_ne!(established_tcp(server.tcp_port()), 0, "{mode:?}: the audio was not received over TCP");
        room.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn audio_is_received_over_turn_if_only_relayed_candidates_are_allowed() {
    // The server opens a socket on each interface and signals all of them with the address of its node, keeping only
    // the first candidate. A relay on loopback reaches only the socket on loopback.
    let turn = format!(
        "  interfaces:\n    includes: [lo]\nturn:\n  enabled: true\n  domain: localhost\n  udp_port: {}\n  relay_range_start: 17700\n  \
         relay_range_end: 17799\n",
        free_port()
    );
    let server = Server::start_with(&turn).await;
    for mode in MODES {
        let name = format!("turn-{mode:?}");
        let mut python = server.python(&name, "python", &["tone", "440"]);
        python.expect_line("published").await;
        let mut options = RoomOptions::default();
        options.single_peer_connection = mode == Mode::Single;
        options.rtc_config.ice_transport_type = IceTransportsType::Relay;
        let (room, mut events) = server.join_with(&name, "rust", options).await.expect("joining failed");
        let track = subscribed(&mut events).await;

        let mut stream = NativeAudioStream::new(track.rtc_track(), RATE as i32, 1);
        expect_clean_tone(&mut stream, RATE, 1, 440.0, 12_000.0).await;
        room.close().await.unwrap();
    }
}

/// A fifth of the packets is lost, in bursts longer than the number of RED copies, for publishers with RED and without.
/// Limits of the server: it does not retransmit if it creates the RED copies itself, nor a packet that it sent less
/// than two round trips ago, so that the latency must be low here. On a busy machine it retransmits only some packets.
#[tokio::test(flavor = "multi_thread")]
async fn lost_packets_are_retransmitted() {
    let udp_port = free_port();
    let server = Server::start_behind(PROXY_ADDRESS, udp_port).await;
    let network = LossyNetwork::start(udp_port, Duration::from_millis(4), 0).await;
    for mode in MODES {
        let plain = format!("loss-plain-{mode:?}");
        let mut python = server.python(&plain, "python", &["tone", "440", "plain"]);
        python.expect_line("published").await;
        expect_retransmissions(&server, &network, &plain, mode).await;

        let red = format!("loss-red-{mode:?}");
        let (room, _events) = server.join(&red, "speaker", mode).await;
        let (_track, publishing) = publish_tone(&room, 48_000, 660.0).await;
        expect_retransmissions(&server, &network, &red, mode).await;
        publishing.abort();
    }
}

/// Receives until at most 12 % of the packets are missing at their playout time. Without retransmission it would be 20
/// % of a track without RED and 16 % of one with one RED copy per packet.
async fn expect_retransmissions(server: &Server, network: &LossyNetwork, name: &str, mode: Mode) {
    let (room, mut events) = server.join(name, "rust", mode).await;
    let track = subscribed(&mut events).await;
    let mut stream = NativeAudioStream::new(track.rtc_track(), RATE as i32, 1);
    network.lose(Loss::Regular { lost: 5, of: 25 });
    let mut missing_percent = Vec::new();
    let (mut lost_before, mut received_before) = lost_and_received(&track).await;
    while missing_percent.last().is_none_or(|percent| *percent > 12.0) {
        // 150 s: long enough for the other tests, which load the machine, to end.
        assert!(missing_percent.len() < 50, "{name}: {missing_percent:?} % of the packets were missing");
        read(&mut stream, RATE, 3.0).await;
        let (lost, received) = lost_and_received(&track).await;
        let (missing, received_now) = (lost - lost_before, received - received_before);
        missing_percent.push(100.0 * missing / (missing + received_now));
        (lost_before, received_before) = (lost, received);
    }
    assert!(network.lost_percent() > 10.0, "{name}: {} % were lost", network.lost_percent());
    network.lose(Loss::None);
    room.close().await.unwrap();
}

/// Packets of a track so far: those missing at their playout time, and those received.
async fn lost_and_received(track: &RemoteAudioTrack) -> (f64, f64) {
    let stats = track.get_stats().await.unwrap();
    let inbound = stats.iter().find_map(|report| match report {
        RtcStats::InboundRtp(inbound) => Some(&inbound.received),
        _ => None,
    });
    inbound.map_or((0.0, 0.0), |received| (received.packets_lost as f64, received.packets_received as f64))
}

/// Number of established TCP connections of this process to `port`. Connections of the publisher's process, which tries
/// all candidates of the server, are not counted.
fn established_tcp(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let remote = format!(":{port:04X}");
    let ours: HashSet<String> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|file| file.ok()?.path().read_link().ok()?.to_str().map(str::to_owned))
        .collect();
    let fields = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    // Fields (proc(5)): the third is the remote address, the fourth the state (01: established), the tenth the inode.
    fields
        .filter(|fields| fields[2].ends_with(&remote) && fields[3] == "01")
        .filter(|fields| ours.contains(&format!("socket:[{}]", fields[9])))
        .count()
}
