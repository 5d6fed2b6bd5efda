//! Tests that this crate and the original `libwebrtc` crate have the same public API.
//!
//! [`program`] uses the whole API. It is compiled against this crate as part of this test, and against the original
//! crate by the test below.

mod program;

use std::path::Path;
use std::process::Command;

/// Version of the original crate that this one replaces.
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[test]
fn the_same_program_compiles_against_the_original_crate() {
    // The directory is kept, so that only the first run builds the original crate.
    let project = Path::new(env!("CARGO_TARGET_TMPDIR")).join("genuine");
    std::fs::create_dir_all(&project).unwrap();
    let manifest = format!(
        "[package]\nname = \"program\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [lib]\npath = \"program.rs\"\n\n[dependencies]\nlibwebrtc = \"={VERSION}\"\ntokio-stream = \"0.1\"\n"
    );
    std::fs::write(project.join("Cargo.toml"), manifest).unwrap();
    std::fs::write(project.join("program.rs"), include_str!("program.rs")).unwrap();

    // With DOCS_RS set, the build script of the original crate does not download Google's library.
    let checked = Command::new(env!("CARGO"))
        .args(["check", "--quiet"])
        .current_dir(&project)
        .env("DOCS_RS", "1")
        .env("CARGO_TARGET_DIR", project.join("target"))
        .output()
        .unwrap();

    let errors = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{errors}");
}
