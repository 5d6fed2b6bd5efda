//! The recordings, and what is said in them.

use std::{collections::BTreeMap, path::PathBuf};

use june_edge::client::microphone::read_wav;

use super::repository;

/// A recording and what is said in it.
pub struct Clip {
    pub path: PathBuf,
    /// 16 kHz mono.
    pub samples: Vec<i16>,
    /// Lower case, no punctuation.
    pub words: String,
}

/// The recording of this name.
pub fn clip(name: &str) -> Clip {
    clips().into_iter().find(|clip| clip.path.ends_with(name)).unwrap()
}

/// Every recording of tests/fixtures/audio.
pub fn clips() -> Vec<Clip> {
    let folder = repository("tests/fixtures/audio");
    let transcripts = std::fs::read_to_string(folder.join("transcripts.json")).unwrap();
    let transcripts: BTreeMap<String, String> = serde_json::from_str(&transcripts).unwrap();
    let clip = |(name, words): (String, String)| {
        let path = folder.join(name);
        Clip { samples: read_wav(&path).unwrap(), path, words }
    };
    transcripts.into_iter().map(clip).collect()
}
