//! The recordings of tests/fixtures/audio, and what is said in them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// A recording and what is said in it.
pub struct Clip {
    /// The WAV file.
    pub path: PathBuf,
    /// 16 kHz mono.
    pub samples: Vec<i16>,
    /// Lower case, no punctuation.
    pub words: String,
}

/// The recording with this file name.
///
/// # Panics
/// If there is none.
pub fn clip(name: &str) -> Clip {
    clips().into_iter().find(|clip| clip.path.ends_with(name)).expect("a recording of tests/fixtures/audio")
}

/// All recordings.
///
/// # Panics
/// If a recording cannot be read.
pub fn clips() -> Vec<Clip> {
    let clip = |(name, words)| {
        let path = fixtures().join(name);
        Clip { samples: read_wav(&path), path, words }
    };
    transcripts().into_iter().map(clip).collect()
}

/// What is said in each recording, by file name: lower case, no punctuation.
///
/// # Panics
/// If the file of transcripts cannot be read.
pub fn transcripts() -> BTreeMap<String, String> {
    let json = fs::read_to_string(fixtures().join("transcripts.json")).expect("transcripts.json");
    serde_json::from_str(&json).expect("file names and sentences")
}

/// The folder of the recordings.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/audio")
}

/// The samples of a 16 kHz mono WAV file.
///
/// # Panics
/// If the file cannot be read or has another format.
pub fn read_wav(path: &Path) -> Vec<i16> {
    let reader = hound::WavReader::open(path).expect("a WAV file");
    let spec = reader.spec();
    assert_eq!(
        (spec.sample_rate, spec.channels, spec.bits_per_sample),
        (16_000, 1, 16),
        "{}",
        path.display()
    );
    reader.into_samples::<i16>().collect::<Result<_, _>>().expect("a complete recording")
}
