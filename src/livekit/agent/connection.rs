//! Keeps our participant in a room: joins it, and joins again when the connection is lost.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use livekit::{
    DisconnectReason, Room, RoomEvent, RoomOptions,
    prelude::{Participant, RemoteParticipant},
};
use rand::Rng;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::{
    ids::{RoomName, UserId},
    livekit::{
        agent::{
            AgentEvent, AgentState, microphone_subscriber::MicrophoneSubscriber,
            participant_microphones::ParticipantMicrophones, speech_track::SpeechTrack,
        },
        token::TokenIssuer,
    },
    outcomes::Outcome,
    protocol::Participants,
    room::roster,
    telemetry,
};

/// The longest wait between two attempts to join.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// The room that an agent joins, and how.
pub(super) struct RoomTarget {
    /// LiveKit's address.
    pub url: String,
    pub issuer: TokenIssuer,
    /// The participant whose microphone it receives.
    pub user: UserId,
    pub room: RoomName,
    /// The shortest wait between two attempts.
    pub backoff: Duration,
    /// Where it is recorded whether it could join.
    pub outcome: Outcome,
    /// The track of responses, where they are published in the room.
    pub speech_track: Option<SpeechTrack>,
    /// Ends the wait before the next attempt.
    pub retry_now: Arc<Notify>,
    /// Whether to subscribe to the microphone's track.
    pub subscribes: watch::Receiver<bool>,
    /// Whose microphones to listen to beside the user's.
    pub listens_to: watch::Receiver<Participants>,
    pub max_participants: usize,
}

/// How an attempt to be in the room ended.
enum AttemptEnd {
    /// The session dropped the agent.
    Dismissed,
    /// Another participant joined with our identity.
    Displaced,
    /// The connection broke, or could not be made.
    Lost(String),
}

/// Keeps an agent in its room until it is dismissed or displaced. Each attempt has a new token.
pub(super) async fn keep(
    target: RoomTarget,
    events: mpsc::Sender<AgentEvent>,
    mut dismissed: oneshot::Receiver<()>,
) {
    let mut failures = 0;
    loop {
        let mut joined = false;
        match attempt(&target, &events, &mut dismissed, &mut joined).await {
            AttemptEnd::Dismissed => return,
            AttemptEnd::Displaced => {
                tracing::warn!(room.name = %target.room, "another participant joined with the agent's identity; the agent does not join again");
                let _ = events.send(AgentEvent::State(AgentState::Displaced)).await;
                return;
            }
            AttemptEnd::Lost(cause) => {
                failures = if joined { 0 } else { failures + 1 };
                tracing::warn!(room.name = %target.room, cause, failures, "the agent is not in its room; it joins again");
                metrics::counter!(telemetry::AGENT_LOST).increment(1);
                if events.send(AgentEvent::State(AgentState::Unreachable)).await.is_err() {
                    return;
                }
            }
        }
        let wait = backoff(target.backoff, failures, rand::rng().random());
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = target.retry_now.notified() => {}
            _ = &mut dismissed => return,
        }
    }
}

/// Doubles with each failure; `chance` (0 to 1) adds up to a half, so that a thousand agents do not join
/// again at the same moment. Never under the shortest wait, never over [`MAX_BACKOFF`].
fn backoff(shortest: Duration, failures: u32, chance: f64) -> Duration {
    let longest = MAX_BACKOFF.div_f64(1.5).max(shortest);
    let doubled = shortest.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest);
    doubled.mul_f64(1.0 + chance / 2.0)
}

/// Joins the room, and stays until the connection ends. Sets `joined` once it is in the room.
async fn attempt(
    target: &RoomTarget,
    events: &mpsc::Sender<AgentEvent>,
    dismissed: &mut oneshot::Receiver<()>,
    joined: &mut bool,
) -> AttemptEnd {
    let token = target.issuer.agent(&target.user, &target.room);
    let mut options = RoomOptions::default();
    options.auto_subscribe = false;
    // The loop above joins again, with a new token.
    options.join_retries = 0;
    let connected = tokio::select! {
        connected = Room::connect(&target.url, &token.jwt, options) => connected,
        _ = &mut *dismissed => return AttemptEnd::Dismissed,
    };
    let (room, mut room_events) = match connected {
        Ok(connected) => connected,
        Err(error) => {
            let cause = one_line(&error);
            target.outcome.failed(format!("the agent cannot join: {cause}"));
            return AttemptEnd::Lost(cause);
        }
    };
    target.outcome.succeeded();
    *joined = true;
    if let Some(speech_track) = &target.speech_track
        && let Err(error) = speech_track.open(&room).await
    {
        return AttemptEnd::Lost(one_line(&error));
    }
    tracing::info!(room.name = %target.room, "agent joined");
    let mut subscribes = target.subscribes.clone();
    let subscribed = *subscribes.borrow_and_update();
    let mut subscriber = MicrophoneSubscriber::new(&target.user, events, subscribed);
    let mut listens_to = target.listens_to.clone();
    let participants = listens_to.borrow_and_update().clone();
    let mut others = ParticipantMicrophones::new(&target.user, events, participants, target.max_participants);
    if events.send(AgentEvent::State(AgentState::Joined)).await.is_err() {
        return AttemptEnd::Dismissed;
    }
    let end = loop {
        let packets_due = subscriber.packets_due();
        tokio::select! {
            event = room_events.recv() => match event {
                Some(RoomEvent::Disconnected { reason: DisconnectReason::DuplicateIdentity }) => break AttemptEnd::Displaced,
                Some(RoomEvent::Disconnected { reason }) => break AttemptEnd::Lost(format!("disconnected: {reason:?}")),
                Some(event) => {
                    if let Some(observation) = observation(&event)
                        && events.try_send(AgentEvent::Observed(observation)).is_err()
                    {
                        tracing::trace!("an observation of the room is lost; webhooks and lists report the same");
                    }
                    others.room_event(&event, &room).await;
                    subscriber.room_event(event).await;
                }
                None => break AttemptEnd::Lost("the room's events ended".into()),
            },
            frame = subscriber.frame() => subscriber.forward_frame(frame).await,
            frame = others.frame() => others.forward_frame(frame),
            () = until(packets_due) => subscriber.forward_packets(),
            Ok(()) = subscribes.changed() => {
                let subscribed = *subscribes.borrow_and_update();
                subscriber.set_subscribed(subscribed);
            }
            Ok(()) = listens_to.changed() => {
                let participants = listens_to.borrow_and_update().clone();
                others.listen_to(participants, &room).await;
            }
            _ = &mut *dismissed => break AttemptEnd::Dismissed,
        }
    };
    others.close().await;
    subscriber.close().await;
    if let Err(error) = room.close().await {
        tracing::debug!(%error, "the room had ended before the agent left it");
    }
    end
}

/// Waits until then; for ever where there is no time.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// What an event reports about who is in the room.
#[expect(clippy::wildcard_enum_match_arm, reason = "a room has many events that are not about who is there")]
fn observation(event: &RoomEvent) -> Option<roster::Event> {
    let observed = |participant: &RemoteParticipant, there| {
        let (sid, identity) = (participant.sid().to_string(), participant.identity().to_string());
        Some(roster::Event::ObservedByAgent { sid, identity, there })
    };
    match event {
        RoomEvent::ParticipantActive(participant) => observed(participant, true),
        RoomEvent::ParticipantDisconnected(participant) => observed(participant, false),
        RoomEvent::TrackMuted { participant: Participant::Remote(participant), publication } => {
            muted(participant, publication.sid().to_string(), true)
        }
        RoomEvent::TrackUnmuted { participant: Participant::Remote(participant), publication } => {
            muted(participant, publication.sid().to_string(), false)
        }
        _ => None,
    }
}

fn muted(participant: &RemoteParticipant, track_sid: String, muted: bool) -> Option<roster::Event> {
    Some(roster::Event::Muted { sid: participant.sid().to_string(), track_sid, muted })
}

/// The error in one line, since LiveKit's errors are nested; and without the token, which LiveKit repeats where it
/// refuses it.
fn one_line(error: &impl fmt::Display) -> String {
    let text = error.to_string();
    let words = text.split_whitespace().map(|word| if word.starts_with("eyJ") { "<token>" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_before_the_next_attempt_grows_and_is_spread() {
        let shortest = Duration::from_secs(2);
        assert_eq!(backoff(shortest, 0, 0.0), shortest);
        assert_eq!(backoff(shortest, 1, 0.0), shortest);
        assert_eq!(backoff(shortest, 1, 1.0), Duration::from_secs(3));
        assert_eq!(backoff(shortest, 3, 0.0), Duration::from_secs(8));
        assert_eq!(backoff(shortest, 99, 0.0), Duration::from_secs(20));
        assert_eq!(backoff(shortest, 99, 1.0), MAX_BACKOFF);
    }

    #[test]
    fn an_error_is_logged_in_one_line_and_without_the_token() {
        let error =
            "signal failure: 401 Unauthorized\n  invalid token: eyJ0eXAi.eyJpc3Mi.jYYe, error: cryptographic";
        assert_eq!(
            one_line(&error),
            "signal failure: 401 Unauthorized invalid token: <token> error: cryptographic"
        );
    }
}
