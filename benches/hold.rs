//! What holds under attack, under load and on bad days: what one user who floods the gateway costs another one, and
//! what is left of connections that never end, of a full disk, and of a process that is killed.
//!
//! Each part runs in a gateway process of its own, without LiveKit and, except for the memory, without models. The
//! parts that only wait run at the same time.
//!
//! `make bench-hold` prints a table and writes `target/bench/hold.json`. About three minutes.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and stops where something is missing"
)]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

#[path = "hold/attack.rs"]
mod attack;
#[path = "hold/client.rs"]
mod client;
#[path = "hold/disk_full.rs"]
mod disk_full;
#[path = "support/figures.rs"]
mod figures;
#[path = "support/gateway.rs"]
mod gateway;
#[path = "hold/held.rs"]
mod held;
#[path = "hold/killed.rs"]
mod killed;
#[path = "hold/model_calls.rs"]
mod model_calls;
#[path = "support/process.rs"]
mod process;
#[path = "support/sockets.rs"]
mod sockets;
#[path = "support/statistics.rs"]
mod statistics;

use std::{
    future::Future,
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use gateway::Gateway;
use test_support::rfc6455::{self, Report};

/// How long a fresh process may settle before its memory is read.
const SETTLE: Duration = Duration::from_secs(3);

fn main() {
    let mut figures: Vec<(String, f64)> = Vec::new();
    let mut say = |name: &str, value: f64, words: &str| {
        println!("{name:<28} {value:>10.2}   {words}");
        figures.push((name.to_owned(), value));
    };

    say("idle_rss_mb", idle_rss_mb(), "MB of a fresh idle process with its models");

    let attack = run(attack::effect());
    println!(
        "  another user's ping: p99 {:.2} ms before, {:.2} ms during {:.0} requests and messages a second, \
         {:.2} ms while another gateway on this machine is flooded",
        attack.before_p99_ms, attack.during_p99_ms, attack.per_s, attack.elsewhere_p99_ms
    );
    say("attack_effect_p99_ratio", attack.ratio(), "times what it was, while one user floods (at most 1.5)");

    // These wait for a minute.
    let held = thread::spawn(|| run(held::after_a_minute()));
    let calls = thread::spawn(|| run(model_calls::in_a_minute()));
    let killed = run(killed::rounds());
    let recovered_s = run(disk_full::recovery_s());
    let (held, calls) = (held.join().unwrap(), calls.join().unwrap());

    for (form, left) in &held {
        println!("  {form:<40} {left}");
    }
    let left: usize = held.iter().map(|(_, left)| left).sum();
    say("held_connections_after_60s", left as f64, "of 500 half-open connections (0)");
    say("llm_calls_per_min_one_user", calls.per_minute as f64, &format!("calls (at most {})", calls.limit));
    say("kill9_rounds", killed.rounds as f64, "times the process was killed while lines were saved");
    println!("  {} lines were acknowledged", killed.acknowledged);
    say("kill9_lost", killed.lost as f64, "acknowledged lines are gone (0)");
    match recovered_s {
        Some(seconds) => say("recover_after_enospc_s", seconds, "s until a line is saved again (at most 5)"),
        None => {
            println!("recover_after_enospc_s       not measured: no file system of our own can be mounted")
        }
    }
    let conformance = run(rfc6455());
    say("rfc6455_passed", conformance.passed as f64, "cases of RFC 6455");
    say("rfc6455_failed", conformance.failed.len() as f64, "cases of RFC 6455 (0)");
    figures::write_figures("hold", &figures);
}

fn run<T>(what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, what)
}

/// The cases of RFC 6455 against a gateway.
async fn rfc6455() -> Report {
    let gateway = Gateway::start();
    rfc6455::run(([127, 0, 0, 1], gateway.port).into()).await
}

/// The resident memory of a fresh `june serve` with the models that are installed.
fn idle_rss_mb() -> f64 {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let data = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_june"));
    command.arg("serve").stdin(Stdio::null()).env("PORT", port.to_string()).env("DATA_DIR", data.path());
    command.env("LIVEKIT_URL", "off").env("LLM", "echo").env("RUST_LOG", "off");
    let mut process = command.spawn().unwrap();
    wait_for(port);
    thread::sleep(SETTLE);
    let mb = process::resident_kb(process.id()) / 1024.0;
    process.kill().unwrap();
    process.wait().unwrap();
    mb
}

/// Waits until a port is open.
fn wait_for(port: u16) {
    let until = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < until, "the gateway does not start");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A gateway whose users bring tokens of their own, and that has one API key.
fn gateway_with_users(settings: &[(&str, &str)]) -> Gateway {
    let users =
        [("API_KEYS", client::BACKEND), ("HOST", "127.0.0.1"), ("AUTH_JWT_SECRET", client::USERS_SECRET)];
    Gateway::start_with(&[&users, settings].concat())
}
