//! From text to phonemes.

pub mod cmudict;
pub mod phonemizer;
pub mod text_normalizer;
