//! fly.toml and the Dockerfile are held against the binary: its ports, paths, settings and flags.

use std::{collections::HashMap, fs, path::Path, process::Command, time::Duration};

use june_edge::config::Config;
use toml::{Table, Value};

use crate::support::TestGateway;

fn repository(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// The code that reads the settings.
fn settings() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config");
    let parts = fs::read_dir(folder).unwrap().map(|part| fs::read_to_string(part.unwrap().path()).unwrap());
    let untested = |part: String| part.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
    parts.map(untested).collect()
}

fn fly() -> Table {
    repository("fly.toml").parse().unwrap()
}

/// What Fly gives the process: `[env]`, and the secrets that the file asks for.
fn environment(fly: &Table) -> HashMap<String, String> {
    let env = fly["env"].as_table().unwrap().iter().map(|(name, value)| (name.clone(), text(value)));
    let secrets = [
        ("API_KEYS", "a-key-of-16-bytes-or-more"),
        ("LIVEKIT_URL", "wss://livekit.example"),
        ("LIVEKIT_API_KEY", "key"),
        ("LIVEKIT_API_SECRET", "livekit-secret-of-32-bytes-or-more"),
    ];
    env.chain(secrets.map(|(name, value)| (name.to_owned(), value.to_owned()))).collect()
}

fn config(fly: &Table) -> Config {
    let environment = environment(fly);
    Config::read(|name| environment.get(name).cloned()).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// The instructions of the Dockerfile, continued lines joined.
fn dockerfile() -> Vec<String> {
    let joined = repository("Dockerfile").replace("\\\n", " ");
    joined
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

fn instruction<'a>(lines: &'a [String], name: &str) -> &'a str {
    lines.iter().rev().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}")).trim()
}

#[test]
fn the_settings_of_fly_are_good_and_reach_the_world() {
    let fly = fly();
    let config = config(&fly);

    assert_eq!(
        i64::from(config.server.bind.port()),
        fly["http_service"]["internal_port"].as_integer().unwrap()
    );
    assert!(config.server.bind.ip().is_unspecified(), "Fly's proxy comes from outside");
    assert_eq!(
        i64::from(config.telemetry.metrics_bind.unwrap().port()),
        fly["metrics"]["port"].as_integer().unwrap()
    );
    assert!(config.telemetry.log.json);
}

#[test]
fn history_is_on_the_volume() {
    let fly = fly();
    assert_eq!(config(&fly).stores.data_dir, Path::new(&text(&fly["mounts"]["destination"])));
}

#[test]
fn no_setting_of_fly_is_misspelt() {
    let known = settings();
    for name in environment(&fly()).keys() {
        assert!(known.contains(&format!("\"{name}\"")), "the gateway reads no {name}");
    }
}

#[test]
fn the_settings_page_has_every_setting() {
    let (page, code) = (repository("docs/SETTINGS.md"), settings());
    let names: Vec<&str> = code
        .split('"')
        .filter(|word| {
            word.len() > 2
                && !word.starts_with('_')
                && word.chars().all(|mark| mark.is_ascii_uppercase() || mark == '_')
        })
        .collect();
    assert!(names.len() > 40, "{names:?}");
    for name in names {
        assert!(page.contains(&format!("`{name}`")), "docs/SETTINGS.md lacks {name}");
    }
}

#[test]
fn fly_gives_the_gateway_time_to_say_good_bye() {
    let fly = fly();
    assert_eq!(text(&fly["kill_signal"]), "SIGTERM");
    let patience = Duration::from_secs(fly["kill_timeout"].as_integer().unwrap().try_into().unwrap());
    assert!(patience > june_edge::http::server::SHUTDOWN, "{patience:?}");
    assert_eq!(
        text(&fly["http_service"]["auto_stop_machines"]),
        "off",
        "a call must not end for lack of requests"
    );
}

#[actix_web::test]
async fn the_paths_that_fly_asks_are_there() {
    let fly = fly();
    let gateway = TestGateway::with(&[("METRICS_PORT", "0")]).await;
    for check in fly["http_service"]["checks"].as_array().unwrap() {
        assert_eq!(gateway.get(&text(&check["path"])).await.0, 200);
    }
    assert_eq!(gateway.get(&text(&fly["metrics"]["path"])).await.0, 200);
}

#[test]
fn the_image_starts_a_command_that_exists_on_the_port_it_exposes() {
    let lines = dockerfile();
    let command: Vec<String> = serde_json::from_str(instruction(&lines, "CMD")).unwrap();
    assert_eq!(command[0], "june");
    let help = Command::new(env!("CARGO_BIN_EXE_june")).args(&command[1..]).arg("--help").output().unwrap();
    assert!(help.status.success(), "june {:?}", &command[1..]);

    let default = Config::read(|_| None).unwrap().server.bind.port();
    assert_eq!(instruction(&lines, "EXPOSE"), default.to_string());
    assert_eq!(instruction(&lines, "STOPSIGNAL"), "SIGTERM");
}

#[test]
fn the_image_copies_what_exists_and_runs_as_nobody_special() {
    let lines = dockerfile();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for line in lines.iter().filter_map(|line| line.strip_prefix("COPY ")) {
        let source = line.split_whitespace().next().unwrap();
        if !source.starts_with("--from=") {
            assert!(root.join(source).exists(), "{source}");
        }
    }
    let entrypoint: Vec<String> = serde_json::from_str(instruction(&lines, "ENTRYPOINT")).unwrap();
    assert_eq!(entrypoint, ["/usr/local/bin/start-in-container"]);
    let start = repository("scripts/start-in-container");
    assert!(start.contains("setpriv --reuid=june"), "the process drops root");
    assert!(lines.iter().any(|line| line.contains("useradd --system") && line.ends_with("/data")));
}

#[test]
fn the_image_finds_its_models_and_its_data() {
    let lines = dockerfile();
    let env = instruction(&lines, "ENV");
    let environment: HashMap<&str, &str> =
        env.split_whitespace().filter_map(|pair| pair.split_once('=')).collect();
    let config = Config::read(|name| environment.get(name).map(|value| (*value).to_owned())).unwrap();

    assert_eq!(config.stores.data_dir, Path::new(instruction(&lines, "VOLUME")));
    let copied = lines.iter().find_map(|line| line.strip_prefix("COPY --from=models /june/models ")).unwrap();
    assert_eq!(config.providers.registry.models, Path::new(copied));
}

#[test]
fn the_image_is_built_with_the_toolchain_of_the_repository() {
    let toolchain: Table = repository("rust-toolchain.toml").parse().unwrap();
    let channel = text(&toolchain["toolchain"]["channel"]);
    let from = dockerfile().into_iter().find(|line| line.ends_with("AS program")).unwrap();
    assert!(from.starts_with(&format!("FROM rust:{channel}-")), "{from} is not {channel}");
}
