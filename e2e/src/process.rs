//! One process in a group of its own, with its output in a file; its whole group is killed when it is dropped.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::wait;

/// Bytes of a log's end that a failure shows.
const TAIL_BYTES: u64 = 12_000;

/// A running or ended process.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts a program in `folder`; what it prints is added to the file `log`.
    ///
    /// # Errors
    /// If it cannot be started or the log cannot be written.
    pub fn start(name: &str, mut command: Command, folder: &Path, log: &Path) -> Result<Self, String> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(|error| format!("{}: {error}", log.display()))?;
        let copy = file.try_clone().map_err(|error| format!("{}: {error}", log.display()))?;
        let child = command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(copy)
            .process_group(0)
            .spawn()
            .map_err(|error| format!("{name} ({:?}) does not start: {error}", command.get_program()))?;
        Ok(Self { name: name.to_owned(), log: log.to_owned(), child })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where its output is.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Whether it has ended, and how.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, String> {
        self.child.try_wait().map_err(|error| format!("{}: {error}", self.name))
    }

    /// Kills it without warning, as a power cut would, and waits for its end.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        // It has been killed: it ends, and whoever waits twice gets the same answer.
        let _ = self.child.wait();
    }

    /// Asks it to stop and waits for its end.
    ///
    /// # Errors
    /// If it does not end within `patience`.
    pub async fn stop(&mut self, patience: Duration) -> Result<ExitStatus, String> {
        self.signal(Signal::TERM);
        self.wait(patience).await
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it does not end within `patience`.
    pub async fn wait(&mut self, patience: Duration) -> Result<ExitStatus, String> {
        let what = format!("the end of {}", self.name);
        wait::until_sync(&what, patience, || self.ended()?.ok_or_else(|| "it still runs".to_owned())).await
    }

    fn signal(&mut self, signal: Signal) {
        // An ended child has been waited for, so its number may belong to somebody else by now.
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may end at this very moment: then there is nothing to signal.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last lines of a log.
#[must_use]
pub fn tail(log: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("(no log: {error})"),
    }
}
