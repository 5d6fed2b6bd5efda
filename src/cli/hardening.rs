//! What the process takes from itself before it reads a secret.

use rustix::{
    fs::Mode,
    process::{Resource, Rlimit, setrlimit, umask},
};

/// Files that the process creates are for its user alone, and its memory (keys, tokens, transcripts) is not
/// written to core files. Gives what could not be done.
pub(super) fn harden() -> Vec<String> {
    umask(Mode::RWXG | Mode::RWXO);
    let mut problems = Vec::new();
    let no_core = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, no_core) {
        problems.push(format!("core files cannot be switched off: {error}"));
    }
    // The limit alone does not stop a handler that the kernel pipes core files to (core(5)).
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
    {
        problems.push(format!("core dumps cannot be switched off: {error}"));
    }
    problems
}
