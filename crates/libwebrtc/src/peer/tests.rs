//! Two peers in virtual time.

use std::net::SocketAddr;

use super::*;
use crate::MediaType;
use crate::audio::sender::Outgoing;
use crate::audio_source::AudioSourceOptions;
use crate::audio_source::native::NativeAudioSource;
use crate::audio_track::Feed;
use crate::clock;
use crate::data_channel::{DataChannelError, DataChannelInit};
use crate::media_stream_track::{MediaStreamTrack, RtcTrackState};
use crate::peer_connection::OfferOptions;
use crate::rtp_transceiver::{RtpTransceiverDirection as Direction, RtpTransceiverInit};
use crate::session_description::{SdpType, SessionDescription};
use crate::stats::RtcStats;

// --- The world ----------------------------------------------------------------------------------------------

/// One way through the network.
const LATENCY: Duration = Duration::from_millis(5);

struct World {
    start: Instant,
    now: Instant,
    sides: [Side; 2],
    /// Datagrams on their way: when they arrive, where, and from where.
    flying: Vec<(Instant, Transmit)>,
    /// Whether the network carries anything.
    up: bool,
}

struct Side {
    peer: Peer,
    notices: Vec<Notice>,
    packets: Vec<Incoming>,
    plans: Vec<(TransceiverId, Option<SendPlan>)>,
    ended: Vec<RtcAudioTrack>,
}

const A: usize = 0;
const B: usize = 1;

impl World {
    fn new() -> Self {
        let now = clock::now();
        let side = |number: u8| {
            let mut peer = Peer::new(now);
            let address = SocketAddr::from(([192, 0, 2, number], 5_000));
            peer.add_local_candidate(Candidate::host(address, Protocol::Udp).unwrap(), false, now);
            Side { peer, notices: vec![], packets: vec![], plans: vec![], ended: vec![] }
        };
        Self { start: now, now, sides: [side(1), side(2)], flying: vec![], up: true }
    }

    /// Both are connected, and A has a track to send.
    fn with_track() -> (Self, TransceiverId) {
        let mut world = Self::new();
        let id = world.peer(A).add_track(local_track("TR_1")).unwrap();
        world.negotiate(A);
        world.connect();
        (world, id)
    }

    fn peer(&mut self, side: usize) -> &mut Peer {
        &mut self.sides[side].peer
    }

    /// `from` offers, the other answers, and both apply.
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

    /// Lets time run until `done`, for a minute at most.
    fn run_until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        loop {
            self.collect();
            if done(self) {
                return;
            }
            let arrivals = self.flying.iter().map(|(at, _)| *at);
            let next = arrivals.chain(self.sides.iter().filter_map(|side| side.peer.deadline())).min();
            // A deadline that is due must not come again at once, for ever.
            self.now = next.unwrap_or(self.now).max(self.now + Duration::from_micros(100));
            assert!(self.now < self.start + Duration::from_secs(60), "{what} did not come");
            self.step();
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_until("the end of time", |world| world.now >= end);
    }

    fn step(&mut self) {
        let now = self.now;
        let (arrived, flying) = std::mem::take(&mut self.flying).into_iter().partition(|(at, _)| *at <= now);
        self.flying = flying;
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
                    Output::Transmit(transmit) if self.up => self.flying.push((self.now + LATENCY, transmit)),
                    Output::Transmit(_) | Output::Reach(_) | Output::Gather => {}
                    Output::Packet(incoming) => side.packets.push(incoming),
                    Output::TrackEnded(track) => side.ended.push(track),
                    Output::Send(id, plan) => side.plans.push((id, plan)),
                    Output::Notify(notice) => side.notices.push(notice),
                }
            }
        }
    }

    fn connect(&mut self) {
        let connected = |side: &Side| side.peer.connection_state() == PeerConnectionState::Connected;
        self.run_until("the connection", |world| world.sides.iter().all(connected));
    }

    fn run_until_open(&mut self, side: usize, channel: ChannelKey) {
        self.run_until("the channel", |world| {
            world.peer(side).channel_state(channel) == DataChannelState::Open
        });
    }

    /// The texts that arrived at `side`.
    fn messages(&self, side: usize) -> Vec<String> {
        let notices = self.sides[side].notices.iter();
        notices
            .filter_map(|notice| {
                if let Notice::Message { data, .. } = notice {
                    Some(String::from_utf8(data.clone()).unwrap())
                } else {
                    None
                }
            })
            .collect()
    }

    /// The channels that the other side opened at `side`.
    fn opened(&self, side: usize) -> Vec<(ChannelKey, String)> {
        let notices = self.sides[side].notices.iter();
        notices
            .filter_map(|notice| {
                if let Notice::ChannelOpened(key, label) = notice {
                    Some((*key, label.clone()))
                } else {
                    None
                }
            })
            .collect()
    }

    /// The tracks that began to arrive at `side`.
    fn tracks(&mut self, side: usize) -> Vec<RtcAudioTrack> {
        let ids: Vec<_> = self.sides[side]
            .notices
            .iter()
            .filter_map(|notice| if let Notice::Track(id) = notice { Some(*id) } else { None })
            .collect();
        let tracks = ids.into_iter().filter_map(|id| self.peer(side).receiver_track(id));
        tracks
            .filter_map(|track| if let MediaStreamTrack::Audio(track) = track { Some(track) } else { None })
            .collect()
    }

    /// Sends `count` packets on `transceiver`, one each 20 ms.
    fn speak(&mut self, side: usize, transceiver: TransceiverId, numbers: std::ops::Range<u64>) {
        for seq in numbers {
            let now = self.now;
            let outgoing = Outgoing {
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
    RtcAudioTrack::new(id.to_owned(), Feed::Source(source)).into()
}

fn transceiver(direction: Direction) -> RtpTransceiverInit {
    RtpTransceiverInit { direction, stream_ids: vec![], send_encodings: vec![] }
}

// --- Channels -----------------------------------------------------------------------------------------------

#[test]
fn messages_go_both_ways_over_a_channel_that_one_side_opened() {
    let mut world = World::new();
    let now = world.now;
    let ours = world.peer(A).create_channel("chat", &DataChannelInit::default(), now).unwrap();
    assert!(matches!(world.peer(A).send_message(ours, b"early", false, now), Err(DataChannelError::Send)));
    world.negotiate(A);
    world.run_until_open(A, ours);
    world.run_until("the other end", |world| !world.opened(B).is_empty());
    let (theirs, label) = world.opened(B).remove(0);

    let now = world.now;
    world.peer(A).send_message(ours, b"hello", false, now).unwrap();
    world.peer(B).send_message(theirs, b"good day", false, now).unwrap();
    world.run_until("the messages", |world| !world.messages(A).is_empty() && !world.messages(B).is_empty());

    assert_eq!(label, "chat");
    assert_eq!(
        (world.messages(A), world.messages(B)),
        (vec!["good day".to_owned()], vec!["hello".to_owned()])
    );
}

#[test]
fn what_leaves_the_send_buffer_is_reported_to_the_last_byte() {
    let mut world = World::new();
    let now = world.now;
    let channel = world.peer(A).create_channel("bulk", &negotiated(1), now).unwrap();
    world.peer(B).create_channel("bulk", &negotiated(1), now).unwrap();
    world.negotiate(A);
    world.run_until_open(A, channel);
    let message = vec![7; 50_000];

    let now = world.now;
    for _ in 0..20 {
        world.peer(A).send_message(channel, &message, true, now).unwrap();
    }
    let sent = |world: &mut World| {
        let drained = world.sides[A].notices.iter();
        drained.map(|notice| if let Notice::Drained { sent, .. } = notice { *sent } else { 0 }).sum::<u64>()
    };
    world.run_until("the last byte", |world| sent(world) == 20 * 50_000);

    assert_eq!(world.peer(A).buffered_amount(channel), 0);
}

#[test]
fn a_send_buffer_that_is_full_refuses_and_takes_again_when_it_has_drained() {
    let mut world = World::new();
    let now = world.now;
    let channel = world.peer(A).create_channel("bulk", &negotiated(1), now).unwrap();
    world.peer(B).create_channel("bulk", &negotiated(1), now).unwrap();
    world.negotiate(A);
    world.run_until_open(A, channel);
    let (now, message) = (world.now, vec![7; 60_000]);

    let taken =
        (0..200).take_while(|_| world.peer(A).send_message(channel, &message, true, now).is_ok()).count();
    world.run_for(Duration::from_secs(20));
    let now = world.now;

    assert!((1..100).contains(&taken), "{taken} messages of 60 kB were taken");
    assert!(world.peer(A).send_message(channel, &message, true, now).is_ok());
}

#[test]
fn offers_that_come_to_nothing_leave_negotiated_channels_usable() {
    let mut world = World::new();
    let now = world.now;
    let first = world.peer(A).create_channel("one", &negotiated(1), now).unwrap();
    world.peer(A).create_offer(&OfferOptions::default(), now).unwrap();
    // LiveKit, when the server turns out to be an old one: close what was offered, make it anew.
    world.peer(A).close_channel(first, now);
    let again = world.peer(A).create_channel("one", &DataChannelInit::default(), now).unwrap();
    world.peer(A).create_channel("two", &negotiated(3), now).unwrap();
    world.peer(A).create_offer(&OfferOptions::default(), now).unwrap();
    world.peer(A).create_channel("three", &negotiated(5), now).unwrap();

    world.negotiate(A);
    world.run_until_open(A, again);

    assert_eq!(world.peer(A).channel_state(first), DataChannelState::Closed);
    assert_eq!(world.opened(B).into_iter().map(|(_, label)| label).collect::<Vec<_>>(), ["one"]);
}

#[test]
fn two_channels_on_one_stream_are_refused() {
    let mut world = World::new();
    let now = world.now;
    world.peer(A).create_channel("one", &negotiated(1), now).unwrap();

    assert!(world.peer(A).create_channel("two", &negotiated(1), now).is_err());
    assert!(world.peer(A).create_channel("three", &negotiated(-1), now).is_err());
    let contradiction = DataChannelInit {
        max_retransmits: Some(1),
        max_retransmit_time: Some(1),
        ..DataChannelInit::default()
    };
    assert!(world.peer(A).create_channel("four", &contradiction, now).is_err());
}

#[test]
fn a_closed_channel_closes_on_both_sides() {
    let mut world = World::new();
    let now = world.now;
    let ours = world.peer(A).create_channel("chat", &DataChannelInit::default(), now).unwrap();
    world.negotiate(A);
    world.run_until("the other end", |world| !world.opened(B).is_empty());
    world.run_until_open(A, ours);
    let theirs = world.opened(B)[0].0;

    let now = world.now;
    world.peer(A).close_channel(ours, now);

    world.run_until("the close", |world| {
        world.peer(A).channel_state(ours) == DataChannelState::Closed
            && world.peer(B).channel_state(theirs) == DataChannelState::Closed
    });
}

// --- Tracks -------------------------------------------------------------------------------------------------

#[test]
fn a_track_arrives_under_the_names_it_was_sent_with_and_its_packets_with_it() {
    let mut world = World::new();
    let id = world
        .peer(A)
        .add_transceiver(MediaType::Audio, Some(local_track("TR_1")), transceiver(Direction::SendOnly))
        .unwrap();
    world.negotiate(A);
    world.connect();

    assert!(matches!(&world.sides[A].plans[..], [(planned, Some(_))] if *planned == id));
    world.speak(A, id, 100..110);

    let tracks = world.tracks(B);
    assert_eq!(tracks.iter().map(RtcAudioTrack::id).collect::<Vec<_>>(), ["TR_1"]);
    let heard: Vec<_> = world.sides[B].packets.iter().map(|incoming| incoming.packet.seq).collect();
    assert_eq!(heard, (100..110).collect::<Vec<_>>());
    assert!(world.sides[B].packets.iter().all(|incoming| incoming.track.id() == "TR_1"));
}

#[test]
fn packets_go_as_red_because_both_sides_have_it_and_carry_the_one_before() {
    let mut world = World::new();
    let id = world
        .peer(A)
        .add_transceiver(MediaType::Audio, Some(local_track("TR_1")), transceiver(Direction::SendOnly))
        .unwrap();
    world.negotiate(A);
    world.connect();
    world.speak(A, id, 0..2);

    let last = &world.sides[B].packets[1];
    let crate::audio::receiver::Packing::Red { opus } = last.packing else {
        panic!("it came as {:?}", last.packing);
    };
    let unpacked = crate::audio::red::unpack(&last.packet.payload, opus).unwrap();
    assert_eq!(unpacked.earlier.len(), 1);
}

#[test]
fn what_is_missing_is_asked_for_while_it_is_wanted_and_no_longer() {
    let (mut world, id) = World::with_track();
    world.speak(A, id, 0..3);
    let lose = |world: &mut World, numbers| {
        world.up = false;
        world.speak(A, id, numbers);
        world.up = true;
    };
    let asked = |world: &mut World| {
        world.run_for(STATS_INTERVAL + Duration::from_secs(1));
        let arrives = world.peer(B).transceiver_ids()[0];
        let stats = world.peer(B).receiver_stats(arrives, 0);
        let counts = stats.iter().filter_map(|report| {
            if let RtcStats::InboundRtp(inbound) = report { Some(inbound.inbound.nack_count) } else { None }
        });
        counts.sum::<u32>()
    };

    lose(&mut world, 3..6);
    world.speak(A, id, 6..8);
    assert_eq!(asked(&mut world), 0, "str0m asks by itself");

    let (ssrc, now) = (world.sides[B].packets[0].packet.ssrc, world.now);
    world.peer(B).ask_again(ssrc, true, now);
    world.run_for(Duration::from_millis(50));
    let now = world.now;
    world.peer(B).ask_again(ssrc, false, now);
    let while_wanted = asked(&mut world);
    assert_ne!(while_wanted, 0);

    lose(&mut world, 8..10);
    world.speak(A, id, 10..12);
    assert_eq!(asked(&mut world), while_wanted);
}

#[test]
fn a_track_that_is_taken_away_ends_at_the_other_side_and_another_can_follow() {
    let mut world = World::new();
    let first = world.peer(A).add_track(local_track("first")).unwrap();
    world.negotiate(A);
    world.connect();

    world.peer(A).remove_track(first).unwrap();
    world.negotiate(A);
    world.collect();
    let ended: Vec<_> = world.sides[B].ended.iter().map(|track| (track.id(), track.state())).collect();
    assert_eq!(ended, [("first".to_owned(), RtcTrackState::Ended)]);

    let second = world.peer(A).add_track(local_track("second")).unwrap();
    world.negotiate(A);
    world.run_for(Duration::from_millis(50));
    world.speak(A, second, 0..3);

    assert_eq!(first, second, "the media section is used again");
    assert_eq!(world.sides[B].packets.len(), 3);
}

#[test]
fn a_section_that_only_receives_has_no_stream_to_send_until_it_is_given_a_track() {
    let mut world = World::new();
    let audio =
        world.peer(A).add_transceiver(MediaType::Audio, None, transceiver(Direction::RecvOnly)).unwrap();
    let video =
        world.peer(A).add_transceiver(MediaType::Video, None, transceiver(Direction::RecvOnly)).unwrap();
    world.negotiate(A);
    world.connect();
    let sends = |peer: &mut Peer, id| {
        let section = mid(&peer.mid(id).unwrap());
        peer.rtc.direct_api().stream_tx_by_mid(section, None).map(|stream| stream.ssrc())
    };
    assert_eq!([audio, video].map(|id| sends(world.peer(A), id)), [None, None]);

    assert_eq!(world.peer(A).add_track(local_track("late")).unwrap(), audio);
    world.negotiate(A);
    world.run_for(Duration::from_millis(50));
    world.speak(A, audio, 0..3);

    let ssrc = sends(world.peer(A), audio).expect("it sends now");
    let offer = world.peer(A).current_local_description().unwrap();
    assert!(offer.sdp().contains(&format!("a=ssrc:{ssrc} ")), "{}", offer.sdp());
    assert_eq!(sends(world.peer(A), video), None);
    assert_eq!(world.sides[B].packets.len(), 3);
}

#[test]
fn what_can_not_be_sent_is_refused_with_the_reason() {
    let mut world = World::new();
    let video = crate::video_track::RtcVideoTrack::new("video".to_owned());
    let microphone = RtcAudioTrack::new("microphone".to_owned(), Feed::Device);
    let remote = RtcAudioTrack::new("remote".to_owned(), Feed::Remote(crate::audio::sink::Sinks::default()));

    for (track, reason) in [
        (MediaStreamTrack::Video(video), "video is not available"),
        (microphone.into(), "microphones is not available"),
        (remote.into(), "can't be sent on"),
    ] {
        let error = world.peer(A).add_track(track).unwrap_err();
        assert!(error.message.contains(reason), "{error}");
    }
}

#[test]
fn encodings_limit_the_bitrate_and_turn_sending_off() {
    let mut world = World::new();
    let id = world.peer(A).add_track(local_track("TR_1")).unwrap();
    world.negotiate(A);
    let mut parameters = world.peer(A).sender_parameters(id);

    parameters.encodings[0].max_bitrate = Some(12_000);
    world.peer(A).set_sender_parameters(id, parameters.clone()).unwrap();
    parameters.encodings[0].active = false;
    world.peer(A).set_sender_parameters(id, parameters.clone()).unwrap();
    parameters.encodings.clear();
    assert!(world.peer(A).set_sender_parameters(id, parameters).is_err());

    world.collect();
    let plans: Vec<_> =
        world.sides[A].plans.iter().map(|(_, plan)| plan.as_ref().map(|p| p.coding.max_bitrate)).collect();
    assert_eq!(plans, [Some(None), Some(Some(12_000)), None]);
}

// --- Negotiation --------------------------------------------------------------------------------------------

#[test]
fn an_offer_can_always_be_made_again_even_if_nothing_changed() {
    let mut world = World::new();
    world.peer(A).add_transceiver(MediaType::Audio, None, transceiver(Direction::RecvOnly)).unwrap();
    world.negotiate(A);
    world.connect();

    world.negotiate(A);
    world.negotiate(A);

    assert_eq!(world.peer(A).signaling_state(), SignalingState::Stable);
}

#[test]
fn a_connection_of_channels_alone_can_negotiate_again_too() {
    let mut world = World::new();
    let now = world.now;
    let channel = world.peer(A).create_channel("chat", &DataChannelInit::default(), now).unwrap();
    world.negotiate(A);
    world.run_until_open(A, channel);

    world.negotiate(A);
    world.run_for(Duration::from_secs(1));

    assert_eq!(world.peer(A).connection_state(), PeerConnectionState::Connected);
}

#[test]
fn the_peers_last_description_applied_again_takes_the_pending_offer_back() {
    let mut world = World::new();
    world.peer(A).add_transceiver(MediaType::Audio, None, transceiver(Direction::RecvOnly)).unwrap();
    world.negotiate(A);
    let now = world.now;
    let added = world
        .peer(A)
        .add_transceiver(MediaType::Audio, Some(local_track("TR_1")), transceiver(Direction::SendOnly))
        .unwrap();
    let offer = world.peer(A).create_offer(&OfferOptions::default(), now).unwrap();
    world.peer(A).set_local_description(offer, now).unwrap();

    let last = world.peer(A).current_remote_description().unwrap();
    world.peer(A).set_remote_description(last, now).unwrap();
    assert_eq!(world.peer(A).signaling_state(), SignalingState::Stable);
    world.negotiate(A);

    assert_eq!(world.peer(A).current_direction(added), Some(Direction::SendOnly));
}

#[test]
fn an_ice_restart_leaves_the_sound_flowing() {
    let (mut world, id) = World::with_track();
    world.speak(A, id, 0..5);

    world.negotiate_with(A, &OfferOptions { ice_restart: true, ..OfferOptions::default() });
    world.speak(A, id, 5..60);

    assert_eq!(world.sides[B].packets.len(), 60);
    assert_eq!(world.peer(A).connection_state(), PeerConnectionState::Connected);
}

#[test]
fn descriptions_that_have_no_place_or_no_sense_are_refused_and_change_nothing() {
    let mut world = World::new();
    let now = world.now;
    let peer = world.peer(A);
    let made_up = SessionDescription::new(SdpType::Offer, "v=0\r\n".to_owned());

    assert!(peer.create_offer(&OfferOptions::default(), now).is_err(), "there is nothing to offer");
    assert!(peer.create_answer().is_err());
    assert!(peer.set_local_description(made_up.clone(), now).is_err());
    assert_eq!(peer.set_remote_description(made_up, now).unwrap_err().error_type, RtcErrorType::InvalidSdp);
    let candidate = IceCandidate::parse("0", 0, "candidate:1 1 udp 1 192.0.2.9 9 typ host").unwrap();
    assert!(peer.add_remote_candidate(&candidate, now).is_err(), "before the description it belongs to");

    assert_eq!(peer.signaling_state(), SignalingState::Stable);
}

// --- States -------------------------------------------------------------------------------------------------

#[test]
fn an_outage_of_seconds_is_no_event() {
    let (mut world, id) = World::with_track();

    world.up = false;
    world.run_for(Duration::from_secs(8));
    world.up = true;
    world.run_for(Duration::from_secs(4));
    world.speak(A, id, 0..3);

    assert_eq!(world.sides[B].packets.len(), 3);
    let states = world.sides[A].notices.iter().filter(|notice| matches!(notice, Notice::Connection(_)));
    assert_eq!(states.count(), 2, "connecting and connected");
}

#[test]
fn a_network_that_is_gone_fails_the_connection_and_an_ice_restart_brings_it_back() {
    let (mut world, id) = World::with_track();
    let cut = world.now;

    world.up = false;
    let state = |world: &mut World| world.peer(A).connection_state();
    world.run_until("the failure", |world| state(world) == PeerConnectionState::Failed);
    assert!(world.now - cut < Duration::from_secs(25), "{:?}", world.now - cut);
    world.up = true;
    world.negotiate_with(A, &OfferOptions { ice_restart: true, ..OfferOptions::default() });
    world.connect();
    world.speak(A, id, 0..3);

    assert_eq!(world.sides[B].packets.len(), 3);
}

#[test]
fn a_peer_that_never_answers_fails_the_connection() {
    let mut world = World::new();
    let now = world.now;
    world.up = false;
    world.peer(A).create_channel("chat", &DataChannelInit::default(), now).unwrap();
    world.negotiate(A);

    world.run_until("the failure", |world| world.peer(A).connection_state() == PeerConnectionState::Failed);

    assert!(world.now - world.start >= CONNECT_TIMEOUT);
}

#[test]
fn a_closed_peer_says_goodbye_and_is_done() {
    let mut world = World::new();
    let id = world.peer(A).add_track(local_track("TR_1")).unwrap();
    let now = world.now;
    let channel = world.peer(A).create_channel("chat", &DataChannelInit::default(), now).unwrap();
    world.negotiate(A);
    world.connect();
    world.run_until_open(A, channel);

    let now = world.now;
    world.peer(A).close(now);
    // The goodbye makes the other side reconnect at once instead of waiting for ICE.
    world.run_until("the goodbye", |world| world.peer(B).connection_state() == PeerConnectionState::Failed);

    assert!(world.peer(A).is_done());
    assert_eq!(world.peer(A).channel_state(channel), DataChannelState::Closed);
    assert!(world.peer(A).remove_track(id).is_err());
    assert!(world.peer(A).create_offer(&OfferOptions::default(), now).is_err());
    let last = world.sides[A].notices.iter().rev().find(|notice| matches!(notice, Notice::ChannelState(..)));
    assert!(matches!(last, Some(Notice::ChannelState(key, DataChannelState::Closed)) if *key == channel));
}

#[test]
fn datagrams_of_strangers_change_nothing() {
    let (mut world, id) = World::with_track();
    let (from, to) = ("203.0.113.9:9".parse().unwrap(), "192.0.2.2:5000".parse().unwrap());

    for first in 0..=255_u8 {
        let now = world.now;
        world.peer(B).handle_packet(Protocol::Udp, from, to, &[], now);
        world.peer(B).handle_packet(Protocol::Udp, from, to, &[first; 60], now);
    }
    world.speak(A, id, 0..3);

    assert_eq!(world.sides[B].packets.len(), 3);
}
