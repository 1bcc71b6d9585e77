//! What the operating system and the bus know of this process. Whatever cannot be read is left out.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mpcium_io::nats::QueueDepth;

/// Folders below the store that are looked into.
const DEPTH_MAX: usize = 4;

/// The state of the machine at the moment of a scrape.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// The queues of requests.
    pub queues: Vec<QueueDepth>,
    /// How often the connection to NATS was made.
    pub nats_connects: Option<u64>,
    /// Bytes of the store's files.
    pub store_bytes: Option<u64>,
    /// When the store was made, in seconds since 1970.
    pub store_created: Option<f64>,
    /// When a file of it was last written.
    pub store_written: Option<f64>,
    /// Bytes that are left for it.
    pub disk_free: Option<u64>,
    /// When the process began.
    pub started: f64,
    /// Processor time.
    pub cpu_seconds: Option<f64>,
    /// Memory.
    pub resident_bytes: Option<u64>,
    /// Files and sockets.
    pub open_files: Option<u64>,
}

impl Machine {
    /// Looks at the node's folder and at this process. Reads files: not for a thread that must not block.
    #[must_use]
    pub fn look(folder: Option<&Path>, started: SystemTime) -> Self {
        let mut machine = Self { started: since_1970(started), ..Self::default() };
        if let Some(folder) = folder {
            let store = folder.join("store");
            let mut found = Found::default();
            found.add(&store, DEPTH_MAX);
            if found.files > 0 {
                machine.store_bytes = Some(found.bytes);
                machine.store_written = found.written.map(since_1970);
                machine.store_created = std::fs::metadata(&store).and_then(|s| s.created()).ok().map(since_1970);
            }
            machine.disk_free = disk_free(folder);
        }
        machine.cpu_seconds = cpu_seconds();
        machine.resident_bytes = resident_bytes();
        machine.open_files =
            std::fs::read_dir("/proc/self/fd").ok().and_then(|entries| u64::try_from(entries.count()).ok());
        machine
    }
}

/// Bytes that an ordinary user may still write to the disk that holds `path`.
#[must_use]
pub fn disk_free(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

/// What a walk over files has found.
#[derive(Default)]
struct Found {
    files: u64,
    bytes: u64,
    written: Option<SystemTime>,
}

impl Found {
    fn add(&mut self, folder: &Path, depth: usize) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            // A file that the engine removed meanwhile counts for nothing.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() && depth > 0 {
                self.add(&entry.path(), depth - 1);
            } else if metadata.is_file() {
                self.files += 1;
                self.bytes = self.bytes.saturating_add(metadata.len());
                self.written = self.written.max(metadata.modified().ok());
            }
        }
    }
}

fn since_1970(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}

fn cpu_seconds() -> Option<f64> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?);
    Some(Duration::new(seconds, nanos).as_secs_f64())
}

fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}
