//! What the gateway adds to the providers' own latency, how fast another provider takes over and what of a transcript, an
//! answer and a sentence is lost or doubled by that, and what the embedded models cost.
//!
//! Each part runs in a gateway process of its own, without LiveKit. The first two use scripted providers.
//!
//! `make bench-providers` prints a table and writes `target/bench/providers.json`. About four minutes. After `--`, `cargo
//! bench` takes the parts to measure: `overhead`, `takeovers`, `embedded`; without one, all of them.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a benchmark prints, stops where something is missing, and waits for one message of many"
)]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

#[path = "providers/client.rs"]
mod client;
#[path = "providers/embedded.rs"]
mod embedded;
#[path = "support/figures.rs"]
mod figures;
#[path = "support/gateway.rs"]
mod gateway;
#[path = "providers/opus_down.rs"]
mod opus_down;
#[path = "providers/overhead.rs"]
mod overhead;
#[path = "support/process.rs"]
mod process;
#[path = "providers/takeovers.rs"]
mod takeovers;

use std::{future::Future, thread};

use takeovers::Takeovers;

/// What a takeover may take beyond its deadline, in milliseconds.
const MARGIN_MS: f64 = 300.0;

fn main() {
    // Two crypto providers are linked; the clients in this process need one to be chosen.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let parts: Vec<String> = std::env::args().skip(1).filter(|part| !part.starts_with('-')).collect();
    let is_asked = |part: &str| parts.is_empty() || parts.iter().any(|asked| asked == part);
    let mut figures: Vec<(String, f64)> = Vec::new();
    let mut say = |name: &str, value: f64, words: &str| {
        println!("{name:<28} {value:>9.2}   {words}");
        figures.push((name.to_owned(), value));
    };

    if is_asked("overhead") {
        let overhead = run(overhead::of_conversations());
        say("overhead_p50_ms", quantile(&overhead.ms, 0.5), "ms of a turn that are the gateway's own");
        let words = format!(
            "the same; {} turns in {} conversations at once (at most 20)",
            overhead.ms.len(),
            overhead.conversations
        );
        say("overhead_p99_ms", quantile(&overhead.ms, 0.99), &words);
        println!(
            "  the gateway took {:.0} % of a core, this client {:.0} %; {} turns had no answer",
            overhead.core_percent, overhead.client_core_percent, overhead.unanswered
        );
    }
    if is_asked("takeovers") {
        // They wait most of the time.
        let stt = thread::spawn(|| run(takeovers::stt()));
        let llm = thread::spawn(|| run(takeovers::llm()));
        let tts = run(takeovers::tts());
        let (stt, llm) = (stt.join().unwrap(), llm.join().unwrap());
        for (name, takeovers) in [("stt", &stt), ("llm", &llm), ("tts", &tts)] {
            let Takeovers { ms, deadline_ms, told, lost, doubled } = takeovers;
            let words = format!(
                "ms until another provider went on; {} times; its deadline is {deadline_ms:.0} (at most {:.0})",
                ms.len(),
                deadline_ms + MARGIN_MS
            );
            say(&format!("takeover_{name}_p95_ms"), quantile(ms, 0.95), &words);
            println!("  the client was told {told} times; {lost} words were lost, {doubled} doubled");
        }
        let all = [&stt, &llm, &tts];
        let sum = |of: fn(&Takeovers) -> usize| all.into_iter().map(of).sum::<usize>() as f64;
        say(
            "lost_words",
            sum(|takeovers| takeovers.lost),
            "words of transcripts, answers and speech are gone (0)",
        );
        say("doubled_words", sum(|takeovers| takeovers.doubled), "were there twice (0)");
    }
    if is_asked("embedded") {
        let embedded = run(embedded::costs());
        say(
            "idle_rss_mb",
            embedded.idle_rss_mb,
            "MB of a gateway with embedded models, 30 s after its start (at most 180)",
        );
        if let Some(kbit_s) = embedded.opus_down_kbit_s {
            say("opus_down_kbit_s", kbit_s, "kbit/s of speech in Opus");
        }
        say(
            "stream_core_percent_speech",
            embedded.stream_core_percent_speech,
            "% of a core for a stream of speech (at most 3)",
        );
    }
    match parts.is_empty() {
        true => figures::write_figures("providers", &figures),
        false => figures::add_figures("providers", &figures),
    }
}

fn run<T>(what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, what)
}

/// By the nearest rank.
fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted[rank.max(1) - 1]
}
