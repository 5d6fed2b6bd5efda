//! Two peers over a simulated network, in virtual time.

use std::net::SocketAddr;

use super::*;
use crate::MediaType;
use crate::audio::sender::EncodedPacket;
use crate::audio_source::AudioSourceOptions;
use crate::audio_source::native::NativeAudioSource;
use crate::audio_track::AudioTrackKind;
use crate::clock;
use crate::data_channel::{DataChannelError, DataChannelInit};
use crate::media_stream_track::{MediaStreamTrack, RtcTrackState};
use crate::peer_connection::OfferOptions;
use crate::rtp_transceiver::{RtpTransceiverDirection as Direction, RtpTransceiverInit};
use crate::session_description::{SdpType, SessionDescription};
use crate::stats::RtcStats;

// --- Simulation ---------------------------------------------------------------------------------------------

/// One-way latency of the network.
const LATENCY: Duration = Duration::from_millis(5);

struct Simulation {
    start: Instant,
    now: Instant,
    sides: [Side; 2],
    /// Datagrams in flight, with their arrival times.
    in_flight: Vec<(Instant, Transmit)>,
    /// Whether the network delivers datagrams.
    network_up: bool,
}

struct Side {
    peer: Peer,
    events: Vec<PeerEvent>,
    packets: Vec<ReceivedAudio>,
    configs: Vec<(TransceiverId, Option<SendConfig>)>,
    ended: Vec<RtcAudioTrack>,
}

const A: usize = 0;
const B: usize = 1;

impl Simulation {
    fn new() -> Self {
        let now = clock::now();
        let side = |number: u8| {
            let mut peer = Peer::new(now);
            let address = SocketAddr::from(([192, 0, 2, number], 5_000));
            peer.add_local_candidate(Candidate::host(address, Protocol::Udp).unwrap(), false, now);
            Side { peer, events: vec![], packets: vec![], configs: vec![], ended: vec![] }
        };
        Self { start: now, now, sides: [side(1), side(2)], in_flight: vec![], network_up: true }
    }

    /// Connects both peers, with a track sent by A.
    fn with_track() -> (Self, TransceiverId) {
        let mut sim = Self::new();
        let id = sim.peer(A).add_track(local_track("TR_1")).unwrap();
        sim.negotiate(A);
        sim.connect();
        (sim, id)
    }

    fn peer(&mut self, side: usize) -> &mut Peer {
        &mut self.sides[side].peer
    }

    /// `from` offers, the other side answers, and both apply the descriptions.
    fn negotiate(&mut self, from: usize) {
        self.negotiate_with(from, &OfferOptions::default());
    }

    fn negotiate_with(&mut self, from: usize, options: &OfferOptions) {
        let now = self.now;
        let offer = self.peer(from).create_offer(options, now).unwrap();
        self.peer(from).set_local_description(offer.clone(), now).unwrap();
        let answer = self.answer(1 - from, offer);
        self.peer(from).set_remote_description(answer, now).unwrap();
    }

    fn answer(&mut self, side: usize, offer: SessionDescription) -> SessionDescription {
        let now = self.now;
        self.peer(side).set_remote_description(offer, now).unwrap();
        let answer = self.peer(side).create_answer().unwrap();
        self.peer(side).set_local_description(answer.clone(), now).unwrap();
        answer
    }

    /// Advances time until `done`; fails after one minute.
    fn run_until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        loop {
            self.collect();
            if done(self) {
                return;
            }
            let arrivals = self.in_flight.iter().map(|(at, _)| *at);
            let next = arrivals.chain(self.sides.iter().filter_map(|side| side.peer.deadline())).min();
            // Advances at least 100 µs, so that a deadline in the past does not stop time.
            self.now = next.unwrap_or(self.now).max(self.now + Duration::from_micros(100));
            assert!(self.now < self.start + Duration::from_secs(60), "timed out waiting for {what}");
            self.step();
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_until("the end of the interval", |sim| sim.now >= end);
    }

    fn step(&mut self) {
        let now = self.now;
        let (arrived, in_flight) =
            std::mem::take(&mut self.in_flight).into_iter().partition(|(at, _)| *at <= now);
        self.in_flight = in_flight;
        for (_, transmit) in arrived as Vec<(Instant, Transmit)> {
            let to = if transmit.destination.ip().to_string().ends_with(".1") { A } else { B };
            self.peer(to).handle_packet(
                transmit.proto,
                transmit.source,
                transmit.destination,
                &transmit.contents,
                now,
            );
        }
        for side in &mut self.sides {
            if side.peer.deadline().is_some_and(|at| at <= now) {
                side.peer.handle_timeout(now);
            }
        }
    }

    fn collect(&mut self) {
        for side in &mut self.sides {
            while let Some(output) = side.peer.poll() {
                match output {
                    Output::Transmit(transmit) if self.network_up => {
                        self.in_flight.push((self.now + LATENCY, transmit))
                    }
                    Output::Transmit(_) | Output::RemoteCandidate(_) | Output::Regather => {}
                    Output::Packet(received) => side.packets.push(received),
                    Output::TrackEnded(track) => side.ended.push(track),
                    Output::SetSender(id, config) => side.configs.push((id, config)),
                    Output::Event(event) => side.events.push(event),
                }
            }
        }
    }

    fn connect(&mut self) {
        let connected = |side: &Side| side.peer.connection_state() == PeerConnectionState::Connected;
        self.run_until("the connection", |sim| sim.sides.iter().all(connected));
    }

    fn run_until_open(&mut self, side: usize, channel: ChannelKey) {
        self.run_until("the channel", |sim| sim.peer(side).channel_state(channel) == DataChannelState::Open);
    }

    /// Text messages received by `side`.
    fn messages(&self, side: usize) -> Vec<String> {
        let events = self.sides[side].events.iter();
        events
            .filter_map(|event| {
                if let PeerEvent::Message { data, .. } = event {
                    Some(String::from_utf8(data.clone()).unwrap())
                } else {
                    None
                }
            })
            .collect()
    }

    /// Channels opened by the other side, as seen by `side`.
    fn opened(&self, side: usize) -> Vec<(ChannelKey, String)> {
        let events = self.sides[side].events.iter();
        events
            .filter_map(|event| {
                if let PeerEvent::ChannelOpened(key, label) = event {
                    Some((*key, label.clone()))
                } else {
                    None
                }
            })
            .collect()
    }

    /// Audio tracks added by the other side, as seen by `side`.
    fn tracks(&mut self, side: usize) -> Vec<RtcAudioTrack> {
        let ids: Vec<_> = self.sides[side]
            .events
            .iter()
            .filter_map(|event| if let PeerEvent::Track(id) = event { Some(*id) } else { None })
            .collect();
        let tracks = ids.into_iter().filter_map(|id| self.peer(side).receiver_track(id));
        tracks
            .filter_map(|track| if let MediaStreamTrack::Audio(track) = track { Some(track) } else { None })
            .collect()
    }

    /// Sends packets with these sequence numbers on `transceiver`, 20 ms apart.
    fn send_packets(&mut self, side: usize, transceiver: TransceiverId, numbers: std::ops::Range<u64>) {
        for seq in numbers {
            let now = self.now;
            let outgoing = EncodedPacket {
                seq,
                time: seq as u32 * 960,
                marker: false,
                level: -30,
                payload: [&[0x08][..], &seq.to_be_bytes()].concat(),
            };
            self.peer(side).send_audio(transceiver, outgoing, now);
            self.run_for(Duration::from_millis(20));
        }
    }
}

fn negotiated(id: i32) -> DataChannelInit {
    DataChannelInit { negotiated: true, id, ..DataChannelInit::default() }
}

fn local_track(id: &str) -> MediaStreamTrack {
    let source = NativeAudioSource::new(AudioSourceOptions::default(), 48_000, 1, 100);
    RtcAudioTrack::new(id.to_owned(), AudioTrackKind::Source(source)).into()
}

fn transceiver(direction: Direction) -> RtpTransceiverInit {
    RtpTransceiverInit { direction, stream_ids: vec![], send_encodings: vec![] }
}

// --- Channels -----------------------------------------------------------------------------------------------

#[test]
fn messages_are_delivered_in_both_directions_over_a_channel_opened_by_one_side() {
    let mut sim = Simulation::new();
    let now = sim.now;
    let ours = sim.peer(A).create_channel("chat", &DataChannelInit::default(), now).unwrap();
    assert!(matches!(sim.peer(A).send_message(ours, b"early", false, now), Err(DataChannelError::Send)));
    sim.negotiate(A);
    sim.run_until_open(A, ours);
    sim.run_until("the other end", |sim| !sim.opened(B).is_empty());
    let (theirs, label) = sim.opened(B).remove(0);

    let now = sim.now;
    sim.peer(A).send_message(ours, b"hello", false, now).unwrap();
    sim.peer(B).send_message(theirs, b"good day", false, now).unwrap();
    sim.run_until("the messages", |sim| !sim.messages(A).is_empty() && !sim.messages(B).is_empty());

    assert_eq!(label, "chat");
    assert_eq!((sim.messages(A), sim.messages(B)), (vec!["good day".to_owned()], vec!["hello".to_owned()]));
}

#[test]
fn every_byte_that_leaves_the_send_buffer_is_reported() {
    let mut sim = Simulation::new();
    let now = sim.now;
    let channel = sim.peer(A).create_channel("bulk", &negotiated(1), now).unwrap();
    sim.peer(B).create_channel("bulk", &negotiated(1), now).unwrap();
    sim.negotiate(A);
    sim.run_until_open(A, channel);
    let message = vec![7; 50_000];

    let now = sim.now;
    for _ in 0..20 {
        sim.peer(A).send_message(channel, &message, true, now).unwrap();
    }
    let sent = |sim: &mut Simulation| {
        let drained = sim.sides[A].events.iter();
        drained.map(|event| if let PeerEvent::Drained { sent, .. } = event { *sent } else { 0 }).sum::<u64>()
    };
    sim.run_until("the last byte", |sim| sent(sim) == 20 * 50_000);

    assert_eq!(sim.peer(A).buffered_amount(channel), 0);
}

#[test]
fn a_full_send_buffer_rejects_messages_until_it_has_drained() {
    let mut sim = Simulation::new();
    let now = sim.now;
    let channel = sim.peer(A).create_channel("bulk", &negotiated(1), now).unwrap();
    sim.peer(B).create_channel("bulk", &negotiated(1), now).unwrap();
    sim.negotiate(A);
    sim.run_until_open(A, channel);
    let (now, message) = (sim.now, vec![7; 60_000]);

    let accepted =
        (0..200).take_while(|_| sim.peer(A).send_message(channel, &message, true, now).is_ok()).count();
    sim.run_for(Duration::from_secs(20));
    let now = sim.now;

    assert!((1..100).contains(&accepted), "{accepted} messages of 60 kB were accepted");
    assert!(sim.peer(A).send_message(channel, &message, true, now).is_ok());
}

#[test]
fn negotiated_channels_remain_usable_after_discarded_offers() {
    let mut sim = Simulation::new();
    let now = sim.now;
    let first = sim.peer(A).create_channel("one", &negotiated(1), now).unwrap();
    sim.peer(A).create_offer(&OfferOptions::default(), now).unwrap();
    // As LiveKit does for old servers: close the offered channel and create it again.
    sim.peer(A).close_channel(first, now);
    let again = sim.peer(A).create_channel("one", &DataChannelInit::default(), now).unwrap();
    sim.peer(A).create_channel("two", &negotiated(3), now).unwrap();
    sim.peer(A).create_offer(&OfferOptions::default(), now).unwrap();
    sim.peer(A).create_channel("three", &negotiated(5), now).unwrap();

    sim.negotiate(A);
    sim.run_until_open(A, again);

    assert_eq!(sim.peer(A).channel_state(first), DataChannelState::Closed);
    assert_eq!(sim.opened(B).into_iter().map(|(_, label)| label).collect::<Vec<_>>(), ["one"]);
}

#[test]
fn invalid_channel_parameters_are_rejected() {
    let mut sim = Simulation::new();
    let now = sim.now;
    sim.peer(A).create_channel("one", &negotiated(1), now).unwrap();

    assert!(sim.peer(A).create_channel("two", &negotiated(1), now).is_err());
    assert!(sim.peer(A).create_channel("three", &negotiated(-1), now).is_err());
    let contradiction = DataChannelInit {
        max_retransmits: Some(1),
        max_retransmit_time: Some(1),
        ..DataChannelInit::default()
    };
    assert!(sim.peer(A).create_channel("four", &contradiction, now).is_err());
}

#[test]
fn a_closed_channel_closes_on_both_sides() {
    let mut sim = Simulation::new();
    let now = sim.now;
    let ours = sim.peer(A).create_channel("chat", &DataChannelInit::default(), now).unwrap();
    sim.negotiate(A);
    sim.run_until("the other end", |sim| !sim.opened(B).is_empty());
    sim.run_until_open(A, ours);
    let theirs = sim.opened(B)[0].0;

    let now = sim.now;
    sim.peer(A).close_channel(ours, now);

    sim.run_until("the close", |sim| {
        sim.peer(A).channel_state(ours) == DataChannelState::Closed
            && sim.peer(B).channel_state(theirs) == DataChannelState::Closed
    });
}

// --- Tracks -------------------------------------------------------------------------------------------------

#[test]
fn a_remote_track_has_the_id_of_the_sender_and_gets_its_packets() {
    let mut sim = Simulation::new();
    let id = sim
        .peer(A)
        .add_transceiver(MediaType::Audio, Some(local_track("TR_1")), transceiver(Direction::SendOnly))
        .unwrap();
    sim.negotiate(A);
    sim.connect();

    assert!(matches!(&sim.sides[A].configs[..], [(planned, Some(_))] if *planned == id));
    sim.send_packets(A, id, 100..110);

    let tracks = sim.tracks(B);
    assert_eq!(tracks.iter().map(RtcAudioTrack::id).collect::<Vec<_>>(), ["TR_1"]);
    let received_seqs: Vec<_> = sim.sides[B].packets.iter().map(|received| received.packet.seq).collect();
    assert_eq!(received_seqs, (100..110).collect::<Vec<_>>());
    assert!(sim.sides[B].packets.iter().all(|received| received.track.id() == "TR_1"));
}

#[test]
fn packets_are_sent_as_red_with_a_copy_of_the_previous_one_if_both_sides_support_it() {
    let mut sim = Simulation::new();
    let id = sim
        .peer(A)
        .add_transceiver(MediaType::Audio, Some(local_track("TR_1")), transceiver(Direction::SendOnly))
        .unwrap();
    sim.negotiate(A);
    sim.connect();
    sim.send_packets(A, id, 0..2);

    let last = &sim.sides[B].packets[1];
    let crate::audio::receiver::PayloadFormat::Red { opus } = last.payload_format else {
        panic!("the payload format is {:?}", last.payload_format);
    };
    let unpacked = crate::audio::red::unpack(&last.packet.payload, opus).unwrap();
    assert_eq!(unpacked.redundant.len(), 1);
}

#[test]
fn missing_packets_are_nacked_only_while_nack_is_enabled() {
    let (mut sim, id) = Simulation::with_track();
    sim.send_packets(A, id, 0..3);
    let lose_packets = |sim: &mut Simulation, numbers| {
        sim.network_up = false;
        sim.send_packets(A, id, numbers);
        sim.network_up = true;
    };
    let nack_count = |sim: &mut Simulation| {
        sim.run_for(STATS_INTERVAL + Duration::from_secs(1));
        let arrives = sim.peer(B).transceiver_ids()[0];
        let stats = sim.peer(B).receiver_stats(arrives, 0);
        let counts = stats.iter().filter_map(|report| {
            if let RtcStats::InboundRtp(inbound) = report { Some(inbound.inbound.nack_count) } else { None }
        });
        counts.sum::<u32>()
    };

    lose_packets(&mut sim, 3..6);
    sim.send_packets(A, id, 6..8);
    assert_eq!(nack_count(&mut sim), 0, "str0m sent NACKs while disabled");

    let (ssrc, now) = (sim.sides[B].packets[0].packet.ssrc, sim.now);
    sim.peer(B).set_nack_enabled(ssrc, true, now);
    sim.run_for(Duration::from_millis(50));
    let now = sim.now;
    sim.peer(B).set_nack_enabled(ssrc, false, now);
    let while_enabled = nack_count(&mut sim);
    assert_ne!(while_enabled, 0);

    lose_packets(&mut sim, 8..10);
    sim.send_packets(A, id, 10..12);
    assert_eq!(nack_count(&mut sim), while_enabled);
}

#[test]
fn a_removed_track_ends_at_the_other_side_and_its_section_can_be_reused() {
    let mut sim = Simulation::new();
    let first = sim.peer(A).add_track(local_track("first")).unwrap();
    sim.negotiate(A);
    sim.connect();

    sim.peer(A).remove_track(first).unwrap();
    sim.negotiate(A);
    sim.collect();
    let ended: Vec<_> = sim.sides[B].ended.iter().map(|track| (track.id(), track.state())).collect();
    assert_eq!(ended, [("first".to_owned(), RtcTrackState::Ended)]);

    let second = sim.peer(A).add_track(local_track("second")).unwrap();
    sim.negotiate(A);
    sim.run_for(Duration::from_millis(50));
    sim.send_packets(A, second, 0..3);

    assert_eq!(first, second, "the media section is reused");
    assert_eq!(sim.sides[B].packets.len(), 3);
}

#[test]
fn a_receive_only_section_has_no_send_stream_until_it_gets_a_track() {
    let mut sim = Simulation::new();
    let audio =
        sim.peer(A).add_transceiver(MediaType::Audio, None, transceiver(Direction::RecvOnly)).unwrap();
    let video =
        sim.peer(A).add_transceiver(MediaType::Video, None, transceiver(Direction::RecvOnly)).unwrap();
    sim.negotiate(A);
    sim.connect();
    let sends = |peer: &mut Peer, id| {
        let section = mid(&peer.mid(id).unwrap());
        peer.rtc.direct_api().stream_tx_by_mid(section, None).map(|stream| stream.ssrc())
    };
    assert_eq!([audio, video].map(|id| sends(sim.peer(A), id)), [None, None]);

    assert_eq!(sim.peer(A).add_track(local_track("late")).unwrap(), audio);
    sim.negotiate(A);
    sim.run_for(Duration::from_millis(50));
    sim.send_packets(A, audio, 0..3);

    let ssrc = sends(sim.peer(A), audio).expect("the section has a send stream");
    let offer = sim.peer(A).current_local_description().unwrap();
    assert!(offer.sdp().contains(&format!("a=ssrc:{ssrc} ")), "{}", offer.sdp());
    assert_eq!(sends(sim.peer(A), video), None);
    assert_eq!(sim.sides[B].packets.len(), 3);
}

#[test]
fn tracks_that_cannot_be_sent_are_rejected_with_the_reason() {
    let mut sim = Simulation::new();
    let video = crate::video_track::RtcVideoTrack::new("video".to_owned());
    let microphone = RtcAudioTrack::new("microphone".to_owned(), AudioTrackKind::Device);
    let remote =
        RtcAudioTrack::new("remote".to_owned(), AudioTrackKind::Remote(crate::audio::sink::Sinks::default()));

    for (track, reason) in [
        (MediaStreamTrack::Video(video), "video is not available"),
        (microphone.into(), "microphones is not available"),
        (remote.into(), "cannot be sent"),
    ] {
        let error = sim.peer(A).add_track(track).unwrap_err();
        assert!(error.message.contains(reason), "{error}");
    }
}

#[test]
fn encodings_limit_the_bitrate_and_stop_sending() {
    let mut sim = Simulation::new();
    let id = sim.peer(A).add_track(local_track("TR_1")).unwrap();
    sim.negotiate(A);
    let mut parameters = sim.peer(A).sender_parameters(id);

    parameters.encodings[0].max_bitrate = Some(12_000);
    sim.peer(A).set_sender_parameters(id, parameters.clone()).unwrap();
    parameters.encodings[0].active = false;
    sim.peer(A).set_sender_parameters(id, parameters.clone()).unwrap();
    parameters.encodings.clear();
    assert!(sim.peer(A).set_sender_parameters(id, parameters).is_err());

    sim.collect();
    let configs: Vec<_> = sim.sides[A]
        .configs
        .iter()
        .map(|(_, config)| config.as_ref().map(|p| p.settings.max_bitrate))
        .collect();
    assert_eq!(configs, [Some(None), Some(Some(12_000)), None]);
}

// --- Negotiation --------------------------------------------------------------------------------------------

#[test]
fn an_offer_can_be_created_without_changes() {
    let mut sim = Simulation::new();
    sim.peer(A).add_transceiver(MediaType::Audio, None, transceiver(Direction::RecvOnly)).unwrap();
    sim.negotiate(A);
    sim.connect();

    sim.negotiate(A);
    sim.negotiate(A);

    assert_eq!(sim.peer(A).signaling_state(), SignalingState::Stable);
}

#[test]
fn a_connection_with_only_data_channels_can_renegotiate() {
    let mut sim = Simulation::new();
    let now = sim.now;
    let channel = sim.peer(A).create_channel("chat", &DataChannelInit::default(), now).unwrap();
    sim.negotiate(A);
    sim.run_until_open(A, channel);

    sim.negotiate(A);
    sim.run_for(Duration::from_secs(1));

    assert_eq!(sim.peer(A).connection_state(), PeerConnectionState::Connected);
}

#[test]
fn applying_the_last_remote_description_again_rolls_back_the_pending_offer() {
    let mut sim = Simulation::new();
    sim.peer(A).add_transceiver(MediaType::Audio, None, transceiver(Direction::RecvOnly)).unwrap();
    sim.negotiate(A);
    let now = sim.now;
    let added = sim
        .peer(A)
        .add_transceiver(MediaType::Audio, Some(local_track("TR_1")), transceiver(Direction::SendOnly))
        .unwrap();
    let offer = sim.peer(A).create_offer(&OfferOptions::default(), now).unwrap();
    sim.peer(A).set_local_description(offer, now).unwrap();

    let last = sim.peer(A).current_remote_description().unwrap();
    sim.peer(A).set_remote_description(last, now).unwrap();
    assert_eq!(sim.peer(A).signaling_state(), SignalingState::Stable);
    sim.negotiate(A);

    assert_eq!(sim.peer(A).current_direction(added), Some(Direction::SendOnly));
}

#[test]
fn media_continues_during_an_ice_restart() {
    let (mut sim, id) = Simulation::with_track();
    sim.send_packets(A, id, 0..5);

    sim.negotiate_with(A, &OfferOptions { ice_restart: true, ..OfferOptions::default() });
    sim.send_packets(A, id, 5..60);

    assert_eq!(sim.sides[B].packets.len(), 60);
    assert_eq!(sim.peer(A).connection_state(), PeerConnectionState::Connected);
}

#[test]
fn descriptions_that_are_invalid_or_in_the_wrong_state_are_rejected_and_change_nothing() {
    let mut sim = Simulation::new();
    let now = sim.now;
    let peer = sim.peer(A);
    let made_up = SessionDescription::new(SdpType::Offer, "v=0\r\n".to_owned());

    assert!(peer.create_offer(&OfferOptions::default(), now).is_err(), "there is nothing to offer");
    assert!(peer.create_answer().is_err());
    assert!(peer.set_local_description(made_up.clone(), now).is_err());
    assert_eq!(peer.set_remote_description(made_up, now).unwrap_err().error_type, RtcErrorType::InvalidSdp);
    let candidate = IceCandidate::parse("0", 0, "candidate:1 1 udp 1 192.0.2.9 9 typ host").unwrap();
    assert!(peer.add_remote_candidate(&candidate, now).is_err(), "before the remote description");

    assert_eq!(peer.signaling_state(), SignalingState::Stable);
}

// --- States -------------------------------------------------------------------------------------------------

#[test]
fn an_outage_of_seconds_does_not_change_the_connection_state() {
    let (mut sim, id) = Simulation::with_track();

    sim.network_up = false;
    sim.run_for(Duration::from_secs(8));
    sim.network_up = true;
    sim.run_for(Duration::from_secs(4));
    sim.send_packets(A, id, 0..3);

    assert_eq!(sim.sides[B].packets.len(), 3);
    let states = sim.sides[A].events.iter().filter(|event| matches!(event, PeerEvent::Connection(_)));
    assert_eq!(states.count(), 2, "connecting and connected");
}

#[test]
fn a_long_outage_fails_the_connection_and_an_ice_restart_recovers_it() {
    let (mut sim, id) = Simulation::with_track();
    let cut = sim.now;

    sim.network_up = false;
    let state = |sim: &mut Simulation| sim.peer(A).connection_state();
    sim.run_until("the failure", |sim| state(sim) == PeerConnectionState::Failed);
    assert!(sim.now - cut < Duration::from_secs(25), "{:?}", sim.now - cut);
    sim.network_up = true;
    sim.negotiate_with(A, &OfferOptions { ice_restart: true, ..OfferOptions::default() });
    sim.connect();
    sim.send_packets(A, id, 0..3);

    assert_eq!(sim.sides[B].packets.len(), 3);
}

#[test]
fn a_peer_that_never_responds_fails_the_connection() {
    let mut sim = Simulation::new();
    let now = sim.now;
    sim.network_up = false;
    sim.peer(A).create_channel("chat", &DataChannelInit::default(), now).unwrap();
    sim.negotiate(A);

    sim.run_until("the failure", |sim| sim.peer(A).connection_state() == PeerConnectionState::Failed);

    assert!(sim.now - sim.start >= CONNECT_TIMEOUT);
}

#[test]
fn a_closed_peer_notifies_the_other_side_and_is_finished() {
    let mut sim = Simulation::new();
    let id = sim.peer(A).add_track(local_track("TR_1")).unwrap();
    let now = sim.now;
    let channel = sim.peer(A).create_channel("chat", &DataChannelInit::default(), now).unwrap();
    sim.negotiate(A);
    sim.connect();
    sim.run_until_open(A, channel);

    let now = sim.now;
    sim.peer(A).close(now);
    // The notification lets the other side reconnect without waiting for the ICE timeout.
    sim.run_until("the failure", |sim| sim.peer(B).connection_state() == PeerConnectionState::Failed);

    assert!(sim.peer(A).is_finished());
    assert_eq!(sim.peer(A).channel_state(channel), DataChannelState::Closed);
    assert!(sim.peer(A).remove_track(id).is_err());
    assert!(sim.peer(A).create_offer(&OfferOptions::default(), now).is_err());
    let last = sim.sides[A].events.iter().rev().find(|event| matches!(event, PeerEvent::ChannelState(..)));
    assert!(matches!(last, Some(PeerEvent::ChannelState(key, DataChannelState::Closed)) if *key == channel));
}

#[test]
fn datagrams_from_unknown_addresses_are_ignored() {
    let (mut sim, id) = Simulation::with_track();
    let (from, to) = ("203.0.113.9:9".parse().unwrap(), "192.0.2.2:5000".parse().unwrap());

    for first in 0..=255_u8 {
        let now = sim.now;
        sim.peer(B).handle_packet(Protocol::Udp, from, to, &[], now);
        sim.peer(B).handle_packet(Protocol::Udp, from, to, &[first; 60], now);
    }
    sim.send_packets(A, id, 0..3);

    assert_eq!(sim.sides[B].packets.len(), 3);
}
