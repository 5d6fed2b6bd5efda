//! `/health`: what really happened, not what was configured.

use serde_json::Value;

use crate::{
    livekit::Livekit,
    support::{TestGateway, soon},
};

async fn livekit_part(gateway: &TestGateway) -> Value {
    let (_, health) = gateway.get("/health").await;
    let parts = health["parts"].as_array().unwrap();
    parts.iter().find(|part| part["role"] == "livekit").unwrap().clone()
}

/// Waits for the probe that a gateway makes after its start.
pub async fn until_livekit_is_reached(gateway: &TestGateway) {
    soon(async {
        while livekit_part(gateway).await["ready"] != true {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[actix_web::test]
async fn livekit_is_ready_by_the_last_call_and_a_livekit_that_fails_does_not_take_the_gateway_out() {
    let livekit = Livekit::start().await;
    let gateway = TestGateway::with(&[("LIVEKIT_URL", &livekit.url)]).await;
    until_livekit_is_reached(&gateway).await;

    livekit.refuse(401, "unauthenticated", "invalid API key");
    assert_ne!(gateway.get("/api/admin/rooms").await.0, 200);

    let part = livekit_part(&gateway).await;
    assert_eq!(part["ready"], false);
    assert!(part["message"].as_str().unwrap().contains("invalid API key"), "{part}");
    assert_eq!(gateway.get("/readyz").await.0, 200);

    livekit.accept();
    assert_eq!(gateway.get("/api/admin/rooms").await.0, 200);
    assert_eq!(livekit_part(&gateway).await["ready"], true);
}

#[actix_web::test]
async fn a_livekit_that_is_not_there_is_found_out_though_nobody_calls_it() {
    let gateway = TestGateway::start().await;

    soon(async {
        while !livekit_part(&gateway).await["message"].to_string().contains("the last call failed") {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
