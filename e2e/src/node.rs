//! The client in TypeScript: its own tests, and the tests that a scenario runs against a cluster that it has started.
//!
//! Packages are installed as the lock file says, and everything is compiled, once per process; what has been installed
//! is kept between runs.

use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use serde_json::Value;
use tokio::{process::Command, sync::OnceCell};

/// How long installing, compiling or testing may take.
const STEP_MAX: Duration = Duration::from_secs(480);
/// The oldest Node.js that the package promises to run on.
const NODE_MIN: (u32, u32) = (20, 19);

/// The package, compiled.
#[derive(Debug)]
pub struct Node {
    package: PathBuf,
}

impl Node {
    /// The package, ready to be tested. `None` with the reason on standard error where Node.js or npm is missing;
    /// continuous integration has to have them.
    ///
    /// # Errors
    /// If they are missing although `CI` is set, or the package cannot be installed or compiled.
    pub async fn ready() -> Result<Option<&'static Self>, String> {
        static READY: OnceCell<Option<Node>> = OnceCell::const_new();
        let ready = READY.get_or_try_init(async || match missing().await {
            None => Self::prepare().await.map(Some),
            Some(missing) if std::env::var_os("CI").is_some() => Err(missing),
            Some(missing) => {
                eprintln!("e2e: SKIPPED the client in TypeScript: {missing}");
                Ok(None)
            }
        });
        Ok(ready.await?.as_ref())
    }

    async fn prepare() -> Result<Self, String> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let package = here.parent().unwrap_or(here).join("client/typescript");
        let lock = read(&package.join("package-lock.json"))?;
        let installed = package.join("node_modules/.installed");
        if !read(&installed).is_ok_and(|text| text == lock) {
            run(&package, "npm", &["ci", "--ignore-scripts", "--no-progress"]).await?;
            std::fs::write(&installed, lock).map_err(|error| format!("{}: {error}", installed.display()))?;
        }
        run(&package, "npm", &["run", "--silent", "build"]).await?;
        run(&package, "npm", &["run", "--silent", "build:test"]).await?;
        Ok(Self { package })
    }

    /// Runs the package's tests in a folder or file, and shows the names of those that passed. `world` says where the
    /// cluster is, if they need one.
    ///
    /// # Errors
    /// If a test fails: what was printed. Also if none ran or one was skipped.
    pub async fn test(&self, path: &str, world: Option<&Value>) -> Result<(), String> {
        let path = format!("build/{path}");
        let mut command = command(&self.package, "node", &["--test", "--test-reporter=spec", &path]);
        if let Some(world) = world {
            command.env("MPCIUM_E2E", world.to_string());
        }
        let (status, printed) = output(command).await?;
        closing(&printed, status)
    }

    /// Runs one of the package's examples in a folder, and returns what it printed.
    ///
    /// # Errors
    /// If it fails: what it printed.
    pub async fn example(&self, name: &str, folder: &Path, variables: &[(&str, &str)]) -> Result<String, String> {
        let program = self.package.join("build/examples").join(name).with_extension("js");
        let mut command = command(folder, "node", &[&program.to_string_lossy()]);
        command.envs(variables.iter().copied());
        let (status, printed) = output(command).await?;
        if status.success() { Ok(printed) } else { Err(format!("the example {name} ended with {status}:\n{printed}")) }
    }
}

async fn missing() -> Option<String> {
    let version = async |program: &str| {
        let (status, printed) = output(command(Path::new("."), program, &["--version"])).await.ok()?;
        status.success().then(|| printed.trim().trim_start_matches('v').to_owned())
    };
    let Some(node) = version("node").await else { return Some("there is no Node.js on the PATH".to_owned()) };
    let mut numbers = node.split('.').map_while(|number| number.parse::<u32>().ok());
    if (numbers.next()?, numbers.next()?) < NODE_MIN {
        return Some(format!("Node.js {node} is too old, {}.{} is needed", NODE_MIN.0, NODE_MIN.1));
    }
    version("npm").await.is_none().then(|| "there is no npm on the PATH".to_owned())
}

fn command(folder: &Path, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    // A test of the package must not believe that it runs inside of another one.
    command.args(arguments).current_dir(folder).env_remove("NODE_TEST_CONTEXT").env_remove("NODE_OPTIONS");
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn output(mut command: Command) -> Result<(ExitStatus, String), String> {
    let shown = format!("{:?}", command.as_std().get_program());
    let output = tokio::time::timeout(STEP_MAX, command.output())
        .await
        .map_err(|_| format!("{shown} took more than {} s", STEP_MAX.as_secs()))?
        .map_err(|error| format!("{shown}: {error}"))?;
    Ok((output.status, String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()))
}

async fn run(folder: &Path, program: &str, arguments: &[&str]) -> Result<(), String> {
    let (status, printed) = output(command(folder, program, arguments)).await?;
    if status.success() {
        return Ok(());
    }
    Err(format!("{program} {} in {} ended with {status}:\n{printed}", arguments.join(" "), folder.display()))
}

/// Shows which tests ran, and fails unless some did, all passed and none was skipped.
fn closing(printed: &str, status: ExitStatus) -> Result<(), String> {
    let count = |what: &str| {
        let line = printed.lines().rev().find_map(|line| line.strip_prefix(&format!("ℹ {what} ")));
        line.and_then(|number| number.trim().parse::<u32>().ok())
    };
    let (passed, skipped) = (count("pass"), count("skipped"));
    if !status.success() {
        return Err(format!("the tests in TypeScript ended with {status}:\n{printed}"));
    }
    if passed.unwrap_or(0) == 0 || skipped != Some(0) {
        return Err(format!("the tests in TypeScript did not all run:\n{printed}"));
    }
    let shown = |line: &&str| line.trim_start().starts_with('✔') && !line.contains("child [");
    printed.lines().filter(shown).for_each(|line| eprintln!("typescript: {line}"));
    Ok(())
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn tests_that_fail_are_skipped_or_missing_are_failures() {
        let ended = |code: i32| ExitStatus::from_raw(code << 8);
        let printed = |passed: u32, skipped: u32| format!("✔ a test (1ms)\nℹ pass {passed}\nℹ skipped {skipped}\n");
        assert_eq!(closing(&printed(1, 0), ended(0)), Ok(()));
        assert!(closing(&printed(1, 0), ended(1)).is_err());
        assert!(closing(&printed(0, 0), ended(0)).is_err());
        assert!(closing(&printed(3, 1), ended(0)).is_err());
        assert!(closing("", ended(0)).is_err());
    }
}
