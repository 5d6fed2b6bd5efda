//! x
use std::path::PathBuf;
/// The folder of models.
pub fn default_models() -> Option<PathBuf> {
    std::env::var_os("JUNE_CACHE").map(|c| PathBuf::from(c).join("models"))
}
