//! The audio of one connection: a receiver per remote track and a sender per local track.

use std::sync::{Arc, Weak};
use std::time::Instant;

use super::Connection;
use super::source::ConnectionQueue;
use crate::audio::receiver::Receiver;
use crate::audio::report::REPORT_INTERVAL;
use crate::audio::sender::Sender;
use crate::audio::sink::Sink;
use crate::audio_track::{AudioTrackKind, RtcAudioTrack};
use crate::peer::{ReceivedAudio, SendConfig, TransceiverId};

pub(super) struct Media {
    connection: Weak<Connection>,
    /// A connection has only a few, so a list is faster than a map.
    receivers: Vec<(RtcAudioTrack, Receiver)>,
    senders: Vec<ActiveSender>,
    report_at: Option<Instant>,
}

struct ActiveSender {
    id: TransceiverId,
    track: RtcAudioTrack,
    sender: Sender,
    queue: Arc<ConnectionQueue>,
}

impl Media {
    pub(super) fn new(connection: Weak<Connection>) -> Self {
        Self { connection, receivers: Vec::new(), senders: Vec::new(), report_at: None }
    }

    pub(super) fn receive(&mut self, received: ReceivedAudio, now: Instant) {
        let ReceivedAudio { track, packet, payload_format } = received;
        let known = self.receivers.iter().position(|(known, _)| same(known, &track));
        let index = known.unwrap_or_else(|| {
            self.receivers.push((track, Receiver::default()));
            self.receivers.len() - 1
        });
        if let Some((_, receiver)) = self.receivers.get_mut(index) {
            receiver.insert(packet, payload_format, now);
        }
    }

    pub(super) fn track_ended(&mut self, track: &RtcAudioTrack) {
        self.receivers.retain(|(known, _)| !same(known, track));
    }

    /// Plays out what is due, and appends the sinks that got frames to `sinks_to_wake`.
    pub(super) fn play(&mut self, now: Instant, sinks_to_wake: &mut Vec<Arc<Sink>>) {
        for (track, receiver) in &mut self.receivers {
            if let AudioTrackKind::Remote(sinks) = track.shared().kind() {
                receiver.run(sinks, track.shared().enabled(), now, sinks_to_wake);
            }
        }
        self.report(now);
    }

    /// Enables NACK for sources with missing packets, and disables it when none is missing any more.
    pub(super) fn update_nack(&mut self, connection: &Connection) {
        for (_, receiver) in &mut self.receivers {
            if let Some((ssrc, enabled)) = receiver.take_nack_change() {
                connection.with(|peer, now| peer.set_nack_enabled(ssrc, enabled, now));
            }
        }
    }

    /// Updates the reports of the tracks once per [`REPORT_INTERVAL`]. Needs no timer: while there is audio, it is
    /// called often enough.
    fn report(&mut self, now: Instant) {
        if self.report_at.is_some_and(|at| now < at) {
            return;
        }
        self.report_at = Some(now + REPORT_INTERVAL);
        for (track, receiver) in &self.receivers {
            track.shared().report_received(receiver.report());
        }
        for active in &self.senders {
            active.track.shared().report_sent(active.sender.report());
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.receivers.iter().filter_map(|(_, receiver)| receiver.deadline()).min()
    }

    /// Starts, reconfigures or stops (`None`) the sender of a transceiver.
    pub(super) fn configure_sender(&mut self, id: TransceiverId, config: Option<SendConfig>) {
        let Some(config) = config else {
            return self.senders.retain(|active| active.id != id);
        };
        let same_track = |active: &&mut ActiveSender| active.id == id && same(&active.track, &config.track);
        if let Some(active) = self.senders.iter_mut().find(same_track) {
            if let Err(error) = active.sender.set_settings(config.settings) {
                tracing::error!(%error, "failed to change the encoder settings");
            }
            return;
        }
        self.senders.retain(|active| active.id != id);
        let AudioTrackKind::Source(source) = config.track.shared().kind() else {
            return;
        };
        let source = source.shared();
        let (seq, time) = random_start();
        let sender = source.format().and_then(|format| Sender::new(format, config.settings, seq, time).ok());
        let Some(sender) = sender else {
            tracing::error!("failed to create an Opus encoder");
            return;
        };
        let queue = source.open_queue(self.connection.clone());
        self.senders.push(ActiveSender { id, track: config.track, sender, queue });
    }

    /// Encodes the queued audio of the sources and passes the packets to the peer.
    pub(super) fn encode(&mut self, connection: &Connection, now: Instant) {
        let mut packets = Vec::new();
        for active in &mut self.senders {
            while let Some(pcm) = active.queue.take() {
                if active.track.shared().enabled() {
                    active.sender.push(&pcm, now, |packet| packets.push((active.id, packet)));
                } else {
                    active.sender.mute();
                }
            }
        }
        if packets.is_empty() {
            return;
        }
        let mut peer = connection.peer.lock();
        for (id, packet) in packets {
            peer.send_audio(id, packet, now);
        }
    }
}

fn same(one: &RtcAudioTrack, other: &RtcAudioTrack) -> bool {
    Arc::ptr_eq(one.shared(), other.shared())
}

/// Random initial sequence number and timestamp (RFC 3550 §5.1). The sequence number is below 2^15, so that it does not
/// wrap within the first packets: a receiver that joins later could not know the rollover counter (RFC 3711 §3.3.1).
fn random_start() -> (u16, u32) {
    let random = uuid::Uuid::new_v4().as_u128();
    ((random as u16) >> 1, (random >> 96) as u32)
}
