//! Models that judge whether a person has finished a turn, from how the speech sounds.

mod log_mel;
pub(crate) mod smart_turn;

use futures::future::BoxFuture;

use super::{ProviderError, inference::worker_pool::Hold};
use crate::audio::Pcm;

/// Judges whether a turn is complete. It is asked in a pause.
pub trait EndOfTurnModel: Send + Sync {
    /// As in settings, metrics and `/health`.
    fn name(&self) -> &'static str;

    /// Keeps the model in memory for as long as the hold lives.
    fn hold(&self) -> Hold {
        Hold::default()
    }

    /// The probability, 0 to 1, that the turn is complete. `pcm` is what was said of the turn, at 16 kHz, with the pause at
    /// its end. Dropping the future cancels the work.
    fn judge(&self, pcm: Pcm) -> BoxFuture<'static, Result<f32, ProviderError>>;
}
