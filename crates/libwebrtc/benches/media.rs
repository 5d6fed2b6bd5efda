//! Resource usage of receiving agents: CPU, memory, threads, and join times.
//!
//! ```text
//! LIVEKIT_SERVER=… JUNE_PYTHON=… NODE_PATH=… cargo bench -p libwebrtc --bench media
//! ```
//! Starts a livekit-server, a process with publishers and a process with agents. Each agent is in a room with one
//! publisher and decodes its microphone track to 16 kHz mono. Only the process of the agents is measured, from `/proc`.
//! Writes `target/bench/media.json`. All figures depend on the machine and its other load.
//!
//! After the run with 20 agents, 20 agents with the official SDKs for Python and Node.js (Google's libwebrtc) receive
//! the same rooms of the same server in the same way: one process, one agent per room, one application thread besides
//! those of the library, 16 kHz mono, every frame read and discarded. Whole processes are compared, including the
//! interpreter of the SDK. `memory` is the resident set size, including code of programs and libraries;
//! `private_memory` excludes these and is the part that grows with the number of agents.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::f64::consts::PI;
use std::ffi::OsStr;
use std::ops::Range;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use livekit::options::TrackPublishOptions;
use livekit::prelude::*;
use livekit::webrtc::audio_source::native::NativeAudioSource;
use livekit::webrtc::audio_stream::native::NativeAudioStream;
use livekit::webrtc::prelude::{AudioFrame, AudioSourceOptions, RtcAudioSource};
use livekit_api::access_token::{AccessToken, VideoGrants};
use serde_json::{Value, json};
use test_support::free_port;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;

const KEY: &str = "devkey";
const SECRET: &str = "secret-secret-secret-secret-secret";
const RATE: u32 = 48_000;
/// Number of rooms for the measurement of joins.
const JOIN_ROOMS: u32 = 10;
/// Duration of the measurement of the steady state.
const WINDOW: Duration = Duration::from_secs(15);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["publish", url, first, end] => {
            publish(url, first.parse().expect("a number")..end.parse().expect("a number")).await;
        }
        ["listen", url, agents, rooms] => {
            let report =
                listen(url, agents.parse().expect("a number"), rooms.parse().expect("a number")).await;
            say(&report.to_string());
        }
        ["joins", url, per_second, seconds] => {
            let report =
                joins(url, per_second.parse().expect("a number"), seconds.parse().expect("a number")).await;
            say(&report.to_string());
        }
        [] => compare(&[1, 10, 20, 100, 300]).await,
        _ => compare(&words.iter().map(|n| n.parse().expect("a number of agents")).collect::<Vec<_>>()).await,
    }
}

// --- The comparison -----------------------------------------------------------------------------------------

async fn compare(sizes: &[u32]) {
    let server = Server::start().await;
    let mut report = BTreeMap::new();
    let mut runs: BTreeMap<u32, Value> = BTreeMap::new();
    let mut sdks: BTreeMap<&str, Value> = BTreeMap::new();
    // Joins first, while the machine is otherwise idle: the server uses more CPU per join than the agents do.
    let mut publishers = vec![server.publishers(0, JOIN_ROOMS).await];
    let mut published = JOIN_ROOMS;
    let mut joins = BTreeMap::new();
    for (per_second, suffix) in [(25, "_25_per_s"), (50, "")] {
        let run = server.run(&["joins", &server.url(), &per_second.to_string(), "6"]).await;
        say(&format!("{per_second} joins per second: {run}"));
        for key in ["join_p50_ms", "join_p99_ms", "first_frame_p50_ms", "failed_joins", "leaked_tasks"] {
            report.insert(format!("{key}{suffix}"), run[key].clone());
        }
        joins.insert(per_second.to_string(), run);
    }
    for agents in sizes {
        // Publishers use more CPU than agents: only as many as needed are started, and large runs have several agents
        // per room.
        let rooms = (*agents).min(100);
        if rooms > published {
            publishers.push(server.publishers(published, rooms).await);
            published = rooms;
        }
        let run = server.run(&["listen", &server.url(), &agents.to_string(), &rooms.to_string()]).await;
        say(&format!("{agents} agents: {run}"));
        report.insert(format!("cpu_s_per_agent_s_n{agents}"), run["cpu_s_per_agent_s"].clone());
        let ours = &*runs.entry(*agents).or_insert(run);
        if *agents != 20 {
            continue;
        }
        for (name, prefix, program, script) in [
            ("Python", "sdk", std::env::var_os("JUNE_PYTHON"), "agents.py"),
            ("Node.js", "node_sdk", std::env::var_os("NODE_PATH").map(|_| "node".into()), "agents.cjs"),
        ] {
            let Some(program) = program else { continue };
            let Some(sdk) = server.run_sdk(&program, script, 20).await else {
                say(&format!("the SDK for {name} failed to run and is left out"));
                continue;
            };
            say(&format!("20 agents of the SDK for {name}: {sdk}"));
            for (key, figure) in [
                ("cpu_ratio_n20", "cpu_s_per_agent_s"),
                ("memory_ratio_n20", "rss_kb"),
                ("private_memory_ratio_n20", "private_kb"),
            ] {
                report.insert(format!("{prefix}_{key}"), ratio(&sdk[figure], &ours[figure]));
            }
            sdks.insert(name, sdk);
        }
    }
    // Runs in which the server and the publishers overload the machine are excluded from the figures per agent.
    let kept_up = runs.iter().filter(|(_, run)| number(&run["heard_of_real_time"]) > 0.95);
    if let (Some((few, one)), Some((many, other))) = (runs.first_key_value(), kept_up.last())
        && many > few
    {
        let kb = (number(&other["rss_kb"]) - number(&one["rss_kb"])) / f64::from(many - few);
        report.insert("kb_per_agent".to_owned(), json!(kb.round()));
        let per_core = 1.0 / number(&other["cpu_s_per_agent_s"]);
        report.insert("agents_per_core".to_owned(), json!(per_core.round()));
    }
    let path = std::env::var_os("BENCH_OUT").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/bench/media.json")),
        PathBuf::from,
    );
    std::fs::create_dir_all(path.parent().expect("the path has a parent"))
        .expect("the directory can be created");
    let text = serde_json::to_string_pretty(
        &json!({ "figures": report, "runs": runs, "sdks": sdks, "joins": joins }),
    )
    .expect("the report serializes");
    std::fs::write(&path, &text).expect("the report can be written");
    say(&text);
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

fn ratio(one: &Value, other: &Value) -> Value {
    json!((number(one) / number(other) * 100.0).round() / 100.0)
}

// --- Agents -------------------------------------------------------------------------------------------------

async fn listen(url: &str, agents: u32, rooms: u32) -> Value {
    let mut joining: FuturesUnordered<_> = (0..agents)
        .map(|agent| async move {
            // Joins are spread out, since only the steady state after them is measured.
            tokio::time::sleep(Duration::from_millis(50) * agent).await;
            let (room, identity) = (format!("bench-{}", agent % rooms), format!("agent-{agent}"));
            // A join may time out on a busy machine; join times are measured separately.
            let mut failed = 0;
            loop {
                match join(url, &room, &identity).await {
                    Ok(agent) => return (agent, failed),
                    Err(error) if failed == 4 => panic!("failed to join: {error}"),
                    Err(_) => failed += 1,
                }
            }
        })
        .collect();
    let mut listeners = Vec::new();
    let (enough, over) = tokio::sync::watch::channel(false);
    let mut joined_again = 0;
    while let Some((agent, failed)) = joining.next().await {
        joined_again += failed;
        listeners.push(tokio::spawn(agent.listen(over.clone())));
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (cpu, start) = (cpu_s(), Instant::now());
    tokio::time::sleep(WINDOW).await;
    let (used, seconds) = (cpu_s() - cpu, start.elapsed().as_secs_f64());
    let (rss_kb, private_kb, threads) = (status("VmRSS:"), status("RssAnon:"), status("Threads:"));
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let (mut frames, mut worst, mut of_real_time) = (0, Vec::new(), 0.0);
    enough.send_replace(true);
    for listener in listeners {
        let stats = listener.await.expect("the listener does not panic");
        frames += stats.frames;
        of_real_time += stats.of_real_time / f64::from(agents);
        worst.push(stats.worst_gap);
    }
    json!({
        "agents": agents,
        "cpu_s_per_agent_s": used / seconds / f64::from(agents),
        "rss_kb": rss_kb,
        "private_kb": private_kb,
        "joined_again": joined_again,
        "threads": threads,
        "tasks": tasks,
        "frames": frames,
        "heard_of_real_time": of_real_time,
        "worst_gap_p99_ms": percentile(&mut worst, 0.99),
    })
}

/// Joins at a constant rate; each agent leaves after its first frame.
async fn joins(url: &str, per_second: u32, seconds: u32) -> Value {
    let pace = Duration::from_secs(1) / per_second;
    let results: Vec<Result<_, String>> = (0..per_second * seconds)
        .map(|agent| async move {
            tokio::time::sleep(pace * agent).await;
            let start = Instant::now();
            let room = format!("bench-{}", agent % JOIN_ROOMS);
            let mut agent = match join(url, &room, &format!("joiner-{agent}")).await {
                Ok(agent) => agent,
                Err(error) => return Err(error.to_string()),
            };
            let joined = start.elapsed();
            let mut stream = agent.stream().await;
            stream.next().await.expect("the track has audio");
            let first_frame = start.elapsed();
            drop(stream);
            agent.room.close().await.expect("leaving works");
            Ok((joined, first_frame))
        })
        .collect::<FuturesUnordered<_>>()
        .collect()
        .await;
    let mut reasons: BTreeMap<String, u32> = BTreeMap::new();
    let (mut joined, mut first) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok((join, frame)) => {
                joined.push(join);
                first.push(frame);
            }
            Err(reason) => *reasons.entry(reason).or_default() += 1,
        }
    }
    // Time for LiveKit to end its tasks after a close.
    tokio::time::sleep(Duration::from_secs(2)).await;
    json!({
        "failed_joins": reasons.values().sum::<u32>(),
        "why": reasons,
        "join_p50_ms": percentile(&mut joined, 0.5),
        "join_p99_ms": percentile(&mut joined, 0.99),
        "first_frame_p50_ms": percentile(&mut first, 0.5),
        "first_frame_p99_ms": percentile(&mut first, 0.99),
        "leaked_tasks": tokio::runtime::Handle::current().metrics().num_alive_tasks(),
    })
}

struct Agent {
    room: Room,
    events: tokio::sync::mpsc::UnboundedReceiver<RoomEvent>,
}

struct ReceiveStats {
    frames: u64,
    worst_gap: Duration,
    /// Received audio as a fraction of the elapsed time.
    of_real_time: f64,
}

async fn join(url: &str, room: &str, identity: &str) -> Result<Agent, RoomError> {
    let grants = VideoGrants {
        room_join: true,
        room: room.to_owned(),
        hidden: true,
        can_publish: Some(false),
        ..VideoGrants::default()
    };
    let (room, events) = Room::connect(url, &token(identity, grants), RoomOptions::default()).await?;
    Ok(Agent { room, events })
}

impl Agent {
    async fn stream(&mut self) -> NativeAudioStream {
        loop {
            let event = self.events.recv().await.expect("the room is connected");
            if let RoomEvent::TrackSubscribed { track: RemoteTrack::Audio(track), .. } = event {
                return NativeAudioStream::new(track.rtc_track(), 16_000, 1);
            }
        }
    }

    /// Reads the frames of its track and the events of its room until `over` changes.
    async fn listen(mut self, mut over: tokio::sync::watch::Receiver<bool>) -> ReceiveStats {
        let mut stream = self.stream().await;
        let mut stats = ReceiveStats { frames: 0, worst_gap: Duration::ZERO, of_real_time: 0.0 };
        let start = Instant::now();
        let mut last = start;
        loop {
            stats.of_real_time = stats.frames as f64 / 100.0 / start.elapsed().as_secs_f64();
            tokio::select! {
                frame = stream.next() => {
                    if frame.is_none() {
                        return stats;
                    }
                    stats.frames += 1;
                    if stats.frames > 100 {
                        stats.worst_gap = stats.worst_gap.max(last.elapsed());
                    }
                    last = Instant::now();
                }
                event = self.events.recv() => if event.is_none() {
                    return stats;
                },
                _ = over.changed() => return stats,
            }
        }
    }
}

// --- Publishers ---------------------------------------------------------------------------------------------

/// Publishes a track in the rooms with these numbers until the process is killed.
async fn publish(url: &str, rooms: Range<u32>) {
    let (voice, mut speakers) = (voice(), Vec::new());
    for number in rooms {
        let grants =
            VideoGrants { room_join: true, room: format!("bench-{number}"), ..VideoGrants::default() };
        let (room, events) = Room::connect(url, &token("speaker", grants), RoomOptions::default())
            .await
            .expect("joining works");
        let source = NativeAudioSource::new(AudioSourceOptions::default(), RATE, 1, 100);
        let track = LocalAudioTrack::create_audio_track("mic", RtcAudioSource::Native(source.clone()));
        let options =
            TrackPublishOptions { source: TrackSource::Microphone, ..TrackPublishOptions::default() };
        room.local_participant()
            .publish_track(LocalTrack::Audio(track), options)
            .await
            .expect("publishing works");
        speakers.push((room, events));
        tokio::spawn(speak(source, Arc::clone(&voice), number));
    }
    say("published");
    std::future::pending::<()>().await;
}

async fn speak(source: NativeAudioSource, voice: Arc<[i16]>, number: u32) {
    const FRAME: usize = RATE as usize / 50;
    let frames = voice.len() / FRAME;
    for at in (number as usize * 7 % frames..frames).chain((0..frames).cycle()) {
        let data = Cow::Borrowed(&voice[at * FRAME..][..FRAME]);
        let frame =
            AudioFrame { data, sample_rate: RATE, num_channels: 1, samples_per_channel: FRAME as u32 };
        source.capture_frame(&frame).await.expect("the frame fits the source");
    }
}

/// Ten seconds of a signal with the spectrum and rhythm of speech, so that the codec behaves as with speech.
fn voice() -> Arc<[i16]> {
    let sample = |n: u32| {
        let t = f64::from(n) / f64::from(RATE);
        let pitch = 120.0 + 20.0 * (2.0 * PI * 0.7 * t).sin();
        let syllable = (2.0 * PI * 3.0 * t).sin().max(0.0);
        let voice: f64 = (1..12).map(|k| (2.0 * PI * pitch * f64::from(k) * t).sin() / f64::from(k)).sum();
        (voice * syllable * 4_000.0) as i16
    };
    (0..10 * RATE).map(sample).collect()
}

// --- Server and processes -----------------------------------------------------------------------------------

struct Server {
    _process: Child,
    port: u16,
    _files: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        let binary =
            std::env::var_os("LIVEKIT_SERVER").expect("LIVEKIT_SERVER must name a livekit-server binary");
        let files = tempfile::TempDir::new().expect("a temporary directory can be created");
        let (port, tcp_port, udp) = (free_port(), free_port(), free_port());
        let path = files.path().join("livekit.yaml");
        let config = format!(
            "port: {port}\nbind_addresses: [\"127.0.0.1\"]\nkeys:\n  {KEY}: {SECRET}\nlogging:\n  level: error\n\
             rtc:\n  node_ip: 127.0.0.1\n  use_external_ip: false\n  enable_loopback_candidate: true\n  \
             udp_port: {udp}\n  tcp_port: {tcp_port}\n"
        );
        std::fs::write(&path, config).expect("the configuration can be written");
        let process = Command::new(binary)
            .arg("--config")
            .arg(path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the server starts");
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { _process: process, port, _files: files }
    }

    fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    async fn publishers(&self, first: u32, end: u32) -> Child {
        let mut process = this_program(&["publish", &self.url(), &first.to_string(), &end.to_string()]);
        let mut lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        lines.next_line().await.expect("the publishers report").expect("the publishers publish");
        process
    }

    async fn run(&self, arguments: &[&str]) -> Value {
        report_of(this_program(arguments)).await.expect("the process prints a report")
    }

    async fn run_sdk(&self, program: &OsStr, script: &str, agents: u32) -> Option<Value> {
        let mut command = Command::new(program);
        command.arg(format!("{}/benches/{script}", env!("CARGO_MANIFEST_DIR"))).arg(self.url());
        for agent in 0..agents {
            let grants = VideoGrants {
                room_join: true,
                room: format!("bench-{agent}"),
                hidden: true,
                can_publish: Some(false),
                ..VideoGrants::default()
            };
            command.arg(token(&format!("sdk-{agent}"), grants));
        }
        report_of(command.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("the SDK starts")).await
    }
}

fn this_program(arguments: &[&str]) -> Child {
    let program = std::env::current_exe().expect("this program has a path");
    Command::new(program)
        .args(arguments)
        // At each join livekit runs lsb_release, a shell script that uses twice the CPU time of the join. Server images
        // do not have it, so it is hidden.
        .env("PATH", "")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the process starts")
}

/// The report of a process, which is the last line of its output; `None` if there is none.
async fn report_of(mut process: Child) -> Option<Value> {
    let mut lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
    let mut last = None;
    while let Some(line) = lines.next_line().await.expect("the output can be read") {
        last = Some(line);
    }
    process.wait().await.expect("the process ends");
    last.map(|line| serde_json::from_str(&line).expect("the report is JSON"))
}

// --- Measurement --------------------------------------------------------------------------------------------

/// CPU time of this process in seconds, user and system.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux has /proc");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // utime and stime are fields 14 and 15 (proc(5)), in ticks of 10 ms; the first two fields are cut off.
    let ticks =
        |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(f64::NAN);
    (ticks(11) + ticks(12)) / 100.0
}

fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has /proc");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|value| value.parse().ok()).unwrap_or(0)
}

fn percentile(durations: &mut [Duration], of: f64) -> f64 {
    durations.sort_unstable();
    let place = ((durations.len().max(1) - 1) as f64 * of).round() as usize;
    durations.get(place).map_or(f64::NAN, |duration| (duration.as_secs_f64() * 10_000.0).round() / 10.0)
}

fn token(identity: &str, grants: VideoGrants) -> String {
    let token = AccessToken::with_api_key(KEY, SECRET).with_identity(identity).with_grants(grants);
    token.to_jwt().expect("the claims are well-formed")
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its results")]
fn say(line: &str) {
    println!("{line}");
}
