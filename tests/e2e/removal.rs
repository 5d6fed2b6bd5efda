//! Removal from rooms of a real LiveKit: of a participant, of everybody with the session; what operators see.

use june_client::SessionInfo;
use june_edge::protocol::{ToClient, edge_v1::to_client::EndReason};
use livekit::{DisconnectReason, Room, RoomEvent, RoomOptions};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::support::{June, LivekitServer, Publisher, free_port, soon, until};

async fn ask(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = soon(request.send()).await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

/// A token for a guest, and their identity.
async fn guest(june: &June, session: &SessionInfo, name: &str) -> (String, String) {
    let url = format!("{}/api/sessions/{}/guest-token", june.url(), session.session_id);
    let body = json!({"session_id": session.session_id, "guest_name": name});
    let (status, invitation) = ask(june.http.post(url).json(&body)).await;
    assert_eq!(status, 200, "{invitation}");
    let text = |field: &str| invitation[field].as_str().unwrap().to_owned();
    (text("access_token"), text("identity"))
}

/// The identities in a session's room, by the gateway.
async fn present(june: &June, session: &SessionInfo) -> Vec<String> {
    let url = format!("{}/api/sessions/{}/participants", june.url(), session.session_id);
    let (_, listed) = ask(june.http.get(url)).await;
    let identities = listed["participants"].as_array().unwrap().iter();
    identities.map(|one| one["identity"].as_str().unwrap().to_owned()).collect()
}

async fn until_present(june: &June, session: &SessionInfo, wanted: &[&str]) {
    until(async || (present(june, session).await == wanted).then_some(())).await;
}

/// Joins, and waits until LiveKit ends it.
async fn join_until_disconnected(url: &str, token: &str) -> DisconnectReason {
    let (_room, mut events) = join(url, token).await;
    disconnected(&mut events).await
}

async fn join(url: &str, token: &str) -> (Room, UnboundedReceiver<RoomEvent>) {
    soon(Room::connect(url, token, RoomOptions::default())).await.unwrap()
}

/// Waits until LiveKit ends a connection.
async fn disconnected(events: &mut UnboundedReceiver<RoomEvent>) -> DisconnectReason {
    soon(async {
        loop {
            if let RoomEvent::Disconnected { reason } = events.recv().await.unwrap() {
                return reason;
            }
        }
    })
    .await
}

#[actix_web::test]
async fn a_guest_who_was_removed_cannot_stay_by_the_token_they_have() {
    let port = free_port();
    let livekit = LivekitServer::start(port).await;
    let data = tempfile::tempdir().unwrap();
    let mut june = June::start(&livekit, data.path(), port).await;
    let session = june.session("ann").await;
    let (token, identity) = guest(&june, &session, "Bob").await;
    let publisher = Publisher::join(&livekit.url(), &token, "mic").await;
    until_present(&june, &session, &[&identity]).await;

    let url = format!("{}/api/sessions/{}/participants/{identity}", june.url(), session.session_id);
    let (status, removed) = ask(june.http.delete(&url)).await;
    assert_eq!((status, &removed["removed"]), (200, &json!(true)), "{removed}");
    until_present(&june, &session, &[]).await;
    drop(publisher);

    let reason = join_until_disconnected(&livekit.url(), &token).await;
    assert_eq!(reason, DisconnectReason::ParticipantRemoved);

    june.kill_and_start_again().await;
    let reason = join_until_disconnected(&livekit.url(), &token).await;
    assert_eq!(reason, DisconnectReason::ParticipantRemoved, "the list survives a kill -9");

    let (status, nobody) = ask(june.http.delete(&url)).await;
    assert_eq!((status, &nobody["removed"]), (200, &json!(false)), "{nobody}");
}

#[actix_web::test]
async fn without_webhooks_our_agent_reports_a_removed_participant_who_joins_again() {
    let nobody_listens_here = free_port();
    let livekit = LivekitServer::start(nobody_listens_here).await;
    let data = tempfile::tempdir().unwrap();
    let june = June::start(&livekit, data.path(), free_port()).await;
    let mut glasses = june.glasses("ann").await;
    glasses.agent().await;
    let (token, identity) = guest(&june, &glasses.session, "Bob").await;
    let url = format!("{}/api/sessions/{}/participants/{identity}", june.url(), glasses.session.session_id);
    let (status, _) = ask(june.http.delete(&url)).await;
    assert_eq!(status, 200);

    let reason = join_until_disconnected(&livekit.url(), &token).await;

    assert_eq!(reason, DisconnectReason::ParticipantRemoved);
}

#[actix_web::test]
async fn a_session_that_is_deleted_ends_its_room_for_everybody_and_for_good() {
    let port = free_port();
    let livekit = LivekitServer::start(port).await;
    let data = tempfile::tempdir().unwrap();
    let june = June::start(&livekit, data.path(), port).await;
    let mut glasses = june.glasses("ann").await;
    glasses.agent().await;
    let info = glasses.ack.livekit.clone().unwrap();
    let (bobs_token, bob) = guest(&june, &glasses.session, "Bob").await;
    let (eves_token, eve) = guest(&june, &glasses.session, "Eve").await;
    let (_anns_room, mut anns_events) = join(&info.url, &info.token).await;
    let (_bobs_room, mut bobs_events) = join(&info.url, &bobs_token).await;
    let _eve = Publisher::join(&info.url, &eves_token, "mic").await;
    let mut everybody = vec!["ann".to_owned(), bob, eve];
    everybody.sort();
    until(async || {
        let mut there = present(&june, &glasses.session).await;
        there.sort();
        (there == everybody).then_some(())
    })
    .await;

    let url = format!("{}/api/sessions/{}", june.url(), glasses.session.session_id);
    let (status, ended) = ask(june.http.delete(&url)).await;

    assert_eq!((status, &ended["room_deleted"]), (200, &json!(true)), "{ended}");
    assert_eq!(disconnected(&mut anns_events).await, DisconnectReason::RoomDeleted);
    assert_eq!(disconnected(&mut bobs_events).await, DisconnectReason::RoomDeleted);
    let reason = glasses
        .wait_for_message(|message| match message {
            ToClient::SessionEnd { reason, .. } => Some(*reason),
            _ => None,
        })
        .await;
    assert_eq!(reason, EndReason::Logout);
    until(async || livekit.room_names().await.is_empty().then_some(())).await;
    let (status, problem) = ask(june.http.get(&url)).await;
    assert_eq!((status, &problem["code"]), (404, &json!("SESSION_NOT_FOUND")), "{problem}");

    // Their tokens are good for minutes, and LiveKit makes the room again for them.
    assert_eq!(join_until_disconnected(&info.url, &info.token).await, DisconnectReason::RoomDeleted);
    until(async || livekit.room_names().await.is_empty().then_some(())).await;
}

#[actix_web::test]
async fn operators_see_rooms_and_get_503_without_an_egress_service() {
    let port = free_port();
    let livekit = LivekitServer::start(port).await;
    let data = tempfile::tempdir().unwrap();
    let june = June::start(&livekit, data.path(), port).await;
    let mut glasses = june.glasses("ann").await;
    glasses.agent().await;
    let info = glasses.ack.livekit.clone().unwrap();
    let _publisher = Publisher::join(&info.url, &info.token, "mic").await;
    let room = info.room_name.to_string();

    let stats = until(async || {
        let (_, stats) = ask(june.http.get(format!("{}/api/admin/rooms/{room}/stats", june.url()))).await;
        (stats["tracks"] == json!({"microphone": 1})).then_some(stats)
    })
    .await;
    let mut everybody: Vec<&str> =
        stats["everybody"].as_array().unwrap().iter().map(|one| one["identity"].as_str().unwrap()).collect();
    everybody.sort_unstable();
    assert_eq!(everybody, ["ann", "cloud-agent:ann"]);
    let (_, listed) = ask(june.http.get(format!("{}/api/admin/rooms", june.url()))).await;
    assert_eq!(listed["rooms"][0]["session_id"], glasses.session.session_id.to_string(), "{listed}");
    let sid = listed["rooms"][0]["livekit_room_sid"].clone();
    let (_, shown) =
        ask(june.http.get(format!("{}/api/sessions/{}", june.url(), glasses.session.session_id))).await;
    assert_eq!(shown["livekit_room_sid"], sid, "as LiveKit's webhook told");

    let recordings = format!("{}/api/admin/rooms/{room}/recordings", june.url());
    let (status, problem) = ask(june.http.post(recordings).json(&json!({}))).await;
    assert_eq!((status, &problem["code"]), (503, &json!("RECORDING_UNAVAILABLE")), "{problem}");

    let disconnect = format!("{}/api/admin/sessions/{}/disconnect", june.url(), glasses.session.session_id);
    let (status, answer) = ask(june.http.post(disconnect)).await;
    assert_eq!((status, &answer["removed"]), (200, &json!(["ann"])), "{answer}");
    let back = Room::connect(&info.url, &info.token, RoomOptions::default()).await;
    if let Ok((_room, mut events)) = back {
        // LiveKit made the room again; the gateway deletes it again.
        soon(async {
            while let Some(event) = events.recv().await {
                if matches!(event, RoomEvent::Disconnected { .. }) {
                    return;
                }
            }
        })
        .await;
    }
}
