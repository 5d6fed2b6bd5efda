//! What operators see and do.

use june_edge::protocol::{ToClient, edge_v1::to_client::EndReason};
use livekit_protocol as proto;
use serde_json::{Value, json};

use crate::{
    livekit::Livekit,
    support::{BACKEND, TestGateway, answer},
};

fn room(name: &str, participants: u32) -> proto::Room {
    proto::Room {
        name: name.into(),
        sid: format!("RM_{name}"),
        num_participants: participants,
        creation_time_ms: 1_700_000_000_000,
        ..Default::default()
    }
}

/// Reads a list to its end, page by page.
async fn all_pages(gateway: &TestGateway, path: &str, list: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let (status, page) = gateway.get(&format!("{path}?limit=2{cursor}")).await;
        assert_eq!(status, 200, "{page}");
        let rows = page[list].as_array().unwrap();
        assert!(rows.len() <= 2);
        all.extend(rows.iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

#[actix_web::test]
async fn sessions_are_listed_in_pages_newest_first() {
    let gateway = TestGateway::start().await;
    let mut made = Vec::new();
    for n in 0..5 {
        made.push(gateway.session(&format!("user-{n}")).await.session_id.to_string());
    }
    let glasses = gateway.glasses("attached").await;
    made.push(glasses.session.session_id.to_string());
    gateway.delete(&format!("/api/sessions/{}", made[0])).await;
    made.reverse();

    let listed = all_pages(&gateway, "/api/admin/sessions", "sessions").await;

    let ids: Vec<&str> = listed.iter().map(|row| row["session_id"].as_str().unwrap()).collect();
    assert_eq!(ids, made);
    assert_eq!((&listed[0]["at_work"], &listed[0]["user_id"]), (&json!(true), &json!("attached")));
    assert_eq!((&listed[1]["at_work"], &listed[1]["status"]), (&json!(false), &json!("active")));
    assert_eq!((&listed[5]["status"], &listed[5]["end_reason"]), (&json!("ended"), &json!("logout")));
}

#[actix_web::test]
async fn rooms_are_listed_in_pages_with_whose_they_are() {
    let livekit = Livekit::start().await;
    let gateway = TestGateway::with(&[("LIVEKIT_URL", &livekit.url)]).await;
    let session = gateway.session("ann").await;
    let names = ["b", "c", session.room_name.as_str(), "a", "d"];
    livekit.set_rooms(names.iter().map(|name| room(name, 3)).collect());

    let listed = all_pages(&gateway, "/api/admin/rooms", "rooms").await;

    let listed_names: Vec<&str> = listed.iter().map(|row| row["room_name"].as_str().unwrap()).collect();
    assert_eq!(listed_names, ["a", "b", "c", "d", session.room_name.as_str()]);
    assert_eq!((&listed[0]["participants"], &listed[0]["session_id"]), (&json!(3), &Value::Null));
    assert_eq!(listed[4]["session_id"], session.session_id.to_string());
    assert_eq!(listed[4]["user_id"], "ann");
}

#[actix_web::test]
async fn the_statistics_of_a_room_count_everybody_and_their_tracks() {
    let livekit = Livekit::start().await;
    let gateway = TestGateway::with(&[("LIVEKIT_URL", &livekit.url)]).await;
    livekit.set_rooms(vec![room("a", 2), room("b", 0)]);
    livekit.set_participants(vec![
        proto::ParticipantInfo {
            identity: "ann".into(),
            tracks: vec![proto::TrackInfo {
                source: proto::TrackSource::Microphone.into(),
                muted: true,
                ..Default::default()
            }],
            ..Default::default()
        },
        proto::ParticipantInfo {
            identity: "cloud-agent:ann".into(),
            kind: proto::participant_info::Kind::Agent.into(),
            permission: Some(proto::ParticipantPermission { hidden: true, ..Default::default() }),
            ..Default::default()
        },
    ]);

    let (status, stats) = gateway.get("/api/admin/rooms/a/stats").await;

    assert_eq!((status, &stats["livekit_room_sid"]), (200, &json!("RM_a")), "{stats}");
    assert_eq!((&stats["tracks"], &stats["muted_tracks"]), (&json!({"microphone": 1}), &json!(1)));
    assert_eq!(stats["everybody"][0]["state"], "joining");
    assert_eq!(stats["everybody"][1]["kind"], "agent");
    assert_eq!(stats["everybody"][1]["hidden"], true);
    let (status, problem) = gateway.get("/api/admin/rooms/nobody/stats").await;
    assert_eq!((status, problem["code"].as_str()), (404, Some("NOT_FOUND")));
}

#[actix_web::test]
async fn a_session_that_is_disconnected_is_over_for_everybody() {
    let mut livekit = Livekit::start().await;
    let gateway = TestGateway::with(&[("LIVEKIT_URL", &livekit.url)]).await;
    let mut glasses = gateway.glasses("ann").await;
    let id = glasses.session.session_id;
    let person = |identity: &str| proto::ParticipantInfo { identity: identity.into(), ..Default::default() };
    livekit.set_participants(vec![person("ann"), person("guest:bob-abc123"), person("cloud-agent:ann")]);

    let (status, answer) = gateway.post(&format!("/api/admin/sessions/{id}/disconnect"), &json!({})).await;

    assert_eq!((status, answer["was_at_work"].as_bool()), (200, Some(true)), "{answer}");
    assert_eq!(answer["removed"], json!(["ann", "guest:bob-abc123"]));
    let reason = glasses
        .wait_for(|message| match message {
            ToClient::SessionEnd { reason } => Some(*reason),
            _ => None,
        })
        .await;
    assert_eq!(reason, EndReason::Disconnected);
    assert_eq!(glasses.closed().await, (1000, "an operator disconnected the session".into()));
    livekit.call("RoomService/RemoveParticipant").await;
    assert_eq!(gateway.get(&format!("/api/sessions/{id}")).await.0, 404);
    let again = june_client::Channel::open(
        &glasses.session.control_url,
        &glasses.session.control_token,
        Default::default(),
    );
    assert!(again.await.is_err(), "its token opens nothing any more");
    let (_, listed) = gateway.get("/api/admin/sessions").await;
    assert_eq!(listed["sessions"][0]["end_reason"], "disconnected");
}

#[actix_web::test]
async fn a_session_is_disconnected_with_livekit_away_too() {
    let gateway = TestGateway::start().await;
    let mut glasses = gateway.glasses("ann").await;
    let path = format!("/api/admin/sessions/{}/disconnect", glasses.session.session_id);

    let (status, answer) = gateway.post(&path, &json!({})).await;

    assert_eq!((status, &answer["removed"]), (200, &Value::Null));
    assert_eq!(glasses.closed().await.0, 1000);
}

#[actix_web::test]
async fn a_room_is_recorded_and_the_recording_is_stopped_and_listed() {
    let mut livekit = Livekit::start().await;
    let gateway = TestGateway::with(&[("LIVEKIT_URL", &livekit.url), ("EGRESS_FILE_PREFIX", "june/")]).await;

    let (status, started) = gateway.post("/api/admin/rooms/room-a/recordings", &json!({})).await;
    let asked: proto::RoomCompositeEgressRequest =
        livekit.call("Egress/StartRoomCompositeEgress").await.read();
    let (_, listed) = gateway.get("/api/admin/recordings?room=room-a").await;
    let (_, elsewhere) = gateway.get("/api/admin/recordings?room=room-b").await;
    let (_, stopped) = gateway.delete("/api/admin/recordings/EG_1").await;
    let (again, over) = gateway.delete("/api/admin/recordings/EG_1").await;
    let (unknown, nothing) = gateway.delete("/api/admin/recordings/EG_9").await;

    assert_eq!(
        (status, &started["egress_id"], &started["status"]),
        (201, &json!("EG_1"), &json!("starting"))
    );
    assert_eq!(started["started_at"], "2023-11-14T22:13:20.000Z");
    assert!(asked.audio_only);
    assert_eq!(asked.file_outputs[0].file_type(), proto::EncodedFileType::Ogg);
    let path = asked.file_outputs[0].filepath.as_str();
    assert!(path.starts_with("june/room-a-") && path.ends_with(".ogg"), "{path}");
    assert_eq!(started["files"][0]["path"], path);
    assert_eq!(listed["recordings"][0], started);
    assert_eq!(elsewhere["recordings"], json!([]));
    assert_eq!(stopped["status"], "ending");
    assert_eq!((again, over["code"].as_str()), (409, Some("SESSION_ERROR")));
    assert_eq!((unknown, nothing["code"].as_str()), (404, Some("NOT_FOUND")));

    gateway.post("/api/admin/rooms/room-a/recordings", &json!({"audio_only": false})).await;
    let with_pictures: proto::RoomCompositeEgressRequest =
        livekit.call("Egress/StartRoomCompositeEgress").await.read();
    assert_eq!(with_pictures.file_outputs[0].file_type(), proto::EncodedFileType::Mp4);
}

#[actix_web::test]
async fn livekits_refusals_to_record_are_told_apart() {
    let livekit = Livekit::start().await;
    let gateway = TestGateway::with(&[("LIVEKIT_URL", &livekit.url)]).await;
    for (status, code, expected) in [
        (500, "internal", (503, "RECORDING_UNAVAILABLE")),
        (503, "unavailable", (503, "RECORDING_UNAVAILABLE")),
        (429, "resource_exhausted", (503, "RECORDING_UNAVAILABLE")),
        (404, "not_found", (404, "NOT_FOUND")),
        (400, "invalid_argument", (400, "INVALID_REQUEST")),
        (401, "unauthenticated", (502, "MEDIA_UNAVAILABLE")),
    ] {
        livekit.refuse(status, code, "because");
        let (status, problem) = gateway.post("/api/admin/rooms/room-a/recordings", &json!({})).await;
        assert_eq!((status, problem["code"].as_str().unwrap()), expected, "{code}");
    }
}

#[actix_web::test]
async fn operators_need_an_api_key() {
    let gateway = TestGateway::with(&[("API_KEYS", BACKEND), ("HOST", "127.0.0.1")]).await;
    let backend = june_client::Gateway::new(&gateway.url, crate::support::key(BACKEND));
    let ann = backend.create_session(&crate::support::user_id("ann")).await.unwrap();
    let url = format!("{}/api/admin/sessions", gateway.url);

    assert_eq!(answer(gateway.http.get(&url)).await.0, 401);
    let (status, problem) = answer(gateway.http.get(&url).bearer_auth(&ann.control_token)).await;
    assert_eq!((status, problem["code"].as_str()), (403, Some("FORBIDDEN")));
    assert_eq!(answer(gateway.http.get(&url).header("X-API-Key", BACKEND)).await.0, 200);
}
