//! Removals: what one user may ask for, and what an operator can do all the same.

use livekit_protocol as proto;
use serde_json::json;

use super::answer;
use crate::{
    livekit::{Livekit, STUCK},
    support::{TestGateway, user_id},
};

#[actix_web::test]
async fn a_user_who_removes_invented_people_takes_nothing_from_operators_and_other_users() {
    let livekit = Livekit::start().await;
    let gateway = TestGateway::with(&[("LIVEKIT_URL", &livekit.url)]).await;
    let mut ann = gateway.glasses("ann").await;
    let remove = async |session: &june_client::SessionInfo, identity: &str| {
        let url = format!("{}/api/sessions/{}/participants/{identity}", gateway.url, session.session_id);
        answer(gateway.http.delete(url)).await
    };
    let mut refused = None;
    for n in 0..300 {
        let removed = remove(&ann.session, &format!("nobody-{n}")).await;
        if removed.status != 200 {
            refused = Some(removed);
            break;
        }
    }

    let refused = refused.expect("a limit");
    assert_eq!((refused.status, refused.body["code"].as_str()), (429, Some("RATE_LIMITED")));
    let wait = refused.retry_after.unwrap();
    assert!((890..=900).contains(&wait), "{wait} s: when the first entry ends");

    livekit.set_participants(vec![there("mallory")]);
    assert_eq!(remove(&ann.session, "mallory").await.status, 200, "who is in the room can be removed");
    assert_eq!(remove(&gateway.session("bob").await, "eve").await.status, 200);

    let path = format!("/api/admin/sessions/{}/disconnect", ann.session.session_id);
    let (status, body) = gateway.post(&path, &json!({})).await;
    assert_eq!((status, &body["status"], &body["failed"]), (200, &json!("ended"), &json!(null)), "{body}");
    assert_eq!(ann.closed().await.0, 1000);
    let again = gateway.api.create_session(&user_id("ann")).await;
    assert!(again.is_ok());
}

#[actix_web::test]
async fn an_operator_learns_who_could_not_be_removed_and_the_others_are() {
    let livekit = Livekit::start().await;
    let gateway = TestGateway::with(&[("LIVEKIT_URL", &livekit.url)]).await;
    let mut ann = gateway.glasses("ann").await;
    livekit.set_participants(vec![there(STUCK), there("mallory")]);
    let path = format!("/api/admin/sessions/{}/disconnect", ann.session.session_id);

    let (status, body) = gateway.post(&path, &json!({})).await;

    assert_eq!((status, &body["removed"]), (200, &json!(["mallory"])), "{body}");
    let failed = &body["failed"][0];
    assert_eq!((&failed["identity"], &failed["code"]), (&json!(STUCK), &json!("MEDIA_UNAVAILABLE")));
    assert_eq!(ann.closed().await.0, 1000);
}

fn there(identity: &str) -> proto::ParticipantInfo {
    proto::ParticipantInfo { identity: identity.into(), sid: format!("PA_{identity}"), ..Default::default() }
}
