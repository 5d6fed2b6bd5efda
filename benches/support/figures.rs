//! Where figures go: `target/bench/NAME.json`, `{"figures": {key: number}}`.

use std::path::Path;

/// Writes the figures of one benchmark.
pub fn write_figures(name: &str, figures: &[(String, f64)]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    std::fs::create_dir_all(&folder).unwrap();
    let figures: serde_json::Map<String, serde_json::Value> =
        figures.iter().map(|(key, value)| (key.clone(), (*value).into())).collect();
    let json = serde_json::to_string_pretty(&serde_json::json!({ "figures": figures })).unwrap();
    std::fs::write(folder.join(format!("{name}.json")), json).unwrap();
}
