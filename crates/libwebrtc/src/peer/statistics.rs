//! Statistics of a connection, from str0m's statistics and the reports of the audio senders and receivers.
//!
//! The values are at most [`super::STATS_INTERVAL`] old; those of the audio reports at most one second.

use std::collections::HashMap;

use str0m::media::Mid;
use str0m::net::Protocol;
use str0m::stats::{CandidatePairStats as SelectedPair, MediaEgressStats, MediaIngressStats, PeerStats};

use super::{ConnectionPhase, Peer, TransceiverId};
use crate::audio::format::OPUS_CLOCK;
use crate::audio::report::{ReceiveReport, SendReport};
use crate::peer_connection::IceConnectionState;
use crate::stats::dictionaries as of;
use crate::stats::{
    CandidatePairStats, CodecStats, DataChannelStats, DtlsTransportState, IceCandidatePairState,
    IceCandidateType, IceTransportState, InboundRtpStats, LocalCandidateStats, MediaSourceStats,
    OutboundRtpStats, PeerConnectionStats, RemoteCandidateStats, RemoteInboundRtpStats,
    RemoteOutboundRtpStats, RtcStats, TransportStats,
};

const TRANSPORT: &str = "T";
const CODEC: &str = "C-opus";
const PAIR: &str = "CP";
const LOCAL: &str = "CP-local";
const REMOTE: &str = "CP-remote";

/// The last statistics of str0m.
#[derive(Debug, Default)]
pub(super) struct Statistics {
    pub(super) peer: Option<PeerStats>,
    ingress: HashMap<Mid, MediaIngressStats>,
    egress: HashMap<Mid, MediaEgressStats>,
}

impl Statistics {
    pub(super) fn ingress(&mut self, stats: MediaIngressStats) {
        self.ingress.insert(stats.mid, stats);
    }

    pub(super) fn egress(&mut self, stats: MediaEgressStats) {
        self.egress.insert(stats.mid, stats);
    }
}

impl Peer {
    /// All statistics of the connection, with the timestamp `unix_us`.
    pub(crate) fn stats(&self, unix_us: i64) -> Vec<RtcStats> {
        let mut stats = vec![self.connection_stats(unix_us), self.transport_stats(unix_us)];
        if let Some(pair) = self.selected_pair() {
            stats.extend(pair_stats(pair, unix_us));
        }
        stats.extend(self.channel_stats(unix_us));
        for id in self.transceiver_ids() {
            stats.extend(self.receiver_stats(id, unix_us));
            stats.extend(self.sender_stats(id, unix_us));
        }
        // Each sender and receiver adds a codec report; they are identical, so one is kept.
        let mut codecs = 0;
        stats.retain(|report| {
            !matches!(report, RtcStats::Codec(_)) || {
                codecs += 1;
                codecs == 1
            }
        });
        stats
    }

    /// Statistics of a receiver.
    pub(crate) fn receiver_stats(&self, id: TransceiverId, unix_us: i64) -> Vec<RtcStats> {
        let Some((track, mid)) = self.received_audio(id) else {
            return Vec::new();
        };
        let report = track.shared().received();
        let rtc_stats = self.statistics.ingress.get(&mid);
        let head = |id: String| of::RtcStats { id, timestamp: unix_us };
        let stream = of::RtpStreamStats {
            ssrc: report.ssrc,
            kind: "audio".to_owned(),
            transport_id: TRANSPORT.to_owned(),
            codec_id: CODEC.to_owned(),
        };
        let received = of::ReceivedRtpStreamStats {
            packets_received: report.counters.packets,
            packets_lost: i64::try_from(report.counters.lost).unwrap_or(i64::MAX),
            jitter: report.jitter_s,
        };
        let remote =
            rtc_stats.and_then(|rtc_stats| rtc_stats.remote.as_ref().map(|remote| (remote, rtc_stats.rtt)));
        let inbound = InboundRtpStats {
            rtc: head(format!("I-{mid}")),
            stream: stream.clone(),
            received,
            inbound: of::InboundRtpStreamStats {
                track_identifier: track.id(),
                mid: mid.to_string(),
                remote_id: remote.map(|_| format!("RO-{mid}")).unwrap_or_default(),
                bytes_received: rtc_stats.map_or(0, |rtc_stats| rtc_stats.bytes),
                nack_count: rtc_stats.map_or(0, |rtc_stats| saturating_u32(rtc_stats.nacks)),
                ..inbound(&report)
            },
        };
        let remote = remote.map(|(remote, rtt)| {
            let rtt = rtt.map_or(0.0, |rtt| rtt.as_secs_f64());
            RtcStats::RemoteOutboundRtp(RemoteOutboundRtpStats {
                rtc: head(format!("RO-{mid}")),
                stream,
                sent: of::SentRtpStreamStats { packets_sent: remote.packets, bytes_sent: remote.bytes },
                remote_outbound: of::RemoteOutboundRtpStreamStats {
                    local_id: format!("I-{mid}"),
                    round_trip_time: rtt,
                    ..Default::default()
                },
            })
        });
        let mut stats = vec![RtcStats::InboundRtp(inbound), self.codec_stats(id, unix_us)];
        stats.extend(remote);
        stats
    }

    /// Statistics of a sender.
    pub(crate) fn sender_stats(&self, id: TransceiverId, unix_us: i64) -> Vec<RtcStats> {
        let Some((track, mid)) = self.sent_audio(id) else {
            return Vec::new();
        };
        let report = track.shared().sent();
        let rtc_stats = self.statistics.egress.get(&mid);
        let head = |id: String| of::RtcStats { id, timestamp: unix_us };
        let stream = of::RtpStreamStats {
            ssrc: 0,
            kind: "audio".to_owned(),
            transport_id: TRANSPORT.to_owned(),
            codec_id: CODEC.to_owned(),
        };
        let remote =
            rtc_stats.and_then(|rtc_stats| rtc_stats.remote.as_ref().map(|remote| (rtc_stats, remote)));
        let outbound = RtcStats::OutboundRtp(OutboundRtpStats {
            rtc: head(format!("O-{mid}")),
            stream: stream.clone(),
            sent: of::SentRtpStreamStats {
                packets_sent: rtc_stats.map_or(0, |rtc_stats| rtc_stats.packets),
                bytes_sent: rtc_stats.map_or(0, |rtc_stats| rtc_stats.bytes),
            },
            outbound: of::OutboundRtpStreamStats {
                mid: mid.to_string(),
                media_source_id: format!("S-{mid}"),
                remote_id: remote.map(|_| format!("RI-{mid}")).unwrap_or_default(),
                nack_count: rtc_stats.map_or(0, |rtc_stats| saturating_u32(rtc_stats.nacks)),
                active: true,
                ..Default::default()
            },
        });
        let source = RtcStats::MediaSource(MediaSourceStats {
            rtc: head(format!("S-{mid}")),
            source: of::MediaSourceStats { track_identifier: track.id(), kind: "audio".to_owned() },
            audio: source(&report),
            video: of::VideoSourceStats::default(),
        });
        let remote = remote.map(|(rtc_stats, remote)| {
            let rtt = rtc_stats.rtt.map_or(0.0, |rtt| rtt.as_secs_f64());
            RtcStats::RemoteInboundRtp(RemoteInboundRtpStats {
                rtc: head(format!("RI-{mid}")),
                stream,
                received: of::ReceivedRtpStreamStats {
                    packets_received: 0,
                    packets_lost: i64::try_from(remote.packets_lost).unwrap_or(i64::MAX),
                    jitter: f64::from(remote.jitter) / f64::from(OPUS_CLOCK),
                },
                remote_inbound: of::RemoteInboundRtpStreamStats {
                    local_id: format!("O-{mid}"),
                    round_trip_time: rtt,
                    fraction_lost: f64::from(rtc_stats.loss.unwrap_or(0.0)),
                    ..Default::default()
                },
            })
        });
        let mut stats = vec![outbound, source, self.codec_stats(id, unix_us)];
        stats.extend(remote);
        stats
    }

    fn codec_stats(&self, id: TransceiverId, unix_us: i64) -> RtcStats {
        let parameters = self.receiver_parameters(id);
        RtcStats::Codec(CodecStats {
            rtc: of::RtcStats { id: CODEC.to_owned(), timestamp: unix_us },
            codec: of::CodecStats {
                payload_type: parameters.codecs.first().map_or(0, |codec| codec.payload_type.into()),
                transport_id: TRANSPORT.to_owned(),
                mime_type: "audio/opus".to_owned(),
                clock_rate: OPUS_CLOCK,
                channels: 2,
                sdp_fmtp_line: String::new(),
            },
        })
    }

    fn connection_stats(&self, unix_us: i64) -> RtcStats {
        let (data_channels_opened, data_channels_closed) = (self.channels.opened, self.channels.closed);
        RtcStats::PeerConnection(PeerConnectionStats {
            rtc: of::RtcStats { id: "P".to_owned(), timestamp: unix_us },
            pc: of::PeerConnectionStats { data_channels_opened, data_channels_closed },
        })
    }

    fn transport_stats(&self, unix_us: i64) -> RtcStats {
        let rtc_stats = self.statistics.peer.as_ref();
        let dtls_state = match self.connection {
            ConnectionPhase::New => DtlsTransportState::New,
            ConnectionPhase::Connecting { .. } => DtlsTransportState::Connecting,
            ConnectionPhase::Connected | ConnectionPhase::Disconnected { .. } => {
                DtlsTransportState::Connected
            }
            ConnectionPhase::Failed => DtlsTransportState::Failed,
            ConnectionPhase::Closed { .. } => DtlsTransportState::Closed,
        };
        let ice_state = match self.ice {
            IceConnectionState::New | IceConnectionState::Max => IceTransportState::New,
            IceConnectionState::Checking => IceTransportState::Checking,
            IceConnectionState::Connected => IceTransportState::Connected,
            IceConnectionState::Completed => IceTransportState::Completed,
            IceConnectionState::Disconnected => IceTransportState::Disconnected,
            IceConnectionState::Failed => IceTransportState::Failed,
            IceConnectionState::Closed => IceTransportState::Closed,
        };
        RtcStats::Transport(TransportStats {
            rtc: of::RtcStats { id: TRANSPORT.to_owned(), timestamp: unix_us },
            transport: of::TransportStats {
                bytes_sent: rtc_stats.map_or(0, |rtc_stats| rtc_stats.peer_bytes_tx),
                bytes_received: rtc_stats.map_or(0, |rtc_stats| rtc_stats.peer_bytes_rx),
                dtls_state: Some(dtls_state),
                ice_state: Some(ice_state),
                selected_candidate_pair_id: self.selected_pair().map(|_| PAIR.to_owned()).unwrap_or_default(),
                ..Default::default()
            },
        })
    }

    fn selected_pair(&self) -> Option<&SelectedPair> {
        self.statistics.peer.as_ref()?.selected_candidate_pair.as_ref()
    }

    fn channel_stats(&self, unix_us: i64) -> Vec<RtcStats> {
        let report = |(number, (label, stream, state, counters)): (
            usize,
            (&str, Option<u16>, _, super::channels::ChannelCounters),
        )| {
            RtcStats::DataChannel(DataChannelStats {
                rtc: of::RtcStats { id: format!("D-{number}"), timestamp: unix_us },
                dc: of::DataChannelStats {
                    label: label.to_owned(),
                    protocol: String::new(),
                    data_channel_identifier: stream.map_or(-1, i32::from),
                    state: Some(state),
                    messages_sent: counters.messages_sent,
                    bytes_sent: counters.bytes_sent,
                    messages_received: counters.messages_received,
                    bytes_received: counters.bytes_received,
                },
            })
        };
        self.channels.snapshot().enumerate().map(report).collect()
    }
}

fn inbound(report: &ReceiveReport) -> of::InboundRtpStreamStats {
    let counters = &report.counters;
    let seconds = |ticks: u64| ticks as f64 / f64::from(OPUS_CLOCK);
    of::InboundRtpStreamStats {
        packets_discarded: counters.late + counters.skipped,
        fec_packets_received: counters.from_red,
        jitter_buffer_delay: counters.waited_tick_us as f64 / 1e6,
        jitter_buffer_emitted_count: counters.played_ticks,
        total_samples_received: counters.played_ticks,
        concealed_samples: counters.concealed_ticks + counters.filler_ticks,
        silent_concealed_samples: counters.filler_ticks,
        concealment_events: counters.concealments,
        audio_level: report.levels.peak,
        total_audio_energy: report.levels.energy,
        total_samples_duration: seconds(counters.played_ticks),
        decoder_implementation: "opus".to_owned(),
        ..Default::default()
    }
}

fn source(report: &SendReport) -> of::AudioSourceStats {
    of::AudioSourceStats {
        audio_level: report.levels.peak,
        total_audio_energy: report.levels.energy,
        total_samples_duration: report.ticks as f64 / f64::from(OPUS_CLOCK),
        total_samples_captured: report.ticks,
        ..Default::default()
    }
}

fn pair_stats(pair: &SelectedPair, unix_us: i64) -> [RtcStats; 3] {
    let head = |id: &str| of::RtcStats { id: id.to_owned(), timestamp: unix_us };
    let protocol = if pair.protocol == Protocol::Udp { "udp" } else { "tcp" };
    let candidate = |addr: std::net::SocketAddr| of::IceCandidateStats {
        transport_id: TRANSPORT.to_owned(),
        address: addr.ip().to_string(),
        port: addr.port().into(),
        protocol: protocol.to_owned(),
        candidate_type: Some(IceCandidateType::Host),
        ..Default::default()
    };
    [
        RtcStats::CandidatePair(CandidatePairStats {
            rtc: head(PAIR),
            candidate_pair: of::CandidatePairStats {
                transport_id: TRANSPORT.to_owned(),
                local_candidate_id: LOCAL.to_owned(),
                remote_candidate_id: REMOTE.to_owned(),
                state: Some(IceCandidatePairState::Succeeded),
                nominated: true,
                total_round_trip_time: pair.total_round_trip_time.as_secs_f64(),
                current_round_trip_time: pair.current_round_trip_time.map_or(0.0, |rtt| rtt.as_secs_f64()),
                responses_received: pair.responses_received,
                ..Default::default()
            },
        }),
        RtcStats::LocalCandidate(LocalCandidateStats {
            rtc: head(LOCAL),
            local_candidate: candidate(pair.local.addr),
        }),
        RtcStats::RemoteCandidate(RemoteCandidateStats {
            rtc: head(REMOTE),
            remote_candidate: candidate(pair.remote.addr),
        }),
    ]
}

fn saturating_u32(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
