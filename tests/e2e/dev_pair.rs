//! The development pair: a gateway without any keys beside `livekit-server --dev`.

use livekit::{Room, RoomOptions};

use crate::support::{June, LivekitServer, free_port, soon};

#[actix_web::test]
async fn a_gateway_without_keys_and_livekits_development_server_accept_each_others_tokens() {
    let port = free_port();
    let livekit = LivekitServer::dev(port).await;
    let data = tempfile::tempdir().unwrap();
    // Not LIVEKIT_URL: a gateway that is told of a LiveKit needs its keys. The port is not 7880, so that the test
    // can run beside another.
    let june = June::without_keys(data.path(), port, &[("LIVEKIT_INTERNAL_URL", &livekit.url())]).await;

    // The agent joins by a token of the gateway's.
    let mut glasses = june.glasses("ann").await;
    glasses.agent().await;

    // So does a client, by the token of POST /api/sessions.
    let token = glasses.session.access_token.clone().unwrap();
    let (room, _events) = soon(Room::connect(&livekit.url(), &token, RoomOptions::default())).await.unwrap();
    assert_eq!(room.local_participant().identity().as_str(), "ann");

    // LiveKit accepts calls of its API, and the gateway accepts LiveKit's webhooks.
    let url = format!("{}/api/sessions/{}", june.url(), glasses.session.session_id);
    let participants = soon(june.http.get(format!("{url}/participants")).send()).await.unwrap();
    assert_eq!(participants.status(), 200);
    crate::support::until(async || {
        (june.metric(r#"june_webhooks_total{outcome="taken"}"#).await > 0).then_some(())
    })
    .await;
}
