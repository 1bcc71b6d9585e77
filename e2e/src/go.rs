//! Clients written in Go, run against a cluster that a scenario has started: the tests of the module `e2e/go`, whose client
//! was written for them, and those of `e2e/go/unmodified`, which use the Go system's own client package as published.

use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use serde_json::Value;

/// How long the Go tests of one scenario may take, building them included.
const GO_MAX: Duration = Duration::from_secs(480);

/// Releases of the Go system whose client package is used: the last one that knows no client ids, and one that does.
const RELEASES: [&str; 2] = ["v0.3.5", "f05b0a2"];
/// What Go says when a module cannot be had here, whatever there is elsewhere.
const UNAVAILABLE: [&str; 5] = ["Forbidden", "Not Found", "not available", "dial tcp", "module lookup disabled"];

/// The Go toolchain.
#[derive(Clone, Debug)]
pub struct Go {
    program: PathBuf,
}

impl Go {
    /// The toolchain on the search path, or where Go's own installer puts it. `None` with the reason on standard error
    /// where there is none; continuous integration has to have it.
    ///
    /// # Errors
    /// If there is none although `CI` is set.
    pub fn find() -> Result<Option<Self>, String> {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let places = std::env::split_paths(&paths).chain([PathBuf::from("/usr/local/go/bin")]);
        let found = places.map(|place| place.join("go")).find(|program| program.is_file());
        match found {
            Some(program) => Ok(Some(Self { program })),
            None if std::env::var_os("CI").is_some() => Err("there is no Go toolchain".to_owned()),
            None => {
                eprintln!("e2e: SKIPPED the clients in Go: there is no Go toolchain on the PATH or in /usr/local/go");
                Ok(None)
            }
        }
    }

    /// Runs the Go tests whose names match a pattern, and shows their closing lines. `world` says where the cluster
    /// is, in the form that the module's `world` type reads.
    ///
    /// # Errors
    /// If a test fails: what was printed. Also if none ran.
    pub async fn test(&self, pattern: &str, world: &Value) -> Result<(), String> {
        self.run_tests(&folder(), &["./scenarios"], pattern, world).await
    }

    /// Fetches the client package of both releases, and makes the tests that use it ready, below `into`. `None`, with
    /// Go's reason on standard error, where the module is not served.
    ///
    /// # Errors
    /// If the tests cannot be copied, or do not fit the package.
    pub async fn system(&self, into: &Path) -> Result<Option<GoSystem>, String> {
        let mut modules = Vec::new();
        for release in RELEASES {
            let module = into.join(format!("unmodified-{release}"));
            copy(&folder().join("unmodified"), &module).map_err(|error| format!("{}: {error}", module.display()))?;
            let wanted = format!("github.com/fystack/mpcium@{release}");
            let output = self.run(&module, &["get", "-t", &wanted, "./..."], &[]).await?;
            let said = String::from_utf8_lossy(&output.stderr);
            if !output.status.success() {
                if UNAVAILABLE.iter().any(|words| said.contains(words)) {
                    let reason = said.lines().next().unwrap_or_default();
                    eprintln!("e2e: SKIPPED the Go system's own client: {reason}");
                    return Ok(None);
                }
                return Err(format!("go get {wanted} ended with {}:\n{said}", output.status));
            }
            modules.push(module);
        }
        Ok(Some(GoSystem { go: self.clone(), modules }))
    }

    async fn run_tests(&self, module: &Path, more: &[&str], pattern: &str, world: &Value) -> Result<(), String> {
        let arguments = [&["test", "-count=1", "-v", "-run", pattern], more].concat();
        let output = self.run(module, &arguments, &[("MPCIUM_E2E", world.to_string())]).await?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        closing(&printed, &String::from_utf8_lossy(&output.stderr), output.status)
    }

    async fn run(&self, module: &Path, arguments: &[&str], variables: &[(&str, String)]) -> Result<Output, String> {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(arguments).current_dir(module).stdin(Stdio::null()).kill_on_drop(true);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        tokio::time::timeout(GO_MAX, command.output())
            .await
            .map_err(|_| format!("go {} took more than {} s", arguments.join(" "), GO_MAX.as_secs()))?
            .map_err(|error| format!("{}: {error}", self.program.display()))
    }
}

/// The Go system's own client package, in two releases, and the tests that use it.
#[derive(Clone, Debug)]
pub struct GoSystem {
    go: Go,
    /// One module for each of [`RELEASES`].
    modules: Vec<PathBuf>,
}

impl GoSystem {
    /// Runs the tests whose names match a pattern with one release after the other.
    ///
    /// # Errors
    /// As [`Go::test`].
    pub async fn test(&self, pattern: &str, world: &Value) -> Result<(), String> {
        for module in &self.modules {
            self.go.run_tests(module, &[], pattern, world).await?;
        }
        Ok(())
    }

    /// Runs tests of the older release and tests of the newer one at the same time.
    ///
    /// # Errors
    /// As [`Go::test`].
    pub async fn test_at_once(&self, older: &str, newer: &str, world: &Value) -> Result<(), String> {
        let run = |module, pattern| self.go.run_tests(module, &[], pattern, world);
        futures::try_join!(run(&self.modules[0], older), run(&self.modules[1], newer)).map(drop)
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("go")
}

/// Copies the files of a folder without folders in it.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Shows which tests ran, and fails unless some did and all passed.
fn closing(printed: &str, said: &str, status: ExitStatus) -> Result<(), String> {
    let ends = |line: &&str| ["--- ", "ok ", "FAIL"].iter().any(|start| line.trim_start().starts_with(start));
    printed.lines().filter(ends).for_each(|line| eprintln!("go:  {line}"));
    if !status.success() {
        return Err(format!("the Go tests ended with {status}:\n{printed}{said}"));
    }
    if printed.contains("--- SKIP") || !printed.contains("--- PASS") {
        return Err(format!("the Go tests did not run:\n{printed}{said}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn tests_that_fail_are_skipped_or_missing_are_failures() {
        let ended = |code: i32| ExitStatus::from_raw(code << 8);
        assert_eq!(closing("--- PASS: TestA (0.1s)\nok  \tscenarios\t0.1s\n", "", ended(0)), Ok(()));
        assert!(closing("--- PASS: TestA (0.1s)\n--- FAIL: TestB\nFAIL\n", "", ended(1)).is_err());
        assert!(closing("--- SKIP: TestA (0.0s)\nok\n", "", ended(0)).is_err());
        assert!(closing("testing: warning: no tests to run\nok\n", "", ended(0)).is_err());
    }
}
