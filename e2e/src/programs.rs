//! Where the programs are, and calling the command line. A missing program fails the test and says how to get it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The node program that was built together with the running test.
///
/// # Errors
/// If it has not been built.
pub fn mpcium() -> Result<PathBuf, String> {
    let here = std::env::current_exe().map_err(|error| format!("where this test is: {error}"))?;
    // Tests lie in target/<profile>/deps, programs beside that folder.
    here.ancestors().skip(1).take(2).map(|folder| folder.join("mpcium")).find(|program| program.is_file()).ok_or_else(
        || format!("the program mpcium is not beside {}: run `cargo build --workspace --bins` first", here.display()),
    )
}

/// `nats-server` or `consul`, as the project's script installs them.
///
/// # Errors
/// If it is not installed.
pub fn server(name: &str) -> Result<PathBuf, String> {
    tool(&Path::new("bin").join(name), "make servers (scripts/fetch-servers.sh)")
}

/// A program at a path inside the tools folder, which a script of the project fills.
///
/// # Errors
/// If it is not there: how to get it.
pub fn tool(path: &Path, script: &str) -> Result<PathBuf, String> {
    let tools = std::env::var_os("MPCIUM_TOOLS").map_or_else(|| project().join(".tools"), PathBuf::from);
    let program = tools.join(path);
    if program.is_file() { Ok(program) } else { Err(format!("{} is missing: run {script} first", program.display())) }
}

/// The published primes, with which tests need not wait for fresh ones.
#[must_use]
pub fn test_primes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/test-primes.txt")
}

/// The project's folder.
#[must_use]
pub fn project() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// A command of the node program, in an environment in which no setting of the caller's counts.
///
/// # Errors
/// If the program has not been built.
pub fn command(arguments: &[&str]) -> Result<Command, String> {
    let mut command = Command::new(mpcium()?);
    command.args(arguments).env_clear();
    for name in ["PATH", "TMPDIR", "RUST_BACKTRACE"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    Ok(command)
}

/// An example of the Rust client that was built together with the running test.
///
/// # Errors
/// If it has not been built.
pub fn example(name: &str) -> Result<PathBuf, String> {
    let program = mpcium()?.with_file_name("examples").join(name);
    if program.is_file() {
        return Ok(program);
    }
    Err(format!("{} is missing: run `cargo build --workspace --examples` first", program.display()))
}

/// Runs an example in `folder`, with no environment but `variables`, and returns what it printed.
///
/// # Errors
/// If it fails: what it said.
pub fn run_example(
    folder: &Path,
    name: &str,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> Result<String, String> {
    let output = Command::new(example(name)?)
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .map_err(|error| format!("example {name}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("example {name} {} ended with {}: {said}", arguments.join(" "), output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command of the node program in `folder` and returns what it printed.
///
/// # Errors
/// If it fails: what it said.
pub fn run(folder: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = command(arguments)?
        .current_dir(folder)
        .output()
        .map_err(|error| format!("mpcium {}: {error}", arguments.join(" ")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("mpcium {} ended with {}: {said}", arguments.join(" "), output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
