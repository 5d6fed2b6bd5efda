//! The clock of the machine jumps.

use std::{fs, path::PathBuf};

use tempfile::TempDir;

use crate::support::{Launch, times};

/// The clock that one process sees, by libfaketime. Its monotonic clock stays as it is, as on a real machine.
struct Clock {
    folder: TempDir,
}

impl Clock {
    /// As the machine's own.
    fn new() -> Self {
        let clock = Self { folder: tempfile::tempdir().unwrap() };
        clock.jump("+0");
        clock
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("offset")
    }

    /// To so much after or before the machine's own time: `+3h`, `-400d`.
    fn jump(&self, offset: &str) {
        // In one step: the process reads it at any moment.
        let next = self.folder.path().join("next");
        fs::write(&next, offset).unwrap();
        fs::rename(next, self.file()).unwrap();
    }

    /// A launch whose process sees it.
    fn seen_by<'a>(&self, launch: Launch<'a>) -> Launch<'a> {
        let library = std::env::var("LIBFAKETIME").ok().filter(|path| !path.is_empty());
        let library = library.expect("LIBFAKETIME names libfaketimeMT.so.1: run scripts/setup faketime");
        launch
            .with("LD_PRELOAD", &library)
            .with("FAKETIME_TIMESTAMP_FILE", &self.file().display().to_string())
            .with("FAKETIME_NO_CACHE", "1")
            .with("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    }
}

#[actix_web::test]
async fn jumps_of_the_clock_end_no_conversation_and_lose_nothing() {
    let (data, clock) = (tempfile::tempdir().unwrap(), Clock::new());
    let launch = clock.seen_by(Launch::on(data.path()));
    let mut june = launch.start().await;
    let mut ann = june.glasses("ann").await;
    let mut saved = vec![ann.ask_and_save("One").await];

    for time in 0..times() {
        for offset in ["+3h", "-400d", "+0", "-1h"] {
            clock.jump(offset);
            saved.push(ann.ask_and_save("And now?").await);
            june.glasses(&format!("bob-{time}{offset}")).await.ask_and_save("Is somebody there?").await;
            assert_eq!(june.get("/readyz").await.0, 200, "{offset}");
        }
    }

    assert!(saved.is_sorted(), "what was said later comes later: {saved:?}");
    june.kill();
    let june = launch.start().await;
    let places = june.places(&ann.session).await;
    assert!(
        places.is_sorted() && saved.iter().all(|place| places.contains(place)),
        "{saved:?} of {places:?}"
    );
    assert_eq!(june.metric("june_store_lost_writes_total").await, 0.0);
}

#[actix_web::test]
async fn the_clock_that_a_process_sees_is_the_one_that_jumps() {
    let (data, clock) = (tempfile::tempdir().unwrap(), Clock::new());
    let june = clock.seen_by(Launch::on(data.path())).start().await;

    clock.jump("-400d");

    let session = june.session("ann").await;
    let now = june_edge::clock::unix_s();
    let expires = session.control_token_expires_at.unwrap();
    assert!(expires < now - 399 * 86_400, "a token is issued at {expires}, {now} is now");
}
