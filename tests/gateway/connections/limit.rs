//! How many connections may be open.

use super::raw_http::{RawClient, UPGRADE, get};
use crate::support::{TestGateway, soon};

/// A connection that was accepted.
async fn open(gateway: &TestGateway) -> RawClient {
    let mut client = RawClient::sends(gateway, get("/livez", "")).await;
    client.read_until("HTTP/1.1 200 ").await;
    client
}

#[actix_web::test]
async fn a_connection_over_the_limit_is_refused_with_503_until_another_one_ends() {
    let gateway = TestGateway::with(&[("MAX_CONNECTIONS", "2")]).await;
    let first = open(&gateway).await;
    let mut second = RawClient::sends(&gateway, get("/v1/ws", UPGRADE)).await;
    second.read_until("HTTP/1.1 101 ").await;

    let refused = RawClient::connect(&gateway).await.read_to_end().await;

    assert!(refused.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{refused}");
    assert!(refused.contains("retry-after: 1\r\n"), "{refused}");
    assert!(refused.ends_with('}') && refused.contains("\"code\":\"OVERLOADED\""), "{refused}");
    drop((first, second));
    soon(async {
        loop {
            let mut client = RawClient::sends(&gateway, get("/livez", "Connection: close\r\n")).await;
            if client.read_to_end().await.starts_with("HTTP/1.1 200 ") {
                return;
            }
        }
    })
    .await;
}
