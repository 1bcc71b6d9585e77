//! The few ways in which the store touches files of its own: private, replaced only as a whole, durable when the
//! call returns.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// Appended to the name of a file that is being written.
const UNFINISHED: &str = "unfinished";

/// Makes a folder that only its owner may enter.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Takes away what others may do with a folder.
pub(super) fn restrict_folder(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

/// Makes what was created, renamed or removed in a folder durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Writes `bytes` durably beside `path`; [`publish`] then puts them in its place.
pub(super) fn stage(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(unfinished_name(path))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Puts a staged file in its place. Durable only after [`sync_folder`].
pub(super) fn publish(path: &Path) -> io::Result<()> {
    fs::rename(unfinished_name(path), path)
}

/// Replaces a file as a whole: a crash leaves either the old or the new content.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    stage(path, bytes)?;
    publish(path)?;
    match path.parent() {
        Some(folder) => sync_folder(folder),
        None => Ok(()),
    }
}

/// Removes what a crash left of [`stage`].
pub(super) fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == UNFINISHED) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Reads a file of at most `limit` bytes; `None` if there is none.
pub(super) fn read(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let size = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if size > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it holds {size} bytes, expected at most {limit}"),
        ));
    }
    fs::read(path).map(Some)
}

/// Opens the lock file, creating it if need be, and takes the lock; `None`: another process holds it.
pub(super) fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

fn unfinished_name(path: &Path) -> PathBuf {
    path.with_extension(UNFINISHED)
}
