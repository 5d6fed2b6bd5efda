//! Who is in a room: whatever happens, every watcher ends with LiveKit's own list.

use std::time::Duration;

use june_edge::protocol::{
    ToClient,
    edge_v1::{from_client::ConnectionInit, to_client::MediaReason},
};
use serde_json::json;

use crate::support::{
    Glasses, June, LivekitServer, Publisher, SECRET, Watcher, free_port, repository, tool, until,
};

/// LiveKit is out of reach of a gateway for longer than it keeps what it has to tell (30 s).
const OUTAGE: Duration = Duration::from_secs(40);

fn subscribe(room: &str, token: &str) -> String {
    json!({"type": "subscribe:participants", "room": room, "token": token}).to_string()
}

/// Waits until LiveKit's list has exactly these people, and every watcher has the same: the same
/// connections, names and tracks.
async fn agree(livekit: &LivekitServer, room: &str, identities: &[&str], watchers: &[&Watcher]) {
    until(async || {
        let listed = livekit.participants(room).await;
        let mut present: Vec<&str> = listed.values().map(|them| them.identity.as_str()).collect();
        present.sort_unstable();
        (present == identities && watchers.iter().all(|watcher| *watcher.view() == listed)).then_some(())
    })
    .await;
}

#[actix_web::test]
async fn every_view_of_a_busy_room_ends_as_livekits_own_list() {
    let port = free_port();
    let livekit = LivekitServer::start(port).await;
    let data = tempfile::tempdir().unwrap();
    let june = June::start(&livekit, data.path(), port).await;
    let mut ann = june.glasses("ann").await;
    ann.agent().await;
    let room = ann.session.room_name.to_string();
    let token = |identity: &str| livekit.publisher_token(&room, identity);
    let own = Watcher::on_channel(ann, r#"{"type":"subscribe:participants"}"#.into()).await;
    let guests = Watcher::on_channel(june.glasses("eve").await, subscribe(&room, &token("eve"))).await;
    let stream = Watcher::on_stream(&june, &room, &token("eve")).await;

    let bob = Publisher::join(&livekit.url(), &token("bob"), "mic").await;
    let crashing = Publisher::join(&livekit.url(), &token("carol"), "mic").await;
    agree(&livekit, &room, &["bob", "carol"], &[&own, &guests, &stream]).await;

    // A crash, and the same person again before LiveKit has noticed.
    drop(crashing);
    let carol = Publisher::join(&livekit.url(), &token("carol"), "mic").await;
    let dave = Publisher::join(&livekit.url(), &token("dave"), "mic").await;
    let late = Watcher::on_stream(&june, &room, &token("eve")).await;
    agree(&livekit, &room, &["bob", "carol", "dave"], &[&own, &guests, &stream, &late]).await;

    livekit.remove(&room, "bob").await;
    dave.leave().await;
    agree(&livekit, &room, &["carol"], &[&own, &guests, &stream, &late]).await;
    assert_eq!(stream.reason_of("bob").as_deref(), Some("removed"));
    assert_eq!(stream.reason_of("dave").as_deref(), Some("left"));
    drop((bob, carol));
}

#[actix_web::test]
async fn what_happened_while_the_gateway_was_down_is_known_when_it_is_back() {
    let port = free_port();
    let livekit = LivekitServer::start(port).await;
    let data = tempfile::tempdir().unwrap();
    let mut june = June::start(&livekit, data.path(), port).await;
    let ann = june.glasses("ann").await;
    let (session, room) = (ann.session.clone(), ann.session.room_name.to_string());
    let token = |identity: &str| livekit.publisher_token(&room, identity);
    let before = Watcher::on_channel(ann, r#"{"type":"subscribe:participants"}"#.into()).await;
    let stream = Watcher::on_stream(&june, &room, &token("eve")).await;
    let bob = Publisher::join(&livekit.url(), &token("bob"), "mic").await;
    let crashing = Publisher::join(&livekit.url(), &token("carol"), "mic").await;
    agree(&livekit, &room, &["bob", "carol"], &[&before, &stream]).await;

    let down_at = june_edge::clock::now();
    june.process.kill();
    bob.leave().await;
    drop(crashing);
    let carol = Publisher::join(&livekit.url(), &token("carol"), "mic").await;
    let dave = Publisher::join(&livekit.url(), &token("dave"), "mic").await;
    // Nothing tells when LiveKit gives up: the outage has to be as long as it is.
    actix_web::rt::time::sleep(
        OUTAGE.saturating_sub(june_edge::clock::now().saturating_duration_since(down_at)),
    )
    .await;
    june.kill_and_start_again().await;

    let again = Glasses::attach(session, ConnectionInit::default()).await;
    let again = Watcher::on_channel(again, r#"{"type":"subscribe:participants"}"#.into()).await;
    let resumed = Watcher::on_stream_after(&june, &room, &token("eve"), &stream.last_event_id()).await;
    agree(&livekit, &room, &["carol", "dave"], &[&again, &resumed]).await;
    carol.leave().await;
    agree(&livekit, &room, &["dave"], &[&again, &resumed]).await;
    drop(dave);
}

#[actix_web::test]
async fn where_no_webhook_ever_arrives_lists_alone_keep_the_roster_right() {
    // LiveKit sends its webhooks to nobody.
    let livekit = LivekitServer::start(free_port()).await;
    let data = tempfile::tempdir().unwrap();
    let settings = [("ROSTER_RECONCILE_MS", "2000")];
    let june = June::with(&livekit, data.path(), free_port(), &settings).await;
    let stream = Watcher::on_stream(&june, "room-a", &livekit.token("room-a", "eve")).await;

    let bob = Publisher::join(&livekit.url(), &livekit.publisher_token("room-a", "bob"), "mic").await;
    agree(&livekit, "room-a", &["bob"], &[&stream]).await;
    bob.leave().await;
    agree(&livekit, "room-a", &[], &[&stream]).await;

    let metrics =
        june.http.get(format!("{}/metrics", june.url())).send().await.unwrap().text().await.unwrap();
    let drift = metrics.lines().find_map(|line| line.strip_prefix("june_roster_drift_total ")).unwrap();
    assert!(drift.parse::<u64>().unwrap() >= 2, "{drift}");
}

#[actix_web::test]
async fn a_microphone_in_the_room_wakes_an_agent_that_waits_to_try_again() {
    let port = free_port();
    let mut livekit = LivekitServer::prepare(port);
    let data = tempfile::tempdir().unwrap();
    // Longer than any test takes.
    let settings = [("LIVEKIT_REJOIN_BACKOFF_MS", "3600000")];
    let june = June::with(&livekit, data.path(), port, &settings).await;
    let mut glasses = june.glasses("ann").await;
    glasses
        .wait_for_message(|message| match message {
            ToClient::MediaState { reason: MediaReason::LivekitUnreachable, .. } => Some(()),
            _ => None,
        })
        .await;

    livekit.run().await;
    let room = glasses.ack.livekit.clone().unwrap();
    let publisher = Publisher::join(&room.url, &room.token, "mic").await;

    glasses.agent().await;
    drop(publisher);
}

/// A JWT for a webhook, signed by an official server SDK.
fn sign(sdk: &[&str], secret: &str, body: &str, ttl_s: i64) -> String {
    let (program, script) = (sdk[0], repository(sdk[1]));
    let mut command = std::process::Command::new(program);
    command.arg(script).args(["devkey", secret, &ttl_s.to_string(), body]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[actix_web::test]
async fn webhooks_signed_by_the_python_and_the_node_sdk_are_taken_and_altered_ones_refused() {
    let livekit = LivekitServer::prepare(free_port());
    let data = tempfile::tempdir().unwrap();
    let june = June::start(&livekit, data.path(), free_port()).await;
    let python = tool("JUNE_PYTHON");
    let send = async |token: &str, body: &str| {
        let request = june.http.post(format!("{}/api/livekit-webhooks", june.url()));
        let request =
            request.header("Authorization", token).header("Content-Type", "application/webhook+json");
        request.body(body.to_owned()).send().await.unwrap().status().as_u16()
    };
    for (name, sdk) in [
        ("python", [python.to_str().unwrap(), "tests/e2e/webhook.py"]),
        ("node", ["node", "tests/e2e/webhook.mjs"]),
    ] {
        let body = json!({
            "event": "participant_joined", "id": format!("EV_{name}"), "createdAt": "1795248000",
            "room": {"name": "room-a", "sid": "RM_1"},
            "participant": {"sid": format!("PA_{name}"), "identity": name, "state": "ACTIVE"},
        })
        .to_string();
        let good = sign(&sdk, SECRET, &body, 300);
        let old = sign(&sdk, SECRET, &body, -600);
        let anothers = sign(&sdk, "somebody-elses-secret-of-32-bytes", &body, 300);

        assert_eq!(send(&good, &body.replace("PA_", "PB_")).await, 401, "{name}: a changed body");
        assert_eq!(send(&old, &body).await, 401, "{name}: an old signature");
        assert_eq!(send(&anothers, &body).await, 401, "{name}: another's key");
        assert_eq!(send(&good, &body).await, 200, "{name}");
    }
    let stream = Watcher::on_stream(&june, "room-a", &livekit.token("room-a", "eve")).await;
    until(async || {
        let identities: Vec<_> = stream.view().values().map(|them| them.identity.clone()).collect();
        (identities == ["node", "python"]).then_some(())
    })
    .await;
}
