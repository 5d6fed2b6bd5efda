//! A fake of LiveKit's server API (Twirp over HTTP, protobuf bodies, errors as JSON) with an egress service: the
//! real one needs a browser and cannot run beside the tests. What needs no egress is tested with the real server,
//! in tests/e2e.

use std::sync::{Arc, Mutex};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use livekit_api::access_token::{Claims, TokenVerifier};
use livekit_protocol as proto;
use prost::Message;
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::{LIVEKIT_SECRET, soon};

/// Whom the server fails to remove from a room.
pub const STUCK: &str = "stuck";

/// A request.
#[derive(Debug)]
pub struct Call {
    /// For example `Egress/StopEgress`; the path for a client that joins.
    pub method: String,
    /// The token that came with it.
    pub token: String,
    pub body: web::Bytes,
}

impl Call {
    /// The claims of the token, which must be one of this LiveKit's.
    pub fn claims(&self) -> Claims {
        TokenVerifier::with_api_key("devkey", LIVEKIT_SECRET).verify(&self.token).unwrap()
    }

    pub fn read<M: Message + Default>(&self) -> M {
        M::decode(self.body.clone()).unwrap()
    }
}

/// The server.
pub struct Livekit {
    pub url: String,
    calls: mpsc::UnboundedReceiver<Call>,
    server: actix_web::dev::ServerHandle,
    state: Arc<State>,
}

struct State {
    calls: mpsc::UnboundedSender<Call>,
    recordings: Mutex<Vec<proto::EgressInfo>>,
    rooms: Mutex<Vec<proto::Room>>,
    participants: Mutex<Vec<proto::ParticipantInfo>>,
    /// The error that every call gets: status, code, message.
    refusal: Mutex<Option<(u16, &'static str, &'static str)>>,
}

impl Livekit {
    pub async fn start() -> Self {
        let (sender, calls) = mpsc::unbounded_channel();
        let state = Arc::new(State {
            calls: sender,
            recordings: Mutex::default(),
            rooms: Mutex::default(),
            participants: Mutex::default(),
            refusal: Mutex::default(),
        });
        let shared = state.clone();
        let server = HttpServer::new(move || {
            App::new()
                .app_data(web::Data::from(shared.clone()))
                .route("/twirp/livekit.{service}/{method}", web::post().to(twirp))
                .default_service(web::to(join))
        })
        .workers(1)
        .disable_signals()
        .bind("127.0.0.1:0")
        .unwrap();
        let url = format!("ws://{}", server.addrs()[0]);
        let server = server.run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Self { url, calls, server: handle, state }
    }

    /// The next call of this method; those before it are dropped.
    pub async fn call(&mut self, method: &str) -> Call {
        soon(async {
            loop {
                let call = self.calls.recv().await.unwrap();
                if call.method == method {
                    return call;
                }
            }
        })
        .await
    }

    /// The next attempt of this participant to join a room.
    pub async fn join(&mut self, identity: &str) -> Call {
        soon(async {
            loop {
                let call = self.calls.recv().await.unwrap();
                if call.method.starts_with("/rtc") && call.claims().sub == identity {
                    return call;
                }
            }
        })
        .await
    }

    /// Whether it got no request, but for the gateway's probe.
    pub fn is_untouched(&mut self) -> bool {
        self.calls.try_recv().is_err()
    }

    pub fn refuse(&self, status: u16, code: &'static str, message: &'static str) {
        *self.state.refusal.lock().unwrap() = Some((status, code, message));
    }

    pub fn accept(&self) {
        *self.state.refusal.lock().unwrap() = None;
    }

    pub fn set_rooms(&self, rooms: Vec<proto::Room>) {
        *self.state.rooms.lock().unwrap() = rooms;
    }

    pub fn set_participants(&self, participants: Vec<proto::ParticipantInfo>) {
        *self.state.participants.lock().unwrap() = participants;
    }
}

impl Drop for Livekit {
    fn drop(&mut self) {
        drop(self.server.stop(false));
    }
}

fn token(request: &HttpRequest) -> String {
    let header = request.headers().get("authorization").and_then(|header| header.to_str().ok());
    header.unwrap_or_default().trim_start_matches("Bearer ").to_owned()
}

/// A client that joins: it is recorded, and gets 404.
async fn join(state: web::Data<State>, request: HttpRequest) -> HttpResponse {
    let call =
        Call { method: request.path().to_owned(), token: token(&request), body: web::Bytes::default() };
    state.calls.send(call).unwrap();
    HttpResponse::NotFound().finish()
}

async fn twirp(
    state: web::Data<State>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
    body: web::Bytes,
) -> HttpResponse {
    assert_eq!(request.headers().get("content-type").unwrap(), "application/protobuf");
    let call = Call { method: format!("{}/{}", path.0, path.1), token: token(&request), body: body.clone() };
    let answer = match *state.refusal.lock().unwrap() {
        Some((status, code, message)) => refusal(status, code, message),
        None => state.answer(&call),
    };
    if !is_probe(&call) {
        // Fails where the test has dropped the receiver.
        let _ = state.calls.send(call);
    }
    answer
}

/// The gateway's question whether LiveKit is there, which no test asked for.
fn is_probe(call: &Call) -> bool {
    call.method == "RoomService/ListRooms"
        && call.read::<proto::ListRoomsRequest>().names == ["june-edge-probe"]
}

fn refusal(status: u16, code: &str, message: &str) -> HttpResponse {
    let status = actix_web::http::StatusCode::from_u16(status).unwrap();
    HttpResponse::build(status).json(json!({"code": code, "msg": message}))
}

fn protobuf(message: &impl Message) -> HttpResponse {
    HttpResponse::Ok().content_type("application/protobuf").body(message.encode_to_vec())
}

impl State {
    fn answer(&self, call: &Call) -> HttpResponse {
        match call.method.as_str() {
            "Egress/StartRoomCompositeEgress" => {
                assert!(call.claims().video.room_record);
                let request: proto::RoomCompositeEgressRequest = call.read();
                let mut recordings = self.recordings.lock().unwrap();
                let info = proto::EgressInfo {
                    egress_id: format!("EG_{}", recordings.len() + 1),
                    room_name: request.room_name,
                    status: proto::EgressStatus::EgressStarting.into(),
                    started_at: 1_700_000_000_000_000_000,
                    file_results: vec![proto::FileInfo {
                        filename: request.file_outputs[0].filepath.clone(),
                        ..Default::default()
                    }],
                    ..Default::default()
                };
                recordings.push(info.clone());
                protobuf(&info)
            }
            "Egress/StopEgress" => {
                let request: proto::StopEgressRequest = call.read();
                let mut recordings = self.recordings.lock().unwrap();
                let Some(info) = recordings.iter_mut().find(|info| info.egress_id == request.egress_id)
                else {
                    return refusal(404, "not_found", "egress does not exist");
                };
                if info.status() == proto::EgressStatus::EgressEnding {
                    return refusal(
                        412,
                        "failed_precondition",
                        "egress with status EGRESS_ENDING cannot be stopped",
                    );
                }
                info.set_status(proto::EgressStatus::EgressEnding);
                protobuf(info)
            }
            "Egress/ListEgress" => {
                let request: proto::ListEgressRequest = call.read();
                let recordings = self.recordings.lock().unwrap();
                let items = recordings
                    .iter()
                    .filter(|info| request.room_name.is_empty() || info.room_name == request.room_name);
                protobuf(&proto::ListEgressResponse { items: items.cloned().collect(), ..Default::default() })
            }
            "RoomService/ListRooms" => {
                assert!(call.claims().video.room_list);
                let names = call.read::<proto::ListRoomsRequest>().names;
                let rooms = self.rooms.lock().unwrap();
                let rooms = rooms.iter().filter(|room| names.is_empty() || names.contains(&room.name));
                protobuf(&proto::ListRoomsResponse { rooms: rooms.cloned().collect() })
            }
            "RoomService/ListParticipants" => {
                let participants = self.participants.lock().unwrap().clone();
                protobuf(&proto::ListParticipantsResponse { participants })
            }
            "RoomService/RemoveParticipant" => {
                assert!(call.claims().video.room_admin);
                let request: proto::RoomParticipantIdentity = call.read();
                if request.identity == STUCK {
                    return refusal(500, "internal", "because");
                }
                let mut participants = self.participants.lock().unwrap();
                let before = participants.len();
                participants.retain(|one| one.identity != request.identity);
                if participants.len() == before {
                    return refusal(404, "not_found", "participant does not exist");
                }
                protobuf(&proto::RemoveParticipantResponse {})
            }
            "RoomService/DeleteRoom" => protobuf(&proto::DeleteRoomResponse {}),
            method => panic!("{method} is not known here"),
        }
    }
}
