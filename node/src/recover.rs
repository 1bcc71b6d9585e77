//! `mpcium recover`: the Go system's command for its backups, which cannot be carried out here.
//!
//! It reads, changes and asks for nothing but the names and heads of the backup files, and says exactly what is
//! possible, so that nobody waits for, or relies on, a recovery that does not happen.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

/// The first bytes of a backup file of the Go system.
const MAGIC: &[u8] = b"MPCIUM_BACKUP";

/// `recover`.
///
/// # Errors
/// Always, in this version: what was found and what can be done with it.
pub fn recover(folder: &Path, target: &Path, force: bool) -> Result<(), String> {
    if target.exists() && !force {
        return Err(format!("{} exists already and is not overwritten", target.display()));
    }
    let backups = backups(folder)?;
    let Some((newest, rest)) = backups.split_last() else {
        return Err(format!("{}: there is no backup file (backup-*.enc)", folder.display()));
    };
    Err(format!(
        "nothing was recovered, and nothing was changed.\n\
         {} holds {} of the Go system, the newest is {}.\n\
         Such a file is a piece of that system's Badger database, encrypted with its badger_password. It holds key \
         shares in the form of that system's protocols, which this program cannot use, and this version neither makes \
         nor reads backups of its own.\n\
         What is possible: run `mpcium-cli recover` of the Go system with these files and start its nodes on the \
         result; its wallets keep working there. Keep the files and that password: both are needed.",
        folder.display(),
        if rest.is_empty() { "1 backup file".to_owned() } else { format!("{} backup files", backups.len()) },
        newest.file_name().unwrap_or_default().to_string_lossy(),
    ))
}

/// The Go system's backup files in a folder, in the order of their names, which is that of their making.
fn backups(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("backup-") && name.ends_with(".enc") {
            let mut head = Vec::new();
            let file = std::fs::File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            file.take(MAGIC.len() as u64)
                .read_to_end(&mut head)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            if head != MAGIC {
                return Err(format!("{}: is no backup file of the Go system, or is cut off", path.display()));
            }
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_is_there_and_changes_nothing() {
        let home = tempfile::tempdir().expect("temporary folder");
        let (folder, target) = (home.path().join("backups"), home.path().join("restored"));
        assert!(recover(&folder, &target, false).expect_err("no folder").contains("backups"));
        std::fs::create_dir(&folder).expect("folder");
        assert!(recover(&folder, &target, false).expect_err("empty").contains("there is no backup file"));
        for name in ["backup-node0-2026-01-02_03-04-05-1.enc", "backup-node0-2026-01-03_03-04-05-2.enc"] {
            std::fs::write(folder.join(name), b"MPCIUM_BACKUP\0\0\0\x02{}").expect("file");
        }
        std::fs::write(folder.join("latest.version"), b"{}").expect("file");
        let said = recover(&folder, &target, false).expect_err("never possible");
        assert!(said.contains("2 backup files") && said.contains("2026-01-03_03-04-05-2.enc"), "{said}");
        assert!(said.contains("nothing was changed") && said.contains("of the Go system"), "{said}");
        std::fs::create_dir(&target).expect("folder");
        assert!(recover(&folder, &target, false).expect_err("exists").contains("not overwritten"));
        assert!(recover(&folder, &target, true).expect_err("never possible").contains("nothing was changed"));
        assert!(target.exists(), "not even --force removes anything");
        std::fs::write(folder.join("backup-x.enc"), b"MPC").expect("file");
        assert!(recover(&folder, &target, true).expect_err("cut off").contains("backup-x.enc: is no backup"));
    }
}
