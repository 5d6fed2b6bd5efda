//! Joining and leaving rooms leaks no tasks, files or threads.

use std::time::Duration;

use futures::future::join_all;
use livekit::webrtc::audio_stream::native::NativeAudioStream;
use tokio::process::Command;
use tokio::runtime::Handle;

use crate::support::{MODES, Server, TEST_TIMEOUT, read, subscribed};

/// Set in the process that runs only this test. The counts are per process, and other tests run in the same one.
const ISOLATED: &str = "LIBWEBRTC_TEST_ALONE";

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_connections_leak_no_task_no_socket_and_no_thread() {
    if std::env::var_os(ISOLATED).is_none() {
        let run = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("leaks::hundreds_of_connections_leak_no_task_no_socket_and_no_thread")
            .env(ISOLATED, "1")
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let output = [run.stdout, run.stderr].concat();
        let output = String::from_utf8_lossy(&output);
        assert!(run.status.success() && output.contains("1 passed"), "{output}");
        return;
    }

    let server = Server::start().await;
    let mut python = server.python("leaks", "python", &["tone", "440"]);
    python.expect_line("published").await;
    // The first round starts what remains running: the runtime's threads, the resolver.
    round(&server, 0).await;
    let before = ResourceCounts::settled(&ResourceCounts { tasks: 0, ..ResourceCounts::now() }).await;

    for number in 1..=50 {
        round(&server, number).await;
    }

    let after = ResourceCounts::settled(&before).await;
    assert!(after.within(&before), "{before:?} became {after:?}");
}

/// Joins and leaves ten times, alternating the modes, while audio is received.
async fn round(server: &Server, number: u32) {
    let joins = (0..10).map(|place| async move {
        let mode = MODES[place % 2];
        let (room, mut events) = server.join("leaks", &format!("rust-{number}-{place}"), mode).await;
        let mut stream = NativeAudioStream::new(subscribed(&mut events).await.rtc_track(), 16_000, 1);
        read(&mut stream, 16_000, 0.1).await;
        room.close().await.unwrap();
    });
    join_all(joins).await;
}

/// Resources of this process.
#[derive(Debug)]
struct ResourceCounts {
    tasks: usize,
    files: usize,
    threads: usize,
}

impl ResourceCounts {
    fn now() -> Self {
        let count = |path: &str| std::fs::read_dir(path).unwrap().count();
        Self {
            tasks: Handle::current().metrics().num_alive_tasks(),
            files: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
        }
    }

    fn within(&self, goal: &Self) -> bool {
        self.tasks <= goal.tasks && self.files <= goal.files && self.threads <= goal.threads
    }

    /// The counts once they are not above `goal`, or after the timeout.
    async fn settled(goal: &Self) -> Self {
        let settle = async {
            loop {
                let now = Self::now();
                if now.within(goal) {
                    return now;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(TEST_TIMEOUT, settle).await.unwrap_or_else(|_| Self::now())
    }
}
