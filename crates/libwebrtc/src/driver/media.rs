//! The sound of one connection: a receiver for each track that arrives, a sender for each that goes out.

use std::sync::{Arc, Weak};
use std::time::Instant;

use super::Connection;
use super::source::Outlet;
use crate::audio::receiver::Receiver;
use crate::audio::report::REPORT_INTERVAL;
use crate::audio::sender::Sender;
use crate::audio::sink::Sink;
use crate::audio_track::{Feed, RtcAudioTrack};
use crate::peer::{Incoming, SendPlan, TransceiverId};

pub(super) struct Media {
    connection: Weak<Connection>,
    /// A handful per connection, so a list is faster than a map.
    receivers: Vec<(RtcAudioTrack, Receiver)>,
    senders: Vec<Outgoing>,
    report_at: Option<Instant>,
}

struct Outgoing {
    id: TransceiverId,
    track: RtcAudioTrack,
    sender: Sender,
    outlet: Arc<Outlet>,
}

impl Media {
    pub(super) fn new(connection: Weak<Connection>) -> Self {
        Self { connection, receivers: Vec::new(), senders: Vec::new(), report_at: None }
    }

    pub(super) fn receive(&mut self, incoming: Incoming, now: Instant) {
        let Incoming { track, packet, packing } = incoming;
        let known = self.receivers.iter().position(|(known, _)| same(known, &track));
        let index = known.unwrap_or_else(|| {
            self.receivers.push((track, Receiver::default()));
            self.receivers.len() - 1
        });
        if let Some((_, receiver)) = self.receivers.get_mut(index) {
            receiver.insert(packet, packing, now);
        }
    }

    pub(super) fn track_ended(&mut self, track: &RtcAudioTrack) {
        self.receivers.retain(|(known, _)| !same(known, track));
    }

    /// Plays what is due, and adds the sinks whose readers are to be woken to `heard`.
    pub(super) fn play(&mut self, now: Instant, heard: &mut Vec<Arc<Sink>>) {
        for (track, receiver) in &mut self.receivers {
            if let Feed::Remote(sinks) = track.shared().feed() {
                receiver.run(sinks, track.shared().enabled(), now, heard);
            }
        }
        self.report(now);
    }

    /// Has the peer asked for packets that are missing, and no more once they are not.
    pub(super) fn ask(&mut self, connection: &Connection) {
        for (_, receiver) in &mut self.receivers {
            if let Some((ssrc, ask)) = receiver.asks_anew() {
                connection.with(|peer, now| peer.ask_again(ssrc, ask, now));
            }
        }
    }

    /// Reports once in a while. No timer of its own: while there is sound this is called often enough.
    fn report(&mut self, now: Instant) {
        if self.report_at.is_some_and(|at| now < at) {
            return;
        }
        self.report_at = Some(now + REPORT_INTERVAL);
        for (track, receiver) in &self.receivers {
            track.shared().report_received(receiver.report());
        }
        for outgoing in &self.senders {
            outgoing.track.shared().report_sent(outgoing.sender.report());
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.receivers.iter().filter_map(|(_, receiver)| receiver.deadline()).min()
    }

    /// Starts, changes or stops what a transceiver sends.
    pub(super) fn plan(&mut self, id: TransceiverId, plan: Option<SendPlan>) {
        let Some(plan) = plan else {
            return self.senders.retain(|outgoing| outgoing.id != id);
        };
        let same_track = |outgoing: &&mut Outgoing| outgoing.id == id && same(&outgoing.track, &plan.track);
        if let Some(outgoing) = self.senders.iter_mut().find(same_track) {
            if let Err(error) = outgoing.sender.set_coding(plan.coding) {
                tracing::error!(%error, "coding not changed");
            }
            return;
        }
        self.senders.retain(|outgoing| outgoing.id != id);
        let Feed::Source(source) = plan.track.shared().feed() else {
            return;
        };
        let source = source.shared();
        let (seq, time) = random_start();
        let sender = source.format().and_then(|format| Sender::new(format, plan.coding, seq, time).ok());
        let Some(sender) = sender else {
            tracing::error!("no encoder for an audio track");
            return;
        };
        let outlet = source.open_outlet(self.connection.clone());
        self.senders.push(Outgoing { id, track: plan.track, sender, outlet });
    }

    /// Encodes what came from the sources and hands it to the peer.
    pub(super) fn encode(&mut self, connection: &Connection, now: Instant) {
        let mut packets = Vec::new();
        for outgoing in &mut self.senders {
            while let Some(pcm) = outgoing.outlet.take() {
                if outgoing.track.shared().enabled() {
                    outgoing.sender.push(&pcm, now, |packet| packets.push((outgoing.id, packet)));
                } else {
                    outgoing.sender.mute();
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

/// Where a stream's numbers begin: at random (RFC 3550 §5.1), and low enough that the sequence numbers do not wrap
/// around within the first packets, which a receiver that joins late could not tell (RFC 3711 §3.3.1).
fn random_start() -> (u16, u32) {
    let random = uuid::Uuid::new_v4().as_u128();
    ((random as u16) >> 1, (random >> 96) as u32)
}
