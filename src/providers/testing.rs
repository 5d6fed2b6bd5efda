//! What tests of the minds share: where the models are, what the recordings say, and how wrong a
//! transcript is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::providers::inference::onnx::Runtime;

// Shared with the end-to-end tests, so that both call the same words wrong.
#[path = "../../tests/e2e/support/word_errors.rs"]
mod counting;
pub(crate) use counting::word_errors;

/// The installed models.
///
/// # Panics
/// Where there are none: a test that needs them fails rather than pass unrun.
pub(crate) fn models() -> PathBuf {
    let cache = super::cache_folder(|name| std::env::var(name).ok());
    let folder = cache.expect("a home directory, or JUNE_CACHE").join("models");
    assert!(folder.is_dir(), "no models in {}: run scripts/setup models", folder.display());
    folder
}

pub(crate) fn runtime() -> Runtime {
    Runtime::load(&models().join("libonnxruntime.so.1.23.2")).expect("scripts/setup models installs it")
}

/// What is said in each recording of tests/fixtures/audio: lower case, no punctuation.
pub(crate) fn transcripts() -> BTreeMap<String, String> {
    let json = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/audio/transcripts.json"));
    serde_json::from_str(json).expect("file names to sentences")
}

#[test]
fn word_errors_count_insertions_deletions_and_replacements() {
    assert_eq!(word_errors("go forward ten meters", "Go forward, 10 meters!"), 0);
    assert_eq!(word_errors("a b c", "a x c d"), 2);
    assert_eq!(word_errors("a b", ""), 2);
}
