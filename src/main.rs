//! The `june` command.

fn main() {}
