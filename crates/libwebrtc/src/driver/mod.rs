//! I/O for the sans-IO parts of the crate: sockets, timers, threads, callbacks.
//!
//! ```text
//! application ──calls──▶ Connection { Mutex<Peer> } ──wakes──▶ run(): one task per connection
//!      ▲                                                        │  sockets ◀──▶ Peer
//!      └────────── callbacks, streams ◀─────────────────────────┘  packets ──▶ Receiver ──▶ sinks
//!                                                                  sources ──▶ Sender ──▶ Peer
//! ```
//!
//! The tasks run on dedicated threads ([`engine`]), so that an application that blocks its runtime does not stall
//! media. The lock of a [`Peer`] is held for microseconds at a time, never across an await, a callback, decoding or
//! encoding.

pub(crate) mod engine;
mod media;
mod network;
pub(crate) mod source;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::RtcError;
use crate::clock;
use crate::data_channel::{ChannelShared, DataChannel, DataChannelInit, DataChannelState};
use crate::ice_candidate::IceCandidate;
use crate::media_stream::MediaStream;
use crate::peer::{ChannelKey, Output, Peer, PeerEvent, TransceiverId};
use crate::peer_connection::{
    IceCandidateError, OnConnectionChange, OnDataChannel, OnIceCandidate, OnIceCandidateError,
    OnIceConnectionChange, OnIceGatheringChange, OnNegotiationNeeded, OnSignalingChange, OnTrack, TrackEvent,
};
use crate::peer_connection_factory::RtcConfiguration;
use crate::rtp_transceiver::RtpTransceiver;
use engine::Engine;
use media::Media;
use network::Network;

/// Maximum sleep of an idle connection's task.
const MAX_IDLE_SLEEP: Duration = Duration::from_secs(60);

/// State shared by the application's handles and the task of one connection.
pub(crate) struct Connection {
    peer: Mutex<Peer>,
    wake: Notify,
    /// The configuration and its version, which is incremented each time it is set.
    configuration: Mutex<(u64, RtcConfiguration)>,
    /// Data channels that are not closed, to call their callbacks.
    channels: Mutex<HashMap<ChannelKey, Arc<ChannelShared>>>,
    pub(crate) callbacks: Callbacks,
    engine: Arc<Engine>,
    this: Weak<Connection>,
}

/// Callbacks set by the application.
#[derive(Default)]
pub(crate) struct Callbacks {
    pub connection: Mutex<Option<OnConnectionChange>>,
    pub data_channel: Mutex<Option<OnDataChannel>>,
    pub candidate: Mutex<Option<OnIceCandidate>>,
    pub candidate_error: Mutex<Option<OnIceCandidateError>>,
    pub ice: Mutex<Option<OnIceConnectionChange>>,
    pub gathering: Mutex<Option<OnIceGatheringChange>>,
    pub negotiation_needed: Mutex<Option<OnNegotiationNeeded>>,
    pub signaling: Mutex<Option<OnSignalingChange>>,
    pub track: Mutex<Option<OnTrack>>,
}

impl Connection {
    /// Opens the sockets of a connection and starts its task.
    ///
    /// # Errors
    /// `Internal` if no thread could be started or no socket opened.
    pub(crate) fn start(configuration: RtcConfiguration) -> Result<Arc<Self>, RtcError> {
        let engine = Engine::shared()?;
        let now = clock::now();
        let mut peer = Peer::new(now);
        let mut network = Network::new();
        network.gather(&configuration, &mut peer, now)?;
        let connection = Arc::new_cyclic(|this| Self {
            peer: Mutex::new(peer),
            wake: Notify::new(),
            configuration: Mutex::new((1, configuration)),
            channels: Mutex::default(),
            callbacks: Callbacks::default(),
            engine,
            this: this.clone(),
        });
        connection.engine.spawn(run(Arc::clone(&connection), network));
        Ok(connection)
    }

    /// Calls `act` with the peer locked, and wakes the task if there are outputs to process.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Peer, Instant) -> R) -> R {
        let mut peer = self.peer.lock();
        let result = act(&mut peer, clock::now());
        let busy = peer.has_outputs();
        drop(peer);
        if busy {
            self.wake.notify_one();
        }
        result
    }

    pub(crate) fn create_data_channel(
        &self,
        label: &str,
        init: &DataChannelInit,
    ) -> Result<DataChannel, RtcError> {
        let key = self.with(|peer, now| peer.create_channel(label, init, now))?;
        Ok(self.register_channel(key, label.to_owned()))
    }

    /// Version of the configuration, incremented each time it is set.
    fn configuration_version(&self) -> u64 {
        self.configuration.lock().0
    }

    fn configuration(&self) -> RtcConfiguration {
        self.configuration.lock().1.clone()
    }

    pub(crate) fn set_configuration(&self, configuration: RtcConfiguration) {
        {
            let mut current = self.configuration.lock();
            *current = (current.0 + 1, configuration);
        }
        self.wake.notify_one();
    }

    pub(crate) fn transceiver(&self, id: TransceiverId) -> RtpTransceiver {
        RtpTransceiver::new(self.this.clone(), id)
    }

    pub(crate) fn close(&self) {
        self.with(|peer, now| peer.close(now));
        self.wake.notify_one();
    }

    /// Wakes the task, for example when there is audio to send.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(crate) fn downgrade(&self) -> Weak<Self> {
        self.this.clone()
    }

    fn register_channel(&self, key: ChannelKey, label: String) -> DataChannel {
        let channel = DataChannel::new(self.this.clone(), key, label);
        self.channels.lock().insert(key, Arc::clone(channel.shared()));
        channel
    }

    fn channel(&self, key: ChannelKey) -> Option<Arc<ChannelShared>> {
        self.channels.lock().get(&key).cloned()
    }

    /// Passes an event to the application.
    fn dispatch(&self, event: PeerEvent) {
        match event {
            PeerEvent::Connection(state) => invoke(&self.callbacks.connection, |f| f(state)),
            PeerEvent::Ice(state) => invoke(&self.callbacks.ice, |f| f(state)),
            PeerEvent::Gathering(state) => invoke(&self.callbacks.gathering, |f| f(state)),
            PeerEvent::Signaling(state) => invoke(&self.callbacks.signaling, |f| f(state)),
            PeerEvent::Candidate(candidate) => self.notify_candidate(candidate),
            PeerEvent::Track(id) => self.notify_track(id),
            PeerEvent::NegotiationNeeded => invoke(&self.callbacks.negotiation_needed, |f| f(0)),
            PeerEvent::ChannelOpened(key, label) => {
                let channel = self.register_channel(key, label);
                invoke(&self.callbacks.data_channel, |f| f(channel));
            }
            PeerEvent::ChannelState(key, DataChannelState::Closed) => {
                let closed = self.channels.lock().remove(&key);
                if let Some(channel) = closed {
                    channel.state_changed(DataChannelState::Closed);
                    channel.drop_callbacks();
                }
            }
            PeerEvent::ChannelState(key, state) => {
                if let Some(channel) = self.channel(key) {
                    channel.state_changed(state);
                }
            }
            PeerEvent::Message { channel, data, binary } => {
                if let Some(channel) = self.channel(channel) {
                    channel.received(&data, binary);
                }
            }
            PeerEvent::Drained { channel, sent } => {
                if let Some(channel) = self.channel(channel) {
                    channel.drained(sent);
                }
            }
        }
    }

    fn notify_candidate(&self, candidate: IceCandidate) {
        invoke(&self.callbacks.candidate, |f| f(candidate));
    }

    fn notify_candidate_error(&self, error: IceCandidateError) {
        invoke(&self.callbacks.candidate_error, |f| f(error));
    }

    fn notify_track(&self, id: TransceiverId) {
        let (track, ids) = self.with(|peer, _| (peer.receiver_track(id), peer.stream_ids(id)));
        let Some(track) = track else {
            return;
        };
        let transceiver = self.transceiver(id);
        let streams = ids.into_iter().map(|id| MediaStream::new(id, vec![track.clone()])).collect();
        let event = TrackEvent { receiver: transceiver.receiver(), streams, track, transceiver };
        invoke(&self.callbacks.track, |f| f(event));
    }

    /// Drops the application's callbacks. Tasks of `livekit` end when the channel senders held by them are dropped.
    fn drop_callbacks(&self) {
        let callbacks = &self.callbacks;
        drop(callbacks.connection.lock().take());
        drop(callbacks.data_channel.lock().take());
        drop(callbacks.candidate.lock().take());
        drop(callbacks.candidate_error.lock().take());
        drop(callbacks.ice.lock().take());
        drop(callbacks.gathering.lock().take());
        drop(callbacks.negotiation_needed.lock().take());
        drop(callbacks.signaling.lock().take());
        drop(callbacks.track.lock().take());
        let channels: Vec<_> = self.channels.lock().drain().collect();
        for (_, channel) in channels {
            channel.drop_callbacks();
        }
    }
}

/// Calls a callback if one is set.
fn invoke<F: ?Sized>(slot: &Mutex<Option<Box<F>>>, act: impl FnOnce(&mut F)) {
    if let Some(callback) = slot.lock().as_mut() {
        act(callback);
    }
}

/// The task of one connection. It ends after the connection is closed and the last packets are sent.
async fn run(connection: Arc<Connection>, mut network: Network) {
    let mut media = Media::new(connection.downgrade());
    let mut outputs = Vec::new();
    let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
    loop {
        let now = clock::now();
        media.encode(&connection, now);
        let (deadline, finished) = {
            let mut peer = connection.peer.lock();
            if peer.deadline().is_some_and(|at| now >= at) {
                peer.handle_timeout(now);
            }
            outputs.extend(std::iter::from_fn(|| peer.poll()));
            (peer.deadline(), peer.is_finished())
        };
        for output in outputs.drain(..) {
            perform(&connection, output, &mut network, &mut media, now);
        }
        network.drive(&connection, now);
        engine::defer_wakes(|sinks_to_wake| media.play(now, sinks_to_wake));
        media.update_nack(&connection);
        if finished {
            break;
        }

        let deadline = [deadline, media.deadline(), network.deadline()].into_iter().flatten().min();
        let at = deadline.unwrap_or(now + MAX_IDLE_SLEEP).min(now + MAX_IDLE_SLEEP);
        timer.as_mut().reset(at.into());
        tokio::select! {
            biased;
            () = network.readable() => network.receive(&connection),
            () = connection.wake.notified() => {}
            () = timer.as_mut() => {}
        }
    }
    network.close(clock::now());
    connection.drop_callbacks();
}

fn perform(connection: &Connection, output: Output, network: &mut Network, media: &mut Media, now: Instant) {
    match output {
        Output::Transmit(transmit) => network.send(&transmit, now),
        Output::RemoteCandidate(candidate) => network.add_remote_candidate(&candidate),
        Output::Regather => network.regather(),
        Output::Packet(received) => media.receive(received, now),
        Output::TrackEnded(track) => media.track_ended(&track),
        Output::SetSender(id, config) => media.configure_sender(id, config),
        Output::Event(event) => connection.dispatch(event),
    }
}
