//! Who is in a room, by a real LiveKit's webhooks.

use june_edge::protocol::{ToClient, to_client::ParticipantsUpdate};
use serde_json::Value;

use crate::support::{Glasses, June, LivekitServer, Publisher, free_port, until};

/// Applies updates until the identities in the room are these.
async fn wait_until_present(glasses: &mut Glasses, present: &mut Vec<(String, String)>, wanted: &[&str]) {
    glasses
        .wait_for_message(|message| {
            if let ToClient::ParticipantsUpdate(update) = message {
                apply(update, present);
            }
            let identities: Vec<&str> = present.iter().map(|(_, identity)| identity.as_str()).collect();
            (identities == wanted).then_some(())
        })
        .await;
}

fn apply(update: &ParticipantsUpdate, present: &mut Vec<(String, String)>) {
    let text = |value: &Value, field: &str| value[field].as_str().unwrap().to_owned();
    let add = |present: &mut Vec<_>, them: &Value| {
        present.extend(them.as_array().unwrap().iter().map(|one| (text(one, "sid"), text(one, "identity"))));
    };
    if let Some(snapshot) = &update.snapshot {
        present.clear();
        add(present, snapshot);
    }
    if let Some(diff) = &update.diff {
        for left in diff["left"].as_array().unwrap() {
            present.retain(|(sid, _)| *sid != text(left, "sid"));
        }
        add(present, &diff["joined"]);
    }
}

#[actix_web::test]
async fn joins_and_leaves_reach_the_glasses_as_they_happen() {
    let port = free_port();
    let livekit = LivekitServer::start(port).await;
    let data = tempfile::tempdir().unwrap();
    let june = June::start(&livekit, data.path(), port).await;
    let mut glasses = june.glasses("ann").await;
    glasses.agent().await;
    let room = glasses.ack.livekit.clone().unwrap();
    glasses.channel.writer().raw(Ok(r#"{"type":"subscribe:participants"}"#.into())).await.unwrap();
    let mut present = Vec::new();
    wait_until_present(&mut glasses, &mut present, &[]).await;

    let publisher = Publisher::join(&room.url, &room.token, "mic").await;
    wait_until_present(&mut glasses, &mut present, &["ann"]).await;
    let path = format!("{}/api/sessions/{}/participants", june.url(), glasses.session.session_id);
    until(async || {
        let listed: Value = june.http.get(&path).send().await.unwrap().json().await.unwrap();
        (listed["participants"][0]["tracks"][0]["source"] == "microphone").then_some(())
    })
    .await;

    drop(publisher);
    wait_until_present(&mut glasses, &mut present, &[]).await;
}
