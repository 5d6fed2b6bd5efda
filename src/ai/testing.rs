//! What tests of the minds share: where the models are, what the recordings say, and how wrong a
//! transcript is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::onnx::Runtime;

/// The installed models.
///
/// # Panics
/// Where there are none: a test that needs them fails rather than pass unrun.
pub(crate) fn models() -> PathBuf {
    let cache = super::minds::cache_folder(|name| std::env::var(name).ok());
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

/// Words to insert, delete and replace to get from one text to the other, case and punctuation
/// aside.
pub(crate) fn word_errors(spoken: &str, understood: &str) -> usize {
    let (spoken, understood) = (words(spoken), words(understood));
    let mut row: Vec<usize> = (0..=understood.len()).collect();
    for (i, wanted) in spoken.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, got) in understood.iter().enumerate() {
            let replaced = diagonal + usize::from(wanted != got);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[understood.len()]
}

fn words(text: &str) -> Vec<String> {
    text.to_lowercase()
        .replace("mr.", "mister")
        .replace('-', " ")
        .replace("10", "ten")
        .split_whitespace()
        .map(|word| word.chars().filter(|mark| mark.is_alphanumeric()).collect::<String>())
        .filter(|word| !word.is_empty())
        .collect()
}

#[test]
fn word_errors_count_insertions_deletions_and_replacements() {
    assert_eq!(word_errors("go forward ten meters", "Go forward, 10 meters!"), 0);
    assert_eq!(word_errors("a b c", "a x c d"), 2);
    assert_eq!(word_errors("a b", ""), 2);
}
