//! Whether a gateway keeps the promises that devices depend on, told from outside: docs/PROTOCOL.md and
//! docs/MENTRA.md as a device sees them. README.md beside this says how to run it against any gateway.
//!
//! Without `URL` it starts a gateway of its own. It prints a table, and fails where a case does.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "it prints its table, and stops where something of its own is missing"
)]

mod cases;
mod target;
mod wire;

use std::process::ExitCode;

use cases::{CASES, Case, Verdict};
use target::Target;
use wire::Profile;

fn main() -> ExitCode {
    // Two crypto providers are linked: `wss://` needs one to be chosen.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    if runtime.block_on(all()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn all() -> bool {
    let target = Target::find().await;
    println!("{}\n", target.name());
    let mut kept = true;
    for profile in [Profile::EdgeV1, Profile::Mentra] {
        let offered = wire::is_offered(&target, profile).await;
        for Case { number, name, run } in CASES {
            let verdict = match (&offered, run) {
                (Ok(()), Some(run)) => run(&target, profile).await.unwrap_or_else(Verdict::Failed),
                (Ok(()), None) => Verdict::Elsewhere,
                (Err(why), _) => Verdict::NotOffered(why.clone()),
            };
            kept &= !matches!(verdict, Verdict::Failed(_));
            let (verdict, why) = match verdict {
                Verdict::Passed => ("passed", String::new()),
                Verdict::Failed(why) => ("FAILED", why),
                Verdict::NotApplicable(why) => ("not applicable", why),
                Verdict::NotOffered(why) => ("not offered", why),
                Verdict::Elsewhere => ("from inside", "README.md says where".into()),
            };
            println!("{number:>2}  {:<8}  {name:<58}  {verdict:<14}  {why}", profile.name());
        }
    }
    kept
}
