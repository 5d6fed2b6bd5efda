//! The text front end of a speech synthesizer: English text in, phonemes out.
//!
//! ```text
//!   text ─▶ text_normalizer ─▶ clauses of words ─▶ phonemizer ─▶ phonemes in IPA
//!                                                  ├─ cmudict: in the process
//!                                                  └─ eSpeak NG: a child process
//! ```
//!
//! [`text_normalizer::clauses`] writes numbers, times, units and abbreviations as words and cuts the text at
//! punctuation. A [`Phonemizer`] converts the clauses to phonemes in the notation of eSpeak's American English,
//! which Piper voices are trained on.
//!
//! # Limits
//!
//! English only. Words that neither CMUdict nor eSpeak NG knows are pronounced by spelling rules.
//!
//! # Example
//!
//! ```
//! use tts_frontend::{Cmudict, Phonemizer, text_normalizer};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let cmudict = Cmudict::parse("hello HH AH0 L OW1\nworld W ER1 L D\n".to_owned()).expect("small enough");
//! let phonemizer = Phonemizer::with_cmudict(cmudict, None);
//!
//! let phonemes = phonemizer.phonemes(&text_normalizer::clauses("Hello, world!")).await?;
//!
//! assert_eq!(phonemes, "həlˈoʊ, wˈɜːld!");
//! # Ok::<_, tts_frontend::Error>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

#![warn(missing_docs)]

pub mod cmudict;
pub mod phonemizer;
pub mod text_normalizer;

use std::path::PathBuf;

pub use cmudict::Cmudict;
pub use phonemizer::{Espeak, Phonemizer};
pub use text_normalizer::Clause;

/// Why text cannot be converted to phonemes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// CMUdict cannot be read.
    #[error("pronouncing dictionary {}: {problem}", path.display())]
    Cmudict {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// eSpeak NG failed or took too long.
    #[error("espeak-ng: {0}")]
    Espeak(String),
}
