//! Disks that take no data: full and freed, read-only.

use june_edge::protocol::edge_v1::from_client::ConnectionInit;
use reqwest::StatusCode;

use crate::support::{Glasses, June, Launch, SmallDisk, times};

/// Talks until the gateway says that its disk is full.
async fn talk_until_full(june: &June, glasses: &mut Glasses) {
    // sled fills the rest of its segment first.
    for n in 0..2_000 {
        glasses.ask(&format!("Line {n}, {}", "and on it goes ".repeat(100))).await;
        if june.get("/readyz").await.0 == 503 {
            return;
        }
    }
    panic!("the disk never became full");
}

#[actix_web::test]
async fn a_full_disk_stops_no_conversation_and_everything_is_saved_again_once_there_is_space() {
    let disk = SmallDisk::mount(8);
    let launch = Launch::on_disk(&disk);
    let mut june = launch.start().await;
    let mut ann = june.glasses("ann").await;
    let mut saved = vec![ann.ask_and_save("One").await];

    let mut bobs = Vec::new();
    for time in 0..times() {
        disk.fill();
        talk_until_full(&june, &mut ann).await;

        // The gateway says what is wrong, and goes on as well as it can.
        let reasons = june.readiness(503).await;
        assert!(reasons.contains("store: the disk is full"), "{reasons}");
        let store = june.part("store").await;
        assert_eq!(store["ready"], false);
        assert!(store["message"].as_str().unwrap().contains("the disk is full"), "{store}");
        assert_eq!(june.metric("june_store_ready").await, 0.0);
        assert!(june.metric("june_store_errors_total").await >= 1.0);
        ann.ask("Are you still there").await;
        assert!(june.metric("june_history_unsaved_total").await >= 1.0);
        let mut bob = june.glasses(&format!("bob-{time}")).await;
        bob.ask("Me too").await;
        assert!(june.places(&ann.session).await.contains(&saved[0]), "the history is still read");

        disk.free();

        june.readiness(200).await;
        saved.push(ann.ask_and_save("And now").await);
        let of_bob = bob.ask_and_save("And me").await;
        bobs.push((bob, of_bob));
        assert_eq!(june.metric("june_store_ready").await, 1.0);
        assert!(june.metric("june_store_reopens_total").await > time as f64);
        assert_eq!(june.metric("june_store_lost_writes_total").await, 0.0);
    }

    // What was acknowledged, and that the sessions began, is there after a crash.
    june.kill();
    let june = launch.start().await;
    let places = june.places(&ann.session).await;
    assert!(saved.iter().all(|place| places.contains(place)), "{saved:?} of {places:?}");
    for (bob, of_bob) in &bobs {
        assert!(june.places(&bob.session).await.contains(of_bob));
    }
    let glasses = bobs.into_iter().map(|(bob, _)| bob).chain([ann]);
    for (before, session) in glasses.map(|glasses| (glasses.ack, glasses.session)) {
        let url = format!("{}/v1/ws", june.url.replacen("http", "ws", 1));
        let opened = june_client::Channel::open(&url, &session.control_token, ConnectionInit::default());
        let (_, after) = opened.await.unwrap();
        assert_eq!(after.session_id, before.session_id);
        assert!(after.epoch > before.epoch, "turn numbers begin after those of every earlier actor");
    }
}

#[actix_web::test]
async fn with_a_full_disk_what_has_to_be_durable_is_refused_with_503_and_the_time_to_try_again() {
    let disk = SmallDisk::mount(8);
    let june = Launch::on_disk(&disk).start().await;
    let mut ann = june.glasses("ann").await;
    disk.fill();
    talk_until_full(&june, &mut ann).await;

    let url = format!("{}/api/sessions/{}/history", june.url, ann.session.session_id);
    let refused = june.http.delete(&url).send().await.unwrap();

    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    disk.free();
    june.readiness(200).await;
    assert_eq!(june.http.delete(&url).send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(june.places(&ann.session).await, Vec::<u64>::new());
}

#[actix_web::test]
async fn a_disk_that_is_full_or_read_only_at_the_start_is_named_with_exit_code_73() {
    for (prepare, cause) in [
        (SmallDisk::fill as fn(&SmallDisk), "the disk is full"),
        (SmallDisk::make_read_only, "the disk is read-only"),
    ] {
        let disk = SmallDisk::mount(2);
        prepare(&disk);

        let output = Launch::on_disk(&disk).run(&["serve"]);

        assert_eq!(output.status.code(), Some(73), "{output:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let last = text.lines().last().unwrap();
        assert!(last.starts_with(&format!("june: {}", disk.path().display())), "{text}");
        assert!(last.contains(cause), "{text}");
    }
}
