//! Files are altered at random places: either the start says so, or nothing is lost. Never a silent loss.

use std::{collections::BTreeMap, fs, io::Write as _, path::Path};

use mpcium_core::store::{Batch, Keyspace};

use crate::fjall::{Options, PasswordCost};

use super::{Running, all_files, reopen_with};

/// How many places are damaged.
const PLACES: u64 = 200;

type Content = BTreeMap<(Keyspace, Vec<u8>), Vec<u8>>;

/// A small generator, so that a failing place can be found again.
fn draw(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *seed;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The engine fills segments quickly, so that damage hits them and the journal alike.
fn options() -> Options {
    Options::create_if_absent(PasswordCost::TRIVIAL).write_buffer_bytes(64 * 1024)
}

fn content(running: &mut Running) -> Content {
    let mut content = Content::new();
    for keyspace in Keyspace::ALL {
        for (name, value) in running.scan(keyspace, b"", usize::MAX) {
            content.insert((keyspace, name), value.expose().to_vec());
        }
    }
    content
}

/// Fills a store and gives what must be in it.
fn fill(path: &Path) -> Content {
    let mut running = Running::start(reopen_with(path, options()).expect("made"));
    let mut seed = 1;
    for number in 0..60 {
        let mut batch = Batch::default();
        for keyspace in Keyspace::ALL {
            let name = format!("record{}", draw(&mut seed) % 40).into_bytes();
            match draw(&mut seed) % 5 {
                0 => batch.remove(keyspace, name),
                _ => batch.put(keyspace, name, vec![number; 300]),
            }
        }
        running.persist(batch);
    }
    let content = content(&mut running);
    running.close();
    content
}

/// Puts files as they were. The journal is preallocated, so zeros at the end stay a hole.
fn restore(path: &Path, files: &[(std::path::PathBuf, Vec<u8>)]) {
    fs::remove_dir_all(path).expect("removed");
    for folder in ["keys", "records"] {
        fs::create_dir_all(path.join(folder)).expect("folder");
    }
    for (file, bytes) in files {
        fs::create_dir_all(file.parent().expect("parent")).expect("folder");
        let mut copy = fs::File::create(file).expect("created");
        copy.write_all(&bytes[..written(bytes)]).expect("written");
        copy.set_len(bytes.len() as u64).expect("length");
    }
}

/// Bytes before the zeros at the end.
fn written(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

#[test]
fn two_swapped_rows_are_named() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    fill(&path);
    {
        let database = ::fjall::Database::builder(path.join("records")).open().expect("engine");
        let rows = database.keyspace("rows", ::fjall::KeyspaceCreateOptions::default).expect("rows");
        let prefix = [crate::fjall::seal::number(Keyspace::Certificates)];
        let pair: Vec<_> = rows.prefix(prefix).take(2).map(|row| row.into_inner().expect("row")).collect();
        rows.insert(&*pair[0].0, &*pair[1].1).expect("swapped");
        rows.insert(&*pair[1].0, &*pair[0].1).expect("swapped");
        database.persist(::fjall::PersistMode::SyncAll).expect("synced");
    }
    let damage = reopen_with(&path, Options::existing()).expect("opened").boot.damage;
    let named = damage.iter().filter(|words| words.contains("of certificates cannot be read: its seal does not fit"));
    assert_eq!(named.count(), 2, "{damage:?}");
}

#[test]
fn a_flipped_byte_or_a_cut_tail_is_named_or_harmless() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    let expected = fill(&path);
    let files = all_files(&path);
    let (mut named, mut harmless) = (0, 0);
    for place in 0..PLACES {
        let mut seed = place;
        restore(&path, &files);
        // Half of the places are in the engine's few files, the rest anywhere.
        let anywhere = place % 2 == 0;
        let targets: Vec<_> = files
            .iter()
            .filter(|(file, bytes)| written(bytes) > 0 && (anywhere || file.starts_with(path.join("records"))))
            .collect();
        let (file, bytes) = targets[usize::try_from(draw(&mut seed)).expect("64 bits") % targets.len()];
        let position = usize::try_from(draw(&mut seed)).expect("64 bits") % written(bytes);
        let cut = draw(&mut seed).is_multiple_of(3);
        if cut {
            fs::File::options().write(true).open(file).expect("file").set_len(position as u64).expect("cut");
        } else {
            let mut altered = bytes[..written(bytes)].to_vec();
            altered[position] ^= 1 << (draw(&mut seed) % 8);
            let mut copy = fs::File::create(file).expect("file");
            copy.write_all(&altered).expect("written");
            copy.set_len(bytes.len() as u64).expect("length");
        }
        let what = format!("place {place}: {} at {position}, cut: {cut}", file.display());
        match reopen_with(&path, Options::existing().write_buffer_bytes(64 * 1024)) {
            Err(error) => {
                assert!(!error.to_string().is_empty(), "{what}");
                named += 1;
            }
            Ok(opened) if !opened.boot.damage.is_empty() => named += 1,
            Ok(opened) => {
                let mut running = Running::start(opened);
                assert_eq!(content(&mut running), expected, "silent loss: {what}");
                harmless += 1;
            }
        }
    }
    assert!(named > 0, "no damage was ever named ({harmless} harmless)");
}
