//! `/api/webhooks/stt` and `/api/webhooks/voice_onset`: an STT service of the operator's, which hears the user by
//! itself, sends what it transcribes. The fields are those of June's `june-stt` (October and November 2025).
//!
//! Answered at once, and not when the answer was spoken: a service that waits too long sends the same again.

use std::hash::{DefaultHasher, Hash, Hasher};

use actix_web::{HttpRequest, web};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    clock,
    error::Code,
    http::{
        AppState,
        access::Right,
        error::ApiError,
        middleware::{
            auth::{self, Caller},
            body,
        },
    },
    ids::{RoomName, SessionId, UserId, UtteranceId},
    language::Language,
    session::{
        MAX_TYPED_BYTES,
        actor::SessionActor,
        messages::{Taken, Transcribed, VoiceOnset},
    },
    store::sessions::SessionRecord,
    telemetry,
};

/// The largest body, in bytes: some versions send the audio as well, which is not read.
const MAX_BODY: usize = 256 * 1024;

/// The longest name of an utterance, in bytes.
const MAX_NAME_BYTES: usize = 128;

/// One user's speech. Versions of the service have different names for the same.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Payload {
    event: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(alias = "roomName")]
    room_name: Option<String>,
    participant: Option<String>,
    session_id: Option<String>,
    text: Option<String>,
    transcript: Option<String>,
    final_text: Option<String>,
    content: Option<String>,
    #[serde(alias = "is_partial")]
    partial: bool,
    language: Option<String>,
    /// A number or a text.
    timestamp: Value,
    utterance_id: Option<String>,
    transcript_id: Option<String>,
    partial_sequence: Option<u64>,
}

/// What became of the message.
#[derive(Debug, Serialize)]
pub(in crate::http) struct Received {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    session_id: SessionId,
    #[serde(skip_serializing_if = "Option::is_none")]
    utterance_id: Option<UtteranceId>,
    timestamp: String,
}

impl Received {
    fn new(status: &'static str, reason: Option<&'static str>, record: &SessionRecord) -> Self {
        Self {
            status,
            reason,
            session_id: record.session_id,
            utterance_id: None,
            timestamp: clock::timestamp(clock::unix_ms()),
        }
    }
}

/// `POST /api/webhooks/stt`
pub(in crate::http) async fn transcript(
    app: web::Data<AppState>,
    request: HttpRequest,
    mut payload: web::Payload,
) -> Result<web::Json<Received>, ApiError> {
    counted(async {
        let service = authorize(&app, &request).await?;
        let payload: Payload = body::json(&request, &mut payload, MAX_BODY).await?;
        let record = session(&app, &service, &payload).await?;
        let transcribed = payload.transcribed()?;
        if transcribed.text.is_empty() {
            return Ok(Received::new("skipped", Some("empty_text"), &record));
        }
        let actor = actor(&app, &record)?;
        Ok(match actor.send(transcribed).await.ok().flatten() {
            Some(Taken::As(utterance)) => {
                Received { utterance_id: Some(utterance), ..Received::new("success", None, &record) }
            }
            Some(Taken::Duplicate) => Received::new("skipped", Some("duplicate"), &record),
            Some(Taken::Limited(refusal)) => return Err(refusal.into()),
            Some(Taken::Interrupted | Taken::Nothing) | None => return Err(ApiError::no_such_session()),
        })
    })
    .await
}

/// `POST /api/webhooks/voice_onset`
pub(in crate::http) async fn voice_onset(
    app: web::Data<AppState>,
    request: HttpRequest,
    mut payload: web::Payload,
) -> Result<web::Json<Received>, ApiError> {
    counted(async {
        let service = authorize(&app, &request).await?;
        let payload: Payload = body::json(&request, &mut payload, MAX_BODY).await?;
        let record = session(&app, &service, &payload).await?;
        match actor(&app, &record)?.send(VoiceOnset).await.ok().flatten() {
            Some(Taken::Interrupted) => Ok(Received::new("interrupted", None, &record)),
            Some(_) => Ok(Received::new("skipped", Some("nothing_to_interrupt"), &record)),
            None => Err(ApiError::no_such_session()),
        }
    })
    .await
}

async fn counted(
    received: impl Future<Output = Result<Received, ApiError>>,
) -> Result<web::Json<Received>, ApiError> {
    let received = received.await;
    let outcome = match &received {
        Ok(Received { reason: Some(reason), .. }) => reason,
        Ok(Received { status, .. }) => status,
        Err(error) => error.code.as_str(),
    };
    metrics::counter!(telemetry::STT_WEBHOOKS, "outcome" => outcome.to_owned()).increment(1);
    received.map(web::Json)
}

/// Who sends transcripts.
enum Service {
    /// The operator's STT service, by its token: for all users.
    Stt,
    /// A backend, for the users it acts for.
    Caller(Caller),
}

/// By `STT_SERVICE_TOKEN`, or as a backend. Before the body is read.
async fn authorize(app: &AppState, request: &HttpRequest) -> Result<Service, ApiError> {
    if let (Some(secret), Some(token)) = (&app.stt_service_token, auth::token(request))
        && subtle::ConstantTimeEq::ct_eq(secret.expose().as_bytes(), token.as_bytes()).into()
    {
        return Ok(Service::Stt);
    }
    let caller = auth::authenticate(request).await?;
    Right::Transcripts.check(&caller)?;
    Ok(Service::Caller(caller))
}

/// The session that was heard: the named one, that of the room, or the participant's newest.
async fn session(app: &AppState, service: &Service, payload: &Payload) -> Result<SessionRecord, ApiError> {
    let registry = &app.registry;
    let named = payload.session_id.as_deref();
    let participant = payload.participant.as_deref().map(parse_user).transpose()?;
    let id = named.and_then(|named| named.parse::<SessionId>().ok());
    let record = match (id, &payload.room_name) {
        (Some(id), _) => Some(registry.get(id).await?),
        (None, Some(room)) => {
            let room = RoomName::parse(room).map_err(|error| ApiError::invalid("room_name", error))?;
            registry.of_room(&room).await?
        }
        (None, None) => None,
    };
    let record = match record {
        Some(record) => Some(record),
        None => {
            // June's services call a participant's identity a session, and share one room.
            let user = match (&participant, named) {
                (Some(user), _) => user.clone(),
                (None, Some(named)) => parse_user(named)?,
                (None, None) => return Err(ApiError::invalid("participant", "is missing, or session_id")),
            };
            registry.newest_of_user(&user).await?
        }
    };
    let record = record.filter(|record| record.ended.is_none()).ok_or_else(ApiError::no_such_session)?;
    if let Service::Caller(caller) = service {
        caller.may_use(&record)?;
    }
    if participant.is_some_and(|participant| participant != record.user_id) {
        let message = "the session is another participant's: its user alone is heard";
        return Err(ApiError::new(Code::Forbidden, message));
    }
    Ok(record)
}

fn parse_user(user: &str) -> Result<UserId, ApiError> {
    UserId::parse(user).map_err(|error| ApiError::invalid("participant", error))
}

/// What is heard in a session that nobody is in is too late.
fn actor(app: &AppState, record: &SessionRecord) -> Result<actix::Addr<SessionActor>, ApiError> {
    app.registry.live(record.session_id).ok_or_else(ApiError::no_such_session)
}

impl Payload {
    fn transcribed(self) -> Result<Transcribed, ApiError> {
        let is_partial = |name: &Option<String>| name.as_deref() == Some("partial");
        let is_final = !(self.partial || is_partial(&self.event) || is_partial(&self.kind));
        let text = [self.text, self.transcript, self.final_text, self.content].into_iter().flatten().next();
        let text = text.unwrap_or_default().trim().to_owned();
        if text.len() > MAX_TYPED_BYTES {
            return Err(ApiError::invalid("text", format!("must have at most {MAX_TYPED_BYTES} bytes")));
        }
        let utterance = self.utterance_id.or(self.transcript_id);
        if utterance.as_ref().is_some_and(|name| name.is_empty() || name.len() > MAX_NAME_BYTES) {
            return Err(ApiError::invalid("utterance_id", format!("must have 1 to {MAX_NAME_BYTES} bytes")));
        }
        let language = self.language.as_deref().map(Language::parse).transpose();
        let mut digest = DefaultHasher::new();
        (&text, self.timestamp.to_string()).hash(&mut digest);
        Ok(Transcribed {
            utterance,
            digest: digest.finish(),
            sequence: self.partial_sequence,
            text,
            is_final,
            language: language.map_err(|error| ApiError::invalid("language", error))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn transcribed(payload: Value) -> Result<Transcribed, ApiError> {
        serde_json::from_value::<Payload>(payload).unwrap().transcribed()
    }

    #[test]
    fn every_version_of_the_service_is_understood() {
        for (payload, is_final) in [
            (json!({"event": "transcript", "text": "Hello.", "confidence": 0.9, "segments": []}), true),
            (json!({"text": " Hello. ", "partial": false, "audio_data": "AAAA"}), true),
            (json!({"text": "Hello.", "partial": true, "partial_sequence": 1}), false),
            (json!({"transcript": "Hello.", "is_partial": true}), false),
            (json!({"final_text": "Hello.", "type": "final"}), true),
            (json!({"content": "Hello.", "type": "partial"}), false),
            (json!({"text": "Hello.", "event": "partial"}), false),
        ] {
            let transcribed = transcribed(payload.clone()).unwrap();
            assert_eq!((transcribed.text.as_str(), transcribed.is_final), ("Hello.", is_final), "{payload}");
        }
    }

    #[test]
    fn the_same_text_at_another_time_is_another_transcript() {
        let at =
            |timestamp: Value| transcribed(json!({"text": "Yes.", "timestamp": timestamp})).unwrap().digest;

        assert_eq!(at(json!("2025-10-31T10:00:00")), at(json!("2025-10-31T10:00:00")));
        assert_ne!(at(json!("2025-10-31T10:00:00")), at(json!("2025-10-31T10:00:01")));
        assert_ne!(at(json!(1.5)), at(json!(2.5)));
    }

    #[test]
    fn what_is_too_long_or_no_language_is_refused() {
        for (payload, field) in [
            (json!({"text": "x".repeat(4_001)}), "text"),
            (json!({"text": "x", "utterance_id": "x".repeat(129)}), "utterance_id"),
            (json!({"text": "x", "language": "klingon!"}), "language"),
        ] {
            assert!(transcribed(payload).unwrap_err().to_string().contains(field));
        }
    }
}
