//! Ways to the server other than UDP, and a bad one.

use std::collections::HashSet;
use std::time::Duration;

use livekit::SimulateScenario;
use livekit::prelude::*;
use livekit::webrtc::audio_stream::native::NativeAudioStream;
use livekit::webrtc::prelude::IceTransportsType;
use livekit::webrtc::stats::RtcStats;

use crate::audio::publish_tone;
use crate::line::{self, Line, Loss};
use crate::ports::free_port;
use crate::support::{MODES, Mode, Server, hears_cleanly, read, subscribed};

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
        assert_ne!(established_tcp(server.tcp_port()), 0, "{mode:?}: the sound did not come by TCP");
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
        free_port()
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

/// A fifth is lost, more in a row than any packet carries copies of. Of publishers with copies and without: where the
/// server itself makes the copies, it sends nothing again. It does not either what it sent less than two round trips
/// ago, so that the way must not be long here, and on a busy machine it sends only some of it again.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_line_loses_is_sent_again() {
    let udp_port = free_port();
    let server = Server::start_behind(line::ADDRESS, udp_port).await;
    let line = Line::start(udp_port, Duration::from_millis(4), 0).await;
    for mode in MODES {
        let plain = format!("loss-plain-{mode:?}");
        let mut python = server.python(&plain, "python", &["tone", "440", "plain"]);
        python.says("published").await;
        misses_less_than_was_lost(&server, &line, &plain, mode).await;

        let red = format!("loss-red-{mode:?}");
        let (room, _events) = server.join(&red, "speaker", mode).await;
        let (_track, speaking) = publish_tone(&room, 48_000, 660.0).await;
        misses_less_than_was_lost(&server, &line, &red, mode).await;
        speaking.abort();
    }
}

/// Listens until little of what is lost is missed. If nothing were sent again, 20 % would be missed of a track without
/// copies, and 16 % of one that carries one of them.
async fn misses_less_than_was_lost(server: &Server, line: &Line, name: &str, mode: Mode) {
    let (room, mut events) = server.join(name, "rust", mode).await;
    let track = subscribed(&mut events).await;
    let mut stream = NativeAudioStream::new(track.rtc_track(), RATE as i32, 1);
    line.lose(Loss::Regular { lost: 5, of: 25 });
    let mut missed_percent = Vec::new();
    let (mut lost_before, mut received_before) = lost_and_received(&track).await;
    while missed_percent.last().is_none_or(|percent| *percent > 12.0) {
        // The other tests have ended by then.
        assert!(missed_percent.len() < 50, "{name}: {missed_percent:?} % were missed");
        read(&mut stream, RATE, 3.0).await;
        let (lost, received) = lost_and_received(&track).await;
        let (missed, came) = (lost - lost_before, received - received_before);
        missed_percent.push(100.0 * missed / (missed + came));
        (lost_before, received_before) = (lost, received);
    }
    assert!(line.lost_percent() > 10.0, "{name}: {} % were lost", line.lost_percent());
    line.lose(Loss::None);
    room.close().await.unwrap();
}

/// Packets of a track so far: those that were not there when their turn came, and all that came.
async fn lost_and_received(track: &RemoteAudioTrack) -> (f64, f64) {
    let stats = track.get_stats().await.unwrap();
    let inbound = stats.iter().find_map(|report| match report {
        RtcStats::InboundRtp(inbound) => Some(&inbound.received),
        _ => None,
    });
    inbound.map_or((0.0, 0.0), |received| (received.packets_lost as f64, received.packets_received as f64))
}

/// The established TCP connections of this process to `port`. The publisher, a process of its own, may hold one as
/// well: it tries every candidate of the server.
fn established_tcp(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let remote = format!(":{port:04X}");
    let ours: HashSet<String> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|file| file.ok()?.path().read_link().ok()?.to_str().map(str::to_owned))
        .collect();
    let fields = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    // proc(5): the remote address is the third field, the state the fourth (01 is established), the inode the tenth.
    fields
        .filter(|fields| fields[2].ends_with(&remote) && fields[3] == "01")
        .filter(|fields| ours.contains(&format!("socket:[{}]", fields[9])))
        .count()
}
