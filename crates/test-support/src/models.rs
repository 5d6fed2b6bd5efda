//! The installed models.

use std::{env, path::PathBuf};

/// The folder of the installed models: `$JUNE_CACHE/models`, by default `~/.cache/june-edge/models`.
///
/// # Panics
/// If there are none: a test that needs them fails rather than being skipped.
pub fn models() -> PathBuf {
    let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = || folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    let cache = folder("JUNE_CACHE").or_else(|| Some(user()?.join("june-edge")));
    let folder = cache.expect("a home directory, or JUNE_CACHE").join("models");
    assert!(folder.is_dir(), "no models in {}: run scripts/setup models", folder.display());
    folder
}
