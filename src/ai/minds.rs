//! Puts the minds together from settings: what is there is ready, what is not is off and says why.
//!
//! A gateway starts whatever is missing. Each [`Mind`] that is off carries one sentence for the log
//! and for `GET /health`: which part it is and how to get it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::moonshine::Moonshine;
use super::onnx::Runtime;
use super::parrot::Parrot;
use super::phonemes::{self, Phonemizer, Pronunciations};
use super::piper::Piper;
use super::silero::Engine;
use super::{AiError, Speaker, Thinker, Transcriber};
use crate::speech::detector::{Earshot, SpeechDetector, StageSettings, TwoStage};

/// The file name of ONNX Runtime, as `scripts/setup` installs it.
const RUNTIME_FILE: &str = "libonnxruntime.so.1.23.2";

/// What the minds are made of.
#[derive(Clone, Debug)]
pub struct MindSettings {
    /// The folder that `scripts/setup models` fills.
    pub models: PathBuf,
    /// Threads that transcribe, each with 160 MB of its own.
    pub transcriber_workers: usize,
    /// Threads that speak.
    pub speaker_workers: usize,
}

/// A part that is ready, or off with the reason.
#[derive(Clone)]
pub enum Mind<T: ?Sized> {
    /// It works.
    Ready(Arc<T>),
    /// It does not; the sentence says which part, why, and how to get it.
    Off(String),
}

impl<T: ?Sized> Mind<T> {
    /// The part, where it is ready.
    pub fn ready(&self) -> Option<&Arc<T>> {
        match self {
            Mind::Ready(mind) => Some(mind),
            Mind::Off(_) => None,
        }
    }

    /// The sentence, where it is off.
    pub fn off(&self) -> Option<&str> {
        match self {
            Mind::Ready(_) => None,
            Mind::Off(why) => Some(why),
        }
    }
}

/// The folder of models where nothing else is said: `$JUNE_CACHE/models`, else `june-edge/models`
/// under the user's cache folder. None where there is no home either.
pub fn default_models() -> Option<PathBuf> {
    let folder = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let cache = folder("JUNE_CACHE").or_else(|| {
        let user = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
        Some(user.join("june-edge"))
    })?;
    Some(cache.join("models"))
}
