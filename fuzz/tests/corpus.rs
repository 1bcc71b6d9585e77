//! Replays the corpora, mutations of them, and random bytes against every target.

use std::{collections::BTreeSet, path::Path};

use fuzz::TARGETS;
use proptest::{prelude::*, sample::Index, test_runner::TestRunner};

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let Ok(entries) = std::fs::read_dir(&folder) else { return Vec::new() };
    entries.map(|entry| std::fs::read(entry.expect("a readable folder").path()).expect("a readable seed")).collect()
}

#[test]
fn every_seed_is_digested() {
    let mut replayed = 0;
    for (name, target) in TARGETS {
        for seed in seeds(name) {
            target(&seed);
            replayed += 1;
        }
    }
    assert!(replayed >= 10, "only {replayed} seeds were found");
}

/// `scripts/fuzz.sh` takes the folders for the list of targets.
#[test]
fn the_folders_of_the_corpus_are_the_targets() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let entries = std::fs::read_dir(corpus).expect("the corpus");
    let folders: BTreeSet<String> =
        entries.map(|entry| entry.expect("a readable folder").file_name().to_string_lossy().into_owned()).collect();
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(folders, targets);
}

/// A seed that no decoder understands any more, because a format has changed, leads a fuzzer nowhere.
#[test]
fn every_decoder_of_core_understands_a_seed() {
    for (name, decoder) in mpcium_core::decode::DECODERS {
        let understood = seeds(name).iter().filter(|seed| decoder(seed)).count();
        assert!(understood > 0, "{name}: none of {} seeds is understood", seeds(name).len());
    }
}

#[test]
fn mutations_of_the_seeds_are_digested() {
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        if seeds.is_empty() {
            continue;
        }
        let changes = prop::collection::vec((any::<Index>(), any::<u8>(), 0..4_u8), 1..6);
        let strategy = (prop::sample::select(seeds), changes);
        TestRunner::default()
            .run(&strategy, |(mut bytes, changes)| {
                for (at, value, how) in changes {
                    if bytes.is_empty() {
                        break;
                    }
                    let at = at.index(bytes.len());
                    match how {
                        0 => bytes[at] = value,
                        1 => bytes.truncate(at),
                        2 => bytes.insert(at, value),
                        _ => drop(bytes.remove(at)),
                    }
                }
                target(&bytes);
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn random_bytes_are_digested() {
    for (name, target) in TARGETS {
        TestRunner::default()
            .run(&prop::collection::vec(any::<u8>(), 0..600), |bytes| {
                target(&bytes);
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
