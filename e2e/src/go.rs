//! Clients written in Go: the tests of the module `e2e/go`, run against a cluster that a scenario has started.

use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use serde_json::Value;

/// How long the Go tests of one scenario may take, building them included.
const GO_MAX: Duration = Duration::from_secs(480);

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
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("go");
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(["test", "-count=1", "-v", "-run", pattern, "./scenarios"])
            .current_dir(&module)
            .env("MPCIUM_E2E", world.to_string())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(GO_MAX, command.output())
            .await
            .map_err(|_| format!("the Go tests {pattern} took more than {} s", GO_MAX.as_secs()))?
            .map_err(|error| format!("{}: {error}", self.program.display()))?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        closing(&printed, &String::from_utf8_lossy(&output.stderr), output.status)
    }
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
