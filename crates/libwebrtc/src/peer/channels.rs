//! Data channels (RFC 8831).
//!
//! Channels created before SCTP is negotiated are pending. str0m adds the section for data channels to an offer
//! together with a channel, so the offer contains the first pending one; the others are created after the answer. A
//! channel that is closed while pending is removed completely, except the one in the offer.

use std::time::Instant;

use str0m::channel::{ChannelConfig, ChannelData, ChannelId, Reliability};

use super::{Peer, PeerEvent};
use crate::RtcError;
use crate::data_channel::{DataChannelError, DataChannelInit, DataChannelState};

/// Identifies a data channel within one peer connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ChannelKey(u32);

/// Maximum SCTP stream id (65535 is reserved, RFC 8832 §6).
const MAX_STREAM_ID: i32 = 65_534;

#[derive(Debug, Default)]
pub(super) struct Channels {
    list: Vec<Channel>,
    next: u32,
    pub(super) opened: u32,
    pub(super) closed: u32,
}

#[derive(Debug)]
struct Channel {
    key: ChannelKey,
    label: String,
    /// SCTP stream id of a channel negotiated by the application.
    negotiated: Option<u16>,
    /// Whether it was part of a created offer. str0m does not release a stream id assigned in an offer.
    offered: bool,
    phase: Phase,
    counters: ChannelCounters,
}

/// Messages and bytes of one channel.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ChannelCounters {
    pub messages_sent: u32,
    pub bytes_sent: u64,
    pub messages_received: u32,
    pub bytes_received: u64,
}

#[derive(Debug)]
enum Phase {
    /// Not created in str0m yet.
    Pending(ChannelConfig),
    /// str0m is opening it.
    Opening(ChannelId),
    /// str0m is opening it, but the application has closed it.
    ClosedWhileOpening(ChannelId),
    /// Open; `buffered` bytes were in the send buffer at the last check.
    Open {
        id: ChannelId,
        buffered: usize,
    },
    Closing(ChannelId),
    Closed,
}

impl Channel {
    fn id(&self) -> Option<ChannelId> {
        match self.phase {
            Phase::Opening(id)
            | Phase::ClosedWhileOpening(id)
            | Phase::Open { id, .. }
            | Phase::Closing(id) => Some(id),
            Phase::Pending(_) | Phase::Closed => None,
        }
    }

    fn state(&self) -> DataChannelState {
        match self.phase {
            Phase::Pending(_) | Phase::Opening(_) => DataChannelState::Connecting,
            Phase::Open { .. } => DataChannelState::Open,
            Phase::Closing(_) => DataChannelState::Closing,
            Phase::ClosedWhileOpening(_) | Phase::Closed => DataChannelState::Closed,
        }
    }
}

impl Channels {
    fn add(&mut self, label: String, negotiated: Option<u16>, phase: Phase) -> ChannelKey {
        let key = ChannelKey(self.next);
        self.next += 1;
        self.list.push(Channel {
            key,
            label,
            negotiated,
            offered: false,
            phase,
            counters: ChannelCounters::default(),
        });
        key
    }

    fn get(&self, key: ChannelKey) -> Option<&Channel> {
        self.list.iter().find(|channel| channel.key == key)
    }

    fn get_mut(&mut self, key: ChannelKey) -> Option<&mut Channel> {
        self.list.iter_mut().find(|channel| channel.key == key)
    }

    fn by_id(&mut self, id: ChannelId) -> Option<&mut Channel> {
        self.list.iter_mut().find(|channel| channel.id() == Some(id))
    }

    /// Selects a pending channel for an offer. Channels whose stream id is assigned by str0m are preferred: they can be
    /// offered again if the offer is discarded.
    pub(super) fn select_for_offer(&mut self) -> Option<(ChannelKey, ChannelConfig)> {
        let usable = self.list.iter_mut().filter(|channel| !channel.offered || channel.negotiated.is_none());
        let pending = usable.filter(|channel| matches!(channel.phase, Phase::Pending(_)));
        let channel = pending.min_by_key(|channel| channel.negotiated.is_some())?;
        channel.offered = true;
        let Phase::Pending(config) = &channel.phase else {
            return None;
        };
        Some((channel.key, config.clone()))
    }

    /// Whether a channel is pending.
    fn any_pending(&self) -> bool {
        self.list.iter().any(|channel| matches!(channel.phase, Phase::Pending(_)))
    }

    /// Resets the offered flags after the `Rtc` was replaced.
    pub(super) fn reset_offered(&mut self) {
        for channel in &mut self.list {
            channel.offered = false;
        }
    }

    /// Records that the answer accepted the channel in the offer.
    pub(super) fn offered(&mut self, key: ChannelKey, id: ChannelId) {
        if let Some(channel) = self.get_mut(key) {
            let closed_meanwhile = matches!(channel.phase, Phase::Closed);
            channel.phase = if closed_meanwhile { Phase::ClosedWhileOpening(id) } else { Phase::Opening(id) };
        }
    }

    /// Closes all channels; returns those that were not closed before.
    pub(super) fn close_all(&mut self) -> Vec<ChannelKey> {
        let open = self.list.iter_mut().filter(|channel| channel.state() != DataChannelState::Closed);
        open.map(|channel| {
            channel.phase = Phase::Closed;
            channel.key
        })
        .collect()
    }

    /// Label, negotiated stream id, state and counters of each channel, for statistics.
    pub(super) fn snapshot(
        &self,
    ) -> impl Iterator<Item = (&str, Option<u16>, DataChannelState, ChannelCounters)> {
        self.list
            .iter()
            .map(|channel| (&*channel.label, channel.negotiated, channel.state(), channel.counters))
    }
}

impl Peer {
    /// Creates a channel. It opens when the peers are connected.
    pub(crate) fn create_channel(
        &mut self,
        label: &str,
        init: &DataChannelInit,
        now: Instant,
    ) -> Result<ChannelKey, RtcError> {
        self.ensure_open()?;
        let config = config(label, init)?;
        // str0m panics on two channels with the same stream id.
        let negotiated = config.negotiated;
        if negotiated.is_some() && self.channels.list.iter().any(|channel| channel.negotiated == negotiated) {
            return Err(RtcError::invalid_state("the SCTP stream id is in use"));
        }
        let first = self.negotiation.app_mid().is_none() && !self.channels.any_pending();
        let key = self.channels.add(label.to_owned(), negotiated, Phase::Pending(config));
        self.open_pending_channels(now);
        if first && self.negotiation.app_mid().is_none() {
            self.negotiation_needed();
        }
        Ok(key)
    }

    /// Creates the pending channels in str0m, once SCTP is negotiated.
    pub(super) fn open_pending_channels(&mut self, now: Instant) {
        if self.negotiation.app_mid().is_none() {
            return;
        }
        let mut api = self.rtc.direct_api();
        for channel in &mut self.channels.list {
            if let Phase::Pending(config) = &channel.phase {
                channel.phase = Phase::Opening(api.create_data_channel(config.clone()));
            }
        }
        self.drive_after_change(now);
    }

    /// Handles the discarding of the offer that contained this channel: if it was closed meanwhile, it is removed.
    pub(super) fn offer_discarded(&mut self, key: ChannelKey) {
        self.channels.list.retain(|channel| channel.key != key || !matches!(channel.phase, Phase::Closed));
    }

    pub(crate) fn channel_state(&self, key: ChannelKey) -> DataChannelState {
        self.channels.get(key).map_or(DataChannelState::Closed, Channel::state)
    }

    /// SCTP stream id of the channel, once assigned.
    pub(crate) fn channel_stream(&mut self, key: ChannelKey) -> Option<u16> {
        let channel = self.channels.get(key)?;
        if let Phase::Pending(config) = &channel.phase {
            return config.negotiated;
        }
        self.rtc.direct_api().sctp_stream_id_by_channel_id(channel.id()?)
    }

    pub(crate) fn buffered_amount(&mut self, key: ChannelKey) -> u64 {
        match self.channels.get(key).map(|channel| &channel.phase) {
            Some(Phase::Open { id, .. }) => {
                self.rtc.channel(*id).map_or(0, |mut channel| channel.buffered_amount() as u64)
            }
            _ => 0,
        }
    }

    /// Queues a message.
    ///
    /// # Errors
    /// `Send` if the channel is not open or its send buffer is full.
    pub(crate) fn send_message(
        &mut self,
        key: ChannelKey,
        data: &[u8],
        binary: bool,
        now: Instant,
    ) -> Result<(), DataChannelError> {
        let channel = self.channels.get_mut(key).ok_or(DataChannelError::Send)?;
        let Phase::Open { id, buffered } = &mut channel.phase else {
            return Err(DataChannelError::Send);
        };
        let mut rtc_channel = self.rtc.channel(*id).ok_or(DataChannelError::Send)?;
        let accepted = rtc_channel.write(binary, data).unwrap_or_else(|error| {
            tracing::debug!(%error, label = channel.label, bytes = data.len(), "failed to send a message");
            false
        });
        if !accepted {
            return Err(DataChannelError::Send);
        }
        // Counted before str0m sends, so that bytes sent immediately are reported too.
        *buffered += data.len();
        channel.counters.messages_sent += 1;
        channel.counters.bytes_sent += data.len() as u64;
        self.drive_after_change(now);
        Ok(())
    }

    pub(crate) fn close_channel(&mut self, key: ChannelKey, now: Instant) {
        let Some(channel) = self.channels.get_mut(key) else {
            return;
        };
        let closed = match channel.phase {
            Phase::Pending(_) => {
                channel.phase = Phase::Closed;
                // Releases its stream id, unless an offer contains it.
                if !self.negotiation.offers_channel(key) {
                    self.channels.list.retain(|channel| channel.key != key);
                }
                true
            }
            Phase::Opening(id) => {
                channel.phase = Phase::ClosedWhileOpening(id);
                true
            }
            Phase::Open { id, .. } => {
                channel.phase = Phase::Closing(id);
                self.rtc.direct_api().close_data_channel(id);
                false
            }
            Phase::ClosedWhileOpening(_) | Phase::Closing(_) | Phase::Closed => return,
        };
        let state = if closed { DataChannelState::Closed } else { DataChannelState::Closing };
        self.notify(PeerEvent::ChannelState(key, state));
        self.drive_after_change(now);
    }

    pub(super) fn handle_channel_open(&mut self, id: ChannelId, label: String) {
        let key = match self.channels.by_id(id) {
            Some(channel) if matches!(channel.phase, Phase::ClosedWhileOpening(_)) => {
                channel.phase = Phase::Closing(id);
                self.rtc.direct_api().close_data_channel(id);
                return;
            }
            Some(channel) => {
                channel.phase = Phase::Open { id, buffered: 0 };
                channel.key
            }
            None => {
                let key = self.channels.add(label.clone(), None, Phase::Open { id, buffered: 0 });
                self.notify(PeerEvent::ChannelOpened(key, label));
                key
            }
        };
        self.channels.opened += 1;
        self.notify(PeerEvent::ChannelState(key, DataChannelState::Open));
    }

    pub(super) fn handle_message(&mut self, message: ChannelData) {
        let Some(channel) = self.channels.by_id(message.id) else {
            return;
        };
        channel.counters.messages_received += 1;
        channel.counters.bytes_received += message.data.len() as u64;
        let event = PeerEvent::Message { channel: channel.key, data: message.data, binary: message.binary };
        self.notify(event);
    }

    pub(super) fn handle_channel_close(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.by_id(id) else {
            return;
        };
        let key = channel.key;
        self.channels.list.retain(|channel| channel.key != key);
        self.channels.closed += 1;
        self.notify(PeerEvent::ChannelState(key, DataChannelState::Closed));
    }

    /// Reports the bytes that left the send buffer of each channel since the last check.
    pub(super) fn report_drained_buffers(&mut self) {
        for channel in &mut self.channels.list {
            let Phase::Open { id, buffered } = &mut channel.phase else {
                continue;
            };
            if *buffered == 0 {
                continue;
            }
            let left = self.rtc.channel(*id).map_or(0, |mut channel| channel.buffered_amount());
            let sent = buffered.saturating_sub(left) as u64;
            *buffered = left;
            if sent > 0 {
                let event = PeerEvent::Drained { channel: channel.key, sent };
                self.outputs.push_back(super::Output::Event(event));
            }
        }
    }
}

fn config(label: &str, init: &DataChannelInit) -> Result<ChannelConfig, RtcError> {
    let limit = |value: i32| {
        u16::try_from(value).map_err(|_| RtcError::invalid_state("a retransmission limit is out of range"))
    };
    let reliability = match (init.max_retransmits, init.max_retransmit_time) {
        (None, None) => Reliability::Reliable,
        (Some(retransmits), None) => Reliability::MaxRetransmits { retransmits: limit(retransmits)? },
        (None, Some(lifetime)) => Reliability::MaxPacketLifetime { lifetime: limit(lifetime)? },
        (Some(_), Some(_)) => {
            return Err(RtcError::invalid_state(
                "max_retransmits and max_retransmit_time are mutually exclusive",
            ));
        }
    };
    let negotiated = match (init.negotiated, init.id) {
        (false, _) => None,
        (true, 0..=MAX_STREAM_ID) => Some(init.id as u16),
        (true, _) => return Err(RtcError::invalid_state("a negotiated channel requires a valid id")),
    };
    Ok(ChannelConfig {
        label: label.to_owned(),
        ordered: init.ordered,
        reliability,
        negotiated,
        protocol: init.protocol.clone(),
    })
}
