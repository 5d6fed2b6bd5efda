//! Renewal of tokens by `june-client`. Control tokens live for two seconds here instead of an hour.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header};
use june_client::{Channel, ClientError, Device, DeviceEvent, End, Options, Retry};
use june_edge::{clock, config::Config};
use june_protocol::{FromClient, Secret, ToClient, from_client::Ping};
use serde_json::json;
use test_support::{Proxy, free_port};

use crate::support::{TestGateway, USERS_SECRET, soon};

const CONTROL_TTL: Duration = Duration::from_secs(2);

/// How long the gateway accepts a token after its end, for clocks that differ; rounded up.
const LEEWAY_S: u64 = 6;

fn short_tokens(config: &mut Config) {
    config.auth.control_ttl = Some(CONTROL_TTL);
}

fn quick_retry() -> Options {
    let retry = Retry { first: Duration::from_millis(10), longest: Duration::from_millis(50) };
    Options { retry, ..Options::default() }
}

fn users_token(user: &str, expires_in_s: u64) -> String {
    let claims = json!({"sub": user, "exp": clock::unix_s() + expires_in_s});
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(USERS_SECRET.as_bytes()))
        .unwrap()
}

/// The next event that `pick` takes.
async fn wait_for<T>(device: &mut Device, mut pick: impl FnMut(&DeviceEvent) -> Option<T>) -> T {
    soon(async {
        loop {
            let event = device.next().await.expect("the device has not ended");
            if let Some(picked) = pick(&event) {
                return picked;
            }
        }
    })
    .await
}

#[actix_web::test]
async fn a_control_token_is_renewed_on_the_open_channel_and_the_newest_one_reconnects() {
    let gateway = TestGateway::configured(&[], short_tokens).await;
    let proxy = Proxy::to(gateway.address().port()).await;
    let session = gateway.session("ann").await;
    let first_ends_s = clock::unix_s() + CONTROL_TTL.as_secs();
    let url = proxy.instead_of(&session.control_url);
    let (mut device, _) = Device::connect(&url, &session.control_token, quick_retry()).await.unwrap();

    wait_for(&mut device, |event| match event {
        DeviceEvent::Message(message) => match **message {
            // Issued when the first token was not accepted any more.
            ToClient::ControlToken { expires_at, .. } => {
                (expires_at > first_ends_s + LEEWAY_S + CONTROL_TTL.as_secs()).then_some(())
            }
            _ => None,
        },
        DeviceEvent::Disconnected { reason, .. } => panic!("disconnected: {reason}"),
        DeviceEvent::Ended(end) => panic!("{end:?}"),
        _ => None,
    })
    .await;
    let first = Channel::open_unattached(&session.control_url, &session.control_token).await;
    assert!(matches!(first, Err(ClientError::Refused { code, .. }) if code == "EXPIRED_TOKEN"));
    proxy.cut();

    let resumed = wait_for(&mut device, |event| match event {
        DeviceEvent::Attached(ack) if ack.epoch > 1 => Some(ack.resumed),
        DeviceEvent::Ended(end) => panic!("{end:?}"),
        _ => None,
    })
    .await;
    assert!(resumed);
}

#[actix_web::test]
async fn a_device_whose_token_is_refused_at_a_reconnect_ends_instead_of_retrying() {
    let port = free_port().to_string();
    let settings = |secret| [("PORT", port.as_str()), ("CONTROL_TOKEN_SECRET", secret)];
    let gateway = TestGateway::with(&settings("the first secret, long enough")).await;
    let session = gateway.session("ann").await;
    let (mut device, _) =
        Device::connect(&session.control_url, &session.control_token, quick_retry()).await.unwrap();

    let _gateway = gateway.restart(&settings("another secret, long enough")).await;

    let end = wait_for(&mut device, |event| match event {
        DeviceEvent::Ended(end) => Some(end.clone()),
        _ => None,
    })
    .await;
    assert!(matches!(&end, End::TokenRejected { code, .. } if code == "INVALID_TOKEN"), "{end:?}");
    assert!(device.next().await.is_none());
}

#[actix_web::test]
async fn a_users_own_token_is_renewed_by_its_owner_and_without_that_the_device_ends() {
    let gateway = TestGateway::with(&[("AUTH_JWT_SECRET", USERS_SECRET)]).await;
    let url = gateway.ws_url();
    let (mut ann, _) = Device::connect(&url, &users_token("ann", 1), quick_retry()).await.unwrap();
    let (mut bob, _) = Device::connect(&url, &users_token("bob", 1), quick_retry()).await.unwrap();

    let expiring = |event: &DeviceEvent| matches!(event, DeviceEvent::TokenExpiring { .. }).then_some(());
    wait_for(&mut ann, expiring).await;
    wait_for(&mut bob, expiring).await;
    ann.renew_token(Secret::new(users_token("ann", 600))).await;

    let end = wait_for(&mut bob, |event| match event {
        DeviceEvent::Ended(end) => Some(end.clone()),
        _ => None,
    })
    .await;
    assert!(matches!(&end, End::TokenRejected { code, .. } if code == "EXPIRED_TOKEN"), "{end:?}");
    assert!(bob.next().await.is_none());
    // Ann's first token ended no later than Bob's.
    ann.send(FromClient::Ping(Ping { t: Some(4242.into()) })).await;
    wait_for(&mut ann, |event| match event {
        DeviceEvent::Message(message) => match &**message {
            ToClient::Pong { t: Some(t) } if t.as_u64() == Some(4242) => Some(()),
            _ => None,
        },
        DeviceEvent::Disconnected { reason, .. } => panic!("disconnected: {reason}"),
        DeviceEvent::Ended(end) => panic!("{end:?}"),
        _ => None,
    })
    .await;
}
