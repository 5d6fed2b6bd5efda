//! The process may have few files open.

use tokio::net::TcpStream;

use crate::support::{Glasses, Launch, until};

/// Of which the gateway gives at most three quarters to connections.
const DESCRIPTORS: u32 = 256;

#[actix_web::test]
async fn a_flood_of_connections_leaves_files_for_the_store_and_for_who_is_attached() {
    let data = tempfile::tempdir().unwrap();
    let june = Launch::on(data.path()).with_descriptors(DESCRIPTORS).start().await;
    let mut ann = june.glasses("ann").await;
    let address = june.url.strip_prefix("http://").unwrap();

    let mut idle = Vec::new();
    for _ in 0..DESCRIPTORS {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    ann.ask_and_save("Are you there?").await;

    drop(idle);
    until(async || {
        june.http.get(format!("{}/livez", june.url)).send().await.ok().filter(|it| it.status() == 200)
    })
    .await;
    assert!(june.metric(r#"june_connections_refused_total{by="all"}"#).await > 0.0);
    let session = june.session("eve").await;
    Glasses::attach(session).await.ask_and_save("And I?").await;
}
