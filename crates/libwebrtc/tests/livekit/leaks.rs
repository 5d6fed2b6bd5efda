//! Nothing is left behind by rooms that were joined and left.

use std::time::Duration;

use futures::future::join_all;
use livekit::webrtc::audio_stream::native::NativeAudioStream;
use tokio::process::Command;
use tokio::runtime::Handle;

use crate::support::{MODES, PATIENCE, Server, read, subscribed};

/// Set in the process that runs the test alone: what is counted belongs to the process, and other tests share theirs.
const ALONE: &str = "LIBWEBRTC_TEST_ALONE";

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_connects_leave_no_task_no_socket_and_no_thread() {
    if std::env::var_os(ALONE).is_none() {
        let run = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("leaks::hundreds_of_connects_leave_no_task_no_socket_and_no_thread")
            .env(ALONE, "1")
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let said = [run.stdout, run.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(run.status.success() && said.contains("1 passed"), "{said}");
        return;
    }

    let server = Server::start().await;
    let mut python = server.python("leaks", "python", &["tone", "440"]);
    python.says("published").await;
    // The first round starts what stays: the runtime's own threads, the resolver.
    round(&server, 0).await;
    let before = Left::settled(&Left { tasks: 0, ..Left::now() }).await;

    for number in 1..=50 {
        round(&server, number).await;
    }

    let after = Left::settled(&before).await;
    assert!(after.within(&before), "{before:?} became {after:?}");
}

/// Ten joins and leaves, half of them of each mode, while sound comes in.
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

/// What a process holds.
#[derive(Debug)]
struct Left {
    tasks: usize,
    files: usize,
    threads: usize,
}

impl Left {
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

    /// What is left once it is no more than `goal`, or after a while.
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
        tokio::time::timeout(PATIENCE, settle).await.unwrap_or_else(|_| Self::now())
    }
}
