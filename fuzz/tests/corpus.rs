//! Replays the corpora, mutations of them, and random bytes against every target.

use std::{collections::BTreeSet, path::Path};

use fuzz::{TARGETS, rounds, statements};
use mpcium_core::{
    Time,
    link::{LinkOutput, Links},
};
use proptest::{prelude::*, sample::Index, test_runner::TestRunner};

/// How seeds that a change of formats has made stale are made anew.
const ANEW: &str = "make them anew: FUZZ_SEEDS=write cargo test -p fuzz --test node_inputs seeds";

fn named_seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let Ok(entries) = std::fs::read_dir(&folder) else { return Vec::new() };
    let path = entries.map(|entry| entry.expect("a readable folder").path());
    path.map(|path| (path.display().to_string(), std::fs::read(path).expect("a readable seed"))).collect()
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    named_seeds(target).into_iter().map(|(_, seed)| seed).collect()
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
fn every_seed_of_what_nodes_say_and_keep_is_understood() {
    let mut stale = Vec::new();
    for (name, decoder) in fuzz::decoders() {
        let seeds = named_seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        stale.extend(seeds.into_iter().filter(|(_, seed)| !decoder(seed)).map(|(path, _)| path));
    }
    assert!(stale.is_empty(), "no longer understood, {ANEW}\n{}", stale.join("\n"));
}

/// As many inputs as there is time for.
fn runner(target: &str) -> TestRunner {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let cases = if rounds::SLOW.contains(&target) { config.cases / 8 } else { config.cases };
    TestRunner::new(ProptestConfig { cases, ..config })
}

/// Otherwise the targets of rounds would show what happens to runs that have failed anyway.
#[test]
fn runs_end_well_with_the_messages_of_an_honest_run() {
    for target in rounds::SLOW {
        let mut honest = named_seeds(target);
        honest.retain(|(path, _)| path.contains("whole-") || path.contains("unchanged-"));
        assert!(!honest.is_empty(), "{target} has no honest messages");
        for (path, seed) in honest {
            assert!(rounds::ends_well(target, &seed), "{path}, {ANEW}");
        }
    }
}

/// Otherwise nothing would ever verify, and no forgery would be noticed.
#[test]
fn the_seeds_of_statements_and_certificates_were_signed() {
    for (path, seed) in named_seeds("statement") {
        assert_eq!(statements::is_statement(&seed), !path.ends_with("foreign_signature"), "{path}, {ANEW}");
    }
    for (path, seed) in named_seeds("certificate") {
        assert!(statements::is_certificate(&seed), "{path}, {ANEW}");
    }
}

/// What a node does that has just started and gets a datagram.
fn reaction(datagram: &[u8]) -> Vec<LinkOutput> {
    let mut links = fuzz::links(0);
    let drained = |links: &mut Links| std::iter::from_fn(|| links.poll()).collect::<Vec<_>>();
    drop(drained(&mut links));
    links.handle_datagram(Time(1_000), datagram);
    drained(&mut links)
}

#[test]
fn links_take_the_seeds_of_handshakes_for_good() {
    let seeds = named_seeds("datagram");
    for name in ["hello", "reply"] {
        let seed = seeds.iter().find(|(path, _)| path.ends_with(name));
        let outputs = reaction(&seed.unwrap_or_else(|| panic!("there is no {name}")).1);
        // A hello is answered; before a reply is, its mark has to be durable.
        let answered =
            outputs.iter().any(|output| matches!(output, LinkOutput::Datagram { .. } | LinkOutput::Remember { .. }));
        let complained = outputs.iter().any(|output| matches!(output, LinkOutput::Trouble(_)));
        assert!(answered && !complained, "{name}, {ANEW}\n{outputs:?}");
    }
}

#[test]
fn mutations_of_the_seeds_are_digested() {
    let mut failures = Vec::new();
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        if seeds.is_empty() {
            continue;
        }
        let changes = prop::collection::vec((any::<Index>(), any::<u8>(), 0..4_u8), 1..6);
        let strategy = (prop::sample::select(seeds), changes);
        let outcome = runner(name).run(&strategy, |(mut bytes, changes)| {
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
        });
        failures.extend(outcome.err().map(|error| format!("{name}: {error}")));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn random_bytes_are_digested() {
    let mut failures = Vec::new();
    for (name, target) in TARGETS {
        let outcome = runner(name).run(&prop::collection::vec(any::<u8>(), 0..600), |bytes| {
            target(&bytes);
            Ok(())
        });
        failures.extend(outcome.err().map(|error| format!("{name}: {error}")));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
