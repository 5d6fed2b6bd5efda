//! Somebody is removed from a room, and kept out.

use june_client::{ClientError, SessionInfo};
use june_edge::protocol::{ToClient, edge_v1::from_client::ConnectionInit};
use livekit_protocol as proto;
use serde_json::{Value, json};

use crate::{
    livekit::Livekit,
    rooms::updates::{event, livekit_token_of as livekit_token, webhook},
    support::{Glasses, TestGateway, answer, soon},
};

fn present(identity: &str) -> proto::ParticipantInfo {
    proto::ParticipantInfo { identity: identity.into(), sid: format!("PA_{identity}"), ..Default::default() }
}

async fn remove(gateway: &TestGateway, session: &SessionInfo, identity: &str) -> (u16, Value) {
    gateway.delete(&format!("/api/sessions/{}/participants/{identity}", session.session_id)).await
}

async fn guest(gateway: &TestGateway, session: &SessionInfo, name: &str) -> (u16, Value) {
    let body = json!({"session_id": session.session_id, "guest_name": name});
    gateway.post(&format!("/api/sessions/{}/guest-token", session.session_id), &body).await
}

#[actix_web::test]
async fn somebody_who_is_removed_is_told_apart_from_somebody_who_was_not_there() {
    let mut livekit = Livekit::start().await;
    let gateway = TestGateway::with(&[("LIVEKIT_URL", &livekit.url)]).await;
    let session = gateway.session("ann").await;
    livekit.set_participants(vec![present("bob b/é")]);

    let (status, first) = remove(&gateway, &session, "bob%20b%2F%C3%A9").await;
    let call = livekit.call("RoomService/RemoveParticipant").await;
    let (_, second) = remove(&gateway, &session, "bob%20b%2F%C3%A9").await;

    assert_eq!((status, first["removed"].as_bool()), (200, Some(true)), "{first}");
    assert_eq!(first["identity"], "bob b/é");
    let asked: proto::RoomParticipantIdentity = call.read();
    assert_eq!((asked.room.as_str(), asked.identity.as_str()), (session.room_name.as_str(), "bob b/é"));
    assert_eq!(second["removed"], false);
    let denied_until = second["denied_until"].as_u64().unwrap();
    assert!(denied_until > june_edge::clock::unix_s() + 600, "longer than any token lives");
}

#[actix_web::test]
async fn somebody_who_is_kept_out_and_joins_is_removed_again() {
    let mut livekit = Livekit::start().await;
    let gateway = TestGateway::with(&[("LIVEKIT_URL", &livekit.url)]).await;
    let session = gateway.session("ann").await;
    remove(&gateway, &session, "bob").await;
    livekit.call("RoomService/RemoveParticipant").await;

    for (id, kind) in [("EV_1", "participant_joined"), ("EV_2", "track_published")] {
        livekit.set_participants(vec![present("bob")]);
        let mut back = event(kind, id, session.room_name.as_str(), "PA_2");
        back["track"] = json!({"sid": "TR_1"});
        assert_eq!(webhook(&gateway, "/api/livekit/webhook", &back).await, 200);
        let again: proto::RoomParticipantIdentity =
            livekit.call("RoomService/RemoveParticipant").await.read();
        assert_eq!(again.identity, "bob", "{kind}");
    }

    let other = gateway.session("ann").await;
    let elsewhere = event("participant_joined", "EV_3", other.room_name.as_str(), "PA_3");
    webhook(&gateway, "/api/livekit/webhook", &elsewhere).await;
    gateway.get(&format!("/api/sessions/{}/participants", other.session_id)).await;
    livekit.call("RoomService/ListParticipants").await;
    assert!(livekit.is_untouched(), "an entry is for one room");
}

#[actix_web::test]
async fn where_webhooks_are_lost_livekits_list_shows_who_came_back_and_they_are_removed_again() {
    let mut livekit = Livekit::start().await;
    let settings = [("LIVEKIT_URL", livekit.url.as_str()), ("ROSTER_RECONCILE_MS", "200")];
    let gateway = TestGateway::with(&settings).await;
    let mut glasses = gateway.glasses("ann").await;
    glasses.say(r#"{"type":"subscribe:participants"}"#).await;
    livekit.call("RoomService/ListParticipants").await;
    remove(&gateway, &glasses.session, "bob").await;
    livekit.call("RoomService/RemoveParticipant").await;

    livekit.set_participants(vec![present("eve"), present("bob")]);

    let again: proto::RoomParticipantIdentity = livekit.call("RoomService/RemoveParticipant").await.read();
    assert_eq!((again.room.as_str(), again.identity.as_str()), (glasses.session.room_name.as_str(), "bob"));
    let path = format!("/api/sessions/{}/participants", glasses.session.session_id);
    soon(async {
        loop {
            let (_, there) = gateway.get(&path).await;
            let there = there["participants"].as_array().unwrap();
            if there.iter().map(|one| &one["identity"]).eq(["eve"]) {
                return;
            }
        }
    })
    .await;
}

#[actix_web::test]
async fn somebody_who_is_kept_out_gets_no_token_by_any_way() {
    let livekit = Livekit::start().await;
    let gateway = TestGateway::with(&[("LIVEKIT_URL", &livekit.url)]).await;
    let mut glasses = gateway.glasses("ann").await;
    let path = format!("/api/sessions/{}", glasses.session.session_id);
    assert!(glasses.ack.livekit.is_some());

    let (status, removed) = remove(&gateway, &glasses.session, "ann").await;
    assert_eq!(status, 200);

    let (code, reason) = glasses.closed().await;
    assert_eq!((code, reason.as_str()), (1008, "removed from the room"));
    let (_, shown) = gateway.get(&path).await;
    assert_eq!((&shown["access_token"], &shown["denied_until"]), (&Value::Null, &removed["denied_until"]));
    assert_eq!(shown["control_token"], Value::Null);
    for renewal in ["token", "control-token"] {
        let (status, problem) = gateway.post(&format!("{path}/{renewal}"), &Value::Null).await;
        assert_eq!((status, problem["code"].as_str()), (403, Some("FORBIDDEN")), "{renewal}");
    }
    let again = Glasses::attach(glasses.session.clone(), ConnectionInit::default()).await;
    assert!(matches!(again, Err(ClientError::Refused { code, .. }) if code == "FORBIDDEN"));

    let fresh = gateway.session("ann").await;
    assert!(fresh.access_token.is_some(), "a new session has a room of its own");
}

#[actix_web::test]
async fn a_guest_who_was_removed_is_not_invited_again() {
    let livekit = Livekit::start().await;
    let gateway = TestGateway::with(&[("LIVEKIT_URL", &livekit.url)]).await;
    let session = gateway.session("ann").await;
    let (_, bob) = guest(&gateway, &session, "Bob").await;

    let (status, _) = remove(&gateway, &session, bob["identity"].as_str().unwrap()).await;

    assert_eq!(status, 200);
    let (status, problem) = guest(&gateway, &session, "Bob").await;
    assert_eq!((status, problem["code"].as_str()), (403, Some("FORBIDDEN")));
    assert_eq!(guest(&gateway, &session, "Eve").await.0, 200);
    assert_eq!(guest(&gateway, &gateway.session("ann").await, "Bob").await.0, 200);
}

#[actix_web::test]
async fn the_list_survives_a_restart_and_is_gone_through_again() {
    let mut livekit = Livekit::start().await;
    let url = livekit.url.clone();
    let gateway = TestGateway::with(&[("LIVEKIT_URL", &url)]).await;
    let session = gateway.session("ann").await;
    remove(&gateway, &session, "ann").await;
    livekit.call("RoomService/RemoveParticipant").await;
    livekit.set_participants(vec![present("ann")]);

    let gateway = gateway.restart(&[("LIVEKIT_URL", &url)]).await;

    let again: proto::RoomParticipantIdentity = livekit.call("RoomService/RemoveParticipant").await.read();
    assert_eq!(again.identity, "ann", "who came back while no gateway was looking is removed");
    let (_, shown) = gateway.get(&format!("/api/sessions/{}", session.session_id)).await;
    assert_eq!(shown["access_token"], Value::Null);
}

#[actix_web::test]
async fn with_livekit_away_nobody_is_removed_but_they_are_kept_out() {
    let gateway = TestGateway::start().await;
    let session = gateway.session("ann").await;

    let (status, problem) = remove(&gateway, &session, "ann").await;

    assert_eq!((status, problem["code"].as_str()), (502, Some("MEDIA_UNAVAILABLE")));
    assert!(problem["detail"].as_str().unwrap().contains("no new token"), "{problem}");
    let (_, shown) = gateway.get(&format!("/api/sessions/{}", session.session_id)).await;
    assert_eq!(shown["access_token"], Value::Null);
}

#[actix_web::test]
async fn the_gateways_own_agent_is_not_removed() {
    let gateway = TestGateway::start().await;
    let session = gateway.session("ann").await;
    let (status, problem) = remove(&gateway, &session, "cloud-agent:ann").await;
    assert_eq!((status, problem["code"].as_str()), (400, Some("INVALID_REQUEST")));
}

#[actix_web::test]
async fn the_room_of_a_session_that_was_ended_is_emptied_when_somebody_comes_by_an_old_token() {
    let mut livekit = Livekit::start().await;
    let gateway = TestGateway::with(&[("LIVEKIT_URL", &livekit.url)]).await;
    let session = gateway.session("ann").await;
    let (_, ended) = gateway.delete(&format!("/api/sessions/{}", session.session_id)).await;
    assert_eq!(ended["room_deleted"], true);
    livekit.call("RoomService/DeleteRoom").await;

    let mut back = event("participant_joined", "EV_1", session.room_name.as_str(), "PA_1");
    back["room"]["sid"] = json!("RM_2");
    webhook(&gateway, "/api/livekit/webhook", &back).await;

    let asked: proto::DeleteRoomRequest = livekit.call("RoomService/DeleteRoom").await.read();
    assert_eq!(asked.room, session.room_name.as_str());
}

#[actix_web::test]
async fn a_session_knows_its_room_by_livekits_newest_id() {
    let gateway = TestGateway::start().await;
    let mut glasses = gateway.glasses("ann").await;
    let path = format!("/api/sessions/{}", glasses.session.session_id);
    let room = glasses.session.room_name.to_string();
    assert_eq!(gateway.get(&path).await.1["livekit_room_sid"], Value::Null);

    for (id, sid, created, known) in
        [("EV_1", "RM_1", "1000", "RM_1"), ("EV_2", "RM_2", "2000", "RM_2"), ("EV_3", "RM_1", "1000", "RM_2")]
    {
        let started = json!({
            "event": "room_started", "id": id,
            "room": {"name": room, "sid": sid, "creationTimeMs": created},
        });
        assert_eq!(webhook(&gateway, "/api/livekit-webhooks", &started).await, 200);
        assert_eq!(gateway.get(&path).await.1["livekit_room_sid"], known, "{id}");
    }
    glasses.say(r#"{"type":"livekit_init","mode":"publish"}"#).await;
    glasses.wait_for(|message| matches!(message, ToClient::LivekitInfo(_)).then_some(())).await;
}

/// The doors of a session, as its user opens them.
async fn doors(gateway: &TestGateway, session: &SessionInfo, token: &str) -> Vec<(String, u16)> {
    let path = format!("{}/api/sessions/{}", gateway.url, session.session_id);
    let room = json!({"room": session.room_name, "session_id": session.session_id, "guest_name": "Gus"});
    let http = &gateway.http;
    let requests = [
        http.get(&path),
        http.post(format!("{path}/token")),
        http.post(format!("{path}/control-token")),
        http.post(format!("{path}/guest-token")),
        http.get(format!("{path}/participants")),
        http.get(format!("{path}/history")),
        http.post(format!("{}/api/livekit/participants/stream-token", gateway.url)),
        http.get(format!("{}/api/livekit/participants?room={}", gateway.url, session.room_name)),
        http.get(format!("{}/api/client/livekit/token", gateway.url)),
        http.post(format!("{}/api/client/device/state", gateway.url)),
    ];
    let mut statuses = Vec::new();
    for request in requests {
        let request = request.bearer_auth(token).json(&room).build().unwrap();
        let path = request.url().path().to_owned();
        statuses.push((path, soon(http.execute(request)).await.unwrap().status().as_u16()));
    }
    statuses
}

#[actix_web::test]
async fn a_user_who_is_removed_finds_every_door_closed() {
    let livekit = Livekit::start().await;
    let gateway = TestGateway::with(&[("LIVEKIT_URL", &livekit.url)]).await;
    let glasses = gateway.glasses("ann").await;
    let (session, token) = (&glasses.session, glasses.session.control_token.clone());
    for (door, status) in doors(&gateway, session, &token).await {
        assert_eq!(status, 200, "{door} before");
    }

    assert_eq!(remove(&gateway, session, "ann").await.0, 200);

    for (door, status) in doors(&gateway, session, &token).await {
        assert_eq!(status, 403, "{door}");
    }
}

/// Reads an event stream to its end.
async fn read_to_end(mut stream: reqwest::Response) {
    soon(async { while stream.chunk().await.unwrap().is_some() {} }).await;
}

#[actix_web::test]
async fn what_a_removed_person_has_open_ends_at_once_and_what_others_have_goes_on() {
    let livekit = Livekit::start().await;
    let gateway = TestGateway::with(&[("LIVEKIT_URL", &livekit.url)]).await;
    let mut glasses = gateway.glasses("ann").await;
    let mut bob = gateway.glasses("bob").await;
    let room = glasses.session.room_name.to_string();
    let url = format!("{}/api/livekit/participants/stream?room={room}", gateway.url);
    let stream = async |token: &str| {
        let mut stream = soon(gateway.http.get(&url).bearer_auth(token).send()).await.unwrap();
        assert_eq!(stream.status(), 200);
        soon(stream.chunk()).await.unwrap();
        stream
    };
    let of_bob = stream(&livekit_token("bob", &room)).await;
    let mut of_eve = stream(&livekit_token("eve", &room)).await;
    let token = livekit_token("bob", &room);
    let subscribe = json!({"type": "subscribe:participants", "room": room, "token": token});
    bob.say(&subscribe.to_string()).await;
    bob.wait_for(|message| matches!(message, ToClient::ParticipantsUpdate(_)).then_some(())).await;

    assert_eq!(remove(&gateway, &glasses.session, "bob").await.0, 200);

    read_to_end(of_bob).await;
    assert_eq!(bob.error().await, "FORBIDDEN");
    bob.say(&subscribe.to_string()).await;
    assert_eq!(bob.error().await, "FORBIDDEN", "the token is not accepted any more");
    glasses.ping().await;
    webhook(&gateway, "/api/livekit/webhook", &event("participant_joined", "EV_9", &room, "PA_9")).await;
    let mut seen = String::new();
    soon(async {
        while !seen.contains("PA_9") {
            seen += &String::from_utf8_lossy(&of_eve.chunk().await.unwrap().unwrap());
        }
    })
    .await;
}

#[actix_web::test]
async fn the_guests_whom_a_removed_user_invited_go_with_them_and_those_of_a_backend_stay() {
    let mut livekit = Livekit::start().await;
    let gateway = TestGateway::with(&[("LIVEKIT_URL", &livekit.url)]).await;
    let session = gateway.session("ann").await;
    let (_, backends) = guest(&gateway, &session, "Bea").await;
    let invite = json!({"session_id": session.session_id, "guest_name": "Gus"});
    let path = format!("{}/api/sessions/{}/guest-token", gateway.url, session.session_id);
    let (status, anns) =
        answer(gateway.http.post(path).bearer_auth(&session.control_token).json(&invite)).await;
    assert_eq!(status, 200, "{anns}");
    let (anns_guest, backends_guest) =
        (anns["identity"].as_str().unwrap(), backends["identity"].as_str().unwrap());
    livekit.set_participants(vec![present("ann"), present(anns_guest), present(backends_guest)]);
    let url = format!("{}/api/livekit/participants?room={}", gateway.url, session.room_name);
    let list = async |invitation: &Value| {
        answer(gateway.http.get(&url).bearer_auth(invitation["access_token"].as_str().unwrap())).await.0
    };
    assert_eq!((list(&anns).await, list(&backends).await), (200, 200));

    remove(&gateway, &session, "ann").await;

    let mut removed = Vec::new();
    for _ in 0..2 {
        let call: proto::RoomParticipantIdentity = livekit.call("RoomService/RemoveParticipant").await.read();
        removed.push(call.identity);
    }
    removed.sort();
    assert_eq!(removed, ["ann", anns_guest]);
    assert_eq!((list(&anns).await, list(&backends).await), (401, 200));
}
