//! Writes figures to `target/bench/NAME.json`: `{"figures": {key: number}}`.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

/// Writes the figures of one benchmark.
#[allow(dead_code, reason = "a benchmark writes its figures, or adds them")]
pub fn write_figures(name: &str, figures: &[(String, f64)]) {
    write(name, Map::new(), figures);
}

/// Adds figures to those of another part of the benchmark.
#[allow(dead_code, reason = "a benchmark writes its figures, or adds them")]
pub fn add_figures(name: &str, figures: &[(String, f64)]) {
    let written = std::fs::read(path(name)).ok().and_then(|json| serde_json::from_slice::<Value>(&json).ok());
    let known = written.and_then(|json| json["figures"].as_object().cloned()).unwrap_or_default();
    write(name, known, figures);
}

fn write(name: &str, mut known: Map<String, Value>, figures: &[(String, f64)]) {
    known.extend(figures.iter().map(|(key, value)| (key.clone(), (*value).into())));
    let path = path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, serde_json::to_string_pretty(&json!({ "figures": known })).unwrap()).unwrap();
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench").join(format!("{name}.json"))
}
