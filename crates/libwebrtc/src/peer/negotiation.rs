//! Offer/answer negotiation (RFC 8829), based on str0m's.
//!
//! Differences between str0m and RFC 8829 that are handled here:
//! - str0m creates the answer when it accepts an offer. It is stored until `create_answer` is called.
//! - Creating an offer must not change state until it is set, and an offer may never be set: LiveKit creates the first
//!   one before it knows the version of the server, and discards it for old servers. Before the first remote
//!   description the `Rtc` holds no state worth keeping, so the next offer is created from a new one; later, discarding
//!   an offer leaves the `Rtc` unchanged.
//! - LiveKit rolls back a pending offer by applying the last remote description again.
//! - LiveKit edits the text of an offer before sending it (`inactive` to `recvonly`, `stereo=1`). The edits are only
//!   for the server and are ignored here.
//! - str0m creates no offer without a change. In that case a direction is changed and changed back.

use std::mem;
use std::time::Instant;

use str0m::Candidate;
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::media::{Direction as RtcDirection, Mid};

use super::sdp::{self, SectionKind};
use super::{CONNECT_TIMEOUT, ChannelKey, ConnectionPhase, Output, Peer, PeerEvent, TransceiverId, new_rtc};
use crate::RtcError;
use crate::ice_candidate::IceCandidate;
use crate::peer_connection::{IceConnectionState, OfferOptions, SignalingState};
use crate::rtp_transceiver::RtpTransceiverDirection as Direction;
use crate::session_description::{SdpType, SessionDescription};

#[derive(Default)]
pub(super) struct Negotiation {
    phase: Phase,
    /// The last created offer, if it was not set yet.
    created_offer: Option<CreatedOffer>,
    /// Whether the current `Rtc` has created an offer.
    rtc_has_offered: bool,
    /// Incremented at each change that requires a new offer.
    change_count: u64,
    /// Whether `restart_ice` was called since the last offer.
    restart_ice: bool,
    current_local: Option<SessionDescription>,
    current_remote: Option<SessionDescription>,
    /// Mid of the section for data channels, once negotiated.
    app_mid: Option<String>,
}

#[derive(Default)]
enum Phase {
    #[default]
    Stable,
    HaveLocalOffer {
        offer: CreatedOffer,
        text: SessionDescription,
    },
    HaveRemoteOffer {
        offer: SessionDescription,
        answer: String,
    },
    Closed,
}

/// An offer created by str0m.
struct CreatedOffer {
    sdp: String,
    pending: SdpPendingOffer,
    /// The media sections it adds.
    added: Vec<(TransceiverId, Mid)>,
    /// The channel with which str0m adds the section for data channels.
    channel: Option<(ChannelKey, str0m::channel::ChannelId)>,
    /// Change count and ICE restart flag at its creation; the offer is reused while they are the same.
    inputs: (u64, bool),
}

impl Negotiation {
    pub(super) fn app_mid(&self) -> Option<String> {
        self.app_mid.clone()
    }

    /// Whether a pending or created offer contains this channel.
    pub(super) fn offers_channel(&self, key: ChannelKey) -> bool {
        let pending = match &self.phase {
            Phase::HaveLocalOffer { offer, .. } => Some(offer),
            Phase::Stable | Phase::HaveRemoteOffer { .. } | Phase::Closed => self.created_offer.as_ref(),
        };
        pending.and_then(|offer| offer.channel).is_some_and(|(offered, _)| offered == key)
    }

    pub(super) fn close(&mut self) {
        self.phase = Phase::Closed;
        self.created_offer = None;
    }
}

impl Peer {
    pub(crate) fn signaling_state(&self) -> SignalingState {
        match self.negotiation.phase {
            Phase::Stable => SignalingState::Stable,
            Phase::HaveLocalOffer { .. } => SignalingState::HaveLocalOffer,
            Phase::HaveRemoteOffer { .. } => SignalingState::HaveRemoteOffer,
            Phase::Closed => SignalingState::Closed,
        }
    }

    pub(crate) fn current_local_description(&self) -> Option<SessionDescription> {
        self.negotiation.current_local.clone()
    }

    pub(crate) fn current_remote_description(&self) -> Option<SessionDescription> {
        self.negotiation.current_remote.clone()
    }

    /// Whether a remote description has been applied.
    pub(crate) fn has_remote_description(&self) -> bool {
        self.negotiation.current_remote.is_some()
    }

    /// Makes the next offer restart ICE.
    pub(crate) fn restart_ice(&mut self) {
        self.negotiation.restart_ice = true;
        self.negotiation_needed();
    }

    /// Records a change that requires a new offer, and notifies the application.
    pub(super) fn negotiation_needed(&mut self) {
        self.negotiation.change_count += 1;
        self.notify(PeerEvent::NegotiationNeeded);
    }

    // --- Offer and answer -----------------------------------------------------------------------------

    pub(crate) fn create_offer(
        &mut self,
        options: &OfferOptions,
        now: Instant,
    ) -> Result<SessionDescription, RtcError> {
        match self.negotiation.phase {
            Phase::Stable => {}
            Phase::HaveLocalOffer { .. } => {
                return Err(RtcError::invalid_state("a local offer is pending"));
            }
            Phase::HaveRemoteOffer { .. } => {
                return Err(RtcError::invalid_state("the remote offer has not been answered"));
            }
            Phase::Closed => return Err(RtcError::closed()),
        }
        let restart = options.ice_restart || self.negotiation.restart_ice;
        let inputs = (self.negotiation.change_count, restart);
        if let Some(created_offer) =
            self.negotiation.created_offer.as_ref().filter(|offer| offer.inputs == inputs)
        {
            return Ok(SessionDescription::new(SdpType::Offer, created_offer.sdp.clone()));
        }
        self.discard_created_offer();
        self.reset_unused_rtc(now);
        if restart && self.negotiation.current_remote.is_some() {
            self.outputs.push_back(Output::Regather);
        }
        let created_offer = self.build_offer(restart, inputs)?;
        self.drive_after_change(now);
        let sdp = created_offer.sdp.clone();
        self.negotiation.created_offer = Some(created_offer);
        Ok(SessionDescription::new(SdpType::Offer, sdp))
    }

    pub(crate) fn create_answer(&mut self) -> Result<SessionDescription, RtcError> {
        match &self.negotiation.phase {
            Phase::HaveRemoteOffer { answer, .. } => {
                Ok(SessionDescription::new(SdpType::Answer, answer.clone()))
            }
            Phase::Stable | Phase::HaveLocalOffer { .. } => {
                Err(RtcError::invalid_state("there is no remote offer to answer"))
            }
            Phase::Closed => Err(RtcError::closed()),
        }
    }

    pub(crate) fn set_local_description(
        &mut self,
        text: SessionDescription,
        now: Instant,
    ) -> Result<(), RtcError> {
        tracing::trace!(%text, "local description");
        match (text.sdp_type(), mem::take(&mut self.negotiation.phase)) {
            (SdpType::Offer, Phase::Stable) => {
                let Some(offer) = self.negotiation.created_offer.take() else {
                    return Err(RtcError::invalid_state("the offer was not created by this connection"));
                };
                for (transceiver, mid) in &offer.added {
                    self.transceivers.assign(*transceiver, Some(*mid));
                }
                self.negotiation.restart_ice = false;
                self.set_signaling_phase(Phase::HaveLocalOffer { offer, text });
                Ok(())
            }
            (SdpType::Answer | SdpType::PrAnswer, Phase::HaveRemoteOffer { offer, .. }) => {
                self.negotiation.current_local = Some(text);
                self.negotiation.current_remote = Some(offer);
                self.set_signaling_phase(Phase::Stable);
                self.open_pending_channels(now);
                Ok(())
            }
            (SdpType::Rollback, Phase::HaveLocalOffer { offer, .. }) => {
                self.roll_back(&offer);
                self.set_signaling_phase(Phase::Stable);
                Ok(())
            }
            (sdp_type, phase) => {
                self.negotiation.phase = phase;
                Err(self.wrong_state("local", sdp_type))
            }
        }
    }

    pub(crate) fn set_remote_description(
        &mut self,
        text: SessionDescription,
        now: Instant,
    ) -> Result<(), RtcError> {
        tracing::trace!(%text, "remote description");
        match (text.sdp_type(), mem::take(&mut self.negotiation.phase)) {
            (SdpType::Answer | SdpType::PrAnswer, Phase::HaveLocalOffer { offer, .. })
                if self.negotiation.current_remote.as_ref() == Some(&text) =>
            {
                self.roll_back(&offer);
                self.set_signaling_phase(Phase::Stable);
                Ok(())
            }
            (SdpType::Answer | SdpType::PrAnswer, Phase::HaveLocalOffer { offer, text: local }) => {
                let accepted = self.accept_answer(offer, &text, now);
                if accepted.is_ok() {
                    self.negotiation.current_local = Some(local);
                    self.negotiation.current_remote = Some(text);
                }
                self.set_signaling_phase(Phase::Stable);
                self.open_pending_channels(now);
                accepted
            }
            (SdpType::Offer, phase @ (Phase::Stable | Phase::HaveLocalOffer { .. })) => {
                // On glare the remote offer wins: the polite peer of "perfect negotiation" (RFC 8829 §5.7).
                if let Phase::HaveLocalOffer { offer, .. } = phase {
                    self.roll_back(&offer);
                }
                self.discard_created_offer();
                self.reset_unused_rtc(now);
                let answer = self.accept_offer(&text, now)?;
                self.set_signaling_phase(Phase::HaveRemoteOffer { offer: text, answer });
                Ok(())
            }
            (SdpType::Rollback, Phase::HaveRemoteOffer { .. }) => {
                Err(RtcError::invalid_state("rollback of a remote offer is not supported"))
            }
            (sdp_type, phase) => {
                self.negotiation.phase = phase;
                Err(self.wrong_state("remote", sdp_type))
            }
        }
    }

    pub(crate) fn add_remote_candidate(
        &mut self,
        candidate: &IceCandidate,
        now: Instant,
    ) -> Result<(), RtcError> {
        self.ensure_open()?;
        if self.negotiation.current_remote.is_none()
            && !matches!(self.negotiation.phase, Phase::HaveRemoteOffer { .. })
        {
            return Err(RtcError::invalid_state("a candidate was added before the remote description"));
        }
        // An empty candidate is the end-of-candidates mark; others that do not parse are of unsupported kinds.
        let Ok(candidate) = Candidate::from_sdp_string(candidate.as_str()) else {
            tracing::debug!(%candidate, "remote candidate ignored");
            return Ok(());
        };
        self.output_remote_candidate(candidate.clone());
        self.rtc.add_remote_candidate(candidate);
        self.drive_after_change(now);
        Ok(())
    }

    // --- str0m ----------------------------------------------------------------------------------------

    /// Creates an offer with all changes since the last negotiation.
    fn build_offer(&mut self, restart: bool, inputs: (u64, bool)) -> Result<CreatedOffer, RtcError> {
        self.declare_send_streams();
        let mut api = self.rtc.sdp_api();
        let mut added = Vec::new();
        for (id, kind, direction, track_id) in self.transceivers.unassigned() {
            // LiveKit identifies a published track by its id in `a=msid`.
            added.push((id, api.add_media(kind, to_str0m(direction), None, track_id, None)));
        }
        for (mid, direction) in self.transceivers.assigned() {
            if direction == Direction::Stopped {
                api.stop_media(mid)
            } else {
                api.set_direction(mid, to_str0m(direction))
            }
        }
        let channel = match self.negotiation.app_mid {
            Some(_) => None,
            None => self
                .channels
                .select_for_offer()
                .map(|(key, config)| (key, api.add_channel_with_config(config))),
        };
        if restart && self.negotiation.current_remote.is_some() {
            api.ice_restart(true);
        }
        if !api.has_changes() {
            match self.transceivers.assigned().find(|(_, direction)| *direction != Direction::Stopped) {
                Some((mid, direction)) => {
                    let other =
                        if direction.receives() { direction.with_sending() } else { Direction::RecvOnly };
                    let other = if other == direction { Direction::RecvOnly } else { other };
                    api.set_direction(mid, to_str0m(other));
                    api.set_direction(mid, to_str0m(direction));
                }
                None if self.negotiation.current_remote.is_some() => {
                    api.ice_restart(true);
                }
                None => return Err(RtcError::invalid_state("there is nothing to offer")),
            }
        }
        let (offer, pending) =
            api.apply().ok_or_else(|| RtcError::invalid_state("there is nothing to offer"))?;
        self.negotiation.rtc_has_offered = true;
        let sdp = sdp::strip_nack_where_sending(&offer.to_sdp_string());
        Ok(CreatedOffer { sdp, pending, added, channel, inputs })
    }

    fn accept_answer(
        &mut self,
        offer: CreatedOffer,
        text: &SessionDescription,
        now: Instant,
    ) -> Result<(), RtcError> {
        let answer = SdpAnswer::from_sdp_string(text.sdp()).map_err(RtcError::invalid_sdp)?;
        self.rtc.sdp_api().accept_answer(offer.pending, answer).map_err(RtcError::invalid_sdp)?;
        if let Some((key, id)) = offer.channel {
            self.channels.offered(key, id);
        }
        self.apply_remote_description(text, now);
        Ok(())
    }

    fn accept_offer(&mut self, text: &SessionDescription, now: Instant) -> Result<String, RtcError> {
        let offer = SdpOffer::from_sdp_string(text.sdp()).map_err(RtcError::invalid_sdp)?;
        let answer = self.rtc.sdp_api().accept_offer(offer).map_err(RtcError::invalid_sdp)?;
        self.apply_remote_description(text, now);
        Ok(sdp::strip_nack_where_sending(&answer.to_sdp_string()))
    }

    /// Applies a remote description to transceivers, channels and states, after str0m has accepted it.
    fn apply_remote_description(&mut self, text: &SessionDescription, now: Instant) {
        let sections = sdp::sections(text.sdp());
        let app = sections.iter().find(|section| section.kind == SectionKind::Application);
        if let Some(app) = app {
            self.negotiation.app_mid.get_or_insert_with(|| app.mid.clone());
        }
        self.apply_remote_sections(&sections);
        self.remove_unused_send_streams();
        if self.connection == ConnectionPhase::New {
            self.set_phase(ConnectionPhase::Connecting { fails_at: now + CONNECT_TIMEOUT });
            self.set_ice_state(IceConnectionState::Checking);
        }
        let candidates = sections.iter().flat_map(|section| &section.candidates);
        for candidate in candidates.filter_map(|line| Candidate::from_sdp_string(line).ok()) {
            self.output_remote_candidate(candidate);
        }
        self.drive_after_change(now);
    }

    fn output_remote_candidate(&mut self, candidate: Candidate) {
        self.outputs.push_back(Output::RemoteCandidate(candidate));
    }

    /// Rolls back an offer that was set.
    fn roll_back(&mut self, offer: &CreatedOffer) {
        for (transceiver, _) in &offer.added {
            self.transceivers.assign(*transceiver, None);
        }
        if let Some((key, _)) = offer.channel {
            self.offer_discarded(key);
        }
        // Its changes have to be offered again.
        self.negotiation.change_count += 1;
    }

    /// Discards an offer that was created but not set.
    fn discard_created_offer(&mut self) {
        let created_offer = self.negotiation.created_offer.take();
        if let Some((key, _)) = created_offer.and_then(|offer| offer.channel) {
            self.offer_discarded(key);
        }
    }

    /// Replaces the `Rtc` if it has created an offer and there was no remote description yet. It has assigned a stream
    /// id to the channel of that offer, and would panic if the id were used again.
    fn reset_unused_rtc(&mut self, now: Instant) {
        if !mem::take(&mut self.negotiation.rtc_has_offered) || self.negotiation.current_remote.is_some() {
            return;
        }
        self.rtc = new_rtc(now);
        for candidate in self.local_candidates.clone() {
            self.rtc.add_local_candidate(candidate);
        }
        self.channels.reset_offered();
    }

    fn set_signaling_phase(&mut self, phase: Phase) {
        self.negotiation.phase = phase;
        let state = self.signaling_state();
        self.notify(PeerEvent::Signaling(state));
    }

    fn wrong_state(&self, side: &str, sdp_type: SdpType) -> RtcError {
        let state = self.signaling_state();
        if state == SignalingState::Closed {
            return RtcError::closed();
        }
        RtcError::invalid_state(format!(
            "a {side} {sdp_type} is not allowed in the signaling state {state:?}"
        ))
    }
}

fn to_str0m(direction: Direction) -> RtcDirection {
    match direction {
        Direction::SendRecv => RtcDirection::SendRecv,
        Direction::SendOnly => RtcDirection::SendOnly,
        Direction::RecvOnly => RtcDirection::RecvOnly,
        Direction::Inactive | Direction::Stopped => RtcDirection::Inactive,
    }
}
