//! A client that stops reading.

use june_client::{Channel, Event};
use june_edge::protocol::{
    FromClient, ToClient,
    edge_v1::{
        from_client::{ConnectionInit, Say},
        to_client::Finish,
    },
};

use crate::support::{June, LivekitServer, free_port, until};

/// What a gateway may grow by while it holds for a client what that one does not take. The bound of its
/// queue is 256 KiB; the rest is what speech synthesis wants for itself.
const GROWTH_KB: u64 = 64 * 1024;

/// Frames of 20 ms: two sentences and more.
const SENTENCES_FRAMES: usize = 250;

/// Minutes of speech.
fn long_line() -> String {
    "Let us go on for a while, and see who listens. ".repeat(80)
}

#[actix_web::test]
async fn a_client_that_stops_reading_is_let_go_and_nobody_else_notices() {
    let port = free_port();
    let livekit = LivekitServer::prepare(port);
    let data = tempfile::tempdir().unwrap();
    // Its own timers run while it takes nothing: the pings find the queue full, the grace ends the session.
    // The other one types as fast as it is answered.
    let settings = [
        ("SESSION_HEARTBEAT_MS", "1000"),
        ("SESSION_GRACE_MS", "1000"),
        ("LINES_PER_MINUTE_BY_USER", "0"),
        ("LLM_CALLS_PER_MINUTE_BY_USER", "0"),
    ];
    let june = June::with(&livekit, data.path(), port, &settings).await;
    let mut other = june.glasses("bob").await;
    other.channel.send(&FromClient::Say(Say { text: long_line() })).await.unwrap();
    other.wait_for(|event| matches!(event, Event::Audio(_)).then_some(())).await;
    // Two answers spoken at once take what they take from here on.
    let mut third = june.glasses("carl").await;
    third.channel.send(&FromClient::Say(Say { text: long_line() })).await.unwrap();
    for _ in 0..SENTENCES_FRAMES {
        third.wait_for(|event| matches!(event, Event::Audio(_)).then_some(())).await;
    }
    drop(third);
    let before_kb = june.resident_kb();

    let session = june.session("ann").await;
    let (mut stalled, _) =
        Channel::open(&session.control_url, &session.control_token, ConnectionInit::default()).await.unwrap();
    stalled.send(&FromClient::Say(Say { text: long_line() })).await.unwrap();
    let metrics = format!("{}/metrics", june.url());
    let mut answers = 0;
    loop {
        // From here on nobody reads `stalled`; the other one goes on talking.
        other.channel.send(&FromClient::Say(Say { text: "And you?".into() })).await.unwrap();
        let answered = other.wait_for_message(|message| match message {
            ToClient::AnswerDone { text, finish: Finish::Stop, .. } => {
                text.contains("And you?").then_some(())
            }
            _ => None,
        });
        answered.await;
        other.turn_saved().await;
        answers += 1;
        let text = june.http.get(&metrics).send().await.unwrap().text().await.unwrap();
        if text.lines().any(|line| line == "june_slow_clients_total 1") {
            break;
        }
    }

    assert!(answers > 1, "the other one was answered again and again");
    assert!(june.resident_kb() < before_kb + GROWTH_KB, "{before_kb} KiB, then {} KiB", june.resident_kb());
    let path = format!("{}/api/sessions/{}", june.url(), session.session_id);
    until(async || (june.http.get(&path).send().await.unwrap().status() == 404).then_some(())).await;
    drop(stalled);
}
