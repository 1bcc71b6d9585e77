//! The keys of erasable records, in small files that are rewritten as a whole.
//!
//! The engine keeps deleted values in journals and segments for as long as it likes. A record that must be erasable is
//! therefore sealed under a key of its own, and only that key is ever destroyed. Invariants: a key is durable before
//! the record that needs it; a key that was destroyed is durably gone before the erasure is acknowledged; a key that no
//! record needs (a crash between the two) is destroyed at the next start.
//!
//! Cost: the table is cut into buckets by row name, so that writing one record rewrites one file. A million shares
//! over 4096 buckets make files of about 12 KiB; each record written or erased costs one such file and one file sync,
//! plus one folder sync for all that arrive together. The replaced file's blocks are overwritten with zeros when keys
//! leave it; what a copying filesystem or a flash translation layer keeps is out of reach.
//!
//! ```text
//! keys/<keyspace number>-<bucket>   1 || nonce (24) || ciphertext || tag (16); plaintext: (id (16) || key (32))*
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

use mpcium_core::store::Keyspace;
use zeroize::Zeroizing;

use super::{
    files,
    seal::{self, Key32, KeyId, Keys, Reason, RowName},
};

/// Bytes of one bucket file.
const BUCKET_BYTES_MAX: u64 = 64 * 1024 * 1024;
const ENTRY_BYTES: usize = 48;

/// Names a bucket: keyspace number and the bucket's number in it. Rows in order of their names visit buckets in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BucketId {
    keyspace: u8,
    bucket: u16,
}

impl BucketId {
    /// The bucket of a row. The number of buckets per keyspace is part of the format.
    pub(super) fn of(row_name: &RowName) -> Self {
        let [keyspace, high, low, ..] = *row_name;
        let bits = if seal::keyspace(keyspace) == Some(Keyspace::Shares) { 12 } else { 6 };
        Self { keyspace, bucket: u16::from_be_bytes([high, low]) >> (16 - bits) }
    }

    fn file_name(self) -> String {
        format!("{}-{:04x}", self.keyspace, self.bucket)
    }

    fn parse(file_name: &str) -> Option<Self> {
        let (keyspace, bucket) = file_name.split_once('-')?;
        let id = Self { keyspace: keyspace.parse().ok()?, bucket: u16::from_str_radix(bucket, 16).ok()? };
        (id.file_name() == file_name).then_some(id)
    }
}

type Bucket = BTreeMap<KeyId, Key32>;

/// The key table of one store.
#[derive(Debug)]
pub(super) struct KeyTable {
    folder: PathBuf,
    /// The bucket that was used last: a scan stays in one for many rows.
    recent: Option<(BucketId, Bucket)>,
}

impl KeyTable {
    /// The table in `folder`.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, recent: None }
    }

    /// The key of a record; `None` if it has been destroyed or lost.
    pub(super) fn key(&mut self, keys: &Keys, bucket: BucketId, id: &KeyId) -> Result<Option<Key32>, Reason> {
        if self.recent.as_ref().is_none_or(|(recent, _)| *recent != bucket) {
            self.recent = Some((bucket, self.read(keys, bucket)?));
        }
        Ok(self.recent.as_ref().and_then(|(_, entries)| entries.get(id).cloned()))
    }

    /// Adds keys; durable when it returns.
    pub(super) fn add(&mut self, keys: &Keys, added: &[(BucketId, KeyId, Key32)]) -> Result<(), Reason> {
        let mut buckets = BTreeMap::new();
        for (bucket, id, key) in added {
            self.checked_out(keys, &mut buckets, *bucket)?.insert(*id, key.clone());
        }
        self.write(keys, &buckets, false)
    }

    /// Destroys keys; durable when it returns.
    pub(super) fn destroy(&mut self, keys: &Keys, destroyed: &[(BucketId, KeyId)]) -> Result<(), Reason> {
        let mut buckets = BTreeMap::new();
        for (bucket, id) in destroyed {
            self.checked_out(keys, &mut buckets, *bucket)?.remove(id);
        }
        self.write(keys, &buckets, true)
    }

    /// Every key whose id is not in `needed`: what a crash left behind.
    pub(super) fn unneeded(
        &self,
        keys: &Keys,
        needed: &BTreeSet<KeyId>,
    ) -> Result<Vec<(BucketId, KeyId)>, (PathBuf, Reason)> {
        let mut unneeded = Vec::new();
        let listing = fs::read_dir(&self.folder).map_err(|error| (self.folder.clone(), error.to_string()))?;
        for entry in listing {
            let entry = entry.map_err(|error| (self.folder.clone(), error.to_string()))?;
            let bucket = entry.file_name().to_str().and_then(BucketId::parse);
            let Some(bucket) = bucket else {
                return Err((entry.path(), "it does not belong to the key table".to_owned()));
            };
            let entries = self.read(keys, bucket).map_err(|reason| (entry.path(), reason))?;
            unneeded.extend(entries.into_keys().filter(|id| !needed.contains(id)).map(|id| (bucket, id)));
        }
        Ok(unneeded)
    }

    fn checked_out<'a>(
        &self,
        keys: &Keys,
        buckets: &'a mut BTreeMap<BucketId, Bucket>,
        bucket: BucketId,
    ) -> Result<&'a mut Bucket, Reason> {
        use std::collections::btree_map::Entry;
        match buckets.entry(bucket) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => Ok(entry.insert(self.read(keys, bucket)?)),
        }
    }

    fn path(&self, bucket: BucketId) -> PathBuf {
        self.folder.join(bucket.file_name())
    }

    fn read(&self, keys: &Keys, bucket: BucketId) -> Result<Bucket, Reason> {
        let path = self.path(bucket);
        let named = |reason: &dyn std::fmt::Display| format!("{}: {reason}", path.display());
        let Some(sealed) = files::read(&path, BUCKET_BYTES_MAX).map_err(|error| named(&error))? else {
            return Ok(Bucket::new());
        };
        let plain = keys.open_bucket(&bucket.file_name(), &sealed).map_err(|reason| named(&reason))?;
        entries(&plain).map_err(|reason| named(&reason))
    }

    /// Replaces the files of buckets, all at the cost of one folder sync; an empty bucket's file is removed.
    fn write(&mut self, keys: &Keys, buckets: &BTreeMap<BucketId, Bucket>, scrub: bool) -> Result<(), Reason> {
        if buckets.is_empty() {
            return Ok(());
        }
        self.recent = None;
        let named = |path: &Path, reason: &dyn std::fmt::Display| format!("{}: {reason}", path.display());
        for (bucket, entries) in buckets.iter().filter(|(_, entries)| !entries.is_empty()) {
            let sealed = keys.seal_bucket(&bucket.file_name(), &content(entries))?;
            let path = self.path(*bucket);
            files::stage(&path, &sealed).map_err(|error| named(&path, &error))?;
        }
        let mut replaced = Vec::new();
        for (bucket, entries) in buckets {
            let path = self.path(*bucket);
            if scrub && let Ok(file) = OpenOptions::new().write(true).open(&path) {
                replaced.push((path.clone(), file));
            }
            let done = if !entries.is_empty() {
                files::publish(&path)
            } else if path.exists() {
                fs::remove_file(&path)
            } else {
                Ok(())
            };
            done.map_err(|error| named(&path, &error))?;
        }
        files::sync_folder(&self.folder).map_err(|error| named(&self.folder, &error))?;
        // Only now: until the new files are durable the old ones may be what a crash brings back.
        for (path, mut file) in replaced {
            let length = file.metadata().map_err(|error| named(&path, &error))?.len();
            let zeros = vec![0; usize::try_from(length).unwrap_or(0)];
            file.write_all(&zeros).and_then(|()| file.sync_data()).map_err(|error| named(&path, &error))?;
        }
        Ok(())
    }
}

/// Reads the content of a bucket's file.
fn entries(plain: &[u8]) -> Result<Bucket, Reason> {
    if !plain.len().is_multiple_of(ENTRY_BYTES) {
        return Err(format!("its content has {} bytes, not a multiple of {ENTRY_BYTES}", plain.len()));
    }
    let mut entries = Bucket::new();
    for entry in plain.chunks_exact(ENTRY_BYTES) {
        let (id, key) = entry.split_at(ENTRY_BYTES - 32);
        if let (Ok(id), Ok(key)) = (KeyId::try_from(id), <[u8; 32]>::try_from(key)) {
            entries.insert(id, Zeroizing::new(key));
        }
    }
    Ok(entries)
}

/// The content of a bucket's file, in exactly enough memory.
fn content(entries: &Bucket) -> Zeroizing<Vec<u8>> {
    let mut plain = Zeroizing::new(Vec::with_capacity(entries.len() * ENTRY_BYTES));
    for (id, key) in entries {
        plain.extend_from_slice(id);
        plain.extend_from_slice(key.as_slice());
    }
    plain
}

/// Reads the content of a bucket's file; `false`: it is none. See [`super::decode`].
pub(super) fn reads(plain: &[u8]) -> bool {
    let _ = std::str::from_utf8(plain).map(BucketId::parse);
    entries(plain).is_ok_and(|read| {
        assert_eq!(entries(&content(&read)).as_ref(), Ok(&read), "keys change when they are written and read");
        true
    })
}

/// The content of a file with two keys.
pub(super) fn sample() -> Vec<u8> {
    content(&Bucket::from([([1; 16], Zeroizing::new([1; 32])), ([2; 16], Zeroizing::new([2; 32]))])).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destroyed_key_is_in_no_file_any_more() {
        let folder = tempfile::tempdir().expect("folder");
        let keys = Keys::derive(&Zeroizing::new([7; 32]));
        let mut table = KeyTable::new(folder.path().to_owned());
        let row = keys.row_name(Keyspace::Shares, b"wallet");
        let bucket = BucketId::of(&row);
        let added = [(bucket, [1; 16], Zeroizing::new([0xaa; 32])), (bucket, [2; 16], Zeroizing::new([0xbb; 32]))];
        table.add(&keys, &added).expect("added");
        assert!(table.key(&keys, bucket, &[1; 16]).expect("read").is_some());
        table.destroy(&keys, &[(bucket, [1; 16])]).expect("destroyed");
        assert!(table.key(&keys, bucket, &[1; 16]).expect("read").is_none());
        assert!(table.key(&keys, bucket, &[2; 16]).expect("read").is_some());
        for entry in fs::read_dir(folder.path()).expect("listing") {
            let path = entry.expect("entry").path();
            let sealed = fs::read(&path).expect("file");
            let plain = keys.open_bucket(&bucket.file_name(), &sealed).expect("opened with the store's key");
            assert!(!plain.windows(32).any(|window| window == [0xaa; 32]), "{} holds the key", path.display());
        }
        table.destroy(&keys, &[(bucket, [2; 16])]).expect("destroyed");
        assert_eq!(fs::read_dir(folder.path()).expect("listing").count(), 0, "an empty bucket leaves no file");
    }

    #[test]
    fn keys_that_nothing_needs_are_found() {
        let folder = tempfile::tempdir().expect("folder");
        let keys = Keys::derive(&Zeroizing::new([7; 32]));
        let mut table = KeyTable::new(folder.path().to_owned());
        let bucket = BucketId::of(&keys.row_name(Keyspace::Auxiliary, b"set"));
        let added = [(bucket, [1; 16], Zeroizing::new([1; 32])), (bucket, [2; 16], Zeroizing::new([2; 32]))];
        table.add(&keys, &added).expect("added");
        let unneeded = table.unneeded(&keys, &BTreeSet::from([[1; 16]])).expect("read");
        assert_eq!(unneeded, [(bucket, [2; 16])]);
    }
}
