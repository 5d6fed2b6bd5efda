//! This crate and the one whose place it takes have the same public API.
//!
//! [`program`] uses all of it. That it compiles here is the first half; the second half, which needs the other
//! crate, is asked for by name:
//! ```text
//! cargo test -p libwebrtc --test api -- --ignored
//! ```

mod program;

use std::process::Command;

/// The version whose place this crate takes.
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[test]
#[ignore = "gets and builds the crate whose place this one takes"]
fn the_same_program_compiles_against_the_genuine_crate() {
    let project = tempfile::TempDir::new().unwrap();
    let manifest = format!(
        "[package]\nname = \"program\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [lib]\npath = \"program.rs\"\n\n[dependencies]\nlibwebrtc = \"={VERSION}\"\ntokio-stream = \"0.1\"\n"
    );
    std::fs::write(project.path().join("Cargo.toml"), manifest).unwrap();
    std::fs::write(project.path().join("program.rs"), include_str!("program.rs")).unwrap();

    // With DOCS_RS set, the genuine crate does not fetch Google's library: there is nothing to link.
    let checked = Command::new(env!("CARGO"))
        .args(["check", "--quiet"])
        .current_dir(project.path())
        .env("DOCS_RS", "1")
        .env("CARGO_TARGET_DIR", project.path().join("target"))
        .output()
        .unwrap();

    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}");
}
