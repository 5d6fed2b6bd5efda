//! The peer's data channels.
//!
//! A channel made before the peers agreed on SCTP waits here: the offer carries the first of them, because that
//! is how str0m adds the section, and the others are made when the answer is there. So a channel that is closed
//! before it ever was open leaves no trace, except the one that the offer carried.

use std::time::Instant;

use str0m::channel::{ChannelConfig, ChannelData, ChannelId, Reliability};

use super::{Notice, Peer};
use crate::RtcError;
use crate::data_channel::{DataChannelError, DataChannelInit, DataChannelState};

/// Names a channel of one peer connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ChannelKey(u32);

/// SCTP streams are numbered below this (RFC 8832 §6: 65535 is reserved).
const MAX_STREAM: i32 = 65_534;

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
    /// Its SCTP stream, if both sides agreed on it beforehand.
    negotiated: Option<u16>,
    /// Whether an offer has carried it to str0m, which numbers a stream once and for all.
    offered: bool,
    phase: Phase,
    counters: ChannelCounters,
}

/// What went over one channel.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ChannelCounters {
    pub messages_sent: u32,
    pub bytes_sent: u64,
    pub messages_received: u32,
    pub bytes_received: u64,
}

#[derive(Debug)]
enum Phase {
    /// Wanted, and not known to str0m yet.
    Waiting(ChannelConfig),
    /// str0m is opening it.
    Opening(ChannelId),
    /// str0m is opening it, and it is no longer wanted.
    Unwanted(ChannelId),
    /// Messages flow; so many bytes were buffered when last looked at.
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
            Phase::Opening(id) | Phase::Unwanted(id) | Phase::Open { id, .. } | Phase::Closing(id) => {
                Some(id)
            }
            Phase::Waiting(_) | Phase::Closed => None,
        }
    }

    fn state(&self) -> DataChannelState {
        match self.phase {
            Phase::Waiting(_) | Phase::Opening(_) => DataChannelState::Connecting,
            Phase::Open { .. } => DataChannelState::Open,
            Phase::Closing(_) => DataChannelState::Closing,
            Phase::Unwanted(_) | Phase::Closed => DataChannelState::Closed,
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

    /// The channel that an offer is to carry: any that waits. One that str0m numbers itself is preferred: its
    /// number can be given again should the offer come to nothing.
    pub(super) fn offer_one(&mut self) -> Option<(ChannelKey, ChannelConfig)> {
        let usable = self.list.iter_mut().filter(|channel| !channel.offered || channel.negotiated.is_none());
        let waiting = usable.filter(|channel| matches!(channel.phase, Phase::Waiting(_)));
        let channel = waiting.min_by_key(|channel| channel.negotiated.is_some())?;
        channel.offered = true;
        let Phase::Waiting(config) = &channel.phase else {
            return None;
        };
        Some((channel.key, config.clone()))
    }

    /// Whether a channel waits for SCTP to be agreed on.
    fn any_waiting(&self) -> bool {
        self.list.iter().any(|channel| matches!(channel.phase, Phase::Waiting(_)))
    }

    /// str0m starts over: it knows none of the channels that still wait.
    pub(super) fn not_offered_yet(&mut self) {
        for channel in &mut self.list {
            channel.offered = false;
        }
    }

    /// The answer accepted the channel that the offer carried.
    pub(super) fn offered(&mut self, key: ChannelKey, id: ChannelId) {
        if let Some(channel) = self.get_mut(key) {
            let unwanted = matches!(channel.phase, Phase::Closed);
            channel.phase = if unwanted { Phase::Unwanted(id) } else { Phase::Opening(id) };
        }
    }

    /// Ends all; returns those that were not closed before.
    pub(super) fn close_all(&mut self) -> Vec<ChannelKey> {
        let open = self.list.iter_mut().filter(|channel| channel.state() != DataChannelState::Closed);
        open.map(|channel| {
            channel.phase = Phase::Closed;
            channel.key
        })
        .collect()
    }

    /// What each channel is and did, for statistics.
    pub(super) fn survey(
        &self,
    ) -> impl Iterator<Item = (&str, Option<u16>, DataChannelState, ChannelCounters)> {
        self.list
            .iter()
            .map(|channel| (&*channel.label, channel.negotiated, channel.state(), channel.counters))
    }
}

impl Peer {
    /// Makes a channel. It opens when the peers are connected.
    pub(crate) fn create_channel(
        &mut self,
        label: &str,
        init: &DataChannelInit,
        now: Instant,
    ) -> Result<ChannelKey, RtcError> {
        self.open()?;
        let config = config(label, init)?;
        // str0m takes two channels on one stream for a bug of ours, and panics.
        let negotiated = config.negotiated;
        if negotiated.is_some() && self.channels.list.iter().any(|channel| channel.negotiated == negotiated) {
            return Err(RtcError::invalid_state("the SCTP stream has a channel already"));
        }
        let first = self.negotiation.app_mid().is_none() && !self.channels.any_waiting();
        let key = self.channels.add(label.to_owned(), negotiated, Phase::Waiting(config));
        self.open_waiting_channels(now);
        if first && self.negotiation.app_mid().is_none() {
            self.negotiation_needed();
        }
        Ok(key)
    }

    /// Makes the channels that waited for SCTP to be agreed on.
    pub(super) fn open_waiting_channels(&mut self, now: Instant) {
        if self.negotiation.app_mid().is_none() {
            return;
        }
        let mut api = self.rtc.direct_api();
        for channel in &mut self.channels.list {
            if let Phase::Waiting(config) = &channel.phase {
                channel.phase = Phase::Opening(api.create_data_channel(config.clone()));
            }
        }
        self.settle(now);
    }

    /// The offer that carried this channel came to nothing. What was closed meanwhile is forgotten.
    pub(super) fn channel_not_offered(&mut self, key: ChannelKey) {
        self.channels.list.retain(|channel| channel.key != key || !matches!(channel.phase, Phase::Closed));
    }

    pub(crate) fn channel_state(&self, key: ChannelKey) -> DataChannelState {
        self.channels.get(key).map_or(DataChannelState::Closed, Channel::state)
    }

    /// Its SCTP stream, once it has one.
    pub(crate) fn channel_stream(&mut self, key: ChannelKey) -> Option<u16> {
        let channel = self.channels.get(key)?;
        if let Phase::Waiting(config) = &channel.phase {
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
            tracing::debug!(%error, label = channel.label, bytes = data.len(), "message not sent");
            false
        });
        if !accepted {
            return Err(DataChannelError::Send);
        }
        // Counted here and not asked for, so that what leaves at once is reported as sent too.
        *buffered += data.len();
        channel.counters.messages_sent += 1;
        channel.counters.bytes_sent += data.len() as u64;
        self.settle(now);
        Ok(())
    }

    pub(crate) fn close_channel(&mut self, key: ChannelKey, now: Instant) {
        let Some(channel) = self.channels.get_mut(key) else {
            return;
        };
        let closed = match channel.phase {
            Phase::Waiting(_) => {
                channel.phase = Phase::Closed;
                // Its stream is free again, unless an offer carries it.
                if !self.negotiation.offers_channel(key) {
                    self.channels.list.retain(|channel| channel.key != key);
                }
                true
            }
            Phase::Opening(id) => {
                channel.phase = Phase::Unwanted(id);
                true
            }
            Phase::Open { id, .. } => {
                channel.phase = Phase::Closing(id);
                self.rtc.direct_api().close_data_channel(id);
                false
            }
            Phase::Unwanted(_) | Phase::Closing(_) | Phase::Closed => return,
        };
        let state = if closed { DataChannelState::Closed } else { DataChannelState::Closing };
        self.notify(Notice::ChannelState(key, state));
        self.settle(now);
    }

    pub(super) fn handle_channel_open(&mut self, id: ChannelId, label: String) {
        let key = match self.channels.by_id(id) {
            Some(channel) if matches!(channel.phase, Phase::Unwanted(_)) => {
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
                self.notify(Notice::ChannelOpened(key, label));
                key
            }
        };
        self.channels.opened += 1;
        self.notify(Notice::ChannelState(key, DataChannelState::Open));
    }

    pub(super) fn handle_message(&mut self, message: ChannelData) {
        let Some(channel) = self.channels.by_id(message.id) else {
            return;
        };
        channel.counters.messages_received += 1;
        channel.counters.bytes_received += message.data.len() as u64;
        let notice = Notice::Message { channel: channel.key, data: message.data, binary: message.binary };
        self.notify(notice);
    }

    pub(super) fn handle_channel_close(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.by_id(id) else {
            return;
        };
        let key = channel.key;
        self.channels.list.retain(|channel| channel.key != key);
        self.channels.closed += 1;
        self.notify(Notice::ChannelState(key, DataChannelState::Closed));
    }

    /// Says how many bytes left each channel's buffer since it was last looked at.
    pub(super) fn watch_buffers(&mut self) {
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
                let notice = Notice::Drained { channel: channel.key, sent };
                self.outputs.push_back(super::Output::Notify(notice));
            }
        }
    }
}

fn config(label: &str, init: &DataChannelInit) -> Result<ChannelConfig, RtcError> {
    let limit =
        |value: i32| u16::try_from(value).map_err(|_| RtcError::invalid_state("a limit is out of range"));
    let reliability = match (init.max_retransmits, init.max_retransmit_time) {
        (None, None) => Reliability::Reliable,
        (Some(retransmits), None) => Reliability::MaxRetransmits { retransmits: limit(retransmits)? },
        (None, Some(lifetime)) => Reliability::MaxPacketLifetime { lifetime: limit(lifetime)? },
        (Some(_), Some(_)) => return Err(RtcError::invalid_state("a channel has one limit at most")),
    };
    let negotiated = match (init.negotiated, init.id) {
        (false, _) => None,
        (true, 0..=MAX_STREAM) => Some(init.id as u16),
        (true, _) => return Err(RtcError::invalid_state("a negotiated channel needs its id")),
    };
    Ok(ChannelConfig {
        label: label.to_owned(),
        ordered: init.ordered,
        reliability,
        negotiated,
        protocol: init.protocol.clone(),
    })
}
