//! The file with the integrity record beside the engine: two slots that take turns, each overwritten in place.
//!
//! Replacing a file as a whole costs two syncs and four changes to folders, more than the engine's own commit. In place
//! it is one sync of one block. A crash can tear only the slot that is being written; the other one then still holds
//! the record before, which is what the engine may be one commit ahead of.
//!
//! ```text
//! at 0 and at 256 KiB:  2 || length (4, LE) || sealed record
//! ```
//!
//! The slot of a record is its sequence number modulo 2. Before there were slots the file was one sealed record, whose
//! first byte is 1; such a file is read, and replaced at the next start or commit.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt as _,
    path::PathBuf,
};

use super::{
    files,
    integrity::State,
    seal::{Keys, Reason},
};

/// First byte of a slot.
const SLOT_VERSION: u8 = 2;
/// From one slot to the next.
const SLOT_BYTES: usize = 256 * 1024;
const HEADER_BYTES: usize = 5;

/// What the file says.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The newest record.
    pub(super) state: Option<State>,
    /// What is wrong with the file, or with a slot that no crash explains.
    pub(super) damage: Vec<Reason>,
    /// Both slots are good.
    whole: bool,
}

/// The file.
#[derive(Debug)]
pub(super) struct Beside {
    path: PathBuf,
    /// Open for writing in place; `None` until the file is known to have its slots.
    file: Option<File>,
}

impl Beside {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    /// Reads the file; `inside` is the sequence number of the engine's record. `Err`: the operating system refuses.
    pub(super) fn read(&self, keys: &Keys, inside: Option<u64>) -> std::io::Result<Found> {
        let broken = |reason| Found { damage: vec![reason], ..Found::default() };
        let bytes = match files::read(&self.path, 2 * SLOT_BYTES as u64) {
            Ok(None) => return Ok(broken("it is missing".to_owned())),
            Ok(Some(bytes)) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => return Ok(broken(error.to_string())),
            Err(error) => return Err(error),
        };
        if bytes.first() != Some(&SLOT_VERSION) && bytes.get(SLOT_BYTES) != Some(&SLOT_VERSION) {
            return Ok(match State::open(keys, &bytes) {
                Ok(state) => Found { state: Some(state), ..Found::default() },
                Err(reason) => broken(reason),
            });
        }
        let slots = [slot(keys, &bytes, 0), slot(keys, &bytes, 1)];
        let whole = slots.iter().all(Result::is_ok);
        let (mut states, mut damage) = (Vec::new(), Vec::new());
        for outcome in slots {
            outcome.map_or_else(|reason| damage.push(reason), |state| states.push(state));
        }
        let state = states.into_iter().max_by_key(|state| state.sequence);
        // Torn by a crash is only the slot of a commit that the engine has and the file does not.
        if state.as_ref().is_some_and(|state| inside == Some(state.sequence + 1)) {
            damage.clear();
        }
        Ok(Found { state, damage, whole })
    }

    /// Brings the file to `state` and to its present form, if it is not there yet.
    pub(super) fn put_right(
        &mut self,
        keys: &Keys,
        found: &Found,
        state: &State,
    ) -> std::io::Result<Result<(), Reason>> {
        if !found.whole || found.state.as_ref() != Some(state) {
            let sealed = match state.seal(keys).and_then(|sealed| both(&sealed)) {
                Ok(bytes) => bytes,
                Err(reason) => return Ok(Err(reason)),
            };
            files::replace(&self.path, &sealed)?;
        }
        self.file = Some(OpenOptions::new().write(true).open(&self.path)?);
        Ok(Ok(()))
    }

    /// Makes a sealed record durable. One that is torn by a crash leaves the one before.
    pub(super) fn write(&mut self, sequence: u64, sealed: &[u8]) -> Result<(), Reason> {
        let named = |error: std::io::Error| format!("{}: {error}", self.path.display());
        let Some(file) = &self.file else {
            // After damage nothing is known of the file.
            files::replace(&self.path, &both(sealed)?).map_err(named)?;
            self.file = Some(OpenOptions::new().write(true).open(&self.path).map_err(named)?);
            return Ok(());
        };
        let at = if sequence.is_multiple_of(2) { 0 } else { SLOT_BYTES as u64 };
        file.write_all_at(&framed(sealed)?, at).and_then(|()| file.sync_data()).map_err(named)
    }
}

/// A slot's content.
fn framed(sealed: &[u8]) -> Result<Vec<u8>, Reason> {
    let length = u32::try_from(sealed.len()).ok().filter(|_| sealed.len() <= SLOT_BYTES - HEADER_BYTES);
    let length = length.ok_or_else(|| format!("the integrity record has {} bytes and fits no slot", sealed.len()))?;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + sealed.len());
    bytes.push(SLOT_VERSION);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(sealed);
    Ok(bytes)
}

/// A file with this record in both slots.
fn both(sealed: &[u8]) -> Result<Vec<u8>, Reason> {
    let slot = framed(sealed)?;
    let mut bytes = slot.clone();
    bytes.resize(SLOT_BYTES, 0);
    bytes.extend_from_slice(&slot);
    Ok(bytes)
}

fn slot(keys: &Keys, bytes: &[u8], number: usize) -> Result<State, Reason> {
    let cut = || format!("slot {number} is cut off");
    let slot = bytes.get(number * SLOT_BYTES..).ok_or_else(cut)?;
    let (header, rest) = slot.split_first_chunk::<HEADER_BYTES>().ok_or_else(cut)?;
    let [version, length @ ..] = *header;
    if version != SLOT_VERSION {
        return Err(format!("slot {number} is of version {version}, this program reads up to {SLOT_VERSION}"));
    }
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    let sealed = rest.get(..length).ok_or_else(cut)?;
    State::open(keys, sealed).map_err(|reason| format!("slot {number}: {reason}"))
}

/// Reads a slot of a file under these keys; `false`: it is none. See [`super::decode`].
pub(super) fn reads(keys: &Keys, bytes: &[u8]) -> bool {
    let mut file = bytes.to_vec();
    file.resize(SLOT_BYTES, 0);
    file.extend_from_slice(bytes);
    // Alone, it is a file that was cut off.
    drop(slot(keys, bytes, 1));
    let read = slot(keys, bytes, 0);
    assert_eq!(slot(keys, &file, 1).ok(), read.as_ref().ok().cloned(), "a slot means something else in another place");
    read.is_ok()
}

/// A slot as it is written under these keys.
pub(super) fn sample(keys: &Keys) -> Result<Vec<u8>, Reason> {
    framed(&State::first().seal(keys)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(sequence: u64) -> State {
        let mut state = State::first();
        state.sequence = sequence;
        state
    }

    fn written(keys: &Keys, path: PathBuf, last: u64) -> Beside {
        let mut beside = Beside::new(path);
        for sequence in 1..=last {
            beside.write(sequence, &at(sequence).seal(keys).expect("sealed")).expect("written");
        }
        beside
    }

    fn keys() -> Keys {
        Keys::derive(&zeroize::Zeroizing::new([7; 32]))
    }

    #[test]
    fn the_newest_record_is_found_whichever_slot_holds_it() {
        let (folder, keys) = (tempfile::tempdir().expect("folder"), keys());
        for last in 1..6 {
            let beside = written(&keys, folder.path().join(last.to_string()), last);
            let found = beside.read(&keys, Some(last)).expect("read");
            assert_eq!((found.state, found.damage, found.whole), (Some(at(last)), Vec::new(), true));
        }
    }

    #[test]
    fn a_slot_that_a_crash_tore_is_no_damage_and_any_other_is() {
        let (folder, keys) = (tempfile::tempdir().expect("folder"), keys());
        for last in 4..6 {
            let path = folder.path().join(last.to_string());
            let beside = written(&keys, path.clone(), last);
            let mut bytes = std::fs::read(&path).expect("file");
            let middle_of = |sequence: u64| usize::try_from(sequence % 2).expect("small") * SLOT_BYTES + 20;
            bytes[middle_of(last)] ^= 1;
            std::fs::write(&path, &bytes).expect("torn");
            let found = beside.read(&keys, Some(last)).expect("read");
            assert_eq!((found.state, found.damage.len(), found.whole), (Some(at(last - 1)), 0, false));
            // The engine has what is acknowledged, so nothing was being written.
            assert_eq!(beside.read(&keys, Some(last - 1)).expect("read").damage.len(), 1);
            bytes[middle_of(last - 1)] ^= 1;
            std::fs::write(&path, &bytes).expect("damaged");
            let found = beside.read(&keys, Some(last)).expect("read");
            assert_eq!((found.state, found.damage.len()), (None, 2));
        }
    }

    #[test]
    fn a_file_from_before_there_were_slots_is_read_and_replaced() {
        let (folder, keys) = (tempfile::tempdir().expect("folder"), keys());
        let path = folder.path().join("integrity");
        std::fs::write(&path, at(9).seal(&keys).expect("sealed")).expect("written");
        let mut beside = Beside::new(path);
        let found = beside.read(&keys, Some(9)).expect("read");
        assert_eq!((&found.state, &found.damage), (&Some(at(9)), &Vec::new()));
        beside.put_right(&keys, &found, &at(9)).expect("replaced").expect("sealed");
        beside.write(10, &at(10).seal(&keys).expect("sealed")).expect("written");
        let found = beside.read(&keys, Some(10)).expect("read");
        assert_eq!((found.state, found.damage, found.whole), (Some(at(10)), Vec::new(), true));
    }
}
