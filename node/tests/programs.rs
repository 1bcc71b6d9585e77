//! The two programs as they are called from a shell. That this test exists also makes `cargo test --workspace` build
//! them, which the end-to-end tests need.

use std::process::{Command, Output};

fn run(program: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a temporary folder");
    Command::new(program)
        .args(arguments)
        .env_clear()
        .env("HOME", folder.path())
        .current_dir(folder.path())
        .output()
        .expect("the program runs")
}

#[test]
fn both_programs_say_their_name_and_version() {
    for (program, name) in [(env!("CARGO_BIN_EXE_mpcium"), "mpcium"), (env!("CARGO_BIN_EXE_mpcium-cli"), "mpcium-cli")]
    {
        let output = run(program, &["version"]);
        assert!(output.status.success());
        let expected = format!("{name} version {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    }
}

#[test]
fn a_start_without_a_configuration_fails_and_says_where_it_looked() {
    let output = run(env!("CARGO_BIN_EXE_mpcium"), &["start", "-n", "node0"]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no configuration file") && said.contains("config.yaml"), "{said}");
}
