//! Offers and answers (RFC 8829), on top of str0m's.
//!
//! Where the two differ:
//! - str0m makes an answer at once when it is given an offer. It is kept until it is asked for.
//! - An offer changes nothing until it is set, and may never be: LiveKit makes the first one before it knows the
//!   server, and drops it if the server is an old one. Until the peer's first description nothing is worth
//!   keeping in str0m, so the next offer starts from a fresh one; afterwards a dropped offer leaves str0m as it
//!   was.
//! - LiveKit takes a pending offer back by applying the peer's last description again: that is a rollback here.
//! - LiveKit edits the text of our offer on its way out (`inactive` to `recvonly`, `stereo=1`). Only the server
//!   needs to see that.
//! - Where nothing changed str0m has nothing to offer. A direction is turned there and back then.

use std::mem;
use std::time::Instant;

use str0m::Candidate;
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::media::{Direction as RtcDirection, Mid};

use super::sdp::{self, SectionKind};
use super::{CONNECT_TIMEOUT, ChannelKey, ConnectionPhase, Notice, Output, Peer, TransceiverId, fresh_rtc};
use crate::RtcError;
use crate::ice_candidate::IceCandidate;
use crate::peer_connection::{IceConnectionState, OfferOptions, SignalingState};
use crate::rtp_transceiver::RtpTransceiverDirection as Direction;
use crate::session_description::{SdpType, SessionDescription};

#[derive(Default)]
pub(super) struct Negotiation {
    phase: Phase,
    /// The last offer that was made and not set yet.
    draft: Option<Draft>,
    /// Whether str0m has made an offer since it was fresh.
    drafted: bool,
    /// Counts what an offer would have to tell.
    changes: u64,
    /// Whether `restart_ice` was called since the last offer.
    restart_ice: bool,
    current_local: Option<SessionDescription>,
    current_remote: Option<SessionDescription>,
    /// The section of data channels, once agreed on.
    app_mid: Option<String>,
}

#[derive(Default)]
enum Phase {
    #[default]
    Stable,
    HaveLocalOffer {
        offer: Draft,
        text: SessionDescription,
    },
    HaveRemoteOffer {
        offer: SessionDescription,
        answer: String,
    },
    Closed,
}

/// An offer that str0m made.
struct Draft {
    sdp: String,
    pending: SdpPendingOffer,
    /// The media sections it adds.
    added: Vec<(TransceiverId, Mid)>,
    /// The channel that it carries to add the section of data channels.
    channel: Option<(ChannelKey, str0m::channel::ChannelId)>,
    /// What it was made for, to tell whether it is still good.
    made_for: (u64, bool),
}

impl Negotiation {
    pub(super) fn app_mid(&self) -> Option<String> {
        self.app_mid.clone()
    }

    /// Whether an offer is out, or may still be set, that carries this channel.
    pub(super) fn offers_channel(&self, key: ChannelKey) -> bool {
        let pending = match &self.phase {
            Phase::HaveLocalOffer { offer, .. } => Some(offer),
            Phase::Stable | Phase::HaveRemoteOffer { .. } | Phase::Closed => self.draft.as_ref(),
        };
        pending.and_then(|draft| draft.channel).is_some_and(|(offered, _)| offered == key)
    }

    pub(super) fn close(&mut self) {
        self.phase = Phase::Closed;
        self.draft = None;
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

    /// Whether the peer has described itself.
    pub(crate) fn has_remote(&self) -> bool {
        self.negotiation.current_remote.is_some()
    }

    /// The next offer restarts ICE.
    pub(crate) fn restart_ice(&mut self) {
        self.negotiation.restart_ice = true;
        self.negotiation_needed();
    }

    /// Something changed that the peer must be told.
    pub(super) fn negotiation_needed(&mut self) {
        self.negotiation.changes += 1;
        self.notify(Notice::NegotiationNeeded);
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
                return Err(RtcError::invalid_state("an offer is waiting for its answer"));
            }
            Phase::HaveRemoteOffer { .. } => {
                return Err(RtcError::invalid_state("the peer's offer is to be answered first"));
            }
            Phase::Closed => return Err(RtcError::closed()),
        }
        let restart = options.ice_restart || self.negotiation.restart_ice;
        let made_for = (self.negotiation.changes, restart);
        if let Some(draft) = self.negotiation.draft.as_ref().filter(|draft| draft.made_for == made_for) {
            return Ok(SessionDescription::new(SdpType::Offer, draft.sdp.clone()));
        }
        self.drop_draft();
        self.start_over(now);
        if restart && self.negotiation.current_remote.is_some() {
            self.outputs.push_back(Output::Gather);
        }
        let draft = self.draft(restart, made_for)?;
        self.settle(now);
        let sdp = draft.sdp.clone();
        self.negotiation.draft = Some(draft);
        Ok(SessionDescription::new(SdpType::Offer, sdp))
    }

    pub(crate) fn create_answer(&mut self) -> Result<SessionDescription, RtcError> {
        match &self.negotiation.phase {
            Phase::HaveRemoteOffer { answer, .. } => {
                Ok(SessionDescription::new(SdpType::Answer, answer.clone()))
            }
            Phase::Stable | Phase::HaveLocalOffer { .. } => {
                Err(RtcError::invalid_state("there is no offer to answer"))
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
                let Some(offer) = self.negotiation.draft.take() else {
                    return Err(RtcError::invalid_state("the offer was not made by this connection"));
                };
                for (transceiver, mid) in &offer.added {
                    self.transceivers.assign(*transceiver, Some(*mid));
                }
                self.negotiation.restart_ice = false;
                self.enter_signaling(Phase::HaveLocalOffer { offer, text });
                Ok(())
            }
            (SdpType::Answer | SdpType::PrAnswer, Phase::HaveRemoteOffer { offer, .. }) => {
                self.negotiation.current_local = Some(text);
                self.negotiation.current_remote = Some(offer);
                self.enter_signaling(Phase::Stable);
                self.open_waiting_channels(now);
                Ok(())
            }
            (SdpType::Rollback, Phase::HaveLocalOffer { offer, .. }) => {
                self.roll_back(&offer);
                self.enter_signaling(Phase::Stable);
                Ok(())
            }
            (sdp_type, phase) => {
                self.negotiation.phase = phase;
                Err(self.out_of_order("local", sdp_type))
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
                self.enter_signaling(Phase::Stable);
                Ok(())
            }
            (SdpType::Answer | SdpType::PrAnswer, Phase::HaveLocalOffer { offer, text: local }) => {
                let accepted = self.accept_answer(offer, &text, now);
                if accepted.is_ok() {
                    self.negotiation.current_local = Some(local);
                    self.negotiation.current_remote = Some(text);
                }
                self.enter_signaling(Phase::Stable);
                self.open_waiting_channels(now);
                accepted
            }
            (SdpType::Offer, phase @ (Phase::Stable | Phase::HaveLocalOffer { .. })) => {
                // An offer that crosses ours wins (the polite side of "perfect negotiation", RFC 8829 §5.7).
                if let Phase::HaveLocalOffer { offer, .. } = phase {
                    self.roll_back(&offer);
                }
                self.drop_draft();
                self.start_over(now);
                let answer = self.accept_offer(&text, now)?;
                self.enter_signaling(Phase::HaveRemoteOffer { offer: text, answer });
                Ok(())
            }
            (SdpType::Rollback, Phase::HaveRemoteOffer { .. }) => {
                Err(RtcError::invalid_state("str0m can't take back the peer's offer"))
            }
            (sdp_type, phase) => {
                self.negotiation.phase = phase;
                Err(self.out_of_order("remote", sdp_type))
            }
        }
    }

    pub(crate) fn add_remote_candidate(
        &mut self,
        candidate: &IceCandidate,
        now: Instant,
    ) -> Result<(), RtcError> {
        self.open()?;
        if self.negotiation.current_remote.is_none()
            && !matches!(self.negotiation.phase, Phase::HaveRemoteOffer { .. })
        {
            return Err(RtcError::invalid_state("a candidate before the description it belongs to"));
        }
        // The empty one says that no more come. One that can't be read is of a kind that can't be used.
        let Ok(candidate) = Candidate::from_sdp_string(candidate.as_str()) else {
            tracing::debug!(%candidate, "remote candidate passed over");
            return Ok(());
        };
        self.reach(candidate.clone());
        self.rtc.add_remote_candidate(candidate);
        self.settle(now);
        Ok(())
    }

    // --- str0m ----------------------------------------------------------------------------------------

    /// Has str0m make an offer of everything that the peer does not know yet.
    fn draft(&mut self, restart: bool, made_for: (u64, bool)) -> Result<Draft, RtcError> {
        self.make_streams_that_send();
        let mut api = self.rtc.sdp_api();
        let mut added = Vec::new();
        for (id, kind, wanted, track_id) in self.transceivers.unassigned() {
            // LiveKit knows the track that we publish by its id in `a=msid`.
            added.push((id, api.add_media(kind, to_str0m(wanted), None, track_id, None)));
        }
        for (mid, wanted) in self.transceivers.assigned() {
            if wanted == Direction::Stopped {
                api.stop_media(mid)
            } else {
                api.set_direction(mid, to_str0m(wanted))
            }
        }
        let channel = match self.negotiation.app_mid {
            Some(_) => None,
            None => self.channels.offer_one().map(|(key, config)| (key, api.add_channel_with_config(config))),
        };
        if restart && self.negotiation.current_remote.is_some() {
            api.ice_restart(true);
        }
        if !api.has_changes() {
            match self.transceivers.assigned().find(|(_, wanted)| *wanted != Direction::Stopped) {
                Some((mid, wanted)) => {
                    let other = if wanted.receives() { wanted.with_sending() } else { Direction::RecvOnly };
                    let other = if other == wanted { Direction::RecvOnly } else { other };
                    api.set_direction(mid, to_str0m(other));
                    api.set_direction(mid, to_str0m(wanted));
                }
                None if self.negotiation.current_remote.is_some() => {
                    api.ice_restart(true);
                }
                None => return Err(RtcError::invalid_state("there is nothing to offer")),
            }
        }
        let (offer, pending) =
            api.apply().ok_or_else(|| RtcError::invalid_state("there is nothing to offer"))?;
        self.negotiation.drafted = true;
        let sdp = sdp::without_resending(&offer.to_sdp_string());
        Ok(Draft { sdp, pending, added, channel, made_for })
    }

    fn accept_answer(
        &mut self,
        offer: Draft,
        text: &SessionDescription,
        now: Instant,
    ) -> Result<(), RtcError> {
        let answer = SdpAnswer::from_sdp_string(text.sdp()).map_err(RtcError::invalid_sdp)?;
        self.rtc.sdp_api().accept_answer(offer.pending, answer).map_err(RtcError::invalid_sdp)?;
        if let Some((key, id)) = offer.channel {
            self.channels.offered(key, id);
        }
        self.described(text, now);
        Ok(())
    }

    fn accept_offer(&mut self, text: &SessionDescription, now: Instant) -> Result<String, RtcError> {
        let offer = SdpOffer::from_sdp_string(text.sdp()).map_err(RtcError::invalid_sdp)?;
        let answer = self.rtc.sdp_api().accept_offer(offer).map_err(RtcError::invalid_sdp)?;
        self.described(text, now);
        Ok(sdp::without_resending(&answer.to_sdp_string()))
    }

    /// The peer described itself.
    fn described(&mut self, text: &SessionDescription, now: Instant) {
        let sections = sdp::sections(text.sdp());
        let app = sections.iter().find(|section| section.kind == SectionKind::Application);
        if let Some(app) = app {
            self.negotiation.app_mid.get_or_insert_with(|| app.mid.clone());
        }
        self.take_sections(&sections);
        self.keep_streams_that_send();
        if self.connection == ConnectionPhase::New {
            self.enter(ConnectionPhase::Connecting { fails_at: now + CONNECT_TIMEOUT });
            self.enter_ice(IceConnectionState::Checking);
        }
        let candidates = sections.iter().flat_map(|section| &section.candidates);
        for candidate in candidates.filter_map(|line| Candidate::from_sdp_string(line).ok()) {
            self.reach(candidate);
        }
        self.settle(now);
    }

    fn reach(&mut self, candidate: Candidate) {
        self.outputs.push_back(Output::Reach(candidate));
    }

    /// An offer that was set comes to nothing.
    fn roll_back(&mut self, offer: &Draft) {
        for (transceiver, _) in &offer.added {
            self.transceivers.assign(*transceiver, None);
        }
        if let Some((key, _)) = offer.channel {
            self.channel_not_offered(key);
        }
        // What it told is still to be told.
        self.negotiation.changes += 1;
    }

    /// An offer that was not even set comes to nothing.
    fn drop_draft(&mut self) {
        let draft = self.negotiation.draft.take();
        if let Some((key, _)) = draft.and_then(|draft| draft.channel) {
            self.channel_not_offered(key);
        }
    }

    /// Takes a fresh `Rtc` if the present one has made an offer that came to nothing and there is nothing to
    /// lose. It has numbered that offer's channel, and would take the same number again for a bug.
    fn start_over(&mut self, now: Instant) {
        if !mem::take(&mut self.negotiation.drafted) || self.negotiation.current_remote.is_some() {
            return;
        }
        self.rtc = fresh_rtc(now);
        for candidate in self.local_candidates.clone() {
            self.rtc.add_local_candidate(candidate);
        }
        self.channels.not_offered_yet();
    }

    fn enter_signaling(&mut self, phase: Phase) {
        self.negotiation.phase = phase;
        let state = self.signaling_state();
        self.notify(Notice::Signaling(state));
    }

    fn out_of_order(&self, side: &str, sdp_type: SdpType) -> RtcError {
        let state = self.signaling_state();
        if state == SignalingState::Closed {
            return RtcError::closed();
        }
        RtcError::invalid_state(format!("a {side} {sdp_type} has no place in the state {state:?}"))
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
