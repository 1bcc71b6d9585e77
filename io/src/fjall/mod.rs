//! The node's store: one [fjall](::fjall) database, every record sealed, nothing lost silently, erasure that erases.
//!
//! ```text
//! <store>/            0700
//!   lock              held while a process has the store open
//!   envelope          the data key under the password (Argon2id)
//!   integrity         what must exist: count and set hash per keyspace
//!   keys/             one key per erasable record, in small files that are rewritten as a whole
//!   records/          the engine's files: keyed hashes of names, sealed records
//! ```
//!
//! Invariants: a batch is acknowledged only when it is durable together with the integrity record that counts it, which
//! the file beside holds before the next one; at start every record is read, opened and counted, and what does not add up
//! is said in words ([`BootRecord::damage`]); an erased record's key is durably gone before the erasure is acknowledged.
//!
//! All work is done by one thread, in order; batches that have queued up meanwhile share their syncs.

mod beside;
pub mod decode;
mod envelope;
mod files;
mod integrity;
mod keytable;
mod seal;
#[cfg(test)]
mod tests;
mod thread;
mod vault;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use mpcium_core::{Secret, store::BootRecord};

use crate::ports::Inbox;

use self::{
    envelope::{ENVELOPE_BYTES, EnvelopeError},
    seal::{Key32, Keys},
    vault::Vault,
};

pub use self::{
    envelope::PasswordCost,
    thread::{Census, FjallStore},
};

const LOCK_FILE: &str = "lock";
const ENVELOPE_FILE: &str = "envelope";
/// Appended to a store's name while it is being made.
const CREATING_SUFFIX: &str = ".creating";
/// Names of a foreign folder's content that an error lists.
const NAMES_LISTED: usize = 5;

/// How a store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    create: Option<PasswordCost>,
    write_buffer_bytes: u64,
}

impl Options {
    /// The store must exist.
    #[must_use]
    pub fn existing() -> Self {
        Self { create: None, write_buffer_bytes: 16 * 1024 * 1024 }
    }

    /// If there is nothing at the path, make a new store whose password is protected at this cost.
    #[must_use]
    pub fn create_if_absent(cost: PasswordCost) -> Self {
        Self { create: Some(cost), ..Self::existing() }
    }

    /// How much the engine keeps in memory before it writes a segment. Default 16 MiB.
    #[must_use]
    pub fn write_buffer_bytes(self, bytes: u64) -> Self {
        Self { write_buffer_bytes: bytes, ..self }
    }
}

/// Why a store cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// There is no store, and none was to be made.
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Something else lives at the path. It was left alone.
    Foreign {
        /// The path.
        path: PathBuf,
        /// What was found there.
        found: String,
    },
    /// Another process has the store open.
    InUse {
        /// The store.
        path: PathBuf,
    },
    /// The store is intact but the password is not its own.
    WrongPassword {
        /// The store.
        path: PathBuf,
    },
    /// A part cannot be read at all. (What can be read but lacks something opens with [`BootRecord::damage`].)
    Damaged {
        /// The damaged file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The operating system refused.
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing { path } => write!(f, "there is no store at {}", path.display()),
            Self::Foreign { path, found } => {
                write!(f, "{} is not a store of this program and was left alone: {found}", path.display())
            }
            Self::InUse { path } => write!(f, "the store {} is in use by another process", path.display()),
            Self::WrongPassword { path } => write!(f, "wrong password for the store {}", path.display()),
            Self::Damaged { path, reason } => write!(f, "the store is damaged: {}: {reason}", path.display()),
            Self::Io { path, source } => write!(f, "{}: {source}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// A store that has been opened and checked.
#[derive(Debug)]
pub struct Opened {
    /// The store, not yet running.
    pub store: StoppedStore,
    /// What core is to be told before it starts.
    pub boot: BootRecord,
    /// Whether the store was made just now.
    pub created: bool,
}

/// An open store whose thread does not run yet.
#[derive(Debug)]
pub struct StoppedStore {
    vault: Vault,
}

impl StoppedStore {
    /// As [`Census::wallets_without_share`].
    #[must_use]
    pub fn wallets_without_share(&self) -> usize {
        self.vault.without_share()
    }

    /// Starts the store's thread, which answers into `inbox`.
    ///
    /// # Errors
    /// If the operating system gives no thread.
    pub fn start(self, inbox: Inbox) -> io::Result<FjallStore> {
        FjallStore::start(self.vault, inbox)
    }
}

/// Opens the store at `path` (a folder of its own), checks every record and reads what core needs at start.
///
/// # Errors
/// See [`OpenError`]. Lost or unreadable records are no error but [`BootRecord::damage`].
pub fn open(path: &Path, password: &Secret, options: Options) -> Result<Opened, OpenError> {
    let created = match (look(path)?, options.create) {
        (Found::Store, _) => false,
        (Found::Nothing, None) => return Err(OpenError::Missing { path: path.to_owned() }),
        (Found::Nothing, Some(cost)) => {
            create(path, password, cost, options.write_buffer_bytes)?;
            true
        }
    };
    let lock_path = path.join(LOCK_FILE);
    let lock = files::lock(&lock_path).map_err(at(&lock_path))?;
    let lock = lock.ok_or_else(|| OpenError::InUse { path: path.to_owned() })?;
    files::restrict_folder(path).map_err(at(path))?;
    let data_key = unlock(path, password)?;
    let (vault, boot) = Vault::open(path, Keys::derive(&data_key), lock, options.write_buffer_bytes)?;
    Ok(Opened { store: StoppedStore { vault }, boot, created })
}

/// Changes the password of a store that is not open: one small file is replaced.
///
/// # Errors
/// See [`OpenError`].
pub fn change_password(path: &Path, old: &Secret, new: &Secret, cost: PasswordCost) -> Result<(), OpenError> {
    match look(path)? {
        Found::Store => {}
        Found::Nothing => return Err(OpenError::Missing { path: path.to_owned() }),
    }
    let lock_path = path.join(LOCK_FILE);
    let lock = files::lock(&lock_path).map_err(at(&lock_path))?;
    let _lock = lock.ok_or_else(|| OpenError::InUse { path: path.to_owned() })?;
    let data_key = unlock(path, old)?;
    write_envelope(path, &data_key, new, cost)
}

/// What is at a path.
enum Found {
    Nothing,
    Store,
}

/// Tells a store from nothing and from something else.
fn look(path: &Path) -> Result<Found, OpenError> {
    let foreign = |found: &str| OpenError::Foreign { path: path.to_owned(), found: found.to_owned() };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(at(path)(error)),
        Ok(metadata) if !metadata.is_dir() => return Err(foreign("it is not a folder")),
        Ok(_) => {}
    }
    if path.join(ENVELOPE_FILE).is_file() {
        return Ok(Found::Store);
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(at(path))? {
        names.push(entry.map_err(at(path))?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    if names.is_empty() {
        return Ok(Found::Nothing);
    }
    let has = |name: &str| names.iter().any(|found| found == name);
    if has(vault::INTEGRITY_FILE) || (has(vault::ENGINE_FOLDER) && has(vault::KEYS_FOLDER)) {
        let reason = "the file is missing; without it no record can be opened".to_owned();
        return Err(OpenError::Damaged { path: path.join(ENVELOPE_FILE), reason });
    }
    let badger = has("MANIFEST")
        && (has("KEYREGISTRY") || names.iter().any(|name| name.ends_with(".vlog") || name.ends_with(".sst")));
    if badger {
        return Err(foreign("it holds a Badger database"));
    }
    names.truncate(NAMES_LISTED);
    Err(foreign(&format!("it holds {}", names.join(", "))))
}

/// Makes a new store beside its place and moves it there as a whole, so that a crash leaves no half store.
fn create(path: &Path, password: &Secret, cost: PasswordCost, write_buffer_bytes: u64) -> Result<(), OpenError> {
    let mut making = path.as_os_str().to_owned();
    making.push(CREATING_SUFFIX);
    let making = PathBuf::from(making);
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(at(parent))?;
    if making.exists() {
        // Left by a crash, unless somebody is at it.
        let lock_path = making.join(LOCK_FILE);
        match files::lock(&lock_path).map_err(at(&lock_path))? {
            None => return Err(OpenError::InUse { path: path.to_owned() }),
            Some(_lock) => fs::remove_dir_all(&making).map_err(at(&making))?,
        }
    }
    files::make_folder(&making).map_err(at(&making))?;
    let lock_path = making.join(LOCK_FILE);
    let lock = files::lock(&lock_path).map_err(at(&lock_path))?;
    let _lock = lock.ok_or_else(|| OpenError::InUse { path: path.to_owned() })?;
    let damaged = |reason| OpenError::Damaged { path: making.clone(), reason };
    let data_key = envelope::fresh_data_key().map_err(damaged)?;
    Vault::create(&making, &Keys::derive(&data_key), write_buffer_bytes)?;
    write_envelope(&making, &data_key, password, cost)?;
    fs::rename(&making, path).map_err(at(path))?;
    files::sync_folder(parent).map_err(at(parent))
}

/// The data key of the store at `path`.
fn unlock(path: &Path, password: &Secret) -> Result<Key32, OpenError> {
    let envelope_path = path.join(ENVELOPE_FILE);
    let damaged = |reason| OpenError::Damaged { path: envelope_path.clone(), reason };
    let file = fs::read(&envelope_path).map_err(at(&envelope_path))?;
    if file.len() > ENVELOPE_BYTES {
        return Err(damaged(format!("it holds {} bytes, expected {ENVELOPE_BYTES}", file.len())));
    }
    envelope::open_envelope(&file, password).map_err(|error| match error {
        EnvelopeError::WrongPassword => OpenError::WrongPassword { path: path.to_owned() },
        EnvelopeError::Damaged(reason) => damaged(reason),
    })
}

fn write_envelope(folder: &Path, data_key: &Key32, password: &Secret, cost: PasswordCost) -> Result<(), OpenError> {
    let path = folder.join(ENVELOPE_FILE);
    let sealed = envelope::seal_envelope(data_key, password, cost)
        .map_err(|reason| OpenError::Damaged { path: path.clone(), reason })?;
    files::replace(&path, &sealed).map_err(at(&path))
}

/// Names the file in an error of the operating system.
fn at(path: &Path) -> impl Fn(io::Error) -> OpenError + use<> {
    let path = path.to_owned();
    move |source| OpenError::Io { path: path.clone(), source }
}
