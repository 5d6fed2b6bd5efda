//! The `june` command as an operator meets it.

use std::process::{Command, Output};

fn june(command: &str, settings: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_june"))
        .arg(command)
        .env_clear()
        .env("JUNE_MODELS", "/nowhere/models")
        .envs(settings.iter().copied())
        .output()
        .unwrap()
}

fn last_line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned()
}

#[test]
fn bad_settings_are_said_one_line_each_with_exit_code_64() {
    let output = june("serve", &[("PORT", "http"), ("HOST", "0.0.0.0")]);

    assert_eq!(output.status.code(), Some(64));
    let lines: Vec<String> = String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("june: HOST:")), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("june: PORT:")), "{lines:?}");
}

#[test]
fn settings_can_be_checked_without_starting() {
    assert_eq!(june("check-config", &[]).status.code(), Some(0));
    assert_eq!(june("check-config", &[("PORT", "http")]).status.code(), Some(64));
}

#[test]
fn a_taken_port_is_said_in_one_line_with_exit_code_73() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let data = tempfile::tempdir().unwrap();

    let output = june("serve", &[("PORT", &port), ("DATA_DIR", &data.path().display().to_string())]);

    assert_eq!(output.status.code(), Some(73));
    let line = last_line(&output);
    assert!(line.starts_with(&format!("june: cannot listen on 127.0.0.1:{port}")), "{line}");
}

#[test]
fn an_unwritable_data_folder_is_said_in_one_line_with_exit_code_73() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let folder = file.path().join("data").display().to_string();

    let output = june("serve", &[("PORT", "0"), ("DATA_DIR", &folder)]);

    assert_eq!(output.status.code(), Some(73));
    let line = last_line(&output);
    assert!(line.starts_with(&format!("june: {folder}")), "{line}");
}
