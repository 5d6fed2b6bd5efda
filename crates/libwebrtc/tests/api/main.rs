//! This crate and the one whose place it takes have the same public API.
//!
//! [`program`] uses all of it. That it compiles here is the first half; the second half gets the other crate
//! and compiles the same program against it.

mod program;

use std::path::Path;
use std::process::Command;

/// The version whose place this crate takes.
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[test]
fn the_same_program_compiles_against_the_genuine_crate() {
    // Kept from run to run: only the first one has to build the genuine crate.
    let project = Path::new(env!("CARGO_TARGET_TMPDIR")).join("genuine");
    std::fs::create_dir_all(&project).unwrap();
    let manifest = format!(
        "[package]\nname = \"program\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [lib]\npath = \"program.rs\"\n\n[dependencies]\nlibwebrtc = \"={VERSION}\"\ntokio-stream = \"0.1\"\n"
    );
    std::fs::write(project.join("Cargo.toml"), manifest).unwrap();
    std::fs::write(project.join("program.rs"), include_str!("program.rs")).unwrap();

    // With DOCS_RS set, the genuine crate does not fetch Google's library: there is nothing to link.
    let checked = Command::new(env!("CARGO"))
        .args(["check", "--quiet"])
        .current_dir(&project)
        .env("DOCS_RS", "1")
        .env("CARGO_TARGET_DIR", project.join("target"))
        .output()
        .unwrap();

    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}");
}
